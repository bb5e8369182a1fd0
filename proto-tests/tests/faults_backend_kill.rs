//! `kill -9` of the backend in the middle of ingest, again and again: a report
//! that was acknowledged with 200 is in the history exactly once, and one that
//! its agent sends again is not in it twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use av_proto_tests::faults::full;
use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, free_port, http, wait_for};
use backend_support::{TOKEN, add_site, numbered, observed, reported};
use postgres::Client;
use serde_json::Value;

/// Agents that report at the same time, each with a spool of its own.
const AGENTS: usize = 6;

fn kills() -> usize {
    if full() { 200 } else { 50 }
}

/// Report `seq` of an agent. Each differs from the one before, so that each
/// is a row of the history. Every other agent says when it observed; of the
/// others a report that is taken twice would have two times.
fn report(agent: usize, seq: u64) -> Value {
    let ip = format!("10.0.0.{agent}");
    let (status, verdict) = match seq % 2 {
        0 => ("online", "ok"),
        _ => ("offline", "fault"),
    };
    let mut device = if agent % 2 == 0 {
        let at = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            seq / 3600,
            seq / 60 % 60,
            seq % 60
        );
        observed(&ip, status, verdict, &at)
    } else {
        reported(&ip, status, verdict)
    };
    device["detail"] = format!("report {seq}").into();
    numbered(&[device], &format!("spool-{agent}"), seq)
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    /// Requests that the kill cut off.
    cut: AtomicUsize,
    /// Reports that had been taken without the agent hearing of it.
    repeated: AtomicUsize,
}

/// Sends the reports of an agent one after the other, each until it is
/// acknowledged, as the agent's spool does; answers how many were.
fn send(url: &str, agent: usize, counts: &Counts, stop: &AtomicBool) -> u64 {
    let mut seq = 0;
    loop {
        let body = report(agent, seq + 1).to_string();
        loop {
            if stop.load(Ordering::Relaxed) {
                return seq;
            }
            let answer = http(
                "POST",
                &format!("{url}/ingest"),
                &[("X-Site-Token", TOKEN)],
                Some(body.as_bytes()),
            );
            match answer {
                Ok(answer) if answer.status == 200 => {
                    if answer.json()["duplicate"] == true {
                        counts.repeated.fetch_add(1, Ordering::Relaxed);
                    }
                    break;
                }
                // Not before the schema was looked at.
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(ureq::Error::ConnectionFailed) => {}
                Err(ureq::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => {
                    counts.cut.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        seq += 1;
        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn texts(sql: &mut Client, query: &str, ip: &str) -> Vec<String> {
    sql.query(query, &[&ip])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn what_was_acknowledged_is_there_once_however_often_the_backend_is_killed() {
    let db = Database::create();
    let listen = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{listen}");
    let start = || {
        let mut backend = Backend::spawn(&db.url(), |command| {
            command.env("AV_LISTEN", &listen);
        });
        backend.url.clone_from(&url);
        backend
    };
    let mut backend = start();
    backend.wait_until_healthy();
    let mut sql = db.connect();
    add_site(&mut sql, "Paris", TOKEN);
    for agent in 0..AGENTS {
        sql.execute(
            "INSERT INTO devices (site_id, name, ip)
             SELECT id, 'P' || $1, '10.0.0.' || $1 FROM sites",
            &[&agent.to_string()],
        )
        .unwrap();
    }

    let counts = Counts::default();
    let stop = AtomicBool::new(false);
    let acknowledged = || counts.acknowledged.load(Ordering::Relaxed);
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let agents: Vec<_> = (0..AGENTS)
            .map(|agent| {
                let (url, counts, stop) = (&url, &counts, &stop);
                scope.spawn(move || send(url, agent, counts, stop))
            })
            .collect();
        for kill in 0..kills() {
            // Each time after some were taken, and at another moment.
            let before = acknowledged();
            wait_for(
                "reports are taken again",
                || backend.process.log(),
                || (acknowledged() > before + AGENTS).then_some(()),
            );
            std::thread::sleep(Duration::from_millis((kill * 7 % 40) as u64));
            backend.process.kill();
            backend = start();
        }
        let before = acknowledged();
        wait_for(
            "reports are taken after the last kill",
            || backend.process.log(),
            || (acknowledged() > before + AGENTS).then_some(()),
        );
        stop.store(true, Ordering::Relaxed);
        agents
            .into_iter()
            .map(|agent| agent.join().unwrap())
            .collect()
    });
    println!(
        "{} kills, {} reports acknowledged, {} requests cut off, {} of them taken before",
        kills(),
        acknowledged(),
        counts.cut.load(Ordering::Relaxed),
        counts.repeated.load(Ordering::Relaxed)
    );
    assert!(
        counts.cut.load(Ordering::Relaxed) > 0,
        "no kill hit a request"
    );
    for (agent, seq) in sent.into_iter().enumerate() {
        let ip = format!("10.0.0.{agent}");
        let mut expected: Vec<String> = (1..=seq).map(|n| format!("report {n}")).collect();
        let found = texts(
            &mut sql,
            "SELECT detail FROM observations WHERE ip = $1 ORDER BY observed_at, received_at",
            &ip,
        );
        // The last one may have been taken without an answer.
        if found.len() > expected.len() {
            expected.push(format!("report {}", seq + 1));
        }
        assert_eq!(found, expected, "agent {agent}");
        // Of each fault one alert.
        let alerts = texts(
            &mut sql,
            "SELECT a.id::text FROM alerts a JOIN devices d ON d.id = a.device_id WHERE d.ip = $1",
            &ip,
        );
        assert_eq!(alerts.len(), found.len().div_ceil(2), "agent {agent}");
    }
}
