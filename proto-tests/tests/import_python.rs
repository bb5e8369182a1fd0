//! `av-backend import-python`: the data of the Python system, taken over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use av_proto_tests::pg::Database;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, Backend, Process, backend_command, wait_for};
use serde_json::json;

/// The tables that the Python system makes.
const TABLES: &str = "
CREATE TABLE sites (
    id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, token varchar NOT NULL UNIQUE,
    timezone varchar NOT NULL, doubt_after_days integer NOT NULL,
    ok_interval_s integer NOT NULL, ko_interval_s integer NOT NULL,
    config_version varchar, config_updated_at timestamptz DEFAULT now(),
    contact_first_name varchar, contact_last_name varchar, contact_title varchar,
    contact_email varchar, contact_phone varchar, address varchar, latitude varchar,
    longitude varchar);
CREATE TABLE devices (
    id serial PRIMARY KEY, site_id integer NOT NULL REFERENCES sites (id), name varchar NOT NULL,
    device_type varchar NOT NULL, ip varchar NOT NULL, driver varchar NOT NULL, building varchar,
    floor varchar, room varchar, driver_config jsonb NOT NULL,
    driver_config_updated_at timestamptz, expectations jsonb NOT NULL, last_seen timestamptz,
    last_ok_at timestamptz, status varchar NOT NULL, detail varchar, verdict varchar,
    metrics jsonb NOT NULL, CONSTRAINT uq_site_ip UNIQUE (site_id, ip));
