//! The body of `POST /ingest`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::FieldError;
use crate::field::from_json;
use crate::verdict::{Status, Verdict};

/// The most characters that a `detail` can have.
pub const DETAIL_MAX_CHARS: usize = 280;

/// A report: what one sweep found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The site's name.
    pub site_name: String,
    /// What was found, device by device.
    pub devices: Vec<ReportedDevice>,
    /// Who reports; absent from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// Which report this is; absent from older agents, whose reports cannot
    /// be told from their repetitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportId>,
}

/// A device in a report. Name, type, driver and place say what the agent
/// believed; the backend never takes its configuration from them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportedDevice {
    /// The address as configured.
    pub ip: String,
    /// As the agent's configuration has it.
    pub name: String,
    /// As the agent's configuration has it.
    pub building: Option<String>,
    /// As the agent's configuration has it.
    pub floor: Option<String>,
    /// As the agent's configuration has it.
    pub room: Option<String>,
    /// As the agent's configuration has it.
    #[serde(rename = "type")]
    pub device_type: String,
    /// As the agent's configuration has it.
    pub driver: String,
    /// Whether it answered.
    pub status: Status,
    /// For a person; at most [`DETAIL_MAX_CHARS`] characters.
    pub detail: Option<String>,
    /// What was measured: a JSON object.
    pub metrics: Box<RawValue>,
    /// What it means.
    pub verdict: Verdict,
    /// What is expected of it, as the configuration has it, for an older
    /// backend that takes that from its reports. Readers of this one pass over
    /// it, whatever it is.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub expectations: Option<Box<RawValue>>,
    /// When it was found; absent from older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Timestamp>,
    /// The agent's clock was never set while this was found, and nobody can
    /// say any more when that was: `observed_at` is absent, and the `ts` of
    /// the metrics means nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_unsynced: bool,
}

/// The agent's own state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// The hash of the configuration that it runs; `None` before the first.
    pub config_hash: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Why it refused the backend's configuration, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// The devices that it cannot watch, each with its reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_devices: Vec<RejectedInfo>,
    /// Reports that were dropped because the spool was full, since it began.
    #[serde(default)]
    pub dropped_reports: u64,
}

/// A device that the agent cannot watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedInfo {
    /// Its address as configured, where there is one.
    pub ip: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

/// A report's place in the sequence of one agent's spool. Sequence numbers
/// rise by one; a report at or below the last one taken is a repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportId {
    /// Names the spool: made at random when it is created.
    pub stream: String,
    /// The place in it, from 1.
    pub seq: u64,
}

impl Report {
    /// Reads and validates a body.
    ///
    /// # Errors
    /// The first field that is not of the contract's shape.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let report: Self = from_json(body)?;
        if let Some(id) = &report.report {
            if !(1..=64).contains(&id.stream.len()) || !id.stream.is_ascii() {
                return Err(FieldError::new(
                    "report.stream",
                    "is not 1 to 64 ASCII characters",
                ));
            }
            if i64::try_from(id.seq).is_err() {
                return Err(FieldError::new("report.seq", "is not below 2^63"));
            }
        }
        check_text("site_name", &report.site_name)?;
        for (i, device) in report.devices.iter().enumerate() {
            device
                .check()
                .map_err(|error| error.under(&format!("devices[{i}]")))?;
        }
        Ok(report)
    }
}

impl ReportedDevice {
    fn check(&self) -> Result<(), FieldError> {
        if self.ip.is_empty() {
            return Err(FieldError::new("ip", "is empty"));
        }
        check_text("ip", &self.ip)?;
        if let Some(detail) = &self.detail {
            check_text("detail", detail)?;
            let characters = detail.chars().count();
            if characters > DETAIL_MAX_CHARS {
                return Err(FieldError::new(
                    "detail",
                    format!("has {characters} characters, more than {DETAIL_MAX_CHARS}"),
                ));
            }
        }
        if !self.metrics.get().starts_with('{') {
            return Err(FieldError::new("metrics", "is not an object"));
        }
        Ok(())
    }
}

/// PostgreSQL's text has no NUL.
fn check_text(field: &str, text: &str) -> Result<(), FieldError> {
    if text.contains('\0') {
        return Err(FieldError::new(field, "has a NUL character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(change: (&str, &str)) -> String {
        r#"{"site_name":"Paris","devices":[{"ip":"10.0.0.1","name":"P","building":"","floor":null,
            "room":"","type":"projector","driver":"ping","status":"online","detail":null,
            "metrics":{"ping_ok":true},"verdict":"ok"}]}"#
            .replace(change.0, change.1)
    }

    #[test]
    fn an_older_agents_report_is_read() {
        let report = Report::parse(body(("", "")).as_bytes()).unwrap();
        assert!(report.agent.is_none() && report.report.is_none());
        assert_eq!(report.devices[0].status, Status::Online);
        assert_eq!(report.devices[0].metrics.get(), r#"{"ping_ok":true}"#);
        assert_eq!(report.devices[0].observed_at, None);
    }

    #[test]
    fn what_is_expected_is_not_read_from_a_report() {
        for expectations in ["{}", r#"{"always_on":1}"#, "[1]", "null", "\"x\""] {
            let added = format!(r#""verdict":"ok","expectations":{expectations}"#);
            let body = body((r#""verdict":"ok""#, &added));
            let report = Report::parse(body.as_bytes()).unwrap();
            assert!(report.devices[0].expectations.is_none(), "{expectations}");
        }
    }

    #[test]
    fn bad_bodies_name_the_field() {
        let error = Report::parse(br#"["Paris",[]]"#).unwrap_err();
        assert_eq!(error.to_string(), "document: is a list, not an object");
        for (change, said) in [
            (
                (r#""online""#, r#""up""#),
                "devices[0].status: unknown variant `up`, expected one of `online`, `offline`, `unknown`",
            ),
            (
                (r#"{"ping_ok":true}"#, "[1]"),
                "devices[0].metrics: is not an object",
            ),
            ((r#""10.0.0.1""#, r#""""#), "devices[0].ip: is empty"),
            (
                (r#""online""#, "null"),
                "devices[0].status: is null, not a text",
            ),
            (
                (r#""devices":["#, r#""devices":[["10.0.0.2"],"#),
                "devices[0]: is a list, not an object",
            ),
            (
                (r#""site_name""#, r#""report":["s",1],"site_name""#),
                "report: is a list, not an object",
            ),
            (
                (r#""detail":null"#, r#""detail":"a\u0000b""#),
                "devices[0].detail: has a NUL character",
            ),
            (
                (
                    r#""verdict":"ok""#,
                    r#""verdict":"ok","observed_at":"yesterday""#,
                ),
                "devices[0].observed_at: ",
            ),
            (
                (
                    r#""site_name""#,
                    r#""report":{"stream":"","seq":1},"site_name""#,
                ),
                "report.stream: is not 1 to 64 ASCII characters",
            ),
        ] {
            let error = Report::parse(body(change).as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
        let long = format!(r#""detail":"{}""#, "é".repeat(281));
        let error = Report::parse(body((r#""detail":null"#, &long)).as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "devices[0].detail: has 281 characters, more than 280"
        );
        let fits = format!(r#""detail":"{}""#, "é".repeat(280));
        Report::parse(body((r#""detail":null"#, &fits)).as_bytes()).unwrap();
    }
}
