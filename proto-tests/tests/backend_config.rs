//! `GET /config/{site_token}`: shape, hash, ETag, and that no change is shown
//! late, whatever happens to the notification connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use av_proto::config::SiteDocument;
use av_proto_tests::process::{Backend, http};
use av_proto_tests::random::Random;
use backend_support::{Bench, TOKEN, add_site, assert_error, report, reported};
use serde_json::{Value, json};

/// After which a poll must see a commit.
const SEEN_AFTER: Duration = Duration::from_millis(100);

#[test]
fn the_answer_has_the_contracts_shape() {
    let mut bench = Bench::start();
    bench
        .sql
        .batch_execute(
            r#"UPDATE sites SET timezone = 'Europe/Paris';
               INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
               SELECT id, 'Projecteur Salle A', '192.168.1.10', 'projector', 'pjlink', 'Bâtiment A', '1', 'Salle 101',
                      '{"pjlink": {"password": "admin", "port": 4352, "timeout_s": 2}}',
                      '{"always_on": false, "alert_after_s": 300}' FROM sites;
               INSERT INTO devices (site_id, name, ip) SELECT id, 'Switch', '192.168.1.9' FROM sites"#,
        )
        .unwrap();
    let answer = bench.backend.get(&format!("/config/{TOKEN}"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let config = answer.json();
    let hash = config["config_hash"].as_str().unwrap();
    assert_eq!(answer.headers["etag"], format!("\"{hash}\""));
    assert_eq!(
        config,
        json!({
            "config_hash": hash,
            "site_name": "Paris",
            "timezone": "Europe/Paris",
            "doubt_after_days": 2,
            "reporting": {"ok_interval_s": 300, "ko_interval_s": 60},
            "devices": [{
                "ip": "192.168.1.10", "name": "Projecteur Salle A",
                "building": "Bâtiment A", "floor": "1", "room": "Salle 101",
                "type": "projector", "driver": "pjlink",
                "snmp": {}, "pjlink": {"password": "admin", "port": 4352, "timeout_s": 2},
                "expectations": {"always_on": false, "alert_after_s": 300},
                "driver_config": {"pjlink": {"password": "admin", "port": 4352, "timeout_s": 2}},
            }, {
                "ip": "192.168.1.9", "name": "Switch", "building": "", "floor": "", "room": "",
                "type": "other", "driver": "ping", "snmp": {}, "pjlink": {},
                "expectations": {}, "driver_config": {},
            }],
        })
    );
    // The order of the fields is the contract's.
    let places: Vec<usize> = [
        "config_hash",
        "site_name",
        "timezone",
        "doubt_after_days",
        "reporting",
        "devices",
        "ip",
        "name",
        "building",
        "floor",
        "room",
        "type",
        "driver",
        "snmp",
        "pjlink",
        "expectations",
        "driver_config",
    ]
    .iter()
    .map(|field| answer.body.find(&format!("\"{field}\":")).unwrap())
    .collect();
    assert!(places.is_sorted(), "{}", answer.body);
    SiteDocument::parse(answer.body.as_bytes())
        .unwrap()
        .verify_hash()
        .unwrap();
}

#[test]
fn an_etag_that_matches_is_answered_with_304_and_no_body() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let path = format!("/config/{TOKEN}");
    let etag = bench.backend.get(&path).headers["etag"].clone();
    for (given, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"x\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
    ] {
        let answer = bench
            .backend
            .request("GET", &path, &[("If-None-Match", &given)], None);
        assert_eq!(answer.status, status, "{given}");
        assert_eq!(answer.headers["etag"], etag);
        assert_eq!(answer.body.is_empty(), status == 304, "{given}");
    }
    bench.add_device("10.0.0.2");
    sleep(SEEN_AFTER);
    let answer = bench
        .backend
        .request("GET", &path, &[("If-None-Match", &etag)], None);
    assert_eq!(answer.status, 200);
    assert_ne!(answer.headers["etag"], etag);

    let head = bench.backend.request("HEAD", &path, &[], None);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.headers["etag"], answer.headers["etag"]);
}

