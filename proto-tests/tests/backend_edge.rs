//! Whoever connects to the backend without meaning well: slow and idle
//! connections by the thousand, file descriptors used up, heads without an
//! end, requests that say twice where they end. Healthy agents are answered
//! all the while, and the program is never started anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use av_proto_tests::process::{Backend, LIMIT};
use backend_support::{Bench, TOKEN, report, reported};

fn address(backend: &Backend) -> &str {
    backend.url.strip_prefix("http://").unwrap()
}

fn connect(backend: &Backend) -> TcpStream {
    let connection = TcpStream::connect(address(backend)).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.set_write_timeout(Some(LIMIT)).unwrap();
    connection
}

/// Everything that comes until the other end closes.
fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Ok(_) => {}
        // Closed while there was something unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is not closed: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn metric(backend: &Backend, name: &str) -> u64 {
    let page = backend.get("/metrics").body;
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name} in\n{page}"))
}

fn closed(backend: &Backend, reason: &str) -> u64 {
    let name = format!("av_backend_http_connections_closed_total{{reason=\"{reason}\"}}");
    metric(backend, &name)
}

/// How long polls and reports of a healthy agent took: the median.
fn median_of_healthy(bench: &Bench) -> Duration {
    let body = report(&[reported("10.0.0.1", "online", "ok")]);
    let mut times: Vec<Duration> = (0..40)
        .map(|number| {
            let started = Instant::now();
            if number % 4 == 0 {
                assert_eq!(bench.backend.ingest(TOKEN, &body).status, 200);
            } else {
                bench.config();
            }
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn two_thousand_idle_and_slow_connections_do_not_hold_up_healthy_agents() {
    let bench = Bench::start();
    // Each end of 2,000 connections.
    let _ = Command::new("prlimit")
        .args(["--nofile=8192:", "--pid", &std::process::id().to_string()])
        .status()
        .unwrap();
    let before = median_of_healthy(&bench);
    let start = Instant::now();
    let mut held: Vec<TcpStream> = (0..2_000)
        .map(|number| {
            let mut connection = connect(&bench.backend);
            match number % 4 {
                0 => {}
                1 => connection.write_all(b"G").unwrap(),
                2 => connection
                    .write_all(b"GET /health HTTP/1.1\r\nX-Slow: 1\r\n")
                    .unwrap(),
                // A body of which nothing comes; nobody is logged in.
                _ => connection
                    .write_all(b"POST /login HTTP/1.1\r\nContent-Length: 9000\r\n\r\n")
                    .unwrap(),
            }
            connection
        })
        .collect();
    bench.backend.process.wait_for("they are all seen", || {
        (metric(&bench.backend, "av_backend_http_connections ") >= 1_000).then_some(())
    });
    let during = median_of_healthy(&bench);
    // Not a benchmark: a worker held by one of them would cost seconds.
    assert!(
        during < before * 20 + Duration::from_millis(500),
        "{during:?} instead of {before:?}"
    );
    // They go on slowly, and are closed all the same; the idle ones stay.
    bench
        .backend
        .process
        .wait_for("the slow heads are closed", || {
            for connection in held.iter_mut().skip(2).step_by(4) {
                let _ = connection.write_all(b"x");
            }
            (closed(&bench.backend, "slow_head") >= 1_000).then_some(())
        });
    assert!(start.elapsed() > Duration::from_secs(15), "not at once");
    median_of_healthy(&bench);
    let text = rest(&mut held[3]);
    assert!(
        text.starts_with("HTTP/1.1 408") || text.starts_with("HTTP/1.1 503"),
        "{text}"
    );
}

#[test]
fn file_descriptors_used_up_and_released_are_no_end() {
    const CANNOT_ACCEPT: &str = "the HTTP server cannot accept";
    let mut bench = Bench::start();
    let pid = bench.backend.process.id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let limit = Command::new("prlimit")
        .args(["--pid", &pid.to_string()])
        .arg(format!("--nofile={}:", open + 41))
        .status()
        .unwrap();
    assert!(limit.success());
    for _ in 0..3 {
        let before = closed(&bench.backend, "too_many");
        let mut held: Vec<TcpStream> = (0..150).map(|_| connect(&bench.backend)).collect();
        for connection in &mut held {
            let _ = connection.write_all(b"GET /health HTTP/1.1\r\n");
        }
        // It answers while they are held: the oldest of them make way.
        for _ in 0..20 {
            let mut connection = connect(&bench.backend);
            connection
                .write_all(b"GET /static/icon.svg HTTP/1.1\r\nConnection: close\r\n\r\n")
                .unwrap();
            let text = rest(&mut connection);
            assert!(text.starts_with("HTTP/1.1 200"), "{text:?}");
        }
        bench.backend.process.wait_for_log(CANNOT_ACCEPT, 1);
        drop(held);
        bench.backend.process.wait_for("they made way", || {
            (closed(&bench.backend, "too_many") >= before + 100).then_some(())
        });
    }
    for _ in 0..20 {
        bench.config();
    }
    // Said once a minute, not once a connection.
    assert!(bench.backend.process.log().matches(CANNOT_ACCEPT).count() < 10);
    assert!(bench.backend.process.is_running());
    assert_eq!(bench.backend.process.id(), pid);
}

#[test]
fn the_longest_idle_make_way_where_there_are_too_many() {
    let database = av_proto_tests::pg::Database::create();
    let backend = Backend::spawn(&database.url(), |command| {
        command.env("AV_CONNECTIONS", "16");
    });
    backend.wait_until_healthy();
    let mut held: Vec<TcpStream> = (0..60).map(|_| connect(&backend)).collect();
    backend.process.wait_for("the oldest are closed", || {
        (closed(&backend, "too_many") >= 40).then_some(())
    });
    let gone = held
        .iter_mut()
        .map(|connection| {
            connection.set_nonblocking(true).unwrap();
            connection.read(&mut [0])
        })
        .filter(|read| matches!(read, Ok(0)))
        .count();
    assert!(gone >= 40, "{gone}");
    // Whoever comes now is not among those that go.
    let mut newest = connect(&backend);
    newest
        .write_all(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!(rest(&mut newest).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_head_without_an_end_and_requests_without_patience_are_cut_off() {
    let bench = Bench::start();
    let floods: [(&str, &[u8], &str); 3] = [
        ("a header", b"GET / HTTP/1.1\r\nX: ", "flood"),
        ("headers", b"GET / HTTP/1.1\r\n", "flood"),
        // They wait in the peer's own buffers, which fill up.
        ("pipelined requests", b"", "slow_reader"),
    ];
    for (what, start, reason) in floods {
        let more: &[u8] = match what {
            "a header" => &[b'x'; 4096],
            "headers" => b"X-Header: some value that goes on and on\r\n",
            _ => b"GET /metrics HTTP/1.1\r\n\r\n",
        };
        let before = closed(&bench.backend, reason);
        let mut connection = connect(&bench.backend);
        connection.write_all(start).unwrap();
        let started = Instant::now();
        let mut sent = 0;
        while connection.write_all(more).is_ok() {
            sent += more.len();
            assert!(started.elapsed() < LIMIT, "{what}: {sent} bytes are taken");
        }
        bench.backend.process.wait_for("it is counted", || {
            (closed(&bench.backend, reason) > before).then_some(())
        });
        bench.config();
    }
}

/// Heads and framings that are wrong, each on a connection of its own: one
/// answer at most, with this status, and the connection ends. What stands
/// behind them is never taken for a request.
#[test]
fn what_does_not_say_where_it_ends_is_refused_with_all_that_follows() {
    let bench = Bench::start();
    let smuggled = format!("GET /config/{TOKEN} HTTP/1.1\r\nHost: a\r\n\r\n");
    let cases: [(&str, &str); 16] = [
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: +4\r\n\r\nabcd",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: -1\r\n\r\nabcd",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\nabcd",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: 0x4\r\n\r\nabcd",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /ingest HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /ingest HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("GET /health\r\n\r\n", "400"),
        ("\u{1}\u{2}\u{3}\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nno colon here\r\n\r\n", "400"),
        ("GET /health HTTP/1.1\r\nSpace : before\r\n\r\n", "400"),
        // A proxy that ends lines at a line feed alone sees a body here.
        (
            "GET /health HTTP/1.1\r\nA: b\nContent-Length: 400\r\n\r\n",
            "400",
        ),
        ("GET /health HTTP/1.1\r\nA\u{7}: b\r\n\r\n", "400"),
    ];
    for (head, status) in cases {
        let mut connection = connect(&bench.backend);
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(smuggled.as_bytes()).unwrap();
        let text = rest(&mut connection);
        let first = text
            .split_once(' ')
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        assert!(first.starts_with(status), "{head:?}: {text}");
        // Where what follows is no request either, that is said too.
        let answers = text.matches("HTTP/1.").count();
        assert_eq!(
            text.matches(" 400 Bad Request").count(),
            answers,
            "{head:?}: {text}"
        );
        assert!(!text.contains("site_name"), "{head:?}: {text}");
    }
    bench.config();
}

/// No memory is taken for a claim, and none is waited for.
#[test]
fn a_claim_of_more_than_memory_ends_nothing_whatever_is_asked() {
    let bench = Bench::start();
    let claim = "Content-Length: 1000000000000000\r\n\r\n";
    let mut waiting = Vec::new();
    for method in ["HEAD", "GET", "POST"] {
        for then in [None, Some(Shutdown::Write), Some(Shutdown::Both)] {
            for path in ["/health", "/ingest", "/nowhere"] {
                let mut connection = connect(&bench.backend);
                let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{claim}");
                connection.write_all(head.as_bytes()).unwrap();
                match then {
                    // Gone before it is answered, so that the answer fails.
                    Some(Shutdown::Both) => {
                        let socket = socket2::SockRef::from(&connection);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    Some(how) => connection.shutdown(how).unwrap(),
                    None => {}
                }
                if then != Some(Shutdown::Both) {
                    waiting.push(connection);
                }
            }
        }
    }
    // 304 has no body either.
    let tag = bench.backend.get(&format!("/config/{TOKEN}")).headers["etag"].clone();
    let mut connection = connect(&bench.backend);
    let head = format!("GET /config/{TOKEN} HTTP/1.1\r\nIf-None-Match: {tag}\r\n{claim}");
    connection.write_all(head.as_bytes()).unwrap();
    waiting.push(connection);
    for mut connection in waiting {
        let _ = rest(&mut connection);
    }
    bench.config();
    assert_eq!(
        bench
            .backend
            .process
            .log()
            .matches("memory allocation")
            .count(),
        0
    );
}

/// Some clients wait for a body whose length they are told.
#[test]
fn an_answer_without_a_body_tells_no_length() {
    let bench = Bench::start();
    let tag = bench.backend.get(&format!("/config/{TOKEN}")).headers["etag"].clone();
    let mut connection = connect(&bench.backend);
    let ask =
        |more: &str| format!("GET /config/{TOKEN} HTTP/1.1\r\nIf-None-Match: {tag}\r\n{more}\r\n");
    // Three on one connection: each ends where its head does.
    for more in ["", "TE: chunked\r\n", "Connection: close\r\n"] {
        connection.write_all(ask(more).as_bytes()).unwrap();
    }
    let text = rest(&mut connection);
    let heads: Vec<&str> = text.split_terminator("\r\n\r\n").collect();
    assert_eq!(heads.len(), 3, "{text}");
    for head in heads {
        assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{text}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains(&format!("\r\netag: {tag}")), "{text}");
        assert!(lower.contains("\r\ndate: "), "{text}");
        for field in ["content-length", "transfer-encoding", "content-type"] {
            assert!(!lower.contains(&format!("\r\n{field}:")), "{text}");
        }
    }
}

#[test]
fn bodies_that_stall_hold_nobody_up() {
    let bench = Bench::start();
    // More of them than there are threads, with a token that is right.
    let mut held: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut connection = connect(&bench.backend);
            let head = format!(
                "POST /ingest HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50000\r\n\r\n{{"
            );
            connection.write_all(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..20 {
        bench.config();
        assert_eq!(bench.backend.get("/health").status, 200);
    }
    // A short report comes with its head, and waits for no turn.
    let body = report(&[reported("10.0.0.1", "online", "ok")]);
    assert_eq!(bench.backend.ingest(TOKEN, &body).status, 200);
    // Whoever came first has a turn until it is cut off, in whatever order the
    // threads took them; the others are told that there is none.
    let answers: Vec<String> = held.iter_mut().map(rest).collect();
    let answered = |start| {
        let those = answers.iter().filter(|text| text.starts_with(start));
        those.count()
    };
    let (slow, busy) = (answered("HTTP/1.1 408"), answered("HTTP/1.1 503"));
    assert!(slow > 0 && busy > 0, "{answers:#?}");
    assert_eq!(slow + busy, answers.len(), "{answers:#?}");
    bench
        .backend
        .process
        .wait_for("the stalled are cut off", || {
            (closed(&bench.backend, "slow_body") >= 1).then_some(())
        });
    for connection in &held {
        let _ = connection.shutdown(Shutdown::Both);
    }
}

/// The name in `Host` tells a page of a stranger, which gave its own name this
/// address, from one of this server.
#[test]
fn a_strange_name_is_refused_and_an_agent_may_use_any() {
    let bench = Bench::start();
    let status = |path: &str, host: &str| {
        let mut connection = connect(&bench.backend);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        rest(&mut connection)
    };
    for path in ["/", "/login", "/health", "/metrics", "/devices", "/nowhere"] {
        let text = status(path, "evil.example:8000");
        assert!(text.starts_with("HTTP/1.1 421 "), "{path}: {text}");
        assert!(text.contains("AV_HOSTS"), "{text}");
        for host in ["localhost:8000", "127.0.0.1", "[::1]:8000"] {
            let text = status(path, host);
            assert!(!text.starts_with("HTTP/1.1 421 "), "{path} {host}: {text}");
        }
    }
    // A token tells whose request it is; a foreign page has none.
    let poll = status(&format!("/config/{TOKEN}"), "evil.example");
    assert!(poll.starts_with("HTTP/1.1 200 "), "{poll}");
    let with_any = "evil.example\r\nAuthorization: Bearer anything";
    let text = status("/login", with_any);
    assert!(text.starts_with("HTTP/1.1 421 "), "{text}");
}

/// Strangers have workers, queues and connections to the database of their own.
#[test]
fn strangers_that_log_in_hold_up_no_agent() {
    const STRANGERS: usize = 150;
    let bench = Bench::start();
    bench.config();
    let body = r#"{"name":"nobody","password":"wrong password"}"#;
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| connect(&bench.backend)).collect();
    let report = report(&[reported("10.0.0.1", "online", "ok")]);
    let mut answered = Vec::new();
    for round in 0..3 {
        for stranger in &mut strangers {
            stranger.write_all(login.as_bytes()).unwrap();
        }
        for _ in 0..20 {
            bench.config();
            assert_eq!(bench.backend.ingest(TOKEN, &report).status, 200, "{round}");
            assert_eq!(bench.backend.get("/health").status, 200, "{round}");
        }
        for stranger in &mut strangers {
            answered.push(one_status(stranger));
        }
    }
    // Each has an answer: wrong, too many, or not now.
    let counted = |status| answered.iter().filter(|one| **one == status).count();
    let (wrong, many, busy) = (counted(401), counted(429), counted(503));
    assert_eq!(wrong + many + busy, answered.len(), "{answered:?}");
    assert!(wrong > 0 && busy > 0, "{wrong} {many} {busy}");
}

/// Tokens that open nothing are looked up over connections of their own to the
/// database, however long that takes.
#[test]
fn wrong_tokens_take_no_connection_from_agents() {
    let database = av_proto_tests::pg::Database::create();
    // One connection for agents.
    let backend = Backend::spawn(&database.url(), |command| {
        command.env("AV_WORKERS", "1");
    });
    backend.wait_until_healthy();
    let known = "a".repeat(64);
    database.execute(&format!(
        "INSERT INTO sites (name, token) VALUES ('Paris', '{known}')"
    ));
    let report = serde_json::json!({"site_name": "Paris", "devices": []});
    assert_eq!(backend.ingest(&known, &report).status, 200);
    // A token that is not known takes its time.
    database.execute(
        "ALTER FUNCTION av_site_of_token(text) RENAME TO av_quick_site_of_token;
         CREATE FUNCTION av_site_of_token(wanted TEXT) RETURNS BIGINT LANGUAGE plpgsql AS $$
         BEGIN
             IF av_quick_site_of_token(wanted) IS NULL THEN PERFORM pg_sleep(1); END IF;
             RETURN av_quick_site_of_token(wanted);
         END $$",
    );
    let mut strangers: Vec<TcpStream> = (0..10)
        .map(|number| {
            let mut connection = connect(&backend);
            let token = format!("{number:064}");
            let path = match number % 2 {
                0 => "GET /config",
                _ => "POST /ingest",
            };
            let head =
                format!("{path} HTTP/1.1\r\nX-Site-Token: {token}\r\nContent-Length: 0\r\n\r\n");
            connection.write_all(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    let mut sql = database.connect();
    backend.process.wait_for("a lookup takes its time", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let sleeping: i64 = sql.query_one(query, &[]).unwrap().get(0);
        (sleeping > 0).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(backend.ingest(&known, &report).status, 200);
    }
    for stranger in &mut strangers {
        let status = one_status(stranger);
        assert!([401, 404, 503].contains(&status), "{status}");
    }
}

/// The status of the next answer, whose body is read too.
fn one_status(connection: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or_default();
    connection.read_exact(&mut vec![0; length]).unwrap();
    head["http/1.1 ".len()..][..3].parse().unwrap()
}
