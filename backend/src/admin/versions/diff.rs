//! What differs between two versions: device by device, field by field, and
//! inside the JSON fields path by path. Secrets stay masked; that one changed
//! is shown.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{DeviceDocument, device_document, masked};
use crate::admin::secrets::{MASK, is_secret};
use crate::store::config::{DeviceRow, SiteSnapshot};
use crate::store::versions::VersionConfig;

/// Deeper than this a JSON value is compared as a whole.
const DEPTH_MAX: usize = 64;

/// A field that differs.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct Change {
    /// Its path, such as `driver_config.pjlink.port`.
    pub(in crate::admin) field: String,
    /// What it was; absent where it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) before: Option<Box<RawValue>>,
    /// What it became; absent where it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) after: Option<Box<RawValue>>,
    /// It is a secret: what it was and is stays masked.
    pub(in crate::admin) secret: bool,
}

/// A device that differs.
#[derive(Serialize)]
pub(in crate::admin) struct ChangedDevice<'a> {
    /// Its id in the later version.
    pub(in crate::admin) device_id: i64,
    /// Its address in the later version.
    pub(in crate::admin) ip: &'a str,
    /// Its name in the later version.
    pub(in crate::admin) name: &'a str,
    /// What differs.
    pub(in crate::admin) fields: Vec<Change>,
}

/// What differs between two versions.
#[derive(Serialize)]
pub(in crate::admin) struct Differences<'a> {
    /// The site's own settings.
    pub(in crate::admin) settings: Vec<Change>,
    /// Devices that are only in the later version.
    pub(in crate::admin) added: Vec<DeviceDocument<'a>>,
    /// Devices that are only in the earlier version.
    pub(in crate::admin) removed: Vec<DeviceDocument<'a>>,
    /// Devices of which something differs.
    pub(in crate::admin) changed: Vec<ChangedDevice<'a>>,
}

/// Pairs two lists by one key, and what is left by another; what has no
/// counterpart stands alone.
pub(super) fn pair<'a, T, A: Eq + Hash, B: Eq + Hash>(
    before: &'a [T],
    after: &'a [T],
    first: impl Fn(&'a T) -> A,
    second: impl Fn(&'a T) -> B,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let mut by_first: HashMap<A, &T> = before.iter().map(|item| (first(item), item)).collect();
    let mut pairs = Vec::with_capacity(after.len());
    let mut left = Vec::new();
    for item in after {
        match by_first.remove(&first(item)) {
            Some(old) => pairs.push((Some(old), Some(item))),
            None => left.push(item),
        }
    }
    let mut by_second: HashMap<B, &T> = before
        .iter()
        .filter(|item| by_first.contains_key(&first(item)))
        .map(|item| (second(item), item))
        .collect();
    for item in left {
        pairs.push((by_second.remove(&second(item)), Some(item)));
    }
    // In the order in which they came.
    for item in before {
        if by_second.contains_key(&second(item)) && by_first.contains_key(&first(item)) {
            pairs.push((Some(item), None));
        }
    }
    pairs
}

/// What differs from one version to another.
pub(in crate::admin) fn differences<'a>(
    from: &'a VersionConfig,
    to: &'a VersionConfig,
) -> Differences<'a> {
    let mut out = Differences {
        settings: settings(from.config.as_ref(), to.config.as_ref()),
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    let (before, after) = (devices(from), devices(to));
    for (before, after) in pair(&before, &after, |d| d.0, |d| d.1.ip.as_str()) {
        match (before, after) {
            (Some((_, before)), Some((device_id, after))) => {
                let fields = device(before, after);
                if !fields.is_empty() {
                    out.changed.push(ChangedDevice {
                        device_id: *device_id,
                        ip: &after.ip,
                        name: &after.name,
                        fields,
                    });
                }
            }
            (None, Some((device_id, row))) => out.added.push(device_document(*device_id, row)),
            (Some((device_id, row)), None) => out.removed.push(device_document(*device_id, row)),
            (None, None) => {}
        }
    }
    out
}

