//! `av-backend backup` and `restore` on real PostgreSQL: what comes back is
//! what was there, to the last row, and nothing is taken for a backup that is
//! none.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test code, of which each test file uses a part"
)]

mod backend_support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, backend_command};
use backend_support::{TOKEN, add_site, numbered, reported};
use postgres::Client;
use serde_json::Value;

fn run(url: &str, arguments: &[&str], file: &Path) -> Output {
    backend_command(url)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refuses(output: &Output, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
}

/// Every row of every table, and every sequence, as text.
fn everything(sql: &mut Client) -> Vec<String> {
    let tables = sql
        .query(
            "SELECT relname, relkind = 'S' FROM pg_class
              WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
              ORDER BY relname",
            &[],
        )
        .unwrap();
    let mut found = Vec::new();
    for table in &tables {
        let (name, sequence): (String, bool) = (table.get(0), table.get(1));
        // `log_cnt` is PostgreSQL's own.
        let what = if sequence {
            "last_value, is_called"
        } else {
            "*"
        };
        let rows = sql
            .query(
                &format!("SELECT r::text FROM (SELECT {what} FROM {name}) r ORDER BY r::text"),
                &[],
            )
            .unwrap();
        found.push(format!("{name}: {} rows", rows.len()));
        found.extend(
            rows.iter()
                .map(|row| format!("{name} {}", row.get::<_, String>(0))),
        );
    }
    found
}

/// Tables, columns, constraints, indexes, triggers, routines and views.
fn schema(sql: &mut Client) -> Vec<String> {
    sql.query(
        "SELECT format('%s.%s %s %s %s', c.oid::regclass, a.attname, a.atttypid::regtype,
                       a.attnotnull, pg_get_expr(d.adbin, d.adrelid)) AS said
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
                LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
          WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
         UNION ALL SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
          WHERE connamespace = 'public'::regnamespace
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
          WHERE pronamespace = 'public'::regnamespace
         UNION ALL SELECT pg_get_viewdef(oid) FROM pg_class
          WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
         ORDER BY said",
        &[],
    )
    .unwrap()
    .iter()
    .map(|row| row.get(0))
    .collect()
}

