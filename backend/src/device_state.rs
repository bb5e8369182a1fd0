//! How a device's state stands in an answer, whoever asks.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::devices::DeviceState;

/// The state of a device in JSON.
#[derive(Serialize)]
pub(crate) struct StateDocument<'a> {
    status: &'a str,
    verdict: &'a str,
    detail: Option<&'a str>,
    metrics: Option<&'a RawValue>,
    observed_at: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    last_ok_at: Option<Timestamp>,
    verdict_since: Option<Timestamp>,
    /// Not heard of for three intervals: unknown, whatever was observed last.
    stale: bool,
}

impl<'a> StateDocument<'a> {
    /// A device that was never reported is `unknown`, with no times and no
    /// metrics.
    pub(crate) fn new(state: Option<&'a DeviceState>) -> Self {
        Self {
            status: state.map_or("unknown", |state| &state.status),
            verdict: state.map_or("unknown", |state| &state.verdict),
            detail: state.and_then(|state| state.detail.as_deref()),
            metrics: state.and_then(|state| serde_json::from_str(&state.metrics).ok()),
            observed_at: state.map(|state| state.observed_at),
            last_seen: state.map(|state| state.last_seen),
            last_ok_at: state.and_then(|state| state.last_ok_at),
            verdict_since: state.map(|state| state.verdict_since),
            stale: state.is_some_and(|state| state.stale),
        }
    }
}
