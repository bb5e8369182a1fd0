//! A device as a client sends it, and the valid one that comes of it.

use av_proto::FieldError;
use av_proto::canonical::canonicalize;
use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::unknown::{UnknownSetting, unknown_settings};
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::input::{check_name, check_text, read_fields};
use super::secrets::{mask, restore};
use crate::store::inventory::{AlertSeverity, DeviceFields};

/// The most characters of a device's name.
const NAME_MAX: usize = 200;
/// The most characters of a building, floor, room, type or driver.
const WORD_MAX: usize = 100;
/// The most bytes of a device's JSON fields.
const JSON_MAX: usize = 64 << 10;

/// The contract's device, with `site_id` and `driver_config`. A client may
/// send back what it got: what it cannot set is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    pub(super) site_id: Option<i64>,
    pub(super) ip: String,
    pub(super) name: String,
    pub(super) building: Option<String>,
    pub(super) floor: Option<String>,
    pub(super) room: Option<String>,
    #[serde(rename = "type")]
    pub(super) device_type: Option<String>,
    pub(super) driver: String,
    pub(super) driver_config: Option<Box<RawValue>>,
    /// A section of `driver_config`, as the contract has it beside it.
    snmp: Option<Box<RawValue>>,
    /// The same.
    pjlink: Option<Box<RawValue>>,
    pub(super) expectations: Option<Box<RawValue>>,
    /// No part of the contract's device: who leaves it out keeps what is stored.
    pub(super) alert_severity: Option<String>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "site")]
    _site: Option<IgnoredAny>,
    #[serde(rename = "state")]
    _state: Option<IgnoredAny>,
    #[serde(rename = "created_at")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    _updated_at: Option<IgnoredAny>,
    #[serde(rename = "etag")]
    _etag: Option<IgnoredAny>,
    #[serde(rename = "warnings")]
    _warnings: Option<IgnoredAny>,
}

/// A device that can be stored.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) fields: DeviceFields,
    /// What an administrator should know of it: a driver that no agent has.
    pub(super) warnings: Vec<FieldError>,
}

impl Draft {
    /// Reads one from a JSON text.
    ///
    /// # Errors
    /// Each field that has not its type.
    pub(super) fn read(json: &[u8]) -> Result<Self, Vec<FieldError>> {
        read_fields(json)
    }

    /// Checks everything, and puts back the secrets of `stored` where the
    /// client sent their mask.
    ///
    /// # Errors
    /// Each field that is not valid.
    pub(super) fn validate(
        self,
        site_id: i64,
        site_zone: &TimeZone,
        stored: Option<&DeviceFields>,
    ) -> Result<Valid, Vec<FieldError>> {
        let mut errors = Vec::new();
        check_name(&mut errors, "name", &self.name, NAME_MAX);
        let place = |errors: &mut Vec<FieldError>, field: &str, value: Option<String>| {
            let value = value.filter(|value| !value.is_empty());
            check_text(
                errors,
                field,
                value.as_deref().unwrap_or_default(),
                WORD_MAX,
            );
            value
        };
        let building = place(&mut errors, "building", self.building);
        let floor = place(&mut errors, "floor", self.floor);
        let room = place(&mut errors, "room", self.room);
        let device_type =
            place(&mut errors, "type", self.device_type).unwrap_or_else(|| "other".to_owned());
        let driver = self.driver.trim().to_ascii_lowercase();
        check_text(&mut errors, "driver", &driver, WORD_MAX);
        let alert_severity = match self.alert_severity.as_deref() {
            None | Some("") => stored.map(|stored| stored.alert_severity),
            Some(word) => AlertSeverity::of_word(word).or_else(|| {
                errors.push(FieldError::new(
                    "alert_severity",
                    "is not warning or critical",
                ));
                None
            }),
        }
        .unwrap_or_default();

        let stored_config = stored.and_then(|stored| stored.driver_config.as_deref());
        let driver_config = sections(self.driver_config, self.snmp, self.pjlink)
            .map_err(|error| vec![error])
            .and_then(|text| {
                text.map(|text| restore(&text, stored_config, "driver_config"))
                    .transpose()
            })
            .and_then(|text| bounded(text, "driver_config"))
            .map_err(|bad| errors.extend(bad));
        let expectations = self
            .expectations
            .map(|raw| restore(raw.get(), None, "expectations"))
            .transpose()
            .and_then(|text| bounded(text, "expectations"))
            .map_err(|bad| errors.extend(bad));
        let (Ok(driver_config), Ok(expectations)) = (driver_config, expectations) else {
            return Err(errors);
        };

        check_objects(
            &mut errors,
            &driver,
            driver_config.as_deref(),
            expectations.as_deref(),
        );

        let ip = self.ip.trim();
        let document = format!(
            "{{\"ip\": {}, \"name\": {}, \"driver\": {}, \"driver_config\": {}, \"expectations\": {}}}",
            Value::from(ip),
            Value::from(self.name.as_str()),
            Value::from(driver.as_str()),
            driver_config.as_deref().unwrap_or("{}"),
            expectations.as_deref().unwrap_or("{}"),
        );
        let mut warnings = Vec::new();
        let parsed = Device::parse(&document, site_zone, &mut warnings);
        // An agent falls back to the site's zone; who enters a wrong one
        // wants to know.
        errors.extend(warnings.into_iter().map(|warning| {
            FieldError::new(
                warning.field,
                warning.problem.replace(", the site's is used", ""),
            )
        }));
        let device = match parsed {
            Ok(device) if errors.is_empty() => device,
            Ok(_) => return Err(errors),
            Err(bad) => {
                errors.extend(without_unknown(
                    bad,
                    &unknown_settings(
                        &driver,
                        driver_config.as_deref().unwrap_or("{}"),
                        expectations.as_deref().unwrap_or("{}"),
                    ),
                ));
                return Err(errors);
            }
        };
        let mut warnings = match &device.settings {
            DriverSettings::Other { driver, .. } => vec![FieldError::new(
                "driver",
                format!(
                    "{driver:?} is none that an agent of this version has: it will not be probed"
                ),
            )],
            _ => Vec::new(),
        };
        // Stored all the same: a newer agent may know them.
        warnings.extend(device.unknown.iter().map(FieldError::from));
        Ok(Valid {
            fields: DeviceFields {
                site_id,
                // One spelling for one address.
                ip: device.ip.to_string(),
                name: self.name,
                building,
                floor,
                room,
                device_type,
                driver,
                driver_config,
                expectations,
                alert_severity,
            },
            warnings,
        })
    }
}

