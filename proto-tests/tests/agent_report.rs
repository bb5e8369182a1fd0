//! The agent's reports: kept, in order, each once.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeSet;
use std::time::Duration;

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, IngestAnswer, first_config, site};
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::Agent;
use serde_json::{Value, json};

fn device(projector: &Projector, name: &str) -> Value {
    let address = projector.addr();
    json!({
        "ip": address.ip().to_string(), "name": name, "driver": "pjlink", "type": "projector",
        "room": "Salle 1", "driver_config": {"pjlink": {"port": address.port()}},
        "expectations": {"always_on": true, "alert_after_s": 15},
    })
}

/// A projector, a backend that configures it and an agent that watches it.
fn scene(ingest: IngestAnswer) -> (Projector, FakeBackend, Agent) {
    let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    let backend = FakeBackend::start(ConfigAnswer::Site(site(
        "Paris",
        &[device(&projector, "0")],
    )));
    backend.answer_ingest(ingest);
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    (projector, backend, agent)
}

#[track_caller]
fn wait_reports(agent: &Agent, backend: &FakeBackend, count: usize) -> Vec<Value> {
    let process = agent.process.as_ref().unwrap();
    process.wait_for(&format!("{count} reports came"), || {
        Some(backend.reports()).filter(|reports| reports.len() >= count)
    })
}

/// Waits until the agent's status gives something.
#[track_caller]
fn wait_status<T>(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    let process = agent.process.as_ref().unwrap();
    process.wait_for(what, || wanted(&agent.get("/api/status")?.json()))
}

#[track_caller]
fn wait_pending(agent: &Agent, count: u64) {
    wait_status(agent, &format!("{count} reports wait on disk"), |status| {
        (status["report"]["pending"].as_u64()? >= count).then_some(())
    });
}

/// Makes the agent sweep again by changing the configured name.
#[track_caller]
fn sweep_again(agent: &Agent, backend: &FakeBackend, projector: &Projector, name: &str) {
    let changed = site("Paris", &[device(projector, name)]);
    backend.answer_config(ConfigAnswer::Site(changed));
    wait_status(agent, &format!("{name} was swept"), |status| {
        (status["devices"][0]["name"] == name).then_some(())
    });
}

#[test]
fn a_report_has_the_contracts_fields() {
    let (_projector, backend, agent) = scene(IngestAnswer::Take);
    let report = wait_reports(&agent, &backend, 1).remove(0);
    assert_eq!(report["site_name"], "Paris");
    let reported = &report["devices"][0];
    for (field, value) in [
        ("name", "0"),
        ("room", "Salle 1"),
        ("building", ""),
        ("type", "projector"),
        ("driver", "pjlink"),
        ("status", "online"),
        ("verdict", "ok"),
    ] {
        assert_eq!(reported[field], value, "{field} in {report}");
    }
    assert_eq!(reported["metrics"]["pjlink_ok"], true);
    assert_eq!(reported["metrics"]["ts"], reported["observed_at"]);
    let seen = backend.seen();
    let ingest = seen.iter().find(|seen| seen.line == "POST /ingest");
    assert!(ingest.unwrap().header("x-site-token").is_some());
    // And it is what the backend's own reader takes.
    av_proto::report::Report::parse(report.to_string().as_bytes()).unwrap();
}

/// What the Python backend sends of a site: sections with their defaults for
/// every device, its own dates, and no `driver_config`.
fn python_site(projector: &Projector, name: &str, expectations: &Value) -> Value {
    let mut given = device(projector, name);
    given["expectations"] = expectations.clone();
    let mut site = site("Paris", &[given]);
    let sent = site["devices"][0].as_object_mut().unwrap();
    sent.remove("driver_config");
    sent.insert("snmp".to_owned(), json!({"community": "public"}));
    let at = json!("2026-01-01T00:00:00+00:00");
    sent["pjlink"]["password"] = json!("");
    sent["pjlink"]["_password_updated_at"] = at.clone();
    sent.insert("driver_config_updated_at".to_owned(), at);
    site
}

/// What the Python backend makes of a report's device: it overwrites what it
/// has with what is there, and with nothing where nothing is.
fn taken_by_python(device: &Value) -> Value {
    let text = |field: &str, otherwise: &str| match device[field].as_str().map(str::trim) {
        None | Some("") => otherwise.to_owned(),
        Some(text) => text.to_owned(),
    };
    let ip = text("ip", "");
    let expectations = match &device["expectations"] {
        Value::Object(object) => Value::Object(object.clone()),
        _ => json!({}),
    };
    json!({
        "name": text("name", &ip), "type": text("type", "unknown"), "driver": text("driver", "ping"),
        "building": text("building", ""), "floor": text("floor", ""), "room": text("room", ""),
        "expectations": expectations,
    })
}

#[track_caller]
fn is_left_as_it_was(report: &Value, site: &Value) {
    let taken = taken_by_python(&report["devices"][0]);
    for (field, value) in taken.as_object().unwrap() {
        assert_eq!(*value, site["devices"][0][field], "{field} in {report}");
    }
}