/// A backend with something in every corner; its configuration and the backup.
fn scene(dir: &Path) -> (Database<'static>, Value, PathBuf) {
    let db = Database::create();
    let backend = Backend::start(&db.url());
    let mut sql = db.connect();
    let site = add_site(&mut sql, "Paris", TOKEN);
    add_site(&mut sql, "Orléans, \"la\" ' \\ \n Source", "t-2");
    for n in 0..20 {
        sql.execute(
            "INSERT INTO devices (site_id, name, ip, building, driver, driver_config, expectations)
             VALUES ($1, $2, $3, 'Bâtiment\t', 'pjlink',
                     '{\"pjlink\": {\"port\": 4352, \"password\": \"s3cret\"},
                       \"n\": 1e30, \"deep\": [[{\"é\": \"\\u2028\"}]]}', '{\"always_on\": true}')",
            &[&site, &format!("Projecteur {n} ☃"), &format!("10.0.0.{n}")],
        )
        .unwrap();
    }
    sql.batch_execute("UPDATE devices SET room = '101' WHERE ip = '10.0.0.1'")
        .unwrap();
    for seq in 1..=4 {
        let status = ["online", "offline"][usize::try_from(seq % 2).unwrap()];
        let verdict = ["ok", "fault"][usize::try_from(seq % 2).unwrap()];
        let devices: Vec<Value> = (0..20)
            .map(|n| reported(&format!("10.0.0.{n}"), status, verdict))
            .collect();
        let answer = backend.ingest(TOKEN, &numbered(&devices, "s", seq));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let config = backend.get(&format!("/config/{TOKEN}")).json();
    assert_eq!(config["devices"].as_array().unwrap().len(), 20);
    // While the backend runs.
    let apart = tempfile::tempdir().unwrap();
    let running = apart.path().join("running.dump");
    let told = succeeds(&run(&db.url(), &["backup"], &running));
    assert!(told.contains("2 sites, 20 devices"), "{told}");
    let copy = Database::create();
    succeeds(&run(&copy.url(), &["restore"], &running));
    // What it writes by itself would differ from what was dumped.
    drop(backend);
    let file = dir.join("av.dump");
    av_proto_tests::process::wait_for("its connections are gone", String::new, || {
        let count: i64 = sql
            .query_one(
                "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name LIKE 'av-backend%'",
                &[],
            )
            .unwrap()
            .get(0);
        (count == 0).then_some(())
    });
    succeeds(&run(&db.url(), &["backup"], &file));
    (db, config, file)
}

#[test]
fn what_is_restored_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (db, config, file) = scene(dir.path());
    let manifest_file = dir.path().join("av.dump.manifest.json");
    for file in [&file, &manifest_file] {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(&manifest_file).unwrap()).unwrap();
    assert_eq!(manifest["sites"][1]["name"], "Paris");
    assert_eq!(manifest["sites"][1]["hash"], config["config_hash"]);
    assert_eq!(manifest["sites"][1]["devices"], 20);
    refuses(&run(&db.url(), &["backup"], &file), "is there already");
    assert_eq!(dir.path().read_dir().unwrap().count(), 2, "no file is left");

    let other = Database::create();
    let told = succeeds(&run(&other.url(), &["restore"], &file));
    assert!(told.contains("2 sites, 20 devices"), "{told}");
    let (mut before, mut after) = (db.connect(), other.connect());
    let (was, is) = (everything(&mut before), everything(&mut after));
    assert!(was.len() > 200, "{}", was.len());
    assert_eq!(was, is);
    assert_eq!(schema(&mut before), schema(&mut after));

    // It is a working database: the token opens, the schema is up to date,
    // a report that was taken is known, and new rows get new numbers.
    let backend = Backend::start(&other.url());
    assert_eq!(backend.get(&format!("/config/{TOKEN}")).json(), config);
    let again = numbered(&[reported("10.0.0.1", "online", "ok")], "s", 4);
    assert_eq!(backend.ingest(TOKEN, &again).json()["duplicate"], true);
    add_site(&mut after, "Brest", "t-3");
}

#[test]
fn a_database_that_is_not_empty_is_left_alone_without_force_and_whole_where_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _, file) = scene(dir.path());
    let other = Database::create();
    other.execute("CREATE TABLE somebodys (x int); INSERT INTO somebodys VALUES (7)");
    refuses(&run(&other.url(), &["restore"], &file), "is not empty");

    // A dump that breaks off, with a manifest that fits it: PostgreSQL's own
    // programs find out in the middle.
    let half = dir.path().join("half.dump");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() - 200]).unwrap();
    let manifest = dir.path().join("av.dump.manifest.json");
    let half_manifest = dir.path().join("half.dump.manifest.json");
    std::fs::copy(&manifest, &half_manifest).unwrap();
    refuses(
        &run(&other.url(), &["restore", "--force"], &half),
        "SHA-256 differ",
    );
    let sum = std::process::Command::new("sha256sum")
        .arg(&half)
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let mut document: Value =
        serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    document["sha256"] = sum.into();
    std::fs::write(&half_manifest, document.to_string()).unwrap();
    refuses(&run(&other.url(), &["restore", "--force"], &half), "failed");
    let mut sql = other.connect();
    let kept: i32 = sql
        .query_one("SELECT x FROM somebodys", &[])
        .unwrap()
        .get(0);
    assert_eq!(kept, 7, "what was there stays where nothing was restored");

    // A manifest that tells of more than the dump holds.
    let mut document: Value =
        serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    let sites = document["sites"].as_array_mut().unwrap();
    sites[1]["hash"] = "0".repeat(32).into();
    let wrong = dir.path().join("wrong.dump");
    std::fs::copy(&file, &wrong).unwrap();
    std::fs::write(
        dir.path().join("wrong.dump.manifest.json"),
        document.to_string(),
    )
    .unwrap();
    refuses(
        &run(&other.url(), &["restore", "--force"], &wrong),
        "site \"Paris\": its configuration hashes to",
    );

    // Newer than this program.
    document["schema_version"] = 9999.into();
    std::fs::write(
        dir.path().join("wrong.dump.manifest.json"),
        document.to_string(),
    )
    .unwrap();
    refuses(
        &run(&other.url(), &["restore", "--force"], &wrong),
        "has schema 9999",
    );

    // With a backend at work, nobody.
    let backend = Backend::start(&other.url());
    refuses(
        &run(&other.url(), &["restore", "--force"], &file),
        "stop every backend first",
    );
    drop(backend);
    other.execute(
        "DELETE FROM devices; UPDATE sites SET name = 'Elsewhere' WHERE name = 'Paris';
         CREATE TABLE newer (site_id bigint REFERENCES sites (id));
         CREATE TYPE colour AS ENUM ('red');",
    );
    let mut told = Output {
        status: std::process::ExitStatus::default(),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    av_proto_tests::process::wait_for(
        "the killed backend's connections are gone",
        String::new,
        || {
            told = run(&other.url(), &["restore", "--force"], &file);
            let waits = String::from_utf8_lossy(&told.stderr).contains("stop every backend");
            (!waits).then_some(())
        },
    );
    succeeds(&told);
    assert_eq!(everything(&mut db.connect()), everything(&mut sql));
    assert_eq!(schema(&mut db.connect()), schema(&mut sql));
}

#[test]
fn a_password_is_on_no_command_line_and_in_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("av.dump");
    let secret = "hunter2-in-the-url";
    let url = format!("postgres://av:{secret}@127.0.0.1:1/none");
    let output = run(&url, &["backup"], &file);
    refuses(&output, "refused");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));

    // A pg_dump of ours notes how it was called.
    let db = Database::create();
    succeeds(&backend_command(&db.url()).arg("migrate").output().unwrap());
    let fake = dir.path().join("pg_dump");
    std::fs::write(
        &fake,
        "#!/bin/sh\ntr '\\0' ' ' </proc/$$/cmdline >\"$(dirname \"$0\")/called\"\n\
         echo \"$PGPASSWORD\" >\"$(dirname \"$0\")/password\"\nexit 3\n",
    )
    .unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let url = db.url().replace("av@", &format!("av:{secret}@"));
    let output = backend_command(&url)
        .arg("backup")
        .arg(&file)
        .env(
            "PATH",
            format!(
                "{}:{}",
                dir.path().display(),
                std::env::var("PATH").unwrap()
            ),
        )
        .output()
        .unwrap();
    refuses(&output, "pg_dump failed");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(!read("called").contains(secret), "{}", read("called"));
    assert_eq!(read("password").trim(), secret);
    assert!(!file.exists());
    assert_eq!(dir.path().read_dir().unwrap().count(), 3, "no part is left");
}