#[test]
fn an_unknown_token_is_answered_with_404_and_logged_nowhere() {
    let bench = Bench::start();
    assert_error(
        &bench.backend.get("/config/wrong-token-77"),
        404,
        "no site has this token",
    );
    assert_eq!(bench.config()["site_name"], "Paris");
    let metrics = bench.backend.get("/metrics").body;
    let log = bench.backend.process.log();
    for text in [metrics, log] {
        assert!(
            !text.contains(TOKEN) && !text.contains("wrong-token-77"),
            "{text}"
        );
    }
}

#[test]
fn the_token_may_come_in_a_header_with_the_same_answers() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let answer = bench.backend.request("GET", path, headers, None);
        assert_eq!(answer.headers["x-site-auth"], "bearer", "{path}");
        answer
    };
    let by_path = ask(&format!("/config/{TOKEN}"), &[]);
    let bearer = format!("Bearer {TOKEN}");
    let etag = by_path.headers["etag"].as_str();
    for headers in [
        [("Authorization", bearer.as_str()), ("X-Other", "")],
        [
            ("authorization", &bearer.replace("Bearer", "bearer")),
            ("X-Other", ""),
        ],
        [("X-Site-Token", TOKEN), ("X-Other", "")],
        // The contract's own header counts, where both are there.
        [("Authorization", "Bearer avt_x"), ("X-Site-Token", TOKEN)],
    ] {
        let answer = ask("/config", &headers);
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
        assert_eq!(answer.body, by_path.body);
        assert_eq!(answer.headers["etag"], etag);
        let unchanged = ask(
            "/config",
            &[headers[0], headers[1], ("If-None-Match", etag)],
        );
        assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""));
    }
    // What opens nothing is answered as it is at the path.
    let unknown = ask("/config/wrong-token-77", &[]);
    let answer = ask("/config", &[("Authorization", "Bearer wrong-token-77")]);
    assert_eq!((answer.status, &answer.body), (404, &unknown.body));
    for header in ["Basic cGFyaXM6eA==", "Bearer", "Bearer ", TOKEN] {
        let answer = ask("/config", &[("Authorization", header)]);
        assert_error(&answer, 401, "no site token");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"site\"");
    }
    let report = report(&[reported("10.0.0.1", "online", "ok")]).to_string();
    let post = |header: &str| {
        let headers = [
            ("Authorization", header),
            ("Content-Type", "application/json"),
        ];
        bench
            .backend
            .request("POST", "/ingest", &headers, Some(report.as_bytes()))
    };
    assert_eq!(post(&bearer).status, 200);
    let refused = post("Bearer wrong-token-77");
    assert_error(&refused, 401, "X-Site-Token is missing or wrong");
    assert_eq!(
        refused.body,
        bench.backend.ingest("wrong-token-77", &json!({})).body
    );
    let renew = bench.backend.request(
        "POST",
        "/token/renew",
        &[("Authorization", &bearer)],
        Some(b""),
    );
    assert_error(&renew, 409, "nobody asked");

    let metrics = bench.backend.get("/metrics").body;
    assert!(
        metrics.contains("route=\"/config\",code=\"200\""),
        "{metrics}"
    );
    for text in [metrics, bench.backend.process.log()] {
        assert!(
            !text.contains(TOKEN) && !text.contains("wrong-token-77"),
            "{text}"
        );
    }
}

