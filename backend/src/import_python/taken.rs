//! What a row of the Python system is here.
//!
//! Its backend reads a setting of 0 or "" as its default (`x or default`), and
//! sends and hashes that one: so it is that one which is taken over, and the
//! hash stays.

use std::collections::{BTreeMap, HashMap, HashSet};

use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::schedule::zone;
use jiff::tz::TimeZone;
use serde_json::json;
use serde_json::value::RawValue;

use crate::store::python::{PythonAlert, PythonDevice, PythonEvent, PythonSite};
use crate::store::sites::TokenDigest;

/// How many examples of an oddity are kept.
const EXAMPLES: usize = 5;

/// A value that is not taken as it is, or that an administrator should
/// look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Odd {
    /// A device that an agent sets aside.
    Rejected,
    /// A device whose driver no agent has.
    Driver,
    /// A time zone that is none.
    Zone,
    /// A setting of 0 or "".
    Default,
    /// A setting that the schema does not take.
    Range,
    /// A name or address that is empty or taken.
    Renamed,
    /// A token that is empty, or another site's.
    Token,
    /// JSON where an object should be.
    NoObject,
    /// A device or alert of a site that is not there.
    NoSite,
    /// A status in other letters.
    StatusLetters,
    /// A status that is none.
    Status,
    /// A verdict in other letters.
    VerdictLetters,
    /// A verdict that is none.
    Verdict,
    /// No verdict at all.
    NoVerdict,
    /// Two events of a device at the same time.
    Twice,
    /// An event whose time is ahead of the clock, or none.
    Time,
    /// An alert of another severity.
    Severity,
    /// An alert that was closed before it was opened.
    Backwards,
    /// A second open alert of a device.
    SecondOpen,
}

/// How often each oddity was met, and examples of it.
#[derive(Debug, Default)]
pub(super) struct Tallies(pub(super) BTreeMap<Odd, Tally>);

/// See [`Tallies`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

impl Tallies {
    pub(super) fn note(&mut self, odd: Odd, example: impl FnOnce() -> String) {
        let tally = self.0.entry(odd).or_default();
        tally.count += 1;
        if tally.examples.len() < EXAMPLES {
            let example = example();
            if !example.is_empty() && !tally.examples.contains(&example) {
                tally.examples.push(example);
            }
        }
    }
}

/// A site as it is here.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) digest: TokenDigest,
    pub(super) timezone: String,
    pub(super) doubt_after_days: i32,
    pub(super) ok_interval_s: i32,
    pub(super) ko_interval_s: i32,
    /// The hash that the Python system stored, and when.
    pub(super) their_hash: Option<String>,
    pub(super) their_hash_at: Option<String>,
}

/// The sites. `fresh` makes a token that is not known yet.
pub(super) fn sites(
    rows: Vec<PythonSite>,
    tallies: &mut Tallies,
    fresh: &mut dyn FnMut() -> String,
) -> Vec<Site> {
    let mut names = HashSet::new();
    let mut tokens = HashSet::new();
    rows.into_iter()
        .map(|row| site(row, tallies, fresh, &mut names, &mut tokens))
        .collect()
}

