//! The HTTP edge, over real connections. The first byte says how they go; what
//! follows is cut into pieces at 0xff, and twice 0xff begins a new connection.
//!
//! Whatever comes: no panic, threads and descriptors are given back, others are
//! answered, and no worker is handed a request that a second reader of the same
//! bytes (httparse) takes for part of another.

#![no_main]

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use av_service::http::{
    Admission, Admit, Answer, BodyError, Class, Edge, Exchange, Limits, Queues, Request,
};
use libfuzzer_sys::{Corpus, fuzz_target};

/// The peer does not say that it has ended: it goes after a moment's quiet.
const HOLDS: u8 = 1;
/// The connections are written to in turns.
const IN_TURNS: u8 = 2;
/// It looks for an answer after each piece.
const READS: u8 = 4;
/// Something that must not be taken for a request follows.
const TAIL: u8 = 8;

const HIDDEN: &[u8] = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const QUIET: Duration = Duration::from_millis(2);
/// So long until it is a hang.
const PATIENCE: Duration = Duration::from_secs(30);
const BODY_MAX: usize = 1 << 20;
const THREADS_MAX: usize = 40;
const DESCRIPTORS_MAX: usize = 80;

/// A request as it was handed out.
#[derive(Debug, PartialEq, Eq)]
struct Handled {
    line: String,
    /// Nothing where it was not read, or not to its end.
    body: Option<Vec<u8>>,
}

fn handled() -> &'static Mutex<HashMap<SocketAddr, Vec<Handled>>> {
    static HANDLED: OnceLock<Mutex<HashMap<SocketAddr, Vec<Handled>>>> = OnceLock::new();
    HANDLED.get_or_init(Mutex::default)
}

struct Program;

impl Admit for Program {
    fn admit(&self, request: &Request) -> Admission {
        match request.url() {
            "/at-once" => Admission::Answer(Answer::text(200, "text/plain", "at once")),
            _ => Admission::Queue(Class::Stranger),
        }
    }
}

fn edge() -> &'static Edge {
    static EDGE: OnceLock<Edge> = OnceLock::new();
    EDGE.get_or_init(|| {
        std::panic::set_hook(Box::new(|info| {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }));
        let limits = Limits {
            head: Duration::from_secs(2),
            body: Duration::from_secs(2),
            idle: Duration::from_secs(3),
            ..Limits::default()
        };
        let queues = Queues {
            health: 1,
            agent: 1,
            person: 1,
            stranger: 64,
        };
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (edge, mut reactor) = Edge::open(socket, limits, queues).expect("an edge");
        thread::spawn(move || reactor.run(&Program).expect("events"));
        for _ in 0..2 {
            let edge = edge.clone();
            thread::spawn(move || {
                while let Some(exchange) = edge.next(&[Class::Stranger]) {
                    serve(exchange);
                }
            });
        }
        edge
    })
}

/// Notes a request; answers its place among those of its connection.
fn note(request: &Request) -> usize {
    let line = format!("{} {}", request.method(), request.target());
    let mut handled = handled().lock().expect("no panic");
    let before = handled.entry(request.peer()).or_default();
    before.push(Handled { line, body: None });
    before.len() - 1
}

fn serve(mut exchange: Exchange) {
    let place = note(exchange.request());
    let peer = exchange.request().peer();
    let url = exchange.request().url().to_owned();
    let body = match url.contains("/unread") {
        true => Err(BodyError::TooLarge),
        false => exchange.read_body(BODY_MAX, Instant::now() + Duration::from_secs(2)),
    };
    let status = match &body {
        Err(BodyError::Broken) => 400,
        Err(_) => 413,
        Ok(_) if url.contains("/204") => 204,
        Ok(_) if url.contains("/304") => 304,
        Ok(_) => 200,
    };
    let text = match url.contains("/long") {
        true => "x".repeat(20_000),
        false => "answer".to_owned(),
    };
    if let Ok(body) = body {
        let mut handled = handled().lock().expect("no panic");
        let place = handled.get_mut(&peer).and_then(|all| all.get_mut(place));
        // The peer may have gone, and have been checked.
        if let Some(request) = place {
            request.body = Some(body);
        }
    }
    exchange.respond(Answer::text(status, "text/plain", text));
}

/// Connects from an address that none had before: the edge knows connections
/// by their peers.
fn connect(edge: &Edge) -> TcpStream {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = (number as u32 % 0x00ff_fff0 + 1).to_be_bytes();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let own = SocketAddr::from((Ipv4Addr::new(127, a, b, c), 0));
    socket.bind(&own.into()).expect("an address");
    socket
        .connect_timeout(&edge.address().into(), PATIENCE)
        .expect("it accepts");
    let connection = TcpStream::from(socket);
    connection.set_nodelay(true).expect("TCP");
    connection.set_write_timeout(Some(PATIENCE)).expect("TCP");
    connection
}

/// What comes until it is closed, or for so long.
fn read(connection: &mut TcpStream, limit: Duration) -> (Vec<u8>, bool) {
    connection.set_read_timeout(Some(limit)).expect("TCP");
    let mut bytes = Vec::new();
    let closed = match connection.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    (bytes, closed)
}

/// What another reader sees in the same bytes.
struct Strict {
    requests: Vec<(String, Vec<u8>)>,
    /// It does not understand what follows.
    lost: bool,
}

