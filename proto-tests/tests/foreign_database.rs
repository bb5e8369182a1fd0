//! A database in which another program keeps its tables: it is refused in
//! words, and left as it was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, backend_command};

/// The tables of the Python system, as far as it is known by them.
const PYTHON: &str = "
CREATE TABLE sites (id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, token varchar NOT NULL);
CREATE TABLE devices (id serial PRIMARY KEY, site_id integer NOT NULL REFERENCES sites (id),
                      ip varchar NOT NULL, driver_config jsonb NOT NULL);
CREATE TABLE device_events (id serial PRIMARY KEY, device_id integer REFERENCES devices (id));
CREATE TABLE device_alerts (id serial PRIMARY KEY, device_id integer REFERENCES devices (id));
INSERT INTO sites (name, token) VALUES ('Paris', 'abc');";

/// Every relation, type and function of the database's own, and the rows of
/// each table.
fn everything(db: &Database<'_>) -> Vec<String> {
    let mut sql = db.connect();
    let rows = sql
        .query(
            "SELECT relkind::text || ' ' || relnamespace::regnamespace || '.' || relname
               FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
              UNION ALL
             SELECT 'type ' || typname FROM pg_type
              WHERE typnamespace::regnamespace::text !~ '^(pg_|information_schema)'
              UNION ALL
             SELECT 'function ' || proname FROM pg_proc
              WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
              ORDER BY 1",
            &[],
        )
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn what_another_program_made_is_refused_in_words_and_left_as_it_was() {
    for (made, said) in [
        (
            PYTHON,
            "(devices, sites; it looks like the Python backend): use an empty database, into \
             which av-backend import-python takes its data over",
        ),
        (
            "CREATE TABLE devices (id serial PRIMARY KEY, serial_number text)",
            "(devices): use an empty database (",
        ),
        // Rails, and golang-migrate.
        (
            "CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
             INSERT INTO schema_migrations VALUES ('20240101000000')",
            "(schema_migrations): use an empty database (",
        ),
        (
            "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
            "(schema_migrations): use an empty database (",
        ),
        // The same columns, and what they hold is of another program.
        (
            "CREATE TABLE schema_migrations (version bigint, name text, applied_at timestamptz);
             INSERT INTO schema_migrations VALUES (20240101000000, 'add_users', now())",
            "(schema_migrations): use an empty database (",
        ),
        (
            "CREATE TABLE schema_migrations (version integer, name text, applied_at timestamptz);
             INSERT INTO schema_migrations SELECT n, 'step', now() FROM generate_series(1, 99) n",
            "(schema_migrations): use an empty database (",
        ),
        // A name is a name, whatever has it.
        ("CREATE VIEW sites AS SELECT 1 AS id", "(view sites): "),
        (
            "CREATE MATERIALIZED VIEW users AS SELECT 1 AS id",
            "(view users): ",
        ),
        ("CREATE TYPE alerts AS ENUM ('open')", "(type alerts): "),
        ("CREATE TYPE alerts AS (id integer)", "(type alerts): "),
        ("CREATE SEQUENCE messages", "(sequence messages): "),
        (
            "CREATE TABLE logbook (at timestamptz); CREATE INDEX audit_at ON logbook (at)",
            "(index audit_at): ",
        ),
        (
            "CREATE TABLE observations_default (id integer)",
            "(observations_default): ",
        ),
        // What a newer migration would make is looked at too.
        ("CREATE TABLE enrolments (id integer)", "(enrolments): "),
    ] {
        let db = Database::create();
        db.execute(made);
        let before = everything(&db);
        let output = backend_command(&db.url()).arg("migrate").output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{made}: {told}");
        assert!(
            told.contains("the database has tables that another program made "),
            "{made}: {told}"
        );
        assert!(told.contains(said), "{made}: {told}");
        assert!(!told.contains("not available"), "{made}: {told}");
        assert_eq!(everything(&db), before, "{made}");
    }
}

#[test]
fn a_server_says_so_and_serves_as_soon_as_the_tables_are_gone() {
    let db = Database::create();
    db.execute(PYTHON);
    let before = everything(&db);
    let backend = Backend::spawn(&db.url(), |_| {});
    backend
        .process
        .wait_for_log("the schema is not up to date: the database has tables", 1);
    let answer = backend.get("/health");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["missing"], "database of another program");
    assert!(!answer.body.contains("not available"), "{}", answer.body);
    // Nor does it go on trying in a way that leaves something.
    let answer = backend.get("/config/abc");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(everything(&db), before);

    db.execute("DROP TABLE device_alerts, device_events, devices, sites");
    backend.wait_until_healthy();
}

#[test]
fn tables_of_other_names_and_other_schemas_stand_in_no_ones_way() {
    let db = Database::create();
    db.execute(
        "CREATE TABLE auth_user (id serial PRIMARY KEY, name text);
         CREATE SCHEMA python; CREATE TABLE python.sites (id integer);
         CREATE TABLE python.schema_migrations (version bigint)",
    );
    let migrate = || {
        let output = backend_command(&db.url()).arg("migrate").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(migrate().starts_with("applied 001_schema\n"));
    assert_eq!(migrate(), "The schema is up to date.\n");
}

#[test]
fn every_relation_that_the_schema_has_is_one_that_is_looked_for() {
    let db = Database::create();
    let output = backend_command(&db.url()).arg("migrate").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let names: Vec<String> = db
        .connect()
        .query(
            // Those of constraints and identities come with their tables, and
            // months with the time.
            "SELECT relname::text FROM pg_class c
              WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'i', 'I')
                AND relname !~ '^observations_(y[0-9]{4}m|default_)'
                AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
              ORDER BY 1",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let other = Database::create();
        other.execute(&format!("CREATE TYPE \"{name}\" AS (other_column integer)"));
        let output = backend_command(&other.url())
            .arg("migrate")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains(&format!("(type {name})")), "{name}: {told}");
    }
}
