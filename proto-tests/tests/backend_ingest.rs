//! `POST /ingest` and what comes of it: state, history, alerts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::io::{Read, Write};
use std::net::TcpStream;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend, LIMIT, backend_command};
use backend_support::{Bench, TOKEN, add_site, assert_error, numbered, observed, report, reported};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Tells the time so many seconds before now, the same now each time.
fn clock() -> impl Fn(i64) -> String {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    move |seconds| (now - SignedDuration::from_secs(seconds)).to_string()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// The history of a device, oldest first: time, status, verdict, detail.
fn history(bench: &mut Bench, ip: &str) -> Vec<(String, String, String)> {
    bench
        .sql
        .query(
            "SELECT to_char(observed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), status, verdict
               FROM observations WHERE ip = $1 ORDER BY observed_at",
            &[&ip],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

/// The alerts: device, open, why it was closed.
fn alerts(bench: &mut Bench) -> Vec<(String, bool, Option<String>)> {
    bench
        .sql
        .query(
            "SELECT device_ip, closed_at IS NULL, closed_by FROM alerts ORDER BY id",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[test]
fn a_report_becomes_the_devices_state() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    bench.add_device("10.0.0.2");
    let before = bench.device("10.0.0.1");
    assert_eq!(
        (&before["status"], &before["verdict"], &before["last_seen"]),
        (&json!("unknown"), &json!("unknown"), &Value::Null)
    );

    let sent = Timestamp::now() - SignedDuration::from_secs(5);
    let mut device = reported("10.0.0.1", "offline", "fault");
    device["detail"] = json!("no answer, lampe à 90 %");
    device["metrics"] = json!({"ts": "x", "pjlink_ok": false, "n": 12345678901234567890_u64});
    let answer = bench.ingest(&report(&[device, reported("10.0.0.2", "online", "ok")]));
    assert_eq!(answer, json!({"ok": true, "upserted": 2}));

    let state = bench.device("10.0.0.1");
    assert!(time(&state["observed_at"]) >= sent && time(&state["last_seen"]) >= sent);
    assert_eq!(
        state,
        json!({
            "site": "Paris", "id": state["id"], "ip": "10.0.0.1",
            // Configuration, untouched by what the agent believes.
            "name": "Projecteur", "building": "A", "floor": "1", "room": "101",
            "type": "projector", "driver": "pjlink",
            "status": "offline", "verdict": "fault", "detail": "no answer, lampe à 90 %",
            "metrics": {"ts": "x", "pjlink_ok": false, "n": 12345678901234567890_u64},
            "observed_at": state["observed_at"], "last_seen": state["last_seen"],
            "last_ok_at": null, "verdict_since": state["observed_at"],
            "stale": false,
        })
    );
    let second = bench.device("10.0.0.2");
    assert_eq!(second["last_ok_at"], second["observed_at"]);
    assert_eq!(bench.metric("av_backend_devices{verdict=\"fault\"}"), 1.0);
    assert_eq!(bench.metric("av_backend_devices{verdict=\"ok\"}"), 1.0);
    assert_eq!(bench.metric("av_backend_observations_total"), 2.0);
}

#[test]
fn nothing_that_a_report_says_reaches_the_configuration() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let dump = "SELECT string_agg(d::text, '; ' ORDER BY d.id) FROM devices d";
    let (devices, config): (String, _) = (bench.one(dump), bench.config());
    let sites: String = bench.one("SELECT string_agg(s::text, '; ') FROM sites s");
    bench.ingest(&report(&[
        reported("10.0.0.1", "online", "ok"),
        reported("10.0.0.77", "online", "ok"),
        reported("", "online", "ok")
            .as_object()
            .map(|device| {
                let mut device = device.clone();
                device.insert("ip".to_owned(), json!("10.0.0.78"));
                Value::Object(device)
            })
            .unwrap(),
    ]));
    assert_eq!(bench.one::<String>(dump), devices);
    assert_eq!(bench.config(), config);
    assert_eq!(
        bench.one::<String>("SELECT string_agg(s::text, '; ') FROM sites s"),
        sites
    );
}

#[test]
fn tokens_and_site_names() {
    let mut bench = Bench::start();
    add_site(&mut bench.sql, "Lyon", "lyon-token");
    let body = report(&[]).to_string();
    let without = bench
        .backend
        .request("POST", "/ingest", &[], Some(body.as_bytes()));
    assert_error(&without, 401, "X-Site-Token");
    assert_error(
        &bench.backend.ingest("wrong", &report(&[])),
        401,
        "X-Site-Token",
    );
    // Lyon's token does not report for Paris.
    assert_error(
        &bench.backend.ingest("lyon-token", &report(&[])),
        401,
        "not that of the site",
    );
    let mut elsewhere = report(&[]);
    elsewhere["site_name"] = json!("Nowhere");
    assert_error(
        &bench.backend.ingest(TOKEN, &elsewhere),
        404,
        "site_name: there is no such site",
    );
    assert_eq!(
        bench.ingest(&report(&[])),
        json!({"ok": true, "upserted": 0})
    );
}

#[test]
fn a_body_of_another_shape_is_refused_with_the_field_and_nothing_is_taken() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let good = reported("10.0.0.1", "online", "ok");
    let with = |field: &str, value: Value| {
        let mut device = good.clone();
        device[field] = value;
        report(&[good.clone(), device]).to_string()
    };
    for (body, said) in [
        ("".to_owned(), "document: is not JSON"),
        ("{".to_owned(), "document: is not JSON"),
        ("[]".to_owned(), "document: "),
        ("{}".to_owned(), "site_name"),
        (json!({"site_name": "Paris"}).to_string(), "devices"),
        (with("status", json!("up")), "devices[1].status: "),
        (with("verdict", json!("fine")), "devices[1].verdict: "),
        (with("ip", json!(7)), "devices[1].ip: "),
        (
            with("metrics", json!([])),
            "devices[1].metrics: is not an object",
        ),
        (
            with("detail", json!("x".repeat(281))),
            "devices[1].detail: has 281",
        ),
        (
            with("observed_at", json!("soon")),
            "devices[1].observed_at: ",
        ),
        // What JSON has and PostgreSQL has not.
        (
            with("metrics", json!({"s": "\0"})),
            "metrics: cannot be stored",
        ),
        (
            with("metrics", json!({"n": 1})).replace("\"n\":1", "\"n\":1e999999"),
            "metrics: cannot be stored",
        ),
        (
            with("metrics", json!({"n": 1})).replace("\"n\":1", "\"n\":\"\\ud800\""),
            "",
        ),
    ] {
        let answer = bench.backend.request(
            "POST",
            "/ingest",
            &[("X-Site-Token", TOKEN)],
            Some(body.as_bytes()),
        );
        assert_error(&answer, 400, said);
    }
    assert_eq!(bench.device("10.0.0.1")["last_seen"], Value::Null);
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM observations"), 0);
}

#[test]
fn bodies_past_the_limit_are_refused_whether_their_length_is_said_or_not() {
    let bench = Bench::start();
    let space = vec![b' '; 1 << 20];
    let send = |head: &str, chunked: bool| -> String {
        let address = bench.backend.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "POST /ingest HTTP/1.1\r\nHost: x\r\nX-Site-Token: {TOKEN}\r\n{head}\r\n\r\n"
        )
        .unwrap();
        if chunked {
            for _ in 0..9 {
                // The answer may come, and the connection end, before the end.
                let sent = write!(stream, "{:x}\r\n", space.len())
                    .and_then(|()| stream.write_all(&space))
                    .and_then(|()| stream.write_all(b"\r\n"));
                if sent.is_err() {
                    break;
                }
            }
        }
        let mut answer = Vec::new();
        let mut block = [0; 1024];
        while !String::from_utf8_lossy(&answer).contains("}") {
            match stream.read(&mut block) {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&block[..n]),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    for length in [
        (8_u64 << 20) + 1,
        100 << 20,
        // More than any memory has, and more than an address can count.
        1 << 50,
        u64::MAX,
    ] {
        let answer = send(&format!("Content-Length: {length}"), false);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
        assert!(answer.contains("the body is larger than 8"), "{answer}");
    }
    let answer = send("Transfer-Encoding: chunked", true);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Whoever has no token learns nothing of limits.
    let address = bench.backend.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        1_u64 << 50
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    // And the backend is well.
    assert_eq!(bench.backend.get("/health").status, 200);
    assert_eq!(
        bench.ingest(&report(&[])),
        json!({"ok": true, "upserted": 0})
    );
}

#[test]
fn a_chunked_body_is_taken() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let body = report(&[reported("10.0.0.1", "online", "ok")]).to_string();
    let address = bench.backend.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "POST /ingest HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Site-Token: {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    for part in body.as_bytes().chunks(50) {
        write!(stream, "{:x}\r\n", part.len()).unwrap();
        stream.write_all(part).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(r#"{"ok":true,"upserted":1}"#), "{answer}");
}

#[test]
fn senders_that_stall_leave_workers_for_everybody_else() {
    let bench = Bench::start();
    let address = bench.backend.url.strip_prefix("http://").unwrap();
    // More than there are workers.
    let stalled: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(
                stream,
                "POST /ingest HTTP/1.1\r\nHost: x\r\nX-Site-Token: {TOKEN}\r\nContent-Length: 5000\r\n\r\n{{"
            )
            .unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(bench.backend.get("/health").status, 200);
        assert_eq!(bench.config()["site_name"], "Paris");
    }
    drop(stalled);
    bench
        .backend
        .process
        .wait_for("reports are taken again", || {
            (bench.backend.ingest(TOKEN, &report(&[])).status == 200).then_some(())
        });
}

#[test]
fn a_report_that_is_sent_again_is_taken_once() {
    let mut bench = Bench::start();
    let ago = clock();
    bench.add_device("10.0.0.1");
    let taken = json!({"ok": true, "upserted": 1});
    let repeated = json!({"ok": true, "upserted": 0, "duplicate": true});
    let send = |bench: &Bench, stream: &str, seq: u64, status: &str, seconds: i64| {
        bench.ingest(&numbered(
            &[observed("10.0.0.1", status, "ok", &ago(seconds))],
            stream,
            seq,
        ))
    };
    assert_eq!(send(&bench, "s1", 1, "online", 400), taken);
    assert_eq!(send(&bench, "s1", 1, "offline", 390), repeated);
    assert_eq!(send(&bench, "s1", 3, "online", 300), taken);
    assert_eq!(send(&bench, "s1", 2, "offline", 290), repeated);
    assert_eq!(bench.device("10.0.0.1")["status"], "online");
    assert_eq!(history(&mut bench, "10.0.0.1").len(), 1);
    // Another spool, made after the agent's disk was lost, starts from 1.
    assert_eq!(send(&bench, "s2", 1, "offline", 200), taken);
    assert_eq!(send(&bench, "s1", 4, "online", 100), taken);
    assert_eq!(
        bench.metric("av_backend_reports_total{result=\"repetition\"}"),
        2.0
    );
    // A site's streams are its own.
    add_site(&mut bench.sql, "Lyon", "lyon-token");
    let mut lyon = numbered(&[], "s1", 1);
    lyon["site_name"] = json!("Lyon");
    assert_eq!(
        bench.backend.ingest("lyon-token", &lyon).json(),
        json!({"ok": true, "upserted": 0})
    );
}

#[test]
fn of_the_same_report_sent_many_times_at_once_one_is_taken() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    for seq in 1..=10 {
        let body = numbered(&[reported("10.0.0.1", "online", "ok")], "s", seq);
        let duplicates = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| bench.backend.ingest(TOKEN, &body).json()["duplicate"] == true)
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(|duplicate| *duplicate)
                .count()
        });
        assert_eq!(duplicates, 7, "report {seq}");
    }
}

