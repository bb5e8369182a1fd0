//! The audit log, for administrators.

use askama::Template;
use jiff::Timestamp;
use serde_json::Value;

use super::html::Frame;
use super::{Admin, Call, Problem, admins_frame, show};
use crate::answer::Answer;
use crate::store::audit::AuditFilter;
use crate::url::encode;

/// How many deeds a page lists.
const PAGE: i64 = 50;

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    f: Frame,
    sites: Vec<(i64, String)>,
    site: i64,
    text: String,
    lines: Vec<Line>,
    next_query: Option<String>,
}

struct Line {
    at: Timestamp,
    actor: String,
    origin: String,
    ip: String,
    action: String,
    target: String,
    detail: Vec<String>,
}

/// `GET /audit?site=&q=&before=`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = admins_frame(call, "audit")?;
    let number = |name: &str| {
        call.query
            .get(name)
            .and_then(|text| text.parse::<i64>().ok())
    };
    // PostgreSQL's texts have no NUL.
    let text = call.query.get("q").unwrap_or_default().replace('\0', "");
    let site = number("site");
    let filter = AuditFilter {
        site_id: site,
        before: number("before"),
        text: Some(text.trim()).filter(|text| !text.is_empty()),
    };
    // One more tells whether there is a next page.
    let mut entries = admin.store.audit(&filter, PAGE + 1)?;
    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let more = entries.len() > page;
    entries.truncate(page);
    let next_query = entries
        .last()
        .filter(|_| more)
        .map(|last| query(site, text.trim(), last.id));
    let sites = admin.store.sites()?;
    let lines = entries
        .into_iter()
        .map(|entry| Line {
            at: entry.at,
            actor: entry.actor,
            origin: entry.origin,
            ip: entry.ip,
            action: entry.action,
            target: entry.target,
            detail: detail(entry.detail.get()),
        })
        .collect();
    Ok(show(
        200,
        &Page {
            f,
            sites: sites.into_iter().map(|site| (site.id, site.name)).collect(),
            site: site.unwrap_or(0),
            text,
            lines,
            next_query,
        },
    ))
}

fn query(site: Option<i64>, text: &str, before: i64) -> String {
    let site = site.map_or_else(String::new, |id| id.to_string());
    format!("?site={site}&q={}&before={before}", encode(text))
}

/// The members of a deed's detail, one a line: an old and a new value with an
/// arrow, anything else as it is.
fn detail(json: &str) -> Vec<String> {
    let Ok(Value::Object(members)) = serde_json::from_str(json) else {
        return Vec::new();
    };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    members
        .iter()
        .map(|(name, value)| match value.as_array().map(Vec::as_slice) {
            Some([old, new]) => format!("{name}: {} → {}", plain(old), plain(new)),
            _ => format!("{name}: {}", plain(value)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_lines() {
        for (json, lines) in [
            ("{}", vec![]),
            ("7", vec![]),
            (
                r#"{"room": [null, "101"], "devices": 3, "fields": {"a": true}}"#,
                vec!["devices: 3", r#"fields: {"a":true}"#, "room: – → 101"],
            ),
        ] {
            assert_eq!(detail(json), lines);
        }
    }

    #[test]
    fn the_next_page_keeps_the_filter() {
        assert_eq!(query(Some(3), "é a", 7), "?site=3&q=%C3%A9%20a&before=7");
        assert_eq!(query(None, "", 7), "?site=&q=&before=7");
    }
}
