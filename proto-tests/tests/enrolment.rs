//! An agent's first enrolment: a code made in the backend, a token for it, and
//! a configuration file that nobody wrote by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, site};
use av_proto_tests::process::{Agent, Answer, Backend, binary};
use backend_support::{Bench, TOKEN, assert_error};
use serde_json::{Value, json};

fn bench() -> Bench {
    let mut bench = Bench::start();
    for role in ["viewer", "editor"] {
        bench
            .sql
            .execute(
                "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ($1, '-', $1) RETURNING id)
                 INSERT INTO api_tokens (user_id, name, digest)
                 SELECT id, 'test', 'sha256:' || encode(sha256(convert_to('avt_' || $1, 'UTF8')), 'hex') FROM u",
                &[&role],
            )
            .unwrap();
    }
    bench
}

fn as_user(backend: &Backend, role: &str, method: &str, path: &str) -> Answer {
    let bearer = format!("Bearer avt_{role}");
    let body = (method == "POST").then_some(&b""[..]);
    backend.request(method, path, &[("Authorization", &bearer)], body)
}

fn path(bench: &Bench) -> String {
    format!("/admin/sites/{}/enrolment", bench.site)
}

#[track_caller]
fn new_code(bench: &Bench) -> String {
    let answer = as_user(&bench.backend, "editor", "POST", &path(bench));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["code"].as_str().unwrap().to_owned()
}

fn open_until(bench: &Bench) -> Value {
    as_user(&bench.backend, "viewer", "GET", &path(bench)).json()["valid_until"].clone()
}

fn enrol(backend: &Backend, code: &str) -> Answer {
    let body = json!({ "code": code }).to_string();
    let headers = [("Content-Type", "application/json")];
    backend.request("POST", "/enroll", &headers, Some(body.as_bytes()))
}

