//! The agent on a machine whose clock is set by decades, back and forth, while
//! it runs and between its runs.
//!
//! libfaketime stands for whoever sets the clock: the wall clock of the agent
//! is off by what stands in a file, and its monotonic one is the machine's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, IngestAnswer, first_config, site};
use av_proto_tests::faults::full;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, free_port};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How far a time may be off that was not moved by years.
const NEAR: SignedDuration = SignedDuration::from_secs(120);

/// The library, where there is one.
fn library(test: &str) -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED {test}: there is no libfaketime");
    }
    found
}

/// Days from today to a day of about that year, and of the weekday three days
/// ahead: where a device is expected, and today is not.
fn days_to(year: i64) -> i64 {
    let days = (year - 2026) * 365;
    days + (3 - days).rem_euclid(7)
}

fn in_three_days() -> &'static str {
    let day = Timestamp::now() + SignedDuration::from_hours(72);
    match day.to_zoned_datetime(TimeZone::UTC).weekday() {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

struct Scene {
    projector: Projector,
    nobody: u16,
    backend: FakeBackend,
    agent: Agent,
    offset: PathBuf,
    _dir: tempfile::TempDir,
    version: usize,
    /// When each version was published and when it was seen swept.
    versions: BTreeMap<String, (Timestamp, Timestamp)>,
}

impl Scene {
    fn new(library: &std::path::Path) -> Self {
        let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
        let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
        let dir = tempfile::tempdir().unwrap();
        let offset = dir.path().join("offset");
        let mut agent = Agent::new(&first_config(&backend.url()));
        agent.set("LD_PRELOAD", library.to_str().unwrap());
        agent.set("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap());
        agent.set("FAKETIME_NO_CACHE", "1");
        agent.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        agent.set("DONT_FAKE_MONOTONIC", "1");
        // A file's date is what the clock was when it was written.
        agent.set("NO_FAKE_STAT", "1");
        let scene = Self {
            projector,
            nobody: free_port(),
            backend,
            agent,
            offset,
            _dir: dir,
            version: 0,
            versions: BTreeMap::new(),
        };
        scene.set_clock(0);
        scene
    }

    /// Sets the clock so many days from now.
    fn set_clock(&self, days: i64) {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{:+}\n", days * 86_400)).unwrap();
        fs::rename(new, &self.offset).unwrap();
    }

    fn publish(&mut self) -> String {
        self.version += 1;
        let version = format!("v{}", self.version);
        let address = self.projector.addr();
        let device = |name: &str, ip: &str, port: u16, expectations: Value| {
            json!({
                "ip": ip, "name": format!("{version} {name}"), "driver": "pjlink",
                "driver_config": {"pjlink": {"port": port}}, "expectations": expectations,
            })
        };
        let rule = json!({"days": [in_three_days()], "start": "00:00", "end": "23:59"});
        let devices = [
            device(
                "on",
                &address.ip().to_string(),
                address.port(),
                json!({"always_on": true, "alert_after_s": 15}),
            ),
            device(
                "off",
                "127.0.8.1",
                self.nobody,
                json!({"alert_after_s": 15, "schedule": {"timezone": "UTC", "rules": [rule]}}),
            ),
        ];
        let site = site("Paris", &devices);
        self.backend.answer_config(ConfigAnswer::Site(site));
        version
    }

    #[track_caller]
    fn wait_status<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let process = self.agent.process.as_ref().unwrap();
        process.wait_for(what, || wanted(&self.agent.get("/api/status")?.json()))
    }

    /// Publishes a version and waits until both devices were judged by it, the
    /// first online, the other as `off`.
    #[track_caller]
    fn sweep(&mut self, off: &[&str]) -> Value {
        let published = Timestamp::now();
        let version = self.publish();
        let devices = self.wait_status(&format!("{version} is swept"), |status| {
            let devices = status["devices"].as_array()?;
            let is_new = |device: &Value| version_of(device) == version;
            (devices.len() == 2 && devices.iter().all(is_new)).then(|| status["devices"].clone())
        });
        assert_eq!(devices[0]["verdict"], "ok", "{devices}");
        let verdict = devices[1]["verdict"].as_str().unwrap();
        assert!(off.contains(&verdict), "{devices}");
        self.versions.insert(version, (published, Timestamp::now()));
        devices
    }

    #[track_caller]
    fn trust(&self, trust: &str) {
        self.wait_status(&format!("the clock is {trust}"), |status| {
            (status["clock"]["trust"] == trust).then_some(())
        });
    }

    #[track_caller]
    fn all_arrive(&self) {
        let process = self.agent.process.as_ref().unwrap();
        process.wait_for("every version is reported, and nothing waits", || {
            let status = self.agent.get("/api/status")?.json();
            let reports = self.backend.reports();
            let came = |version: &String| {
                let of_it = |device: &Value| version_of(device) == *version;
                let mut devices = reports
                    .iter()
                    .flat_map(|report| report["devices"].as_array().into_iter().flatten());
                devices.any(of_it)
            };
            (status["report"]["pending"] == 0 && self.versions.keys().all(came)).then_some(())
        });
    }

    /// Every observation came in order, under one number, and of the time at
    /// which its version was there. After a kill the newest may come again.
    #[track_caller]
    fn check_reports(&self) -> usize {
        let mut known: BTreeMap<u64, Value> = BTreeMap::new();
        let reports = self.backend.reports();
        for report in &reports {
            let seq = report["report"]["seq"].as_u64().unwrap();
            let highest = known.last_key_value().map_or(0, |(seq, _)| *seq);
            assert!(
                seq == highest + 1 || known.contains_key(&seq),
                "{seq} after {highest}"
            );
            let again = known.insert(seq, report["devices"].clone());
            assert!(
                again.is_none_or(|before| before == report["devices"]),
                "{seq}"
            );
            for device in report["devices"].as_array().unwrap() {
                let Some((published, swept)) = self.versions.get(&version_of(device)) else {
                    continue;
                };
                let Some(at) = device["observed_at"].as_str() else {
                    panic!("no time: {device}");
                };
                let at: Timestamp = at.parse().unwrap();
                assert!(
                    at >= *published - NEAR && at <= *swept + NEAR,
                    "{device} is of {published}"
                );
                assert_eq!(device["metrics"]["ts"], device["observed_at"]);
                assert!(device["clock_unsynced"] != true, "{device}");
            }
        }
        known.len()
    }

    #[track_caller]
    fn nothing_is_wrong(&self) {
        let status = self.wait_status("a status", |status| Some(status.clone()));
        assert_eq!(status["report"]["dropped"], 0, "{status}");
        assert_eq!(status["report"]["damaged"], 0, "{status}");
        let log = self.agent.process.as_ref().unwrap().log();
        assert!(!log.contains("💥"), "{log}");
        assert!(!log.contains("fault") && !log.contains("doubt"), "{log}");
    }
}

fn version_of(device: &Value) -> String {
    let name = device["name"].as_str().unwrap_or_default();
    name.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn set_by_decades_while_it_runs_it_judges_and_reports_by_the_right_time() {
    let test = "set_by_decades_while_it_runs_it_judges_and_reports_by_the_right_time";
    let Some(library) = library(test) else {
        return;
    };
    let mut scene = Scene::new(&library);
    scene.agent.start();
    scene.sweep(&["unknown"]);
    scene.trust("known");
    scene.wait_status("the other is off as expected", |status| {
        (status["devices"][1]["verdict"] == "expected_off").then_some(())
    });
    let mut jumps = 0;
    for round in 0..if full() { 20 } else { 1 } {
        // Without a backend in some rounds: what is written under a wrong clock
        // is sent later.
        let is_ill = round % 2 == 1;
        if is_ill {
            scene.backend.answer_ingest(IngestAnswer::Status(503));
        }
        for year in [1970, 2040, 1999, 2026] {
            let days = if year == 2026 { 0 } else { days_to(year) };
            scene.set_clock(days);
            jumps += 1;
            scene.wait_status("the jump is seen", |status| {
                (status["clock"]["jumps"].as_u64()? >= jumps).then_some(())
            });
            scene.trust(if days == 0 { "known" } else { "backend" });
            for _ in 0..2 {
                let devices = scene.sweep(&["expected_off"]);
                for device in devices.as_array().unwrap() {
                    let at: Timestamp = device["observed_at"].as_str().unwrap().parse().unwrap();
                    let off = at.duration_since(Timestamp::now()).abs();
                    assert!(off < NEAR, "in {year}: {device}");
                }
            }
        }
        if is_ill {
            scene.backend.answer_ingest(IngestAnswer::Take);
        }
    }
    scene.all_arrive();
    let reports = scene.check_reports();
    scene.nothing_is_wrong();
    println!("set {jumps} times: {reports} reports, each at its own time");
}

#[test]
fn set_between_its_runs_no_report_is_lost_or_of_another_time() {
    let test = "set_between_its_runs_no_report_is_lost_or_of_another_time";
    let Some(library) = library(test) else {
        return;
    };
    let mut scene = Scene::new(&library);
    scene.agent.start();
    scene.sweep(&["unknown"]);
    scene.trust("known");
    scene.wait_status("the other is off as expected", |status| {
        (status["devices"][1]["verdict"] == "expected_off").then_some(())
    });
    scene.backend.answer_ingest(IngestAnswer::Status(503));
    let rounds = if full() { 10 } else { 1 };
    for _ in 0..rounds {
        for year in [2040, 1970, 2026] {
            scene.agent.process.as_mut().unwrap().kill();
            scene.set_clock(if year == 2026 { 0 } else { days_to(year) });
            scene.agent.start();
            scene.trust(if year == 2026 { "known" } else { "backend" });
            // Its first look may come before the backend said the time: not
            // known then, and never at fault.
            scene.sweep(&["expected_off", "unknown"]);
            scene.sweep(&["expected_off", "unknown"]);
            scene.nothing_is_wrong();
        }
    }
    scene.backend.answer_ingest(IngestAnswer::Take);
    scene.all_arrive();
    let reports = scene.check_reports();
    scene.nothing_is_wrong();
    println!("set between {} runs: {reports} reports", rounds * 3 + 1);
}

#[test]
fn a_report_that_was_tried_before_the_time_was_known_gets_its_own() {
    let test = "a_report_that_was_tried_before_the_time_was_known_gets_its_own";
    let Some(library) = library(test) else {
        return;
    };
    let mut scene = Scene::new(&library);
    // The backend does not say the time either, and takes nothing.
    scene.backend.set_dateless(true);
    scene.backend.answer_ingest(IngestAnswer::Status(503));
    scene.set_clock(days_to(1970));
    scene.agent.start();
    scene.sweep(&["unknown"]);
    scene.trust("unset");
    let process = scene.agent.process.as_ref().unwrap();
    process.wait_for_log("📦 Reports wait: the backend answered 503", 1);
    scene.sweep(&["unknown"]);
    scene.set_clock(0);
    scene.trust("believed");
    scene.sweep(&["unknown", "expected_off"]);
    scene.backend.answer_ingest(IngestAnswer::Take);
    scene.all_arrive();
    let reports = scene.check_reports();
    scene.nothing_is_wrong();
    println!("{reports} reports, each at its own time");
}
