//! The edge over real connections: what one of them does holds up no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use av_service::http::{Edge, Limits, TooManyStuck, came_with_head};
use tiny_http::Response;

/// Long enough for a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);
const HEALTHY: &[u8] = b"GET /healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

struct Bench {
    edge: Edge,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), TooManyStuck>>>,
}

impl Bench {
    /// With so many threads that answer, each with the length of the body and
    /// whether it came with the head.
    fn start(workers: usize, limits: Limits) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let edge = Edge::open(socket, limits).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let work = |edge: Edge, stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let Some(arrival) = edge.recv()? else {
                        continue;
                    };
                    let mut text = format!(
                        "{:?} {}",
                        arrival.body_length(),
                        came_with_head(&arrival.request)
                    );
                    if arrival.request.url() == "/long" {
                        text = "x".repeat(1 << 20);
                    }
                    let status = if arrival.frame.is_ok() { 200 } else { 400 };
                    arrival.respond(Response::from_string(text).with_status_code(status))?;
                }
                Ok(())
            }
        };
        let threads = (0..workers)
            .map(|_| thread::spawn(work(edge.clone(), stop.clone())))
            .collect();
        Self {
            edge,
            stop,
            threads,
        }
    }

    fn guard(&mut self) {
        let (edge, stop) = (self.edge.clone(), self.stop.clone());
        self.threads.push(thread::spawn(move || {
            let stopped = |pause| {
                thread::sleep(pause);
                stop.load(Ordering::SeqCst)
            };
            edge.guard(Duration::from_millis(50), stopped).unwrap();
            Ok(())
        }));
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.edge.address()).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.write_all(bytes).unwrap();
        connection
    }

    fn is_healthy(&self) {
        let answer = rest(self.send(HEALTHY));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if !thread::panicking() {
            for thread in self.threads.drain(..) {
                let _ = thread.join().unwrap();
            }
        }
    }
}

fn rest(mut connection: TcpStream) -> String {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("nothing comes: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn first_line(connection: &mut TcpStream) -> String {
    let mut start = [0; 12];
    connection.read_exact(&mut start).unwrap();
    String::from_utf8_lossy(&start).into_owned()
}

#[test]
fn a_body_that_does_not_come_behind_a_refused_request_holds_nobody_up() {
    // Nobody looks after the connections, which would end it.
    let bench = Bench::start(1, Limits::default());
    let mut held = bench.send(
        b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n\
          POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(first_line(&mut held), "HTTP/1.1 400");
    bench.is_healthy();
    drop(held);
}

#[test]
fn what_follows_an_upgrade_is_no_body_that_came_with_it() {
    let bench = Bench::start(1, Limits::default());
    for (head, expected) in [
        (
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
            "Some(0) false",
        ),
        (
            "POST / HTTP/1.1\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello",
            "Some(5) false",
        ),
        (
            "POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            "Some(5) true",
        ),
        (
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "Some(0) false",
        ),
    ] {
        let answer = rest(bench.send(head.as_bytes()));
        assert!(
            answer.ends_with(&format!("\r\n\r\n{expected}")),
            "{head:?}: {answer:?}"
        );
    }
    let chunked =
        "POST / HTTP/1.1\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = rest(bench.send(chunked.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
}

#[test]
fn a_request_line_of_two_lines_is_refused() {
    let mut bench = Bench::start(1, Limits::default());
    bench.guard();
    for line in [
        "GET\n\nPOST / HTTP/1.1",
        "GET /\nA:b HTTP/1.1",
        "GET /\t HTTP/1.1",
    ] {
        let hidden = format!("{line}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        let answer = rest(bench.send(hidden.as_bytes()));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{line:?}: {answer:?}");
        assert!(!answer.contains(" 200 "), "{line:?}: {answer:?}");
    }
}

#[test]
fn who_takes_nothing_holds_nobody_up() {
    let limits = Limits {
        send: Duration::from_millis(300),
        ..Limits::default()
    };
    let mut bench = Bench::start(2, limits);
    bench.guard();
    let held = bench.send(&b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
    bench.is_healthy();
    drop(held);
}

#[test]
fn what_is_sent_ahead_is_answered_in_order() {
    let mut bench = Bench::start(4, Limits::default());
    bench.guard();
    let mut requests = Vec::new();
    for number in 0..200 {
        let body = "x".repeat(number);
        let more = format!("POST / HTTP/1.1\r\nContent-Length: {number}\r\n\r\n{body}");
        requests.extend_from_slice(more.as_bytes());
    }
    requests.extend_from_slice(b"GET /long HTTP/1.1\r\nConnection: close\r\n\r\n");
    let answers = rest(bench.send(&requests));
    let lengths: Vec<&str> = answers
        .match_indices("Some(")
        .filter_map(|(at, _)| answers[at + 5..].split(')').next())
        .collect();
    let expected: Vec<String> = (0..200).map(|number: usize| number.to_string()).collect();
    assert_eq!(lengths, expected);
    assert!(answers.matches('x').count() >= 1 << 20);
}

/// tiny_http waits for itself where it wants to refuse the version.
#[test]
fn connections_that_stay_for_good_are_counted_until_it_is_too_much() {
    let limits = Limits {
        head: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        let_go: Duration::from_secs(1),
        stuck: 2,
        ..Limits::default()
    };
    let mut bench = Bench::start(1, limits);
    bench.guard();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(rest(bench.send(preface)), "");
    }
    let seen = Instant::now();
    while seen.elapsed() < Duration::from_secs(4) {
        bench.is_healthy();
    }
    assert_eq!(rest(bench.send(preface)), "");
    let worker = bench.threads.remove(0);
    let start = Instant::now();
    while !worker.is_finished() {
        assert!(start.elapsed() < LIMIT, "nobody is told");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(worker.join().unwrap(), Err(TooManyStuck));

    // Whoever goes on without it closes it, and it stays closed.
    assert!(bench.edge.close());
    assert!(!bench.edge.close());
    for _ in 0..20 {
        assert!(TcpStream::connect(bench.edge.address()).is_err());
        thread::sleep(Duration::from_millis(50));
    }
}
