//! The agent and a name server that is dead, ill, lying, or back again.
//!
//! The backend has a name, and whoever resolves it is the test: the agent lives
//! in a mount namespace with a resolv.conf of its own and in a network namespace
//! with nothing but the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::faults::full;
use av_proto_tests::namespace::inside;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, LIMIT, free_port, http};
use av_proto_tests::random::Random;
use jiff::Timestamp;
use serde_json::{Value, json};

const NAME: &str = "backend.example";
const SERVER: &str = "127.0.0.53:53";

/// What the name server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Nothing.
    Silence,
    /// It has a failure of its own (SERVFAIL, RFC 1035, 4.1.1).
    Fail,
    /// There is no such name (NXDOMAIN).
    Deny,
    /// Bytes, under the right number or not.
    Garbage,
    /// The name has no address.
    Empty,
    /// The name is 127.0.0.1.
    Answer,
}

/// A name server that does as it is told.
struct NameServer(Arc<Mutex<Does>>);

impl NameServer {
    fn start(does: Does, test: &str) -> Self {
        let socket = UdpSocket::bind(SERVER).unwrap();
        let does = Arc::new(Mutex::new(does));
        let told = Arc::clone(&does);
        let mut random = Random::of_run(test);
        thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let does = *told.lock().unwrap();
                if let Some(answer) = answer(&query[..length], does, &mut random) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self(does)
    }

    fn does(&self, does: Does) {
        *self.0.lock().unwrap() = does;
    }
}

