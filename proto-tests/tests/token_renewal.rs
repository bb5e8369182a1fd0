//! A site's token is renewed, and its agent takes a new one over by itself,
//! whatever happens on the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use av_proto_tests::process::{Agent, Answer};
use backend_support::{Bench, TOKEN, assert_error, report, reported};
use serde_json::{Value, json};

const EDITOR: &str = "avt_editor";
/// After which a poll must see a commit.
const SEEN_AFTER: Duration = Duration::from_millis(100);

fn bench() -> Bench {
    let mut bench = Bench::start();
    bench
        .sql
        .execute(
            "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ('editor', '-', 'editor') RETURNING id)
             INSERT INTO api_tokens (user_id, name, digest)
             SELECT id, 'test', 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex') FROM u",
            &[&EDITOR],
        )
        .unwrap();
    bench
}

fn ask(bench: &Bench, method: &str, body: Option<&Value>) -> Answer {
    let bearer = format!("Bearer {EDITOR}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let body = body.map(Value::to_string);
    bench.backend.request(
        method,
        &format!("/admin/sites/{}/token", bench.site),
        &headers,
        body.as_deref().map(str::as_bytes),
    )
}

/// Renews as an administrator; answers the token that is shown once.
#[track_caller]
fn renew(bench: &Bench) -> String {
    let answer = ask(bench, "POST", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    sleep(SEEN_AFTER);
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// `GET /config/{token}`: its status, and whether it asks for a renewal.
fn poll(bench: &Bench, token: &str) -> (u16, bool) {
    let answer = bench.backend.get(&format!("/config/{token}"));
    let asked = answer
        .headers
        .get("x-token-renewal")
        .is_some_and(|value| value == "requested");
    (answer.status, asked)
}

fn fetch(bench: &Bench, token: &str) -> Answer {
    bench.backend.request(
        "POST",
        "/token/renew",
        &[("X-Site-Token", token)],
        Some(b"{}"),
    )
}

#[track_caller]
fn fetched(bench: &Bench, token: &str) -> String {
    let answer = fetch(bench, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["site_token"].as_str().unwrap().to_owned()
}

fn ingest(bench: &Bench, token: &str) -> u16 {
    let body = report(&[reported("10.0.0.1", "online", "ok")]);
    bench.backend.ingest(token, &body).status
}

/// An agent of Paris with this token in its file.
fn agent(bench: &Bench, tokens: &Value) -> Agent {
    let mut config = json!({"site_name": "Paris", "backend_url": bench.backend.url});
    for (name, token) in tokens.as_object().unwrap() {
        config[name] = token.clone();
    }
    Agent::new(&config)
}

fn tokens_in(file: &std::path::Path) -> (String, Option<String>) {
    let config: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    (
        config["site_token"].as_str().unwrap().to_owned(),
        config["previous_site_token"].as_str().map(str::to_owned),
    )
}

/// Waits until the agent runs what the backend has, with a single token that
/// is none of these; answers it.
#[track_caller]
fn wait_taken_over(agent: &Agent, known: &[&str]) -> String {
    agent
        .process
        .as_ref()
        .unwrap()
        .wait_for("a new token is taken over", || {
            let status = agent.get("/api/status")?.json();
            let (token, previous) = tokens_in(&agent.config_file());
            (status["sync"]["last_sync_ok"] == true
                && previous.is_none()
                && !known.contains(&token.as_str()))
            .then_some(token)
        })
}

#[test]
fn a_renewed_token_lives_on_until_another_is_used() {
    let mut bench = bench();
    bench.add_device("10.0.0.1");
    assert_eq!(poll(&bench, TOKEN), (200, false));
    assert_error(&fetch(&bench, TOKEN), 409, "nobody asked");
    assert_error(&fetch(&bench, "nonsense"), 401, "X-Site-Token");
    let answer = bench
        .backend
        .request("POST", "/token/renew", &[], Some(b""));
    assert_error(&answer, 401, "X-Site-Token");

    let hash = bench.config()["config_hash"].clone();
    let shown = renew(&bench);
    assert_eq!(shown.len(), 64, "256 bits in hex");
    let stored: String =
        bench.one("SELECT token || string_agg(digest, ' ') FROM sites, site_tokens GROUP BY token");
    assert!(
        !stored.contains(&shown) && !stored.contains(TOKEN),
        "{stored}"
    );
    // Both open; the old one is asked to renew, with 304 as with 200.
    assert_eq!(poll(&bench, TOKEN), (200, true));
    assert_eq!(poll(&bench, &shown), (200, false));
    let answer = bench.backend.request(
        "GET",
        &format!("/config/{TOKEN}"),
        &[("If-None-Match", "*")],
        None,
    );
    assert_eq!(
        (answer.status, answer.headers["x-token-renewal"].as_str()),
        (304, "requested")
    );
    assert_eq!(bench.config()["config_hash"], hash, "the hash is untouched");
    assert_eq!(ingest(&bench, TOKEN), 200);
    assert_eq!(ingest(&bench, &shown), 200);
    // An administrator who tries the new one cuts nobody off.
    assert_eq!(poll(&bench, TOKEN), (200, true));

    // Answers that are lost on the way cut nobody off either.
    let lost: Vec<String> = (0..12).map(|_| fetched(&bench, TOKEN)).collect();
    let own = fetched(&bench, TOKEN);
    assert_eq!(poll(&bench, TOKEN), (200, true));
    assert_eq!(poll(&bench, &own), (200, false));
    assert_eq!(poll(&bench, TOKEN).0, 404, "the first use ends the old one");
    assert_eq!(ingest(&bench, TOKEN), 401);
    assert_eq!(poll(&bench, &shown), (200, false));
    assert_error(&fetch(&bench, &own), 409, "nobody asked");
    // What was fetched and never used does not pile up.
    assert_eq!(poll(&bench, &lost[0]).0, 404);
    let kept: i64 = bench.one("SELECT count(*) FROM site_tokens");
    assert!(kept <= 8, "{kept}");

    // A report is a first use, too.
    renew(&bench);
    assert_eq!(poll(&bench, &own), (200, true));
    assert_eq!(poll(&bench, &shown), (200, true));
    let second = fetched(&bench, &own);
    assert_eq!(ingest(&bench, &second), 200);
    assert_eq!(poll(&bench, &own).0, 404);
    let said = ask(&bench, "GET", None).json();
    assert!(said["taken_over_at"].is_string(), "{said}");

    for log in [bench.backend.process.log()] {
        for token in [TOKEN, &shown, &own, &second] {
            assert!(!log.contains(token), "a token is in the log");
        }
    }
    let audited: i64 = bench.one("SELECT count(*) FROM audit WHERE action = 'site.token.renew'");
    assert_eq!(audited, 2);
}

#[test]
fn a_grace_ends() {
    let mut bench = bench();
    let week = ask(&bench, "POST", None).json();
    let days: f64 = bench
        .sql
        .query_one(
            "SELECT extract(epoch FROM $1::text::timestamptz - now())::float8 / 86400",
            &[&week["old_valid_until"].as_str().unwrap()],
        )
        .unwrap()
        .get(0);
    assert!((6.9..7.1).contains(&days), "{days}");
    for bad in [
        json!({"grace_s": -1}),
        json!({"grace_s": 9_000_000}),
        json!({"grace": 1}),
    ] {
        assert_eq!(ask(&bench, "POST", Some(&bad)).status, 422, "{bad}");
    }

    // A poll a moment ago does not keep it open.
    assert_eq!(poll(&bench, TOKEN), (200, true));
    let fresh = fetched(&bench, TOKEN);
    bench
        .sql
        .batch_execute("UPDATE site_tokens SET valid_until = now() + interval '500 milliseconds'")
        .unwrap();
    bench.backend.process.wait_for("the grace is over", || {
        (poll(&bench, TOKEN).0 == 404).then_some(())
    });
    assert_eq!(ingest(&bench, TOKEN), 401);
    assert_error(&fetch(&bench, TOKEN), 401, "X-Site-Token");
    assert_eq!(poll(&bench, &fresh).0, 404, "fetched, and not used in time");

    // Without grace everything before ends at once.
    let first = renew(&bench);
    let own = fetched(&bench, &{
        let second = renew(&bench);
        assert_eq!(poll(&bench, &second), (200, false));
        first.clone()
    });
    assert_eq!(poll(&bench, &own), (200, false));
    let answer = ask(&bench, "POST", Some(&json!({"grace_s": 0}))).json();
    let last = answer["token"].as_str().unwrap();
    sleep(SEEN_AFTER);
    assert_eq!(poll(&bench, &first).0, 404);
    assert_eq!(poll(&bench, &own).0, 404);
    assert_eq!(poll(&bench, last), (200, false));

    // So does a token that is set by hand.
    let renewed = renew(&bench);
    let own = fetched(&bench, last);
    bench
        .sql
        .batch_execute("UPDATE sites SET token = 'by hand'")
        .unwrap();
    sleep(SEEN_AFTER);
    for token in [last, &renewed, &own] {
        assert_eq!(poll(&bench, token).0, 404);
    }
    assert_eq!(poll(&bench, "by%20hand"), (200, false));
}

#[test]
fn an_agent_takes_a_new_token_over_without_a_visit() {
    let mut bench = bench();
    bench.add_device("127.0.0.1");
    let mut agent = agent(&bench, &json!({"site_token": TOKEN}));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config is up-to-date", 1);
    let before = fs::read_to_string(agent.config_file()).unwrap();

    let shown = renew(&bench);
    let own = wait_taken_over(&agent, &[TOKEN]);
    assert_ne!(own, shown, "its own, and not the administrator's");
    assert_eq!(poll(&bench, &own), (200, false));
    assert_eq!(poll(&bench, TOKEN).0, 404);
    assert_eq!(poll(&bench, &shown), (200, false));
    // Nothing but the token differs, and no edit by hand is seen in it.
    let after = fs::read_to_string(agent.config_file()).unwrap();
    assert_eq!(after, before.replace(TOKEN, &own));
    let process = agent.process.as_ref().unwrap();
    let ups = process.log().matches("✅ Config is up-to-date").count();
    process.wait_for_log("✅ Config is up-to-date", ups + 2);
    let log = process.log();
    assert_eq!(log.matches("📥 Config changed!").count(), 1, "{log}");
    assert_eq!(
        log.matches("🔑 The backend asks for a new token").count(),
        1,
        "{log}"
    );
    // The backup has it as well: a broken file cuts nobody off.
    fs::write(agent.config_file(), "{\"site_name\": ").unwrap();
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("the backup serves", 1);
    process.wait_for_log("✅ Config updated successfully!", 1);
    assert_eq!(tokens_in(&agent.config_file()), (own.clone(), None));
    // Reports go on as well.
    let reported =
        "SELECT count(*) FROM site_agents WHERE last_report_at > now() - interval '5 seconds'";
    let process = agent.process.as_ref().unwrap();
    process.wait_for("a report with the new token", || {
        let found: i64 = bench.one(reported);
        (found == 1).then_some(())
    });
    for log in [log, process.log(), bench.backend.process.log()] {
        for token in [TOKEN, &shown, &own] {
            assert!(!log.contains(token), "a token is in a log");
        }
    }
}

#[test]
fn a_power_cut_at_any_point_leaves_a_token_that_works() {
    let bench = bench();
    // Cut after the new token was saved and before it was used.
    renew(&bench);
    let new = fetched(&bench, TOKEN);
    let mut first = agent(
        &bench,
        &json!({"site_token": new, "previous_site_token": TOKEN}),
    );
    first.start();
    assert_eq!(wait_taken_over(&first, &[TOKEN]), new);
    assert_eq!(poll(&bench, TOKEN).0, 404);
    drop(first);

    // Cut after the backend saw it used and before the agent forgot the old.
    renew(&bench);
    let newer = fetched(&bench, &new);
    assert_eq!(poll(&bench, &newer).0, 200);
    let mut second = agent(
        &bench,
        &json!({"site_token": newer, "previous_site_token": new}),
    );
    second.start();
    assert_eq!(wait_taken_over(&second, &[&new]), newer);
    drop(second);

    // A new token that the backend lost, as after a restored dump: the one
    // before serves, and is renewed again.
    renew(&bench);
    let mut third = agent(
        &bench,
        &json!({"site_token": "lost", "previous_site_token": newer}),
    );
    third.start();
    let own = wait_taken_over(&third, &["lost", &newer]);
    assert_eq!(poll(&bench, &own), (200, false));
    third
        .process
        .as_ref()
        .unwrap()
        .wait_for_log("back to the one before", 1);

    // And wherever else it is cut.
    for round in 0..12 {
        let before = tokens_in(&third.config_file()).0;
        let process = third.start();
        process.wait_for_log("✅ Config", 1);
        renew(&bench);
        process.wait_for("the agent polls after the renewal, or is about to", || {
            sleep(Duration::from_millis(10 + 7 * round));
            let asked = process.log().contains("🔑 The backend asks");
            (asked || round % 3 == 0).then_some(())
        });
        process.kill();
        let (token, previous) = tokens_in(&third.config_file());
        let opens = poll(&bench, &token).0 == 200
            || previous.is_some_and(|previous| poll(&bench, &previous).0 == 200);
        assert!(opens, "round {round}: neither token opens");
        third.start();
        wait_taken_over(&third, &[&before]);
    }
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_old_token_alone() {
    let bench = bench();
    let mut agent = agent(&bench, &json!({"site_token": TOKEN}));
    agent.start();
    agent
        .process
        .as_ref()
        .unwrap()
        .wait_for_log("✅ Config is up-to-date", 1);
    // Its temporary name is taken by a directory: nothing can be saved.
    let blocked = agent.config_file().with_file_name("config.json.bak.tmp");
    fs::create_dir(&blocked).unwrap();
    renew(&bench);
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("❌ The token could not be saved", 2);
    assert_eq!(poll(&bench, TOKEN), (200, true));
    assert_eq!(tokens_in(&agent.config_file()), (TOKEN.to_owned(), None));
    fs::remove_dir(&blocked).unwrap();
    wait_taken_over(&agent, &[TOKEN]);
    assert_eq!(poll(&bench, TOKEN).0, 404);
}
