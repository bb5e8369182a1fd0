//! `GET /metrics`, in the Prometheus text format.

use av_proto::exposition::{DEVICE_GAUGES, DEVICE_UP, DEVICE_VERDICT, Exposition, Kind};
use av_proto::verdict::Status;
use jiff::Timestamp;
use serde_json::Value;

use super::Sources;
use crate::clock::Line;
use crate::collector::Observation;

/// The page as it is now.
pub(super) fn render(sources: &Sources) -> String {
    let line = sources.clock.line();
    let mut page = Exposition::new();
    page.family("av_agent_info", Kind::Gauge, "The agent's version.")
        .sample("av_agent_info", &[("version", crate::VERSION)], 1);
    page.single(
        "av_agent_start_time_seconds",
        Kind::Gauge,
        "When the agent started, Unix time.",
        seconds(line.wall(sources.started)),
    );
    page.single(
        "av_agent_thread_panics",
        Kind::Gauge,
        "Panics survived since the start, at most the last 20.",
        sources.health.panics().len(),
    );
    sync(&mut page, sources);
    clock(&mut page, sources);
    sweep(&mut page, sources, &line);
    devices(&mut page, sources);
    report(&mut page, sources);
    disk(&mut page, sources);
    for counter in sources.drivers.counters() {
        page.single(counter.name, Kind::Counter, counter.help, counter.value);
    }
    page.finish()
}

fn sync(page: &mut Exposition, sources: &Sources) {
    let state = sources.snapshots.sync.load();
    page.single(
        "av_agent_sync_ok",
        Kind::Gauge,
        "Whether the last poll of the backend worked.",
        u8::from(state.last_sync_ok == Some(true)),
    );
    for (name, help, at) in [
        (
            "av_agent_sync_last_time_seconds",
            "When the backend was last polled, Unix time.",
            state.last_sync_at,
        ),
        (
            "av_agent_sync_last_success_time_seconds",
            "When a poll last worked, Unix time.",
            state.last_success_at,
        ),
        (
            "av_agent_config_updated_time_seconds",
            "When the running configuration was applied, Unix time.",
            state.config_updated_at,
        ),
    ] {
        if let Some(at) = at {
            page.single(name, Kind::Gauge, help, seconds(at));
        }
    }
}

fn clock(page: &mut Exposition, sources: &Sources) {
    let state = sources.clock.state();
    page.single(
        "av_agent_clock_trusted",
        Kind::Gauge,
        "Whether the time is believed to be right.",
        u8::from(state.trust.is_true()),
    );
    page.single(
        "av_agent_clock_jumps_total",
        Kind::Counter,
        "How often the machine's clock was set.",
        state.jumps,
    );
    page.single(
        "av_agent_clock_machine_ahead_seconds",
        Kind::Gauge,
        "How far the machine's clock is ahead of the time that is used.",
        state.machine_ahead_s,
    );
}

fn sweep(page: &mut Exposition, sources: &Sources, line: &Line) {
    let sweep = sources.snapshots.sweep.load();
    if let Some(last) = sweep.last {
        page.single(
            "av_agent_sweep_duration_seconds",
            Kind::Gauge,
            "How long the last whole sweep took.",
            last.took.as_secs_f64(),
        );
        page.single(
            "av_agent_sweep_deadline_seconds",
            Kind::Gauge,
            "How long it may take.",
            last.deadline.as_secs_f64(),
        );
        page.single(
            "av_agent_sweep_missing_devices",
            Kind::Gauge,
            "Devices that had not answered when it ended.",
            last.missing,
        );
    }
    for (name, kind, help, value) in [
        (
            "av_agent_sweeps_total",
            Kind::Counter,
            "Sweeps that ended.",
            sweep.sweeps,
        ),
        (
            "av_agent_sweeps_late_total",
            Kind::Counter,
            "Of these, the ones that missed their deadline.",
            sweep.late,
        ),
        (
            "av_agent_rechecks_total",
            Kind::Counter,
            "Looks again at devices that had just failed.",
            sweep.rechecks,
        ),
        (
            "av_agent_probes_in_flight",
            Kind::Gauge,
            "Probes on their way.",
            sweep.in_flight as u64,
        ),
    ] {
        page.single(name, kind, help, value);
    }
    if let Some(at) = sweep.swept {
        page.single(
            "av_agent_sweep_last_time_seconds",
            Kind::Gauge,
            "When the newest sweep began, Unix time.",
            seconds(line.wall(at)),
        );
    }
    page.single(
        "av_agent_devices_rejected",
        Kind::Gauge,
        "Devices of the configuration that cannot be watched.",
        sources.handle.load().site.rejected.len(),
    );
}