#[test]
fn the_token_is_in_no_log_even_at_the_finest_level() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let backend = Backend::spawn(&bench.db.url(), |command| {
        command.env("RUST_LOG", "trace");
    });
    backend.wait_until_healthy();
    for path in [
        format!("/config/{TOKEN}"),
        format!("/config/{TOKEN}/x"),
        "/config/other-token-9".to_owned(),
    ] {
        let _ = backend.get(&path);
    }
    for token in [TOKEN, "other-token-9"] {
        let bearer = format!("Bearer {token}");
        let _ = backend.request("GET", "/config", &[("Authorization", &bearer)], None);
        let _ = backend.ingest(token, &report(&[]));
    }
    let log = backend.process.log();
    assert!(log.contains("/config/..."), "{log}");
    for secret in [TOKEN, "other-token-9"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[test]
fn a_poll_is_logged_with_the_sites_name_and_the_hash() {
    let mut bench = Bench::start();
    add_site(&mut bench.sql, "Évil\nSite", "evil");
    let hash = bench.config()["config_hash"].as_str().unwrap()[..6].to_owned();
    bench.backend.process.wait_for_log(
        &format!("✅ Config sync endpoint called by site Paris (hash: {hash}...)\n"),
        1,
    );
    assert_eq!(bench.backend.get("/config/evil").status, 200);
    bench
        .backend
        .process
        .wait_for_log("called by site Évil\u{fffd}Site (hash: ", 1);
}

#[test]
fn the_version_is_stored_when_it_changes_and_only_then() {
    let mut bench = Bench::start();
    let stored = |bench: &mut Bench| -> (Option<String>, Option<String>) {
        let row = bench
            .sql
            .query_one(
                "SELECT config_version, config_updated_at::text FROM sites",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    let hash = bench.config()["config_hash"].as_str().unwrap().to_owned();
    let first = stored(&mut bench);
    assert_eq!(first.0.as_deref(), Some(hash.as_str()));
    assert!(first.1.is_some());
    // Polls change nothing, nor do reports.
    bench.config();
    bench.ingest(&report(&[reported("10.0.0.1", "online", "ok")]));
    sleep(SEEN_AFTER);
    bench.config();
    assert_eq!(stored(&mut bench), first);

    bench.add_device("10.0.0.1");
    sleep(SEEN_AFTER);
    let hash = bench.config()["config_hash"].as_str().unwrap().to_owned();
    let second = stored(&mut bench);
    assert_eq!(second.0.as_deref(), Some(hash.as_str()));
    assert_ne!(second.1, first.1);

    // What hashes to the same is the same version, whatever was written.
    bench
        .sql
        .batch_execute("UPDATE devices SET room = room")
        .unwrap();
    sleep(SEEN_AFTER);
    bench.config();
    assert_eq!(stored(&mut bench), second);
}

#[test]
fn a_technician_with_an_open_transaction_makes_no_poll_wait() {
    let mut bench = Bench::start();
    let before = bench.configured();
    let mut technician = bench.db.connect();
    let mut transaction = technician.transaction().unwrap();
    transaction
        .execute(
            "INSERT INTO devices (site_id, name, ip) VALUES ($1, 'P', '10.0.0.1')",
            &[&bench.site],
        )
        .unwrap();
    // The site's row is locked now; its hash cannot be stored.
    bench
        .db
        .connect()
        .batch_execute("SELECT pg_sleep(0.1)")
        .unwrap();
    assert_eq!(bench.configured(), before);
    transaction.commit().unwrap();
    sleep(SEEN_AFTER);
    let config = bench.config();
    assert_eq!(config["devices"][0]["ip"], "10.0.0.1");
    let stored: String = bench.one("SELECT config_version FROM sites");
    assert_eq!(config["config_hash"], stored.as_str());
}

/// Polls a backend all the time, so that its cache is in use.
struct Polling<'a> {
    stop: &'a AtomicBool,
}

impl Polling<'_> {
    fn run<T>(bench: &mut Bench, work: impl FnOnce(&mut Bench) -> T) -> T {
        let stop = AtomicBool::new(false);
        let url = format!("{}/config/{TOKEN}", bench.backend.url);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = http("GET", &url, &[], None).unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    sleep(Duration::from_millis(3));
                }
            });
            // Also where the work fails.
            let _polling = Polling { stop: &stop };
            work(bench)
        })
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Adds and deletes a device and checks each time that a poll 100 ms after
/// the commit sees it.
#[track_caller]
fn changes_are_seen(bench: &mut Bench, round: usize) {
    let ip = format!("10.1.0.{round}");
    bench.add_device(&ip);
    sleep(SEEN_AFTER);
    assert!(bench.configured().contains(&ip), "round {round}: INSERT");
    bench
        .sql
        .execute(
            "UPDATE devices SET room = $2 WHERE ip = $1",
            &[&ip, &format!("R{round}")],
        )
        .unwrap();
    sleep(SEEN_AFTER);
    assert!(
        bench
            .config()
            .to_string()
            .contains(&format!("\"R{round}\"")),
        "round {round}: UPDATE"
    );
    bench
        .sql
        .execute("DELETE FROM devices WHERE ip = $1", &[&ip])
        .unwrap();
    sleep(SEEN_AFTER);
    assert!(!bench.configured().contains(&ip), "round {round}: DELETE");
}

