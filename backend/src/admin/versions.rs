//! The history of configurations: versions, what differs between two, the way
//! back; whether the agent runs the newest; and the renewal of site tokens.

pub(super) mod agent;
pub(super) mod diff;
mod token;

use std::collections::HashMap;

use av_service::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::Admin;
use super::context::Call;
use super::input::{id, number, optional_id, read_json};
use super::secrets;
use crate::answer::Answer;
use crate::config::hash;
use crate::store::config::DeviceRow;
use crate::store::versions::{NoWayBack, TakenBack, Touched, Version, VersionConfig};
use crate::store::{Store, StoreError};
use diff::Differences;

/// Answers where the path is `sites/{id}/versions...`, `sites/{id}/agent` or
/// `sites/{id}/token`; `None` where it is not.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let (site, rest) = match call.path {
        ["sites", site, rest @ ..] if !rest.is_empty() => (id(site), rest),
        _ => return None,
    };
    // An id that cannot be one is a site that there is not.
    let site = site.unwrap_or_default();
    let answer = match (rest, &call.method) {
        (["versions"], Method::Get) => versions(admin, call, site),
        (["versions"], _) => Err(call.only("GET, HEAD")),
        (["versions", revision], Method::Get) => show(admin, site, revision),
        (["versions", _], _) => Err(call.only("GET, HEAD")),
        (["versions", from, "diff", to], Method::Get) => difference(admin, site, from, to),
        (["versions", _, "diff", _], _) => Err(call.only("GET, HEAD")),
        (["versions", revision, "rollback"], Method::Post) => rollback(admin, call, site, revision),
        (["versions", _, "rollback"], _) => Err(call.only("POST")),
        (["agent"], Method::Get) => agent::show(admin, site),
        (["agent"], _) => Err(call.only("GET, HEAD")),
        (["token"], method) => token::route(admin, call, site, method),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn unknown_site() -> Answer {
    Answer::error(404, "there is no such site")
}

fn unknown_version() -> Answer {
    Answer::error(404, "the site has no such version")
}

/// How many devices differ between a version and the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Devices that are new.
    pub(super) added: usize,
    /// Devices of which something differs.
    pub(super) changed: usize,
    /// Devices that are gone.
    pub(super) removed: usize,
}

/// A line of the list of versions.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The version, with its hash where it has one.
    pub(super) version: Version,
    /// How many devices it changed.
    pub(super) counts: Counts,
    /// Whether it changed the site's own settings.
    pub(super) settings_changed: bool,
}

/// A part of the list of versions, the newest first.
#[derive(Debug, Clone)]
pub(super) struct List {
    /// How many there are.
    pub(super) total: i64,
    /// Those of this part.
    pub(super) versions: Vec<Listed>,
}