fn site(
    row: PythonSite,
    tallies: &mut Tallies,
    fresh: &mut dyn FnMut() -> String,
    names: &mut HashSet<String>,
    tokens: &mut HashSet<String>,
) -> Site {
    let mut name = row.name;
    if name.trim().is_empty() || names.contains(&name) {
        let given = match name.trim() {
            "" => format!("Site {}", row.id),
            name => format!("{name} ({})", row.id),
        };
        tallies.note(Odd::Renamed, || format!("site {name:?} is {given:?}"));
        name = given;
    }
    names.insert(name.clone());
    let mut token = row.token;
    if token.is_empty() || !tokens.insert(token.clone()) {
        tallies.note(Odd::Token, || name.clone());
        token = fresh();
    }
    let timezone = match row.timezone.is_empty() {
        true => {
            tallies.note(Odd::Default, || format!("{name}: timezone \"\""));
            "Europe/Paris".to_owned()
        }
        false => row.timezone,
    };
    if zone(&timezone).is_none() {
        tallies.note(Odd::Zone, || format!("{name}: {timezone:?}"));
    }
    let mut setting =
        |field: &str, value: Option<i64>, default: i32, least: i64, most: i64| match value {
            None => default,
            Some(0) => {
                tallies.note(Odd::Default, || format!("{name}: {field} 0"));
                default
            }
            Some(value) => {
                let fits = value.clamp(least, most);
                if fits != value {
                    tallies.note(Odd::Range, || format!("{name}: {field} {value} is {fits}"));
                }
                i32::try_from(fits).unwrap_or(default)
            }
        };
    let doubt_after_days = setting("doubt_after_days", row.doubt_after_days, 2, 0, 36_500);
    let ok_interval_s = setting("ok_interval_s", row.ok_interval_s, 300, 1, 86_400);
    let ko_interval_s = setting("ko_interval_s", row.ko_interval_s, 60, 1, 86_400);
    Site {
        id: row.id,
        digest: TokenDigest::of(&token),
        name,
        timezone,
        doubt_after_days,
        ok_interval_s,
        ko_interval_s,
        their_hash: row.config_version,
        their_hash_at: row.config_updated_at,
    }
}

/// The devices; `rows` come with unique ids.
pub(super) fn devices(
    rows: Vec<PythonDevice>,
    sites: &[Site],
    tallies: &mut Tallies,
) -> Vec<PythonDevice> {
    let by_id: HashMap<i64, &Site> = sites.iter().map(|site| (site.id, site)).collect();
    let mut places = HashSet::new();
    let mut taken = Vec::with_capacity(rows.len());
    for mut row in rows {
        let Some(site) = by_id.get(&row.site_id) else {
            tallies.note(Odd::NoSite, || {
                format!("device {} ({}, site {})", row.name, row.ip, row.site_id)
            });
            continue;
        };
        if row.ip.is_empty() || places.contains(&(row.site_id, row.ip.clone())) {
            let given = match row.ip.as_str() {
                "" => format!("none-{}", row.id),
                ip => format!("{ip}#{}", row.id),
            };
            tallies.note(Odd::Renamed, || {
                format!("address {:?} of {} is {given:?}", row.ip, row.name)
            });
            row.ip = given;
        }
        places.insert((row.site_id, row.ip.clone()));
        for (field, json) in [
            ("driver_config", &mut row.driver_config),
            ("expectations", &mut row.expectations),
        ] {
            let Some(text) = json else { continue };
            if text.starts_with('{') || text == "null" {
                continue;
            }
            tallies.note(Odd::NoObject, || format!("{field} of {}", row.name));
            if is_falsy(text) {
                *json = Some("{}".to_owned());
            }
        }
        look_at(&row, site, tallies);
        taken.push(row);
    }
    taken
}

/// What Python takes for false, and its backend for `{}`.
fn is_falsy(json: &str) -> bool {
    matches!(json, "false" | "\"\"" | "[]") || json.parse() == Ok(0.0)
}

/// Notes what an agent would say of a device.
fn look_at(row: &PythonDevice, site: &Site, tallies: &mut Tallies) {
    let who = || format!("{} ({}, {})", row.name, row.ip, site.name);
    let raw = |json: &Option<String>| {
        let text = json.clone().unwrap_or_else(|| "{}".to_owned());
        RawValue::from_string(text).ok()
    };
    let document = json!({
        "ip": row.ip, "name": row.name, "type": row.device_type, "driver": row.driver,
        "driver_config": raw(&row.driver_config), "expectations": raw(&row.expectations),
    });
    let site_zone = zone(&site.timezone).unwrap_or(TimeZone::UTC);
    let mut warnings = Vec::new();
    match Device::parse(&document.to_string(), &site_zone, &mut warnings) {
        Err(errors) => tallies.note(Odd::Rejected, || {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("{}: {}", who(), errors.join("; "))
        }),
        Ok(device) => {
            if matches!(device.settings, DriverSettings::Other { .. }) {
                tallies.note(Odd::Driver, || format!("{}: {}", who(), row.driver));
            }
        }
    }
    for warning in warnings
        .iter()
        .filter(|warning| warning.to_string().contains("time zone"))
    {
        tallies.note(Odd::Zone, || format!("{}: {warning}", who()));
    }
}

