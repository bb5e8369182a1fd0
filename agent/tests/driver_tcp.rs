//! The driver `tcp` against services on loopback.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it cannot have")]

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use av_agent::driver::{Drivers, probe_once};
use av_agent::finding::Finding;
use av_agent::supervisor::Health;
use av_proto::config::Device;
use av_proto::schedule::zone;
use av_proto::verdict::Status;
use serde_json::{Value, json};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than any machine is slow, where no test waits for its end.
const PATIENT: f64 = 30.0;

/// A service that `play`s each connection.
fn service(mut play: impl FnMut(&mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            play(&mut stream.unwrap());
        }
    });
    address
}

/// Says `text` and stays until the other end has gone.
fn saying(text: &'static [u8]) -> SocketAddr {
    service(move |stream| {
        let _ = stream.write_all(text);
        let mut line = Vec::new();
        let _ = BufReader::new(stream).read_until(b'\0', &mut line);
    })
}

/// Probes with that section of `driver_config`.
fn probe(settings: Value) -> Finding {
    let document = json!({
        "ip": "127.0.0.1", "name": "S", "driver": "tcp", "driver_config": {"tcp": settings},
    });
    let utc = zone("UTC").unwrap();
    let device = Device::parse(&document.to_string(), &utc, &mut Vec::new()).unwrap();
    probe_once(&Drivers::start(&Health::default()), &device)
}

fn assert_found(found: &Finding, status: Status, detail: &str, banner: Value) {
    assert_eq!(found.status, status, "{found:?}");
    assert_eq!(found.detail.as_deref(), Some(detail));
    assert_eq!(found.metrics["tcp_ok"], status == Status::Online);
    assert_eq!(found.metrics["tcp_banner"], banner);
}

#[test]
fn an_open_port_is_online_with_the_time_that_it_took() {
    let port = saying(b"").port();
    let found = probe(json!({"port": port, "timeout_s": PATIENT}));
    assert_found(
        &found,
        Status::Online,
        &format!("port {port} open"),
        Value::Null,
    );
    assert_eq!(found.metrics["tcp_port"], port);
    let took = found.metrics["tcp_connect_ms"].as_f64().unwrap();
    assert!((0.0..PATIENT * 1e3).contains(&took), "{took}");
}

#[test]
fn a_closed_port_is_offline() {
    let port = TcpListener::bind((HOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let found = probe(json!({"port": port, "timeout_s": PATIENT}));
    assert_found(
        &found,
        Status::Offline,
        &format!("port {port} closed"),
        Value::Null,
    );
    assert!(found.metrics["tcp_connect_ms"].is_null());
}

#[test]
fn a_banner_is_looked_for_also_in_pieces() {
    let port = service(|stream| {
        for piece in ["SSH-", "2.0-", "Switch\r\n"] {
            let _ = stream.write_all(piece.as_bytes());
            thread::sleep(Duration::from_millis(50));
        }
    })
    .port();
    let found = probe(json!({"port": port, "timeout_s": PATIENT, "banner": "2.0-Switch"}));
    let open = format!("port {port} open");
    assert_found(&found, Status::Online, &open, json!("SSH-2.0-Switch"));
    let found = probe(json!({"port": port, "timeout_s": PATIENT, "banner_regex": "^SSH-[12]\\.0"}));
    assert_eq!(found.status, Status::Online);
    // It closes after that, which settles what was not there.
    let found = probe(json!({"port": port, "timeout_s": PATIENT, "banner": "FTP"}));
    assert_found(
        &found,
        Status::Offline,
        &format!("port {port} open, but not what is expected: SSH-2.0-Switch"),
        json!("SSH-2.0-Switch"),
    );
}

#[test]
fn what_is_sent_is_answered() {
    let port = service(|stream| {
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        if reader.read_line(&mut line).is_ok() {
            let _ = stream.write_all(format!("you said {line}").as_bytes());
        }
    })
    .port();
    let open = format!("port {port} open");
    let found = probe(json!({"port": port, "timeout_s": PATIENT, "send": "hello\\r\\n"}));
    assert_found(&found, Status::Online, &open, json!("you said hello"));
    let settings = json!({
        "port": port, "timeout_s": PATIENT, "send": "x\\n", "banner": "said x",
    });
    assert_found(&probe(settings), Status::Online, &open, json!("you said x"));
}

#[test]
fn a_silent_service_is_offline_only_where_something_is_expected() {
    let port = saying(b"").port();
    let found = probe(json!({"port": port, "timeout_s": 0.3, "banner": "x"}));
    assert_found(
        &found,
        Status::Offline,
        &format!("port {port} open, but silent"),
        Value::Null,
    );
    let found = probe(json!({"port": port, "timeout_s": 0.3, "send": "x"}));
    assert_found(
        &found,
        Status::Online,
        &format!("port {port} open"),
        Value::Null,
    );
}

#[test]
fn hostile_bytes_are_shown_safely_and_an_endless_banner_is_cut() {
    let port = saying(b"\x1b[2J\xff\x00 \xe2\x80\xae").port();
    let found = probe(json!({"port": port, "timeout_s": 0.5, "banner": "x"}));
    assert_eq!(
        found.metrics["tcp_banner"],
        "\u{fffd}[2J\u{fffd}\u{fffd} \u{fffd}"
    );
    let port = service(|stream| while stream.write_all(&[b'a'; 1024]).is_ok() {}).port();
    let found = probe(json!({"port": port, "timeout_s": PATIENT, "banner": "x"}));
    assert_eq!(found.status, Status::Offline, "{found:?}");
    let shown = found.metrics["tcp_banner"].as_str().unwrap();
    assert_eq!(shown.chars().count(), 120);
}
