//! Suggestions: equipment that agents found, accepted or dismissed one by one.

use std::collections::BTreeMap;

use av_service::http::Method;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Admin;
use super::context::Call;
use super::devices::{self, added, overlaid, site_zone};
use super::draft::{Draft, Valid};
use super::input::{id, invalid, invalid_field, number, optional_id, read_json};
use super::sites;
use crate::answer::Answer;
use crate::store::inventory::Lost;
use crate::store::suggestions::Suggestion;

const STATES: [&str; 3] = ["open", "accepted", "dismissed"];

/// Answers where the path is `suggestions` or below it.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match (call.path, &call.method) {
        (["suggestions"], Method::Get) => list(admin, call),
        (["suggestions"], _) => Err(call.only("GET, HEAD")),
        (["suggestions", suggestion, verb @ ("accept" | "dismiss")], method) => {
            match (id(suggestion), method) {
                (None, _) => Err(unknown()),
                (Some(suggestion), Method::Post) if *verb == "accept" => {
                    accept(admin, call, suggestion, call.body)
                }
                (Some(suggestion), Method::Post) => dismiss(admin, call, suggestion),
                _ => Err(call.only("POST")),
            }
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn unknown() -> Answer {
    Answer::error(404, "there is no such suggestion")
}

fn find(admin: &Admin, id: i64) -> Result<Suggestion, Answer> {
    admin.store.suggestion(id)?.ok_or_else(unknown)
}

fn lost(lost: Lost) -> Answer {
    match lost {
        Lost::Gone => unknown(),
        Lost::Race => Answer::error(409, "it has been accepted"),
    }
}

type Facts = BTreeMap<String, Box<RawValue>>;

/// The facts of a suggestion by name, as they are stored.
pub(super) fn facts(suggestion: &Suggestion) -> Facts {
    serde_json::from_str(&suggestion.facts).unwrap_or_default()
}

/// A suggestion as it is shown.
#[derive(Serialize)]
struct Document<'a> {
    id: i64,
    site_id: i64,
    site: &'a str,
    ip: &'a str,
    #[serde(flatten)]
    facts: Facts,
    evidence: Box<RawValue>,
    state: &'a str,
    first_seen: Timestamp,
    last_seen: Timestamp,
    decided_at: Option<Timestamp>,
    decided_by: Option<&'a str>,
    device_id: Option<i64>,
}

fn document(suggestion: &Suggestion) -> Document<'_> {
    Document {
        id: suggestion.id,
        site_id: suggestion.site_id,
        site: &suggestion.site,
        ip: &suggestion.ip,
        facts: facts(suggestion),
        evidence: RawValue::from_string(suggestion.evidence.clone()).unwrap_or_default(),
        state: &suggestion.state,
        first_seen: suggestion.first_seen,
        last_seen: suggestion.last_seen,
        decided_at: suggestion.decided_at,
        decided_by: suggestion.decided_by.as_deref(),
        device_id: suggestion.device_id,
    }
}

fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct List<'a> {
        total: i64,
        limit: i64,
        offset: i64,
        suggestions: Vec<Document<'a>>,
    }
    let query = call.query;
    if query.iter().any(|(_, value)| value.contains('\0')) {
        return Err(Answer::error(422, "a parameter has a NUL character"));
    }
    let given = |name: &str| query.get(name).filter(|value| !value.is_empty());
    let site_id = match (optional_id(query, "site_id")?, given("site")) {
        (Some(id), _) => Some(id),
        (None, Some(site)) => Some(
            admin
                .store
                .site_by_name_or_id(site)?
                .ok_or_else(sites::unknown)?
                .id,
        ),
        (None, None) => None,
    };
    let state = match given("state").unwrap_or("open") {
        "all" => None,
        state if STATES.contains(&state) => Some(state),
        _ => {
            return Err(invalid_field(
                "state",
                "is none of open, accepted, dismissed, all",
            ));
        }
    };
    let limit = number(query, "limit", 100, (1, 5000))?;
    let offset = number(query, "offset", 0, (0, 1_000_000_000))?;
    let (suggestions, total) = admin.store.suggestions(site_id, state, (limit, offset))?;
    Ok(Answer::json(
        200,
        &List {
            total,
            limit,
            offset,
            suggestions: suggestions.iter().map(document).collect(),
        },
    ))
}

/// The device that a suggestion makes, with the fields of `over` in place of
/// its own.
fn proposed(
    suggestion: &Suggestion,
    over: BTreeMap<String, Option<Box<RawValue>>>,
) -> Result<Valid, Answer> {
    let mut members: BTreeMap<String, Option<Box<RawValue>>> = BTreeMap::new();
    let known = ["name", "type", "driver", "driver_config"];
    for (name, value) in facts(suggestion) {
        if known.contains(&name.as_str()) && value.get() != "null" {
            members.insert(name, Some(value));
        }
    }
    let text = |text: &str| serde_json::value::to_raw_value(text).ok();
    members.insert("ip".to_owned(), text(&suggestion.ip));
    members
        .entry("name".to_owned())
        .or_insert_with(|| text(&suggestion.ip));
    // Settings of the proposed driver are none of another's.
    let other_driver = over
        .get("driver")
        .is_some_and(|driver| !same(driver.as_deref(), members.get("driver")));
    if other_driver {
        members.remove("driver_config");
    }
    for (name, value) in over {
        if value.as_ref().is_some_and(|value| value.get() != "null") {
            members.insert(name, value);
        }
    }
    let json = overlaid(None, members).map_err(|errors| invalid(&errors))?;
    let draft: Draft = read_json(&json)?;
    if draft.site_id.is_some_and(|site| site != suggestion.site_id) {
        return Err(invalid_field("site_id", "is not that of the suggestion"));
    }
    draft
        .validate(suggestion.site_id, &site_zone(&suggestion.timezone), None)
        .map_err(|errors| invalid(&errors))
}

fn same(a: Option<&RawValue>, b: Option<&Option<Box<RawValue>>>) -> bool {
    a.map(RawValue::get) == b.and_then(|b| b.as_deref()).map(RawValue::get)
}

/// Makes a device of a suggestion, as `POST /admin/devices` does.
pub(super) fn accept(
    admin: &Admin,
    call: &Call<'_>,
    suggestion: i64,
    body: &[u8],
) -> Result<Answer, Answer> {
    let suggestion = find(admin, suggestion)?;
    let over = if body.is_empty() {
        BTreeMap::new()
    } else {
        read_json(body)?
    };
    if suggestion.state == "accepted" {
        return Err(lost(Lost::Race));
    }
    let valid = proposed(&suggestion, over)?;
    let device = admin
        .store
        .accept_suggestion(&call.caller.actor(), &suggestion, &valid.fields)
        .map_err(devices::store_refused)?
        .map_err(lost)?;
    added(admin, device, &valid.warnings)
}

/// Puts a suggestion aside until its facts change.
pub(super) fn dismiss(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let suggestion = find(admin, id)?;
    admin
        .store
        .dismiss_suggestion(&call.caller.actor(), &suggestion)?
        .map_err(lost)?;
    Ok(Answer::json(200, &document(&find(admin, id)?)))
}