/// A status or verdict as it is here.
pub(super) fn status(text: Option<&str>, tallies: &mut Tallies) -> &'static str {
    let given = text.unwrap_or_default();
    let word = match given.trim().to_lowercase().as_str() {
        "online" => "online",
        "offline" => "offline",
        "unknown" => "unknown",
        _ => {
            tallies.note(Odd::Status, || format!("{given:?}"));
            return "unknown";
        }
    };
    if word != given {
        tallies.note(Odd::StatusLetters, || format!("{given:?}"));
    }
    word
}

/// See [`status`].
pub(super) fn verdict(text: Option<&str>, tallies: &mut Tallies) -> &'static str {
    let Some(given) = text.filter(|text| !text.is_empty()) else {
        tallies.note(Odd::NoVerdict, String::new);
        return "unknown";
    };
    let word = match given.trim().to_lowercase().as_str() {
        "ok" => "ok",
        "fault" => "fault",
        "expected_off" => "expected_off",
        "doubt" => "doubt",
        "unknown" => "unknown",
        _ => {
            tallies.note(Odd::Verdict, || format!("{given:?}"));
            return "unknown";
        }
    };
    if word != given {
        tallies.note(Odd::VerdictLetters, || format!("{given:?}"));
    }
    word
}

/// Metrics are an object; what is none is kept inside one.
fn metrics(json: Option<String>, tallies: &mut Tallies) -> String {
    match json {
        None => "{}".to_owned(),
        Some(json) if json.starts_with('{') => json,
        Some(json) => {
            tallies.note(Odd::NoObject, || "metrics".to_owned());
            match json.as_str() {
                "null" => "{}".to_owned(),
                _ => format!("{{\"value\": {json}}}"),
            }
        }
    }
}

/// A row of the history as it is here.
pub(super) struct Observation {
    pub(super) site_id: String,
    pub(super) device_id: String,
    pub(super) event: PythonEvent,
    pub(super) status: &'static str,
    pub(super) verdict: &'static str,
    pub(super) metrics: String,
}

impl Observation {
    /// The columns of `Table::Observations`.
    pub(super) fn row(&self) -> [Option<&str>; 9] {
        let at = Some(self.event.at.as_str());
        [
            Some(&self.site_id),
            Some(&self.device_id),
            Some(&self.event.ip),
            at,
            at,
            Some(self.status),
            Some(self.verdict),
            self.event.detail.as_deref(),
            Some(&self.metrics),
        ]
    }
}

/// What the events of one device come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) first: String,
    pub(super) last: String,
    pub(super) status: (&'static str, String),
    pub(super) verdict: (&'static str, String),
}

/// What all events come to. They are taken in the order of devices and times.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) count: u64,
    pub(super) devices: HashMap<i64, Past>,
}

