//! Observations, and the snapshot of the collector's work that the status page
//! shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::report::ReportedDevice;
use av_proto::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};

use crate::clock::{Line, plus};
use crate::finding::Kept;

/// A moment that something happened at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In this run of the agent: its wall time is what the clock says it was.
    Here(Instant),
    /// In an earlier run, as it was written down then.
    Before(Timestamp),
}

impl Moment {
    /// Its wall time, by what is believed of the clock.
    #[must_use]
    pub fn wall(self, line: &Line) -> Timestamp {
        match self {
            Self::Here(at) => line.wall(at),
            Self::Before(at) => at,
        }
    }

    /// How long before `now` it was, and never less than is certain. What was
    /// before this run, which began at `started`, has a known age only while
    /// the clock is believed.
    pub(super) fn age(self, now: Instant, started: Instant, line: &Line) -> SignedDuration {
        let elapsed = |since: Instant| {
            SignedDuration::try_from(now.saturating_duration_since(since))
                .unwrap_or(SignedDuration::MAX)
        };
        match self {
            Self::Here(at) => elapsed(at),
            Self::Before(at) if line.trust.is_true() => {
                line.wall(now).duration_since(at).max(elapsed(started))
            }
            Self::Before(_) => elapsed(started),
        }
    }
}

/// One device's newest observation, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The device as it was configured then.
    pub device: Arc<Device>,
    /// What was found.
    pub finding: Kept,
    /// When.
    pub at: Instant,
    /// What it means.
    pub verdict: Verdict,
    /// Whether it means something else than the time before.
    pub verdict_changed: bool,
    /// When the device was last online.
    pub last_ok: Option<Moment>,
    /// When the present run of offline observations began.
    pub offline_since: Option<Moment>,
    /// Where it is offline and too early to say: the time until
    /// `alert_after_s` decides.
    pub(super) decides_in: Option<Duration>,
}

impl Observation {
    /// As reports have it, its times by `line`.
    #[must_use]
    pub fn reported(&self, line: &Line) -> ReportedDevice {
        let observed_at = line.wall(self.at);
        ReportedDevice {
            ip: self.device.ip_text.clone(),
            name: self.device.name.clone(),
            building: Some(self.device.building.clone()),
            floor: Some(self.device.floor.clone()),
            room: Some(self.device.room.clone()),
            device_type: self.device.device_type.clone(),
            driver: self.device.driver.clone(),
            status: self.finding.status,
            detail: self.finding.detail.as_deref().map(str::to_owned),
            metrics: self
                .finding
                .metrics_stamped(&observed_at.to_string())
                .unwrap_or_else(empty_object),
            verdict: self.verdict,
            observed_at: Some(observed_at),
            expectations: None,
            clock_unsynced: false,
        }
    }
}

/// `{}`: what is kept is always an object, so this is never needed, and
/// `Default` for a raw value would be `null`.
fn empty_object() -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// `now` less `age`.
pub(super) fn ago(now: Timestamp, age: SignedDuration) -> Timestamp {
    plus(now, -age)
}

/// What the collector does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepState {
    /// The newest observation of each device, in the configuration's order.
    pub observations: Vec<Arc<Observation>>,
    /// When the newest sweep began.
    pub swept: Option<Instant>,
    /// How the last whole one ended.
    pub last: Option<Ended>,
    /// When the next begins; `None` while one runs.
    pub next_sweep: Option<Instant>,
    /// Probes on their way.
    pub in_flight: usize,
    /// Looks again at devices that had just failed, since the start.
    pub rechecks: u64,
    /// Sweeps since the start.
    pub sweeps: u64,
    /// Of these, the ones that missed their deadline.
    pub late: u64,
    /// Why the devices' memory could not be saved the last time.
    pub memory_error: Option<String>,
}

/// How a sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// How long it may take: what its slowest dead device costs, and a fifth.
    pub deadline: Duration,
    /// Devices that had not answered when it ended.
    pub missing: usize,
}

impl Ended {
    /// Whether it kept its deadline.
    #[must_use]
    pub fn is_in_time(&self) -> bool {
        self.missing == 0 && self.took <= self.deadline
    }
}