CREATE TABLE device_events (
    id serial PRIMARY KEY, device_id integer NOT NULL REFERENCES devices (id),
    site_id integer NOT NULL REFERENCES sites (id), ip varchar NOT NULL, name varchar,
    building varchar, room varchar, device_type varchar, driver varchar, status varchar NOT NULL,
    verdict varchar, detail varchar, metrics_json jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ix_device_events_device_created ON device_events (device_id, created_at);
CREATE TABLE device_alerts (
    id serial PRIMARY KEY, site_id integer NOT NULL REFERENCES sites (id),
    device_id integer NOT NULL REFERENCES devices (id), severity varchar NOT NULL,
    opened_at timestamptz NOT NULL, closed_at timestamptz, last_seen_at timestamptz NOT NULL,
    status varchar NOT NULL, verdict varchar, detail varchar, acknowledged_at timestamptz,
    acknowledged_by varchar);";

/// Two sites as that system writes them, and what it should not.
const ROWS: &str = r#"
INSERT INTO sites (id, name, token, timezone, doubt_after_days, ok_interval_s, ko_interval_s,
                   contact_email, latitude) VALUES
    (3, 'Site Évry', 'old-token-3', 'Europe/Paris', 2, 300, 60, 'anna@example.org', '48.62'),
    (5, 'Lyon', 'sha256:0000000000000000000000000000000000000000000000000000000000000000',
     'Mars/Base', 0, 300, 60, NULL, '');
INSERT INTO devices (id, site_id, name, device_type, ip, driver, building, floor, room,
                     driver_config, driver_config_updated_at, expectations, last_seen, last_ok_at,
                     status, detail, verdict, metrics) VALUES
    (11, 3, 'Projecteur A', 'projector', '127.0.0.1', 'pjlink', 'Bât A', '1', 'Salle été ☃',
     '{"pjlink": {"port": 4352, "password": "admin", "timeout_s": 0.50, "_password_updated_at": "2026-01-01"}}',
     now(), '{"always_on": true, "schedule": {}}', now() - interval '1 hour',
     now() - interval '1 hour', 'online', 'on', 'ok', '{"lamp": 1e2}'),
    (12, 3, 'Capteur', 'zigbee', 'zigbee:0x00124b', 'zigbee', '', '', NULL, '{}', NULL, '[]',
     NULL, NULL, 'unknown', NULL, NULL, '{}'),
    (13, 3, 'Écran', 'display', '10.0.0.13', 'carrier-pigeon', NULL, NULL, NULL, '{}', NULL, '{}',
     now() - interval '1 hour', NULL, 'OFFLINE', 'back\slash', 'broken', 'null'),
    (20, 5, 'Ampli', 'amplifier', '10.0.0.20', 'ping', '', '', '', '{}', NULL, '{}',
     now() - interval '1 hour', NULL, 'offline', NULL, 'fault', '{}');
INSERT INTO device_events (device_id, site_id, ip, name, status, verdict, detail, metrics_json, created_at)
SELECT 11, 3, '127.0.0.1', 'Projecteur A', CASE WHEN n % 2 = 0 THEN 'online' ELSE 'ONLINE' END, 'ok',
       E'tab\there', '{"n": 1.50}', now() - interval '1 hour' - n * interval '5 days'
  FROM generate_series(0, 15) n;
INSERT INTO device_events (device_id, site_id, ip, status, verdict, metrics_json, created_at) VALUES
    (13, 3, '10.0.0.13', 'standby', NULL, '[1]', now() - interval '3 hours'),
    (13, 3, '10.0.0.13', 'offline', 'broken', '{}', now() - interval '2 hours'),
    (13, 3, '10.0.0.13', 'offline', 'fault', '{}', now() - interval '2 hours'),
    (20, 5, '10.0.0.20', 'offline', 'fault', '{}', now() + interval '2 hours');
INSERT INTO device_alerts (id, site_id, device_id, severity, opened_at, closed_at, last_seen_at,
                           status, detail, acknowledged_at, acknowledged_by) VALUES
    (31, 3, 11, 'critical', now() - interval '9 days', now() - interval '8 days', now(), 'offline',
     'lamp', now() - interval '8 days', 'anna'),
    (32, 5, 20, 'warning', now() - interval '2 hours', NULL, now() - interval '1 hour', 'offline',
     NULL, now() - interval '1 hour', 'béa'),
    (33, 5, 20, 'info', now() - interval '1 hour', NULL, now() - interval '1 minute', 'offline',
     NULL, NULL, NULL),
    (34, 3, 13, 'critical', now() - interval '1 day', now() - interval '2 days', now(), 'offline',
     NULL, NULL, NULL);
CREATE TABLE zigbee_groups (id integer, name text);
INSERT INTO zigbee_groups VALUES (1, 'Salle A'), (2, 'Salle B');
CREATE TABLE alembic_version (version_num text);
"#;

/// How the Python system hashes a site, given as rows of its tables.
const PYTHON_HASH: &str = r#"
import hashlib, json, sys
d = json.load(sys.stdin)
s = d["site"]
o = {"site_name": s["name"], "timezone": s["timezone"] or "Europe/Paris",
     "doubt_after_days": s["doubt_after_days"] or 2, "ok_interval_s": s["ok_interval_s"] or 300,
     "ko_interval_s": s["ko_interval_s"] or 60,
     "devices": [{"ip": x["ip"], "name": x["name"], "building": x["building"] or "",
                  "floor": x["floor"] or "", "room": x["room"] or "", "type": x["device_type"],
                  "driver": x["driver"], "driver_config": x["driver_config"] or {},
                  "expectations": x["expectations"] or {}}
                 for x in sorted(d["devices"], key=lambda x: x["ip"])]}
print(hashlib.md5(json.dumps(o, sort_keys=True, ensure_ascii=False).encode()).hexdigest(), end="")
"#;

fn python_hash(db: &Database<'_>, site: i32) -> String {
    let rows: String = db
        .connect()
        .query_one(
            "SELECT json_build_object('site', to_json(s), 'devices',
                        (SELECT json_agg(d) FROM devices d WHERE d.site_id = s.id))::text
               FROM sites s WHERE id = $1",
            &[&site],
        )
        .unwrap()
        .get(0);
    let mut child = Command::new("python3")
        .args(["-c", PYTHON_HASH])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = child.stdin.take().unwrap();
    input.write_all(rows.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The Python system's database.
fn python_database() -> Database<'static> {
    let db = Database::create();
    db.execute(TABLES);
    db.execute(ROWS);
    db
}

fn import(from: &str, to: &str, more: &[&str]) -> Output {
    backend_command(to)
        .args(["import-python", from])
        .args(more)
        .output()
        .unwrap()
}

#[track_caller]
fn told(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The first column of the first row.
#[track_caller]
fn one<T: for<'a> postgres::types::FromSql<'a>>(db: &Database<'_>, query: &str) -> T {
    db.connect().query_one(query, &[]).unwrap().get(0)
}

/// Each row of a query as a text.
fn rows(db: &Database<'_>, query: &str) -> Vec<String> {
    db.connect()
        .query(&format!("SELECT q::text FROM ({query}) q"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Everything that a database of the Python system holds.
fn python_content(db: &Database<'_>) -> Vec<String> {
    ["sites", "devices", "device_events", "device_alerts"]
        .iter()
        .flat_map(|table| rows(db, &format!("SELECT * FROM {table} ORDER BY id")))
        .chain(rows(
            db,
            "SELECT relname, relkind FROM pg_class
              WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        ))
        .collect()
}

#[test]
fn everything_is_taken_over_and_agents_go_on_with_their_tokens() {
    let python = python_database();
    let projector = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    python.execute(&format!(
        "UPDATE devices SET driver_config = jsonb_set(driver_config, '{{pjlink,port}}', '{}')
          WHERE id = 11",
        projector.addr().port()
    ));
    let hash = python_hash(&python, 3);
    python.execute(&format!(
        "UPDATE sites SET config_version = '{hash}', config_updated_at = '2026-01-02 03:04:05+00'
          WHERE id = 3"
    ));
    // Who may read and no more will do.
    python.execute(
        "CREATE ROLE python_reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO python_reader;
         REVOKE ALL ON zigbee_groups FROM python_reader;",
    );
    let before = python_content(&python);
    let own = Database::create();
    let url = python
        .url()
        .replace("av@", "python_reader@")
        .replace("postgres://", "postgresql+psycopg2://");

    let said = told(import(&url, &own.url(), &[]));
    for line in [
        "  2 sites, 4 devices, 18 events of the history, the state of 3 devices, 4 alerts (1 open, 2 acknowledged)\n",
        &format!("  site \"Site Évry\": configuration {hash}, as the Python system had it\n"),
        "  1 device(s) taken that no agent watches as they are: Capteur (zigbee:0x00124b, Site Évry): ",
        "  1 device(s) taken whose driver no agent has: Écran (10.0.0.13, Site Évry): carrier-pigeon\n",
        "  1 time zone(s) taken that are no IANA names, for which agents use the site's or UTC: Lyon: \"Mars/Base\"\n",
        "  1 setting(s) of nothing, taken as the Python system reads them, by their default: Lyon: doubt_after_days 0\n",
        "  3 JSON value(s) that should be an object: expectations of Capteur, metrics, ...\n",
        "  9 status word(s) in other letters, taken in lower case: \"ONLINE\", \"OFFLINE\", ...\n",
        "  1 status word(s) that are none here, taken as unknown: \"standby\"\n",
        "  2 verdict(s) that are none here, taken as unknown: \"broken\", ...\n",
        "  1 row(s) without a verdict, taken as unknown\n",
        "  1 event(s) left out, of a device that has one of the same time: ",
        "  1 event(s) left out whose time is ahead of the clock, or none: ",
        "  1 alert(s) of another severity, taken as warning: \"info\"\n",
        "  1 alert(s) closed before they were opened, taken as closed when they were opened: alert 34\n",
        "  1 alert(s) open beside another of their device, taken as closed when they were last reported: alert 33\n",
        "  sites.contact_email: 1 row: Site Évry\n",
        "  sites.latitude: 1 row: Site Évry\n",
        "  devices.driver_config_updated_at: 1 row\n",
        "  device_events.name: 16 rows\n",
        "  table zigbee_groups: this user may not read it\n",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    assert!(!said.contains("alembic"), "{said}");
    assert!(!said.contains("old-token"), "{said}");
    assert_eq!(python_content(&python), before);

    // The rows.
    assert_eq!(
        rows(
            &own,
            "SELECT id, name, token, timezone, doubt_after_days, ok_interval_s, ko_interval_s
               FROM sites ORDER BY id"
        ),
        [
            format!(
                "(3,\"Site Évry\",{},Europe/Paris,2,300,60)",
                digest(&own, "old-token-3")
            ),
            format!(
                "(5,Lyon,{},Mars/Base,2,300,60)",
                // A token that looks like a digest is a token.
                digest(
                    &own,
                    "sha256:0000000000000000000000000000000000000000000000000000000000000000"
                )
            ),
        ]
    );
    let fields = "SELECT id, site_id, name, ip, device_type, driver, building, floor, room,
                         driver_config::text FROM devices ORDER BY id";
    assert_eq!(rows(&own, fields), rows(&python, fields));
    assert_eq!(
        rows(&own, "SELECT id, expectations FROM devices ORDER BY id"),
        [
            r#"(11,"{""schedule"": {}, ""always_on"": true}")"#,
            "(12,{})",
            "(13,{})",
            "(20,{})"
        ]
    );
    assert_eq!(
        rows(
            &own,
            "SELECT device_id, status, verdict, detail, metrics, last_ok_at IS NULL,
                    status_since < observed_at, verdict_since < observed_at FROM device_states
              ORDER BY device_id"
        ),
        [
            r#"(11,online,ok,on,"{""lamp"": 100}",f,t,t)"#,
            r#"(13,offline,unknown,"back\\slash",{},t,t,t)"#,
            "(20,offline,fault,,{},t,f,f)",
        ]
    );
    let history = |db: &Database<'_>, table: &str, at: &str, metrics: &str| {
        rows(
            db,
            &format!(
                "SELECT device_id, site_id, ip, lower(status), verdict, detail, {metrics}, {at}
                   FROM {table} WHERE device_id = 11 ORDER BY {at}"
            ),
        )
    };
    let seen = history(&own, "observations", "observed_at", "metrics");
    assert_eq!(seen.len(), 16);
    assert_eq!(
        seen,
        history(&python, "device_events", "created_at", "metrics_json")
    );
    assert_eq!(
        rows(
            &own,
            "SELECT status, verdict, metrics FROM observations WHERE device_id = 13
              ORDER BY observed_at"
        ),
        [
            r#"(unknown,unknown,"{""value"": [1]}")"#,
            "(offline,unknown,{})"
        ]
    );
    // Months of their own for 75 days, and the day of the first event counts.
    assert_eq!(
        one::<i64>(&own, "SELECT count(*) FROM observations_default"),
        0
    );
    assert!(one::<bool>(
        &own,
        "SELECT created_at < now() - interval '75 days' FROM sites WHERE id = 3"
    ));
    assert_eq!(
        rows(
            &own,
            "SELECT id, site_id, device_id, device_ip, device_name, building, severity,
                    closed_at IS NULL, closed_by, detail, acknowledged_by, closed_at = opened_at
               FROM alerts ORDER BY id"
        ),
        [
            r#"(31,3,11,127.0.0.1,"Projecteur A","Bât A",critical,f,ok,lamp,anna,f)"#,
            "(32,5,20,10.0.0.20,Ampli,\"\",warning,t,,,béa,)",
            "(33,5,20,10.0.0.20,Ampli,\"\",warning,f,duplicate,,,f)",
            "(34,3,13,10.0.0.13,Écran,\"\",critical,f,ok,,,t)",
        ]
    );
    assert_eq!(
        rows(&own, "SELECT actor, origin, action, target FROM audit"),
        [
            "(\"command line\",import,site.import_python,\"2 sites, 4 devices, 18 events of the history, the state of 3 devices, 4 alerts (1 open, 2 acknowledged)\")"
        ]
    );
    assert_eq!(
        rows(&own, "SELECT DISTINCT author, origin FROM config_versions"),
        ["(\"command line\",import)"]
    );
    assert_eq!(
        one::<String>(
            &own,
            "SELECT config_updated_at::text FROM sites WHERE id = 3"
        ),
        "2026-01-02 03:04:05+00"
    );

    // A second time is refused, and so is a site of its own name.
    let again = refused(import(&url, &own.url(), &[]));
    assert!(
        again.contains("has 2 site(s) already (Site Évry, Lyon): "),
        "{again}"
    );

    // Agents go on.
    let backend = Backend::start(&own.url());
    for (token, site) in [
        ("old-token-3", 3),
        (
            "sha256:0000000000000000000000000000000000000000000000000000000000000000",
            5,
        ),
    ] {
        let answer = backend.get(&format!("/config/{token}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["config_hash"], python_hash(&python, site));
    }
    let mut agent = Agent::new(&json!({
        "site_name": "Site Évry", "site_token": "old-token-3",
        "api_url": format!("{}/ingest", backend.url),
    }));
    agent.start();
    agent
        .process
        .as_ref()
        .unwrap()
        .wait_for("its report came", || {
            one::<bool>(
                &own,
                "SELECT last_seen > now() - interval '30 minutes' FROM device_states
              WHERE device_id = 11",
            )
            .then_some(())
        });
    assert_eq!(
        one::<String>(
            &own,
            "SELECT running_hash FROM site_agents WHERE site_id = 3"
        ),
        hash
    );
    // So does a Python agent, which sends no floor.
    let device = json!({
        "ip": "10.0.0.20", "name": "Ampli", "building": "", "room": "", "type": "amplifier",
        "driver": "ping", "status": "online", "detail": null, "verdict": "ok",
        "metrics": {"_last_ok_utc": "2026-01-01T00:00:00+00:00"},
        "expectations": {"always_on": true},
    });
    let answer = backend.ingest(
        "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        &json!({"site_name": "Lyon", "devices": [device]}),
    );
    assert_eq!(answer.json(), json!({"ok": true, "upserted": 1}));
    // Its alert is over, and its configuration as it was.
    assert_eq!(
        one::<i64>(
            &own,
            "SELECT count(*) FROM alerts WHERE closed_at IS NULL AND site_id = 5"
        ),
        0
    );
    assert_eq!(
        one::<String>(&own, "SELECT expectations::text FROM devices WHERE id = 20"),
        "{}"
    );
    // New rows come after the old ones.
    assert_eq!(
        one::<i64>(
            &own,
            "INSERT INTO sites (name, token) VALUES ('New', 'n') RETURNING id"
        ),
        6
    );
    assert_eq!(
        one::<i64>(
            &own,
            "INSERT INTO devices (site_id, name, ip) VALUES (6, 'New', '10.0.0.1') RETURNING id"
        ),
        21
    );
}

/// What the database keeps of a token.
fn digest(db: &Database<'_>, token: &str) -> String {
    one(
        db,
        &format!("SELECT 'sha256:' || encode(sha256('{token}'), 'hex')"),
    )
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    let python = python_database();
    let own = Database::create();
    let dry = told(import(&python.url(), &own.url(), &["--dry-run"]));
    assert!(dry.starts_with("Would be taken over from test_"), "{dry}");
    assert!(
        rows(
            &own,
            "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        .is_empty()
    );
    // Without a database of its own, too.
    assert_eq!(told(import(&python.url(), "", &["--dry-run"])), dry);
    let said = told(import(&python.url(), &own.url(), &[]));
    let below = |text: &str| {
        let (_, below) = text.split_once('\n').unwrap();
        below.split("Agents go on").next().unwrap().to_owned()
    };
    assert_eq!(below(&said), below(&dry));
    // What would be refused is refused.
    let again = refused(import(&python.url(), &own.url(), &["--dry-run"]));
    assert!(again.contains("has 2 site(s) already"), "{again}");
}

#[test]
fn databases_that_will_not_do_are_refused_in_words() {
    let python = python_database();
    let before = python_content(&python);
    for more in [&[][..], &["--dry-run"]] {
        let said = refused(import(&python.url(), &python.url(), more));
        assert!(
            said.contains("has tables that another program made (devices, sites)")
                && said.contains("createdb"),
            "{said}"
        );
        assert_eq!(python_content(&python), before);
    }

    let empty = Database::create();
    let own = Database::create();
    let said = refused(import(&empty.url(), &own.url(), &[]));
    assert!(
        said.contains("this is no database of the Python system: it has no sites.id"),
        "{said}"
    );
    let ours = Database::create();
    told(
        backend_command(&ours.url())
            .arg("migrate")
            .output()
            .unwrap(),
    );
    let said = refused(import(&ours.url(), &own.url(), &[]));
    assert!(
        said.contains("its tables are those of av-backend"),
        "{said}"
    );
    // It is looked at before a schema is made.
    let there = "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert!(rows(&own, there).is_empty());

    // One whose site was deleted keeps its ids.
    let own = ours;
    own.execute("INSERT INTO sites (name, token) VALUES ('Old', 'o'); DELETE FROM sites");
    let said = refused(import(&python.url(), &own.url(), &[]));
    assert!(said.contains("had sites before"), "{said}");

    for url in [
        "postgres://u:hunter2@127.0.0.1:1/x",
        "mysql://u:hunter2@h/x",
    ] {
        let said = refused(import(url, &empty.url(), &[]));
        assert!(said.contains("the Python system's database"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn an_earlier_version_without_history_is_taken_over() {
    let python = Database::create();
    python.execute(
        "CREATE TABLE sites (id serial PRIMARY KEY, name varchar, token varchar);
         CREATE TABLE devices (id serial PRIMARY KEY, site_id integer, name varchar, ip varchar,
                               driver varchar, status varchar, last_seen timestamptz);
         INSERT INTO sites (name, token) VALUES ('Paris', 'a'), ('Nice', 'a'), (' ', '');
         INSERT INTO devices (site_id, name, ip, driver, status, last_seen) VALUES
             (1, 'P', '10.0.0.1', 'ping', 'online', 'infinity'),
             (1, 'P2', '10.0.0.1', 'ping', 'online', now()),
             (7, 'Orphan', '10.0.0.3', 'ping', 'online', now())",
    );
    let own = Database::create();
    let said = told(import(&python.url(), &own.url(), &[]));
    for line in [
        "  3 sites, 2 devices, 0 events of the history, the state of 1 device, 0 alerts",
        "  site \"Paris\": configuration ",
        "; no agent ever asked the Python system for it\n",
        "  2 name(s) or address(es) empty or there twice, taken under another: site \" \" is \"Site 3\", address \"10.0.0.1\" of P2 is \"10.0.0.1#2\"\n",
        "  2 site(s) whose token is empty or another site's: renew it and give it to their agents: Nice, Site 3\n",
        "  1 row(s) left out that are of no site: device Orphan (10.0.0.3, site 7)\n",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    let backend = Backend::start(&own.url());
    let config = backend.get("/config/a").json();
    assert_eq!(config["site_name"], "Paris");
    assert_eq!(
        (&config["timezone"], &config["reporting"]["ok_interval_s"]),
        (&json!("Europe/Paris"), &json!(300))
    );
}

/// An import that waits for a table, everything before it written.
fn stuck_import(python: &Database<'_>, own: &Database<'_>) -> Process {
    let mut command = backend_command(&own.url());
    command.args(["import-python", &python.url()]);
    let import = Process::spawn(command);
    import.wait_for("the import waits for the alerts' table", || {
        one::<bool>(
            own,
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                             WHERE NOT granted AND datname = current_database()
                               AND application_name = 'av-backend import-python')",
        )
        .then_some(())
    });
    import
}

#[test]
fn an_import_that_is_killed_leaves_nothing_and_a_large_one_needs_little_memory() {
    const EVENTS: i64 = 60_000;
    let python = python_database();
    python.execute(&format!(
        "INSERT INTO device_events (device_id, site_id, ip, status, verdict, metrics_json, created_at)
         SELECT 20, 5, '10.0.0.20', 'offline', 'fault', jsonb_build_object('text', repeat('x', 2000)),
                now() - n * interval '1 minute' FROM generate_series(1, {EVENTS}) n"
    ));
    let own = Database::create();
    told(backend_command(&own.url()).arg("migrate").output().unwrap());
    let content = |own: &Database<'_>| {
        rows(
            own,
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
              UNION ALL SELECT 'site ' || name FROM sites
              UNION ALL SELECT 'observation' FROM observations
              UNION ALL SELECT 'version' FROM config_versions
              UNION ALL SELECT 'audit' FROM audit ORDER BY 1",
        )
    };
    let before = content(&own);

    // Ready to run: the first one waits for a minute only.
    let mut second = backend_command(&own.url());
    second.args(["import-python", &python.url()]);
    let mut blocker = own.connect();
    let mut transaction = blocker.transaction().unwrap();
    transaction
        .batch_execute("LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let mut import_stuck = stuck_import(&python, &own);
    let status = std::fs::read_to_string(format!("/proc/{}/status", import_stuck.id())).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap();
    assert!(peak < 60_000, "{peak} kB for {EVENTS} events of 2 kB");
    // A second one meanwhile.
    let said = refused(second.output().unwrap());
    assert!(said.contains("has another import-python at work"), "{said}");

    import_stuck.kill();
    // Its connection ends when the server looks, which is when it has the lock.
    transaction.rollback().unwrap();
    wait_for(
        "the server notices",
        || "still there".to_owned(),
        || {
            (one::<i64>(
                &own,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND application_name = 'av-backend import-python'",
            ) == 0)
                .then_some(())
        },
    );
    assert_eq!(content(&own), before);

    let said = told(import(&python.url(), &own.url(), &[]));
    assert!(said.contains(&format!("{} events", EVENTS + 18)), "{said}");
    assert_eq!(
        one::<i64>(&own, "SELECT count(*) FROM observations"),
        EVENTS + 18
    );
}