#[test]
fn a_refused_report_does_not_use_up_its_place() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let mut bad = reported("10.0.0.1", "online", "ok");
    bad["metrics"] = json!({"s": "\0"});
    assert_eq!(
        bench
            .backend
            .ingest(TOKEN, &numbered(&[bad], "s", 1))
            .status,
        400
    );
    let good = numbered(&[reported("10.0.0.1", "online", "ok")], "s", 1);
    assert_eq!(bench.ingest(&good), json!({"ok": true, "upserted": 1}));
}

#[test]
fn a_replay_lands_in_the_history_at_its_own_time_and_leaves_the_state_alone() {
    let mut bench = Bench::start();
    let ago = clock();
    bench.add_device("10.0.0.1");
    let (old, older, new) = (ago(3000), ago(6000), ago(10));
    bench.ingest(&report(&[observed("10.0.0.1", "offline", "fault", &new)]));
    bench.ingest(&report(&[observed("10.0.0.1", "online", "ok", &old)]));
    bench.ingest(&report(&[observed(
        "10.0.0.1", "offline", "unknown", &older,
    )]));
    let state = bench.device("10.0.0.1");
    assert_eq!(
        (&state["status"], &state["verdict"]),
        (&json!("offline"), &json!("fault"))
    );
    assert_eq!(time(&state["observed_at"]), new.parse().unwrap());
    // The replay did find it online, and that counts.
    assert_eq!(time(&state["last_ok_at"]), old.parse().unwrap());
    let row = |at: &str, status: &str, verdict: &str| {
        (at.to_owned(), status.to_owned(), verdict.to_owned())
    };
    assert_eq!(
        history(&mut bench, "10.0.0.1"),
        [
            row(&older, "offline", "unknown"),
            row(&old, "online", "ok"),
            row(&new, "offline", "fault"),
        ]
    );
    // The same replay again, from an older agent without report ids.
    bench.ingest(&report(&[observed("10.0.0.1", "online", "ok", &old)]));
    assert_eq!(history(&mut bench, "10.0.0.1").len(), 3);
    // The alert that is open stays so.
    assert_eq!(alerts(&mut bench), [("10.0.0.1".to_owned(), true, None)]);
}

