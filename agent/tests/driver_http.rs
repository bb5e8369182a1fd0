//! The HTTP driver against hand-written servers on loopback, in clear and
//! over TLS.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use av_agent::driver::{Drivers, probe_once};
use av_agent::finding::Finding;
use av_agent::supervisor::Health;
use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::verdict::{Expectations, Status};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\nSystem ready";

/// Answers each connection with `serve`, which gets the request; what was
/// asked comes out of the channel.
fn server(
    serve: impl Fn(&mut dyn Write) + Send + 'static,
    tls: Option<ServerConfig>,
) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, requests) = channel();
    let tls = tls.map(Arc::new);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            match &tls {
                None => answer(&mut stream, &serve, &heard),
                Some(config) => {
                    let session = ServerConnection::new(Arc::clone(config)).unwrap();
                    let mut stream = StreamOwned::new(session, stream);
                    answer(&mut stream, &serve, &heard);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        }
    });
    (address, requests)
}

fn answer(
    stream: &mut (impl Read + Write),
    serve: &impl Fn(&mut dyn Write),
    heard: &std::sync::mpsc::Sender<String>,
) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => break,
        }
    }
    let _ = heard.send(String::from_utf8(request).unwrap());
    serve(stream);
    let _ = stream.flush();
}

/// A server's TLS with a certificate that ends in so many days.
fn certificate(days: i64) -> ServerConfig {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["projector.example".to_owned()]).unwrap();
    let end = jiff::Timestamp::now().as_second() + days * 86_400 + 3_600;
    params.not_before = time::OffsetDateTime::from_unix_timestamp(end - 100 * 86_400).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(end).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap()
}

fn probe(address: SocketAddr, mut section: Value) -> Finding {
    section["port"] = json!(address.port());
    if section["timeout_s"].is_null() {
        // Longer than any machine is slow, where no test waits for its end.
        section["timeout_s"] = json!(20);
    }
    let sections = serde_json::from_value(json!({ "http": section })).unwrap();
    let device = Device {
        ip: address.ip(),
        ip_text: address.ip().to_string(),
        name: "P".to_owned(),
        building: String::new(),
        floor: String::new(),
        room: String::new(),
        device_type: "projector".to_owned(),
        driver: "http".to_owned(),
        settings: DriverSettings::parse("http", &sections).unwrap(),
        interval: None,
        expectations: Expectations::default(),
        unknown: [].into(),
        echoed: None,
    };
    let found = probe_once(&Drivers::start(&Health::default()), &device);
    assert_eq!(found.metrics["http_port"], address.port());
    assert_eq!(found.metrics["http_ok"], found.status == Status::Online);
    found
}

fn told(found: &Finding) -> (Status, Option<&str>, &Value) {
    (
        found.status,
        found.detail.as_deref(),
        &found.metrics["http_status"],
    )
}

#[test]
fn a_server_that_answers_as_expected_is_online() {
    let (address, requests) = server(|out| out.write_all(OK).unwrap(), None);
    let found = probe(address, json!({}));
    assert_eq!(told(&found), (Status::Online, None, &json!(200)));
    assert!(found.metrics["http_response_ms"].as_f64().unwrap() > 0.0);
    assert!(!found.metrics.contains_key("http_tls_days_left"));
    let request = requests.recv().unwrap();
    let head = format!("GET / HTTP/1.0\r\nHost: {address}\r\nUser-Agent: av-agent/");
    assert!(request.starts_with(&head), "{request}");

    let asked = json!({"path": "/status?x=1", "host": "projector.example", "body_match": "ready"});
    let found = probe(address, asked);
    assert_eq!(told(&found), (Status::Online, None, &json!(200)));
    let request = requests.recv().unwrap();
    let head = "GET /status?x=1 HTTP/1.0\r\nHost: projector.example\r\n";
    assert!(request.starts_with(head), "{request}");
}

