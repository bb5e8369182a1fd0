//! What one probe found.

use av_proto::report::DETAIL_MAX_CHARS;
use av_proto::text::excerpt;
use av_proto::verdict::Status;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What one probe found of a device, before anybody judges it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Whether it answered.
    pub status: Status,
    /// For a person: what is wrong or notable. On one line, without hostile
    /// marks, at most [`DETAIL_MAX_CHARS`] characters.
    pub detail: Option<String>,
    /// What was measured, under the contract's names ("Metrics by driver"),
    /// `ts` excepted: the collector stamps observations.
    pub metrics: Map<String, Value>,
}

impl Finding {
    /// A finding without metrics yet.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status,
            detail: None,
            metrics: Map::new(),
        }
    }

    /// The same with a detail, made safe and cut to length.
    #[must_use]
    pub fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = Some(excerpt(detail.as_ref(), DETAIL_MAX_CHARS));
        self
    }

    /// The same with one more metric.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metrics.insert(name.to_owned(), value.into());
        self
    }
}

/// A finding as it is kept, one of each device until the next: its metrics as
/// the JSON text that reports and pages need. As a map they would take eight
/// times as much memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Whether the device answered.
    pub status: Status,
    /// As [`Finding::detail`].
    pub detail: Option<Box<str>>,
    /// A JSON object in one line, without `ts`.
    metrics: Box<str>,
}

impl From<Finding> for Kept {
    fn from(mut finding: Finding) -> Self {
        finding.metrics.remove("ts");
        Self {
            status: finding.status,
            detail: finding.detail.map(String::into_boxed_str),
            metrics: Value::Object(finding.metrics).to_string().into_boxed_str(),
        }
    }
}

impl Kept {
    /// What was measured.
    #[must_use]
    pub fn metrics(&self) -> Map<String, Value> {
        // It was printed from a map.
        serde_json::from_str(&self.metrics).unwrap_or_default()
    }

    /// The same as it is printed.
    #[must_use]
    pub fn metrics_text(&self) -> Option<&RawValue> {
        serde_json::from_str(&self.metrics).ok()
    }

    /// The same, stamped: with `ts`, which holds nothing that JSON escapes.
    #[must_use]
    pub fn metrics_stamped(&self, ts: &str) -> Option<Box<RawValue>> {
        let members = self.metrics.strip_suffix('}')?;
        let comma = if members == "{" { "" } else { "," };
        RawValue::from_string(format!("{members}{comma}\"ts\":\"{ts}\"}}")).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_kept_is_what_was_found() {
        for (metrics, text, stamped) in [
            (vec![], "{}", r#"{"ts":"T"}"#),
            (
                vec![("b", Value::from(1.5)), ("a", "é\"}".into())],
                r#"{"a":"é\"}","b":1.5}"#,
                r#"{"a":"é\"}","b":1.5,"ts":"T"}"#,
            ),
            (
                vec![("ts", "a driver's own".into()), ("x", Value::Null)],
                r#"{"x":null}"#,
                r#"{"x":null,"ts":"T"}"#,
            ),
        ] {
            let mut finding = Finding::new(Status::Online).with_detail("on");
            for (name, value) in metrics {
                finding = finding.with(name, value);
            }
            let kept = Kept::from(finding.clone());
            finding.metrics.remove("ts");
            assert_eq!(kept.status, Status::Online);
            assert_eq!(kept.detail.as_deref(), Some("on"));
            assert_eq!(kept.metrics(), finding.metrics);
            assert_eq!(kept.metrics_text().unwrap().get(), text);
            assert_eq!(kept.metrics_stamped("T").unwrap().get(), stamped);
        }
    }
}