#[test]
fn of_several_observations_of_a_device_in_one_report_the_newest_is_its_state() {
    let mut bench = Bench::start();
    let ago = clock();
    bench.add_device("10.0.0.1");
    let answer = bench.ingest(&report(&[
        observed("10.0.0.1", "offline", "fault", &ago(20)),
        observed("10.0.0.1", "online", "ok", &ago(300)),
        observed("10.0.0.1", "offline", "unknown", &ago(100)),
        observed("10.0.0.1", "offline", "unknown", &ago(60)),
    ]));
    assert_eq!(answer, json!({"ok": true, "upserted": 1}));
    let state = bench.device("10.0.0.1");
    assert_eq!(state["verdict"], "fault");
    assert_eq!(time(&state["last_ok_at"]), ago(300).parse().unwrap());
    let verdicts: Vec<String> = history(&mut bench, "10.0.0.1")
        .into_iter()
        .map(|(_, _, verdict)| verdict)
        .collect();
    assert_eq!(verdicts, ["ok", "unknown", "fault"]);
}

#[test]
fn the_history_has_each_change_and_one_row_an_hour() {
    let mut bench = Bench::start();
    let ago = clock();
    bench.add_device("10.0.0.1");
    let mut detail = observed("10.0.0.1", "online", "ok", &ago(2 * 3600));
    detail["detail"] = json!("lamp 1: 2000 h");
    for (device, rows) in [
        (observed("10.0.0.1", "online", "ok", &ago(4 * 3600)), 1),
        (
            observed("10.0.0.1", "online", "ok", &ago(4 * 3600 - 300)),
            1,
        ),
        (observed("10.0.0.1", "online", "ok", &ago(3 * 3600 + 1)), 1),
        (observed("10.0.0.1", "online", "ok", &ago(3 * 3600)), 2),
        (
            observed("10.0.0.1", "online", "ok", &ago(3 * 3600 - 300)),
            2,
        ),
        (detail, 3),
        (observed("10.0.0.1", "offline", "unknown", &ago(3600)), 4),
        (observed("10.0.0.1", "offline", "fault", &ago(3300)), 5),
        (observed("10.0.0.1", "offline", "fault", &ago(3000)), 5),
    ] {
        bench.ingest(&report(std::slice::from_ref(&device)));
        assert_eq!(history(&mut bench, "10.0.0.1").len(), rows, "{device}");
    }
    let state = bench.device("10.0.0.1");
    assert_eq!(time(&state["verdict_since"]), ago(3300).parse().unwrap());
    let since: String = bench.one("SELECT to_char(status_since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM device_states");
    assert_eq!(since, ago(3600));
}

