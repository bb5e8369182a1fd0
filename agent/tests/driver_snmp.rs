//! The SNMP driver against a real net-snmp agent, and against agents that no
//! standard would have.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod snmp_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use av_agent::finding::Finding;
use av_proto::verdict::Status;
use serde_json::{Value, json};

use snmp_support::{Snmpd, driver, probe, settings};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const COMMUNITY: &str = "c0mmunity-Word";
/// Longer than any machine is slow, where no test waits for its end.
const PATIENT: Duration = Duration::from_secs(20);
/// For tests that wait for its end.
const HASTY: Duration = Duration::from_millis(300);

fn ask(address: SocketAddr, community: &str, timeout: Duration, retries: u8) -> Finding {
    let settings = settings(&json!({
        "community": community,
        "port": address.port(),
        "timeout_s": timeout.as_secs_f64(),
        "retries": retries,
    }));
    let found = probe(&driver(), address.ip(), &settings);
    assert!(
        !format!("{found:?}").contains(community),
        "the community is shown"
    );
    found
}

fn assert_no_answer(found: &Finding, detail: &str) {
    assert_eq!(
        (found.status, found.detail.as_deref()),
        (Status::Offline, Some(detail))
    );
    assert_eq!(found.metrics["snmp_ok"], false);
    assert!(found.metrics["sys_descr"].is_null());
    assert!(found.metrics["sys_uptime"].is_null());
}

#[test]
fn a_real_agent() {
    let config = format!(
        "rocommunity {COMMUNITY} 127.0.0.1\n\
         rocommunity6 {COMMUNITY} ::1\n\
         view interfaces included .1.3.6.1.2.1.2\n\
         rocommunity restricted 127.0.0.1 -V interfaces\n\
         sysDescr Caf"
    );
    // Latin 1, as an old device would have it.
    let snmpd = Snmpd::start(&[config.as_bytes(), b"\xe9 display, version 1\n"].concat());
    let mut uptimes = Vec::new();
    for address in [snmpd.v4, snmpd.v6] {
        let found = ask(address, COMMUNITY, PATIENT, 1);
        assert_eq!(found.status, Status::Online, "{found:?}");
        assert_eq!(found.detail, None);
        let uptime = found.metrics["sys_uptime"].as_u64().unwrap();
        assert_eq!(
            Value::Object(found.metrics),
            serde_json::json!({
                "snmp_ok": true,
                "snmp_port": address.port(),
                "sys_descr": "Caf\u{fffd} display, version 1",
                "sys_uptime": uptime,
                "snmp_timeout_s": 20.0,
                "snmp_retries": 1,
            })
        );
        uptimes.push(uptime);
    }
    assert!(uptimes[0] <= uptimes[1] && uptimes[1] < 360_000);

    let found = ask(snmpd.v4, "restricted", PATIENT, 1);
    assert_eq!(found.status, Status::Online);
    assert_eq!(
        found.detail.as_deref(),
        Some("agent answers, but has no sysDescr for this community (noSuchObject)")
    );
    assert_eq!(found.metrics["snmp_ok"], true);
    assert!(found.metrics["sys_descr"].is_null());

    let found = ask(snmpd.v4, "wrong-one", HASTY, 1);
    let port = snmpd.v4.port();
    assert_no_answer(
        &found,
        &format!("no answer from port {port}, or wrong community"),
    );
}

#[test]
fn a_closed_port() {
    for host in ["127.0.0.1", "[::1]"] {
        // A port that was free a moment ago.
        let socket = UdpSocket::bind(format!("{host}:0")).unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let found = ask(address, COMMUNITY, PATIENT, 3);
        let port = address.port();
        assert_no_answer(&found, &format!("port {port} closed: no SNMP agent there"));
    }
}

/// An agent that answers each request as it pleases.
struct Odd {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Odd {
    /// `answer` gets the request's id and its number, from 0.
    fn start(mut answer: impl FnMut(i32, usize) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (stop, requests) = (Arc::clone(&stop), Arc::clone(&requests));
            move || {
                let mut buffer = [0; 2048];
                loop {
                    let (length, from) = socket.recv_from(&mut buffer).unwrap();
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let request = snmp2::Pdu::from_bytes(&buffer[..length]).unwrap();
                    assert_eq!(request.community, COMMUNITY.as_bytes());
                    let number = requests.fetch_add(1, Ordering::SeqCst);
                    for bytes in answer(request.req_id, number) {
                        // A probe that has gone is no error.
                        let _ = socket.send_to(&bytes, from);
                    }
                }
            }
        });
        Self {
            address,
            stop,
            requests,
            thread: Some(thread),
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let waker = UdpSocket::bind((HOST, 0)).unwrap();
        waker.send_to(b"end", self.address).unwrap();
        if let Some(thread) = self.thread.take() {
            let answered = thread.join();
            if !thread::panicking() {
                answered.expect("the agent panicked");
            }
        }
    }
}

/// Tag, length below 128, content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 0x80);
    [&[tag, length], content].concat()
}

fn response(community: &str, id: i32, error: u8) -> Vec<u8> {
    let descr = tlv(
        0x30,
        &[tlv(6, &[0x2b, 6, 1, 2, 1, 1, 1, 0]), tlv(4, b"Odd one")].concat(),
    );
    let uptime = tlv(
        0x30,
        &[
            tlv(6, &[0x2b, 6, 1, 2, 1, 1, 3, 0]),
            tlv(0x43, &[0x30, 0x39]),
        ]
        .concat(),
    );
    let pdu = [
        tlv(2, &id.to_be_bytes()),
        tlv(2, &[error]),
        tlv(2, &[error]),
        tlv(0x30, &[descr, uptime].concat()),
    ];
    let message = [
        tlv(2, &[1]),
        tlv(4, community.as_bytes()),
        tlv(0xa2, &pdu.concat()),
    ];
    tlv(0x30, &message.concat())
}

