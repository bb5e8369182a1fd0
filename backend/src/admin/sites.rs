//! Sites: list, create, read, update, delete.

use std::collections::HashMap;

use av_proto::FieldError;
use av_proto::schedule::zone;
use av_service::http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Admin;
use super::context::{Call, Role};
use super::input::{check_name, id, invalid, number, read_json};
use super::login::new_secret;
use super::precondition::{self, if_match};
use super::users::conflict;
use super::versions::agent::{AgentSync, agents};
use crate::answer::Answer;
use crate::store::StoreError;
use crate::store::fold::fold;
use crate::store::inventory::{SiteFields, SiteRecord, VERDICTS};
use crate::store::sites::TokenDigest;

/// The most characters of a site's name.
const NAME_MAX: usize = 200;

/// Answers where the path is `sites` or `sites/{id}`.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match (call.path, &call.method) {
        (["sites"], Method::Get) => list(admin, call),
        (["sites"], Method::Post) => create(admin, call),
        (["sites"], _) => Err(call.only("GET, HEAD, POST")),
        (["sites", site], method) => {
            let Some(site) = id(site) else {
                return Some(unknown());
            };
            match method {
                Method::Get => show(admin, site),
                Method::Put => update(admin, call, site),
                Method::Patch => update(admin, call, site),
                Method::Delete => delete(admin, call, site),
                _ => Err(call.only("GET, HEAD, PUT, PATCH, DELETE")),
            }
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

pub(super) fn unknown() -> Answer {
    Answer::error(404, "there is no such site")
}

/// The site, or 404.
pub(super) fn find(admin: &Admin, site: i64) -> Result<SiteRecord, Answer> {
    admin
        .store
        .site_records(Some(site))?
        .pop()
        .ok_or_else(unknown)
}

/// Changes with what an administrator sets of the site itself, not with its
/// devices.
fn etag(site: &SiteRecord) -> String {
    let fields = &site.fields;
    let text = format!(
        "{}\n{}\n{}\n{}\n{}\n{}",
        site.id,
        fields.name,
        fields.timezone,
        fields.doubt_after_days,
        fields.ok_interval_s,
        fields.ko_interval_s
    );
    Sha256::digest(text.as_bytes())
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn document(site: &SiteRecord, agent: Option<&AgentSync>) -> Value {
    let fields = &site.fields;
    let verdicts: serde_json::Map<String, Value> = VERDICTS
        .iter()
        .zip(site.verdicts)
        .map(|(verdict, count)| ((*verdict).to_owned(), count.into()))
        .collect();
    json!({
        "id": site.id,
        "name": fields.name,
        "timezone": fields.timezone,
        "doubt_after_days": fields.doubt_after_days,
        "ok_interval_s": fields.ok_interval_s,
        "ko_interval_s": fields.ko_interval_s,
        "devices": site.verdicts.iter().sum::<i64>(),
        "verdicts": verdicts,
        "open_alerts": site.open_alerts,
        "config_hash": site.config_hash,
        "config_updated_at": site.config_updated_at,
        "config_revision": site.config_revision,
        "agent": {
            "last_report_at": site.last_report_at,
            "version": site.agent_version,
            "running_hash": site.running_hash,
            "config_error": site.config_error,
            "state": agent.map(|agent| agent.state),
            "since": agent.and_then(|agent| agent.since),
            "wanted_hash": agent.and_then(|agent| agent.wanted_hash.as_deref()),
        },
        "created_at": site.created_at,
        "updated_at": site.updated_at,
        "etag": etag(site),
    })
}

fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let limit = number(call.query, "limit", 1000, (1, 10_000))?;
    let offset = number(call.query, "offset", 0, (0, i64::from(i32::MAX)))?;
    let text = fold(call.query.get("q").unwrap_or_default());
    let mut sites = admin.store.site_records(None)?;
    sites.retain(|site| fold(&site.fields.name).contains(&text));
    let total = sites.len();
    let agents: HashMap<i64, AgentSync> = agents(&admin.store, None)?
        .into_iter()
        .map(|agent| (agent.site_id, agent))
        .collect();
    let page: Vec<Value> = sites
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|site| document(site, agents.get(&site.id)))
        .collect();
    Ok(Answer::json(
        200,
        &json!({"total": total, "limit": limit, "offset": offset, "sites": page}),
    ))
}

fn show(admin: &Admin, site: i64) -> Result<Answer, Answer> {
    answer(admin, &find(admin, site)?)
}

fn answer(admin: &Admin, site: &SiteRecord) -> Result<Answer, Answer> {
    let agent = agents(&admin.store, Some(site.id))?.pop();
    Ok(Answer::json(200, &document(site, agent.as_ref()))
        .with("ETag", format!("\"{}\"", etag(site))))
}

