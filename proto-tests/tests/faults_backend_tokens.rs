//! Tokens under attack: guessing is limited and locks no agent out, a lookup
//! takes as long whatever the token, and one site's token opens one site.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod admin_support;
mod backend_support;

use std::time::{Duration, Instant};

use admin_support::{Browser, add_user};
use av_proto_tests::faults::full;
use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend};
use backend_support::{Bench, TOKEN, add_site, numbered, report, reported};
use serde_json::{Value, json};

/// A token of the form that the backend makes.
const MADE: &str = "5f2c00112233445566778899aabbccddeeff00112233445566778899aabbccdd";

/// Every way in which a site token is presented.
fn present(backend: &Backend, way: usize, token: &str, more: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {token}");
    let ask = |method: &str, path: &str, own: (&str, &str), body: Option<&[u8]>| {
        let mut headers = vec![own];
        headers.extend_from_slice(more);
        backend.request(method, path, &headers, body)
    };
    let report = report(&[]).to_string();
    let body = Some(report.as_bytes());
    match way % 6 {
        0 => backend.request("GET", &format!("/config/{token}"), more, None),
        1 => ask("GET", "/config", ("Authorization", &bearer), None),
        2 => ask("GET", "/config", ("X-Site-Token", token), None),
        3 => ask("POST", "/ingest", ("X-Site-Token", token), body),
        4 => ask("POST", "/suggestions", ("X-Site-Token", token), body),
        _ => ask("POST", "/token/renew", ("X-Site-Token", token), Some(b"{}")),
    }
}

#[track_caller]
fn assert_blocked(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let wait: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=600).contains(&wait), "{wait}");
    assert!(answer.json()["error"].as_str().unwrap().contains("wrong"));
}

/// What guesses come to once the one is used up that is let through every 10 s:
/// on a slow machine that time passes between two of them.
#[track_caller]
fn assert_guesses_blocked(guess: impl Fn() -> Answer) {
    let mut answer = guess();
    for _ in 0..5 {
        if answer.status == 429 {
            break;
        }
        answer = guess();
    }
    assert_blocked(&answer);
}

#[test]
fn wrong_site_tokens_are_limited_and_no_agent_behind_the_same_address_is_refused() {
    let db = Database::create();
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_BEHIND_TLS", "1");
    });
    backend.wait_until_healthy();
    let mut sql = db.connect();
    add_site(&mut sql, "Paris", TOKEN);
    add_site(&mut sql, "Lyon", "lyon-by-hand");
    add_site(&mut sql, "Nice", MADE);
    let router = [("X-Forwarded-For", "198.51.100.7")];
    let elsewhere = [("X-Forwarded-For", "198.51.100.8")];
    let poll = |token: &str, from: &[(&str, &str)]| present(&backend, 0, token, from).status;
    // Paris has polled from behind this router before.
    assert_eq!(poll(TOKEN, &router), 200);

    let guesses = if full() { 3000 } else { 240 };
    let mut blocked = 0;
    for n in 0..guesses {
        let answer = present(&backend, n, &format!("guess-{n}"), &router);
        if n < 60 {
            assert!([401, 404].contains(&answer.status), "{n}: {answer:?}");
        } else if answer.status == 429 {
            assert_blocked(&answer);
            blocked += 1;
        }
        if n % 20 == 0 {
            // Its agents go on: one known there, and one that comes anew.
            assert_eq!(poll(TOKEN, &router), 200, "after {n} guesses");
            assert_eq!(poll(MADE, &router), 200, "after {n} guesses");
            let body = report(&[reported("10.0.0.1", "online", "ok")]).to_string();
            let taken = backend.request(
                "POST",
                "/ingest",
                &[("X-Site-Token", TOKEN), router[0]],
                Some(body.as_bytes()),
            );
            assert_eq!(taken.status, 200, "after {n} guesses: {taken:?}");
        }
    }
    // One more every 10 s is let through, and a slow machine takes its time.
    assert!(blocked > (guesses - 60) / 2, "{blocked} of {guesses}");
    // A guess that would be right is not told from others.
    for way in 0..6 {
        assert_guesses_blocked(|| present(&backend, way, "lyon-by-hand", &router));
        let wrong = MADE.replace('5', "6");
        assert_guesses_blocked(|| present(&backend, way, &wrong, &router));
    }
    // Elsewhere nobody is concerned; what the guesser says of itself before
    // the proxy does counts for nothing.
    assert_eq!(poll("lyon-by-hand", &elsewhere), 200);
    let lies = [("X-Forwarded-For", "203.0.113.1, 198.51.100.7")];
    assert_guesses_blocked(|| present(&backend, 0, "x", &lies));
    let log = backend.process.log();
    assert!(log.contains("too many tokens from 198.51.100.7 are wrong"));
    for secret in [TOKEN, MADE, "guess-1", "lyon-by-hand"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

/// Comparing certificates looks a token up before its route does: that must
/// not tell a guesser either.
#[test]
fn with_client_certificates_a_right_guess_still_looks_like_a_wrong_one() {
    let db = Database::create();
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_CLIENT_CERT_HEADER", "X-Client-Certificate-Subject");
    });
    backend.wait_until_healthy();
    add_site(&mut db.connect(), "Lyon", "lyon-by-hand");
    assert_eq!(present(&backend, 0, "lyon-by-hand", &[]).status, 403);
    // More than the slowest machine forgives meanwhile.
    for n in 0..120 {
        present(&backend, n, &format!("guess-{n}"), &[]);
    }
    for way in 0..6 {
        assert_guesses_blocked(|| present(&backend, way, "lyon-by-hand", &[]));
        assert_guesses_blocked(|| present(&backend, way, "guess", &[]));
    }
}

