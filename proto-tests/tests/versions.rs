//! The history of the configuration: versions by SQL and by API, what differs
//! between two, the way back, and whether the agent runs the newest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend, workspace};
use backend_support::{Bench, TOKEN, add_site, report, reported};
use postgres::Client;
use postgres::error::SqlState;
use serde_json::{Value, json};

const EDITOR: &str = "avt_editor";
const VIEWER: &str = "avt_viewer";

/// An editor and a viewer, each with an API token.
fn add_users(sql: &mut Client) {
    for (name, token) in [("editor", EDITOR), ("viewer", VIEWER)] {
        sql.execute(
            "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ($1, '-', $1) RETURNING id)
             INSERT INTO api_tokens (user_id, name, digest)
             SELECT id, 'test', 'sha256:' || encode(sha256(convert_to($2, 'UTF8')), 'hex') FROM u",
            &[&name, &token],
        )
        .unwrap();
    }
}

fn bench() -> Bench {
    let mut bench = Bench::start();
    add_users(&mut bench.sql);
    bench
}

/// An edit in SQL, done again where PostgreSQL breaks a deadlock with it: a
/// TRUNCATE locks every table for itself, in another order than those who read.
#[track_caller]
fn edit(sql: &mut Client, statement: &str) {
    loop {
        match sql.batch_execute(statement) {
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {}
            done => return done.unwrap(),
        }
    }
}

