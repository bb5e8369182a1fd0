//! A device: its state, its history, and its form.

use std::collections::BTreeSet;

use askama::Template;
use av_proto::driver::PROFILES;
use av_proto::text::excerpt;
use av_proto::unknown::unknown_settings;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::availability::{self, Days};
use super::chart::{Segment, line, segments, shares, timeline};
use super::html::{Frame, escape, span};
use super::i18n::Lang;
use super::{Admin, Call, Fact, Problem, editors_frame, frame, place, show, zones};
use crate::answer::Answer;
use crate::store::alerts::Window;
use crate::store::pages::{AlertFilter, AlertPage, DeviceDetail, DevicePage, Past, class};

/// The most of a device's history that a page draws.
const HISTORY_MAX: i64 = 5000;
/// The most changes that a page lists.
const CHANGES_MAX: usize = 200;

#[derive(Template)]
#[template(path = "device.html")]
struct Page {
    f: Frame,
    device: DevicePage,
    place: String,
    alerts: Vec<AlertPage>,
    facts: Vec<Fact>,
    metrics: Vec<Fact>,
    periods: Vec<Period>,
    from: Timestamp,
    timeline: String,
    legend: Vec<Share>,
    plots: Vec<Plot>,
    changes: Vec<Change>,
    availability: Option<Days>,
    windows: Vec<Window>,
    /// Settings that have no effect.
    unknown: Vec<String>,
}

struct Period {
    days: i64,
    words: &'static str,
    here: bool,
}

struct Share {
    class: &'static str,
    words: &'static str,
    share: String,
}

struct Plot {
    name: &'static str,
    last: String,
    min: String,
    max: String,
    svg: String,
}

struct Change {
    at: Timestamp,
    class: &'static str,
    detail: String,
}

/// `GET /devices/{id}?days=`.
pub(super) fn page(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let (device, detail) = admin.store.device_shown(id)?.ok_or(Problem::None)?;
    let days = match call.query.get("days") {
        Some("7") => 7,
        Some("30") => 30,
        _ => 1,
    };
    let from = f.now - SignedDuration::from_hours(days * 24);
    let history = admin
        .store
        .device_history(id, from, detail.holds_s, HISTORY_MAX)?;
    let alerts = admin.store.alert_pages(AlertFilter {
        device: Some(id),
        limit: 5,
        ..AlertFilter::default()
    })?;
    // What is stale is not known since it was last heard of.
    let heard = device.since.filter(|_| {
        device.class() == "unknown" && history.last().is_some_and(|p| p.verdict != "unknown")
    });
    let parts = segments(&history, (from, f.now), detail.holds_s, heard);
    let lang = f.lang;
    let known_days = admin.store.device_days(id, availability::YEAR)?;
    let mut windows = admin.store.windows(Some(device.site_id), false)?;
    windows.retain(|window| window.active && covers(window, &device));
    let words = |segment: &Segment| {
        format!(
            "{}, {}",
            known(lang, segment.class),
            span(lang, segment.to.duration_since(segment.from).as_secs())
        )
    };
    Ok(show(
        200,
        &Page {
            place: place(&device.building, &device.floor, &device.room),
            alerts,
            facts: facts(&f, &device, &detail),
            metrics: metrics(lang, detail.metrics.as_deref()),
            periods: [(1, "period.1"), (7, "period.7"), (30, "period.30")]
                .into_iter()
                .map(|(length, key)| Period {
                    days: length,
                    words: lang.t(key),
                    here: days == length,
                })
                .collect(),
            from,
            timeline: timeline(&parts, words),
            legend: shares(&parts)
                .into_iter()
                .map(|(class, share)| Share {
                    class,
                    words: known(lang, class),
                    share: decimal(lang, share),
                })
                .collect(),
            plots: plots(lang, &history, (from, f.now), detail.holds_s),
            changes: changes(&history, from),
            availability: availability::of_device(lang, &known_days),
            windows,
            unknown: unknown(lang, &device, &detail),
            device,
            f,
        },
    ))
}

