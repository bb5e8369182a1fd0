//! An agent on a machine whose clock is not the backend's.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, IngestAnswer, first_config, site};
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::Agent;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A projector, an agent that watches it, and a backend whose clock is ahead.
fn scene(ahead: SignedDuration) -> (Projector, FakeBackend, Agent) {
    let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    let address = projector.addr();
    let device = json!({
        "ip": address.ip().to_string(), "name": "P", "driver": "pjlink",
        "driver_config": {"pjlink": {"port": address.port()}},
        "expectations": {"always_on": true, "alert_after_s": 15},
    });
    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[device])));
    backend.set_ahead(ahead);
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    (projector, backend, agent)
}

#[track_caller]
fn wait_status<T>(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    let process = agent.process.as_ref().unwrap();
    process.wait_for(what, || wanted(&agent.get("/api/status")?.json()))
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn assert_is_near(at: Timestamp, expected: Timestamp) {
    let off = at.duration_since(expected).abs();
    assert!(off < SignedDuration::from_secs(120), "{at}, not {expected}");
}

#[test]
fn a_report_has_the_backends_time_where_the_machines_is_wrong() {
    let (_projector, backend, agent) = scene(DAY * 3);
    let process = agent.process.as_ref().unwrap();
    let report = process.wait_for("a report comes", || backend.reports().pop());
    let reported = &report["devices"][0];
    let expected = Timestamp::now() + DAY * 3;
    assert_is_near(time(&reported["observed_at"]), expected);
    assert_eq!(reported["metrics"]["ts"], reported["observed_at"]);
    assert_is_near(time(&report["agent"]["started_at"]), expected);
    let clock = wait_status(&agent, "the clock is the backend's", |status| {
        (status["clock"]["trust"] == "backend").then(|| status["clock"].clone())
    });
    let ahead = clock["machine_ahead_s"].as_i64().unwrap();
    assert!((ahead + 3 * 86_400).abs() < 120, "{ahead}");
    let page = agent.get("/").unwrap().body;
    assert!(
        page.contains("the backend&#39;s, this machine&#39;s is "),
        "{page}"
    );
    let metrics = agent.get("/metrics").unwrap().body;
    assert!(metrics.contains("av_agent_clock_trusted 1"), "{metrics}");
    // It is remembered as the last good time.
    let kept = process.wait_for("the time is kept", || {
        let kept = std::fs::read(agent.state_dir().join("devices.json")).ok()?;
        let kept: Value = serde_json::from_slice(&kept).ok()?;
        kept["last_good_time"].is_string().then_some(kept)
    });
    assert_is_near(time(&kept["last_good_time"]), expected);
}

#[test]
fn what_was_kept_before_the_backend_said_the_time_is_put_right_when_it_is_sent() {
    // The backend takes no report, and its clock is the machine's at first.
    let (_projector, backend, agent) = scene(SignedDuration::ZERO);
    backend.answer_ingest(IngestAnswer::Status(503));
    wait_status(&agent, "the time is known and a report waits", |status| {
        let waits = status["report"]["pending"].as_u64()? > 0;
        (waits && status["clock"]["trust"] == "known").then_some(())
    });
    // Then it turns out that both were a day late.
    backend.set_ahead(DAY);
    wait_status(&agent, "the new time is heard", |status| {
        (status["clock"]["trust"] == "backend").then_some(())
    });
    let already = backend.reports().len();
    backend.answer_ingest(IngestAnswer::Take);
    let process = agent.process.as_ref().unwrap();
    let report = process.wait_for("the report comes", || {
        backend.reports().get(already).cloned()
    });
    let reported = &report["devices"][0];
    assert_is_near(time(&reported["observed_at"]), Timestamp::now() + DAY);
    assert_eq!(reported["metrics"]["ts"], reported["observed_at"]);
    // No age changed with it: nothing is in doubt, nothing at fault.
    assert_eq!(reported["verdict"], "ok");
    let device = wait_status(&agent, "it is shown", |status| {
        Some(status["devices"][0].clone())
    });
    assert_eq!(device["verdict"], "ok");
    assert_is_near(time(&device["observed_at"]), Timestamp::now() + DAY);
}
