//! The agent killed at random moments (`kill -9`) while its configuration
//! changes without end and the backend takes reports, or does not.
//!
//! `AV_FAULT_KILLS` says how often, `AV_FAULT_SEED` which moments.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use av_agent::config::{ConfigStore, parse};
use av_agent::report::{Limits, Spool};
use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, IngestAnswer, first_config, site};
use av_proto_tests::faults::count;
use av_proto_tests::process::{Agent, http};
use av_proto_tests::random::Random;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const DEVICES: usize = 12;
/// The clocks of both ends are this machine's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(1);

/// The site of a version: each device says which version it is of, and the
/// document is long enough for its writing to be hit.
fn version(number: u64, port: u16) -> Value {
    let devices: Vec<Value> = (0..DEVICES)
        .map(|i| {
            json!({
                "ip": format!("127.0.1.{}", i + 1), "name": format!("v{number}"),
                "driver": "tcp", "room": "é".repeat(200),
                "driver_config": {"tcp": {"port": port, "timeout_s": 2}},
            })
        })
        .collect();
    site("Paris", &devices)
}

fn number_of(name: &str) -> u64 {
    name.strip_prefix('v').unwrap().parse().unwrap()
}

/// A version that was published: when, and under which hash.
type Published = BTreeMap<u64, (Timestamp, String)>;

/// A backend with a new configuration every few milliseconds.
struct Changing {
    backend: Arc<FakeBackend>,
    published: Arc<Mutex<Published>>,
    /// What becomes of reports: nothing of them arrives while this is set.
    refuses: Arc<AtomicBool>,
    /// And no configuration either: nobody says what time it is.
    is_ill: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Changing {
    fn start(port: u16, mut random: Random) -> Self {
        let first = version(0, port);
        let hash = first["config_hash"].as_str().unwrap().to_owned();
        let published = Published::from([(0, (Timestamp::now(), hash))]);
        let published = Arc::new(Mutex::new(published));
        let backend = Arc::new(FakeBackend::start(ConfigAnswer::Site(first)));
        let refuses = Arc::new(AtomicBool::new(false));
        let is_ill = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicBool::new(false));
        let (b, p) = (Arc::clone(&backend), Arc::clone(&published));
        let (r, i, e) = (
            Arc::clone(&refuses),
            Arc::clone(&is_ill),
            Arc::clone(&ended),
        );
        let changes = thread::spawn(move || {
            let mut number = 0;
            while !e.load(Ordering::SeqCst) {
                thread::sleep(random.up_to(Duration::from_millis(40)));
                number += 1;
                if i.load(Ordering::SeqCst) {
                    b.answer_config(ConfigAnswer::Status(503));
                    b.answer_ingest(IngestAnswer::Status(503));
                    continue;
                }
                let next = version(number, port);
                let hash = next["config_hash"].as_str().unwrap().to_owned();
                p.lock().unwrap().insert(number, (Timestamp::now(), hash));
                b.answer_config(match random.below(12) {
                    0 => ConfigAnswer::HalfBody(next),
                    1 => ConfigAnswer::Status(503),
                    _ => ConfigAnswer::Site(next),
                });
                b.answer_ingest(match (r.load(Ordering::SeqCst), random.below(8)) {
                    (true, 0) => IngestAnswer::Status(401),
                    (true, 1) => IngestAnswer::Portal,
                    (true, _) => IngestAnswer::Status(503),
                    (false, 0) => IngestAnswer::TakeInSilence,
                    (false, _) => IngestAnswer::Take,
                });
            }
        });
        Self {
            backend,
            published,
            refuses,
            is_ill,
            ended,
            threads: vec![changes],
        }
    }

    /// Has the agent poll again and again, while there is one.
    fn hurry(&mut self, page: &str) {
        let url = format!("{page}/sync");
        let ended = Arc::clone(&self.ended);
        self.threads.push(thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let _ = http("POST", &url, &[], Some(b""));
                thread::sleep(Duration::from_millis(10));
            }
        }));
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// What stood where the agent died, for the table of results.
#[derive(Debug, Default)]
struct Hit {
    before_first_report: usize,
    in_a_save: usize,
    between_file_and_hash: usize,
    reports_waiting: usize,
    tails_torn: usize,
}