fn devices(version: &VersionConfig) -> Vec<(i64, &DeviceRow)> {
    version
        .config
        .iter()
        .flat_map(|config| version.device_ids.iter().copied().zip(&config.devices))
        .collect()
}

fn settings(before: Option<&SiteSnapshot>, after: Option<&SiteSnapshot>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |field: &str, of: &dyn Fn(&SiteSnapshot) -> Option<Box<RawValue>>| {
        let (before, after) = (before.and_then(of), after.and_then(of));
        if before.as_ref().map(|raw| raw.get()) != after.as_ref().map(|raw| raw.get()) {
            changes.push(Change {
                field: field.to_owned(),
                before,
                after,
                secret: false,
            });
        }
    };
    compare("site_name", &|site| to_raw_value(&site.name).ok());
    compare("timezone", &|site| to_raw_value(&site.timezone).ok());
    compare("doubt_after_days", &|site| {
        to_raw_value(&site.doubt_after_days).ok()
    });
    compare("ok_interval_s", &|site| {
        to_raw_value(&site.ok_interval_s).ok()
    });
    compare("ko_interval_s", &|site| {
        to_raw_value(&site.ko_interval_s).ok()
    });
    changes
}

fn device(before: &DeviceRow, after: &DeviceRow) -> Vec<Change> {
    let mut changes = Vec::new();
    let texts = [
        ("ip", &*before.ip, &*after.ip),
        ("name", &before.name, &after.name),
        ("building", text(&before.building), text(&after.building)),
        ("floor", text(&before.floor), text(&after.floor)),
        ("room", text(&before.room), text(&after.room)),
        ("type", &before.device_type, &after.device_type),
        ("driver", &before.driver, &after.driver),
    ];
    for (field, before, after) in texts {
        if before != after {
            changes.push(Change {
                field: field.to_owned(),
                before: to_raw_value(before).ok(),
                after: to_raw_value(after).ok(),
                secret: false,
            });
        }
    }
    for (field, before, after) in [
        ("driver_config", &before.driver_config, &after.driver_config),
        ("expectations", &before.expectations, &after.expectations),
    ] {
        let (before, after) = (
            before.as_deref().unwrap_or("{}"),
            after.as_deref().unwrap_or("{}"),
        );
        json(field, Some(before), Some(after), 0, &mut changes);
    }
    changes
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Compares two JSON texts of PostgreSQL's: equal values have equal texts.
fn json(
    path: &str,
    before: Option<&str>,
    after: Option<&str>,
    depth: usize,
    out: &mut Vec<Change>,
) {
    if before == after {
        return;
    }
    if let (Some(before), Some(after), true) = (before, after, depth < DEPTH_MAX) {
        if let (Some(before), Some(after)) = (members(before), members(after)) {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = format!("{path}.{key}");
                let get = |side: &BTreeMap<String, Box<RawValue>>| {
                    side.get(key).map(|raw| raw.get().to_owned())
                };
                let (before, after) = (get(&before), get(&after));
                if is_secret(key) {
                    secret(path, before.as_deref(), after.as_deref(), out);
                } else {
                    json(&path, before.as_deref(), after.as_deref(), depth + 1, out);
                }
            }
            return;
        }
        if let (Some(before), Some(after)) = (items(before), items(after)) {
            for i in 0..before.len().max(after.len()) {
                json(
                    &format!("{path}[{i}]"),
                    before.get(i).map(|raw| raw.get()),
                    after.get(i).map(|raw| raw.get()),
                    depth + 1,
                    out,
                );
            }
            return;
        }
    }
    out.push(Change {
        field: path.to_owned(),
        before: before.map(masked),
        after: after.map(masked),
        secret: false,
    });
}