#[test]
fn a_wrong_clock_spoils_nothing() {
    let mut bench = Bench::start();
    let ago = clock();
    bench.add_device("10.0.0.1");
    let started = Timestamp::now() - SignedDuration::from_secs(1);
    for at in ["1970-01-01T00:00:30Z", "2100-01-01T00:00:00Z"] {
        bench.ingest(&report(&[observed("10.0.0.1", "online", "ok", at)]));
        let seen = time(&bench.device("10.0.0.1")["observed_at"]);
        assert!(seen >= started && seen <= Timestamp::now(), "{at}");
    }
    // Some hours fast, then put right: the next report counts again.
    bench.ingest(&report(&[observed(
        "10.0.0.1",
        "online",
        "ok",
        &ago(-7200),
    )]));
    bench.ingest(&report(&[observed(
        "10.0.0.1",
        "offline",
        "fault",
        &ago(0),
    )]));
    assert_eq!(bench.device("10.0.0.1")["verdict"], "fault");
}

#[test]
fn alerts_open_with_a_fault_and_close_when_it_is_over() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    bench.add_device("10.0.0.2");
    let open = |ip: &str| (ip.to_owned(), true, None);
    let closed = |ip: &str, by: &str| (ip.to_owned(), false, Some(by.to_owned()));
    for (verdict, expected) in [
        ("unknown", vec![]),
        ("fault", vec![open("10.0.0.1")]),
        ("fault", vec![open("10.0.0.1")]),
        // Neither says that the fault is over.
        ("doubt", vec![open("10.0.0.1")]),
        ("unknown", vec![open("10.0.0.1")]),
        ("fault", vec![open("10.0.0.1")]),
        ("ok", vec![closed("10.0.0.1", "ok")]),
        ("ok", vec![closed("10.0.0.1", "ok")]),
        ("fault", vec![closed("10.0.0.1", "ok"), open("10.0.0.1")]),
        (
            "expected_off",
            vec![closed("10.0.0.1", "ok"), closed("10.0.0.1", "expected_off")],
        ),
    ] {
        bench.ingest(&report(&[
            reported("10.0.0.1", "offline", verdict),
            reported("10.0.0.2", "online", "ok"),
        ]));
        assert_eq!(alerts(&mut bench), expected, "after {verdict}");
    }
    // A device that is deleted is not in fault; what was stays.
    bench.ingest(&report(&[reported("10.0.0.2", "offline", "fault")]));
    assert_eq!(bench.metric("av_backend_alerts_open"), 1.0);
    bench
        .sql
        .batch_execute("DELETE FROM devices WHERE ip = '10.0.0.2'")
        .unwrap();
    assert_eq!(alerts(&mut bench)[2], closed("10.0.0.2", "deleted"));
    assert!(!history(&mut bench, "10.0.0.2").is_empty());
    // And a site that is deleted takes all with it but the history.
    bench.sql.batch_execute("DELETE FROM sites").unwrap();
    assert_eq!(alerts(&mut bench), []);
}