impl History {
    /// What an event is here, where it is taken.
    pub(super) fn take(
        &mut self,
        mut event: PythonEvent,
        tallies: &mut Tallies,
    ) -> Option<Observation> {
        if event.is_out_of_time {
            tallies.note(Odd::Time, || event.at.clone());
            return None;
        }
        let past = self.devices.get_mut(&event.device_id);
        if past.as_ref().is_some_and(|past| past.last == event.at) {
            tallies.note(Odd::Twice, || format!("{} at {}", event.ip, event.at));
            return None;
        }
        let status = status(event.status.as_deref(), tallies);
        let verdict = verdict(event.verdict.as_deref(), tallies);
        let metrics = metrics(event.metrics.take(), tallies);
        match past {
            Some(past) => {
                past.last.clone_from(&event.at);
                for (was, is) in [(&mut past.status, status), (&mut past.verdict, verdict)] {
                    if was.0 != is {
                        *was = (is, event.at.clone());
                    }
                }
            }
            None => {
                self.devices.insert(
                    event.device_id,
                    Past {
                        first: event.at.clone(),
                        last: event.at.clone(),
                        status: (status, event.at.clone()),
                        verdict: (verdict, event.at.clone()),
                    },
                );
            }
        }
        self.count += 1;
        Some(Observation {
            site_id: event.site_id.to_string(),
            device_id: event.device_id.to_string(),
            event,
            status,
            verdict,
            metrics,
        })
    }

    /// When a device was first reported.
    pub(super) fn first(&self, device: i64) -> Option<&str> {
        self.devices.get(&device).map(|past| past.first.as_str())
    }

    /// The highest id of a device that has a history.
    pub(super) fn highest_device(&self) -> i64 {
        self.devices.keys().copied().max().unwrap_or(0)
    }
}

/// What is known of a device, as it is here: the columns of `Table::States`;
/// nothing where it was never reported.
pub(super) fn state(
    device: &mut PythonDevice,
    history: &History,
    tallies: &mut Tallies,
) -> Option<[Option<String>; 11]> {
    let seen = device.last_seen.clone()?;
    let status = status(device.status.as_deref(), tallies);
    let verdict = verdict(device.verdict.as_deref(), tallies);
    let past = history.devices.get(&device.id);
    let since = |of: fn(&Past) -> &(&'static str, String), is: &str| {
        past.map(of)
            .filter(|(was, _)| *was == is)
            .map_or_else(|| seen.clone(), |(_, at)| at.clone())
    };
    let (status_since, verdict_since) = (
        since(|past| &past.status, status),
        since(|past| &past.verdict, verdict),
    );
    Some([
        Some(device.id.to_string()),
        Some(status.to_owned()),
        Some(verdict.to_owned()),
        device.detail.take(),
        Some(metrics(device.metrics.take(), tallies)),
        Some(seen.clone()),
        Some(seen),
        device.last_ok_at.take(),
        Some(status_since),
        Some(verdict_since),
        Some(past.map_or_else(|| "-infinity".to_owned(), |past| past.last.clone())),
    ])
}

/// What all alerts come to. They are taken in the order of devices and times.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    pub(super) count: u64,
    pub(super) open: u64,
    pub(super) acknowledged: u64,
    /// Those whose severity is `warning`.
    pub(super) warnings: Vec<i64>,
    /// The device whose open alert was the last taken.
    open_of: Option<i64>,
    highest_device: i64,
}