/// Whether a maintenance window covers a device: its own, its room's or its
/// site's, which is the site of both.
fn covers(window: &Window, device: &DevicePage) -> bool {
    match (window.device_id, &window.room) {
        (Some(id), _) => id == device.id,
        (None, None) => true,
        (None, Some(room)) => {
            let named = |name: &Option<String>| name.clone().unwrap_or_default();
            (named(&window.building), named(&window.floor), room)
                == (device.building.clone(), device.floor.clone(), &device.room)
        }
    }
}

/// A verdict in words; a gap is nothing observed, not a site without devices.
fn known(lang: Lang, class: &'static str) -> &'static str {
    if class == "none" {
        lang.t("history.none")
    } else {
        lang.worst(class)
    }
}

/// The settings that are stored and have no effect, each in a sentence.
fn unknown(lang: Lang, device: &DevicePage, detail: &DeviceDetail) -> Vec<String> {
    unknown_settings(&device.driver, &detail.driver_config, &detail.expectations)
        .iter()
        .map(|setting| {
            let said = lang.with("setting.unknown", &setting.path);
            match &setting.nearest {
                Some(nearest) => format!("{said} {}", lang.with("setting.nearest", nearest)),
                None => said,
            }
        })
        .collect()
}

/// When the verdict or the detail changed, the newest first.
fn changes(history: &[Past], from: Timestamp) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut before: Option<&Past> = None;
    for past in history {
        let same = before
            .is_some_and(|before| before.verdict == past.verdict && before.detail == past.detail);
        if !same && past.at >= from {
            changes.push(Change {
                at: past.at,
                class: class(Some(&past.verdict)),
                detail: past.detail.clone(),
            });
        }
        before = Some(past);
    }
    changes.reverse();
    changes.truncate(CHANGES_MAX);
    changes
}

fn plots(lang: Lang, history: &[Past], within: (Timestamp, Timestamp), holds_s: i64) -> Vec<Plot> {
    let values = |value: fn(&Past) -> Option<f64>| -> Vec<(Timestamp, f64)> {
        history
            .iter()
            .filter_map(|past| Some((past.at, value(past)?)))
            .collect()
    };
    [
        (
            "metric.lamp",
            values(|past| past.lamp_hours),
            (|_, value| format!("{value:.0} h")) as fn(Lang, f64) -> String,
        ),
        ("metric.rtt", values(|past| past.rtt_ms), milliseconds),
        ("metric.uptime", values(|past| past.uptime), uptime),
    ]
    .into_iter()
    .filter_map(|(key, values, show)| {
        let line = line(&values, within, holds_s)?;
        Some(Plot {
            name: lang.t(key),
            last: show(lang, line.last),
            min: show(lang, line.min),
            max: show(lang, line.max),
            svg: line.svg,
        })
    })
    .collect()
}

pub(super) fn decimal(lang: Lang, number: String) -> String {
    match lang {
        Lang::En => number,
        Lang::Fr => number.replace('.', ","),
    }
}

fn milliseconds(lang: Lang, value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { 0 };
    decimal(lang, format!("{value:.digits$} ms"))
}

/// From hundredths of a second.
fn uptime(lang: Lang, value: f64) -> String {
    #[allow(clippy::cast_possible_truncation, reason = "as far as i64 goes")]
    span(lang, (value / 100.0) as i64)
}

