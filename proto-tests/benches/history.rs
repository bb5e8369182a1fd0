//! Whether ingest and dashboard slow down as the history grows: the same
//! requests to a real backend at growing sizes, as ratios to the first.
//!
//! `cargo bench -p av-proto-tests --bench history`
//!
//! A month's partition holds a million rows. `AV_BENCH_MONTHS` (default
//! `1,10,30,100`) are the steps; above `AV_BENCH_FULL_MONTHS` (default 30)
//! the oldest months hold ten thousand rows each, which shows what the number
//! of partitions costs without needing their disk.

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

const SITES: usize = 10;
const DEVICES_PER_SITE: usize = 200;
const FULL_ROWS: i64 = 1_000_000;
const THIN_ROWS: i64 = 10_000;
const ROUNDS: usize = 300;
const WARM_UP: usize = 30;
/// The administrator's API token.
const TOKEN: &str = "avt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn main() {
    let months: Vec<i64> = setting("AV_BENCH_MONTHS", "1,10,30,100")
        .split(',')
        .map(|step| {
            step.trim()
                .parse()
                .expect("AV_BENCH_MONTHS is a list of numbers")
        })
        .collect();
    let full: i64 = setting("AV_BENCH_FULL_MONTHS", "30")
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

    let mut first: Option<[Measured; 5]> = None;
    let mut filled = 0;
    println!(
        "| months | rows | control p50 | p95 | `POST /ingest` p50 | p95 | `GET /admin/sites` p50 | p95 | `GET /devices?site=` p50 | p95 | `GET /admin/alerts` p50 | p95 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for step in months {
        while filled < step {
            let rows = if filled < full { FULL_ROWS } else { THIN_ROWS };
            // The month that runs gets what the benchmark reports.
            fill_month(&mut sql, filled + 1, rows);
            filled += 1;
        }
        sql.batch_execute("VACUUM ANALYZE").unwrap();
        sql.batch_execute("CHECKPOINT").unwrap();
        let rows: i64 = sql
            .query_one(
                "SELECT sum(c.reltuples)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'observations'::regclass AND c.reltuples > 0",
                &[],
            )
            .unwrap()
            .get(0);
        let found = measure(&backend, &mut sql);
        let base = first.get_or_insert(found);
        let cells: Vec<String> = found
            .iter()
            .zip(base.iter())
            .map(|(now, base)| {
                format!(
                    "{} | {}",
                    ratio(now.median, base.median),
                    ratio(now.p95, base.p95)
                )
            })
            .collect();
        println!(
            "| {step} | {:.2} M | {} |",
            rows as f64 / 1e6,
            cells.join(" | ")
        );
    }

    let base = first.expect("one step at least");
    println!(
        "\n1.00 in milliseconds: control {:.1}, ingest {:.1}, /admin/sites {:.1}, /devices {:.1}, /admin/alerts {:.1}",
        ms(base[0].median),
        ms(base[1].median),
        ms(base[2].median),
        ms(base[3].median),
        ms(base[4].median)
    );
    let started = Instant::now();
    let dropped = sql
        .query("SELECT av_drop_partitions(6)", &[])
        .unwrap()
        .len();
    println!(
        "dropping {dropped} months: {:.1} ms each",
        ms(started.elapsed()) / dropped.max(1) as f64
    );
    let size: i64 = sql
        .query_one("SELECT count(*) FROM observations", &[])
        .unwrap()
        .get(0);
    println!("left: {:.2} M rows", size as f64 / 1e6);
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn set_up(sql: &mut Client) {
    sql.execute(
        "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ('bench', 'none', 'admin')
                    RETURNING id)
         INSERT INTO api_tokens (user_id, name, digest)
         SELECT id, 'bench', 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex') FROM u",
        &[&TOKEN],
    )
    .unwrap();
    sql.batch_execute(&format!(
        "INSERT INTO sites (name, token) SELECT 'Site ' || i, 'token ' || i FROM generate_series(1, {SITES}) i;
         INSERT INTO devices (site_id, name, ip, building, floor, room)
         SELECT s.id, 'Device ' || i, '10.0.' || i / 250 || '.' || i % 250, 'A', '1', (i / 5)::text
           FROM sites s, generate_series(1, {DEVICES_PER_SITE}) i;"
    ))
    .unwrap();
}

/// Fills the month so many months ago, spread over its time and all devices.
fn fill_month(sql: &mut Client, ago: i64, rows: i64) {
    sql.batch_execute(&format!(
        "DO $$ DECLARE
             month TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '{ago} months';
             part  TEXT := to_char(month, '\"observations_y\"YYYY\"m\"MM');
         BEGIN
             IF to_regclass(part) IS NULL THEN
                 EXECUTE format('CREATE TABLE %I PARTITION OF observations FOR VALUES FROM (%L) TO (%L)', part,
                     month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
             END IF;
             INSERT INTO observations
                    (site_id, device_id, ip, observed_at, received_at, status, verdict, detail, metrics)
             SELECT d.site_id, d.id, d.ip, t.at, t.at, 'online', 'ok', NULL,
                    '{{\"ping_ok\": true, \"ping_rtt_avg_ms\": 1.25, \"ping_count\": 3}}'
               FROM (SELECT i, month AT TIME ZONE 'UTC' + i * (interval '27 days' / {rows}) AS at
                       FROM generate_series(1::bigint, {rows}) i) t
               JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS n FROM devices) d
                 ON d.n = t.i % {all};
         END $$",
        all = SITES * DEVICES_PER_SITE
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
fn measure(backend: &Backend, sql: &mut Client) -> [Measured; 5] {
    let mut times: [Vec<Duration>; 5] = Default::default();
    // The first ones warm up what the step before has left cold.
    for round in 0..ROUNDS + WARM_UP {
        let (body, token) = report(round);
        let found = [
            timed(|| {
                sql.query_one("SELECT sum(sqrt(i)) FROM generate_series(1, 50000) i", &[])
                    .unwrap();
            }),
            timed(|| ingest(backend, &body, &token)),
            timed(|| get(backend, "/admin/sites")),
            timed(|| get(backend, "/devices?site=Site%203")),
            timed(|| get(backend, "/admin/alerts?state=open")),
        ];
        if round >= WARM_UP {
            for (all, one) in times.iter_mut().zip(found) {
                all.push(one);
            }
        }
    }
    times.map(|mut times| {
        times.sort();
        Measured {
            median: times[times.len() / 2],
            p95: times[times.len() * 95 / 100],
        }
    })
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
    let answer = http(
        "GET",
        &format!("{}{path}", backend.url),
        &[("Authorization", &bearer)],
        None,
    )
    .unwrap();
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
