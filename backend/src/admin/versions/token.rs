//! The renewal of a site's token.

use av_service::http::Method;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::unknown_site;
use crate::admin::context::Call;
use crate::admin::input::{invalid_field, read_json};
use crate::admin::{Admin, random_hex};
use crate::answer::Answer;
use crate::store::sites::TokenDigest;

/// How long a renewed token lives on, in seconds: a rack that is switched off
/// over a week's holidays still gets in.
const GRACE_DEFAULT_S: i64 = 7 * 86_400;
const GRACE_MAX_S: i64 = 90 * 86_400;

/// `GET` and `POST /admin/sites/{id}/token`.
pub(super) fn route(
    admin: &Admin,
    call: &Call<'_>,
    site: i64,
    method: &Method,
) -> Result<Answer, Answer> {
    match method {
        Method::Get => show(admin, site),
        Method::Post => renew(admin, call, site),
        _ => Err(call.only("GET, HEAD, POST")),
    }
}

fn show(admin: &Admin, site: i64) -> Result<Answer, Answer> {
    if admin.store.agent_rows(Some(site))?.is_empty() {
        return Err(unknown_site());
    }
    let report = admin.store.token_report(site)?;
    Ok(Answer::json(
        200,
        &json!({"old_valid_until": report.old_until, "taken_over_at": report.taken_over_at}),
    ))
}

fn renew(admin: &Admin, call: &Call<'_>, site: i64) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        grace_s: Option<i64>,
    }
    let given = match call.body {
        body if body.trim_ascii().is_empty() => None,
        body => read_json::<Body>(body)?.grace_s,
    };
    let grace_s = given.unwrap_or(GRACE_DEFAULT_S);
    if !(0..=GRACE_MAX_S).contains(&grace_s) {
        return Err(invalid_field(
            "grace_s",
            format!("{grace_s} is not between 0 and {GRACE_MAX_S}"),
        ));
    }
    let token = random_hex().map_err(|error| {
        log::error!("no random numbers: {error}");
        Answer::error(500, "the system has no random numbers")
    })?;
    let old_until = admin
        .store
        .renew_site_token(
            &call.caller.actor(),
            site,
            &TokenDigest::of(&token),
            SignedDuration::from_secs(grace_s),
        )?
        .ok_or_else(unknown_site)?;
    admin.known.add_agent(&TokenDigest::of(&token));
    log::info!("the token of site {site} is renewed");
    // Shown this once: only its digest is kept.
    Ok(Answer::json(
        200,
        &json!({"token": token, "old_valid_until": old_until}),
    ))
}
