//! Whether ingest and dashboard slow down as the history grows: the same
//! requests to a real backend at growing sizes, as ratios to the first.
//!
//! `cargo bench -p av-proto-tests --bench history`
//!
//! A month's partition holds a million rows; with each go a thousand alerts
//! that are over and, for three years, the availability of its days.
//! `AV_BENCH_MONTHS` (default `1,10,100`) are the steps. A hundred need some
//! 30 GB under `TMPDIR`; above `AV_BENCH_FULL_MONTHS` (default 100) the oldest
//! months hold ten thousand rows each, which shows what the number of
//! partitions costs without their disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark fails loudly"
)]

use std::time::{Duration, Instant};

use av_proto_tests::pg::Cluster;
use av_proto_tests::process::{Backend, http};
use postgres::Client;
use serde_json::{Value, json};

const SITES: usize = 20;
const DEVICES_PER_SITE: usize = 100;
const FULL_ROWS: i64 = 1_000_000;
const THIN_ROWS: i64 = 10_000;
const ALERTS_A_MONTH: i64 = 1_000;
/// So many months of daily availability are kept.
const DAYS_MONTHS: i64 = 36;
const ROUNDS: usize = 100;
const WARM_UP: usize = 30;
/// The administrator's API token.
const TOKEN: &str = "avt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The session of the administrator's browser.
const COOKIE: &str = "av_session=0123456789abcdef0123456789abcdef";

/// What is measured beside the ingest.
const PAGES: [(&str, &str); 9] = [
    ("the dashboard, `/`", "/"),
    ("a site, `/sites/3`", "/sites/3"),
    ("a device, one day, `/devices/250`", "/devices/250"),
    ("a device, 30 days, `?days=30`", "/devices/250?days=30"),
    ("open alerts, `/alerts`", "/alerts"),
    (
        "closed alerts, `/alerts?state=closed`",
        "/alerts?state=closed",
    ),
    ("`GET /admin/sites`", "/admin/sites"),
    ("`GET /devices?site=`", "/devices?site=Site%203"),
    ("`GET /admin/devices/250/days`", "/admin/devices/250/days"),
];

fn main() {
    let months: Vec<i64> = setting("AV_BENCH_MONTHS", "1,10,100")
        .split(',')
        .map(|step| {
            step.trim()
                .parse()
                .expect("AV_BENCH_MONTHS is a list of numbers")
        })
        .collect();
    let full: i64 = setting("AV_BENCH_FULL_MONTHS", "100")
        .parse()
        .expect("AV_BENCH_FULL_MONTHS is a number");

    let cluster = Cluster::start();
    let db = cluster.create_database();
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_HISTORY_EVERY_MS", "86400000");
    });
    backend.wait_until_healthy();
    let mut sql = db.connect();
    set_up(&mut sql);

    let mut steps: Vec<(String, Vec<(String, Measured)>)> = Vec::new();
    let mut filled = 0;
    for step in months {
        while filled < step {
            let rows = if filled < full { FULL_ROWS } else { THIN_ROWS };
            // The month that runs gets what the benchmark reports.
            fill_month(&mut sql, filled + 1, rows);
            filled += 1;
        }
        for table in ["device_states", "alerts", "device_days", "site_days"] {
            sql.batch_execute(&format!("VACUUM ANALYZE {table}"))
                .unwrap();
        }
        sql.batch_execute("CHECKPOINT").unwrap();
        let row = sql
            .query_one(
                "SELECT sum(c.reltuples)::bigint,
                        (SELECT sum(pg_total_relation_size(i.inhrelid))::bigint FROM pg_inherits i
                          WHERE i.inhparent = 'observations'::regclass)
                   FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'observations'::regclass AND c.reltuples > 0",
                &[],
            )
            .unwrap();
        let (rows, bytes): (i64, i64) = (row.get(0), row.get(1));
        let title = format!(
            "{step} months, {:.1} M rows, {:.2} GB",
            rows as f64 / 1e6,
            bytes as f64 / 1e9
        );
        let found = measure(&backend, &mut sql);
        // Before all steps are done: whoever waits wants to see something.
        eprintln!("{title}");
        for (name, time) in &found {
            eprintln!(
                "  {name}: {:.1} ms, p95 {:.1} ms",
                ms(time.median),
                ms(time.p95)
            );
        }
        steps.push((title, found));
    }
    print_table(&steps);

    let started = Instant::now();
    let dropped = sql
        .query("SELECT av_drop_partitions(6)", &[])
        .unwrap()
        .len();
    println!(
        "\ndropping {dropped} months: {:.1} ms each",
        ms(started.elapsed()) / dropped.max(1) as f64
    );
    let size: i64 = sql
        .query_one("SELECT count(*) FROM observations", &[])
        .unwrap()
        .get(0);
    println!("left: {:.2} M rows", size as f64 / 1e6);
}

