//! The history of a site's configuration: versions, and what differs.

use askama::Template;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::super::versions::diff::{Change, Differences, differences};
use super::super::versions::{Counts, list, load};
use super::html::Frame;
use super::i18n::Lang;
use super::{Admin, Call, Problem, frame, one_site, show};
use crate::answer::Answer;
use crate::store::pages::SitePage;

/// How many versions a page lists.
const PAGE: i64 = 50;
/// How much of a hash is shown: as in the logs.
const HASH_SHOWN: usize = 6;

#[derive(Template)]
#[template(path = "versions.html")]
struct Page {
    f: Frame,
    site: SitePage,
    lines: Vec<Line>,
    next_before: Option<i64>,
}

struct Line {
    revision: i64,
    at: Timestamp,
    author: String,
    origin: String,
    ip: Option<String>,
    what: String,
    hash: String,
    newest: bool,
    running: bool,
}

/// `GET /sites/{id}/versions?before=`.
pub(super) fn page(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let site = one_site(admin, id)?;
    let before = call
        .query
        .get("before")
        .and_then(|text| text.parse::<i64>().ok());
    let list = list(&admin.store, id, before, PAGE)?;
    let next_before = list
        .versions
        .last()
        .filter(|line| line.version.previous.is_some())
        .map(|line| line.version.revision);
    let running = site.agent.running_hash.clone();
    // Two versions may be equal: the agent runs the newer.
    let mut found = false;
    let lines = list
        .versions
        .into_iter()
        .enumerate()
        .map(|(index, line)| {
            let version = line.version;
            let is_running = !found && running.is_some() && running == version.hash;
            found |= is_running;
            Line {
                revision: version.revision,
                at: version.at,
                author: version.author,
                origin: version.origin,
                ip: version.ip,
                what: what(f.lang, line.counts, line.settings_changed),
                hash: short(version.hash.as_deref()),
                newest: before.is_none() && index == 0,
                running: is_running,
            }
        })
        .collect();
    Ok(show(
        200,
        &Page {
            f,
            site,
            lines,
            next_before,
        },
    ))
}

fn short(hash: Option<&str>) -> String {
    hash.and_then(|hash| hash.get(..HASH_SHOWN))
        .map_or_else(|| "–".to_owned(), |hash| format!("{hash}…"))
}

/// "+2 ~1 −3, settings".
fn what(lang: Lang, counts: Counts, settings: bool) -> String {
    let devices: Vec<String> = [
        ("+", counts.added),
        ("~", counts.changed),
        ("−", counts.removed),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(sign, count)| format!("{sign}{count}"))
    .collect();
    let mut parts = Vec::new();
    if !devices.is_empty() {
        parts.push(format!("{} {}", lang.t("devices"), devices.join(" ")));
    }
    if settings {
        parts.push(lang.t("version.settings").to_owned());
    }
    if parts.is_empty() {
        "–".to_owned()
    } else {
        parts.join(", ")
    }
}

#[derive(Template)]
#[template(path = "version.html")]
struct One {
    f: Frame,
    site: SitePage,
    revision: i64,
    newest: i64,
    previous: Option<i64>,
    with_newest: bool,
    can_return: bool,
    author: String,
    origin: String,
    ip: Option<String>,
    at: Timestamp,
    hash: String,
    title: &'static str,
    groups: Vec<Group>,
}

/// The settings, or one device.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    title: String,
    note: String,
    fields: Vec<Field>,
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: String,
    before: String,
    after: String,
}

/// `GET /sites/{id}/versions/{revision}?with=newest`: what it changed, or what
/// has changed since.
pub(super) fn one(
    admin: &Admin,
    call: &Call<'_>,
    id: i64,
    revision: &str,
) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let site = one_site(admin, id)?;
    let load = |revision: &str| load(&admin.store, id, revision).map_err(Problem::Answered);
    let this = load(revision)?;
    let newest = list(&admin.store, id, None, 1)?
        .versions
        .first()
        .map_or(this.version.revision, |line| line.version.revision);
    let with_newest = call.query.get("with") == Some("newest");
    let other = match (with_newest, this.version.previous) {
        (true, _) => Some(load(&newest.to_string())?),
        (false, Some(previous)) => Some(load(&previous.to_string())?),
        (false, None) => None,
    };
    let groups = match &other {
        Some(newest) if with_newest => groups(f.lang, &differences(&this, newest)),
        Some(before) => groups(f.lang, &differences(before, &this)),
        None => Vec::new(),
    };
    let version = &this.version;
    Ok(show(
        200,
        &One {
            revision: version.revision,
            newest,
            previous: version.previous,
            with_newest,
            can_return: f.can_edit() && version.revision != newest && !version.deleted,
            author: version.author.clone(),
            origin: version.origin.clone(),
            ip: version.ip.clone(),
            at: version.at,
            hash: short(version.hash.as_deref()),
            title: f.lang.t(if with_newest {
                "version.since"
            } else {
                "version.changes"
            }),
            groups,
            site,
            f,
        },
    ))
}

fn groups(lang: Lang, differences: &Differences<'_>) -> Vec<Group> {
    let mut groups = Vec::new();
    if !differences.settings.is_empty() {
        groups.push(Group {
            title: lang.t("site.edit").to_owned(),
            note: String::new(),
            fields: differences
                .settings
                .iter()
                .map(|change| field(lang, change))
                .collect(),
        });
    }
    for (key, devices) in [
        ("version.added", &differences.added),
        ("version.removed", &differences.removed),
    ] {
        groups.extend(devices.iter().map(|device| Group {
            title: lang.with(key, device.name),
            note: device.ip.to_owned(),
            fields: Vec::new(),
        }));
    }
    groups.extend(differences.changed.iter().map(|device| {
        Group {
            title: device.name.to_owned(),
            note: device.ip.to_owned(),
            fields: device
                .fields
                .iter()
                .map(|change| field(lang, change))
                .collect(),
        }
    }));
    groups
}

fn field(lang: Lang, change: &Change) -> Field {
    let side = |value: &Option<Box<RawValue>>| {
        if change.secret {
            return "***".to_owned();
        }
        match value {
            None => "–".to_owned(),
            // Text without its quotes.
            Some(raw) => {
                serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
            }
        }
    };
    let (before, mut after) = (side(&change.before), side(&change.after));
    if change.secret {
        after = format!("*** ({})", lang.t("changed"));
    }
    Field {
        name: change.field.clone(),
        before,
        after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_changed() {
        let counts = Counts {
            added: 2,
            changed: 0,
            removed: 1,
        };
        assert_eq!(what(Lang::En, counts, true), "Devices +2 −1, settings");
        assert_eq!(what(Lang::Fr, Counts::default(), false), "–");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let change = |secret| Change {
            field: "driver_config.pjlink.password".to_owned(),
            before: raw("\"old\""),
            after: raw("12"),
            secret,
        };
        let shown = field(Lang::En, &change(false));
        assert_eq!((shown.before.as_str(), shown.after.as_str()), ("old", "12"));
        let masked = field(Lang::En, &change(true));
        assert_eq!(
            (masked.before.as_str(), masked.after.as_str()),
            ("***", "*** (changed)")
        );
    }
}
