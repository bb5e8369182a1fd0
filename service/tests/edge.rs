//! The edge over real connections: what one of them does holds up no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use av_service::http::{
    Admission, Admit, Answer, BodyError, Class, Content, Edge, Exchange, Limits, Queues, Reason,
    Request,
};

/// Long enough for a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);
const HEALTHY: &[u8] = b"GET /healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const BODY_MAX: usize = 100_000;
const QUEUES: Queues = Queues {
    health: 4,
    agent: 64,
    person: 4,
    stranger: 4,
};

/// Holds workers until it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, LIMIT, |(open, _)| !*open)
            .unwrap();
        state.1 -= 1;
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    /// Until this number of workers is held.
    fn holds(&self, workers: usize) {
        let state = self.state.lock().unwrap();
        let (_state, waited) = self
            .changed
            .wait_timeout_while(state, LIMIT, |(_, held)| *held < workers)
            .unwrap();
        assert!(!waited.timed_out());
    }
}

/// Sorts requests by their paths.
struct Program;

impl Admit for Program {
    fn admit(&self, request: &Request) -> Admission {
        match request.url() {
            "/at-once" => Admission::Answer(Answer::text(200, "text/plain", "at once")),
            "/fails" => panic!("as it is meant to"),
            "/agent" => Admission::Queue(Class::Agent),
            "/health" => Admission::Queue(Class::Health),
            _ => Admission::Queue(Class::Stranger),
        }
    }
}

fn serve(mut exchange: Exchange, gate: &Gate) {
    let url = exchange.request().url().to_owned();
    let long = || "x".repeat(1 << 20);
    match url.as_str() {
        "/held" => gate.wait(),
        "/panics" => panic!("as it is meant to"),
        _ => {}
    }
    if url == "/unread" {
        return exchange.respond(Answer::text(413, "text/plain", "too large"));
    }
    let length = exchange.request().body_length();
    let here = exchange.body_is_here();
    let body = exchange.read_body(BODY_MAX, Instant::now() + Duration::from_secs(2));
    let answer = match (url.as_str(), body) {
        (_, Err(error)) => {
            let status = match error {
                BodyError::TooLarge => 413,
                BodyError::TooSlow => 408,
                BodyError::Broken => 400,
            };
            Answer::text(status, "text/plain", error.to_string())
        }
        ("/long", _) => Answer::text(200, "text/plain", long()),
        ("/stream", _) => Answer::new(200, Content::Stream(Box::new(std::io::Cursor::new(long())))),
        ("/echo", Ok(body)) => Answer::text(200, "text/plain", body),
        ("/204", Ok(_)) => Answer::text(204, "text/plain", ""),
        (_, Ok(body)) => Answer::text(
            200,
            "text/plain",
            format!("{length:?} {here} {}", body.len()),
        ),
    };
    exchange.respond(answer);
}

