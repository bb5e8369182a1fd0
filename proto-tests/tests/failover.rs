//! Two PostgreSQL servers, the second one promoted: two backends go on by
//! themselves, and nothing that was acknowledged is lost.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code, of which each test file uses a part"
)]

mod backend_support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_proto_tests::pg::{Cluster, Database};
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, Backend, http, wait_for};
use backend_support::{TOKEN, add_site, observed};
use postgres::{Client, NoTls};
use serde_json::{Value, json};

const STREAMS: usize = 4;
const AGENT_TOKEN: &str = "lyon-token-91d0";

/// A primary that acknowledges nothing before its standby has it, and that
/// standby.
fn pair() -> (Cluster, Cluster) {
    let primary = Cluster::start_with(|_| "synchronous_commit = on\n".to_owned());
    let standby = primary.standby("standby_1");
    primary.set("synchronous_standby_names", "standby_1");
    wait_for("the standby is synchronous", String::new, || {
        let mut sql = Client::connect(&primary.url("postgres"), NoTls).ok()?;
        let row = sql
            .query_opt(
                "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'",
                &[],
            )
            .ok()?;
        row.map(|_| ())
    });
    (primary, standby)
}

/// The connection string with every server in it.
fn url_of(clusters: &[&Cluster], database: &str) -> String {
    let hosts: Vec<String> = clusters
        .iter()
        .map(|cluster| format!("127.0.0.1:{}", cluster.port()))
        .collect();
    format!(
        "postgres://av@{}/{database}?target_session_attrs=read-write",
        hosts.join(",")
    )
}

fn name_of(db: &Database<'_>) -> String {
    db.url().rsplit('/').next().unwrap().to_owned()
}

/// The report of a stream that is told by its time and alternates.
fn numbered(stream: usize, seq: u64) -> Value {
    let status = ["online", "offline"][usize::try_from(seq % 2).unwrap()];
    let verdict = ["ok", "unknown"][usize::try_from(seq % 2).unwrap()];
    let at = format!(
        "2026-01-01T{:02}:{:02}:{:02}Z",
        seq / 3600,
        seq / 60 % 60,
        seq % 60
    );
    json!({
        "site_name": "Paris",
        "devices": [observed(&format!("10.0.0.{stream}"), status, verdict, &at)],
        "report": {"stream": format!("s{stream}"), "seq": seq},
    })
}

