//! Observations, and the snapshot of a sweep that the status page shows.

use std::time::Duration;

use av_proto::config::Device;
use av_proto::report::ReportedDevice;
use av_proto::verdict::Verdict;
use jiff::Timestamp;
use serde_json::value::to_raw_value;

use crate::finding::Finding;

/// One device's newest observation, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The device as it was configured then.
    pub device: Device,
    /// What was found.
    pub finding: Finding,
    /// When.
    pub observed_at: Timestamp,
    /// What it means.
    pub verdict: Verdict,
    /// Whether it means something else than the time before.
    pub verdict_changed: bool,
    /// When the device was last online.
    pub last_ok_at: Option<Timestamp>,
    /// When the present run of offline observations began.
    pub offline_since: Option<Timestamp>,
}

impl Observation {
    /// As reports have it.
    #[must_use]
    pub fn reported(&self) -> ReportedDevice {
        let mut metrics = self.finding.metrics.clone();
        metrics.insert("ts".to_owned(), self.observed_at.to_string().into());
        ReportedDevice {
            ip: self.device.ip_text.clone(),
            name: self.device.name.clone(),
            building: Some(self.device.building.clone()),
            floor: Some(self.device.floor.clone()),
            room: Some(self.device.room.clone()),
            device_type: self.device.device_type.clone(),
            driver: self.device.driver.clone(),
            status: self.finding.status,
            detail: self.finding.detail.clone(),
            metrics: to_raw_value(&metrics).unwrap_or_else(|_| empty_object()),
            verdict: self.verdict,
            observed_at: Some(self.observed_at),
        }
    }
}

/// `{}`: a map with text keys always prints, so this is never needed, and
/// `Default` for a raw value would be `null`.
fn empty_object() -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// The newest sweep.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepState {
    /// The newest observation of each device, in the configuration's order.
    pub observations: Vec<Observation>,
    /// When the newest sweep began.
    pub swept_at: Option<Timestamp>,
    /// How long the last whole one took.
    pub took: Option<Duration>,
    /// When the next begins; `None` while one runs.
    pub next_sweep_at: Option<Timestamp>,
}

impl SweepState {
    pub(super) fn finished(
        observations: Vec<Observation>,
        swept_at: Timestamp,
        took: Duration,
        next_sweep_at: Option<Timestamp>,
    ) -> Self {
        Self {
            observations,
            swept_at: Some(swept_at),
            took: Some(took),
            next_sweep_at,
        }
    }

    pub(super) fn in_progress(&self, observations: Vec<Observation>, swept_at: Timestamp) -> Self {
        Self {
            observations,
            swept_at: Some(swept_at),
            next_sweep_at: None,
            ..self.clone()
        }
    }
}