/// A line a request, a column a step: the median and in brackets the 95th of
/// a hundred, as ratios to the first step.
fn print_table(steps: &[(String, Vec<(String, Measured)>)]) {
    let titles: Vec<&str> = steps.iter().map(|(title, _)| title.as_str()).collect();
    println!("| | {} |", titles.join(" | "));
    println!("|---|{}", "---|".repeat(steps.len()));
    let (_, base) = steps.first().expect("one step at least");
    for (line, (name, base)) in base.iter().enumerate() {
        let cells: Vec<String> = steps
            .iter()
            .enumerate()
            .map(|(step, (_, found))| {
                let now = found[line].1;
                let ratios = format!(
                    "{} ({})",
                    ratio(now.median, base.median),
                    ratio(now.p95, base.p95)
                );
                if step == 0 {
                    format!("{ratios}, {:.1} ms", ms(now.median))
                } else {
                    ratios
                }
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn set_up(sql: &mut Client) {
    let cookie = COOKIE.split_once('=').unwrap().1;
    sql.execute(
        "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ('bench', 'none', 'admin')
                    RETURNING id),
              s AS (INSERT INTO sessions (digest, user_id, expires_at, ip)
                    SELECT 'sha256:' || encode(sha256(convert_to($2, 'UTF8')), 'hex'), id,
                           now() + interval '1 day', '127.0.0.1' FROM u)
         INSERT INTO api_tokens (user_id, name, digest)
         SELECT id, 'bench', 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex') FROM u",
        &[&TOKEN, &cookie],
    )
    .unwrap();
    // All days but today are computed: housekeeping has to find out.
    sql.batch_execute(&format!(
        "INSERT INTO sites (name, token, created_at)
         SELECT 'Site ' || i, 'token ' || i, now() - interval '10 years' FROM generate_series(1, {SITES}) i;
         INSERT INTO devices (site_id, name, ip, building, floor, room, created_at)
         SELECT s.id, 'Device ' || i, '10.0.' || i / 250 || '.' || i % 250, 'A', '1', (i / 5)::text,
                now() - interval '10 years'
           FROM sites s, generate_series(1, {DEVICES_PER_SITE}) i ORDER BY s.id, i;
         INSERT INTO site_days (site_id, day)
         SELECT s.id, (now() AT TIME ZONE 'UTC')::date - d FROM sites s, generate_series(1, 3660) d;"
    ))
    .unwrap();
}

/// Fills the month so many months ago, spread over its time and all devices.
/// The partition is made beside the history and then attached: its indexes
/// are built once.
fn fill_month(sql: &mut Client, ago: i64, rows: i64) {
    let all = SITES * DEVICES_PER_SITE;
    sql.batch_execute(&format!(
        "DO $$ DECLARE
             month TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '{ago} months';
             days  INTEGER := extract(day FROM month + interval '1 month' - interval '1 day');
             part  TEXT := to_char(month, '\"observations_y\"YYYY\"m\"MM');
         BEGIN
             IF to_regclass(part) IS NOT NULL THEN
                 EXECUTE format('DROP TABLE %I', part);
             END IF;
             EXECUTE format('CREATE TABLE %I (LIKE observations INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
             EXECUTE format($fill$
                 INSERT INTO %I
                        (site_id, device_id, ip, observed_at, received_at, status, verdict, detail, metrics)
                 SELECT d.site_id, d.id, d.ip, t.at, t.at, 'online', 'ok', NULL,
                        '{{\"ping_ok\": true, \"ping_rtt_avg_ms\": 1.25, \"ping_count\": 3}}'
                   FROM (SELECT i, %L::timestamptz + i * (interval '1 day' * %s / {rows}::float8) AS at
                           FROM generate_series(0::bigint, {rows} - 1) i) t
                   JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS n FROM devices) d
                     ON d.n = t.i %% {all}$fill$, part, month AT TIME ZONE 'UTC', days);
             EXECUTE format('ALTER TABLE observations ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
                 month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
             EXECUTE format('ANALYZE %I', part);
             IF {ago} <= {DAYS_MONTHS} THEN
             INSERT INTO device_days
                    (device_id, day, site_id, ip, ok_s, fault_s, expected_off_s, doubt_s, unknown_s)
             SELECT d.id, month::date + g, d.site_id, d.ip, 80000, 400, 6000, 0, 0
               FROM devices d, generate_series(0, days - 1) g;
             END IF;
             INSERT INTO alerts (site_id, device_id, device_ip, device_name, opened_at, closed_at, closed_by)
             SELECT d.site_id, d.id, d.ip, d.name, a.at, a.at + interval '1 hour', 'ok'
               FROM (SELECT i, month AT TIME ZONE 'UTC' + i * (interval '1 day' * days / {ALERTS_A_MONTH}) AS at
                       FROM generate_series(1, {ALERTS_A_MONTH}) i) a
               JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS n FROM devices) d
                 ON d.n = a.i * 7 % {all};
         END $$"
    ))
    .unwrap();
}

#[derive(Clone, Copy)]
struct Measured {
    median: Duration,
    p95: Duration,
}

/// Everything in turn, round after round, so that what else the machine does
/// meets all alike. The control is a computation in the database that touches
/// no table: what it tells is the machine.
fn measure(backend: &Backend, sql: &mut Client) -> Vec<(String, Measured)> {
    let mut names = vec![
        "control".to_owned(),
        format!("`POST /ingest` of {DEVICES_PER_SITE} devices"),
    ];
    names.extend(PAGES.map(|(name, _)| name.to_owned()));
    names.push("housekeeping: days to compute, and one computed".to_owned());
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); names.len()];
    // The first ones warm up what the step before has left cold.
    for round in 0..ROUNDS + WARM_UP {
        let (body, token) = report(round);
        let mut found = vec![
            timed(|| {
                sql.query_one("SELECT sum(sqrt(i)) FROM generate_series(1, 50000) i", &[])
                    .unwrap();
            }),
            timed(|| ingest(backend, &body, &token)),
        ];
        found.extend(PAGES.map(|(_, path)| timed(|| get(backend, path))));
        found.push(timed(|| {
            let open = sql.query("SELECT * FROM av_days_to_compute(200)", &[]).unwrap();
            assert!(open.is_empty(), "all days are computed");
            sql.query_one(
                "SELECT av_compute_day(3, (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '10 days')::date)",
                &[],
            )
            .unwrap();
        }));
        if round >= WARM_UP {
            for (all, one) in times.iter_mut().zip(found) {
                all.push(one);
            }
        }
    }
    names
        .into_iter()
        .zip(times)
        .map(|(name, mut times)| {
            times.sort();
            let measured = Measured {
                median: times[times.len() / 2],
                p95: times[times.len() * 95 / 100],
            };
            (name, measured)
        })
        .collect()
}

/// The report of the site whose turn it is, of all its devices, a tenth of
/// which changed since the last one; and its token.
fn report(round: usize) -> (String, String) {
    let site = 1 + round % SITES;
    let devices: Vec<Value> = (1..=DEVICES_PER_SITE)
        .map(|i| {
            let off = (i + round / SITES) % 10 == 0;
            json!({"ip": format!("10.0.{}.{}", i / 250, i % 250), "name": "", "building": "",
                   "floor": "", "room": "", "type": "other", "driver": "ping",
                   "status": if off { "offline" } else { "online" }, "detail": null,
                   "metrics": {"ping_ok": !off}, "verdict": if off { "fault" } else { "ok" }})
        })
        .collect();
    (
        json!({"site_name": format!("Site {site}"), "devices": devices}).to_string(),
        format!("token {site}"),
    )
}

fn ingest(backend: &Backend, body: &str, token: &str) {
    let answer = http(
        "POST",
        &format!("{}/ingest", backend.url),
        &[
            ("X-Site-Token", token),
            ("Content-Type", "application/json"),
        ],
        Some(body.as_bytes()),
    )
    .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn get(backend: &Backend, path: &str) {
    let bearer = format!("Bearer {TOKEN}");
    // As a person sees it, or as a program does.
    let who = if path.starts_with("/admin/") {
        ("Authorization", bearer.as_str())
    } else {
        ("Cookie", COOKIE)
    };
    let answer = http("GET", &format!("{}{path}", backend.url), &[who], None).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn ratio(now: Duration, base: Duration) -> String {
    format!("{:.2}", now.as_secs_f64() / base.as_secs_f64())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