fn facts(f: &Frame, device: &DevicePage, detail: &DeviceDetail) -> Vec<Fact> {
    let lang = f.lang;
    let status = match device.status.as_deref() {
        Some("online") => lang.t("status.online"),
        Some("offline") => lang.t("status.offline"),
        _ => lang.t("status.unknown"),
    };
    let time =
        |at: Option<Timestamp>| at.map_or_else(|| lang.t("never").to_owned(), |at| f.ago(at));
    [
        ("device.ip", format!("<code>{}</code>", escape(&device.ip))),
        ("device.type", escape(&device.device_type)),
        ("device.driver", escape(&device.driver)),
        ("building", escape(&device.building)),
        ("floor", escape(&device.floor)),
        ("room", escape(&device.room)),
        (
            "device.expected",
            escape(&expected(lang, &detail.expectations, &device.site_timezone)),
        ),
        ("device.status", status.to_owned()),
        ("device.seen", time(device.last_seen)),
        ("device.ok_at", time(device.last_ok_at)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| Fact {
        name: lang.t(key).to_owned(),
        value,
    })
    .collect()
}

/// When a device should be on, in words, from its `expectations`.
fn expected(lang: Lang, expectations: &str, site_zone: &str) -> String {
    let value: Value = serde_json::from_str(expectations).unwrap_or_default();
    if value["always_on"] == Value::Bool(true) {
        return lang.t("expect.always.short").to_owned();
    }
    let schedule = &value["schedule"];
    let rules: Vec<String> = schedule["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| {
            let days: Vec<&str> = rule["days"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|day| day_word(lang, day))
                .collect();
            let clock = |name: &str| rule[name].as_str().unwrap_or("?").to_owned();
            format!("{} {}–{}", days.join(", "), clock("start"), clock("end"))
        })
        .collect();
    if rules.is_empty() {
        return lang.t("expect.none.short").to_owned();
    }
    let zone = schedule["timezone"].as_str().unwrap_or(site_zone);
    format!("{} ({zone})", rules.join("; "))
}

fn day_word(lang: Lang, day: &str) -> &str {
    ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        .iter()
        .position(|known| day.eq_ignore_ascii_case(known))
        .map_or(day, |index| lang.day(index))
}

/// The newest metrics for a person: those with a name of ours first. What
/// only repeats the configuration stays out.
fn metrics(lang: Lang, json: Option<&str>) -> Vec<Fact> {
    let Some(Value::Object(metrics)) = json.and_then(|json| serde_json::from_str(json).ok()) else {
        return Vec::new();
    };
    let text = |key: &str| match metrics.get(key)? {
        Value::String(text) if !text.is_empty() => Some(escape(&excerpt(text, 300))),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let number = |key: &str| metrics.get(key).and_then(Value::as_f64);
    let mut facts = Vec::new();
    let mut add = |name: String, value: Option<String>| {
        if let Some(value) = value {
            facts.push(Fact { name, value });
        }
    };
    add(
        lang.t("metric.rtt").to_owned(),
        number("ping_rtt_avg_ms").map(|value| milliseconds(lang, value)),
    );
    add(
        lang.t("metric.power").to_owned(),
        text("pjlink_power_label"),
    );
    let lamps = metrics
        .get("pjlink_lamps")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for (i, lamp) in lamps.iter().enumerate() {
        let name = if lamps.len() == 1 {
            lang.t("metric.lamp").to_owned()
        } else {
            lang.with("metric.lamp.n", &(i + 1).to_string())
        };
        add(
            name,
            lamp["hours"].as_u64().map(|hours| format!("{hours} h")),
        );
    }
    add(
        lang.t("metric.filter").to_owned(),
        metrics
            .get("pjlink_filter_hours")
            .and_then(Value::as_u64)
            .map(|hours| format!("{hours} h")),
    );
    add(lang.t("metric.error").to_owned(), text("pjlink_error"));
    let errors: Vec<String> = metrics
        .get("pjlink_errors")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(part, level)| Some((part, level.as_str()?)))
        .filter(|(_, level)| *level != "ok")
        .map(|(part, level)| escape(&excerpt(&format!("{part}: {level}"), 60)))
        .collect();
    add(
        lang.t("metric.errors").to_owned(),
        Some(errors.join(", ")).filter(|text| !text.is_empty()),
    );
    add(
        lang.t("metric.input").to_owned(),
        text("pjlink_input_name").or_else(|| text("pjlink_input")),
    );
    add(
        lang.t("metric.resolution").to_owned(),
        text("pjlink_resolution"),
    );
    let muted: Vec<&str> = ["picture", "sound"]
        .into_iter()
        .zip(["metric.picture", "metric.sound"])
        .filter(|(part, _)| {
            metrics.get("pjlink_mute").and_then(|mute| mute.get(*part)) == Some(&Value::Bool(true))
        })
        .map(|(_, key)| lang.t(key))
        .collect();
    add(
        lang.t("metric.muted").to_owned(),
        Some(muted.join(", ")).filter(|text| !text.is_empty()),
    );
    let model: Vec<String> = ["pjlink_manufacturer", "pjlink_model"]
        .into_iter()
        .filter_map(text)
        .collect();
    add(
        lang.t("metric.model").to_owned(),
        Some(model.join(" ")).filter(|text| !text.is_empty()),
    );
    add(lang.t("metric.pjlink_name").to_owned(), text("pjlink_name"));
    add(
        lang.t("metric.serial").to_owned(),
        text("pjlink_serial_number"),
    );
    add(
        lang.t("metric.software").to_owned(),
        text("pjlink_software_version"),
    );
    add(
        lang.t("metric.connect").to_owned(),
        number("tcp_connect_ms").map(|value| milliseconds(lang, value)),
    );
    add(lang.t("metric.banner").to_owned(), text("tcp_banner"));
    add(
        lang.t("metric.response").to_owned(),
        number("http_response_ms").map(|value| milliseconds(lang, value)),
    );
    add(
        lang.t("metric.status").to_owned(),
        metrics
            .get("http_status")
            .and_then(Value::as_u64)
            .map(|status| status.to_string()),
    );
    add(
        lang.t("metric.certificate").to_owned(),
        number("http_tls_days_left").map(|days| format!("{days:.0} {}", lang.t("metric.days"))),
    );
    add(
        lang.t("metric.uptime").to_owned(),
        number("sys_uptime").map(|value| uptime(lang, value)),
    );
    add(lang.t("metric.descr").to_owned(), text("sys_descr"));
    facts.extend(readings(&metrics));
    facts
}

