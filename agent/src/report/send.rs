//! One report to the backend, and what its answer means for the spool.

use av_proto::field::from_json;
use av_proto::report::{AgentInfo, Report, ReportId};
use serde::Deserialize;

use super::spool::Pending;
use crate::clock::Clock;
use crate::config::ActiveConfig;
use crate::http_client::{Answer, HttpClient, error_of};

/// A backend's answer to a report is short.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// What becomes of a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend has it.
    Taken {
        /// It had it before.
        duplicate: bool,
    },
    /// The backend will never take it.
    Refused(String),
    /// It stays first in line.
    NotNow {
        /// Why.
        reason: String,
        /// Whether the backend may have it all the same.
        may_have_arrived: bool,
    },
}

/// What somebody answered, if only a proxy, may have come after the backend had
/// the report.
fn not_now(reason: String) -> Outcome {
    Outcome::NotNow {
        reason,
        may_have_arrived: true,
    }
}

/// Sends a report. The site's name is the one that runs now: the backend
/// knows no other, whatever the site was called when the report was made.
pub(super) fn send(
    client: &HttpClient,
    active: &ActiveConfig,
    agent: AgentInfo,
    pending: &mut Pending,
    id: Option<ReportId>,
    clock: &Clock,
) -> Outcome {
    let report = Report {
        site_name: active.site.site_name.clone(),
        devices: std::mem::take(&mut pending.devices),
        agent: Some(agent),
        report: id,
    };
    let encoded = serde_json::to_vec(&report);
    // Lent, and not copied: a large site's report is half a megabyte.
    pending.devices = report.devices;
    let body = match encoded {
        Ok(body) => body,
        Err(error) => return Outcome::Refused(format!("cannot be encoded: {error}")),
    };
    let identity = &active.identity;
    match client.post_json(
        &identity.backend_url.ingest(),
        &identity.site_token,
        &body,
        ANSWER_MAX_BYTES,
    ) {
        Ok(answer) => {
            let outcome = judge(&answer);
            // A portal in between has a clock too, and nobody relies on it.
            if matches!(outcome, Outcome::Taken { .. }) {
                clock.heard(answer.date);
            }
            outcome
        }
        Err(error) => Outcome::NotNow {
            may_have_arrived: !error.is_unsent(),
            reason: format!("backend not reachable: {error}"),
        },
    }
}

fn judge(answer: &Answer) -> Outcome {
    #[derive(Deserialize)]
    struct Accepted {
        ok: bool,
        #[serde(default)]
        duplicate: bool,
    }
    let said = || {
        error_of(&answer.body)
            .map(|error| format!(": {error}"))
            .unwrap_or_default()
    };
    match answer.status {
        // Only the backend's own words count: a portal in between says 200 too.
        200 => match from_json(&answer.body) {
            Ok(Accepted {
                ok: true,
                duplicate,
            }) => Outcome::Taken { duplicate },
            _ => not_now("the answer to a report is not the backend's".to_owned()),
        },
        // A proxy in between says 400 of a client certificate, say.
        400 if serde_json::from_slice::<serde_json::Value>(&answer.body).is_err() => {
            not_now("the answer 400 to a report is not the backend's".to_owned())
        }
        status @ (400 | 413 | 422) => {
            Outcome::Refused(format!("the backend answered {status}{}", said()))
        }
        // 401 and 404 too: a token or a name can be put right in the backend.
        status => not_now(format!("the backend answered {status}{}", said())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let taken = |duplicate| Outcome::Taken { duplicate };
        let refused = |text: &str| Outcome::Refused(text.to_owned());
        let later = |text: &str| not_now(text.to_owned());
        for (status, body, outcome) in [
            (200, r#"{"ok":true,"upserted":3}"#, taken(false)),
            (
                200,
                r#"{"ok":true,"upserted":0,"duplicate":true}"#,
                taken(true),
            ),
            (
                200,
                "<html>Please log in</html>",
                later("the answer to a report is not the backend's"),
            ),
            (
                200,
                "[true]",
                later("the answer to a report is not the backend's"),
            ),
            (
                200,
                r#"{"ok":false}"#,
                later("the answer to a report is not the backend's"),
            ),
            (
                400,
                r#"{"error":"devices[0].ip: is empty"}"#,
                refused("the backend answered 400: devices[0].ip: is empty"),
            ),
            (
                400,
                "<html>400 The SSL certificate error</html>",
                later("the answer 400 to a report is not the backend's"),
            ),
            (413, "", refused("the backend answered 413")),
            (401, "", later("the backend answered 401")),
            (
                404,
                r#"{"error":"unknown site"}"#,
                later("the backend answered 404: unknown site"),
            ),
            (500, "", later("the backend answered 500")),
            (503, "", later("the backend answered 503")),
        ] {
            let answer = Answer {
                status,
                body: body.as_bytes().to_vec(),
                renew_token: false,
                date: None,
                takes_bearer: false,
            };
            assert_eq!(judge(&answer), outcome, "{status} {body}");
        }
    }
}
