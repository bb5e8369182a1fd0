//! A week without a backend, with 500 devices: what is kept is bounded, the
//! newest of it, and what was dropped is counted and shown.
//!
//! The week passes in the spool, sweep by sweep, under a clock that is moved;
//! the agent itself then finds the spool, and a backend.
//! `AV_FAULT_SWEEPS` says how many sweeps there are.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::time::{Duration, Instant};

use av_agent::report::{Limits, Now, Spool, Stamp};
use av_proto::report::ReportedDevice;
use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::faults::count;
use av_proto_tests::process::Agent;
use av_proto_tests::random::Random;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

const DEVICES: usize = 500;
const SPOOL_MIB: u64 = 1;
/// Above the limit by the segment that is being written.
const SPOOL_MAX_BYTES: u64 = (SPOOL_MIB << 20) + (SPOOL_MIB << 20) / 2;
/// An unoptimized agent with reports of 500 devices in hand.
const MEMORY_MAX_KIB: u64 = 100 << 10;

fn sweep(number: usize, at: Timestamp, random: &mut Random) -> Vec<ReportedDevice> {
    (0..DEVICES)
        .map(|i| {
            let rtt = random.below(9000) as f64 / 1000.0;
            serde_json::from_value(json!({
                "ip": format!("10.0.{}.{}", i / 250, i % 250 + 1), "name": format!("sweep {number}"),
                "type": "display", "driver": "ping", "status": "online", "detail": null,
                "metrics": {"ping_ok": true, "ping_rtt_avg_ms": rtt, "ts": at.to_string()},
                "verdict": "ok", "observed_at": at.to_string(),
            }))
            .unwrap()
        })
        .collect()
}

#[test]
fn a_week_without_a_backend_keeps_the_newest_and_counts_the_rest() {
    let sweeps = count("AV_FAULT_SWEEPS", 250);
    let mut random = Random::of_run("faults_agent_outage");
    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.set("AV_SPOOL_MAX_MB", &SPOOL_MIB.to_string());

    let dir = agent.state_dir().join("spool");
    let limits = Limits {
        max_bytes: SPOOL_MIB << 20,
        max_age: Duration::from_secs(30 * 86_400),
    };
    let mut spool = Spool::open(&dir, limits).unwrap();
    let stamp: Stamp = serde_json::from_value(
        json!({"run": "the week", "wall_of_zero": "2026-01-01T00:00:00Z", "is_true": true}),
    )
    .unwrap();
    let on_disk = || -> u64 {
        let files = fs::read_dir(&dir).unwrap().flatten();
        files.map(|file| file.metadata().unwrap().len()).sum()
    };
    let interval = Duration::from_secs(7 * 86_400) / u32::try_from(sweeps).unwrap();
    let begun = Timestamp::now() - SignedDuration::from_hours(24 * 7);
    let (start, mut dropped, mut largest) = (Instant::now(), 0, 0);
    for number in 1..=sweeps {
        let passed = interval * u32::try_from(number).unwrap();
        let at = begun + SignedDuration::try_from(passed).unwrap();
        let now = Now {
            at: start + passed,
            machine: Some(at),
        };
        let devices = sweep(number, at, &mut random);
        dropped += spool.append(&[&devices], &stamp, &now).unwrap();
        largest = largest.max(on_disk());
    }
    assert!(largest < SPOOL_MAX_BYTES, "{largest} bytes on disk");
    let kept = spool.pending();
    assert_eq!(kept + dropped, sweeps as u64);
    assert_eq!(spool.dropped(), dropped);
    assert!(dropped > 0 && kept > 10, "{kept} kept, {dropped} dropped");
    drop(spool);

    // The backend is back, and so is the power.
    agent.start();
    let process = agent.process.as_ref().unwrap();
    let status = process.wait_for("all that was kept is sent", || {
        let status = agent.get("/api/status")?.json();
        (status["report"]["pending"] == 0 && status["report"]["sent"].as_u64() >= Some(kept))
            .then_some(status)
    });
    assert_eq!(status["report"]["dropped"], dropped);
    let page = agent.get("/").unwrap().body;
    assert!(page.contains("Dropped, spool full"), "{page}");
    assert!(page.contains(&dropped.to_string()), "{page}");
    let metrics = agent.get("/metrics").unwrap().body;
    let line = format!("av_agent_reports_dropped_total {dropped}\n");
    assert!(metrics.contains(&line), "{metrics}");

    let reports = backend.reports();
    assert_eq!(reports.len() as u64, kept, "each once");
    for (i, report) in reports.iter().enumerate() {
        let number = dropped as usize + i + 1;
        assert_eq!(report["report"]["seq"], number, "the newest, in order");
        assert_eq!(report["agent"]["dropped_reports"], dropped);
        let devices = report["devices"].as_array().unwrap();
        assert_eq!(devices.len(), DEVICES);
        assert_eq!(devices[0]["name"], format!("sweep {number}"));
        assert_eq!(devices[0]["observed_at"], devices[0]["metrics"]["ts"]);
    }
    let id = process.id();
    let memory = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = memory
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < MEMORY_MAX_KIB, "{kib} KiB");
    println!(
        "{sweeps} sweeps: {kept} kept, {dropped} dropped, at most {largest} bytes on disk, {kib} KiB of memory"
    );
}
