//! The agent against backends that are broken, hostile or very large.
//!
//! Whatever comes: no panic, what is watched stays watched, the file on disk
//! stays the last good one, and the page says what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use av_agent::config::ConfigStore;
use av_proto::hash::{HashedDevice, HashedSite};
use av_proto_tests::fake_backend::{
    ConfigAnswer, FakeBackend, IngestAnswer, TOKEN, first_config, site,
};
use av_proto_tests::faults::count;
use av_proto_tests::process::{Agent, http};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Far above what the agent needs for any of this in an unoptimized build, and
/// far below what would be taken by an answer that is read without a bound.
const MEMORY_MAX_KIB: u64 = 400 << 10;

/// A service that answers at this address, for as long as the test runs.
fn service(ip: [u8; 4]) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from((ip, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || for _ in listener.incoming() {});
    address
}

fn device(address: SocketAddr, name: &str) -> Value {
    json!({
        "ip": address.ip().to_string(), "name": name, "driver": "tcp", "type": "display",
        "driver_config": {"tcp": {"port": address.port(), "timeout_s": 2}},
        "expectations": {"always_on": true, "alert_after_s": 15, "schedule": {
            "timezone": "Europe/Paris",
            "rules": [{"days": ["mon", "tue"], "start": "08:00", "end": "18:00"}]}},
    })
}

#[track_caller]
fn wait_status(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    agent.process.as_ref().unwrap().wait_for(what, || {
        Some(agent.get("/api/status")?.json()).filter(&wanted)
    })
}

#[track_caller]
fn wait_applied(agent: &Agent, site: &Value) -> Value {
    wait_status(agent, "the site is applied", |status| {
        status["sync"]["last_sync_ok"] == true
            && status["sync"]["current_hash"] == site["config_hash"]
    })
}

