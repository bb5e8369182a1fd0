//! The commands of `av-backend`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, backend_command};
use backend_support::{Bench, TOKEN};
use serde_json::json;

fn run(url: &str, arguments: &[&str]) -> Output {
    backend_command(url).args(arguments).output().unwrap()
}

fn with_input(arguments: &[&str], input: &str) -> Output {
    let mut command: Command = backend_command("");
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_site_is_added_with_a_token_that_works_and_is_listed() {
    let db = Database::create();
    // An empty database will do.
    let output = run(
        &db.url(),
        &["site", "add", "Site Paris", "--timezone", "Europe/Paris"],
    );
    assert!(output.status.success(), "{output:?}");
    let token = stdout(&output).strip_suffix('\n').unwrap().to_owned();
    assert_eq!(token.len(), 64, "the token alone on its line: {output:?}");
    assert!(stderr(&output).contains("cannot be shown again"));
    assert!(!stderr(&output).contains(&token));

    let backend = Backend::start(&db.url());
    let config = backend.get(&format!("/config/{token}")).json();
    assert_eq!(config["site_name"], "Site Paris");
    assert_eq!(config["timezone"], "Europe/Paris");

    // Who did it stands in its history and in the audit log.
    let mut sql = db.connect();
    for (query, said) in [
        (
            "SELECT author || ', ' || origin FROM config_versions",
            "command line, cli",
        ),
        (
            "SELECT actor || ', ' || action FROM audit",
            "command line, site.create",
        ),
    ] {
        let row = sql.query_one(query, &[]).unwrap();
        assert_eq!(row.get::<_, String>(0), said);
    }

    let again = run(&db.url(), &["site", "add", "Site Paris"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stdout.is_empty());
    assert!(stderr(&again).contains("there is a site \"Site Paris\" already"));
    for (arguments, said) in [
        (["site", "add", " ", "--timezone=UTC"], "name is empty"),
        (
            ["site", "add", "X", "--timezone=Mars/Base"],
            "not an IANA time zone",
        ),
    ] {
        let output = run(&db.url(), &arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(said), "{output:?}");
    }

    let list = run(&db.url(), &["site", "list"]);
    assert!(list.status.success());
    let text = stdout(&list);
    assert_eq!(text.lines().count(), 2, "{text}");
    let hash = config["config_hash"].as_str().unwrap();
    assert!(text.contains("Site Paris") && text.contains(hash), "{text}");
    assert!(!text.contains(&token));
}

#[test]
fn migrate_says_what_it_applied() {
    let db = Database::create();
    let first = run(&db.url(), &["migrate"]);
    assert!(first.status.success(), "{first:?}");
    assert!(stdout(&first).contains("applied 001_schema"));
    let second = run(&db.url(), &["migrate"]);
    assert!(second.status.success());
    assert_eq!(stdout(&second), "The schema is up to date.\n");
}

#[test]
fn a_database_that_cannot_be_used_is_said_without_its_password() {
    for (url, said) in [
        ("", "DATABASE_URL is not set"),
        ("postgres://av:hunter2@127.0.0.1:1/av", "not available"),
        (
            "postgres://av:hunter2@127.0.0.1:x/av",
            "not a PostgreSQL connection string",
        ),
        (
            "password=hunter2 host",
            "not a PostgreSQL connection string",
        ),
        (
            "postgres://av:hunter2@127.0.0.1:1/av?sslmode=require",
            "not available",
        ),
    ] {
        for arguments in [&["migrate"][..], &["site", "list"]] {
            let output = run(url, arguments);
            assert_eq!(output.status.code(), Some(1), "{url}");
            assert!(stderr(&output).contains(said), "{output:?}");
            assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
        }
    }
    let help = run("postgres://av:hunter2@127.0.0.1:1/av", &["serve", "--help"]);
    assert!(help.status.success());
    assert!(!format!("{help:?}").contains("hunter2"));
}

#[test]
fn hash_prints_the_md5_of_a_document() {
    // python3: hashlib.md5(json.dumps(obj, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    let document = r#"{"site_name":"é","timezone":"UTC","doubt_after_days":2,"ok_interval_s":300,"ko_interval_s":60,"devices":[]}"#;
    let output = with_input(&["hash", "-"], document);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "b9f7eb9e0a886df1438a1a560886c276\n");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document).unwrap();
    let output = run("", &["hash", file.path().to_str().unwrap()]);
    assert_eq!(stdout(&output), "b9f7eb9e0a886df1438a1a560886c276\n");

    for (input, code, said) in [("{", 1, "is not JSON"), ("[]", 1, "document: ")] {
        let output = with_input(&["hash", "-"], input);
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr(&output).contains(said), "{output:?}");
    }
    assert_eq!(run("", &["hash", "/does/not/exist"]).status.code(), Some(2));
}

#[test]
fn check_config_takes_what_the_backend_sends_and_what_an_agent_has() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let body = bench.backend.get(&format!("/config/{TOKEN}")).body;
    let output = with_input(&["check-config", "-"], &body);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "1 device(s), nothing wrong\n");

    bench.add_device("projector");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let body = bench.backend.get(&format!("/config/{TOKEN}")).body;
    let output = with_input(&["check-config", "-"], &body);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        stdout(&output),
        "devices[1].ip: \"projector\" is not an IP address\n"
    );

    let agent = json!({
        "site_name": "Paris", "site_token": "t", "backend_url": "http://backend:8000",
        "devices": [{"ip": "10.0.0.1", "name": "P", "driver": "ping"}],
    });
    assert_eq!(
        with_input(&["check-config", "-"], &agent.to_string())
            .status
            .code(),
        Some(0)
    );
    for input in ["{", "", "[1]"] {
        let output = with_input(&["check-config", "-"], input);
        assert_eq!(output.status.code(), Some(2), "{input}");
        assert!(stderr(&output).contains("document: "), "{output:?}");
    }
    assert_eq!(
        run("", &["check-config", "/does/not/exist"]).status.code(),
        Some(2)
    );
}