/// The answer to a query, RFC 1035, 4.1.
fn answer(query: &[u8], does: Does, random: &mut Random) -> Option<Vec<u8>> {
    const A: [u8; 2] = [0, 1];
    let name = query.get(12..)?.iter().position(|byte| *byte == 0)?;
    // The name's end, type and class.
    let question = query.get(12..12 + name + 5)?;
    let code = match does {
        Does::Silence => return None,
        Does::Garbage => {
            let mut bytes: Vec<u8> = (0..random.below(300))
                .map(|_| random.below(256) as u8)
                .collect();
            if random.once_in(2) {
                bytes.splice(..bytes.len().min(2), query[..2].iter().copied());
            }
            return Some(bytes);
        }
        Does::Fail => 2,
        Does::Deny => 3,
        Does::Empty | Does::Answer => 0,
    };
    let has_address = does == Does::Answer && question[name + 1..name + 3] == A;
    let mut answer = query[..2].to_vec();
    answer.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(has_address),
        0,
        0,
        0,
        0,
    ]);
    answer.extend(question);
    if has_address {
        // The same name, an address of the internet, for no time at all.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// The resolver's files, in this namespace alone.
fn ask_the_test(folder: &std::path::Path) {
    for (name, content) in [
        ("resolv.conf", "nameserver 127.0.0.53\n"),
        ("nsswitch.conf", "hosts: dns\n"),
    ] {
        let system = format!("/etc/{name}");
        if name == "nsswitch.conf" && !std::path::Path::new(&system).exists() {
            continue;
        }
        let ours = folder.join(name);
        fs::write(&ours, content).unwrap();
        let mounted = Command::new("mount")
            .arg("--bind")
            .arg(&ours)
            .arg(&system)
            .status();
        assert!(mounted.unwrap().success(), "{system}");
    }
}

struct Scene {
    names: NameServer,
    _projector: Projector,
    backend: FakeBackend,
    agent: Agent,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(does: Does, test: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        ask_the_test(dir.path());
        let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
        let address = projector.addr();
        let device = |ip: String, port: u16| {
            json!({
                "ip": ip, "name": "P", "driver": "pjlink",
                "driver_config": {"pjlink": {"port": port}},
                "expectations": {"always_on": true, "alert_after_s": 15},
            })
        };
        // The second is not there: a site with a fault is swept every 15 s.
        let devices = [
            device(address.ip().to_string(), address.port()),
            device("127.0.8.1".to_owned(), free_port()),
        ];
        let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &devices)));
        let url = format!("http://{NAME}:{}", backend.address().port());
        let mut config = first_config(&url);
        config["devices"] = json!(devices);
        config["reporting"] = json!({"ok_interval_s": 60, "ko_interval_s": 15});
        let mut agent = Agent::new(&config);
        let names = NameServer::start(Does::Answer, test);
        agent.start();
        let scene = Self {
            names,
            _projector: projector,
            backend,
            agent,
            _dir: dir,
        };
        // It has heard what time it is: no report waits for that.
        scene.wait_status("a report is taken", |status| {
            (status["report"]["sent"].as_u64()? > 0).then_some(())
        });
        scene.names.does(does);
        scene
    }

    #[track_caller]
    fn wait_status<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let process = self.agent.process.as_ref().unwrap();
        process.wait_for(what, || wanted(&self.agent.get("/api/status")?.json()))
    }

    /// Another sweep, asked for on the page.
    #[track_caller]
    fn sweep(&self) {
        let sweeps = |status: &Value| status["sweep"]["sweeps"].as_u64();
        let before = self.wait_status("a status", sweeps);
        let headers = [("Origin", self.agent.url.as_str())];
        let asked = http("POST", &format!("{}/sweep", self.agent.url), &headers, None).unwrap();
        assert!(asked.status < 400, "{asked:?}");
        self.wait_status("it sweeps", |status| {
            (sweeps(status)? > before).then_some(())
        });
    }

    /// What it says of a name that is not resolved, and why.
    #[track_caller]
    fn says(&self, why: &str) {
        let words = format!("backend not reachable: {NAME}: name not resolved: ");
        let is_said = |said: &Value| {
            said.as_str()
                .is_some_and(|said| said.starts_with(&words) && said.contains(why))
        };
        let page = self.wait_status(&format!("it says {why:?}"), |status| {
            let page = self.agent.get("/")?.body;
            let is_said = is_said(&status["sync"]["last_sync_error"])
                && is_said(&status["report"]["last_error"]);
            is_said.then_some(page)
        });
        assert!(
            page.contains(&format!("{NAME}: name not resolved")),
            "{page}"
        );
        let log = self.agent.process.as_ref().unwrap().log();
        for said in ["Config sync failed: ", "Reports wait: "] {
            assert!(log.contains(&format!("{said}{words}")), "{log}");
        }
    }

    /// The name is resolved again: everything arrives, in order, each report
    /// once and of its own time.
    #[track_caller]
    fn recovers(&self) -> usize {
        self.names.does(Does::Answer);
        // The longest that a report waits for its next try, and more.
        let began = Instant::now();
        while began.elapsed() < LIMIT * 3 {
            let status = self.agent.get("/api/status").unwrap().json();
            if status["report"]["pending"] == 0 && status["sync"]["last_sync_ok"] == true {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.wait_status("nothing waits", |status| {
            (status["report"]["pending"] == 0 && status["report"]["last_error"].is_null())
                .then_some(())
        });
        // After a stop in the middle of a look-up the newest may come again.
        let mut known: BTreeMap<u64, Value> = BTreeMap::new();
        let mut newest = Timestamp::MIN;
        for report in self.backend.reports() {
            let seq = report["report"]["seq"].as_u64().unwrap();
            if let Some(before) = known.get(&seq) {
                assert_eq!(*before, report["devices"], "{seq} is two reports");
                continue;
            }
            assert_eq!(seq, known.len() as u64 + 1, "in order, none missing");
            known.insert(seq, report["devices"].clone());
            let devices = report["devices"].as_array().unwrap().iter();
            let times = devices.map(|device| {
                let at = device["observed_at"].as_str();
                at.unwrap_or_else(|| panic!("no time: {report}"))
                    .parse::<Timestamp>()
                    .unwrap()
            });
            let at = times.max().unwrap();
            assert!(at >= newest, "{at} after {newest}");
            newest = at;
        }
        known.len()
    }
}

#[test]
fn a_silent_name_server_holds_up_no_sweep_no_page_and_no_stop() {
    let test = "a_silent_name_server_holds_up_no_sweep_no_page_and_no_stop";
    if !inside(test, &["--mount", "--net"], "ip link set lo up") {
        return;
    }
    let mut scene = Scene::new(Does::Silence, test);
    // A sweep at the start, and at its interval those after it, while somebody
    // asks for the name all the time.
    let sweeps = if full() { 20 } else { 2 };
    let (mut swept, mut slowest) = (0, Duration::ZERO);
    let before = scene.wait_status("a status", |status| status["sweep"]["sweeps"].as_u64());
    let began = Instant::now();
    while swept < sweeps {
        assert!(began.elapsed() < LIMIT * 10, "{swept} sweeps");
        let asked = Instant::now();
        let status = scene.agent.get("/api/status").unwrap().json();
        slowest = slowest.max(asked.elapsed());
        swept = status["sweep"]["sweeps"].as_u64().unwrap() - before;
        thread::sleep(Duration::from_millis(100));
    }
    let took = began.elapsed();
    scene.says("");
    let process = scene.agent.process.as_mut().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let threads = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    let threads: usize = threads.unwrap().trim().parse().unwrap();
    assert!(threads < 30, "{threads} threads");
    // In the middle of a look-up, which takes ten seconds.
    let told = Instant::now();
    assert!(process.terminate().success(), "{}", process.log());
    let stopped = told.elapsed();
    assert!(stopped < Duration::from_secs(8), "{stopped:?}");
    assert!(!process.log().contains("💥"), "{}", process.log());
    scene.agent.start();
    scene.wait_status("it is there again", |_| Some(()));
    let reports = scene.recovers();
    println!(
        "{swept} sweeps in {took:?}, {threads} threads, the page took at most {slowest:?}, \
         stopped in {stopped:?}; {reports} reports arrived then"
    );
}

#[test]
fn whatever_the_name_server_says_it_is_said_and_all_arrives_later() {
    let test = "whatever_the_name_server_says_it_is_said_and_all_arrives_later";
    if !inside(test, &["--mount", "--net"], "ip link set lo up") {
        return;
    }
    let scene = Scene::new(Does::Fail, test);
    let rounds = if full() { 5 } else { 1 };
    for _ in 0..rounds {
        for does in [Does::Fail, Does::Deny, Does::Empty, Does::Garbage] {
            scene.names.does(does);
            scene.sweep();
            scene.says(match does {
                Does::Deny => "Name or service not known",
                Does::Empty => "No address associated with hostname",
                _ => "",
            });
            scene.sweep();
            if full() {
                scene.recovers();
            }
        }
        scene.recovers();
    }
    let reports = scene.recovers();
    let log = scene.agent.process.as_ref().unwrap().log();
    assert!(
        !log.contains("💥") && !log.contains("has not moved"),
        "{log}"
    );
    println!("4 kinds, {rounds} times: {reports} reports arrived then");
}