/// The versions of a site below `before`, at most `limit`.
pub(super) fn list(
    store: &Store,
    site: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<List, StoreError> {
    let page = store.versions(site, before, limit)?;
    let mut touched: HashMap<i64, Vec<Touched>> = HashMap::new();
    for device in page.touched {
        touched.entry(device.revision).or_default().push(device);
    }
    let versions = page
        .versions
        .into_iter()
        .map(|mut version| {
            let revision = version.revision;
            if version.hash.is_none() && !version.deleted {
                version.hash = ensure_hash(store, site, revision)?;
            }
            Ok(Listed {
                counts: count(touched.get(&revision).map_or(&[], Vec::as_slice)),
                settings_changed: page.settings_changed.contains(&revision),
                version,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(List {
        total: page.total,
        versions,
    })
}

/// Devices are the same by their id, and else by their address: one that was
/// deleted and entered again is one that changed, or did not.
fn count(touched: &[Touched]) -> Counts {
    let side = |after: bool| {
        touched
            .iter()
            .filter(move |device| device.after == after)
            .map(|device| (device.device_id, device.ip.as_str(), device.digest.as_str()))
            .collect::<Vec<_>>()
    };
    let (before, after) = (side(false), side(true));
    let mut counts = Counts::default();
    for pair in diff::pair(&before, &after, |d| d.0, |d| d.1) {
        match pair {
            (Some(before), Some(after)) => counts.changed += usize::from(before.2 != after.2),
            (None, Some(_)) => counts.added += 1,
            (Some(_), None) => counts.removed += 1,
            (None, None) => {}
        }
    }
    counts
}

/// The hash of a version, computed and kept where nobody needed it yet;
/// `None` where there is no configuration, or none that can be hashed.
pub(super) fn ensure_hash(
    store: &Store,
    site: i64,
    revision: i64,
) -> Result<Option<String>, StoreError> {
    let Some(found) = store.version(site, revision)? else {
        return Ok(None);
    };
    if found.version.hash.is_some() {
        return Ok(found.version.hash);
    }
    let Some(config) = &found.config else {
        return Ok(None);
    };
    match hash(config) {
        Ok(hash) => {
            store.store_version_hash(site, revision, hash.as_str())?;
            Ok(Some(hash.to_string()))
        }
        Err(error) => {
            log::warn!("version {revision} of site {site} has no hash: {error}");
            Ok(None)
        }
    }
}

#[derive(Serialize)]
struct VersionDocument<'a> {
    revision: i64,
    at: jiff::Timestamp,
    author: &'a str,
    origin: &'a str,
    ip: Option<&'a str>,
    hash: Option<&'a str>,
    deleted: bool,
}

fn document(version: &Version) -> VersionDocument<'_> {
    VersionDocument {
        revision: version.revision,
        at: version.at,
        author: &version.author,
        origin: &version.origin,
        ip: version.ip.as_deref(),
        hash: version.hash.as_deref(),
        deleted: version.deleted,
    }
}

fn versions(admin: &Admin, call: &Call<'_>, site: i64) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        version: VersionDocument<'a>,
        #[serde(flatten)]
        counts: Counts,
        settings_changed: bool,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        total: i64,
        limit: i64,
        versions: Vec<Line<'a>>,
        next_before: Option<i64>,
    }
    let limit = number(call.query, "limit", 50, (1, 200))?;
    let before = optional_id(call.query, "before")?;
    let list = list(&admin.store, site, before, limit)?;
    if list.total == 0 {
        return Err(unknown_site());
    }
    let next_before = list
        .versions
        .last()
        .filter(|line| line.version.previous.is_some())
        .map(|line| line.version.revision);
    Ok(Answer::json(
        200,
        &Body {
            total: list.total,
            limit,
            versions: list
                .versions
                .iter()
                .map(|line| Line {
                    version: document(&line.version),
                    counts: line.counts,
                    settings_changed: line.settings_changed,
                })
                .collect(),
            next_before,
        },
    ))
}

/// A version as it was, with its hash.
pub(super) fn load(store: &Store, site: i64, revision: &str) -> Result<VersionConfig, Answer> {
    let revision = id(revision).ok_or_else(unknown_version)?;
    let mut found = store.version(site, revision)?.ok_or_else(unknown_version)?;
    if found.version.hash.is_none() && found.config.is_some() {
        found.version.hash = ensure_hash(store, site, revision)?;
    }
    Ok(found)
}

/// A device as it was in a version, its secrets masked.
#[derive(Serialize)]
pub(super) struct DeviceDocument<'a> {
    device_id: i64,
    /// Its address.
    pub(super) ip: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    building: &'a str,
    floor: &'a str,
    room: &'a str,
    #[serde(rename = "type")]
    device_type: &'a str,
    driver: &'a str,
    driver_config: Box<RawValue>,
    expectations: Box<RawValue>,
}

fn device_document(device_id: i64, row: &DeviceRow) -> DeviceDocument<'_> {
    DeviceDocument {
        device_id,
        ip: &row.ip,
        name: &row.name,
        building: row.building.as_deref().unwrap_or_default(),
        floor: row.floor.as_deref().unwrap_or_default(),
        room: row.room.as_deref().unwrap_or_default(),
        device_type: &row.device_type,
        driver: &row.driver,
        driver_config: masked(row.driver_config.as_deref().unwrap_or("{}")),
        expectations: masked(row.expectations.as_deref().unwrap_or("{}")),
    }
}

fn masked(json: &str) -> Box<RawValue> {
    RawValue::from_string(secrets::mask(json)).unwrap_or_default()
}

fn show(admin: &Admin, site: i64, revision: &str) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(flatten)]
        version: VersionDocument<'a>,
        site_name: Option<&'a str>,
        timezone: Option<&'a str>,
        doubt_after_days: Option<i32>,
        ok_interval_s: Option<i32>,
        ko_interval_s: Option<i32>,
        devices: Vec<DeviceDocument<'a>>,
    }
    let found = load(&admin.store, site, revision)?;
    let config = found.config.as_ref();
    Ok(Answer::json(
        200,
        &Body {
            version: document(&found.version),
            site_name: config.map(|config| config.name.as_str()),
            timezone: config.map(|config| config.timezone.as_str()),
            doubt_after_days: config.map(|config| config.doubt_after_days),
            ok_interval_s: config.map(|config| config.ok_interval_s),
            ko_interval_s: config.map(|config| config.ko_interval_s),
            devices: config
                .iter()
                .flat_map(|config| config.devices.iter().zip(&found.device_ids))
                .map(|(row, device_id)| device_document(*device_id, row))
                .collect(),
        },
    )
    .with("ETag", format!("\"{}\"", found.version.revision)))
}