/// What is not valid, without the settings that are only not known: they are
/// no errors, unless one is what is missing, misspelt.
fn without_unknown(mut bad: Vec<FieldError>, unknown: &[UnknownSetting]) -> Vec<FieldError> {
    let misspelt = |setting: &UnknownSetting, bad: &[FieldError]| {
        let folder = setting.path.strip_suffix(&setting.name);
        let meant = folder.zip(setting.nearest.as_deref());
        meant.is_some_and(|(folder, nearest)| {
            bad.iter()
                .any(|error| error.field.strip_prefix(folder) == Some(nearest))
        })
    };
    let harmless: Vec<FieldError> = unknown
        .iter()
        .filter(|setting| !misspelt(setting, &bad))
        .map(FieldError::from)
        .collect();
    bad.retain(|error| !harmless.contains(error));
    bad
}

/// Says where an object should be and something else is: serde would take an
/// array for the fields of a struct in their order.
fn check_objects(
    errors: &mut Vec<FieldError>,
    driver: &str,
    driver_config: Option<&str>,
    expectations: Option<&str>,
) {
    let read = |text: Option<&str>| -> Value {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    };
    let (config, expected) = (read(driver_config), read(expectations));
    let schedule = &expected["schedule"];
    let rules = schedule["rules"].as_array().into_iter().flatten();
    let mut places = vec![
        (format!("driver_config.{driver}"), &config[driver]),
        ("expectations".to_owned(), &expected),
        ("expectations.schedule".to_owned(), schedule),
    ];
    for (i, rule) in rules.enumerate() {
        places.push((format!("expectations.schedule.rules[{i}]"), rule));
    }
    errors.extend(
        places
            .into_iter()
            .filter(|(_, value)| value.is_array())
            .map(|(field, _)| FieldError::new(field, "is not an object")),
    );
}

fn bounded(text: Option<String>, field: &str) -> Result<Option<String>, Vec<FieldError>> {
    match text {
        Some(text) if text.len() > JSON_MAX => Err(vec![FieldError::new(
            field,
            format!("is larger than {} KiB", JSON_MAX >> 10),
        )]),
        text => Ok(text),
    }
}

