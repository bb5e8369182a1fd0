//! SQL, HTML and lines of a log tried in every text that a route takes: it is
//! stored and given back as it is or refused, shown as text on every page, and
//! stays within one line of the log. And paths that climb out of `/static`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod admin_support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use admin_support::{Browser, Office, PASSWORD, log_in};
use av_proto_tests::process::Answer;
use serde_json::{Value, json};

/// What every text field must take: SQL, HTML and templates.
const TEXTS: [&str; 4] = [
    "O'Brien\"'); DROP TABLE devices; SELECT pg_sleep(5); --",
    "\"'><img src=x onerror=alert(1)><script>alert(1)</script>",
    "</title></textarea><svg/onload=alert(1)>&lt;b&gt;&amp;",
    "{{7*7}} ${7*7} %s %n \\x27 $$ \\ NULL",
];
/// What a field may refuse, and must not pass on as it is.
const MARKS: [&str; 4] = [
    "a\r\n[2026-01-01T00:00:00Z ERROR forged] b",
    "a\u{1b}[2J\u{1b}]0;title\u{7}b",
    "a\u{2028}b\u{2029}c\u{85}d",
    "a\u{202e}gnp.exe\u{2066}\u{200f}b",
];
/// What no page may have: each of it is markup only where it was not escaped.
const MARKUP: [&str; 5] = [
    "<img src=x",
    "<script>alert",
    "<svg/onload",
    "</title></textarea>",
    "&lt;b&gt;&amp; ",
];

/// Stores a text by `store` and reads it back by `read`: the same, or refused.
#[track_caller]
fn kept(what: &str, text: &str, stored: &Answer, read: impl FnOnce(&Value) -> Value) -> bool {
    if TEXTS.contains(&text) {
        assert!((200..300).contains(&stored.status), "{what}: {stored:?}");
    } else if stored.status >= 300 {
        assert!(
            [400, 401, 422].contains(&stored.status),
            "{what}: {stored:?}"
        );
        return false;
    }
    assert_eq!(read(&stored.json()), json!(text), "{what}");
    true
}

