//! The schema: applied by `psql`, by one backend, by several at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::path::PathBuf;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, workspace};
use backend_support::{Bench, TOKEN, add_site};

fn migrations() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(workspace().join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "sql"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Every table, column, constraint, index, trigger and function of ours.
fn description(db: &Database<'_>) -> Vec<String> {
    db.connect()
        .query(
            "SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' ||
                    is_nullable || ' ' || coalesce(column_default, '')
               FROM information_schema.columns WHERE table_schema = 'public'
              UNION ALL
             SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' ||
                    pg_get_constraintdef(oid)
               FROM pg_constraint WHERE connamespace = 'public'::regnamespace
              UNION ALL
             SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
              UNION ALL
             SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
              UNION ALL
             SELECT 'function ' || proname || ' ' || prosrc
               FROM pg_proc WHERE pronamespace = 'public'::regnamespace
              ORDER BY 1",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .filter(|line: &String| !line.contains("schema_migrations"))
        .collect()
}

#[test]
fn each_file_runs_with_psql_alone_and_again_and_a_backend_takes_the_database_over() {
    let by_psql = Database::create();
    let mut first = Vec::new();
    for round in 0..2 {
        for file in migrations() {
            let output = by_psql.psql_file(&file);
            assert!(
                output.status.success(),
                "{}: {}",
                file.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        if round == 0 {
            // What is there stays.
            by_psql.execute("INSERT INTO sites (name, token) VALUES ('Paris', 'abc')");
            by_psql.execute(
                "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', '10.0.0.1' FROM sites",
            );
            first = description(&by_psql);
        }
    }
    assert!(first.len() > 100, "{first:#?}");
    assert_eq!(description(&by_psql), first);

    let backend = Backend::start(&by_psql.url());
    let config = backend.get("/config/abc").json();
    assert_eq!(config["site_name"], "Paris");
    assert_eq!(config["devices"][0]["ip"], "10.0.0.1");
    assert_eq!(description(&by_psql), first);

    let by_backend = Database::create();
    let _backend = Backend::start(&by_backend.url());
    assert_eq!(description(&by_backend), first);
}

#[test]
fn backends_that_start_at_once_on_an_empty_database_all_come_up() {
    let db = Database::create();
    let backends: Vec<Backend> = (0..4).map(|_| Backend::spawn(&db.url(), |_| {})).collect();
    for backend in &backends {
        backend.wait_until_healthy();
    }
    for backend in &backends {
        let log = backend.process.log();
        assert!(!log.contains("ERROR"), "{log}");
    }
    let applied: i64 = db
        .connect()
        .query_one("SELECT count(*) FROM schema_migrations", &[])
        .unwrap()
        .get(0);
    assert_eq!(usize::try_from(applied).unwrap(), migrations().len());
}

#[test]
fn a_site_needs_only_name_and_token_and_has_the_contracts_columns() {
    let mut bench = Bench::start();
    let row = bench
        .sql
        .query_one(
            "SELECT timezone, doubt_after_days, ok_interval_s, ko_interval_s, config_version,
                    config_updated_at::text FROM sites WHERE name = 'Paris'",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "UTC");
    assert_eq!([row.get::<_, i32>(1), row.get(2), row.get(3)], [2, 300, 60]);
    assert_eq!(row.get::<_, Option<String>>(4), None);
    assert_eq!(row.get::<_, Option<String>>(5), None);

    for (sql, constraint) in [
        (
            "INSERT INTO sites (name, token) VALUES ('Paris', 'x')",
            "sites_name_key",
        ),
        (
            "INSERT INTO sites (name, token) VALUES ('Lyon', 'paris-token-5f2c')",
            "sites_token_key",
        ),
        (
            "INSERT INTO sites (name, token) VALUES (' ', 'x')",
            "sites_name_not_empty",
        ),
        (
            "INSERT INTO sites (name, token) VALUES ('Lyon', '')",
            "sites_token_not_empty",
        ),
        (
            "UPDATE sites SET doubt_after_days = -1",
            "sites_doubt_after_days_range",
        ),
        (
            "INSERT INTO devices (site_id, name, ip) SELECT id, 'a', x FROM sites, (VALUES ('1'), ('1')) v (x)",
            "devices_site_ip_key",
        ),
    ] {
        let error = bench.sql.batch_execute(sql).unwrap_err();
        assert_eq!(
            error.as_db_error().unwrap().constraint(),
            Some(constraint),
            "{sql}"
        );
    }
}

#[test]
fn a_token_is_kept_as_its_digest_and_still_works() {
    let mut bench = Bench::start();
    let stored: String = bench.one("SELECT token FROM sites");
    assert!(stored.starts_with("sha256:") && !stored.contains(TOKEN));
    assert_eq!(bench.config()["site_name"], "Paris");
    // The digest itself opens nothing.
    assert_eq!(bench.backend.get(&format!("/config/{stored}")).status, 404);

    bench
        .sql
        .batch_execute("UPDATE sites SET token = 'new token/é'")
        .unwrap();
    let token = "new%20token%2F%C3%A9";
    assert_eq!(bench.backend.get(&format!("/config/{token}")).status, 200);
    // A restored dump brings digests.
    let digest: String = bench.one("SELECT token FROM sites");
    bench.sql.execute("DELETE FROM sites", &[]).unwrap();
    add_site(&mut bench.sql, "Restored", &digest);
    let config = bench.backend.get(&format!("/config/{token}")).json();
    assert_eq!(config["site_name"], "Restored");
}

#[test]
fn every_change_of_configuration_is_counted_and_nothing_else() {
    let mut bench = Bench::start();
    let other = add_site(&mut bench.sql, "Lyon", "lyon");
    bench
        .sql
        .execute(
            "INSERT INTO devices (site_id, name, ip) VALUES ($1, 'L', '1')",
            &[&other],
        )
        .unwrap();
    let revisions = |bench: &mut Bench| -> (i64, i64) {
        let row = bench
            .sql
            .query_one(
                "SELECT (SELECT config_revision FROM sites WHERE name <> 'Lyon' ORDER BY id LIMIT 1),
                        (SELECT config_revision FROM sites WHERE name = 'Lyon')",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    for (sql, paris, lyon) in [
        // 2,000 devices in one statement are one change.
        (
            "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', i::text FROM sites, generate_series(1, 2000) i WHERE name = 'Paris'",
            1,
            0,
        ),
        (
            "UPDATE devices SET driver_config = '1' WHERE ip = '5'",
            1,
            0,
        ),
        // 1 and 1.0 are equal to JSONB and not to the hash.
        (
            "UPDATE devices SET driver_config = '1.0' WHERE ip = '5'",
            1,
            0,
        ),
        ("UPDATE devices SET room = 'R' WHERE ip = '1'", 1, 1),
        (
            "UPDATE devices SET site_id = (SELECT id FROM sites WHERE name = 'Lyon') WHERE ip = '7'",
            1,
            1,
        ),
        ("DELETE FROM devices WHERE ip = '7'", 0, 1),
        ("DELETE FROM devices WHERE ip = 'nobody'", 0, 0),
        (
            "UPDATE sites SET timezone = 'Europe/Paris' WHERE name = 'Paris'",
            1,
            0,
        ),
        (
            "UPDATE sites SET ok_interval_s = 301, ko_interval_s = 61 WHERE name = 'Paris'",
            1,
            0,
        ),
        (
            "UPDATE sites SET doubt_after_days = 3 WHERE name = 'Paris'",
            1,
            0,
        ),
        (
            "UPDATE sites SET name = 'Paris 2' WHERE name = 'Paris'",
            1,
            0,
        ),
        (
            "UPDATE sites SET token = 'other' WHERE name = 'Paris 2'",
            1,
            0,
        ),
        // Setting what is there already is no change.
        (
            "UPDATE sites SET token = 'other' WHERE name = 'Paris 2'",
            0,
            0,
        ),
        (
            "UPDATE sites SET config_version = 'x', config_updated_at = now()",
            0,
            0,
        ),
        ("TRUNCATE devices CASCADE", 1, 1),
    ] {
        let before = revisions(&mut bench);
        bench.sql.batch_execute(sql).unwrap();
        let after = revisions(&mut bench);
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (paris, lyon),
            "{sql}"
        );
    }
}

#[test]
fn partitions_are_made_ahead_and_take_over_what_the_default_one_holds() {
    let db = Database::create();
    let _backend = Backend::start(&db.url());
    let mut sql = db.connect();
    let partitions = |sql: &mut postgres::Client| -> i64 {
        sql.query_one(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'observations'::regclass",
            &[],
        )
        .unwrap()
        .get(0)
    };
    // Last month, this one, two to come, and the default.
    assert_eq!(partitions(&mut sql), 5);
    // None is old: the thread of the history may delete those at any moment.
    sql.batch_execute(
        "INSERT INTO observations (site_id, device_id, ip, observed_at, received_at, status, verdict)
         VALUES (1, 1, 'x', now(), now(), 'online', 'ok'),
                (1, 1, 'x', now() + interval '95 days', now(), 'online', 'ok'),
                (1, 1, 'x', now() + interval '10 years', now(), 'online', 'ok')",
    )
    .unwrap();
    let in_default = |sql: &mut postgres::Client| -> i64 {
        sql.query_one("SELECT count(*) FROM observations_default", &[])
            .unwrap()
            .get(0)
    };
    assert_eq!(in_default(&mut sql), 2);

    // Two at once make each of them once.
    let url = db.url();
    let made: i32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> i32 {
                    postgres::Client::connect(&url, postgres::NoTls)
                        .unwrap()
                        .query_one("SELECT av_make_partitions(5)", &[])
                        .unwrap()
                        .get(0)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(made, 3);
    assert_eq!(partitions(&mut sql), 8);
    assert_eq!(in_default(&mut sql), 1);
    let all: i64 = sql
        .query_one("SELECT count(*) FROM observations", &[])
        .unwrap()
        .get(0);
    assert_eq!(all, 3);
}