struct Bench {
    edge: Edge,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Bench {
    /// With this number of threads that answer strangers, and one for agents
    /// and health.
    fn start(workers: usize, limits: Limits) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (edge, mut reactor) = Edge::open(socket, limits, QUEUES).unwrap();
        let gate = Arc::<Gate>::default();
        let mut threads = vec![thread::spawn(move || reactor.run(&Program).unwrap())];
        for number in 0..=workers {
            let (edge, gate) = (edge.clone(), gate.clone());
            let classes = match number {
                0 => vec![Class::Health, Class::Agent],
                _ => vec![Class::Health, Class::Agent, Class::Stranger],
            };
            threads.push(thread::spawn(move || {
                while let Some(exchange) = edge.next(&classes) {
                    let serves = std::panic::AssertUnwindSafe(|| serve(exchange, &gate));
                    let _ = std::panic::catch_unwind(serves);
                }
            }));
        }
        Self {
            edge,
            gate,
            threads,
        }
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.edge.address()).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.set_write_timeout(Some(LIMIT)).unwrap();
        connection.write_all(bytes).unwrap();
        connection
    }

    fn is_healthy(&self) {
        let answer = rest(self.send(HEALTHY));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }

    fn closed(&self, reason: Reason) -> u64 {
        let counts = self.edge.counts().closed;
        counts.iter().find(|(known, _)| *known == reason).unwrap().1
    }

    fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LIMIT, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.gate.open();
        self.edge.close();
        if !thread::panicking() {
            for thread in self.threads.drain(..) {
                thread.join().unwrap();
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

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_body_that_does_not_come_behind_a_refused_request_holds_nobody_up() {
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
fn an_upgrade_is_not_taken_and_changes_no_frame() {
    let bench = Bench::start(1, Limits::default());
    for (head, expected) in [
        (
            "GET / HTTP/1.1\r\nConnection: Upgrade, close\r\n\r\n",
            "Some(0) true 0",
        ),
        (
            "POST / HTTP/1.1\r\nConnection: upgrade, close\r\nContent-Length: 5\r\n\r\nhello",
            "Some(5) true 5",
        ),
        (
            "POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            "Some(5) true 5",
        ),
    ] {
        let answer = rest(bench.send(head.as_bytes()));
        assert_eq!(body_of(&answer), expected, "{head:?}");
    }
    let chunked =
        "POST / HTTP/1.1\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = rest(bench.send(chunked.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
}

#[test]
fn a_request_line_of_two_lines_is_refused() {
    let bench = Bench::start(1, Limits::default());
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
    assert_eq!(bench.closed(Reason::Refused), 3);
}

#[test]
fn who_takes_nothing_holds_nobody_up() {
    let limits = Limits {
        send: Duration::from_millis(300),
        ..Limits::default()
    };
    let bench = Bench::start(1, limits);
    let held = bench.send(&b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200));
    bench.is_healthy();
    bench.wait_for("it is given up", || bench.closed(Reason::SlowReader) == 1);
    drop(held);
}

#[test]
fn what_is_sent_ahead_is_answered_in_order() {
    let bench = Bench::start(4, Limits::default());
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

/// More than the reactor reads at once, all of it before any answer is read.
#[test]
fn what_is_sent_far_ahead_is_answered_without_further_events() {
    let bench = Bench::start(1, Limits::default());
    for path in ["/at-once", "/agent"] {
        let one = format!("GET {path} HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(3000));
        let mut requests = one.repeat(100);
        requests.push_str(&format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"));
        let answers = rest(bench.send(requests.as_bytes()));
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 101, "{path}");
    }
}

#[test]
fn bodies_are_read_however_they_come() {
    let bench = Bench::start(1, Limits::default());
    let text = "0123456789".repeat(4000);
    let chunks: String = text
        .as_bytes()
        .chunks(777)
        .map(|part| {
            let part = std::str::from_utf8(part).unwrap();
            format!("{:x};ext=1\r\n{part}\r\n", part.len())
        })
        .collect();
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nTrailer: x\r\n\r\n"
    );
    let plain = format!(
        "POST /echo HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    for request in [&chunked, &plain] {
        for piece in [1460, 100_000] {
            let mut connection = bench.send(b"");
            for part in request.as_bytes().chunks(piece) {
                connection.write_all(part).unwrap();
            }
            let answer = rest(connection);
            assert_eq!(body_of(&answer), text);
        }
    }
    for (request, status) in [
        ("Content-Length: 100001\r\n\r\n", "413"),
        ("Transfer-Encoding: chunked\r\n\r\n186a1\r\n", "408"),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
        ("Content-Length: 20000\r\n\r\nx", "408"),
    ] {
        let head = format!("POST /echo HTTP/1.1\r\n{request}");
        let answer = rest(bench.send(head.as_bytes()));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let huge = [
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n",
        "x".repeat(100_001).as_bytes(),
    ]
    .concat();
    assert!(rest(bench.send(&huge)).starts_with("HTTP/1.1 413 "));
    let mut short = bench.send(b"POST /echo HTTP/1.1\r\nContent-Length: 50\r\n\r\nx");
    short.shutdown(Shutdown::Write).unwrap();
    assert_eq!(first_line(&mut short), "HTTP/1.1 400");
}

#[test]
fn who_waits_for_word_gets_it() {
    let bench = Bench::start(1, Limits::default());
    let mut connection = bench.send(
        b"POST /echo HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    let mut word = [0; 25];
    connection.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(b"hello").unwrap();
    let answer = rest(connection);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body_of(&answer), "hello");
    // A refusal is said without it.
    let refused = bench
        .send(b"POST /unread HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n");
    assert!(rest(refused).starts_with("HTTP/1.1 413 "));
}

#[test]
fn each_version_and_method_gets_its_answer() {
    let bench = Bench::start(1, Limits::default());
    let long = format!("HTTP/1.1 200 OK\r\nDate: |Content-Length: {}\r\n", 1 << 20);
    for (request, starts, length) in [
        (
            "HEAD /long HTTP/1.1\r\nConnection: close\r\n\r\n",
            long.as_str(),
            0,
        ),
        (
            "GET /stream HTTP/1.0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n",
            1 << 20,
        ),
        (
            "GET /204 HTTP/1.1\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n",
            0,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 ", 0),
        (
            "GET / HTTP/1.1\r\nX: \u{e9}\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 ",
            14,
        ),
    ] {
        let answer = rest(bench.send(request.as_bytes()));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        for part in starts.split('|') {
            assert!(head.contains(part.trim_end()), "{request:?}: {head}");
        }
        if !starts.contains("505") {
            assert_eq!(body.len(), length, "{request:?}");
        }
    }
    let kept = bench.send(
        b"GET /at-once HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /at-once HTTP/1.0\r\n\r\n",
    );
    assert_eq!(rest(kept).matches("HTTP/1.0 200 OK").count(), 2);
    // A stream in chunks, and another request behind it.
    let streams = "GET /stream HTTP/1.1\r\n\r\nGET /at-once HTTP/1.1\r\nConnection: close\r\n\r\n";
    let answers = rest(bench.send(streams.as_bytes()));
    assert!(answers.contains("\r\nTransfer-Encoding: chunked\r\n"));
    assert!(answers.contains("\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"));
    assert!(answers.matches('x').count() >= 1 << 20);
}

#[test]
fn what_is_slow_is_told_and_ends() {
    let limits = Limits {
        head: Duration::from_millis(200),
        body: Duration::from_millis(200),
        idle: Duration::from_millis(400),
        ..Limits::default()
    };
    let bench = Bench::start(1, limits);
    for (bytes, answer, reason) in [
        ("", "", Reason::Idle),
        ("GET / HTTP/1.1\r\nX", "HTTP/1.1 408 ", Reason::SlowHead),
        (
            "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
            "HTTP/1.1 408 ",
            Reason::SlowBody,
        ),
    ] {
        let text = rest(bench.send(bytes.as_bytes()));
        assert!(text.starts_with(answer), "{bytes:?}: {text:?}");
        assert_eq!(text.is_empty(), answer.is_empty());
        assert_eq!(bench.closed(reason), 1, "{reason}");
    }
    // One that goes on byte by byte has no more time.
    let mut slow = bench.send(b"GET / HTTP/1.1\r\nX: ");
    bench.wait_for("it ends", || {
        let _ = slow.write_all(b"x");
        bench.closed(Reason::SlowHead) == 2
    });
}

#[test]
fn strangers_hold_up_no_agent() {
    let bench = Bench::start(2, Limits::default());
    let mut held: Vec<TcpStream> = (0..2)
        .map(|_| bench.send(b"GET /held HTTP/1.1\r\n\r\n"))
        .collect();
    bench.gate.holds(2);
    // The queue of strangers fills up, and no other.
    for _ in 0..QUEUES.stranger {
        held.push(bench.send(b"GET /held HTTP/1.1\r\n\r\n"));
    }
    let mut busy = bench.send(b"GET /held HTTP/1.1\r\n\r\n");
    assert_eq!(first_line(&mut busy), "HTTP/1.1 503");
    let text = rest(bench.send(b"GET /held HTTP/1.1\r\nConnection: close\r\n\r\n"));
    assert!(text.contains("\r\nRetry-After: 2\r\n"), "{text}");
    for _ in 0..50 {
        for path in ["/agent", "/health", "/at-once"] {
            let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
            let answer = rest(bench.send(head.as_bytes()));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
    }
    bench.gate.open();
    for connection in &mut held {
        assert_eq!(first_line(connection), "HTTP/1.1 200");
    }
}

#[test]
fn a_failure_costs_its_own_connection_alone() {
    let bench = Bench::start(1, Limits::default());
    assert!(rest(bench.send(b"GET /fails HTTP/1.1\r\n\r\n")).starts_with("HTTP/1.1 500 "));
    assert_eq!(rest(bench.send(b"GET /panics HTTP/1.1\r\n\r\n")), "");
    bench.is_healthy();
    bench.wait_for("each is closed", || bench.edge.counts().connections == 0);
}

#[test]
fn the_longest_idle_make_way() {
    let limits = Limits {
        connections: 8,
        ..Limits::default()
    };
    let bench = Bench::start(1, limits);
    let mut held: Vec<TcpStream> = (0..8).map(|_| bench.send(b"")).collect();
    bench.wait_for("all are open", || bench.edge.counts().connections == 8);
    for number in 0..4 {
        let mut newest = bench.send(b"GET /at-once HTTP/1.1\r\n\r\n");
        assert_eq!(first_line(&mut newest), "HTTP/1.1 200");
        assert_eq!(rest(held.remove(0)), "");
        held.push(newest);
        assert_eq!(bench.closed(Reason::TooMany), number + 1);
    }
}

/// A body that no memory can hold costs an answer and nothing else.
#[test]
fn a_claim_of_any_length_is_answered() {
    let bench = Bench::start(1, Limits::default());
    for _ in 0..600 {
        let mut claim =
            bench.send(b"GET /unread HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\n");
        assert_eq!(first_line(&mut claim), "HTTP/1.1 413");
    }
    bench.is_healthy();
    bench.wait_for("each is closed", || bench.edge.counts().connections == 0);
}

/// Half-read requests have a bound over all connections.
#[test]
fn what_waits_for_its_rest_has_a_bound() {
    let bench = Bench::start(1, Limits::default());
    let part = [
        b"POST / HTTP/1.1\r\nContent-Length: 16384\r\n\r\n".as_slice(),
        &[b'x'; 16_000],
    ]
    .concat();
    // 17.6 MB.
    let held: Vec<TcpStream> = (0..1100).map(|_| bench.send(&part)).collect();
    bench.wait_for("the oldest go", || bench.closed(Reason::Flood) > 0);
    assert!(bench.closed(Reason::Flood) < 200);
    bench.is_healthy();
    drop(held);
}

#[test]
fn what_has_come_is_answered_after_the_end() {
    let bench = Bench::start(1, Limits::default());
    let mut idle = bench.send(b"GET /at-once HTTP/1.1\r\n\r\n");
    assert_eq!(first_line(&mut idle), "HTTP/1.1 200");
    let held = bench.send(b"GET /held HTTP/1.1\r\n\r\n");
    bench.gate.holds(1);
    let queued = bench.send(b"GET /held HTTP/1.1\r\n\r\n");
    // It has been read where the next one is answered.
    bench.wait_for("it waits", || {
        let text = rest(bench.send(b"GET /at-once HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 200 "));
        bench.edge.counts().connections >= 3
    });
    bench.edge.close();
    let _ = rest(idle);
    bench.wait_for("nothing is accepted", || {
        TcpStream::connect(bench.edge.address()).is_err()
    });
    bench.gate.open();
    for connection in [held, queued] {
        let text = rest(connection);
        assert!(text.starts_with("HTTP/1.1 200 "), "{text:?}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text:?}");
    }
}