fn ask(
    bench: &Bench,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut all = vec![
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    all.extend(headers);
    let body = body.map(Value::to_string);
    let path = format!("/admin/sites/{}{path}", bench.site);
    bench
        .backend
        .request(method, &path, &all, body.as_deref().map(str::as_bytes))
}

#[track_caller]
fn get(bench: &Bench, path: &str) -> Value {
    let answer = ask(bench, VIEWER, "GET", path, &[], None);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// The versions, the newest first.
#[track_caller]
fn versions(bench: &Bench) -> Vec<Value> {
    get(bench, "/versions")["versions"]
        .as_array()
        .unwrap()
        .clone()
}

fn revision(version: &Value) -> i64 {
    version["revision"].as_i64().unwrap()
}

fn roll_back(bench: &Bench, to: i64, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    ask(
        bench,
        EDITOR,
        "POST",
        &format!("/versions/{to}/rollback"),
        headers,
        body,
    )
}

#[test]
fn every_transaction_that_changes_something_is_one_version() {
    let mut bench = bench();
    let first = versions(&bench);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0]["author"], "av");
    assert_eq!(first[0]["origin"], "sql");
    assert_eq!(first[0]["ip"], "127.0.0.1");
    assert_eq!(first[0]["hash"], bench.config()["config_hash"]);

    // (what is done, how many versions it makes, [added, changed, removed], settings)
    let insert = |ip: &str| {
        format!(
            "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', '{ip}' FROM sites WHERE name LIKE 'Paris%'"
        )
    };
    for (sql, made, counts, settings) in [
        (insert("10.0.0.1"), 1, [1, 0, 0], false),
        (
            format!(
                "BEGIN; {}; {}; UPDATE devices SET driver_config = '{{\"n\": 1}}' WHERE ip = '10.0.0.2';
                 UPDATE sites SET timezone = 'Europe/Paris'; DELETE FROM devices WHERE ip = '10.0.0.3'; COMMIT",
                insert("10.0.0.2"),
                insert("10.0.0.3"),
            ),
            1,
            [1, 0, 0],
            true,
        ),
        ("UPDATE devices SET name = name".to_owned(), 0, [0; 3], false),
        ("UPDATE sites SET name = name".to_owned(), 0, [0; 3], false),
        (
            "BEGIN; UPDATE devices SET name = 'X'; ROLLBACK".to_owned(),
            0,
            [0; 3],
            false,
        ),
        // JSONB finds these equal, the hash does not.
        (
            "UPDATE devices SET driver_config = '{\"n\": 1.0}' WHERE ip = '10.0.0.2'".to_owned(),
            1,
            [0, 1, 0],
            false,
        ),
        (
            "UPDATE devices SET ip = '10.0.0.9' WHERE ip = '10.0.0.1'".to_owned(),
            1,
            [0, 1, 0],
            false,
        ),
        (
            "INSERT INTO devices (site_id, name, ip) SELECT id, 'Q', ip FROM sites, (VALUES ('10.0.0.9'), ('10.0.0.8')) v (ip)
                 ON CONFLICT (site_id, ip) DO UPDATE SET name = EXCLUDED.name"
                .to_owned(),
            1,
            [1, 1, 0],
            false,
        ),
        // Deleted and entered again as it was.
        (
            "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM devices; DELETE FROM devices;
             INSERT INTO devices (site_id, name, ip, driver_config) SELECT site_id, name, ip, driver_config FROM kept;
             DROP TABLE kept; COMMIT"
                .to_owned(),
            1,
            [0, 0, 0],
            false,
        ),
        ("UPDATE sites SET ok_interval_s = 600, name = 'Paris 2'".to_owned(), 1, [0; 3], true),
        ("DELETE FROM devices WHERE ip = '10.0.0.8'".to_owned(), 1, [0, 0, 1], false),
        ("TRUNCATE devices CASCADE".to_owned(), 1, [0, 0, 2], false),
        (insert("10.0.0.1"), 1, [1, 0, 0], false),
    ] {
        let before = versions(&bench);
        edit(&mut bench.sql, &sql);
        let after = versions(&bench);
        assert_eq!(after.len(), before.len() + made, "{sql}\n{after:#?}");
        assert_eq!(after[made..], before[..], "{sql}");
        if made == 1 {
            let new = &after[0];
            assert_eq!(
                [&new["added"], &new["changed"], &new["removed"]],
                counts.map(|n| json!(n)).each_ref(),
                "{sql}\n{new}"
            );
            assert_eq!(new["settings_changed"], settings, "{sql}\n{new}");
        }
        // The hash of what nobody polled before is the one that an agent gets.
        assert_eq!(after[0]["hash"], bench.config()["config_hash"], "{sql}");
    }

    // Pages of the list.
    let all = versions(&bench);
    let page = get(&bench, "/versions?limit=4");
    assert_eq!(page["total"], all.len());
    assert_eq!(page["versions"].as_array().unwrap()[..], all[..4]);
    let next = page["next_before"].as_i64().unwrap();
    let rest = get(&bench, &format!("/versions?limit=200&before={next}"));
    assert_eq!(rest["versions"].as_array().unwrap()[..], all[4..]);
    assert_eq!(rest["next_before"], Value::Null);

    // A token, a stored hash and a report change no configuration.
    bench
        .sql
        .batch_execute("UPDATE sites SET token = 'another'; UPDATE sites SET config_version = NULL")
        .unwrap();
    assert_eq!(versions(&bench).len(), all.len());

    // What is deleted keeps its history, and an old id goes on counting.
    bench.sql.batch_execute("DELETE FROM sites").unwrap();
    let kept = versions(&bench);
    assert_eq!(kept.len(), all.len() + 1);
    assert_eq!(kept[0]["deleted"], true);
    assert_eq!(kept[0]["hash"], Value::Null);
    assert_eq!(kept[0]["removed"], 1);
    let then = get(&bench, &format!("/versions/{}", revision(&kept[1])));
    assert_eq!(then["devices"][0]["ip"], "10.0.0.1");
    bench
        .sql
        .execute(
            "INSERT INTO sites (id, name, token) VALUES ($1, 'Paris', 'again')",
            &[&bench.site],
        )
        .unwrap();
    assert!(revision(&versions(&bench)[0]) > revision(&kept[0]));
    edit(&mut bench.sql, "TRUNCATE sites CASCADE");
    assert_eq!(versions(&bench)[0]["deleted"], true);
    let open: i64 = bench.one("SELECT (SELECT count(*) FROM device_history WHERE rev_to IS NULL) + (SELECT count(*) FROM site_history WHERE rev_to IS NULL)");
    assert_eq!(open, 0);
}

