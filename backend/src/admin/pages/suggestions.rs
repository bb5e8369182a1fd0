//! Equipment that a site's agent found: what it is, and whether to watch it.

use askama::Template;
use jiff::Timestamp;
use serde::Deserialize;

use super::html::Frame;
use super::{Admin, Call, Problem, frame, one_site, show};
use crate::answer::Answer;
use crate::store::pages::SitePage;
use crate::store::suggestions::Suggestion;

/// More are on no page: the API has them.
const SHOWN_MAX: i64 = 500;

#[derive(Template)]
#[template(path = "suggestions.html")]
struct Page {
    f: Frame,
    site: SitePage,
    all: bool,
    total: i64,
    shown: Vec<Line>,
}

/// A suggestion in words.
struct Line {
    id: i64,
    ip: String,
    title: String,
    name: String,
    driver: String,
    evidence: Vec<String>,
    last_seen: Timestamp,
    open: bool,
    decided: Option<(&'static str, String)>,
    device_id: Option<i64>,
}

/// What a line needs of the facts.
#[derive(Default, Deserialize)]
struct Facts {
    vendor: Option<String>,
    model: Option<String>,
    name: Option<String>,
    driver: Option<String>,
}

fn line(suggestion: Suggestion, f: &Frame) -> Line {
    let facts: Facts = serde_json::from_str(&suggestion.facts).unwrap_or_default();
    let title: Vec<String> = [facts.vendor, facts.model].into_iter().flatten().collect();
    let word = match suggestion.state.as_str() {
        "accepted" => "suggestions.accepted",
        _ => "suggestions.dismissed",
    };
    Line {
        id: suggestion.id,
        title: if title.is_empty() {
            f.lang.t("suggestions.unknown").to_owned()
        } else {
            title.join(" ")
        },
        name: facts.name.unwrap_or_else(|| suggestion.ip.clone()),
        ip: suggestion.ip,
        driver: facts.driver.unwrap_or_default(),
        evidence: serde_json::from_str(&suggestion.evidence).unwrap_or_default(),
        last_seen: suggestion.last_seen,
        open: suggestion.state == "open",
        decided: suggestion.decided_by.map(|who| (f.lang.t(word), who)),
        device_id: suggestion.device_id,
    }
}

/// `GET /sites/{id}/suggestions?all=1`.
pub(super) fn page(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let site = one_site(admin, id)?;
    let all = call.query.get("all") == Some("1");
    let state = (!all).then_some("open");
    let (suggestions, total) = admin.store.suggestions(Some(id), state, (SHOWN_MAX, 0))?;
    let shown = suggestions
        .into_iter()
        .map(|suggestion| line(suggestion, &f))
        .collect();
    Ok(show(
        200,
        &Page {
            f,
            site,
            all,
            total,
            shown,
        },
    ))
}