/// The most memory that the process ever had, in KiB.
fn memory_kib(agent: &Agent) -> u64 {
    let id = agent.process.as_ref().unwrap().id();
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[track_caller]
fn assert_unharmed(agent: &Agent) {
    let log = agent.process.as_ref().unwrap().log();
    assert!(!log.contains("💥"), "{log}");
    assert!(!log.contains(TOKEN), "the token is in the log");
    let memory = memory_kib(agent);
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn with_head(head: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(body);
    answer
}

#[test]
fn slow_endless_and_packed_answers_change_nothing() {
    let good = site("Paris", &[device(service([127, 0, 2, 1]), "Écran")]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let agent = {
        let mut agent = Agent::new(&first_config(&backend.url()));
        agent.start();
        agent
    };
    wait_applied(&agent, &good);
    wait_status(&agent, "it is watched", |status| {
        status["devices"][0]["verdict"] == "ok"
    });
    let file = fs::read(agent.config_file()).unwrap();

    // Spaces around a configuration, packed twice: 300 bytes or so.
    let other = site("Lyon", &[]).to_string();
    let bomb = gzip(&gzip(&[other.as_bytes(), &vec![b' '; 64 << 20]].concat()));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let to_itself = format!("{}/config", backend.url());
    let endless = |head: &'static str, again: &'static str| ConfigAnswer::Endless { head, again };
    let answers = [
        (
            "packed",
            ConfigAnswer::Bytes(with_head("Content-Encoding: gzip\r\n", &bomb)),
        ),
        (
            "packed twice",
            ConfigAnswer::Bytes(with_head("Content-Encoding: gzip, gzip\r\n", &bomb)),
        ),
        (
            "no end",
            endless(
                "HTTP/1.1 200 OK\r\n\r\n{\"site_name\":\"",
                "xxxxxxxxxxxxxxxx",
            ),
        ),
        (
            "chunks without end",
            endless(chunked, "10\r\nxxxxxxxxxxxxxxxx\r\n"),
        ),
        (
            "a chunk of every size",
            endless(chunked, "ffffffffffffffff\r\nx"),
        ),
        (
            "extensions of chunks",
            endless(chunked, "1;a=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
        ),
        (
            "headers without end",
            endless("HTTP/1.1 200 OK\r\n", "X-Again: and again\r\n"),
        ),
        (
            "a header without end",
            endless("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxx"),
        ),
        (
            "a status without end",
            endless("HTTP/1.1 200 ", "OKOKOKOKOKOK"),
        ),
        (
            "wait, and wait",
            endless("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ),
        (
            "no HTTP",
            ConfigAnswer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ),
        ("nothing", ConfigAnswer::Bytes(Vec::new())),
        (
            "two lengths",
            ConfigAnswer::Bytes(with_head("Content-Length: 3\r\n", b"{}")),
        ),
        (
            "less than no length",
            ConfigAnswer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}".to_vec()),
        ),
        (
            "a length beyond all",
            ConfigAnswer::Bytes(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}".to_vec(),
            ),
        ),
        (
            "a length that is a lie",
            ConfigAnswer::Bytes(
                b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n{}".to_vec(),
            ),
        ),
        ("zeros", ConfigAnswer::Bytes(with_head("", &[0; 4096]))),
        ("a redirect to itself", ConfigAnswer::Redirect(to_itself)),
        (
            "a redirect to a file",
            ConfigAnswer::Redirect("file:///etc/passwd".to_owned()),
        ),
        (
            "no change that we know",
            ConfigAnswer::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ),
        (
            "deep",
            ConfigAnswer::Raw([vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat()),
        ),
        (
            "deep in a device",
            ConfigAnswer::Raw(deep_in_a_device(100_000)),
        ),
    ];
    let process = agent.process.as_ref().unwrap();
    for (what, answer) in answers {
        let polls = backend.polls().len();
        let done = process.log().matches("🔄 Fetching").count();
        backend.answer_config(answer);
        // One that began before the change, and one whole after it.
        process.wait_for(&format!("{what}: it is polled"), || {
            let _ = http("POST", &format!("{}/sync", agent.url), &[], Some(b""));
            (backend.polls().len() > polls + 1
                && process.log().matches("🔄 Fetching").count() > done + 1)
                .then_some(())
        });
        let status = wait_status(&agent, what, |status| !status["now"].is_null());
        assert_eq!(
            status["sync"]["current_hash"], good["config_hash"],
            "{what}"
        );
        assert_eq!(status["devices"][0]["verdict"], "ok", "{what}");
        assert_eq!(fs::read(agent.config_file()).unwrap(), file, "{what}");
        let error = status["sync"]["last_sync_error"]
            .as_str()
            .unwrap_or_default();
        println!("{what}: {error}");
        assert_eq!(agent.get("/").unwrap().status, 200, "{what}");
        assert_unharmed(&agent);
    }

    // A good answer that comes byte by byte is a good answer.
    let lyon = site("Lyon", &[device(service([127, 0, 2, 2]), "Lent")]);
    backend.answer_config(ConfigAnswer::Slowly(lyon.clone()));
    wait_applied(&agent, &lyon);
    println!("at most {} KiB", memory_kib(&agent));
}

fn deep_in_a_device(levels: usize) -> Vec<u8> {
    let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let text = site("Lyon", &[device(([127, 0, 0, 1], 9).into(), "x")]).to_string();
    text.replacen("\"tcp\":{", &format!("\"tcp\":{{\"deep\":{deep},"), 1)
        .into_bytes()
}

#[test]
fn answers_to_reports_that_mean_nothing_lose_no_report() {
    let first = device(service([127, 0, 3, 1]), "0");
    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[first])));
    let answers = [
        IngestAnswer::Says("{\"ok\":\"yes\"}"),
        IngestAnswer::Says("{\"ok\":false}"),
        IngestAnswer::Says("[true]"),
        IngestAnswer::Says("[true,false]"),
        IngestAnswer::Says("null"),
        IngestAnswer::Says("{\"ok\":{}}"),
        IngestAnswer::Says(""),
        IngestAnswer::Endless,
        IngestAnswer::Status(301),
        IngestAnswer::Status(307),
        IngestAnswer::Status(429),
        IngestAnswer::Status(500),
    ];
    backend.answer_ingest(answers[0]);
    let mut agent = Agent::new(&first_config(&backend.url()));
    for (round, answer) in answers.into_iter().enumerate() {
        backend.answer_ingest(answer);
        let posts = || {
            let seen = backend.seen();
            seen.iter().filter(|s| s.line == "POST /ingest").count()
        };
        let before = posts();
        // The back-off of a fresh start is short.
        agent.start();
        let process = agent.process.as_ref().unwrap();
        process.wait_for("a report is tried", || (posts() > before).then_some(()));
        process.wait_for_log("Reports wait", 1);
        let status = wait_status(&agent, "it is kept", |status| {
            status["report"]["pending"].as_u64() > Some(0)
        });
        assert_eq!(status["report"]["refused"], 0, "round {round}");
        assert_unharmed(&agent);
    }
    backend.answer_ingest(IngestAnswer::Take);
    agent.start();
    wait_status(&agent, "all are sent", |status| {
        status["report"]["pending"] == 0 && status["report"]["sent"].as_u64() > Some(0)
    });
    let numbers: Vec<u64> = backend
        .reports()
        .iter()
        .map(|report| report["report"]["seq"].as_u64().unwrap())
        .collect();
    let count = u64::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
}

/// Every place in a document, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let into = |found: &mut Vec<String>, key: &str, value: &Value| {
        let place = format!("{at}/{key}");
        places(value, &place, found);
        found.push(place);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(k, v)| into(found, k, v)),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                into(found, &i.to_string(), item);
            }
        }
        _ => {}
    }
}

