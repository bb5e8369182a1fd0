//! PostgreSQL stopped, restarted, hanging, its connections cut: the backend
//! says so at once, and works again without a restart of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use av_proto_tests::pg::{Cluster, Database};
use av_proto_tests::process::{Backend, LIMIT, backend_command};
use backend_support::{Bench, TOKEN, add_site, assert_error, report, reported};
use serde_json::json;

fn config_path() -> String {
    format!("/config/{TOKEN}")
}

/// Waits until the configuration is served again.
#[track_caller]
fn wait_until_served(backend: &Backend) {
    backend
        .process
        .wait_for("the configuration is served again", || {
            (backend.get(&config_path()).status == 200).then_some(())
        });
}

#[test]
fn postgresql_stopped_is_503_at_once_and_started_is_200_without_a_restart() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let backend = Backend::start(&db.url());
    add_site(&mut db.connect(), "Paris", TOKEN);
    let body = report(&[reported("10.0.0.1", "online", "ok")]);
    for _ in 0..2 {
        assert_eq!(backend.get(&config_path()).status, 200);
        assert_eq!(backend.ingest(TOKEN, &body).status, 200);

        cluster.stop();
        // A cached configuration may be served for 75 ms more, not longer.
        std::thread::sleep(Duration::from_millis(100));
        let started = Instant::now();
        for _ in 0..20 {
            let answer = backend.get(&config_path());
            assert_error(&answer, 503, "the database is not available");
            assert!(answer.headers.contains_key("retry-after"));
            assert_error(&backend.ingest(TOKEN, &body), 503, "the database");
            assert_error(&backend.devices(TOKEN), 503, "the database");
            let health = backend.get("/health");
            assert_error(&health, 503, "the database");
            assert_eq!(health.json()["status"], "unavailable");
        }
        // 80 answers; a pool that waits for each would take minutes.
        assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
        let metrics = backend.get("/metrics");
        assert_eq!(metrics.status, 200);
        assert!(metrics.body.contains("av_backend_database_up 0\n"));

        cluster.start_again();
        wait_until_served(&backend);
        backend.wait_until_healthy();
    }
}

#[test]
fn a_backend_starts_before_its_database() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    cluster.stop();
    let backend = Backend::spawn(&db.url(), |_| {});
    backend.process.wait_for("it answers", || {
        std::net::TcpStream::connect(backend.url.strip_prefix("http://").unwrap()).ok()
    });
    assert_error(&backend.get("/health"), 503, "the database");
    assert_error(&backend.get(&config_path()), 503, "the database");
    cluster.start_again();
    backend.wait_until_healthy();
    add_site(&mut db.connect(), "Paris", TOKEN);
    assert_eq!(backend.get(&config_path()).status, 200);
}

#[test]
fn a_restart_between_two_requests_is_not_even_noticed() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let backend = Backend::start(&db.url());
    add_site(&mut db.connect(), "Paris", TOKEN);
    for _ in 0..3 {
        // Several connections lie idle in the pool.
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert_eq!(backend.devices(TOKEN).status, 200));
            }
        });
        cluster.restart();
        for _ in 0..8 {
            assert_eq!(backend.devices(TOKEN).status, 200);
        }
        assert_eq!(backend.ingest(TOKEN, &report(&[])).status, 200);
        wait_until_served(&backend);
    }
}

#[test]
fn connections_that_are_cut_are_replaced_within_the_request() {
    let bench = Bench::start();
    for _ in 0..20 {
        assert_eq!(bench.backend.ingest(TOKEN, &report(&[])).status, 200);
        assert!(bench.db.cut_connections("av-backend") >= 1);
        let answer = bench.backend.ingest(TOKEN, &report(&[]));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(bench.config()["site_name"], "Paris");
    }
}

#[test]
fn a_database_that_hangs_is_said_and_its_return_is_noticed() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let mut backend = Backend::start(&db.url());
    add_site(&mut db.connect(), "Paris", TOKEN);
    for path in ["/health".to_owned(), config_path()] {
        // Several connections lie idle, each with a statement to close.
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert_eq!(backend.ingest(TOKEN, &report(&[])).status, 200));
            }
        });
        cluster.freeze();
        // Requests that were under way may hang with the database; others
        // are told.
        let answer = backend
            .process
            .wait_for("it says that the database is gone", || {
                let answer = backend.get(&path);
                (answer.status != 200).then_some(answer)
            });
        assert_error(&answer, 503, "the database");
        for _ in 0..10 {
            assert_error(&backend.get(&path), 503, "the database");
        }
        cluster.thaw();
        backend.wait_until_healthy();
        wait_until_served(&backend);
    }
    cluster.freeze();
    assert!(backend.process.terminate().success());
    cluster.thaw();
}

#[test]
fn a_database_that_is_made_anew_gets_its_schema_again() {
    let cluster = Cluster::start();
    let db = cluster.create_database();
    let backend = Backend::start(&db.url());
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    backend.process.wait_for("the schema is there again", || {
        (backend.get("/config/x").status == 404).then_some(())
    });
    add_site(&mut db.connect(), "Paris", TOKEN);
    wait_until_served(&backend);
}

#[test]
fn a_signal_ends_it_cleanly() {
    let db = Database::create();
    for signal in ["TERM", "INT"] {
        let mut backend = Backend::start(&db.url());
        backend.process.signal(signal);
        let log = backend.process.log();
        let started = Instant::now();
        av_proto_tests::process::wait_for(
            "it ends",
            || log.clone(),
            || (!backend.process.is_running()).then_some(()),
        );
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(backend.process.log().contains("ended by signal"));
        assert!(!backend.process.log().contains("ERROR"));
    }
    let mut backend = Backend::start(&db.url());
    assert!(backend.process.terminate().success());
}

#[test]
fn a_backend_that_is_killed_forgets_nothing_that_it_confirmed() {
    let db = Database::create();
    let mut backend = Backend::start(&db.url());
    let mut sql = db.connect();
    add_site(&mut sql, "Paris", TOKEN);
    sql.batch_execute(
        "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', '10.0.0.1' FROM sites",
    )
    .unwrap();
    let body = backend_support::numbered(&[reported("10.0.0.1", "online", "ok")], "s", 1);
    assert_eq!(backend.ingest(TOKEN, &body).json()["upserted"], 1);
    backend.process.kill();
    let backend = Backend::start(&db.url());
    assert_eq!(
        backend.ingest(TOKEN, &body).json(),
        json!({"ok": true, "upserted": 0, "duplicate": true})
    );
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, said) in [
        (address.as_str(), "cannot listen on 127.0.0.1"),
        ("here", "is not an address to listen on"),
    ] {
        let output = backend_command("postgres://nobody@127.0.0.1:1/none")
            .arg("serve")
            .env("AV_LISTEN", listen)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{stderr}");
    }
}