/// Sends the reports of a stream one after the other, each until it is
/// acknowledged; answers the last number that was.
fn send(
    backends: &[&Backend],
    stream: usize,
    acknowledged: &AtomicUsize,
    stop: &AtomicBool,
) -> u64 {
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = numbered(stream, seq + 1).to_string();
        for turn in 0.. {
            // As behind a proxy: any of them.
            let backend = backends[(stream + turn) % backends.len()];
            let answer = http(
                "POST",
                &format!("{}/ingest", backend.url),
                &[("X-Site-Token", TOKEN)],
                Some(body.as_bytes()),
            );
            match answer {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(error) => panic!("{error}"),
            }
            if stop.load(Ordering::Relaxed) {
                return seq;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        seq += 1;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    seq
}

/// What was committed, and when at the latest.
type Committed = Mutex<Vec<(i64, Instant)>>;

/// Changes the configuration again and again, wherever the primary is.
fn change(url: &str, committed: &Committed, stop: &AtomicBool) {
    let mut config: postgres::Config = url.parse().unwrap();
    config.connect_timeout(Duration::from_secs(2));
    let mut sql: Option<Client> = None;
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        let Some(client) = &mut sql else {
            sql = config.connect(NoTls).ok();
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let done = client.execute(
            "UPDATE devices SET room = $1 WHERE name = 'changed'",
            &[&next.to_string()],
        );
        match done {
            Ok(_) => {
                committed.lock().unwrap().push((next, Instant::now()));
                next += 1;
            }
            // Committed or not: the next one is newer than both.
            Err(_) => {
                sql = None;
                next += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Polls a backend and holds each answer against what was committed 100 ms
/// before it was asked; answers how many configurations came.
fn poll(backend: &Backend, committed: &Committed, stop: &AtomicBool) -> usize {
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = backend.get(&format!("/config/{TOKEN}"));
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{answer:?}");
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        served += 1;
        let devices = answer.json()["devices"].as_array().unwrap().clone();
        let changed = devices
            .iter()
            .find(|device| device["name"] == "changed")
            .unwrap();
        let shown: i64 = changed["room"].as_str().unwrap().parse().unwrap();
        let least = committed
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, at)| *at + Duration::from_millis(100) <= asked)
            .map(|(number, _)| *number)
            .max()
            .unwrap_or(0);
        assert!(
            shown >= least,
            "{shown} was served when {least} was committed 100 ms before"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    served
}

/// A site with what [`send`] reports of and [`change`] changes.
fn add_devices(sql: &mut Client) {
    add_site(sql, "Paris", TOKEN);
    for stream in 0..STREAMS {
        sql.execute(
            "INSERT INTO devices (site_id, name, ip)
             SELECT id, 'reported', $1 FROM sites WHERE name = 'Paris'",
            &[&format!("10.0.0.{stream}")],
        )
        .unwrap();
    }
    sql.batch_execute(
        "INSERT INTO devices (site_id, name, ip, room)
         SELECT id, 'changed', '10.0.1.1', '0' FROM sites WHERE name = 'Paris'",
    )
    .unwrap();
}

/// An agent that watches a projector and looks again within seconds.
fn add_agent(sql: &mut Client, backend: &Backend) -> (Agent, Projector) {
    let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    add_site(sql, "Lyon", AGENT_TOKEN);
    let port = format!("{{\"pjlink\": {{\"port\": {}}}}}", projector.addr().port());
    sql.execute(
        "INSERT INTO devices (site_id, name, ip, device_type, driver, driver_config)
         SELECT id, 'P0', '127.0.0.1', 'projector', 'pjlink', $1::text::jsonb
           FROM sites WHERE name = 'Lyon'",
        &[&port],
    )
    .unwrap();
    let mut agent = Agent::new(&json!({
        "site_name": "Lyon", "site_token": AGENT_TOKEN, "backend_url": backend.url,
    }));
    agent.start();
    (agent, projector)
}

/// Has the agent's program run anew, which looks at every device and reports.
fn sweep_again(agent: &mut Agent, reports: u64) {
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for(&format!("{reports} reports wait"), || {
        let status = agent.get("/api/status")?.json();
        (status["report"]["pending"].as_u64()? >= reports).then_some(())
    });
}

/// The numbers of the agent's reports that the database has, a stream's last
/// one each, and its observations.
fn agent_reports(sql: &mut Client) -> (i64, i64) {
    let row = sql
        .query_one(
            "SELECT coalesce((SELECT sum(c.last_seq)::bigint FROM report_cursors c
                               WHERE c.site_id = s.id), 0),
                    (SELECT count(*) FROM device_states d JOIN devices v ON v.id = d.device_id
                      WHERE v.site_id = s.id)
               FROM sites s WHERE s.name = 'Lyon'",
            &[],
        )
        .unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn a_primary_killed_in_the_middle_of_ingest_loses_nothing_that_was_acknowledged() {
    let (primary, standby) = pair();
    let db = primary.create_database();
    let name = name_of(&db);
    let url = url_of(&[&primary, &standby], &name);
    let first = Backend::start(&url);
    let second = Backend::start(&url);
    let mut sql = db.connect();
    add_devices(&mut sql);
    let (mut agent, _projector) = add_agent(&mut sql, &second);
    wait_for("the agent's first report came", String::new, || {
        (agent_reports(&mut sql) == (1, 1)).then_some(())
    });

    let stop = AtomicBool::new(false);
    let acknowledged = AtomicUsize::new(0);
    let committed = Committed::default();
    let more = |count: usize| {
        let from = acknowledged.load(Ordering::Relaxed);
        wait_for(
            "reports are acknowledged",
            || first.process.log() + &second.process.log(),
            || (acknowledged.load(Ordering::Relaxed) >= from + count).then_some(()),
        );
    };
    let changed = |count: usize| {
        let from = committed.lock().unwrap().len();
        wait_for("the configuration is changed", String::new, || {
            (committed.lock().unwrap().len() >= from + count).then_some(())
        });
    };
    /// Ends the threads also where the test fails.
    struct StopAtEnd<'a>(&'a AtomicBool);
    impl Drop for StopAtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (sent, served) = std::thread::scope(|scope| {
        let at_end = StopAtEnd(&stop);
        let senders: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let (backends, acknowledged, stop) = ([&first, &second], &acknowledged, &stop);
                scope.spawn(move || send(&backends, stream, acknowledged, stop))
            })
            .collect();
        let pollers = [&first, &second].map(|backend| {
            let (committed, stop) = (&committed, &stop);
            scope.spawn(move || poll(backend, committed, stop))
        });
        scope.spawn(|| change(&url, &committed, &stop));
        more(100);
        changed(10);

        primary.kill();
        for backend in [&first, &second] {
            backend.process.wait_for("it misses its database", || {
                (backend.get("/health").status == 503).then_some(())
            });
        }
        sweep_again(&mut agent, 2);
        sweep_again(&mut agent, 3);
        standby.promote();
        more(100);
        changed(10);
        for backend in [&first, &second] {
            backend.wait_until_healthy();
        }
        let process = agent.process.as_ref().unwrap();
        process.wait_for("its spool is empty", || {
            let report = agent.get("/api/status")?.json()["report"].clone();
            assert_eq!(report["dropped"], 0, "{report}");
            (report["pending"] == 0 && report["in_memory"] == 0).then_some(())
        });
        drop(at_end);
        let sent: Vec<u64> = senders
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        (sent, pollers.map(|thread| thread.join().unwrap()))
    });
    println!(
        "{} reports acknowledged, {} changes, {served:?} polls answered",
        acknowledged.load(Ordering::Relaxed),
        committed.lock().unwrap().len()
    );
    assert!(served.iter().all(|count| *count > 0));

    let mut sql = Client::connect(&standby.url(&name), NoTls).unwrap();
    for (stream, last) in sent.iter().enumerate() {
        let rows = sql
            .query(
                "SELECT extract(epoch FROM observed_at - '2026-01-01T00:00:00Z')::bigint
                   FROM observations WHERE ip = $1",
                &[&format!("10.0.0.{stream}")],
            )
            .unwrap();
        let there: BTreeSet<u64> = rows
            .iter()
            .map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap())
            .collect();
        assert_eq!(there.len(), rows.len(), "each one once");
        let lost: Vec<u64> = (1..=*last).filter(|seq| !there.contains(seq)).collect();
        assert_eq!(lost, [0; 0], "stream {stream}, {last} acknowledged");
    }
    assert_eq!(agent_reports(&mut sql), (3, 1), "three sweeps, none lost");
    for backend in [&first, &second] {
        assert!(
            backend.process.log().contains("(timeline 2)"),
            "{}",
            backend.process.log()
        );
    }

    // Somebody starts the old primary again, which knows of no promotion and
    // takes writes as before. Nobody goes back to it: neither who knew the
    // new one nor who starts now, though it is the first in the string.
    primary.start_again();
    let third = Backend::start(&url);
    for backend in [&first, &second] {
        let pid_count = {
            let mut sql = Client::connect(&standby.url("postgres"), NoTls).unwrap();
            sql.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE application_name LIKE 'av-backend%'",
                &[],
            )
            .unwrap()
            .len()
        };
        assert!(pid_count > 0);
        backend.wait_until_healthy();
    }
    sql.execute(
        "UPDATE devices SET room = '1000000' WHERE name = 'changed'",
        &[],
    )
    .unwrap();
    for backend in [&first, &second, &third] {
        wait_for(
            "it is served",
            || backend.process.log(),
            || {
                let answer = backend.get(&format!("/config/{TOKEN}"));
                (answer.status == 200 && answer.body.contains("\"1000000\"")).then_some(())
            },
        );
    }
    let mut old = Client::connect(&primary.url(&name), NoTls).unwrap();
    let there: i64 = old
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name LIKE 'av-backend%' AND query LIKE '%devices%'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(there, 0, "nobody works on the old primary");
}

/// A server that hangs, instead of one that is gone, holds nobody.
#[test]
fn a_primary_that_hangs_is_left_for_the_promoted_one_and_not_gone_back_to() {
    let (primary, standby) = pair();
    let db = primary.create_database();
    let name = name_of(&db);
    let backend = Backend::start(&url_of(&[&primary, &standby], &name));
    add_devices(&mut db.connect());
    let config = || backend.get(&format!("/config/{TOKEN}"));
    assert_eq!(config().status, 200);
    primary.freeze();
    backend.process.wait_for("it misses its database", || {
        (backend.get("/health").status == 503).then_some(())
    });
    standby.promote();
    backend.wait_until_healthy();
    let mut sql = Client::connect(&standby.url(&name), NoTls).unwrap();
    sql.execute(
        "UPDATE devices SET room = 'new' WHERE name = 'changed'",
        &[],
    )
    .unwrap();
    backend.process.wait_for("the change is served", || {
        config().body.contains("\"new\"").then_some(())
    });
    primary.thaw();
    // Long enough for a notification connection to the old one to speak.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let answer = config();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("\"new\""), "{answer:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
