//! PostgreSQL slow, locked, without a free connection, and restarted, each in
//! the middle of ingest: 503 with `Retry-After` until it is over, nothing that
//! was acknowledged is lost, nothing is taken twice, and nobody restarts the
//! backend.

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
use av_proto_tests::pg::{Cluster, Database};
use av_proto_tests::process::{Backend, wait_for};
use backend_support::{TOKEN, add_site, numbered, reported};
use postgres::{Client, NoTls};

const AGENTS: usize = 4;

#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

/// Sends reports one after the other, each until it is acknowledged; answers
/// how many were.
fn send(backend: &Backend, agent: usize, counts: &Counts, stop: &AtomicBool) -> u64 {
    let mut seq = 0;
    loop {
        let (status, verdict) = [("online", "ok"), ("offline", "unknown")][(seq % 2) as usize];
        let mut device = reported(&format!("10.0.0.{agent}"), status, verdict);
        device["detail"] = format!("report {}", seq + 1).into();
        let body = numbered(&[device], &format!("spool-{agent}"), seq + 1);
        loop {
            if stop.load(Ordering::Relaxed) {
                return seq;
            }
            let answer = backend.ingest(TOKEN, &body);
            if answer.status == 200 {
                break;
            }
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            assert!(
                answer.json()["error"]
                    .as_str()
                    .unwrap()
                    .contains("database")
            );
            counts.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        seq += 1;
        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has agents report while `fault` does its worst, several times, and checks
/// the history afterwards; answers how many requests were refused.
fn reports_go_on(
    cluster: &Cluster,
    db: &Database<'_>,
    rounds: usize,
    fault: impl Fn(&Faulty<'_>),
) -> usize {
    let mut backend = Backend::start(&db.url());
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
    drop(sql);
    let counts = Counts::default();
    let stop = AtomicBool::new(false);
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let agents: Vec<_> = (0..AGENTS)
            .map(|agent| {
                let (backend, counts, stop) = (&backend, &counts, &stop);
                scope.spawn(move || send(backend, agent, counts, stop))
            })
            .collect();
        let taken = |more: usize| {
            let before = counts.acknowledged.load(Ordering::Relaxed);
            wait_for(
                "reports are taken again",
                || backend.process.log(),
                || (counts.acknowledged.load(Ordering::Relaxed) >= before + more).then_some(()),
            );
        };
        for _ in 0..rounds {
            taken(AGENTS * 2);
            fault(&Faulty {
                cluster,
                db,
                counts: &counts,
                backend: &backend,
            });
        }
        taken(AGENTS * 2);
        stop.store(true, Ordering::Relaxed);
        agents
            .into_iter()
            .map(|agent| agent.join().unwrap())
            .collect()
    });
    let mut sql = db.connect();
    for (agent, seq) in sent.iter().enumerate() {
        let found: Vec<String> = sql
            .query(
                "SELECT detail FROM observations WHERE ip = $1 ORDER BY observed_at",
                &[&format!("10.0.0.{agent}")],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let mut expected: Vec<String> = (1..=*seq).map(|n| format!("report {n}")).collect();
        // The last one may have been taken without an answer.
        if found.len() > expected.len() {
            expected.push(format!("report {}", seq + 1));
        }
        assert_eq!(found, expected, "agent {agent}");
    }
    assert!(backend.process.is_running());
    backend.wait_until_healthy();
    let refused = counts.refused.load(Ordering::Relaxed);
    println!("{sent:?} reports acknowledged, {refused} answers of 503");
    refused
}

/// What a fault has at hand.
struct Faulty<'a> {
    cluster: &'a Cluster,
    db: &'a Database<'a>,
    counts: &'a Counts,
    backend: &'a Backend,
}

impl Faulty<'_> {
    /// Waits until so many more requests were refused.
    fn wait_refused(&self, more: usize) {
        let before = self.counts.refused.load(Ordering::Relaxed);
        wait_for(
            "requests are refused",
            || self.backend.process.log(),
            || (self.counts.refused.load(Ordering::Relaxed) >= before + more).then_some(()),
        );
    }
}

fn rounds(plain: usize) -> usize {
    if full() { plain * 4 } else { plain }
}

#[test]
fn restarted_in_the_middle_of_ingest() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    reports_go_on(&cluster, &db, rounds(4), |at| at.cluster.restart());
}

#[test]
fn killed_in_the_middle_of_ingest() {
    // What was acknowledged must be on the disk.
    let cluster = Cluster::start();
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        cluster.set(setting, "on");
    }
    cluster.restart();
    let db = cluster.create_database();
    reports_go_on(&cluster, &db, rounds(3), |at| {
        at.cluster.kill();
        at.wait_refused(3);
        at.cluster.start_again();
    });
}

#[test]
fn a_table_locked_in_the_middle_of_ingest() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let refused = reports_go_on(&cluster, &db, rounds(2), |at| {
        let mut sql = at.db.connect();
        let mut transaction = sql.transaction().unwrap();
        transaction
            .batch_execute("LOCK TABLE device_states IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        // Each waits as long as the backend lets it wait for a lock.
        at.wait_refused(2);
        transaction.rollback().unwrap();
    });
    assert!(refused >= 4);
}

#[test]
fn slow_in_the_middle_of_ingest() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let refused = reports_go_on(&cluster, &db, 1, |at| {
        at.db.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(15); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON report_cursors
                FOR EACH ROW EXECUTE FUNCTION slow()",
        );
        // Past the limit of a statement.
        at.wait_refused(2);
        let health = at.backend.get("/health");
        assert!([200, 503].contains(&health.status), "{health:?}");
        at.db
            .execute("SET lock_timeout = '60s'; DROP FUNCTION slow() CASCADE");
    });
    assert!(refused >= 2);
}

#[test]
fn out_of_connections_in_the_middle_of_ingest() {
    let cluster = Cluster::start();
    cluster.set("max_connections", "20");
    cluster.restart();
    let db = cluster.create_database();
    let refused = reports_go_on(&cluster, &db, rounds(2), |at| {
        // Takes what the backend has, and every place that comes free.
        at.db.cut_connections("av-backend%");
        let mut held: Vec<Client> = Vec::new();
        let before = at.counts.refused.load(Ordering::Relaxed);
        wait_for(
            "requests are refused",
            || at.backend.process.log(),
            || {
                while let Ok(client) = Client::connect(&at.db.url(), NoTls) {
                    held.push(client);
                }
                if let Some(client) = held.first_mut() {
                    let _ = client.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE application_name LIKE 'av-backend%'",
                        &[],
                    );
                }
                (at.counts.refused.load(Ordering::Relaxed) >= before + 3).then_some(())
            },
        );
    });
    assert!(refused >= 6);
}