#[test]
fn the_agents_own_state_is_kept() {
    let mut bench = Bench::start();
    let mut body = report(&[]);
    body["agent"] = json!({
        "version": "1.2.3", "config_hash": "0123456789abcdef0123456789abcdef",
        "started_at": "2026-11-24T10:00:00Z", "config_error": "config_hash:\u{0}x",
        "rejected_devices": [{"ip": "10.0.0.9", "problem": "ip: no"}],
        "dropped_reports": 3, "something_new": true,
    });
    bench.ingest(&body);
    let row = bench
        .sql
        .query_one(
            "SELECT version, running_hash, config_error, rejected_devices::text, dropped_reports FROM site_agents",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "1.2.3");
    assert_eq!(row.get::<_, String>(1), "0123456789abcdef0123456789abcdef");
    assert_eq!(row.get::<_, String>(2), "config_hash:\u{fffd}x");
    assert!(row.get::<_, String>(3).contains("10.0.0.9"));
    assert_eq!(row.get::<_, i64>(4), 3);
    // An older agent says nothing of itself, and that forgets nothing.
    bench.ingest(&report(&[]));
    assert_eq!(
        bench.one::<String>("SELECT version FROM site_agents"),
        "1.2.3"
    );
}

#[test]
fn devices_come_and_go_while_reports_arrive() {
    let mut bench = Bench::start();
    let devices: Vec<Value> = (0..50)
        .map(|i| reported(&format!("10.0.0.{i}"), "offline", "fault"))
        .collect();
    let body = report(&devices);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..15 {
                        let answer = bench.backend.ingest(TOKEN, &body);
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                })
            })
            .collect();
        let mut sql = bench.db.connect();
        let mut round = 0;
        while senders.iter().any(|sender| !sender.is_finished()) {
            // Deadlocks of our own making would end one of the two.
            sql.batch_execute(
                "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', '10.0.0.' || i FROM sites, generate_series(0, 49) i ON CONFLICT DO NOTHING",
            )
            .unwrap();
            let which = if round % 2 == 0 {
                "ip LIKE '%7'"
            } else {
                "true"
            };
            sql.batch_execute(&format!("DELETE FROM devices WHERE {which}"))
                .unwrap();
            round += 1;
        }
    });
    bench.sql.batch_execute("DELETE FROM devices").unwrap();
    assert_eq!(
        bench.one::<i64>("SELECT count(*) FROM alerts WHERE closed_at IS NULL"),
        0
    );
}