#[test]
fn a_poll_100_ms_after_a_commit_sees_it_while_the_cache_is_in_use() {
    let mut bench = Bench::start();
    Polling::run(&mut bench, |bench| {
        bench.backend.process.wait_for("the cache is in use", || {
            (bench.metric("av_backend_config_polls_total{result=\"hit\"}") > 50.0).then_some(())
        });
        for round in 0..25 {
            changes_are_seen(bench, round);
        }
    });
}

#[test]
fn a_poll_sees_a_commit_also_when_the_notification_connection_is_cut() {
    let mut bench = Bench::start();
    Polling::run(&mut bench, |bench| {
        for round in 0..10 {
            let hits =
                |bench: &Bench| bench.metric("av_backend_config_polls_total{result=\"hit\"}");
            let before = hits(bench);
            bench
                .backend
                .process
                .wait_for("the cache is in use again", || {
                    (hits(bench) > before + 20.0).then_some(())
                });
            assert_eq!(bench.db.cut_connections("av-backend listen"), 1);
            changes_are_seen(bench, round);
        }
    });
    assert!(
        bench
            .backend
            .process
            .log()
            .contains("notifications of changed configurations ended")
    );
}

#[test]
fn a_poll_sees_a_commit_while_the_notification_connection_is_kept_cut() {
    let mut bench = Bench::start();
    let stop = AtomicBool::new(false);
    let mut cutter = bench.db.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                cutter
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE datname = current_database() AND application_name = 'av-backend listen'",
                        &[],
                    )
                    .unwrap();
            }
        });
        // Ends the cutting, also where a check fails.
        let _cutting = Polling { stop: &stop };
        Polling::run(&mut bench, |bench| {
            for round in 0..8 {
                changes_are_seen(bench, round);
            }
        });
    });
}

#[test]
fn a_new_and_a_deleted_site_are_seen_and_a_new_token_ends_the_old_one() {
    let mut bench = Bench::start();
    Polling::run(&mut bench, |bench| {
        for round in 0..5 {
            let token = format!("lyon-{round}");
            let path = format!("/config/{token}");
            assert_eq!(bench.backend.get(&path).status, 404);
            add_site(&mut bench.sql, "Lyon", &token);
            assert_eq!(bench.backend.get(&path).status, 200);
            bench
                .sql
                .batch_execute("UPDATE sites SET token = 'rotated' WHERE name = 'Lyon'")
                .unwrap();
            sleep(SEEN_AFTER);
            assert_eq!(bench.backend.get(&path).status, 404);
            assert_eq!(bench.backend.get("/config/rotated").status, 200);
            bench
                .sql
                .batch_execute("DELETE FROM sites WHERE name = 'Lyon'")
                .unwrap();
            sleep(SEEN_AFTER);
            assert_eq!(bench.backend.get("/config/rotated").status, 404);
        }
    });
}

#[test]
fn two_backends_agree_at_once() {
    let mut bench = Bench::start();
    let second = Backend::start(&bench.db.url());
    let path = format!("/config/{TOKEN}");
    for round in 0..5 {
        bench.add_device(&format!("10.2.0.{round}"));
        sleep(SEEN_AFTER);
        let (one, two) = (bench.config(), second.get(&path).json());
        assert_eq!(one, two);
        assert_eq!(one["devices"].as_array().unwrap().len(), round + 1);
    }
}

// ---------------------------------------------------------------- the hash

/// Texts and JSON as nobody would think of.
struct Odd(Random);