/// What a client sends. It may send back what it got: what it cannot set is
/// not looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    name: Option<String>,
    timezone: Option<String>,
    doubt_after_days: Option<i64>,
    ok_interval_s: Option<i64>,
    ko_interval_s: Option<i64>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "devices")]
    _devices: Option<IgnoredAny>,
    #[serde(rename = "verdicts")]
    _verdicts: Option<IgnoredAny>,
    #[serde(rename = "open_alerts")]
    _open_alerts: Option<IgnoredAny>,
    #[serde(rename = "config_hash")]
    _config_hash: Option<IgnoredAny>,
    #[serde(rename = "config_updated_at")]
    _config_updated_at: Option<IgnoredAny>,
    #[serde(rename = "config_revision")]
    _config_revision: Option<IgnoredAny>,
    #[serde(rename = "agent")]
    _agent: Option<IgnoredAny>,
    #[serde(rename = "created_at")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    _updated_at: Option<IgnoredAny>,
    #[serde(rename = "etag")]
    _etag: Option<IgnoredAny>,
}

impl Body {
    /// The valid fields, an absent one as in `base`; without one, the
    /// contract's defaults, and a name is needed.
    fn fields(self, base: Option<&SiteFields>) -> Result<SiteFields, Answer> {
        let mut errors = Vec::new();
        if self.name.is_none() && base.is_none() {
            errors.push(FieldError::new("name", "is missing"));
        }
        let base = base.cloned().unwrap_or_else(|| SiteFields::new("", "UTC"));
        let name = match self.name {
            Some(name) => {
                check_name(&mut errors, "name", &name, NAME_MAX);
                name
            }
            None => base.name,
        };
        let timezone = match self.timezone {
            Some(timezone) => {
                if zone(&timezone).is_none() {
                    errors.push(FieldError::new(
                        "timezone",
                        format!("{timezone:?} is not an IANA time zone, such as Europe/Paris"),
                    ));
                }
                timezone
            }
            None => base.timezone,
        };
        let mut whole = |field: &str, given: Option<i64>, kept: i32, (least, most): (i32, i32)| {
            let Some(number) = given else { return kept };
            match i32::try_from(number) {
                Ok(number) if (least..=most).contains(&number) => number,
                _ => {
                    errors.push(FieldError::new(
                        field,
                        format!("{number} is not between {least} and {most}"),
                    ));
                    kept
                }
            }
        };
        let doubt_after_days = whole(
            "doubt_after_days",
            self.doubt_after_days,
            base.doubt_after_days,
            (0, 36_500),
        );
        let ok_interval_s = whole(
            "ok_interval_s",
            self.ok_interval_s,
            base.ok_interval_s,
            (60, 86_400),
        );
        let ko_interval_s = whole(
            "ko_interval_s",
            self.ko_interval_s,
            base.ko_interval_s,
            (15, 86_400),
        );
        if !errors.is_empty() {
            return Err(invalid(&errors));
        }
        Ok(SiteFields {
            name,
            timezone,
            doubt_after_days,
            ok_interval_s,
            ko_interval_s,
        })
    }
}

fn create(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let body: Body = read_json(call.body)?;
    let fields = body.fields(None)?;
    let token = new_secret("")?;
    let created = admin
        .store
        .create_site(&call.caller.actor(), &fields, &TokenDigest::of(&token));
    let site = find(admin, created.map_err(taken)?)?;
    admin.known.add_agent(&TokenDigest::of(&token));
    let mut document = document(&site, None);
    // Shown this once: only its digest is kept.
    document["token"] = token.into();
    Ok(Answer::json(201, &document)
        .with("Location", format!("/admin/sites/{}", site.id))
        .with("ETag", format!("\"{}\"", etag(&site))))
}

fn taken(error: StoreError) -> Answer {
    match error {
        StoreError::Taken(_) => conflict("name", "is that of another site"),
        error => error.into(),
    }
}

fn update(admin: &Admin, call: &Call<'_>, site: i64) -> Result<Answer, Answer> {
    let before = find(admin, site)?;
    if_match(call.headers, &etag(&before))?;
    let body: Body = read_json(call.body)?;
    let base = (call.method == Method::Patch).then_some(&before.fields);
    let after = body.fields(base)?;
    if after != before.fields {
        admin
            .store
            .update_site(&call.caller.actor(), site, &before.fields, &after)
            .map_err(taken)?
            .map_err(precondition::lost)?;
    }
    // What this user set, though the next one may have changed it by now: the
    // entity tag must be of what this one has seen.
    let now = find(admin, site)?;
    answer(
        admin,
        &SiteRecord {
            fields: after,
            ..now
        },
    )
}

fn delete(admin: &Admin, call: &Call<'_>, site: i64) -> Result<Answer, Answer> {
    call.require(Role::Admin)?;
    let before = find(admin, site)?;
    if_match(call.headers, &etag(&before))?;
    admin
        .store
        .delete_site(&call.caller.actor(), site, &before.fields)?
        .map_err(precondition::lost)?;
    Ok(Answer::done())
}