impl Alerts {
    /// What an alert is here, where it is taken: the columns of
    /// `Table::Alerts`.
    pub(super) fn take(
        &mut self,
        alert: PythonAlert,
        sites: &HashSet<i64>,
        devices: &HashMap<i64, (&str, &str)>,
        now: &str,
        tallies: &mut Tallies,
    ) -> Option<[Option<String>; 13]> {
        if !sites.contains(&alert.site_id) {
            tallies.note(Odd::NoSite, || format!("alert {}", alert.id));
            return None;
        }
        let given = alert.severity.as_deref().unwrap_or_default();
        let severity = match given {
            "critical" => "critical",
            "warning" => "warning",
            other => {
                tallies.note(Odd::Severity, || format!("{other:?}"));
                "warning"
            }
        };
        if severity == "warning" {
            self.warnings.push(alert.id);
        }
        if alert.is_backwards {
            tallies.note(Odd::Backwards, || format!("alert {}", alert.id));
        }
        let opened_at = alert.opened_at.unwrap_or_else(|| now.to_owned());
        let mut closed_at = alert.closed_at;
        let mut closed_by = closed_at.as_ref().map(|_| "ok");
        if closed_at.is_none() {
            if self.open_of == Some(alert.device_id) {
                tallies.note(Odd::SecondOpen, || format!("alert {}", alert.id));
                closed_at = Some(alert.last_seen_at.unwrap_or_else(|| opened_at.clone()));
                closed_by = Some("duplicate");
            } else {
                self.open_of = Some(alert.device_id);
                self.open += 1;
            }
        }
        self.count += 1;
        self.acknowledged += u64::from(alert.acknowledged_at.is_some());
        self.highest_device = self.highest_device.max(alert.device_id);
        let device = devices.get(&alert.device_id);
        Some([
            Some(alert.id.to_string()),
            Some(alert.site_id.to_string()),
            device.map(|_| alert.device_id.to_string()),
            device.map(|(ip, _)| (*ip).to_owned()),
            device.map(|(_, name)| (*name).to_owned()),
            Some("fault".to_owned()),
            Some(severity.to_owned()),
            Some(opened_at),
            closed_at,
            closed_by.map(str::to_owned),
            alert.detail,
            alert.acknowledged_at,
            alert.acknowledged_by,
        ])
    }