impl Odd {
    fn text(&mut self) -> String {
        const PARTS: &[&str] = &[
            "a",
            "Z",
            "0",
            " ",
            "é",
            "ß",
            "日本",
            "😀",
            "\u{301}",
            "\"",
            "\\",
            "/",
            "\n",
            "\t",
            "\u{1}",
            "\u{1f}",
            "\u{7f}",
            "\u{80}",
            "\u{2028}",
            "\u{ffff}",
            "\u{10ffff}",
            "<&>",
            "\u{feff}",
            "'",
            "null",
            "%",
            "\u{8}",
            "\u{c}",
            "\r",
        ];
        (0..self.0.below(6)).map(|_| self.0.pick(PARTS)).collect()
    }

    fn number(&mut self) -> String {
        const SPECIAL: &[&str] = &[
            "0",
            "-0",
            "-0.0",
            "0.0",
            "1e16",
            "1e-5",
            "0.1",
            "1E+2",
            "1.10",
            "100.0",
            "1e15",
            "123456789012345678901234567890",
            "-18446744073709551617",
            "9007199254740993",
            "9007199254740993.0",
            "1e400",
            "1e-400",
            "1.7976931348623157e308",
            "5e-324",
            "0.0001",
            "0.00001",
            "12345678901234567.25",
            "3.0e3",
            "0.30000000000000004",
            "2.2250738585072014e-308",
            "1e22",
            "1e23",
            "1.0e16",
            "9999999999999999.5",
        ];
        match self.0.below(4) {
            0 => self.0.pick(SPECIAL).to_owned(),
            1 => (i64::from_ne_bytes(self.0.word().to_ne_bytes()) >> self.0.below(64)).to_string(),
            2 => f64::from_bits(self.0.word())
                .to_string()
                .replace("NaN", "0.5")
                .replace("-inf", "-1e5")
                .replace("inf", "1.5e5"),
            _ => {
                let (whole, part, exponent) =
                    (self.0.below(1000), self.0.below(100_000), self.0.below(40));
                format!("{whole}.{part}e{}", i64::try_from(exponent).unwrap() - 20)
            }
        }
    }

