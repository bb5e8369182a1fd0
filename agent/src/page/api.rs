//! `GET /api/status`.

use std::sync::Arc;

use av_proto::config::RejectedDevice;
use av_proto::unknown::UnknownSetting;
use av_proto::verdict::{Status, Verdict};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::Sources;
use crate::clock::{ClockState, Line};
use crate::collector::{Observation, SweepState};
use crate::report::ReportState;
use crate::supervisor::ThreadPanic;
use crate::sync::SyncState;

/// The whole state of the agent. No secret has a place in it.
#[derive(Debug, Serialize)]
pub(super) struct StatusDocument {
    version: &'static str,
    started_at: Timestamp,
    now: Timestamp,
    site_name: String,
    timezone: Option<String>,
    backend_url: String,
    config_fallback: Option<String>,
    clock: ClockState,
    sync: SyncState,
    /// Between two polls.
    sync_interval_s: f64,
    sweep: SweepDocument,
    report: ReportState,
    devices: DeviceDocuments,
    rejected_devices: Vec<RejectedDevice>,
    warnings: Vec<String>,
    thread_panics: Vec<ThreadPanic>,
}

#[derive(Debug, Serialize)]
struct SweepDocument {
    swept_at: Option<Timestamp>,
    took_s: Option<f64>,
    deadline_s: Option<f64>,
    in_time: Option<bool>,
    missing: Option<usize>,
    next_sweep_at: Option<Timestamp>,
    probes_in_flight: usize,
    rechecks: u64,
    sweeps: u64,
    late_sweeps: u64,
    memory_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct DeviceDocument<'a> {
    ip: &'a str,
    name: &'a str,
    building: &'a str,
    floor: &'a str,
    room: &'a str,
    #[serde(rename = "type")]
    device_type: &'a str,
    driver: &'a str,
    status: Status,
    verdict: Verdict,
    detail: Option<&'a str>,
    metrics: Option<&'a RawValue>,
    observed_at: Timestamp,
    last_ok_at: Option<Timestamp>,
    offline_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unknown_settings: &'a [UnknownSetting],
}

impl<'a> DeviceDocument<'a> {
    fn new(observation: &'a Observation, line: &Line) -> Self {
        let device = &observation.device;
        Self {
            ip: &device.ip_text,
            name: &device.name,
            building: &device.building,
            floor: &device.floor,
            room: &device.room,
            device_type: &device.device_type,
            driver: &device.driver,
            status: observation.finding.status,
            verdict: observation.verdict,
            detail: observation.finding.detail.as_deref(),
            metrics: observation.finding.metrics_text(),
            observed_at: line.wall(observation.at),
            last_ok_at: observation.last_ok.map(|moment| moment.wall(line)),
            offline_since: observation.offline_since.map(|moment| moment.wall(line)),
            unknown_settings: &device.unknown,
        }
    }
}

/// The devices, each made from its observation when it is its turn to be
/// printed: a large site's take a megabyte otherwise.
#[derive(Debug)]
struct DeviceDocuments {
    sweep: Arc<SweepState>,
    line: Line,
}

impl Serialize for DeviceDocuments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let observations = &self.sweep.observations;
        serializer.collect_seq(
            observations
                .iter()
                .map(|observation| DeviceDocument::new(observation, &self.line)),
        )
    }
}

/// The state as it is now.
pub(super) fn status(sources: &Sources) -> StatusDocument {
    let line = sources.clock.line();
    let active = sources.handle.load();
    let sweep = sources.snapshots.sweep.load_full();
    StatusDocument {
        version: crate::VERSION,
        started_at: line.wall(sources.started),
        now: sources.clock.now(),
        site_name: active.site.site_name.clone(),
        timezone: active.site.timezone.iana_name().map(str::to_owned),
        backend_url: active.identity.backend_url.to_string(),
        config_fallback: sources.fallback.clone(),
        clock: sources.clock.state(),
        sync: SyncState::clone(&sources.snapshots.sync.load()),
        sync_interval_s: sources.sync_interval.as_secs_f64(),
        sweep: SweepDocument {
            swept_at: sweep.swept.map(|at| line.wall(at)),
            took_s: sweep.last.map(|last| last.took.as_secs_f64()),
            deadline_s: sweep.last.map(|last| last.deadline.as_secs_f64()),
            in_time: sweep.last.map(|last| last.is_in_time()),
            missing: sweep.last.map(|last| last.missing),
            next_sweep_at: sweep.next_sweep.map(|at| line.wall(at)),
            probes_in_flight: sweep.in_flight,
            rechecks: sweep.rechecks,
            sweeps: sweep.sweeps,
            late_sweeps: sweep.late,
            memory_error: sweep.memory_error.clone(),
        },
        report: ReportState::clone(&sources.snapshots.report.load()),
        devices: DeviceDocuments { sweep, line },
        rejected_devices: active.site.rejected.clone(),
        warnings: active
            .site
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect(),
        thread_panics: sources.health.panics(),
    }
}
