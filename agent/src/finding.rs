//! What one probe found.

use av_proto::report::DETAIL_MAX_CHARS;
use av_proto::text::excerpt;
use av_proto::verdict::Status;
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