/// The configuration on disk is one version, whole, and not an older one than
/// before; so is its backup.
fn check_configuration(file: &Path, published: &Published, before: u64, hit: &mut Hit) -> u64 {
    let one_version = |path: &Path| -> Option<u64> {
        let content = fs::read(path).unwrap();
        let (_, site) =
            parse(&content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(site.rejected.is_empty(), "{:?}", site.rejected);
        let mut names: Vec<&str> = site.devices.iter().map(|d| d.name.as_str()).collect();
        if names.is_empty() {
            // The technician's own, before the first sync.
            return None;
        }
        assert_eq!(names.len(), DEVICES, "{}", path.display());
        names.dedup();
        assert_eq!(names.len(), 1, "{}: {names:?}", path.display());
        Some(number_of(names[0]))
    };
    let now = one_version(file).unwrap_or(0);
    assert!(now >= before, "version {now} on disk after {before}");
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
    if beside(".bak").exists() {
        one_version(&beside(".bak"));
    }
    assert!(!beside(".broken").exists(), "a file was set aside");
    if beside(".tmp").exists() || beside(".applied.tmp").exists() {
        hit.in_a_save += 1;
    }
    let store = ConfigStore::new(file);
    match store.stored_hash() {
        Some(hash) => assert_eq!(hash.as_str(), published[&now].1, "version {now}"),
        None => hit.between_file_and_hash += 1,
    }
    now
}

/// Each report that is on disk and was not acknowledged: its number, and what
/// it says of each device.
type Kept = BTreeMap<u64, Vec<(String, String, Option<Timestamp>)>>;

/// Reads a copy: opening a spool repairs it.
fn kept_on_disk(spool: &Path) -> Kept {
    let mut kept = Kept::new();
    let Ok(entries) = fs::read_dir(spool) else {
        return kept;
    };
    let copy = tempfile::tempdir().unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let limits = Limits {
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(86_400),
    };
    let mut spool = Spool::open(copy.path(), limits).unwrap();
    while let Some(report) = spool.take().unwrap() {
        let devices = report.devices.into_iter();
        let said = devices.map(|d| (d.ip, d.name, d.observed_at)).collect();
        kept.insert(report.seq, said);
        spool.ack(report.seq);
    }
    assert_eq!(spool.lost(), 0, "damage without a power cut");
    kept
}

/// A tail that a power cut tore: the beginning of a record.
fn tear(spool: &Path, random: &mut Random) -> bool {
    let segments = fs::read_dir(spool).into_iter().flatten().flatten();
    let newest = segments
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "spool"))
        .max();
    let Some(newest) = newest else {
        return false;
    };
    let mut file = fs::OpenOptions::new().append(true).open(newest).unwrap();
    let garbage: Vec<u8> = (0..=random.below(200))
        .map(|_| random.below(256) as u8)
        .collect();
    file.write_all(&garbage).unwrap();
    true
}

/// What the backend has of each number: when it came first it was this, and
/// whenever it came again it was the same.
fn taken(reports: &[Value]) -> Kept {
    let mut taken = Kept::new();
    let mut stream = None;
    let mut highest = 0;
    for report in reports {
        let id = &report["report"];
        let stream = stream.get_or_insert(&id["stream"]);
        assert_eq!(*stream, &id["stream"], "one spool");
        let seq = id["seq"].as_u64().unwrap();
        let text = |device: &Value, key: &str| device[key].as_str().unwrap().to_owned();
        let said: Vec<_> = report["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| {
                let at = device["observed_at"].as_str();
                let at = at.map(|at| at.parse().unwrap());
                (text(device, "ip"), text(device, "name"), at)
            })
            .collect();
        match taken.get(&seq) {
            Some(before) => assert_eq!(*before, said, "report {seq} came again, and differs"),
            None => {
                assert!(seq > highest, "report {seq} came after {highest}");
                highest = seq;
                taken.insert(seq, said);
            }
        }
    }
    taken
}