#[test]
fn hostile_texts_are_kept_as_they_are_shown_as_text_and_logged_on_one_line() {
    let office = Office::open();
    let (mut stored, mut refused) = (0, 0);
    let mut pages: Vec<String> = [
        "/",
        "/alerts",
        "/maintenance",
        "/channels",
        "/audit",
        "/users",
        "/account",
        "/sites/new",
        "/maintenance/new",
        "/channels/new",
    ]
    .map(str::to_owned)
    .to_vec();
    for (n, text) in TEXTS.into_iter().chain(MARKS).enumerate() {
        let mut count = |kept: bool| {
            stored += usize::from(kept);
            refused += usize::from(!kept);
            kept
        };
        let admin = |method: &str, path: &str, body: &Value| {
            office.send(
                &office.admin,
                method,
                path,
                &[("Content-Type", "application/json"), ("If-Match", "*")],
                Some(body.to_string().as_bytes()),
            )
        };
        // A site, and one that stands in for it where the name is refused.
        let answer = admin("POST", "/admin/sites", &json!({"name": text}));
        let (site_name, site) = if count(kept("site", text, &answer, |site| site["name"].clone())) {
            (text.to_owned(), answer)
        } else {
            let name = format!("Site {n}");
            let answer = admin("POST", "/admin/sites", &json!({"name": name}));
            (name, answer)
        };
        let site = site.json();
        let (site_id, token) = (
            site["id"].as_i64().unwrap(),
            site["token"].as_str().unwrap(),
        );
        let renamed = admin(
            "PATCH",
            &format!("/admin/sites/{site_id}"),
            &json!({"timezone": text}),
        );
        assert_eq!(renamed.status, 422, "{renamed:?}");

        // A device, field by field.
        let made = admin(
            "POST",
            "/admin/devices",
            &json!({"site_id": site_id, "ip": "10.0.0.1", "name": "P", "driver": "http"}),
        );
        let device = made.json()["id"].as_i64().unwrap_or_else(|| {
            panic!("{made:?}");
        });
        let device_path = format!("/admin/devices/{device}");
        for field in ["name", "building", "floor", "room", "type"] {
            let answer = admin("PATCH", &device_path, &json!({ field: text }));
            count(kept(field, text, &answer, |device| device[field].clone()));
        }
        // The words for drivers are in small letters.
        let small = text.to_lowercase();
        let answer = admin("PATCH", &device_path, &json!({"driver": text}));
        count(kept("driver", text, &answer, |device| {
            assert_eq!(device["driver"], json!(small));
            json!(text)
        }));
        for config in [
            json!({"http": {"expect_text": text}}),
            json!({"own": {text: text}}),
        ] {
            let answer = admin(
                "PATCH",
                &device_path,
                &json!({"driver": "own", "driver_config": config}),
            );
            if answer.status == 200 {
                let now = office.get(&device_path);
                assert_eq!(now["driver_config"], config);
                count(true);
            } else {
                assert_eq!(answer.status, 422, "{answer:?}");
            }
        }

        // What its agent says.
        let agent = |path: &str, body: &Value| {
            office.backend.request(
                "POST",
                path,
                &[("X-Site-Token", token)],
                Some(body.to_string().as_bytes()),
            )
        };
        let observed = json!({"site_name": site_name, "devices": [{
            "ip": "10.0.0.1", "name": text, "building": text, "floor": text, "room": text,
            "type": text, "driver": text, "status": "offline", "verdict": "fault",
            "detail": text, "metrics": {"sys_descr": text, text: text}}],
            "agent": {"version": text, "config_error": text,
                      "rejected_devices": [{"ip": text, "problem": text}]}});
        let answer = agent("/ingest", &observed);
        if TEXTS.contains(&text) {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        if answer.status == 200 {
            let state = &office.get(&device_path)["state"];
            assert_eq!(state["metrics"]["sys_descr"], json!(text));
            let detail = state["detail"].as_str().unwrap();
            assert!(detail == text || !TEXTS.contains(&text), "{detail:?}");
        }
        let mut other = observed.clone();
        other["site_name"] = json!(format!("{text} nowhere"));
        assert!([400, 404].contains(&agent("/ingest", &other).status));
        let found = json!({"site_name": site_name, "found": [{
            "ip": "10.0.0.9", "vendor": text, "model": text, "name": text, "type": text,
            "driver": text, "evidence": [text, text]}]});
        let answer = agent("/suggestions", &found);
        assert!([200, 202, 204, 400].contains(&answer.status), "{answer:?}");
        if TEXTS.contains(&text) {
            assert!(answer.status < 300, "{answer:?}");
        }
        if answer.status < 300 {
            let list = office.get(&format!("/admin/suggestions?site_id={site_id}"));
            let suggestion = &list["suggestions"][0];
            for field in ["vendor", "model", "name", "type"] {
                count(true);
                let given = suggestion[field].as_str().unwrap_or_default();
                assert!(given == text || !TEXTS.contains(&text), "{field}: {list}");
            }
        }

        // People, and what they write.
        let answer = admin(
            "POST",
            "/admin/users",
            &json!({"name": text, "role": "viewer", "password": PASSWORD}),
        );
        count(kept("user", text, &answer, |user| user["name"].clone()));
        // Nobody, whatever the name.
        assert!([401, 429].contains(&log_in(&office.backend, text, "not it").status));
        let answer = admin("POST", "/admin/tokens", &json!({"name": text}));
        count(kept("token", text, &answer, |token| token["name"].clone()));
        let answer = admin(
            "POST",
            "/admin/channels",
            &json!({"name": text, "kind": "webhook", "url": "http://127.0.0.1:1/", "enabled": false,
                    "secret": "0123456789abcdef"}),
        );
        if count(kept("channel", text, &answer, |channel| {
            channel["name"].clone()
        })) {
            let id = answer.json()["id"].as_i64().unwrap();
            pages.extend([format!("/channels/{id}"), format!("/channels/{id}/edit")]);
        }
        for (field, value) in [
            ("url", json!(format!("http://127.0.0.1/{text}"))),
            ("recipients", json!([text])),
        ] {
            let kind = if field == "url" { "webhook" } else { "mail" };
            let answer = admin(
                "POST",
                "/admin/channels",
                &json!({"name": format!("{field} {n}"), "kind": kind, "enabled": false, field: value}),
            );
            assert!([201, 422].contains(&answer.status), "{answer:?}");
        }
        let answer = admin(
            "POST",
            "/admin/maintenance",
            &json!({"site_id": site_id, "starts_at": "2030-01-01T00:00:00Z", "ends_at": "2030-02-01T00:00:00Z", "reason": text,
                    "room": text}),
        );
        count(kept("reason", text, &answer, |window| {
            window["reason"].clone()
        }));
        let alerts = office.get(&format!("/admin/alerts?site_id={site_id}"));
        if let Some(alert) = alerts["alerts"][0]["id"].as_i64() {
            let answer = admin(
                "POST",
                &format!("/admin/alerts/{alert}/comments"),
                &json!({"body": text}),
            );
            assert!([200, 201, 422].contains(&answer.status), "{answer:?}");
            let answer = admin(
                "POST",
                &format!("/admin/alerts/{alert}/acknowledge"),
                &json!({"comment": text}),
            );
            assert!([200, 422].contains(&answer.status), "{answer:?}");
        }

        // Parameters that are looked for in the database.
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in [
            "devices?q=",
            "devices?building=",
            "devices?driver=",
            "devices?sort=",
            "sites?q=",
            "audit?q=",
            "alerts?state=",
            "export?site=",
            "devices?site=",
        ] {
            let path = format!("/admin/{path}{encoded}");
            let answer = office.send(&office.admin, "GET", &path, &[], None);
            assert!(answer.status < 500, "{path}: {answer:?}");
        }
        pages.extend([
            format!("/?q={encoded}"),
            format!("/login?next={encoded}&error={encoded}"),
            format!("/setup/{encoded}"),
            format!("/alerts?state={encoded}&q={encoded}"),
            format!("/{encoded}"),
            format!("/sites/{site_id}?q={encoded}&room={encoded}"),
        ]);
        for page in [
            "",
            "/edit",
            "/versions",
            "/availability",
            "/suggestions",
            "/import",
            "/devices/new",
            "/live",
        ] {
            pages.push(format!("/sites/{site_id}{page}"));
        }
        pages.extend([
            format!("/devices/{device}"),
            format!("/devices/{device}/edit"),
        ]);
    }

    let browser = Browser::log_in(&office.backend, "admin");
    let (mut shown, mut escaped) = (0, 0);
    for path in &pages {
        let page = browser.send("GET", path, &[], None);
        assert!(page.status < 500, "{path}: {page:?}");
        shown += usize::from(page.status == 200);
        escaped += page.body.matches("&lt;img src=x").count()
            + page.body.matches("&#60;img src=x").count();
        // What is JSON is escaped by the script that shows it.
        let html = page
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"));
        for markup in MARKUP {
            assert!(
                !html || !page.body.contains(markup),
                "{path}: {markup}\n{}",
                page.body
            );
        }
        for name in ["location", "set-cookie"] {
            let value = page.headers.get(name).cloned().unwrap_or_default();
            assert!(!value.contains("forged"), "{path}: {value}");
        }
    }
    println!("{stored} kept, {refused} refused, {shown} pages, escaped {escaped} times");
    assert!(stored >= TEXTS.len() * 15, "{stored}");
    assert!(shown > 80 && escaped > 20, "{shown} pages, {escaped}");

    // Every table is there, and every line of the log is the backend's.
    assert_eq!(office.one::<i64>("SELECT count(*) FROM devices"), 8);
    let log = office.backend.process.log();
    assert!(log.lines().count() > 20);
    for line in log.split('\n').filter(|line| !line.is_empty()) {
        assert!(!line.starts_with("[2026-01-01T00:00:00Z ERROR"), "{line}");
        let bad = |c: char| {
            c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c)
                || ['\u{2028}', '\u{2029}', '\u{200f}'].contains(&c)
        };
        assert!(!line.contains(bad), "{line:?}");
    }
}

#[test]
fn no_path_climbs_out_of_the_files() {
    let office = Office::open();
    let address = office.backend.url.strip_prefix("http://").unwrap();
    for path in [
        "/static/../Cargo.toml",
        "/static/../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/%252e%252e%252fetc%252fpasswd",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..\\..\\etc\\passwd",
        "/static/app.js%00.css",
        "/static/app.js/",
        "/static/./app.js",
        "/static/",
        "/static",
        "/../../etc/passwd",
        "//etc/passwd",
        "/file:///etc/passwd",
    ] {
        let mut socket = TcpStream::connect(address).unwrap();
        // As it is: a client would tidy it up.
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let status = answer.get(9..12).unwrap_or_default();
        assert!(
            ["400", "401", "404", "303"].contains(&status),
            "{path}: {answer}"
        );
        assert!(
            !answer.contains("root:") && !answer.contains("[package]"),
            "{path}"
        );
    }
    assert_eq!(office.backend.get("/static/app.js").status, 200);
}