    fn json(&mut self, depth: u32) -> String {
        let quoted = |text: String| Value::String(text).to_string();
        match self.0.below(if depth == 0 { 5 } else { 8 }) {
            0 => "null".to_owned(),
            1 => self.0.pick(&["true", "false"]).to_owned(),
            2 => quoted(self.text()),
            3 | 4 => self.number(),
            5 => {
                let items: Vec<String> =
                    (0..self.0.below(4)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let members: Vec<String> = (0..self.0.below(5))
                    .map(|_| format!("{}:{}", quoted(self.text()), self.json(depth - 1)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn column(&mut self) -> Option<String> {
        match self.0.below(8) {
            0 => None,
            1 => {
                // Deep, but not deeper than Python reads.
                let depth = usize::try_from(self.0.below(150)).unwrap();
                let (open, close) = self.0.pick(&[("[", "]"), ("{\"k\":", "}")]);
                Some(format!(
                    "{}{}{}",
                    open.repeat(depth),
                    self.number(),
                    close.repeat(depth)
                ))
            }
            _ => Some(self.json(5)),
        }
    }
}

/// Reads the rows as text and hashes them as the contract says.
const PYTHON: &str = r#"
import hashlib, json, sys

def column(text):
    value = {} if text is None else json.loads(text)
    return {} if value is None else value

for line in sys.stdin:
    site, rows = json.loads(line)
    site["devices"] = [
        {
            "ip": ip, "name": name, "building": building or "", "floor": floor or "",
            "room": room or "", "type": kind, "driver": driver,
            "driver_config": column(driver_config), "expectations": column(expectations),
        }
        for ip, name, building, floor, room, kind, driver, driver_config, expectations
        in sorted(rows, key=lambda row: row[0])
    ]
    text = json.dumps(site, sort_keys=True, ensure_ascii=False)
    print(hashlib.md5(text.encode("utf-8")).hexdigest())
"#;

/// The rows of a site as PostgreSQL prints them, for Python.
fn rows(bench: &mut Bench, site: i64) -> Value {
    let head = bench
        .sql
        .query_one(
            "SELECT name, timezone, doubt_after_days, ok_interval_s, ko_interval_s FROM sites WHERE id = $1",
            &[&site],
        )
        .unwrap();
    let devices: Vec<Value> = bench
        .sql
        .query(
            "SELECT ip, name, building, floor, room, device_type, driver, driver_config::text,
                    expectations::text FROM devices WHERE site_id = $1 ORDER BY id",
            &[&site],
        )
        .unwrap()
        .iter()
        .map(|row| {
            (0..9)
                .map(|i| row.get::<_, Option<String>>(i))
                .collect::<Vec<_>>()
                .into()
        })
        .collect();
    json!([{
        "site_name": head.get::<_, String>(0), "timezone": head.get::<_, String>(1),
        "doubt_after_days": head.get::<_, i32>(2), "ok_interval_s": head.get::<_, i32>(3),
        "ko_interval_s": head.get::<_, i32>(4),
    }, devices])
}

#[test]
fn pythons_hash_over_the_same_rows_is_the_same() {
    const SITES: usize = 150;
    let mut bench = Bench::start();
    let mut odd = Odd(Random::new(0x00a1_1ce5_eed5));
    let mut input = String::new();
    let mut hashes = Vec::new();
    for number in 0..SITES {
        let token = format!("random-{number}");
        let name = format!("{number} {}", odd.text());
        let site = add_site(&mut bench.sql, &name, &token);
        let doubt = i32::try_from(odd.0.below(400)).unwrap();
        let interval = i32::try_from(odd.0.below(86_400)).unwrap() + 1;
        bench
            .sql
            .execute(
                "UPDATE sites SET doubt_after_days = $2, ok_interval_s = $3, ko_interval_s = $3 WHERE id = $1",
                &[&site, &doubt, &interval],
            )
            .unwrap();
        for device in 0..odd.0.below(12) {
            let ip = format!("{}{device}", odd.text());
            let place = |odd: &mut Odd| (odd.0.below(4) > 0).then(|| odd.text());
            bench
                .sql
                .execute(
                    "INSERT INTO devices (site_id, ip, name, building, floor, room, device_type, driver, driver_config, expectations)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, ($9::text)::jsonb, ($10::text)::jsonb)",
                    &[
                        &site,
                        &ip,
                        &odd.text(),
                        &place(&mut odd),
                        &place(&mut odd),
                        &place(&mut odd),
                        &odd.text(),
                        &odd.text(),
                        &odd.column(),
                        &odd.column(),
                    ],
                )
                .unwrap();
        }
        let answer = bench.backend.get(&format!("/config/{token}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let document = SiteDocument::parse(answer.body.as_bytes()).unwrap();
        document.verify_hash().unwrap();
        hashes.push(document.config_hash.to_string());
        writeln!(input, "{}", rows(&mut bench, site)).unwrap();
    }

    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let theirs: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(theirs.len(), SITES);
    for (number, (ours, theirs)) in hashes.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "site {number}");
    }
}

#[test]
fn a_report_does_not_change_the_hash() {
    let mut bench = Bench::start();
    bench.add_device("10.0.0.1");
    let before = bench.config();
    for verdict in ["ok", "fault", "doubt"] {
        let answer = bench.ingest(&report(&[
            reported("10.0.0.1", "offline", verdict),
            reported("10.0.0.99", "online", "ok"),
        ]));
        assert_eq!(answer, json!({"ok": true, "upserted": 1, "unknown": 1}));
        sleep(SEEN_AFTER);
        assert_eq!(bench.config(), before);
    }
    let devices: i64 = bench.one("SELECT count(*) FROM devices");
    assert_eq!(devices, 1);
}

#[test]
fn two_thousand_devices_inserted_at_once_are_served() {
    let mut bench = Bench::start();
    bench
        .sql
        .execute(
            "INSERT INTO devices (site_id, name, ip, driver_config)
             SELECT $1, 'P ' || i, '10.' || i / 250 || '.0.' || i % 250, '{\"ping\": {\"count\": 1}}'
               FROM generate_series(1, 2000) i",
            &[&bench.site],
        )
        .unwrap();
    sleep(SEEN_AFTER);
    let answer = bench.backend.get(&format!("/config/{TOKEN}"));
    let document = SiteDocument::parse(answer.body.as_bytes()).unwrap();
    assert_eq!(document.devices.len(), 2000);
    document.verify_hash().unwrap();
}