    /// The highest id of a device that had an alert.
    pub(super) fn highest_device(&self) -> i64 {
        self.highest_device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(tallies: &Tallies) -> Vec<(Odd, u64)> {
        tallies
            .0
            .iter()
            .map(|(odd, tally)| (*odd, tally.count))
            .collect()
    }

    #[test]
    fn words_are_those_of_the_schema() {
        let mut tallies = Tallies::default();
        for (given, word) in [
            (Some("online"), "online"),
            (Some("OFFLINE "), "offline"),
            (Some("standby"), "unknown"),
            (None, "unknown"),
        ] {
            assert_eq!(status(given, &mut tallies), word, "{given:?}");
        }
        for (given, word) in [
            (Some("expected_off"), "expected_off"),
            (Some("Fault"), "fault"),
            (Some("broken"), "unknown"),
            (Some(""), "unknown"),
            (None, "unknown"),
        ] {
            assert_eq!(verdict(given, &mut tallies), word, "{given:?}");
        }
        assert_eq!(
            counts(&tallies),
            [
                (Odd::StatusLetters, 1),
                (Odd::Status, 2),
                (Odd::VerdictLetters, 1),
                (Odd::Verdict, 1),
                (Odd::NoVerdict, 2),
            ]
        );
        assert_eq!(tallies.0[&Odd::Status].examples, ["\"standby\"", "\"\""]);
    }

    #[test]
    fn settings_of_nothing_are_the_python_systems_defaults() {
        let mut tallies = Tallies::default();
        let row = |id, name: &str, token: &str, timezone: &str, days, ok, ko| PythonSite {
            id,
            name: name.to_owned(),
            token: token.to_owned(),
            timezone: timezone.to_owned(),
            doubt_after_days: days,
            ok_interval_s: ok,
            ko_interval_s: ko,
            ..PythonSite::default()
        };
        let rows = vec![
            row(1, "A", "t", "UTC", Some(7), Some(60), Some(15)),
            row(2, "B", "t", "", Some(0), Some(0), Some(0)),
            row(3, " ", "", "Mars/Base", None, Some(1_000_000), Some(-5)),
            row(4, "A", "u", "UTC", Some(1), Some(1), Some(1)),
        ];
        let mut made = 0;
        let taken = sites(rows, &mut tallies, &mut || {
            made += 1;
            format!("fresh {made}")
        });
        let settings: Vec<_> = taken
            .iter()
            .map(|site| {
                (
                    site.name.as_str(),
                    site.timezone.as_str(),
                    site.doubt_after_days,
                    site.ok_interval_s,
                    site.ko_interval_s,
                )
            })
            .collect();
        assert_eq!(
            settings,
            [
                ("A", "UTC", 7, 60, 15),
                ("B", "Europe/Paris", 2, 300, 60),
                ("Site 3", "Mars/Base", 2, 86_400, 1),
                ("A (4)", "UTC", 1, 1, 1),
            ]
        );
        let digests: Vec<_> = taken.iter().map(|site| &site.digest).collect();
        assert_eq!(
            digests,
            [
                &TokenDigest::of("t"),
                &TokenDigest::of("fresh 1"),
                &TokenDigest::of("fresh 2"),
                &TokenDigest::of("u"),
            ]
        );
        assert_eq!(
            counts(&tallies),
            [
                (Odd::Zone, 1),
                (Odd::Default, 4),
                (Odd::Range, 2),
                (Odd::Renamed, 2),
                (Odd::Token, 2),
            ]
        );
    }

    #[test]
    fn devices_keep_their_fields_and_what_an_agent_refuses_is_noted() {
        let mut tallies = Tallies::default();
        let site = sites(
            vec![PythonSite {
                id: 1,
                name: "A".to_owned(),
                token: "t".to_owned(),
                timezone: "UTC".to_owned(),
                ..PythonSite::default()
            }],
            &mut tallies,
            &mut String::new,
        );
        let row = |id, ip: &str, driver: &str, config: &str| PythonDevice {
            id,
            site_id: 1,
            name: format!("D{id}"),
            ip: ip.to_owned(),
            driver: driver.to_owned(),
            driver_config: Some(config.to_owned()),
            ..PythonDevice::default()
        };
        let rows = vec![
            row(
                1,
                "10.0.0.1",
                "pjlink",
                r#"{"pjlink": {"_password_updated_at": "x"}}"#,
            ),
            row(2, "zigbee:0x00124b", "zigbee", "{}"),
            row(3, "10.0.0.3", "carrier-pigeon", "[]"),
            row(4, "10.0.0.1", "ping", "null"),
            row(5, "", "ping", "[1]"),
            PythonDevice {
                site_id: 9,
                ..row(6, "10.0.0.6", "ping", "{}")
            },
        ];
        let taken: Vec<_> = devices(rows, &site, &mut tallies)
            .into_iter()
            .map(|device| (device.id, device.ip, device.driver_config.unwrap()))
            .collect();
        let expected = [
            (
                1,
                "10.0.0.1",
                r#"{"pjlink": {"_password_updated_at": "x"}}"#,
            ),
            (2, "zigbee:0x00124b", "{}"),
            (3, "10.0.0.3", "{}"),
            (4, "10.0.0.1#4", "null"),
            (5, "none-5", "[1]"),
        ]
        .map(|(id, ip, config)| (id, ip.to_owned(), config.to_owned()));
        assert_eq!(taken, expected);
        assert_eq!(
            counts(&tallies),
            [
                (Odd::Rejected, 3),
                (Odd::Driver, 1),
                (Odd::Renamed, 2),
                (Odd::NoObject, 2),
                (Odd::NoSite, 1),
            ]
        );
        assert_eq!(
            tallies.0[&Odd::Rejected].examples[0],
            "D2 (zigbee:0x00124b, A): ip: \"zigbee:0x00124b\" is not an IP address"
        );
    }

    #[test]
    fn the_history_says_since_when() {
        let mut tallies = Tallies::default();
        let mut history = History::default();
        let event = |at: &str, status: &str, verdict: Option<&str>| PythonEvent {
            device_id: 7,
            at: at.to_owned(),
            status: Some(status.to_owned()),
            verdict: verdict.map(str::to_owned),
            metrics: Some("[1]".to_owned()),
            ..PythonEvent::default()
        };
        let late = PythonEvent {
            is_out_of_time: true,
            ..event("9", "online", None)
        };
        let taken: Vec<_> = [
            event("1", "online", Some("ok")),
            event("2", "offline", None),
            event("2", "online", Some("ok")),
            event("3", "OFFLINE", Some("fault")),
            late,
        ]
        .into_iter()
        .filter_map(|event| history.take(event, &mut tallies))
        .map(|seen| {
            (
                seen.event.at.clone(),
                seen.status,
                seen.verdict,
                seen.metrics,
            )
        })
        .collect();
        let metrics = || "{\"value\": [1]}".to_owned();
        assert_eq!(
            taken,
            [
                ("1".to_owned(), "online", "ok", metrics()),
                ("2".to_owned(), "offline", "unknown", metrics()),
                ("3".to_owned(), "offline", "fault", metrics()),
            ]
        );
        assert_eq!(
            history.devices[&7],
            Past {
                first: "1".to_owned(),
                last: "3".to_owned(),
                status: ("offline", "2".to_owned()),
                verdict: ("fault", "3".to_owned()),
            }
        );
        let mut device = PythonDevice {
            id: 7,
            last_seen: Some("4".to_owned()),
            status: Some("offline".to_owned()),
            verdict: Some("doubt".to_owned()),
            ..PythonDevice::default()
        };
        let row = state(&mut device, &history, &mut tallies).unwrap();
        let row: Vec<_> = row
            .iter()
            .map(|value| value.as_deref().unwrap_or("-"))
            .collect();
        assert_eq!(
            row,
            [
                "7", "offline", "doubt", "-", "{}", "4", "4", "-", "2", "4", "3"
            ]
        );
        device.last_seen = None;
        assert_eq!(state(&mut device, &history, &mut tallies), None);
        assert_eq!(
            counts(&tallies),
            [
                (Odd::NoObject, 3),
                (Odd::StatusLetters, 1),
                (Odd::NoVerdict, 1),
                (Odd::Twice, 1),
                (Odd::Time, 1),
            ]
        );
    }

    #[test]
    fn one_alert_of_a_device_is_open() {
        let mut tallies = Tallies::default();
        let mut alerts = Alerts::default();
        let sites = HashSet::from([1]);
        let devices = HashMap::from([(7, ("10.0.0.7", "P"))]);
        let alert = |id, device_id, severity: &str, closed_at: Option<&str>| PythonAlert {
            id,
            site_id: 1,
            device_id,
            severity: Some(severity.to_owned()),
            opened_at: Some("1".to_owned()),
            closed_at: closed_at.map(str::to_owned),
            last_seen_at: Some("5".to_owned()),
            ..PythonAlert::default()
        };
        let elsewhere = PythonAlert {
            site_id: 2,
            ..alert(5, 7, "critical", None)
        };
        let taken: Vec<_> = [
            alert(1, 7, "critical", Some("2")),
            alert(2, 7, "info", None),
            alert(3, 7, "warning", None),
            alert(4, 8, "critical", None),
            elsewhere,
        ]
        .into_iter()
        .filter_map(|alert| alerts.take(alert, &sites, &devices, "9", &mut tallies))
        .map(|row| {
            [0, 2, 3, 6, 8, 9]
                .map(|at| row[at].clone().unwrap_or_default())
                .join(",")
        })
        .collect();
        assert_eq!(
            taken,
            [
                "1,7,10.0.0.7,critical,2,ok",
                "2,7,10.0.0.7,warning,,",
                "3,7,10.0.0.7,warning,5,duplicate",
                "4,,,critical,,",
            ]
        );
        assert_eq!((alerts.count, alerts.open), (4, 2));
        assert_eq!(alerts.warnings, [2, 3]);
        assert_eq!(
            counts(&tallies),
            [(Odd::NoSite, 1), (Odd::Severity, 1), (Odd::SecondOpen, 1)]
        );
    }
}
