//! The agent on a disk that is full, read-only or slow.
//!
//! Its folder is a small file system of its own, in a mount namespace that ends
//! with the test. It goes on watching and reporting, says what it cannot write,
//! and when the disk takes something again it is as if nothing had been. It
//! needs util-linux (`unshare`, `mount`), for the slow disk `strace`, and no
//! privileges.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, IngestAnswer, first_config, site};
use av_proto_tests::faults::full;
use av_proto_tests::namespace::inside;
use av_proto_tests::process::{Agent, LIMIT, signal, wait_for};
use av_proto_tests::random::Random;
use jiff::Timestamp;
use serde_json::{Value, json};

const DEVICES: usize = 40;
/// An unoptimized agent with a few reports in hand.
const MEMORY_MAX_KIB: u64 = 100 << 10;

/// The agent's folder as a file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn under(agent: &Agent) -> Self {
        let folder = agent.config_file().parent().unwrap().to_owned();
        let config = fs::read(agent.config_file()).unwrap();
        mount(
            &["-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"],
            &folder,
        )
        .unwrap();
        fs::write(agent.config_file(), config).unwrap();
        Self(folder)
    }

    /// Leaves no page free.
    fn fill(&self) {
        let mut options = fs::OpenOptions::new();
        let mut filler = options
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        let page = [b'x'; 4096];
        while filler.write(&page).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn make(&self, mode: &str) {
        // Without those that mount finds: a user's disk has the `uid` of outside,
        // which the kernel refuses inside.
        let remount = format!("remount,{mode},size=512k");
        let options = ["--options-mode", "ignore", "-o", &remount];
        let said = RefCell::new(String::new());
        // A file that is open for writing just then is in the way.
        wait_for(
            &format!("the disk is {mode}"),
            || said.borrow().clone(),
            || {
                mount(&options, &self.0)
                    .map_err(|error| said.replace(error))
                    .ok()
            },
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Before the folder is removed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(options: &[&str], folder: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(options).arg(folder).output();
    let output = output.unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The service manager, and how often it heard that the agent is alive.
struct Watchdog {
    fed: Arc<AtomicU64>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Watchdog {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let fed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&fed);
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                if String::from_utf8_lossy(&buffer[..length]).contains("WATCHDOG=1") {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self {
            fed,
            socket: path,
            _dir: dir,
        }
    }

    #[track_caller]
    fn is_fed(&self) {
        let before = self.fed.load(Ordering::SeqCst);
        wait_for("the watchdog is fed", String::new, || {
            (self.fed.load(Ordering::SeqCst) > before + 1).then_some(())
        });
    }
}

/// An agent on a disk of its own, a backend whose site changes by versions, and
/// a service manager.
struct Scene {
    disk: Disk,
    agent: Agent,
    backend: FakeBackend,
    watchdog: Watchdog,
    random: Random,
    version: usize,
}

impl Scene {
    fn new(test: &str) -> Self {
        let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
        let watchdog = Watchdog::new();
        let mut agent = Agent::new(&first_config(&backend.url()));
        agent.set("NOTIFY_SOCKET", watchdog.socket.to_str().unwrap());
        agent.set("WATCHDOG_USEC", "600000");
        Self {
            disk: Disk::under(&agent),
            agent,
            backend,
            watchdog,
            random: Random::of_run(test),
            version: 0,
        }
    }

    /// The next version of the site. No report of it fits in what is left of a
    /// page.
    fn publish(&mut self) -> String {
        self.version += 1;
        let version = format!("v{}", self.version);
        let devices: Vec<Value> = (0..DEVICES)
            .map(|i| {
                let letters: String = (0..130)
                    .map(|_| char::from(b'A' + self.random.below(26) as u8))
                    .collect();
                json!({
                    // Others each time: what is known of them has to be saved.
                    "ip": format!("127.9.{}.{}", self.version, i + 1),
                    "name": format!("{version} {letters}"),
                    "driver": "tcp", "driver_config": {"tcp": {"port": 9}},
                })
            })
            .collect();
        let site = site("Paris", &devices);
        self.backend.answer_config(ConfigAnswer::Site(site));
        version
    }

    #[track_caller]
    fn wait_status<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let process = self.agent.process.as_ref().unwrap();
        process.wait_for(what, || wanted(&self.agent.get("/api/status")?.json()))
    }

    /// Publishes a version, and waits until it was swept.
    #[track_caller]
    fn sweep(&mut self) -> String {
        let version = self.publish();
        self.wait_status(&format!("{version} is swept"), |status| {
            let devices = status["devices"].as_array()?;
            let is_new = |device: &Value| version_of(device) == version;
            (devices.len() == DEVICES && devices.iter().all(is_new)).then_some(())
        });
        version
    }

    #[track_caller]
    fn arrives(&self, version: &str) {
        let process = self.agent.process.as_ref().unwrap();
        process.wait_for(&format!("{version} is reported"), || {
            let reports = self.backend.reports();
            let of_it = |report: &Value| version_of(&report["devices"][0]) == version;
            reports.iter().any(of_it).then_some(())
        });
    }

    /// Whether nothing of the agent's can be written.
    fn is_stuck(&self) -> bool {
        self.wait_status("a status", |status| {
            let said = [
                &status["report"]["disk_error"],
                &status["sweep"]["memory_error"],
                &status["sync"]["save_error"],
            ];
            Some(said.iter().all(|said| said.is_string()))
        })
    }

    /// What the page, the JSON and the metrics say of a disk that fails.
    #[track_caller]
    fn says(&self, why: &str) {
        let page = self.wait_status("it is said", |status| {
            let said = [
                &status["report"]["disk_error"],
                &status["sweep"]["memory_error"],
                &status["sync"]["save_error"],
            ];
            let is_said = |said: &&Value| said.as_str().is_some_and(|said| said.contains(why));
            let page = self.agent.get("/")?.body;
            said.iter().all(is_said).then_some(page)
        });
        for what in [
            "Reports cannot be kept on disk",
            "What is known of the devices cannot be saved",
            "The configuration runs but cannot be saved",
        ] {
            assert!(page.contains(what), "{page}");
        }
        assert!(page.contains(why), "{page}");
        let metrics = self.agent.get("/metrics").unwrap().body;
        for what in ["config", "devices", "reports"] {
            let line = format!("av_agent_disk_failed{{what=\"{what}\"}} 1\n");
            assert!(metrics.contains(&line), "{metrics}");
        }
        let log = self.agent.process.as_ref().unwrap().log();
        assert!(log.contains("The disk takes no reports: "), "{log}");
        assert!(log.contains("Memory of the devices not saved"), "{log}");
        assert!(
            log.contains("but not saved") || log.contains("is not saved"),
            "{log}"
        );
    }

    /// Everything is on disk again, and nothing is said any more.
    #[track_caller]
    fn is_well(&mut self) {
        let version = self.sweep();
        self.arrives(&version);
        self.wait_status("the disk is well", |status| {
            let report = &status["report"];
            let is_null = [
                &report["disk_error"],
                &report["last_error"],
                &status["sweep"]["memory_error"],
                &status["sync"]["save_error"],
            ]
            .iter()
            .all(|said| said.is_null());
            (is_null && report["pending"] == 0 && report["in_memory"] == 0).then_some(())
        });
        let metrics = self.agent.get("/metrics").unwrap().body;
        assert!(!metrics.contains("av_agent_disk_failed{what=\"config\"} 1"));
        assert_eq!(self.on_disk(), version);
    }

    /// The version in `config.json`, which is whole, as everything is.
    #[track_caller]
    fn on_disk(&self) -> String {
        let whole = |path: PathBuf| -> Value {
            let content = fs::read(&path).unwrap();
            serde_json::from_slice(&content).unwrap_or_else(|error| {
                let text = String::from_utf8_lossy(&content);
                panic!("{}: {error}: {text}", path.display())
            })
        };
        let beside =
            |end: &str| PathBuf::from(format!("{}{end}", self.agent.config_file().display()));
        let config = whole(self.agent.config_file());
        for end in [".bak", ".applied"] {
            if beside(end).exists() {
                whole(beside(end));
            }
        }
        for path in [self.agent.state_dir().join("devices.json")] {
            if path.exists() {
                whole(path);
            }
        }
        config["devices"]
            .as_array()
            .and_then(|devices| Some(version_of(devices.first()?)))
            .unwrap_or_default()
    }

    /// What came, came in order, and under one name once; what came again was
    /// the same.
    #[track_caller]
    fn check_reports(&self) -> usize {
        let mut known: BTreeMap<(String, u64), Value> = BTreeMap::new();
        let mut newest = Timestamp::MIN;
        for report in self.backend.reports() {
            let id = &report["report"];
            let id = (
                id["stream"].as_str().unwrap().to_owned(),
                id["seq"].as_u64().unwrap(),
            );
            if let Some(before) = known.get(&id) {
                assert_eq!(*before, report["devices"], "{id:?} is two reports");
                continue;
            }
            let devices = report["devices"].as_array().unwrap();
            let made = devices
                .iter()
                .map(|device| device["observed_at"].as_str().unwrap().parse().unwrap())
                .max();
            let made: Timestamp = made.unwrap();
            assert!(
                made >= newest,
                "{id:?} of {made} came after one of {newest}"
            );
            newest = made;
            known.insert(id, report["devices"].clone());
        }
        known.len()
    }

    fn memory_kib(&self) -> u64 {
        let id = self.agent.process.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

/// The version in a device's name.
fn version_of(device: &Value) -> String {
    let name = device["name"].as_str().unwrap_or_default();
    name.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn on_a_full_disk_it_watches_and_reports_and_recovers() {
    let test = "on_a_full_disk_it_watches_and_reports_and_recovers";
    if !inside(test, &["--mount"], "") {
        return;
    }
    let mut scene = Scene::new(test);
    scene.agent.start();
    scene.is_well();
    let rounds = if full() { 20 } else { 1 };
    let mut versions = Vec::new();
    let first = scene.on_disk();
    for round in 0..rounds {
        // The backend is there: what the disk does not take goes to it. A save
        // that fails can make room for the next one, where the backup goes.
        for tries in 1.. {
            scene.disk.fill();
            let version = scene.sweep();
            scene.arrives(&version);
            versions.push(version);
            if tries > 1 && scene.is_stuck() {
                break;
            }
            assert!(tries < 20, "the disk is never full");
        }
        scene.says("No space left on device");
        scene.watchdog.is_fed();
        // One of those that were sent, whole: the newest where there was room
        // for it and none for the hash beside it.
        let kept = scene.on_disk();
        assert!(kept == first || versions.contains(&kept), "{kept}");
        // Without a backend it waits in memory.
        scene.backend.answer_ingest(IngestAnswer::Status(503));
        for _ in 0..2 {
            scene.disk.fill();
            versions.push(scene.sweep());
        }
        scene.wait_status("they wait", |status| {
            let report = &status["report"];
            let waiting = report["in_memory"].as_u64()? + report["pending"].as_u64()?;
            (waiting >= 2).then_some(())
        });
        // Some rounds without a backend to the end, others with one again
        // while the disk is still full.
        if round % 2 == 1 {
            scene.backend.answer_ingest(IngestAnswer::Take);
            scene.arrives(versions.last().unwrap());
        }
        scene.disk.free();
        scene.wait_status("it is on disk but for what was tried", |status| {
            let report = &status["report"];
            let is_well = report["disk_error"].is_null() || round % 2 == 1;
            (is_well && report["in_memory"].as_u64()? <= 1).then_some(())
        });
        scene.backend.answer_ingest(IngestAnswer::Take);
        scene.is_well();
    }
    for version in &versions {
        scene.arrives(version);
    }
    let reports = scene.check_reports();
    let memory = scene.memory_kib();
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
    let log = scene.agent.process.as_ref().unwrap().log();
    let said = log.matches("The disk takes no reports").count();
    assert!(said <= rounds * 5, "said {said} times:\n{log}");
    assert!(
        !log.contains("💥") && !log.contains("has not moved"),
        "{log}"
    );
    assert_eq!(
        scene.wait_status("the count", |s| s["report"]["dropped"].as_u64()),
        0
    );
    println!("{rounds} times full: {reports} reports, {said} lines of the log, {memory} KiB");
}

#[test]
fn started_on_a_disk_that_takes_nothing_it_runs_with_what_is_there() {
    let test = "started_on_a_disk_that_takes_nothing_it_runs_with_what_is_there";
    if !inside(test, &["--mount"], "") {
        return;
    }
    for (mode, why) in [
        ("full", "No space left on device"),
        ("ro", "Read-only file system"),
    ] {
        // A first start: there is no folder for its state.
        let mut scene = Scene::new(test);
        if mode == "full" {
            scene.disk.fill();
        } else {
            scene.disk.make("ro");
        }
        scene.agent.start();
        let version = scene.sweep();
        scene.arrives(&version);
        scene.says(why);
        scene.watchdog.is_fed();
        assert_eq!(scene.on_disk(), "", "the first file stands");
        if mode == "full" {
            scene.disk.free();
        } else {
            scene.disk.make("rw");
        }
        scene.is_well();
        let process = scene.agent.process.as_mut().unwrap();
        assert!(process.terminate().success(), "{}", process.log());
        assert!(!process.log().contains("💥"), "{}", process.log());
        scene.check_reports();
    }
}

#[test]
fn made_read_only_it_sends_what_is_there_and_goes_on() {
    let test = "made_read_only_it_sends_what_is_there_and_goes_on";
    if !inside(test, &["--mount"], "") {
        return;
    }
    let mut scene = Scene::new(test);
    scene.agent.start();
    scene.is_well();
    let rounds = if full() { 20 } else { 1 };
    for round in 0..rounds {
        scene.backend.answer_ingest(IngestAnswer::Status(503));
        let kept = scene.sweep();
        scene.wait_status("it is on disk", |status| {
            (status["report"]["pending"].as_u64()? > 0).then_some(())
        });
        let before = scene.on_disk();
        scene.disk.make("ro");
        if round % 2 == 1 {
            // The next run finds it so.
            scene.agent.process.as_mut().unwrap().kill();
            scene.agent.start();
        }
        let first = scene.sweep();
        let second = scene.sweep();
        scene.says("Read-only file system");
        scene.watchdog.is_fed();
        assert_eq!(scene.on_disk(), before);
        scene.backend.answer_ingest(IngestAnswer::Take);
        for version in [&kept, &first, &second] {
            scene.arrives(version);
        }
        if round % 2 == 0 {
            // What was taken is not noted on the disk: it comes again, and the
            // backend knows it by its number.
            scene.agent.process.as_mut().unwrap().kill();
            scene.agent.start();
            let third = scene.sweep();
            scene.arrives(&third);
        }
        scene.disk.make("rw");
        scene.is_well();
    }
    let reports = scene.check_reports();
    let log = scene.agent.process.as_ref().unwrap().log();
    assert!(!log.contains("💥"), "{log}");
    println!("{rounds} times read-only: {reports} reports");
}

/// `strace`, which holds up each sync of the agent as a slow disk does.
struct Slow(Child);

impl Slow {
    fn down(id: u32, by: Duration) -> Self {
        let inject = format!("inject=fsync,fdatasync:delay_enter={}", by.as_micros());
        let child = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-e", &inject])
            .args(["-o", "/dev/null", "-p", &id.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("it is traced", String::new, || {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let tracer = format!("TracerPid:\t{}\n", child.id());
            status.contains(&tracer).then_some(())
        });
        Self(child)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // It lets go of the agent at this signal.
        let _ = signal("INT", self.0.id());
        let _ = self.0.wait();
    }
}

#[test]
fn on_a_slow_disk_the_sweeps_go_on_and_nothing_is_lost() {
    let test = "on_a_slow_disk_the_sweeps_go_on_and_nothing_is_lost";
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED {test}: there is no strace");
        return;
    }
    if !inside(test, &["--mount"], "") {
        return;
    }
    let mut scene = Scene::new(test);
    scene.agent.start();
    scene.is_well();
    let delay = Duration::from_secs(if full() { 8 } else { 1 });
    let slow = Slow::down(scene.agent.process.as_ref().unwrap().id(), delay);
    let mut versions = Vec::new();
    let began = Instant::now();
    for _ in 0..if full() { 10 } else { 2 } {
        versions.push(scene.sweep());
        scene.watchdog.is_fed();
    }
    let swept = began.elapsed();
    scene.arrives(versions.last().unwrap());
    // A stop waits two seconds for the disk, and no longer.
    versions.push(scene.sweep());
    let process = scene.agent.process.as_mut().unwrap();
    let told = Instant::now();
    assert!(process.terminate().success(), "{}", process.log());
    let stopped = told.elapsed();
    assert!(stopped < LIMIT / 2, "{stopped:?}");
    assert!(!process.log().contains("💥"), "{}", process.log());
    drop(slow);
    scene.agent.start();
    scene.is_well();
    for version in &versions {
        scene.arrives(version);
    }
    let reports = scene.check_reports();
    println!(
        "each sync takes {delay:?}: {} sweeps in {swept:?}, {reports} reports, stopped in {stopped:?}",
        versions.len()
    );
}