fn secret(field: String, before: Option<&str>, after: Option<&str>, out: &mut Vec<Change>) {
    if before == after {
        return;
    }
    // That there is none is no secret.
    let shown = |json: &str| match json {
        "null" | "\"\"" => RawValue::from_string(json.to_owned()).ok(),
        _ => to_raw_value(MASK).ok(),
    };
    out.push(Change {
        field,
        before: before.and_then(shown),
        after: after.and_then(shown),
        secret: true,
    });
}

fn members(json: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    json.starts_with('{')
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

fn items(json: &str) -> Option<Vec<Box<RawValue>>> {
    json.starts_with('[')
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(before: &str, after: &str) -> Vec<String> {
        let mut out = Vec::new();
        json("c", Some(before), Some(after), 0, &mut out);
        out.iter()
            .map(|change| {
                let side = |raw: &Option<Box<RawValue>>| {
                    raw.as_ref().map_or("-", |raw| raw.get()).to_owned()
                };
                let mark = if change.secret { " secret" } else { "" };
                format!(
                    "{}: {} > {}{mark}",
                    change.field,
                    side(&change.before),
                    side(&change.after)
                )
            })
            .collect()
    }

    #[test]
    fn json_is_compared_path_by_path() {
        for (before, after, expected) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#, vec![]),
            (r#"{"a": 1}"#, r#"{"a": 1.0}"#, vec!["c.a: 1 > 1.0"]),
            (
                r#"{"p": {"port": 1, "x": null}}"#,
                r#"{"p": {"port": 2, "y": [1]}}"#,
                vec!["c.p.port: 1 > 2", "c.p.x: null > -", "c.p.y: - > [1]"],
            ),
            (
                r#"{"r": [{"start": "08:00"}, 2]}"#,
                r#"{"r": [{"start": "09:00"}]}"#,
                vec![r#"c.r[0].start: "08:00" > "09:00""#, "c.r[1]: 2 > -"],
            ),
            ("{}", "[1]", vec!["c: {} > [1]"]),
            (
                r#"{"n": 123456789012345678901234567890}"#,
                r#"{"n": 123456789012345678901234567891}"#,
                vec!["c.n: 123456789012345678901234567890 > 123456789012345678901234567891"],
            ),
        ] {
            assert_eq!(changes(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn a_secret_is_said_to_have_changed_and_not_shown() {
        for (before, after, expected) in [
            (
                r#"{"pjlink": {"password": "one"}}"#,
                r#"{"pjlink": {"password": "two"}}"#,
                vec![r#"c.pjlink.password: "***" > "***" secret"#],
            ),
            (
                r#"{"snmp": {}}"#,
                r#"{"snmp": {"community": "two"}}"#,
                vec![r#"c.snmp.community: - > "***" secret"#],
            ),
            (
                r#"{"password": ""}"#,
                r#"{"password": {"a": 1}}"#,
                vec![r#"c.password: "" > "***" secret"#],
            ),
            // A whole section with a secret in it.
            (
                "{}",
                r#"{"pjlink": {"password": "two", "port": 1}}"#,
                vec![r#"c.pjlink: - > {"password": "***", "port": 1}"#],
            ),
            (
                r#"{"l": [{"key": 1}]}"#,
                r#"{"l": [{"key": 2}]}"#,
                vec![r#"c.l[0].key: "***" > "***" secret"#],
            ),
        ] {
            assert_eq!(changes(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn deep_json_ends() {
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(500), "]".repeat(500));
        assert_eq!(changes(&deep("1"), &deep("2")).len(), 1);
    }

    #[test]
    fn pairs() {
        let before = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
        let after = [(1, "z"), (9, "b"), (3, "c"), (8, "e")];
        let pairs: Vec<_> = pair(&before, &after, |d| d.0, |d| d.1)
            .into_iter()
            .map(|(b, a)| (b.map(|d| d.0), a.map(|d| d.0)))
            .collect();
        assert_eq!(
            pairs,
            [
                (Some(1), Some(1)),
                (Some(3), Some(3)),
                (Some(2), Some(9)),
                (None, Some(8)),
                (Some(4), None),
            ]
        );
    }
}