#[test]
fn a_report_of_two_thousand_devices_takes_few_statements() {
    let mut bench = Bench::start();
    bench
        .sql
        .batch_execute(
            "INSERT INTO devices (site_id, name, ip)
             SELECT id, 'P', '10.' || i / 250 || '.0.' || i % 250 FROM sites, generate_series(1, 2000) i;
             CREATE TABLE counted (n bigint);
             CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO counted VALUES (1); RETURN NULL; END';
             CREATE TRIGGER counting AFTER INSERT OR UPDATE ON device_states
                 FOR EACH STATEMENT EXECUTE FUNCTION count_it()",
        )
        .unwrap();
    let devices: Vec<Value> = (1..=2000)
        .map(|i| reported(&format!("10.{}.0.{}", i / 250, i % 250), "offline", "fault"))
        .collect();
    let answer = bench.ingest(&report(&devices));
    assert_eq!(answer, json!({"ok": true, "upserted": 2000}));
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM device_states"), 2000);
    assert_eq!(bench.one::<i64>("SELECT count(*) FROM alerts"), 2000);
    // An INSERT with ON CONFLICT fires for both.
    assert!(bench.one::<i64>("SELECT count(*) FROM counted") <= 2);
}

#[test]
fn devices_are_listed_by_site_name_or_id_and_without_their_secrets() {
    let mut bench = Bench::start();
    let lyon = add_site(&mut bench.sql, "Lyon & Évry", "lyon-token");
    bench
        .sql
        .execute(
            "INSERT INTO devices (site_id, name, ip, driver_config) VALUES ($1, 'L', '10.9.0.1', '{\"pjlink\": {\"password\": \"hunter2\"}}')",
            &[&lyon],
        )
        .unwrap();
    bench.add_device("10.0.0.1");
    let cookie = session(&mut bench.sql);
    let user = ("Cookie", cookie.as_str());
    let ask = |path: &str, who: &[(&str, &str)]| bench.backend.request("GET", path, who, None);
    let ips = |path: &str, who: (&str, &str)| -> Vec<String> {
        let answer = ask(path, &[who]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.body.contains("hunter2") && !answer.body.contains("driver_config"));
        answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["ip"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ips("/devices", user), ["10.9.0.1", "10.0.0.1"]);
    assert_eq!(ips("/devices?site=", user), ["10.9.0.1", "10.0.0.1"]);
    assert_eq!(ips("/devices?site=Paris", user), ["10.0.0.1"]);
    assert_eq!(
        ips("/devices?site=Lyon+%26%20%C3%89vry", user),
        ["10.9.0.1"]
    );
    assert_eq!(ips(&format!("/devices?site={lyon}"), user), ["10.9.0.1"]);
    assert_error(&ask("/devices?site=Nowhere", &[user]), 404, "no such site");
    for bad in ["limit=0", "limit=5001", "limit=x", "after=-1"] {
        assert_error(
            &ask(&format!("/devices?{bad}"), &[user]),
            400,
            "is no number",
        );
    }

    // A site's token shows its own site, and not whether there is another.
    let site = ("X-Site-Token", TOKEN);
    let bearer = format!("Bearer {TOKEN}");
    for path in [
        "/devices",
        "/devices?site=Paris",
        &format!("/devices?site={}", bench.site),
    ] {
        assert_eq!(ips(path, site), ["10.0.0.1"]);
        assert_eq!(ips(path, ("Authorization", &bearer)), ["10.0.0.1"]);
    }
    for path in ["/devices?site=Nowhere", &format!("/devices?site={lyon}")] {
        assert_error(&ask(path, &[site]), 403, "another site's");
    }
    // To everybody else nothing is said.
    for who in [
        &[][..],
        &[("X-Site-Token", "wrong")],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Bearer avt_0")],
        &[("Cookie", "av_session=0")],
    ] {
        let answer = ask("/devices", who);
        assert_error(&answer, 401, "");
        assert!(
            answer.headers.contains_key("www-authenticate"),
            "{answer:?}"
        );
    }
}

/// The cookie of a session of a viewer.
fn session(sql: &mut postgres::Client) -> String {
    sql.batch_execute(
        "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ('viewer', 'none', 'viewer')
                    RETURNING id)
         INSERT INTO sessions (digest, user_id, expires_at, ip)
         SELECT 'sha256:' || encode(sha256('0123456789abcdef'), 'hex'), id,
                now() + interval '1 hour', '' FROM u",
    )
    .unwrap();
    "av_session=0123456789abcdef".to_owned()
}