/// The document under the hash that belongs to it, where the fields of which
/// that is made have their types still.
fn hashed(mut document: Value) -> Option<Value> {
    let text = |value: &Value, key: &str| Some(value[key].as_str()?.to_owned());
    let number = |value: &Value| value.as_i64();
    let mut owned = Vec::new();
    for device in document["devices"].as_array()? {
        let mut texts = Vec::new();
        for key in ["ip", "name", "building", "floor", "room", "type", "driver"] {
            texts.push(text(device, key)?);
        }
        for key in ["driver_config", "expectations"] {
            texts.push(device[key].to_string());
        }
        owned.push(texts);
    }
    let site = HashedSite {
        site_name: document["site_name"].as_str()?,
        timezone: document["timezone"].as_str()?,
        doubt_after_days: number(&document["doubt_after_days"])?,
        ok_interval_s: number(&document["reporting"]["ok_interval_s"])?,
        ko_interval_s: number(&document["reporting"]["ko_interval_s"])?,
        devices: owned
            .iter()
            .map(|texts| HashedDevice {
                ip: &texts[0],
                name: &texts[1],
                building: &texts[2],
                floor: &texts[3],
                room: &texts[4],
                device_type: &texts[5],
                driver: &texts[6],
                driver_config: Some(&texts[7]),
                expectations: Some(&texts[8]),
            })
            .collect(),
    };
    let hash = site.hash().ok()?;
    document["config_hash"] = json!(hash.as_str());
    Some(document)
}

#[test]
fn a_wrong_type_in_any_field_takes_nothing_else_with_it() {
    let good = device(service([127, 0, 4, 1]), "Bon");
    let mut changed = device(service([127, 0, 4, 2]), "Autre");
    changed["driver_config"]["tcp"]["send"] = json!("hello");
    changed["driver_config"]["tcp"]["banner"] = json!("x");
    changed["driver_config"]["interval_s"] = json!(60);
    let base = site("Paris", &[good, changed]);
    let backend = FakeBackend::start(ConfigAnswer::Site(base.clone()));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    wait_applied(&agent, &base);

    let mut all = Vec::new();
    places(&base, "", &mut all);
    // What is done to one device is done to the second: the first must live.
    all.retain(|place| !place.starts_with("/devices/0"));
    let wrongs = [
        json!(null),
        json!(7),
        json!("x"),
        json!([null]),
        json!({"x": []}),
        json!(true),
        json!(-1.5e300),
    ];
    let each = count("AV_FAULT_TYPES", 1).min(wrongs.len());
    let (mut refused, mut set_aside, mut taken) = (0, 0, 0);
    for (turn, place) in all.iter().enumerate() {
        for wrong in wrongs.iter().cycle().skip(turn).take(each) {
            let mut document = base.clone();
            let slot = document.pointer_mut(place).unwrap();
            let same_type = std::mem::discriminant(slot) == std::mem::discriminant(wrong);
            *slot = wrong.clone();
            let what = format!("{place} is {wrong}");
            let document = match hashed(document.clone()) {
                Some(hashed) if place != "/config_hash" => hashed,
                _ => {
                    let mut document = document;
                    if place != "/config_hash" {
                        document["config_hash"] = json!("0123456789abcdef0123456789abcdef");
                    }
                    document
                }
            };
            backend.answer_config(ConfigAnswer::Raw(document.to_string().into_bytes()));
            let polls = backend.polls().len();
            let process = agent.process.as_ref().unwrap();
            let _ = http("POST", &format!("{}/sync", agent.url), &[], Some(b""));
            // Of a poll that began after the change; its own outcome is shown
            // before the next one begins.
            let status = process.wait_for(&what, || {
                if backend.polls().len() <= polls + 1 {
                    let _ = http("POST", &format!("{}/sync", agent.url), &[], Some(b""));
                    return None;
                }
                Some(agent.get("/api/status")?.json())
            });
            if place != "/devices" {
                wait_status(&agent, &format!("{what}: the other is watched"), |status| {
                    let devices = status["devices"].as_array().unwrap();
                    devices.iter().any(|device| device["name"] == "Bon")
                });
            }
            let error = status["sync"]["last_sync_error"].as_str();
            let rejected = &status["rejected_devices"];
            match (error, rejected.as_array().unwrap().len()) {
                (Some(error), _) => {
                    refused += 1;
                    assert!(error.contains(": "), "{what}: {error}");
                }
                (None, 0) => {
                    taken += 1;
                    // Null is no value, and what is not read has no type.
                    let is_read = !place.ends_with("/snmp") && !place.ends_with("/pjlink");
                    let is_wrong = !same_type && !wrong.is_null() && is_read;
                    assert!(!is_wrong, "{what} was taken");
                }
                (None, _) => {
                    set_aside += 1;
                    // In the place of all devices there is only one.
                    let which = usize::from(place != "/devices");
                    assert_eq!(rejected[0]["index"], which, "{what}: {rejected}");
                    assert!(rejected[0]["errors"][0]["field"].is_string(), "{what}");
                }
            }
            assert!(!agent.get("/").unwrap().body.is_empty());
            // Whatever runs, what is on disk is whole.
            let loaded = ConfigStore::new(&agent.config_file()).load();
            assert_eq!(loaded.unwrap().fallback, None, "{what}");
            // From the beginning again.
            backend.answer_config(ConfigAnswer::Site(base.clone()));
            let _ = http("POST", &format!("{}/sync", agent.url), &[], Some(b""));
            wait_applied(&agent, &base);
        }
    }
    assert_unharmed(&agent);
    println!(
        "{} fields: {refused} refused, {set_aside} devices set aside, {taken} taken",
        all.len()
    );
    assert!(refused > 0 && set_aside > 0);
}

