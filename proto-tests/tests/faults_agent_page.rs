//! Whoever brings the agent's page down leaves the watching alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::process::{Agent, LIMIT};
use serde_json::json;

/// More than the page answers before it must close.
const CLAIMS: usize = 12;

#[test]
fn a_page_that_is_brought_down_closes_and_devices_are_watched_on() {
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

    // tiny_http can never let go of a request that claims so much.
    let address = agent.url.strip_prefix("http://").unwrap();
    for _ in 0..CLAIMS {
        let Ok(mut connection) = TcpStream::connect(address) else {
            break;
        };
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let head = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000000\r\n\r\n";
        let _ = connection.write_all(head.as_bytes());
        let _ = connection.read(&mut [0; 16]);
    }
    process.wait_for_log("It is closed; devices are watched", 1);
    for _ in 0..30 {
        assert!(TcpStream::connect(address).is_err(), "it stays closed");
        std::thread::sleep(Duration::from_millis(100));
    }

    backend.answer_config(watching("After"));
    process.wait_for("it watches what is new", || reported("After").then_some(()));
    assert!(!process.log().contains("💥"), "{}", process.log());
    assert!(agent.process.as_mut().unwrap().is_running());
}