/// What a device's own SNMP readings are called: any name without the prefix
/// of a driver.
fn readings(metrics: &serde_json::Map<String, Value>) -> Vec<Fact> {
    const OURS: [&str; 6] = ["ping_", "snmp_", "sys_", "pjlink_", "tcp_", "http_"];
    let shown = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let is_theirs = |name: &str| {
        let has_word = metrics.contains_key(&format!("{name}_label"));
        name != "ts" && !has_word && !OURS.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut facts = Vec::new();
    for (name, value) in metrics.iter().filter(|(name, _)| is_theirs(name)) {
        let value = match value {
            Value::Object(rows) => {
                let rows = rows
                    .iter()
                    .filter_map(|(row, value)| Some(format!("{row}: {}", shown(value)?)));
                Some(rows.collect::<Vec<_>>().join(", "))
            }
            value => shown(value),
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.push(Fact {
                name: escape(&excerpt(name.trim_end_matches("_label"), 64)),
                value: escape(&excerpt(&value, 300)),
            });
        }
    }
    facts
}

#[derive(Template)]
#[template(path = "device_form.html")]
struct Form {
    f: Frame,
    title: String,
    id: Option<i64>,
    name: String,
    unknown: Vec<String>,
    site_id: i64,
    site: String,
    zone: String,
    zones: Vec<String>,
    buildings: BTreeSet<String>,
    floors: BTreeSet<String>,
    rooms: BTreeSet<String>,
    hours: [u8; 24],
    days: [(); 7],
}

impl Form {
    #[expect(clippy::unused_self, reason = "a template calls methods only")]
    fn snmp_profiles(&self) -> Vec<&'static str> {
        PROFILES.iter().map(|(name, _)| *name).collect()
    }
}

/// `GET /sites/{id}/devices/new`.
pub(super) fn new(admin: &Admin, call: &Call<'_>, site_id: i64) -> Result<Answer, Problem> {
    let f = editors_frame(call, "sites")?;
    let site = admin.store.site_page(site_id)?.ok_or(Problem::None)?;
    let title = f.lang.t("device.new").to_owned();
    form(admin, f, title, None, (site_id, site.name, site.timezone))
}

/// `GET /devices/{id}/edit`.
pub(super) fn edit(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = editors_frame(call, "sites")?;
    let (device, detail) = admin.store.device_shown(id)?.ok_or(Problem::None)?;
    let title = f.lang.with("device.edit", &device.name);
    let unknown = unknown(f.lang, &device, &detail);
    let site = (device.site_id, device.site, device.site_timezone);
    form(admin, f, title, Some((id, device.name, unknown)), site)
}