#[test]
fn a_version_says_who_made_it_and_from_where() {
    let mut bench = bench();
    // Roles are the cluster's: another test may have made it.
    let _ = bench
        .sql
        .batch_execute("CREATE ROLE technician LOGIN SUPERUSER");
    for sql in [
        "SET SESSION AUTHORIZATION technician",
        "INSERT INTO devices (site_id, name, ip) SELECT id, 'P', '10.0.0.1' FROM sites",
        "RESET SESSION AUTHORIZATION",
        "BEGIN;
         SELECT set_config('av.actor', 'Anna', true), set_config('av.origin', 'import', true),
                set_config('av.ip', '192.0.2.7', true);
         UPDATE devices SET name = 'Q';
         COMMIT",
        "UPDATE devices SET name = 'R'",
    ] {
        bench.sql.batch_execute(sql).unwrap();
    }
    let said: Vec<[Value; 3]> = versions(&bench)
        .iter()
        .map(|v| [v["author"].clone(), v["origin"].clone(), v["ip"].clone()])
        .collect();
    assert_eq!(
        said,
        [
            [json!("av"), json!("sql"), json!("127.0.0.1")],
            [json!("Anna"), json!("import"), json!("192.0.2.7")],
            [json!("technician"), json!("sql"), json!("127.0.0.1")],
            [json!("av"), json!("sql"), json!("127.0.0.1")],
        ]
    );
}

#[test]
fn a_change_over_the_api_is_a_version_of_its_user() {
    let mut bench = bench();
    let bearer = format!("Bearer {EDITOR}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let body = json!({"site_id": bench.site, "ip": "10.0.0.1", "name": "P", "driver": "pjlink",
                      "driver_config": {"pjlink": {"password": "hunter2"}}});
    let answer = bench.backend.request(
        "POST",
        "/admin/devices",
        &headers,
        Some(body.to_string().as_bytes()),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    let newest = &versions(&bench)[0];
    assert_eq!(newest["author"], "editor");
    assert_eq!(newest["origin"], "api");
    assert_eq!(newest["ip"], "127.0.0.1");
    assert_eq!(newest["added"], 1);
    // The next statement by hand is not the user's any more.
    bench
        .sql
        .batch_execute("UPDATE devices SET name = 'Q'")
        .unwrap();
    assert_eq!(versions(&bench)[0]["origin"], "sql");
}

#[test]
fn what_was_there_before_is_the_first_version() {
    let db = Database::create();
    let first = workspace().join("migrations/001_schema.sql");
    assert!(db.psql_file(&first).status.success());
    db.execute(
        "INSERT INTO sites (name, token) VALUES ('Paris', 'old');
         INSERT INTO devices (site_id, name, ip, driver_config)
         SELECT id, 'P', '10.0.0.' || n, '{\"pjlink\": {\"port\": 4352}}' FROM sites, generate_series(1, 3) n",
    );
    let backend = Backend::start(&db.url());
    let mut sql = db.connect();
    add_users(&mut sql);
    let site: i64 = sql.query_one("SELECT id FROM sites", &[]).unwrap().get(0);
    // As if it were new: running the file again takes nothing in twice.
    for file in ["001_schema", "003_versions"] {
        let file = workspace().join(format!("migrations/{file}.sql"));
        assert!(db.psql_file(&file).status.success());
    }
    db.execute("UPDATE devices SET name = 'Q' WHERE ip = '10.0.0.1'");
    let bench = Bench {
        backend,
        sql,
        db,
        site,
    };
    let versions = versions(&bench);
    assert_eq!(versions.len(), 2, "{versions:#?}");
    assert_eq!(versions[1]["origin"], "migration");
    assert_eq!(versions[1]["added"], 3);
    assert_eq!(versions[0]["changed"], 1);
    assert_eq!(
        versions[0]["hash"],
        bench.backend.get("/config/old").json()["config_hash"]
    );
}