#[test]
fn a_long_list_comes_page_by_page_and_each_device_once() {
    let mut bench = Bench::start();
    bench
        .sql
        .batch_execute(
            "INSERT INTO devices (site_id, name, ip)
             SELECT s.id, 'd' || n, '10.0.' || n / 200 || '.' || n % 200
               FROM sites s, generate_series(1, 1300) n",
        )
        .unwrap();
    let cookie = session(&mut bench.sql);
    let get = |path: &str| {
        let answer = bench
            .backend
            .request("GET", path, &[("Cookie", &cookie)], None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let ids = |answer: &Answer| -> Vec<i64> {
        let devices = answer.json();
        let devices = devices.as_array().unwrap();
        devices
            .iter()
            .map(|device| device["id"].as_i64().unwrap())
            .collect()
    };
    // All at once is sent while it is read from the database.
    let whole = get("/devices");
    assert!(
        !whole.headers.contains_key("content-length"),
        "{:?}",
        whole.headers
    );
    let all = ids(&whole);
    assert_eq!(all.len(), 1300);
    assert!(all.is_sorted());
    let head = bench
        .backend
        .request("HEAD", "/devices", &[("Cookie", &cookie)], None);
    assert_eq!((head.status, head.body.as_str()), (200, ""));

    let mut pages = Vec::new();
    let mut next = Some("/devices?limit=500&site=Paris".to_owned());
    while let Some(path) = next {
        let answer = get(&path);
        pages.push(ids(&answer));
        next = answer.headers.get("link").map(|link| {
            let (path, rest) = link.split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            path.strip_prefix('<').unwrap().to_owned()
        });
    }
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [500, 500, 300]);
    assert_eq!(pages.concat(), all);
    // A page that ends with the list has none behind it.
    assert!(!get("/devices?limit=1300").headers.contains_key("link"));
}

#[test]
fn metrics_have_counts_for_all_and_a_series_a_device_for_the_token() {
    let db = Database::create();
    let refused = backend_command(&db.url())
        .arg("serve")
        .env("AV_METRICS_TOKEN", "short")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_METRICS_TOKEN", "prometheus-of-paris");
    });
    backend.wait_until_healthy();
    let mut sql = db.connect();
    let site = add_site(&mut sql, "Paris", TOKEN);
    sql.execute(
        "INSERT INTO devices (site_id, name, ip, room, device_type, driver)
         SELECT $1, 'd' || n, '10.0.0.' || n, 'A\"1', 'projector', 'ping'
           FROM generate_series(1, 4) n",
        &[&site],
    )
    .unwrap();
    let mut devices = vec![
        reported("10.0.0.1", "online", "ok"),
        reported("10.0.0.2", "offline", "fault"),
        reported("10.0.0.3", "online", "ok"),
    ];
    devices[0]["metrics"]["ping_rtt_avg_ms"] = json!(12.5);
    devices[0]["metrics"]["pjlink_power"] = json!(1);
    devices[2]["metrics"]["ping_rtt_avg_ms"] = json!("quick");
    let taken = backend.ingest(TOKEN, &report(&devices));
    assert_eq!(taken.status, 200, "{taken:?}");

    let open = backend.get("/metrics");
    assert_eq!(open.status, 200);
    assert!(
        open.body
            .contains("av_backend_devices{verdict=\"fault\"} 1")
    );
    for inside in ["10.0.0.", "Paris", "av_device_"] {
        assert!(!open.body.contains(inside), "{inside} in\n{}", open.body);
    }
    let with = |token: &str| {
        let bearer = format!("Bearer {token}");
        backend.request("GET", "/metrics", &[("Authorization", &bearer)], None)
    };
    assert_error(&with("prometheus-of-lyon"), 401, "AV_METRICS_TOKEN");
    assert_error(&with(TOKEN), 401, "AV_METRICS_TOKEN");
    let text = with("prometheus-of-paris").body;
    let labels = |n: u8| {
        format!(
            "{{site=\"Paris\",ip=\"10.0.0.{n}\",name=\"d{n}\",building=\"\",floor=\"\",\
             room=\"A\\\"1\",type=\"projector\",driver=\"ping\""
        )
    };
    for line in [
        format!("av_device_up{}}} 1", labels(1)),
        format!("av_device_up{}}} 0", labels(2)),
        format!("av_device_verdict{},verdict=\"fault\"}} 1", labels(2)),
        format!("av_device_ping_rtt_seconds{}}} 0.0125", labels(1)),
        format!("av_device_pjlink_power{}}} 1", labels(1)),
        "av_backend_devices{verdict=\"ok\"} 2".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    assert_eq!(text.matches("av_device_ping_rtt_seconds{").count(), 1);
    // Of a device that was never reported nothing is known.
    assert!(!text.contains("10.0.0.4"), "{text}");
    // The samples of a family follow each other, and it comes once.
    let families: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), families.len());
}