fn form(
    admin: &Admin,
    f: Frame,
    title: String,
    device: Option<(i64, String, Vec<String>)>,
    (site_id, site, zone): (i64, String, String),
) -> Result<Answer, Problem> {
    let devices = admin.store.device_pages(site_id)?;
    let known = |part: fn(&DevicePage) -> &String| -> BTreeSet<String> {
        devices
            .iter()
            .map(part)
            .filter(|part| !part.is_empty())
            .cloned()
            .collect()
    };
    let (id, name, unknown) = match device {
        Some((id, name, unknown)) => (Some(id), name, unknown),
        None => (None, String::new(), Vec::new()),
    };
    Ok(show(
        200,
        &Form {
            f,
            title,
            id,
            name,
            unknown,
            site_id,
            site,
            zone,
            zones: zones(),
            buildings: known(|device| &device.building),
            floors: known(|device| &device.floor),
            rooms: known(|device| &device.room),
            hours: std::array::from_fn(|hour| u8::try_from(hour).unwrap_or(0)),
            days: [(); 7],
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_in_words() {
        for (json, en, fr) in [
            ("{}", "nothing: never a fault", "rien : jamais en panne"),
            (r#"{"always_on":true}"#, "always on", "toujours allumé"),
            (
                r#"{"schedule":{"rules":[{"days":["mon","Tue"],"start":"08:00","end":"18:00"},{"days":["sat"],"start":"9:00","end":"12:00"}]}}"#,
                "Mon, Tue 08:00–18:00; Sat 9:00–12:00 (Europe/Paris)",
                "Lun, Mar 08:00–18:00; Sam 9:00–12:00 (Europe/Paris)",
            ),
            (
                r#"{"schedule":{"timezone":"UTC","rules":[{"days":"x"}]}}"#,
                " ?–? (UTC)",
                " ?–? (UTC)",
            ),
        ] {
            assert_eq!(expected(Lang::En, json, "Europe/Paris"), en);
            assert_eq!(expected(Lang::Fr, json, "Europe/Paris"), fr);
        }
    }

    #[test]
    fn metrics_for_people() {
        let json = r#"{"ts":"2026-11-24T10:00:00Z","ping_rtt_avg_ms":0.1234,"pjlink_ok":true,
            "pjlink_power_label":"on","pjlink_lamps":[{"hours":1234,"on":true},{"hours":5}],
            "pjlink_errors":{"lamp":"error","fan":"ok"},"pjlink_manufacturer":"<b>","pjlink_model":"X",
            "sys_uptime":360000,"sys_descr":""}"#;
        let shown: Vec<(String, String)> = metrics(Lang::Fr, Some(json))
            .into_iter()
            .map(|fact| (fact.name, fact.value))
            .collect();
        let expected = [
            ("Aller-retour", "0,12 ms"),
            ("Alimentation", "on"),
            ("Heures de lampe 1", "1234 h"),
            ("Heures de lampe 2", "5 h"),
            ("Signale", "lamp: error"),
            ("Modèle", "&lt;b&gt; X"),
            ("Allumé depuis", "1 h"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(shown, expected);
        assert_eq!(metrics(Lang::En, None).len(), 0);
        assert_eq!(metrics(Lang::En, Some("[]")).len(), 0);
    }

    #[test]
    fn only_changes_are_listed() {
        let past = |at: &str, verdict: &str| Past {
            at: format!("2026-11-24T{at}:00Z").parse().unwrap(),
            verdict: verdict.to_owned(),
            detail: String::new(),
            rtt_ms: None,
            lamp_hours: None,
            uptime: None,
        };
        let history = [
            past("09:00", "ok"),
            past("10:30", "ok"),
            past("11:00", "fault"),
            past("12:00", "ok"),
        ];
        let listed: Vec<&str> = changes(&history, "2026-11-24T10:00:00Z".parse().unwrap())
            .iter()
            .map(|change| change.class)
            .collect();
        assert_eq!(listed, ["ok", "fault"]);
    }
}