#[test]
fn what_is_not_expected_is_offline_and_said() {
    let (address, _requests) = server(
        |out| {
            out.write_all(b"HTTP/1.1 500 Oh\r\n\r\nbroken").unwrap();
        },
        None,
    );
    for (section, status, detail) in [
        (
            json!({}),
            Status::Offline,
            Some("answers with HTTP status 500"),
        ),
        (json!({"expect_status": ["5xx"]}), Status::Online, None),
        (
            json!({"expect_status": [500], "body_match": "ready"}),
            Status::Offline,
            Some("the answer does not hold \"ready\""),
        ),
        (
            json!({"expect_status": [500], "body_match": "broken"}),
            Status::Online,
            None,
        ),
    ] {
        let found = probe(address, section);
        assert_eq!(told(&found), (status, detail, &json!(500)));
    }
}

#[test]
fn an_answer_in_pieces_is_put_together() {
    let (address, _requests) = server(
        |out| {
            for byte in OK {
                out.write_all(&[*byte]).unwrap();
                out.flush().unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        },
        None,
    );
    let found = probe(address, json!({"body_match": "System ready"}));
    assert_eq!(told(&found), (Status::Online, None, &json!(200)));
}

#[test]
fn what_is_no_answer_is_offline() {
    for (says, hangs, detail) in [
        (
            &b"PJLINK 0\r"[..],
            false,
            "not HTTP: \"PJLINK 0\" (invalid HTTP version)",
        ),
        (b"", false, "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\n", false, "the answer ends in its head"),
        (
            b"HTTP/1.1 200 OK\r\n",
            true,
            "the answer did not end in time",
        ),
        (b"", true, "open, but no answer in time"),
    ] {
        let (address, _requests) = server(
            move |out| {
                let _ = out.write_all(says);
                if hangs {
                    let _ = out.flush();
                    thread::sleep(Duration::from_secs(3));
                }
            },
            None,
        );
        let limit = if hangs { json!(0.5) } else { Value::Null };
        let found = probe(address, json!({ "timeout_s": limit }));
        assert_eq!(
            (found.status, &found.metrics["http_status"]),
            (Status::Offline, &Value::Null)
        );
        assert!(
            found.detail.as_ref().unwrap().ends_with(detail),
            "{found:?}"
        );
    }

    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let found = probe(closed, json!({}));
    let detail = format!("port {} closed", closed.port());
    assert_eq!(
        told(&found),
        (Status::Offline, Some(&*detail), &Value::Null)
    );
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let (address, _requests) = server(
        |out| {
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while out.write_all(&[b'x'; 4096]).is_ok() {}
        },
        None,
    );
    let found = probe(address, json!({"body_match": "ready"}));
    assert_eq!(found.detail.unwrap(), "the answer does not hold \"ready\"");
}

#[test]
fn a_certificate_s_end_is_told() {
    for (days, detail) in [
        (60, None),
        (13, Some("the certificate expires in 13 days")),
        (0, Some("the certificate expires within a day")),
        (-3, Some("the certificate has expired")),
    ] {
        let (address, requests) = server(|out| out.write_all(OK).unwrap(), Some(certificate(days)));
        let found = probe(address, json!({"tls": true, "body_match": "ready"}));
        assert_eq!(told(&found), (Status::Online, detail, &json!(200)));
        assert_eq!(found.metrics["http_tls_days_left"], json!(days as f64));
        assert!(requests.recv().unwrap().starts_with("GET / HTTP/1.0\r\n"));
    }
}

#[test]
fn a_server_without_tls_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = listener.local_addr().unwrap();
    let found = probe(deaf, json!({"tls": true, "timeout_s": 0.5}));
    let detail = format!("port {} open, but no TLS handshake in time", deaf.port());
    assert_eq!(found.detail.as_deref(), Some(&*detail));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let greets = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"220 mail.example ready\r\n");
        }
    });
    let found = probe(greets, json!({"tls": true}));
    assert_eq!(found.status, Status::Offline);
    assert!(
        found.detail.as_ref().unwrap().starts_with("TLS: "),
        "{found:?}"
    );
}