#[test]
fn killed_at_random_moments_it_loses_nothing_and_repeats_nothing() {
    let kills = count("AV_FAULT_KILLS", 15);
    let mut random = Random::of_run("faults_agent_kill");
    let answers = TcpListener::bind(("127.0.1.1", 0)).unwrap();
    let port = answers.local_addr().unwrap().port();
    thread::spawn(move || for _ in answers.incoming() {});

    let mut changing = Changing::start(port, random.clone());
    let mut agent = Agent::new(&first_config(&changing.backend.url()));
    changing.hurry(&agent.url);
    let spool = agent.state_dir().join("spool");
    let mut hit = Hit::default();
    let mut version = 0;
    let mut on_disk = Kept::new();
    for kill in 0..kills {
        changing.refuses.store(random.once_in(3), Ordering::SeqCst);
        changing.is_ill.store(random.once_in(5), Ordering::SeqCst);
        agent.start();
        thread::sleep(random.up_to(Duration::from_millis(900)));
        let process = agent.process.as_mut().unwrap();
        assert!(process.is_running(), "kill {kill}: {}", process.log());
        process.kill();
        let log = process.log();
        for bad in ["💥", "the backup serves", "damaged", "takes no reports"] {
            assert!(!log.contains(bad), "kill {kill}: {log}");
        }

        let published = changing.published.lock().unwrap().clone();
        version = check_configuration(&agent.config_file(), &published, version, &mut hit);
        let memory = fs::read(agent.state_dir().join("devices.json"));
        if let Ok(memory) = memory {
            serde_json::from_slice::<Value>(&memory).unwrap();
        }
        let kept = kept_on_disk(&spool);
        hit.reports_waiting += usize::from(!kept.is_empty());
        hit.before_first_report += usize::from(!spool.exists());
        for (seq, said) in kept {
            if let Some(before) = on_disk.get(&seq) {
                assert_eq!(*before, said, "report {seq} changed on disk");
            }
            on_disk.insert(seq, said);
        }
        if random.once_in(5) && tear(&spool, &mut random) {
            hit.tails_torn += 1;
        }
    }

    // And then all is well.
    changing.end();
    changing.backend.answer_ingest(IngestAnswer::Take);
    let newest = self::version(u64::MAX, port);
    changing
        .backend
        .answer_config(ConfigAnswer::Site(newest.clone()));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for("everything is sent", || {
        let status = agent.get("/api/status")?.json();
        (status["sync"]["current_hash"] == newest["config_hash"]
            && status["report"]["pending"] == 0
            && status["report"]["last_error"].is_null()
            && status["devices"][0]["name"] == format!("v{}", u64::MAX))
        .then_some(())
    });

    let taken = taken(&changing.backend.reports());
    for (seq, said) in &on_disk {
        let arrived = taken.get(seq);
        let arrived = arrived.unwrap_or_else(|| panic!("report {seq} was on disk and is lost"));
        assert_eq!(said.len(), arrived.len(), "report {seq}");
        for (kept, came) in said.iter().zip(arrived) {
            assert_eq!((&kept.0, &kept.1), (&came.0, &came.1), "report {seq}");
            let (Some(kept), Some(came)) = (kept.2, came.2) else {
                panic!("report {seq} came without its time: {kept:?}, {came:?}");
            };
            let off = came.duration_since(kept).abs();
            assert!(off < CLOCKS_DIFFER, "report {seq} is of {kept}, not {came}");
        }
    }
    // No number is missing: they rise by one, or jump far over a torn tail.
    let numbers: Vec<u64> = taken.keys().copied().collect();
    let jumps = numbers
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .map(|pair| {
            assert!(
                pair[1] - pair[0] >= 1 << 20,
                "{pair:?}: reports are missing"
            )
        })
        .count();
    assert!(jumps <= hit.tails_torn, "{jumps} jumps, {hit:?}");
    // Each observation is of the time at which its version was there.
    let published = changing.published.lock().unwrap();
    for (seq, said) in &taken {
        for (ip, name, at) in said {
            let at = at.unwrap_or_else(|| panic!("report {seq}: {ip} has no time"));
            if let Some((since, _)) = published.get(&number_of(name)) {
                assert!(
                    at >= *since - CLOCKS_DIFFER,
                    "{name} of {since} seen at {at}"
                );
            }
        }
    }
    println!(
        "{kills} kills, {} versions, {} reports taken, {} of them sent again; {hit:?}",
        published.len(),
        taken.len(),
        changing.backend.reports().len() - taken.len(),
    );
    if kills >= 100 {
        assert!(hit.in_a_save > 0 && hit.reports_waiting > 0, "{hit:?}");
        assert!(hit.between_file_and_hash > 0, "{hit:?}");
    }
}
