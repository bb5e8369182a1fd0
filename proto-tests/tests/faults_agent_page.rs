//! What is asked of the agent's page leaves the watching alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::process::{Agent, LIMIT};
use serde_json::json;

/// Requests that claim a body past all memory, beside connections that say
/// nothing, more than the page takes.
const CLAIMS: usize = 300;
const SILENT: usize = 60;

fn ask(address: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = connection.read_to_string(&mut text);
    text
}

#[test]
fn the_page_answers_and_devices_are_watched_whatever_is_asked() {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = here.local_addr().unwrap().port();
    let watching = |name: &str| {
        let device = json!({
            "ip": "127.0.0.1", "name": name, "driver": "tcp", "type": "display",
            "driver_config": {"tcp": {"port": port, "timeout_s": 2}},
        });
        ConfigAnswer::Site(site("Paris", &[device]))
    };
    let backend = FakeBackend::start(watching("Before"));
    let reported = |name: &str| {
        let reports = backend.reports();
        let mut devices = reports
            .iter()
            .flat_map(|report| report["devices"].as_array().unwrap());
        devices.any(|device| device["name"] == name)
    };
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for("it reports", || reported("Before").then_some(()));

    let address = agent.url.strip_prefix("http://").unwrap();
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for number in 0..CLAIMS {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let head = "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000000\r\n\r\n";
        let _ = connection.write_all(head.as_bytes());
        let _ = connection.read(&mut [0; 16]);
        if number % 50 == 0 {
            let text = ask(address, health);
            assert!(text.starts_with("HTTP/1.1 200 "), "{number}: {text}");
        }
    }
    drop(silent);
    for path in ["/", "/api/status", "/metrics"] {
        let text = ask(address, &health.replace("/health", path));
        assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
    }

    backend.answer_config(watching("After"));
    process.wait_for("it watches what is new", || reported("After").then_some(()));
    assert!(!process.log().contains("💥"), "{}", process.log());
    assert!(agent.process.as_mut().unwrap().is_running());
}

/// A page of a stranger that gave its own name this address (DNS rebinding)
/// reads nothing and sweeps nothing; and there is a pause between two sweeps.
#[test]
fn a_strange_name_is_refused_and_sweeps_have_a_pause() {
    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.set("AV_PAGE_PAUSE_S", "15");
    agent.start();
    let process = agent.process.as_ref().unwrap();
    let address = agent.url.strip_prefix("http://").unwrap();
    process.wait_for("it listens", || TcpStream::connect(address).ok());
    let request = |method: &str, path: &str, host: &str| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        ask(address, &head)
    };
    for path in ["/", "/api/status", "/metrics", "/health"] {
        let text = request("GET", path, "evil.example:8080");
        assert!(text.starts_with("HTTP/1.1 421 "), "{path}: {text}");
        assert!(text.contains("AV_PAGE_HOSTS"), "{text}");
        let text = request("GET", path, "localhost:8080");
        assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
    }
    for path in ["/sweep", "/sync"] {
        let strange = request("POST", path, "evil.example");
        assert!(strange.starts_with("HTTP/1.1 421 "), "{strange}");
        let first = request("POST", path, "localhost");
        assert!(first.starts_with("HTTP/1.1 202 "), "{first}");
        let second = request("POST", path, "localhost");
        assert!(second.starts_with("HTTP/1.1 429 "), "{second}");
        assert!(second.contains("\r\nRetry-After: 1"), "{second}");
        assert!(second.contains("ask again in"), "{second}");
    }
}