/// `driver_config` with the sections that stand beside it.
fn sections(
    driver_config: Option<Box<RawValue>>,
    snmp: Option<Box<RawValue>>,
    pjlink: Option<Box<RawValue>>,
) -> Result<Option<String>, FieldError> {
    use std::collections::BTreeMap;

    let beside: Vec<(&str, Box<RawValue>)> = [("snmp", snmp), ("pjlink", pjlink)]
        .into_iter()
        .filter_map(|(name, raw)| Some((name, raw?)))
        .collect();
    if let Some((name, _)) = beside
        .iter()
        .find(|(_, raw)| !raw.get().trim_start().starts_with('{'))
    {
        return Err(FieldError::new(*name, "is not an object"));
    }
    let beside: Vec<(&str, Box<RawValue>)> = beside
        .into_iter()
        .filter(|(_, raw)| {
            // `{}` is how the contract says that there is none.
            serde_json::from_str::<BTreeMap<String, IgnoredAny>>(raw.get())
                .map_or(true, |members| !members.is_empty())
        })
        .collect();
    let Some(whole) = driver_config else {
        if beside.is_empty() {
            return Ok(None);
        }
        let members: BTreeMap<&str, Box<RawValue>> = beside.into_iter().collect();
        return text(&members);
    };
    if !whole.get().trim_start().starts_with('{') {
        return Err(FieldError::new("driver_config", "is not an object"));
    }
    if beside.is_empty() {
        return Ok(Some(whole.get().to_owned()));
    }
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(whole.get())
        .map_err(|error| FieldError::new("driver_config", format!("is not JSON: {error}")))?;
    for (name, raw) in beside {
        members.insert(name.to_owned(), raw);
    }
    text(&members)
}

fn text(members: &impl serde::Serialize) -> Result<Option<String>, FieldError> {
    serde_json::to_string(members)
        .map(Some)
        .map_err(|error| FieldError::new("driver_config", error))
}

/// Whether two JSON fields are the same to the configuration's hash.
fn same_json(one: Option<&str>, other: Option<&str>) -> bool {
    let canonical = |text: Option<&str>| canonicalize(text.unwrap_or("{}")).ok();
    one == other || canonical(one) == canonical(other)
}