fn devices(page: &mut Exposition, sources: &Sources) {
    let sweep = sources.snapshots.sweep.load();
    let now = sources.clock.monotonic();
    let observations = &sweep.observations;
    let (name, help) = DEVICE_UP;
    page.family(name, Kind::Gauge, help);
    for observation in observations {
        let up = match observation.finding.status {
            Status::Online => 1,
            Status::Offline => 0,
            Status::Unknown => continue,
        };
        page.sample(name, &labels(observation), up);
    }
    let (name, help) = DEVICE_VERDICT;
    page.family(name, Kind::Gauge, help);
    for observation in observations {
        let mut labels = labels(observation).to_vec();
        labels.push(("verdict", observation.verdict.as_str()));
        page.sample(name, &labels, 1);
    }
    page.family(
        "av_device_observation_age_seconds",
        Kind::Gauge,
        "The age of the newest observation.",
    );
    for observation in observations {
        let age = now.saturating_duration_since(observation.at).as_secs_f64();
        page.sample(
            "av_device_observation_age_seconds",
            &labels(observation),
            age,
        );
    }
    // Each text is read once, and only what is shown of it is held.
    let values: Vec<Vec<Option<f64>>> = observations
        .iter()
        .map(|observation| {
            let metrics = observation.finding.metrics();
            DEVICE_GAUGES
                .iter()
                .map(|gauge| metrics.get(gauge.metric).and_then(Value::as_f64))
                .collect()
        })
        .collect();
    for (number, gauge) in DEVICE_GAUGES.iter().enumerate() {
        page.family(gauge.name, Kind::Gauge, gauge.help);
        for (observation, values) in observations.iter().zip(&values) {
            if let Some(value) = values[number] {
                page.sample(gauge.name, &labels(observation), value * gauge.scale);
            }
        }
    }
}

fn labels(observation: &Observation) -> [(&str, &str); 5] {
    let device = &observation.device;
    [
        ("ip", &device.ip_text),
        ("name", &device.name),
        ("building", &device.building),
        ("room", &device.room),
        ("driver", &device.driver),
    ]
}

fn report(page: &mut Exposition, sources: &Sources) {
    let state = sources.snapshots.report.load();
    for (name, kind, help, value) in [
        (
            "av_agent_reports_pending",
            Kind::Gauge,
            "Reports that the backend has not taken.",
            state.pending + state.in_memory,
        ),
        (
            "av_agent_spool_bytes",
            Kind::Gauge,
            "What the spool takes on disk.",
            state.spool_bytes,
        ),
        (
            "av_agent_reports_sent_total",
            Kind::Counter,
            "Reports that the backend took.",
            state.sent,
        ),
        (
            "av_agent_reports_refused_total",
            Kind::Counter,
            "Reports that the backend will never take.",
            state.refused,
        ),
        (
            "av_agent_reports_dropped_total",
            Kind::Counter,
            "Reports dropped because the spool was full.",
            state.dropped,
        ),
        (
            "av_agent_reports_in_memory",
            Kind::Gauge,
            "Of those that wait, the ones that the disk does not take.",
            state.in_memory,
        ),
    ] {
        page.single(name, kind, help, value);
    }
}

fn disk(page: &mut Exposition, sources: &Sources) {
    let report = sources.snapshots.report.load();
    let (sync, sweep) = (
        sources.snapshots.sync.load(),
        sources.snapshots.sweep.load(),
    );
    page.family(
        "av_agent_disk_failed",
        Kind::Gauge,
        "Whether the disk did not take this the last time.",
    );
    for (what, error) in [
        ("config", &sync.save_error),
        ("devices", &sweep.memory_error),
        ("reports", &report.disk_error),
    ] {
        let failed = u8::from(error.is_some());
        page.sample("av_agent_disk_failed", &[("what", what)], failed);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}