#[test]
fn wrong_api_tokens_are_limited_and_right_ones_are_not() {
    let db = Database::create();
    add_user(&db, "anna", "editor");
    let backend = Backend::start(&db.url());
    let browser = Browser::log_in(&backend, "anna");
    let made = browser.send(
        "POST",
        "/admin/tokens",
        &[
            ("Content-Type", "application/json"),
            ("X-CSRF-Token", &browser.csrf),
        ],
        Some(br#"{"name": "tests"}"#),
    );
    let right = made.json()["token"].as_str().unwrap().to_owned();
    let me = |token: &str| {
        let bearer = format!("Bearer {token}");
        backend.request("GET", "/admin/me", &[("Authorization", &bearer)], None)
    };
    let mut blocked = 0;
    for n in 0..200 {
        let wrong = match n % 3 {
            0 => format!("avt_{n:064x}"),
            1 => format!("avt_{n}"),
            _ => format!("basic{n}"),
        };
        let answer = me(&wrong);
        if n < 60 {
            assert_eq!(answer.status, 401, "{n}: {answer:?}");
        } else if answer.status == 429 {
            assert_blocked(&answer);
            blocked += 1;
        }
        if n % 20 == 0 {
            assert_eq!(me(&right).status, 200, "after {n} guesses");
            let own = browser.send("GET", "/admin/me", &[], None);
            assert_eq!(own.status, 200, "after {n} guesses");
        }
    }
    assert!(blocked > 70, "{blocked}");
}

#[test]
fn only_digests_are_kept_and_looked_up_by_an_index() {
    let mut bench = Bench::start();
    add_site(&mut bench.sql, "Nice", MADE);
    for token in [TOKEN, MADE] {
        for way in 0..5 {
            present(&bench.backend, way, token, &[]);
        }
    }
    // No column of any table has a token as it is.
    let columns = bench
        .sql
        .query(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
              WHERE table_schema = 'public'
                AND data_type IN ('text', 'character varying', 'json', 'jsonb')",
            &[],
        )
        .unwrap();
    assert!(columns.len() > 50, "{}", columns.len());
    for column in &columns {
        let (table, column): (String, String) = (column.get(0), column.get(1));
        let query = format!(
            "SELECT count(*) FROM \"{table}\"
              WHERE strpos(\"{column}\"::text, '{TOKEN}') > 0
                 OR strpos(\"{column}\"::text, '{MADE}') > 0"
        );
        assert_eq!(bench.one::<i64>(&query), 0, "{table}.{column}");
    }
    // The digest itself opens nothing.
    let digest: String = bench.one("SELECT token FROM sites WHERE name = 'Nice'");
    assert!(digest.starts_with("sha256:"), "{digest}");
    for token in [digest.as_str(), &digest["sha256:".len()..]] {
        assert_eq!(present(&bench.backend, 1, token, &[]).status, 404);
    }
    // Found by an index over digests: nothing goes through the tokens one by
    // one, and nothing compares what somebody sent with a token.
    bench.sql.batch_execute("SET enable_seqscan = off").unwrap();
    for table in ["sites WHERE token", "site_tokens WHERE digest"] {
        let plan: Vec<String> = bench
            .sql
            .query(&format!("EXPLAIN SELECT FROM {table} = '{digest}'"), &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(plan.join("\n").contains("Index"), "{plan:?}");
    }
}

/// The middle of some times, and the width of their middle half.
fn middle(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 4];
    (at(2), at(3) - at(1))
}

#[test]
fn how_much_of_a_token_is_right_does_not_show_in_the_time_of_the_answer() {
    let mut bench = Bench::start();
    add_site(&mut bench.sql, "Nice", MADE);
    // Right in their first 0, 32 and 63 digits.
    let wrong: Vec<String> = [0, 32, 63]
        .iter()
        .map(|right| format!("{}{}", &MADE[..*right], "e".repeat(64 - right)))
        .collect();
    let agent = |token: &str| {
        let started = Instant::now();
        let answer = bench.backend.get(&format!("/config/{token}"));
        assert!([404, 429].contains(&answer.status), "{answer:?}");
        started.elapsed()
    };
    for _ in 0..100 {
        agent(&wrong[0]);
    }
    let rounds = if full() { 3000 } else { 300 };
    let mut times = [const { Vec::new() }; 3];
    // In turn: what else the machine does falls on all of them alike.
    for round in 0..rounds * 3 {
        times[round % 3].push(agent(&wrong[round % 3]));
    }
    let mut found = Vec::new();
    for times in &mut times {
        found.push(middle(times));
    }
    println!("(median, middle half) of {rounds} answers each: {found:?}");
    for (median, spread) in &found[1..] {
        let apart = median.abs_diff(found[0].0);
        // The medians of so many are a twentieth of the spread apart by
        // chance; a comparison digit by digit over a network is not seen
        // here, and none is made.
        assert!(apart < (*spread).max(found[0].1), "{found:?}");
    }
}

/// What the database has of a site and its devices, but for when its token
/// was last seen.
fn all_of(bench: &mut Bench, site: i64) -> String {
    let mut all = String::new();
    for query in [
        "SELECT to_jsonb(s)::text FROM sites s WHERE id = $1",
        "SELECT jsonb_agg(to_jsonb(d) ORDER BY id)::text FROM devices d WHERE site_id = $1",
        "SELECT jsonb_agg(to_jsonb(x) ORDER BY device_id)::text FROM device_states x
           JOIN devices d ON d.id = x.device_id WHERE d.site_id = $1",
        "SELECT count(*)::text FROM observations WHERE site_id = $1",
        "SELECT jsonb_agg(to_jsonb(c))::text FROM report_cursors c WHERE site_id = $1",
        "SELECT jsonb_agg(to_jsonb(a))::text FROM site_agents a WHERE site_id = $1",
        "SELECT jsonb_agg(to_jsonb(t) ORDER BY digest)::text FROM site_tokens t WHERE site_id = $1",
        "SELECT jsonb_agg(to_jsonb(s) ORDER BY id)::text FROM suggestions s WHERE site_id = $1",
        "SELECT count(*)::text FROM alerts WHERE site_id = $1",
    ] {
        let row = bench.sql.query_one(query, &[&site]).unwrap();
        all.push_str(&row.get::<_, Option<String>>(0).unwrap_or_default());
        all.push('\n');
    }
    all
}

#[test]
fn one_sites_token_reads_and_writes_nothing_of_another_on_any_route() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let lyon = add_site(&mut bench.sql, "Lyon", "lyon-token");
    bench
        .sql
        .batch_execute(&format!(
            "INSERT INTO devices (site_id, name, ip, driver_config) VALUES
                 ({lyon}, 'Of Lyon', '10.0.0.1', '{{\"pjlink\": {{\"password\": \"lyons-secret\"}}}}'),
                 ({lyon}, 'Of Lyon too', '10.0.0.2', NULL)"
        ))
        .unwrap();
    let of_lyon = |devices: &[Value]| {
        let mut body = numbered(devices, "stream", 5);
        body["site_name"] = json!("Lyon");
        body
    };
    let devices = [
        reported("10.0.0.1", "offline", "fault"),
        reported("10.0.0.2", "offline", "fault"),
    ];
    let well = [reported("10.0.0.1", "online", "ok")];
    assert_eq!(
        bench.backend.ingest("lyon-token", &of_lyon(&well)).status,
        200
    );
    let lyons_hash = bench.backend.get("/config/lyon-token").headers["etag"].clone();
    // Lyon's token is to be renewed, Paris' is not.
    bench
        .sql
        .execute(
            "SELECT av_renew_token($1, 'sha256:' || repeat('ab', 32), interval '1 day')",
            &[&lyon],
        )
        .unwrap();
    bench.backend.get("/config/lyon-token");
    let before = all_of(&mut bench, lyon);

    let post = |path: &str, headers: &[(&str, &str)], body: &Value| {
        let body = body.to_string();
        bench
            .backend
            .request("POST", path, headers, Some(body.as_bytes()))
    };
    let paris = ("X-Site-Token", TOKEN);
    let paris_bearer = format!("Bearer {TOKEN}");
    // The one token that counts is X-Site-Token's, in whatever company.
    let both = [paris, ("Authorization", "Bearer lyon-token")];
    let found = json!({"site_name": "Lyon", "found": [{"ip": "10.0.0.9"}]});
    for headers in [
        &[paris][..],
        &both,
        &[("Authorization", paris_bearer.as_str())],
    ] {
        // In Lyon's name.
        let answer = post("/ingest", headers, &of_lyon(&devices));
        assert_eq!(answer.status, 401, "{answer:?}");
        let answer = post("/suggestions", headers, &found);
        assert_eq!(answer.status, 401, "{answer:?}");
        // Of Lyon's devices, in its stream and at its place in it.
        let mut own = numbered(&devices, "stream", 5);
        own["agent"] = json!({"version": "9", "config_hash": lyons_hash.trim_matches('"')});
        let answer = post("/ingest", headers, &own);
        assert_eq!(answer.status, 200, "{answer:?}");
        let renewed = post("/token/renew", headers, &json!({}));
        assert_eq!(renewed.status, 409, "{renewed:?}");
        // With Lyon's hash, and with its token in another header.
        let mut asking = headers.to_vec();
        asking.push(("If-None-Match", &lyons_hash));
        for path in ["/config", &format!("/config/{TOKEN}")] {
            let config = bench.backend.request("GET", path, &asking, None);
            assert_eq!(config.status, 200, "{config:?}");
            assert_eq!(config.json()["site_name"], "Paris");
            assert!(!config.body.contains("Lyon"));
            assert!(!config.body.contains("lyons-secret"));
        }
    }
    // Of two names in one body neither reader and writer take different ones.
    let doubled = format!(
        "{{\"site_name\": \"Paris\", \"devices\": {}, \"site_name\": \"Lyon\"}}",
        json!(devices)
    );
    let answer = bench
        .backend
        .request("POST", "/ingest", &[paris], Some(doubled.as_bytes()));
    assert!([400, 401].contains(&answer.status), "{answer:?}");
    // No name that only looks like Lyon's, and no token that does.
    for name in ["lyon", "Lyon ", "Lyon\0", "L\u{200b}yon", "%4cyon", ""] {
        let mut body = report(&devices);
        body["site_name"] = json!(name);
        let answer = post("/ingest", &[paris], &body);
        assert!([400, 404].contains(&answer.status), "{name:?}: {answer:?}");
    }
    for token in ["LYON-TOKEN", "lyon-toke", "lyon-token%00", "lyon-token%20x"] {
        let answer = bench.backend.get(&format!("/config/{token}"));
        assert_eq!(answer.status, 404, "{token}");
    }
    // A site's token is no user's.
    for (method, path) in [
        ("GET", "/admin/sites"),
        ("GET", "/admin/devices"),
        ("GET", &format!("/admin/sites/{lyon}/versions")),
        ("POST", &format!("/admin/sites/{lyon}/token")),
        ("GET", "/"),
        ("GET", &format!("/sites/{lyon}")),
    ] {
        let answer = bench.backend.request(
            method,
            path,
            &[("Authorization", &paris_bearer), paris],
            (method == "POST").then_some(b"{}"),
        );
        assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
    }
    assert_eq!(all_of(&mut bench, lyon), before);
    // And Lyon's agent is where it was.
    let answer = bench.backend.ingest("lyon-token", &of_lyon(&well));
    assert_eq!(answer.json()["duplicate"], true, "{answer:?}");
}