#[test]
fn what_is_not_there_or_not_allowed_is_said_in_json() {
    let bench = Bench::start();
    for (method, path, status) in [
        ("GET", "/config/", 404),
        ("GET", "/config/a/b", 404),
        ("GET", "/ingest", 405),
        ("POST", "/config/x", 405),
        ("GET", "/config", 401),
        ("POST", "/config", 405),
        ("DELETE", "/devices", 405),
        ("PUT", "/health", 405),
        ("PATCH", "/devices/3", 405),
        ("PUT", "/sites/1/devices/2", 405),
        ("POST", "/", 405),
        ("POST", "/openapi.json", 405),
        ("PATCH", "/login", 405),
        ("GET", "/logout", 405),
        ("PUT", "/enroll", 405),
        ("DELETE", "/static/app.js", 405),
    ] {
        let body = (method != "GET").then_some(&b"{}"[..]);
        let answer = bench.backend.request(method, path, &[], body);
        assert_error(&answer, status, "");
        assert_eq!(
            answer.headers.contains_key("allow"),
            status == 405,
            "{path}"
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let head = bench.backend.request("HEAD", "/health", &[], None);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let health = bench.backend.get("/health").json();
    assert_eq!(
        (&health["status"], &health["database"]),
        (&json!("ok"), &json!("ok"))
    );
    let metrics = bench.backend.get("/metrics");
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    assert!(
        metrics
            .body
            .contains("av_backend_http_requests_total{route=\"/ingest\",code=\"405\"} 1")
    );
    assert!(metrics.body.contains("av_backend_database_up 1"));
}

#[test]
fn an_agent_that_wants_to_change_its_configuration_is_told_that_it_cannot() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let before = bench.config();
    let body = br#"{"driver_config": {"pjlink": {"password": "hunter2"}}}"#;
    for (method, path) in [
        ("PATCH", "/devices/1"),
        ("PUT", "/devices/10.0.0.1/driver_config"),
        ("DELETE", "/sites/1/devices/1"),
        ("PATCH", &format!("/config/{TOKEN}")),
        ("PATCH", &format!("/config/{TOKEN}/devices/1")),
        ("PATCH", "/api/devices/1"),
        ("PUT", "/ingest"),
    ] {
        let answer = bench
            .backend
            .request(method, path, &[("X-Site-Token", TOKEN)], Some(body));
        assert_error(&answer, 405, "comes from this server and never goes to it");
        assert!(answer.headers.contains_key("allow"), "{path}");
    }
    assert_eq!(bench.config(), before);
    let process = &bench.backend.process;
    process.wait_for_log(
        "the agent of site Paris wants to change its configuration (PATCH pages): refused",
        1,
    );
    // As the agent of the Python system does: the token in the path alone, and
    // again with each try.
    for (token, who) in [
        (TOKEN, "the agent of site Paris"),
        ("no-such-token", "an agent whose token is not known"),
    ] {
        for _ in 0..3 {
            let path = format!("/config/{token}/device/10.0.0.1");
            let answer = bench.backend.request("PATCH", &path, &[], Some(body));
            assert_error(&answer, 405, "comes from this server and never goes to it");
        }
        let line = format!("{who} wants to change its configuration (PATCH /config/...): refused");
        process.wait_for_log(&line, 1);
        assert_eq!(process.log().matches(&line).count(), 1);
    }
    let looked = bench
        .backend
        .get(&format!("/config/{TOKEN}/device/10.0.0.1"));
    assert_error(&looked, 404, "there is nothing here");
    assert_eq!(bench.config(), before);
    let log = process.log();
    assert!(!log.contains(TOKEN) && !log.contains("hunter2"), "{log}");
    assert!(!log.contains("no-such-token"), "{log}");
}