#[test]
fn ten_thousand_devices_are_watched() {
    const COUNT: usize = 10_000;
    // Nobody listens there: each refuses at once.
    let devices: Vec<Value> = (0..COUNT)
        .map(|i| {
            let ip = [127, 1, (i / 250) as u8, (i % 250 + 1) as u8];
            let mut device = device(SocketAddr::from((ip, 9)), &format!("Écran {i}"));
            device["room"] = json!(format!("Salle {}", i / 10));
            device
        })
        .collect();
    let big = site("Stade", &devices);
    let backend = FakeBackend::start(ConfigAnswer::Site(big.clone()));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.set("CONFIG_SYNC_INTERVAL_MIN", "60");
    agent.start();
    wait_applied(&agent, &big);
    let process = agent.process.as_ref().unwrap();
    let reported = process.wait_for("all are reported", || {
        let reports = backend.reports();
        let ips: BTreeSet<String> = reports
            .iter()
            .flat_map(|report| report["devices"].as_array().unwrap())
            .map(|device| device["ip"].as_str().unwrap().to_owned())
            .collect();
        (ips.len() == COUNT).then_some(reports)
    });
    for report in &reported {
        assert!(report["devices"].as_array().unwrap().len() <= 500);
    }
    for path in ["/", "/api/status", "/metrics"] {
        let answer = agent.get(path).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.matches("127.1.39.250").count() > 0, "{path}");
    }
    assert_unharmed(&agent);
    println!(
        "{} bytes of configuration, at most {} KiB of memory",
        big.to_string().len(),
        memory_kib(&agent)
    );
}

