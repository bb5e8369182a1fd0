//! One report to the backend, and what its answer means for the spool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use av_proto::config::Device;
use av_proto::field::from_json;
use av_proto::report::{AgentInfo, Report, ReportId, ReportedDevice};
use serde::Deserialize;
use serde_json::value::RawValue;

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
    let mut devices = std::mem::take(&mut pending.devices);
    echo(&mut devices, &active.site.devices);
    let report = Report {
        site_name: active.site.site_name.clone(),
        devices,
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

/// Gives an older backend its configuration of each device back: it overwrites
/// what it has with what a report says, and with nothing where a report says
/// nothing. It is what is configured now, whenever the report was made: a change
/// of today must not be undone by a report of yesterday. For the same reason it
/// is told of no device that is not configured any more: it would make it anew.
fn echo(devices: &mut Vec<ReportedDevice>, configured: &[Arc<Device>]) {
    let older: HashMap<&str, (&Device, &str)> = configured
        .iter()
        .filter_map(|device| {
            Some((
                device.ip_text.as_str(),
                (&**device, device.echoed.as_deref()?),
            ))
        })
        .collect();
    if !older.is_empty() {
        let known: HashSet<&str> = configured.iter().map(|it| it.ip_text.as_str()).collect();
        devices.retain(|device| known.contains(device.ip.as_str()));
    }
    for device in devices {
        device.expectations = None;
        let Some((configured, expectations)) = older.get(device.ip.as_str()) else {
            continue;
        };
        device.expectations = RawValue::from_string((*expectations).to_owned()).ok();
        device.name.clone_from(&configured.name);
        device.device_type.clone_from(&configured.device_type);
        device.driver.clone_from(&configured.driver);
        device.building = Some(configured.building.clone());
        device.floor = Some(configured.floor.clone());
        device.room = Some(configured.room.clone());
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
    fn an_older_backend_gets_back_what_is_configured_now() {
        let parse = |json: &str| {
            let zone = jiff::tz::TimeZone::UTC;
            Arc::new(Device::parse(json, &zone, &mut Vec::new()).unwrap())
        };
        let reported = |ip: &str| -> ReportedDevice {
            serde_json::from_value(serde_json::json!({
                "ip": ip, "name": "old", "building": "", "floor": "", "room": "", "type": "old",
                "driver": "old", "status": "online", "detail": null, "metrics": {}, "verdict": "ok",
            }))
            .unwrap()
        };
        let configured = [
            parse(
                r#"{"ip":"10.0.0.1","name":"P","type":"t","driver":"ping","room":"R","expectations":{"a": 1.0}}"#,
            ),
            parse(
                r#"{"ip":"10.0.0.2","name":"Q","driver":"ping","expectations":{},"driver_config":{}}"#,
            ),
            parse(r#"{"ip":"10.0.0.3","name":"R","driver":"ping"}"#),
        ];
        let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let mut devices = ips.map(reported).to_vec();
        devices[2].expectations = RawValue::from_string("{}".to_owned()).ok();
        // Our own backend knows what is configured, and is told of every device.
        let mut all = devices.clone();
        echo(&mut all, &configured[1..]);
        assert_eq!(all.len(), 4);
        echo(&mut devices, &configured);
        let said = devices.into_iter().map(|device| {
            let room = device.room.unwrap_or_default();
            let expectations = device.expectations.map(|json| json.get().to_owned());
            (
                device.name,
                device.device_type,
                device.driver,
                room,
                expectations,
            )
        });
        let said: Vec<_> = said.collect();
        let text = |text: &str| text.to_owned();
        let as_it_was = || (text("old"), text("old"), text("old"), text(""), None);
        let echoed = Some(text(r#"{"a": 1.0}"#));
        assert_eq!(
            said,
            [
                (text("P"), text("t"), text("ping"), text("R"), echoed),
                as_it_was(),
                as_it_was(),
            ],
            "and the device that is not configured any more is left out"
        );
    }

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