/// What differs between two states of a device: each field with its old and
/// new value, secrets masked. Empty where nothing does.
pub(super) fn changes(
    before: &DeviceFields,
    after: &DeviceFields,
) -> serde_json::Map<String, Value> {
    let mut changed = serde_json::Map::new();
    for (field, old, new) in [
        ("ip", Some(&before.ip), Some(&after.ip)),
        ("name", Some(&before.name), Some(&after.name)),
        (
            "building",
            before.building.as_ref(),
            after.building.as_ref(),
        ),
        ("floor", before.floor.as_ref(), after.floor.as_ref()),
        ("room", before.room.as_ref(), after.room.as_ref()),
        ("type", Some(&before.device_type), Some(&after.device_type)),
        ("driver", Some(&before.driver), Some(&after.driver)),
    ] {
        if old.map_or("", String::as_str) != new.map_or("", String::as_str) {
            changed.insert(field.to_owned(), json!([old, new]));
        }
    }
    let (old, new) = (before.alert_severity, after.alert_severity);
    if old != new {
        changed.insert("alert_severity".to_owned(), json!([old.word(), new.word()]));
    }
    if before.site_id != after.site_id {
        changed.insert("site_id".to_owned(), json!([before.site_id, after.site_id]));
    }
    for (field, old, new) in [
        ("driver_config", &before.driver_config, &after.driver_config),
        ("expectations", &before.expectations, &after.expectations),
    ] {
        if !same_json(old.as_deref(), new.as_deref()) {
            let shown = |text: &Option<String>| {
                let text = mask(text.as_deref().unwrap_or("{}"));
                serde_json::from_str(&text).unwrap_or(Value::Null)
            };
            let (old, new) = (shown(old), shown(new));
            if old == new {
                changed.insert("secret_changed".to_owned(), json!([false, true]));
            }
            changed.insert(field.to_owned(), json!([old, new]));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(json: &str, stored: Option<&DeviceFields>) -> Result<Valid, Vec<String>> {
        Draft::read(json.as_bytes())
            .and_then(|draft| draft.validate(1, &TimeZone::UTC, stored))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    const MINIMAL: &str = r#"{"ip": "10.0.0.1", "name": "A", "driver": " PJLink "}"#;

    #[test]
    fn a_device_is_taken_as_the_contract_has_it() {
        let valid = validate(
            r#"{"ip": "2001:DB8::0:1", "name": "Projecteur Salle A", "building": "Bâtiment A",
                "floor": "", "room": null, "type": "projector", "driver": "PJLink",
                "snmp": {}, "pjlink": {"password": "admin"},
                "driver_config": {"pjlink": {"port": 1}, "x": 12345678901234567890123},
                "expectations": {"always_on": true}}"#,
            None,
        )
        .unwrap();
        assert_eq!(valid.fields.ip, "2001:db8::1");
        assert_eq!(valid.fields.driver, "pjlink");
        assert_eq!(valid.fields.floor, None);
        assert_eq!(
            valid.fields.driver_config.unwrap(),
            r#"{"pjlink": {"password": "admin"}, "x": 12345678901234567890123}"#
        );
        let warned: Vec<&str> = valid.warnings.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(warned, ["driver_config.x"]);
        let fields = validate(MINIMAL, None).unwrap().fields;
        assert_eq!(fields.device_type, "other");
        assert_eq!((fields.driver_config, fields.expectations), (None, None));
    }

    #[test]
    fn an_unknown_driver_is_a_warning() {
        let valid = validate(
            r#"{"ip": "10.0.0.1", "name": "A", "driver": "telnet"}"#,
            None,
        );
        assert_eq!(valid.unwrap().warnings[0].field, "driver");
    }

    #[test]
    fn an_unknown_setting_is_a_warning_and_stays() {
        let valid = validate(
            r#"{"ip": "10.0.0.1", "name": "A", "driver": "pjlink",
                "driver_config": {"pjlink": {"pasword": "x"}}, "expectations": {"allways_on": true}}"#,
            None,
        )
        .unwrap();
        let said: Vec<String> = valid.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "driver_config.pjlink.pasword: is not a known setting; the nearest is \"password\"",
                "expectations.allways_on: is not a known setting; the nearest is \"always_on\"",
            ]
        );
        assert_eq!(
            valid.fields.expectations.as_deref(),
            Some(r#"{"allways_on": true}"#)
        );
    }

    #[test]
    fn of_a_device_that_is_refused_the_misspelt_field_is_named_and_no_harmless_one() {
        let errors = validate(
            r#"{"ip": "10.0.0.1", "name": "A", "driver": "snmp", "driver_config": {"snmp": {
                "version": "3", "v3": {"usr": "x"}, "note": 1}}}"#,
            None,
        )
        .unwrap_err();
        let starts = |field: &str| errors.iter().any(|error| error.starts_with(field));
        assert!(starts("driver_config.snmp.v3.user: "), "{errors:?}");
        assert!(starts("driver_config.snmp.v3.usr: "), "{errors:?}");
        assert!(!starts("driver_config.snmp.note"), "{errors:?}");
    }

    #[test]
    fn every_bad_field_is_named() {
        for (json, said) in [
            (r#"{"name": "A", "driver": "ping"}"#, vec!["ip: is missing"]),
            (
                r#"{"ip": "x", "name": " ", "driver": "snmp", "room": "a\u0007",
                    "driver_config": {"snmp": {"port": 0}},
                    "expectations": {"schedule": {"timezone": "Mars/X", "rules": [{"days": ["xyz"], "start": "1", "end": "2"}]}}}"#,
                vec![
                    "name: is empty",
                    "room: has a control character",
                    "expectations.schedule.timezone: \"Mars/X\" is not an IANA time zone",
                    "ip:",
                    "driver_config.snmp.port: 0 is not a port (1 to 65535)",
                    "expectations.schedule.rules[0]",
                ],
            ),
            (
                r#"{"ip": "10.0.0.1", "name": "A", "driver": "ping", "driver_config": [1]}"#,
                vec!["driver_config: is not an object"],
            ),
            (
                r#"{"ip": "10.0.0.1", "name": "A", "driver": "ping", "rom": "1"}"#,
                vec!["rom: unknown field"],
            ),
            (
                r#"{"ip": "10.0.0.1", "name": "A", "driver": "ping",
                    "driver_config": {"ping": [null, null]}, "expectations": {"schedule": [null, []]}}"#,
                vec![
                    "driver_config.ping: is not an object",
                    "expectations.schedule: is not an object",
                ],
            ),
            (
                r#"{"ip": "10.0.0.1", "name": "A", "driver": "ping", "pjlink": [null]}"#,
                vec!["pjlink: is not an object"],
            ),
            (
                r#"{"ip": "10.0.0.1", "name": "A", "driver": ""}"#,
                vec!["driver: is empty"],
            ),
        ] {
            let errors = validate(json, None).unwrap_err();
            for text in said {
                assert!(
                    errors.iter().any(|error| error.starts_with(text)),
                    "{text} is not in {errors:?}"
                );
            }
        }
    }

    #[test]
    fn differences_show_no_secret() {
        let mut before = validate(MINIMAL, None).unwrap().fields;
        before.driver_config = Some(r#"{"pjlink": {"password": "old"}}"#.to_owned());
        let mut after = before.clone();
        assert!(changes(&before, &after).is_empty());
        after.expectations = Some("{}".to_owned());
        assert!(changes(&before, &after).is_empty());
        after.driver_config = Some(r#"{"pjlink": {"password": "new"}}"#.to_owned());
        after.room = Some("101".to_owned());
        let text = serde_json::to_string(&changes(&before, &after)).unwrap();
        assert!(text.contains(r#""room":[null,"101"]"#), "{text}");
        assert!(
            text.contains("secret_changed") && text.contains("***"),
            "{text}"
        );
        assert!(!text.contains("old") && !text.contains("new"), "{text}");
    }
}