#[test]
fn a_python_backend_keeps_its_configuration_whatever_the_agent_reports() {
    let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    let first = python_site(
        &projector,
        "0",
        &json!({"always_on": true, "alert_after_s": 15, "schedule": {}, "note": [1, null]}),
    );
    let backend = FakeBackend::start(ConfigAnswer::Site(first.clone()));
    backend.be_older(true);
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    let report = wait_reports(&agent, &backend, 1).remove(0);
    is_left_as_it_was(&report, &first);

    // What waited while they were changed does not bring the old ones back.
    backend.answer_ingest(IngestAnswer::Status(503));
    let renamed = python_site(&projector, "1", &json!({"always_on": true}));
    backend.answer_config(ConfigAnswer::Site(renamed));
    wait_pending(&agent, 1);
    let newest = python_site(&projector, "2", &json!({"always_on": false}));
    backend.answer_config(ConfigAnswer::Site(newest.clone()));
    wait_status(&agent, "the change was swept", |status| {
        (status["devices"][0]["name"] == "2").then_some(())
    });
    let known = backend.reports().len();
    backend.answer_ingest(IngestAnswer::Take);
    for report in &wait_reports(&agent, &backend, known + 1)[known..] {
        is_left_as_it_was(report, &newest);
    }
}

#[test]
fn a_backend_that_keeps_its_configuration_itself_gets_no_expectations_back() {
    let (_projector, backend, agent) = scene(IngestAnswer::Take);
    let report = wait_reports(&agent, &backend, 1).remove(0);
    let device = report["devices"][0].as_object().unwrap();
    assert!(!device.contains_key("expectations"), "{report}");
}

#[test]
fn reports_wait_for_the_backend_and_come_in_order_once_each() {
    let (projector, backend, mut agent) = scene(IngestAnswer::Status(503));
    wait_pending(&agent, 1);
    for name in ["1", "2"] {
        sweep_again(&agent, &backend, &projector, name);
    }
    wait_pending(&agent, 3);
    // The power is cut in between.
    agent.process.as_mut().unwrap().kill();
    agent.start();
    wait_pending(&agent, 4);
    assert_eq!(backend.reports().len(), 0);

    backend.answer_ingest(IngestAnswer::Take);
    let reports = wait_reports(&agent, &backend, 4);
    wait_status(&agent, "nothing waits", |status| {
        let report = &status["report"];
        (report["pending"] == 0 && report["last_error"].is_null()).then_some(())
    });
    let names: Vec<&str> = reports
        .iter()
        .map(|report| report["devices"][0]["name"].as_str().unwrap())
        .collect();
    // The first sweep may be of the empty file, which makes no report.
    assert_eq!(names[..4], ["0", "1", "2", "2"], "{names:?}");
    let numbers: Vec<u64> = reports
        .iter()
        .map(|report| report["report"]["seq"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
    let times: Vec<&str> = reports
        .iter()
        .map(|report| report["devices"][0]["observed_at"].as_str().unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let streams: BTreeSet<String> = reports
        .iter()
        .map(|report| report["report"]["stream"].to_string())
        .collect();
    assert_eq!(streams.len(), 1);
}

#[test]
fn a_lost_answer_repeats_the_report_under_its_number() {
    let (_projector, backend, agent) = scene(IngestAnswer::TakeInSilence);
    wait_reports(&agent, &backend, 1);
    backend.answer_ingest(IngestAnswer::Take);
    let reports = wait_reports(&agent, &backend, 2);
    assert_eq!(reports[0]["report"], reports[1]["report"]);
    assert_eq!(reports[0]["devices"], reports[1]["devices"]);
}

#[test]
fn a_portal_and_a_wrong_token_lose_nothing_and_a_refused_report_holds_up_nobody() {
    let (projector, backend, agent) = scene(IngestAnswer::Portal);
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log(
        "Reports wait: the answer to a report is not the backend's",
        1,
    );
    backend.answer_ingest(IngestAnswer::Status(401));
    process.wait_for_log("Reports wait: the backend answered 401", 1);
    wait_pending(&agent, 1);

    backend.answer_ingest(IngestAnswer::Status(400));
    process.wait_for_log("❌ The backend refuses report", 1);
    process.wait_for("it is kept for a person", || {
        std::fs::read_dir(agent.state_dir().join("spool"))
            .ok()?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("refused-"))
            .then_some(())
    });
    backend.answer_ingest(IngestAnswer::Take);
    sweep_again(&agent, &backend, &projector, "after");
    let reports = wait_reports(&agent, &backend, 1);
    assert_eq!(reports[0]["devices"][0]["name"], "after");
}

#[test]
fn a_fault_comes_in_its_time_and_its_beginning_survives_a_restart() {
    let (projector, backend, mut agent) = scene(IngestAnswer::Take);
    wait_reports(&agent, &backend, 1);
    let last_ok = wait_status(&agent, "it is ok", |status| {
        let device = &status["devices"][0];
        (device["verdict"] == "ok").then(|| device["last_ok_at"].clone())
    });
    let gone = device(&projector, "gone");
    drop(projector);
    backend.answer_config(ConfigAnswer::Site(site("Paris", &[gone])));
    let offline_since = wait_status(&agent, "it is offline, too early to say", |status| {
        let device = &status["devices"][0];
        (device["status"] == "offline" && device["verdict"] == "unknown")
            .then(|| device["offline_since"].clone())
    });
    // alert_after_s of 15 passes while the agent is not even running.
    agent.process.as_mut().unwrap().kill();
    std::thread::sleep(Duration::from_secs(16));
    agent.start();
    wait_status(&agent, "it is a fault", |status| {
        let device = &status["devices"][0];
        (device["verdict"] == "fault").then(|| {
            assert_eq!(device["offline_since"], offline_since);
            assert_eq!(device["last_ok_at"], last_ok);
        })
    });
    let process = agent.process.as_ref().unwrap();
    process.wait_for("the backend knows", || {
        let reports = backend.reports();
        let fault = |report: &Value| report["devices"][0]["verdict"] == "fault";
        reports.iter().any(fault).then_some(())
    });
}