fn strict(mut bytes: &[u8]) -> Strict {
    let mut requests = Vec::new();
    let lost = loop {
        let mut headers = vec![httparse::EMPTY_HEADER; 2000];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => break false,
            Err(_) => break true,
        };
        let line = format!(
            "{} {}",
            request.method.unwrap_or_default(),
            request.path.unwrap_or_default()
        );
        let named = |name: &str| {
            let mut values = request
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case(name));
            values
                .next()
                .map(|header| String::from_utf8_lossy(header.value).into_owned())
        };
        let rest = &bytes[head..];
        let mut body = Vec::new();
        let used = if named("Transfer-Encoding").is_some() {
            unchunk(rest, &mut body)
        } else {
            match named("Content-Length").map(|length| length.trim().parse::<usize>()) {
                None => Some(0),
                Some(Ok(length)) if length <= rest.len() => {
                    body.extend_from_slice(&rest[..length]);
                    Some(length)
                }
                Some(Ok(_)) => {
                    requests.push((line, body));
                    break false;
                }
                Some(Err(_)) => None,
            }
        };
        let Some(used) = used else {
            break true;
        };
        requests.push((line, body));
        // Nothing is to be read behind these.
        let last = request.version == Some(0) || named("Connection").is_some();
        if last {
            break true;
        }
        bytes = &rest[used..];
    };
    Strict { requests, lost }
}

fn unchunk(bytes: &[u8], body: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((used, size))) = httparse::parse_chunk_size(&bytes[at..])
        else {
            return None;
        };
        at += used;
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = end + 2;
        if size == 0 {
            return Some(at);
        }
    }
}

/// Whether what was handed out is what another reader sees. `whole` says that
/// all of the bytes have been read.
fn check(peer: SocketAddr, bytes: &[u8], whole: bool) {
    let got = handled().lock().expect("no panic").remove(&peer);
    let got = got.unwrap_or_default();
    let expected = strict(bytes);
    // Those that the reactor answers reach no worker.
    let at_once = |(line, _): &(String, Vec<u8>)| line.ends_with(" /at-once");
    let mut expected = expected;
    expected.requests.retain(|request| !at_once(request));
    for (number, request) in got.iter().enumerate() {
        let Some((line, body)) = expected.requests.get(number) else {
            assert!(
                expected.lost,
                "{request:?} is none: {:?}",
                String::from_utf8_lossy(bytes)
            );
            return;
        };
        let same = match &request.body {
            None => true,
            Some(read) if whole => read == body,
            Some(read) => body.starts_with(read),
        };
        assert!(
            request.line == *line && same,
            "{request:?} is not {line} {body:?}: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(at.len()).position(|part| part == at) {
        parts.push(&rest[..end]);
        rest = &rest[end + at.len()..];
    }
    parts.push(rest);
    parts
}

/// Others are answered, and what was taken is given back.
fn healthy(edge: &Edge) {
    let mut connection = connect(edge);
    connection
        .write_all(b"GET /healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("it is written");
    let (answer, closed) = read(&mut connection, PATIENCE);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 ") && closed, "{text:?}");
    let own = connection.local_addr().expect("TCP");
    check(own, b"GET /healthy HTTP/1.1\r\n\r\n", true);
    let start = Instant::now();
    loop {
        let count = |folder: &str| std::fs::read_dir(folder).expect("/proc").count();
        let (threads, open) = (count("/proc/self/task"), count("/proc/self/fd"));
        if threads <= THREADS_MAX && open <= DESCRIPTORS_MAX {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{threads} threads, {open} descriptors: {:?}",
            edge.counts()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    static LATER: Mutex<VecDeque<(SocketAddr, Vec<u8>)>> = Mutex::new(VecDeque::new());
    let Some((&how, rest)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    let edge = edge();
    let mut talks: Vec<(TcpStream, VecDeque<&[u8]>, Vec<u8>)> = split(rest, &[0xff, 0xff])
        .into_iter()
        .take(4)
        .map(|all| {
            let mut pieces: VecDeque<_> = split(all, &[0xff]).into();
            if how & TAIL != 0 {
                pieces.push_back(HIDDEN);
            }
            let whole = pieces
                .iter()
                .flat_map(|piece| piece.iter().copied())
                .collect();
            (connect(edge), pieces, whole)
        })
        .collect();
    let mut turn = 0;
    while let Some(count) = talks.len().checked_sub(1) {
        let (connection, pieces, _) = &mut talks[turn];
        let Some(piece) = pieces.pop_front() else {
            if turn == count {
                break;
            }
            turn += 1;
            continue;
        };
        // It may be closed by now.
        let _ = connection.write_all(piece);
        match how & READS {
            0 => thread::yield_now(),
            _ => drop(read(connection, QUIET)),
        }
        if how & IN_TURNS != 0 {
            let next = (1..=count).map(|more| (turn + more) % (count + 1));
            turn = next
                .into_iter()
                .find(|&next| !talks[next].1.is_empty())
                .unwrap_or(turn);
            if talks.iter().all(|(_, pieces, _)| pieces.is_empty()) {
                break;
            }
        }
    }
    for (mut connection, _, whole) in talks {
        let own = connection.local_addr().expect("TCP");
        if how & HOLDS != 0 {
            let _ = read(&mut connection, QUIET);
            drop(connection);
            LATER.lock().expect("no panic").push_back((own, whole));
            continue;
        }
        let _ = connection.shutdown(Shutdown::Write);
        let (_, closed) = read(&mut connection, PATIENCE);
        assert!(
            closed,
            "it is not closed: {:?}",
            String::from_utf8_lossy(&whole)
        );
        check(own, &whole, true);
    }
    loop {
        let mut later = LATER.lock().expect("no panic");
        if later.len() <= 100 {
            break;
        }
        let next = later.pop_front();
        drop(later);
        if let Some((peer, whole)) = next {
            check(peer, &whole, false);
        }
    }
    if RUNS.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
        healthy(edge);
    }
    Corpus::Keep
});