fn good(id: i32) -> Vec<u8> {
    response(COMMUNITY, id, 0)
}

fn assert_odd_one(found: &Finding) {
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert_eq!(found.metrics["sys_descr"], "Odd one");
    assert_eq!(found.metrics["sys_uptime"], 12_345);
}

#[test]
fn what_is_no_answer_is_waited_out() {
    type Make = fn(i32) -> Vec<u8>;
    let cases: [(&str, Make); 7] = [
        ("are not valid SNMP", |_| b"hello".to_vec()),
        ("are not valid SNMP", |_| vec![]),
        ("are not valid SNMP", |id| {
            let mut bytes = good(id);
            bytes.truncate(bytes.len() - 1);
            bytes
        }),
        ("are not valid SNMP", |id| {
            // A request id of no bytes.
            let mut bytes = good(id);
            let at = bytes.windows(2).position(|pair| pair == [2, 4]).unwrap();
            bytes[at + 1] = 0;
            bytes
        }),
        ("are not to our request (wrong request id)", |id| {
            good(id.wrapping_add(1))
        }),
        ("carry another community", |id| response("private", id, 0)),
        ("are not SNMP v2c responses", |id| {
            let mut bytes = good(id);
            bytes[4] = 0;
            bytes
        }),
    ];
    for (detail, make) in cases {
        // Nothing but that, until the probe has had enough: it is named.
        let odd = Odd::start(move |id, _| vec![make(id); 100]);
        let found = ask(odd.address, COMMUNITY, PATIENT, 1);
        let port = odd.address.port();
        assert_no_answer(&found, &format!("answers from port {port} {detail}"));
        assert_eq!(odd.requests(), 1);
        // Before the answer: it does no harm, and costs no try.
        let odd = Odd::start(move |id, _| vec![make(id), make(id), good(id)]);
        assert_odd_one(&ask(odd.address, COMMUNITY, PATIENT, 1));
        assert_eq!(odd.requests(), 1);
    }
}

#[test]
fn one_stray_does_not_end_the_tries() {
    let odd = Odd::start(|_, _| vec![b"hello".to_vec()]);
    let found = ask(odd.address, COMMUNITY, Duration::from_secs(2), 1);
    let port = odd.address.port();
    assert_no_answer(
        &found,
        &format!("answers from port {port} are not valid SNMP"),
    );
    assert_eq!(odd.requests(), 2);
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let odd = Odd::start(|id, number| match number {
        0 | 1 => vec![],
        _ => vec![good(id)],
    });
    // Long enough for a slow machine to answer the last.
    assert_odd_one(&ask(odd.address, COMMUNITY, Duration::from_secs(2), 2));
    assert_eq!(odd.requests(), 3);
}

#[test]
fn a_late_answer_to_an_earlier_try_counts() {
    let mut first = None;
    let odd = Odd::start(move |id, number| {
        if number == 0 {
            first = Some(good(id));
            return vec![];
        }
        first.take().into_iter().collect()
    });
    assert_odd_one(&ask(odd.address, COMMUNITY, Duration::from_secs(2), 1));
    assert_eq!(odd.requests(), 2);
}

#[test]
fn errors_of_the_agent_are_told() {
    for (error, detail) in [
        (
            16,
            "agent refuses: authorizationError (16): check the community's rights",
        ),
        (5, "agent answers with an error: genErr (5)"),
    ] {
        let odd = Odd::start(move |id, _| vec![response(COMMUNITY, id, error)]);
        let found = ask(odd.address, COMMUNITY, PATIENT, 1);
        assert_eq!(found.status, Status::Online);
        assert_eq!(found.detail.as_deref(), Some(detail));
        assert_eq!(found.metrics["snmp_ok"], false);
        assert!(found.metrics["sys_descr"].is_null());
    }
}

#[test]
fn another_sender_is_not_heard() {
    let other = UdpSocket::bind((HOST, 0)).unwrap();
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let impostor = thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        let request = snmp2::Pdu::from_bytes(&buffer[..length]).unwrap();
        other.send_to(&good(request.req_id), from).unwrap();
        socket
    });
    let found = ask(address, COMMUNITY, HASTY, 0);
    assert_no_answer(
        &found,
        &format!("no answer from port {}, or wrong community", address.port()),
    );
    impostor.join().unwrap();
}

#[test]
fn a_flood_ends_the_probe() {
    let odd = Odd::start(|id, _| vec![good(id.wrapping_add(1)); 500]);
    let found = ask(odd.address, COMMUNITY, PATIENT, 5);
    let port = odd.address.port();
    assert_no_answer(
        &found,
        &format!("answers from port {port} are not to our request (wrong request id)"),
    );
    assert_eq!(odd.requests(), 1);
}

#[test]
fn tries_and_time_outs_are_held() {
    let odd = Odd::start(|_, _| vec![]);
    for retries in [0, 3] {
        let before = odd.requests();
        let start = Instant::now();
        let found = ask(odd.address, COMMUNITY, HASTY, retries);
        assert!(start.elapsed() >= HASTY * (u32::from(retries) + 1));
        assert_no_answer(
            &found,
            &format!(
                "no answer from port {}, or wrong community",
                odd.address.port()
            ),
        );
        // The last may still be on its way to the agent's thread.
        let limit = Instant::now() + Duration::from_secs(60);
        while odd.requests() < before + usize::from(retries) + 1 {
            assert!(Instant::now() < limit);
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(odd.requests(), 5);
}