fn enroll_command(config: &Path, backend: &str, code: &str, more: &[&str]) -> Output {
    Command::new(binary("av-agent"))
        .args(["enroll", backend, code, "--config"])
        .arg(config)
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_code_is_worth_one_token_and_the_running_agent_is_not_cut_off() {
    let mut bench = bench();
    // Who may make one.
    assert_error(
        &as_user(&bench.backend, "viewer", "POST", &path(&bench)),
        403,
        "editor",
    );
    assert_eq!(
        as_user(&bench.backend, "nobody", "POST", &path(&bench)).status,
        401
    );
    let nowhere = "/admin/sites/9999/enrolment";
    assert_error(
        &as_user(&bench.backend, "editor", "POST", nowhere),
        404,
        "no such site",
    );
    assert_eq!(
        as_user(&bench.backend, "editor", "PUT", &path(&bench)).status,
        405
    );
    assert_eq!(open_until(&bench), Value::Null);

    let first = new_code(&bench);
    let letters: Vec<char> = first.chars().filter(|c| *c != '-').collect();
    assert_eq!(letters.len(), 10, "{first}");
    assert!(
        letters
            .iter()
            .all(|c| c.is_ascii_alphanumeric() && !"01OILUoilu".contains(*c)),
        "{first}"
    );
    let minutes: f64 =
        bench.one("SELECT extract(epoch FROM valid_until - now())::float8 / 60 FROM enrolments");
    assert!((13.0..15.1).contains(&minutes), "{minutes}");
    assert!(open_until(&bench).is_string());
    // Another one takes its place.
    let code = new_code(&bench);
    assert_error(&enrol(&bench.backend, &first), 404, "wrong, was used");
    let kept: String = bench.one("SELECT row_to_json(e)::text FROM enrolments e");
    assert!(!kept.contains(&code.replace('-', "")), "{kept}");

    // As somebody types it.
    let answer = enrol(
        &bench.backend,
        &format!(" {} ", code.to_lowercase().replace('-', " ")),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let given = answer.json();
    assert_eq!(given["site_name"], "Paris");
    let token = given["site_token"].as_str().unwrap();
    assert_eq!(open_until(&bench), Value::Null);
    assert_error(&enrol(&bench.backend, &code), 404, "wrong, was used");
    // Both open; the agent that ran before is asked to fetch one of its own.
    let poll = |token: &str| bench.backend.get(&format!("/config/{token}"));
    bench.backend.process.wait_for("the renewal is seen", || {
        poll(TOKEN)
            .headers
            .contains_key("x-token-renewal")
            .then_some(())
    });
    assert_eq!(poll(TOKEN).status, 200);
    let fresh = poll(token);
    assert_eq!(
        (fresh.status, fresh.headers.get("x-token-renewal")),
        (200, None)
    );

    for body in ["", "{}", "[]", r#"{"code": 7}"#] {
        let headers = [("Content-Type", "application/json")];
        let answer = bench
            .backend
            .request("POST", "/enroll", &headers, Some(body.as_bytes()));
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
    }
    // A code whose time is over.
    let late = new_code(&bench);
    bench
        .sql
        .batch_execute("UPDATE enrolments SET valid_until = now() - interval '1 second'")
        .unwrap();
    assert_error(&enrol(&bench.backend, &late), 404, "15 minutes are over");

    let deeds: String = bench.one(
        "SELECT string_agg(action || ' ' || actor || ' ' || ip, ', ' ORDER BY id) FROM audit
          WHERE action LIKE 'site.enrolment%'",
    );
    let opened = "site.enrolment.open editor 127.0.0.1";
    assert_eq!(
        deeds,
        format!("{opened}, {opened}, site.enrolment.use agent 127.0.0.1, {opened}")
    );
    let audit: String = bench.one("SELECT string_agg(row_to_json(a)::text, '') FROM audit a");
    for text in [bench.backend.process.log(), audit] {
        for secret in [token, &code, &code.replace('-', ""), &first, &late] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn wrong_codes_are_limited_of_one_address_and_of_all() {
    let mut bench = bench();
    let backend = Backend::spawn(&bench.db.url(), |command| {
        command.env("AV_BEHIND_TLS", "1");
    });
    backend.wait_until_healthy();
    let from = |ip: &str, code: &str| {
        let body = json!({ "code": code }).to_string();
        let headers = [
            ("X-Forwarded-For", ip),
            ("Content-Type", "application/json"),
        ];
        backend.request("POST", "/enroll", &headers, Some(body.as_bytes()))
    };
    for _ in 0..10 {
        assert_eq!(from("192.0.2.1", "AAAAA-AAAAA").status, 404);
    }
    let code = new_code(&bench);
    let blocked = from("192.0.2.1", &code);
    assert_error(&blocked, 429, "too many codes were wrong");
    let seconds: u64 = blocked.headers["retry-after"].parse().unwrap();
    assert!((1..=900).contains(&seconds), "{seconds}");
    // Another address is not blocked by it, and a good code counts nothing.
    assert_eq!(from("192.0.2.2", &code).status, 200);
    let counted: i64 = bench.one("SELECT count(*) FROM enrolment_attempts");
    assert_eq!(counted, 10);

    bench
        .sql
        .batch_execute(
            "INSERT INTO enrolment_attempts (ip) SELECT '198.51.100.' || n FROM generate_series(1, 190) n",
        )
        .unwrap();
    let code = new_code(&bench);
    assert_eq!(from("192.0.2.3", &code).status, 429, "of all addresses");
    bench
        .sql
        .batch_execute("UPDATE enrolment_attempts SET at = at - interval '16 minutes'")
        .unwrap();
    assert_eq!(from("192.0.2.1", &code).status, 200);
}

#[test]
fn an_agent_enrols_and_runs_without_a_file_edited() {
    let mut bench = bench();
    bench.add_device("127.0.0.1");
    let mut agent = Agent::new(&json!({}));
    let config = agent.config_file();
    let url = bench.backend.url.clone();
    fs::remove_file(&config).unwrap();

    let wrong = enroll_command(&config, &url, "AAAAA-AAAAA", &[]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(
        said(&wrong).contains("this code is wrong"),
        "{}",
        said(&wrong)
    );
    assert!(!config.exists());

    let code = new_code(&bench);
    let done = enroll_command(&config, &url, &code, &[]);
    let text = said(&done);
    assert_eq!(done.status.code(), Some(0), "{text}");
    assert!(
        text.contains("enrolled as Paris") && text.contains("next:"),
        "{text}"
    );
    let written = fs::read_to_string(&config).unwrap();
    let mode = fs::metadata(&config).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = serde_json::from_str::<Value>(&written).unwrap()["site_token"].clone();
    assert!(!text.contains(token.as_str().unwrap()), "{text}");

    // What is there and valid stays, and costs no code.
    let code = new_code(&bench);
    let again = enroll_command(&config, &url, &code, &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        said(&again).contains("--force replaces it"),
        "{}",
        said(&again)
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
    let waiting: i64 = bench.one("SELECT count(*) FROM enrolments");
    assert_eq!(waiting, 1);

    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config updated successfully! 1 devices configured.", 1);
    process.wait_for("the backend has a report", || {
        let count: i64 =
            bench.one("SELECT count(*) FROM site_agents WHERE last_report_at IS NOT NULL");
        (count == 1).then_some(())
    });

    // On purpose it is replaced; the agent that still runs goes on.
    let forced = enroll_command(&config, &url, &code, &["--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    assert_ne!(fs::read_to_string(&config).unwrap(), written);
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config updated successfully! 1 devices configured.", 1);
}

#[test]
fn an_earlier_backend_and_a_bad_address_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    // It answers what it does not know with 404, as many do.
    let other = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
    for (url, words) in [
        ("http://127.0.0.1:9", "backend not reachable"),
        ("backend", "does not start with http:// or https://"),
        (&other.url(), "404"),
    ] {
        let output = enroll_command(&config, url, "ABCDE-FGHJK", &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words), "{url}: {text}");
        assert!(!text.contains("ABCDE"), "{text}");
        assert!(!config.exists());
    }
}