#[test]
fn two_versions_are_compared_field_by_field_and_secrets_stay_masked() {
    let mut bench = bench();
    bench
        .sql
        .batch_execute(
            r#"INSERT INTO devices (site_id, name, ip, driver, room, driver_config, expectations)
               SELECT s.id, v.* FROM sites s, (VALUES
                   ('A', '10.0.0.1', 'pjlink', '101', '{"pjlink": {"password": "hunter2", "port": 4352}}'::jsonb,
                    '{"schedule": {"rules": [{"days": ["mon"], "start": "08:00", "end": "18:00"}]}}'::jsonb),
                   ('B', '10.0.0.2', 'snmp', NULL, '{"snmp": {"community": "c0mmunity", "auth_key": "k1"}}', NULL),
                   ('C', '10.0.0.3', 'ping', NULL, NULL, NULL)) v;
               UPDATE sites SET timezone = 'Europe/Paris', doubt_after_days = 3"#,
        )
        .unwrap();
    bench
        .sql
        .batch_execute(
            r#"BEGIN;
               UPDATE devices SET name = 'A2', room = '102', ip = '10.0.0.11',
                      driver_config = '{"pjlink": {"password": "hunter3", "port": 4353, "timeout_s": 1.50}}',
                      expectations = '{"schedule": {"rules": [{"days": ["mon"], "start": "09:00", "end": "18:00"}, {"days": []}]}}'
                WHERE ip = '10.0.0.1';
               UPDATE devices SET driver_config = '{"snmp": {"auth_key": "k2"}}' WHERE ip = '10.0.0.2';
               DELETE FROM devices WHERE ip = '10.0.0.3';
               INSERT INTO devices (site_id, name, ip, driver_config)
               SELECT id, 'D', '10.0.0.4', '{"pjlink": {"password": "hunter4"}}' FROM sites;
               UPDATE sites SET timezone = 'UTC', name = 'Paris Nord';
               COMMIT"#,
        )
        .unwrap();
    let all = versions(&bench);
    let (new, old) = (revision(&all[0]), revision(&all[1]));
    let answer = ask(
        &bench,
        VIEWER,
        "GET",
        &format!("/versions/{old}/diff/{new}"),
        &[],
        None,
    );
    for secret in ["hunter", "c0mmunity", "k1", "k2"] {
        assert!(!answer.body.contains(secret), "{}", answer.body);
    }
    // As it was written, digit by digit.
    assert!(answer.body.contains("1.50"), "{}", answer.body);
    let diff = answer.json();
    assert_eq!(diff["from"]["hash"], all[1]["hash"]);
    assert_eq!(diff["to"]["revision"], new);
    let change = |field: &str, before: Value, after: Value| json!({"field": field, "before": before, "after": after, "secret": false});
    assert_eq!(
        diff["settings"],
        json!([
            change("site_name", json!("Paris"), json!("Paris Nord")),
            change("timezone", json!("Europe/Paris"), json!("UTC")),
        ])
    );
    assert_eq!(diff["added"].as_array().unwrap().len(), 1);
    assert_eq!(diff["added"][0]["ip"], "10.0.0.4");
    assert_eq!(
        diff["added"][0]["driver_config"],
        json!({"pjlink": {"password": "***"}})
    );
    assert_eq!(diff["removed"].as_array().unwrap().len(), 1);
    assert_eq!(diff["removed"][0]["name"], "C");
    let changed = diff["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 2);
    assert_eq!(changed[0]["ip"], "10.0.0.11");
    assert_eq!(
        changed[0]["fields"],
        json!([
            change("ip", json!("10.0.0.1"), json!("10.0.0.11")),
            change("name", json!("A"), json!("A2")),
            change("room", json!("101"), json!("102")),
            {"field": "driver_config.pjlink.password", "before": "***", "after": "***", "secret": true},
            change("driver_config.pjlink.port", json!(4352), json!(4353)),
            {"field": "driver_config.pjlink.timeout_s", "after": 1.5, "secret": false},
            change("expectations.schedule.rules[0].start", json!("08:00"), json!("09:00")),
            {"field": "expectations.schedule.rules[1]", "after": {"days": []}, "secret": false},
        ])
    );
    assert_eq!(
        changed[1]["fields"],
        json!([
            {"field": "driver_config.snmp.auth_key", "before": "***", "after": "***", "secret": true},
            {"field": "driver_config.snmp.community", "before": "***", "secret": true},
        ])
    );

    // One version alone, also without its secrets.
    let answer = ask(
        &bench,
        VIEWER,
        "GET",
        &format!("/versions/{old}"),
        &[],
        None,
    );
    assert!(!answer.body.contains("hunter") && !answer.body.contains("c0mmunity"));
    let then = answer.json();
    assert_eq!(then["site_name"], "Paris");
    assert_eq!(then["doubt_after_days"], 3);
    let ips: Vec<&str> = then["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["ip"].as_str().unwrap())
        .collect();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(then["devices"][2]["building"], "");
    // Nothing differs between a version and itself.
    let same = get(&bench, &format!("/versions/{old}/diff/{old}"));
    assert_eq!(
        [&same["settings"], &same["added"], &same["changed"]],
        [&json!([]), &json!([]), &json!([])]
    );
    for path in [
        "/versions/0",
        "/versions/x",
        "/versions/99999",
        "/versions/1/diff/99999",
        "/nothing",
    ] {
        let answer = ask(&bench, VIEWER, "GET", path, &[], None);
        assert_eq!(answer.status, 404, "{path}");
    }
    for path in ["/versions?limit=0", "/versions?before=x"] {
        assert_eq!(ask(&bench, VIEWER, "GET", path, &[], None).status, 422);
    }
}

#[test]
fn a_rollback_brings_the_very_hash_of_before() {
    let mut bench = bench();
    bench
        .sql
        .batch_execute(
            r#"INSERT INTO devices (site_id, name, ip, driver, building, driver_config, expectations)
               SELECT s.id, v.* FROM sites s, (VALUES
                   ('É"\', '10.0.0.1', 'pjlink', NULL, '{"pjlink": {"password": "hunter2", "n": 1.0}}'::jsonb, NULL::jsonb),
                   ('B', '10.0.0.2', 'snmp', '', '{"n": 123456789012345678901234567890.10}', '{}'),
                   ('C', '10.0.0.3', 'ping', 'x', 'null', '[]')) v"#,
        )
        .unwrap();
    let good = bench.config();
    let ids: Vec<i64> = device_ids(&mut bench);
    let wanted = revision(&versions(&bench)[0]);
    bench
        .sql
        .batch_execute(
            r#"UPDATE devices SET driver_config = '{"pjlink": {"password": "hunter2", "n": 1}}' WHERE ip = '10.0.0.1';
               DELETE FROM devices WHERE ip = '10.0.0.2';
               INSERT INTO devices (site_id, name, ip) SELECT id, 'N', '10.0.0.7' FROM sites;
               UPDATE sites SET name = 'Lyon', ok_interval_s = 900, timezone = 'Asia/Tokyo'"#,
        )
        .unwrap();
    assert_ne!(bench.config()["config_hash"], good["config_hash"]);
    let newest = revision(&versions(&bench)[0]);
    let before = versions(&bench).len();

    // Not by a viewer, not without saying what was seen, not over a change.
    let path = format!("/versions/{wanted}/rollback");
    let star = [("If-Match", "*")];
    assert_eq!(ask(&bench, VIEWER, "POST", &path, &star, None).status, 403);
    assert_eq!(roll_back(&bench, wanted, &[], None).status, 428);
    for (headers, body) in [
        (vec![("If-Match", "\"1\"")], None),
        (vec![("If-Match", "nonsense")], None),
        (vec![], Some(json!({"expected_revision": newest - 1}))),
    ] {
        let answer = roll_back(&bench, wanted, &headers, body.as_ref());
        assert_eq!(answer.status, 412, "{headers:?} {body:?} {answer:?}");
    }
    let stale = roll_back(&bench, wanted, &[("If-Match", "\"1\"")], None).json();
    assert_eq!(stale["newest"], newest);
    assert_eq!(roll_back(&bench, 99_999, &star, None).status, 404);
    assert_eq!(
        versions(&bench).len(),
        before,
        "a refused one makes nothing"
    );

    let tag = format!("\"{newest}\"");
    let answer = roll_back(&bench, wanted, &[("If-Match", &tag)], None);
    assert_eq!(answer.status, 200, "{answer:?}");
    let done = answer.json();
    assert_eq!(done["hash"], good["config_hash"]);
    assert_eq!(
        [
            &done["added"],
            &done["changed"],
            &done["removed"],
            &done["settings_changed"]
        ],
        [&json!(1), &json!(1), &json!(1), &json!(true)]
    );
    assert_eq!(bench.config(), good);
    assert_eq!(
        device_ids(&mut bench),
        ids,
        "a device comes back under its id"
    );
    let after = versions(&bench);
    assert_eq!(after.len(), before + 1);
    assert_eq!(after[0]["origin"], "rollback");
    assert_eq!(after[0]["author"], "editor");
    assert_eq!(after[0]["ip"], "127.0.0.1");
    assert_eq!(after[0]["hash"], good["config_hash"]);
    assert_eq!(after[0]["revision"], done["revision"]);
    let deed: String = bench.one("SELECT action FROM audit ORDER BY id DESC LIMIT 1");
    assert_eq!(deed, "site.rollback");

    // Again: nothing differs, and nothing is made.
    let again = roll_back(
        &bench,
        wanted,
        &[],
        Some(&json!({"expected_revision": done["revision"]})),
    );
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.json()["revision"], done["revision"]);
    assert_eq!(versions(&bench).len(), before + 1);

    // A name that another site has now.
    bench
        .sql
        .batch_execute("UPDATE sites SET name = 'Nice'")
        .unwrap();
    add_site(&mut bench.sql, "Paris", "other");
    let config = bench.config();
    let answer = roll_back(&bench, wanted, &star, None);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(bench.config(), config);
}

fn device_ids(bench: &mut Bench) -> Vec<i64> {
    let query = "SELECT id FROM devices WHERE site_id = $1 ORDER BY ip";
    bench
        .sql
        .query(query, &[&bench.site])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn bulk_changes_and_rollbacks_of_two_thousand_devices() {
    let mut bench = bench();
    bench
        .sql
        .batch_execute(
            "INSERT INTO devices (site_id, name, ip, driver_config)
             SELECT s.id, 'P' || n, '10.1.' || n / 250 || '.' || n % 250, '{\"pjlink\": {\"port\": 4352}}'
               FROM sites s, generate_series(1, 2000) n",
        )
        .unwrap();
    let good = bench.config()["config_hash"].clone();
    let wanted = revision(&versions(&bench)[0]);
    bench
        .sql
        .batch_execute(
            "BEGIN; UPDATE devices SET room = 'x'; DELETE FROM devices WHERE id % 2 = 0; COMMIT",
        )
        .unwrap();
    let newest = &versions(&bench)[0];
    assert_eq!(
        [&newest["changed"], &newest["removed"]],
        [&json!(1000), &json!(1000)]
    );
    let answer = roll_back(&bench, wanted, &[("If-Match", "*")], None);
    assert_eq!(answer.json()["hash"], good);
    assert_eq!(bench.config()["config_hash"], good);
    let rows: i64 = bench.one("SELECT count(*) FROM device_history");
    // 2000 entered, 2000 changed (a thousand of which then went), and brought back.
    assert_eq!(rows, 2000 + 2000 + 2000);
}

#[test]
fn an_agent_is_in_sync_behind_or_refuses() {
    let mut bench = bench();
    let state = |bench: &Bench| get(bench, "/agent");
    assert_eq!(state(&bench)["state"], "unknown");
    let says = |bench: &Bench, hash: &Value, error: Value| {
        let mut body = report(&[reported("10.0.0.1", "online", "ok")]);
        body["agent"] = json!({"version": "1.2.3", "config_hash": hash, "config_error": error,
                               "rejected_devices": [{"ip": "10.0.0.1", "problem": "odd"}]});
        assert_eq!(bench.backend.ingest(TOKEN, &body).status, 200);
    };
    bench.add_device("10.0.0.1");
    let first = bench.config()["config_hash"].clone();
    says(&bench, &first, Value::Null);
    let now = state(&bench);
    assert_eq!(now["state"], "in_sync", "{now}");
    assert_eq!(now["wanted_hash"], first);
    assert_eq!(now["since"], Value::Null);
    assert_eq!(now["version"], "1.2.3");
    assert_eq!(now["rejected_devices"][0]["problem"], "odd");

    // Two changes that nobody polled: it is behind since the first of them.
    bench.add_device("10.0.0.2");
    bench.add_device("10.0.0.3");
    let all = versions(&bench);
    let now = state(&bench);
    assert_eq!(now["state"], "behind", "{now}");
    assert_eq!(now["since"], all[1]["at"]);
    assert_eq!(now["wanted_hash"], all[0]["hash"]);
    assert_eq!(now["wanted_revision"], all[0]["revision"]);

    // The same in the answers of the site itself.
    let site = get(&bench, "");
    assert_eq!(site["agent"]["state"], "behind");
    assert_eq!(site["agent"]["since"], all[1]["at"]);
    assert_eq!(site["agent"]["wanted_hash"], all[0]["hash"]);

    says(&bench, &first, json!("devices: too odd"));
    let now = state(&bench);
    assert_eq!(now["state"], "refused", "{now}");
    assert_eq!(now["why"], "devices: too odd");
    assert_eq!(now["since"], all[1]["at"]);

    // What it refused before this change says nothing of it.
    bench.add_device("10.0.0.4");
    assert_eq!(state(&bench)["state"], "behind");
    let newest = bench.config()["config_hash"].clone();
    says(&bench, &newest, Value::Null);
    assert_eq!(state(&bench)["state"], "in_sync");
}