#[test]
fn hostile_names_and_repeated_addresses_are_harmless() {
    const NAMES: [&str; 8] = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "a\nb\r\n[2026-01-01T00:00:00Z ERROR] forged",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "\u{202e}gnp.exe\u{2066}\u{200f}",
        "{{7*7}} ${7*7} <%= 7 %>",
        "a\u{0}b\u{85}\u{2028}c",
        "</style></title></table><base href=//evil.example>",
    ];
    let address = service([127, 0, 5, 1]);
    let long = "é".repeat(20_000);
    let mut devices = Vec::new();
    for (i, name) in NAMES.iter().copied().chain([long.as_str()]).enumerate() {
        let at = SocketAddr::from(([127, 0, 5, 10 + i as u8], address.port()));
        let mut hostile = device(at, name);
        for field in ["building", "floor", "room", "type"] {
            hostile[field] = json!(name);
        }
        devices.push(hostile.clone());
        // The same in what is set aside, and in what the errors quote.
        hostile["ip"] = json!(name);
        devices.push(hostile.clone());
        hostile["ip"] = json!(format!("127.0.6.{}", 10 + i));
        hostile["driver"] = json!(name);
        devices.push(hostile.clone());
        hostile["driver"] = json!("tcp");
        hostile["expectations"]["schedule"]["timezone"] = json!(name);
        hostile["ip"] = json!(format!("127.0.7.{}", 10 + i));
        devices.push(hostile);
    }
    // The same address twice, thrice, and in another spelling.
    devices.push(device(address, "premier"));
    for _ in 0..2 {
        devices.push(device(address, "double"));
    }
    devices.push(device(([127, 0, 5, 2], address.port()).into(), "six"));
    let last = devices.len() - 1;
    devices[last]["ip"] = json!("::1");
    let mut again = devices[last].clone();
    again["ip"] = json!("0:0:0:0:0:0:0:1");
    devices.push(again);
    let hostile = site(NAMES[0], &devices);
    let backend = FakeBackend::start(ConfigAnswer::Site(hostile.clone()));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    wait_applied(&agent, &hostile);
    let status = wait_status(&agent, "they are swept", |status| {
        let devices = status["devices"].as_array().unwrap();
        ["127.0.5.1", "::1", "127.0.5.10", "127.0.7.18"]
            .iter()
            .all(|ip| devices.iter().any(|device| device["ip"] == *ip))
    });
    let watched: Vec<&str> = status["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["ip"].as_str().unwrap())
        .collect();
    for ip in ["127.0.5.1", "::1"] {
        assert_eq!(watched.iter().filter(|w| **w == ip).count(), 1, "{ip}");
    }
    let twice = status["rejected_devices"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rejected| {
            let problem = rejected["errors"][0]["problem"].as_str();
            problem.unwrap().contains("is that of devices[")
        })
        .count();
    assert_eq!(twice, 3);
    // And an error of the backend's own that is hostile.
    for name in NAMES {
        let error = json!({ "error": name }).to_string();
        let head = "Content-Type: application/json\r\n";
        let answer = with_head(head, error.as_bytes());
        let answer = String::from_utf8(answer)
            .unwrap()
            .replacen("200 OK", "500 Broken", 1);
        backend.answer_config(ConfigAnswer::Bytes(answer.into_bytes()));
        wait_status(&agent, "the error is shown", |status| {
            let error = status["sync"]["last_sync_error"].as_str();
            error.is_some_and(|error| error.contains("500"))
        });
        check_page(&agent.get("/").unwrap().body);
        backend.answer_config(ConfigAnswer::Site(hostile.clone()));
        wait_applied(&agent, &hostile);
    }
    let answer = agent.get("/").unwrap();
    assert!(answer.headers["content-security-policy"].contains("default-src 'none'"));
    check_page(&answer.body);
    // Each line of the metrics is a comment or a sample.
    let metrics = agent.get("/metrics").unwrap().body;
    for line in metrics.split('\n').filter(|line| !line.is_empty()) {
        assert!(
            line.starts_with("# ") || line.starts_with("av_"),
            "{line:?}"
        );
    }
    let process = agent.process.as_ref().unwrap();
    let log = process.log();
    for line in log.lines() {
        assert!(
            !line.starts_with("[2026-01-01T00:00:00Z ERROR] forged"),
            "{line}"
        );
        let short: String = line.chars().take(200).collect();
        assert!(
            line.chars().count() < 2000,
            "a line of {}: {short}",
            line.len()
        );
    }
    for mark in ['\u{1b}', '\u{7}', '\u{202e}', '\u{0}', '\u{2028}'] {
        assert!(!log.contains(mark), "{mark:?} in the log");
    }
    assert_unharmed(&agent);
}

/// Nothing of a name is markup, a control or a mark that turns the writing.
#[track_caller]
fn check_page(page: &str) {
    for bad in [
        "<script",
        "<img",
        "<base",
        "</title></table>",
        "onerror=alert(1)>",
    ] {
        assert!(!page.contains(bad), "{bad} in the page");
    }
    let mark = page.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || ['\u{202e}', '\u{2066}', '\u{200f}', '\u{2028}'].contains(c)
    });
    assert_eq!(mark, None);
    assert_eq!(page.matches("</title>").count(), 1);
    assert_eq!(page.matches("</html>").count(), 1);
}