fn difference(admin: &Admin, site: i64, from: &str, to: &str) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct Body<'a> {
        from: VersionDocument<'a>,
        to: VersionDocument<'a>,
        #[serde(flatten)]
        differences: Differences<'a>,
    }
    let (from, to) = (
        load(&admin.store, site, from)?,
        load(&admin.store, site, to)?,
    );
    Ok(Answer::json(
        200,
        &Body {
            from: document(&from.version),
            to: document(&to.version),
            differences: diff::differences(&from, &to),
        },
    ))
}

/// The newest version that the caller knows of, from `If-Match` or the body;
/// `None` for `*`.
fn seen(call: &Call<'_>) -> Result<Option<i64>, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        expected_revision: Option<i64>,
    }
    let expected = match call.body {
        body if body.trim_ascii().is_empty() => None,
        body => read_json::<Body>(body)?.expected_revision,
    };
    match (call.headers.get("if-match"), expected) {
        (None, None) => Err(Answer::error(
            428,
            "send If-Match with the newest revision that you saw, or * to take the site back whatever it is now",
        )),
        (Some("*"), expected) => Ok(expected),
        (Some(tag), expected) => {
            let revision = tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .and_then(id);
            match (revision, expected) {
                (Some(revision), None) => Ok(Some(revision)),
                (Some(revision), Some(expected)) if revision == expected => Ok(Some(revision)),
                _ => Err(changed(None)),
            }
        }
        (None, expected) => Ok(expected),
    }
}

fn changed(newest: Option<i64>) -> Answer {
    let error = "the configuration has changed since: look at the newest version first";
    Answer::json(412, &json!({"error": error, "newest": newest}))
}

/// Takes a site back to a version. For the pages too.
pub(super) fn take_back(
    admin: &Admin,
    call: &Call<'_>,
    site: i64,
    revision: i64,
    seen: Option<i64>,
) -> Result<TakenBack, Answer> {
    let done = admin
        .store
        .roll_back(&call.caller.actor_as("rollback"), site, revision, seen)
        .map_err(|error| match error {
            StoreError::Taken(_) => Answer::error(
                409,
                "the site had a name then that another site has now: rename that one first",
            ),
            error => error.into(),
        })?;
    done.map_err(|refusal| match refusal {
        NoWayBack::UnknownSite => unknown_site(),
        NoWayBack::UnknownVersion => unknown_version(),
        NoWayBack::Deleted => Answer::error(409, "the site is deleted in that version"),
        NoWayBack::Changed { newest } => changed(Some(newest)),
    })
}

fn rollback(admin: &Admin, call: &Call<'_>, site: i64, revision: &str) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct Body {
        revision: i64,
        hash: Option<String>,
        added: u64,
        changed: u64,
        removed: u64,
        settings_changed: bool,
    }
    let revision = id(revision).ok_or_else(unknown_version)?;
    let seen = seen(call)?;
    let done = take_back(admin, call, site, revision, seen)?;
    Ok(Answer::json(
        200,
        &Body {
            revision: done.revision,
            hash: ensure_hash(&admin.store, site, done.revision)?,
            added: done.added,
            changed: done.changed,
            removed: done.removed,
            settings_changed: done.settings_changed,
        },
    )
    .with("ETag", format!("\"{}\"", done.revision)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(after: bool, device_id: i64, ip: &str, digest: &str) -> Touched {
        Touched {
            revision: 1,
            after,
            device_id,
            ip: ip.to_owned(),
            digest: digest.to_owned(),
        }
    }

    #[test]
    fn devices_are_counted_once_each() {
        let counts = count(&[
            // renumbered
            touched(false, 1, "10.0.0.1", "a"),
            touched(true, 1, "10.0.0.9", "b"),
            // deleted and entered again as it was
            touched(false, 2, "10.0.0.2", "c"),
            touched(true, 7, "10.0.0.2", "c"),
            // deleted and entered again with another name
            touched(false, 3, "10.0.0.3", "d"),
            touched(true, 8, "10.0.0.3", "e"),
            touched(false, 4, "10.0.0.4", "f"),
            touched(true, 9, "10.0.0.5", "g"),
        ]);
        assert_eq!(
            counts,
            Counts {
                added: 1,
                changed: 2,
                removed: 1
            }
        );
        assert_eq!(count(&[]), Counts::default());
    }
}
