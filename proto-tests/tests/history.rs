//! Data that grows: availability by the day, and old months dropped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod alerts_support;

use alerts_support::{Desk, SITE_TOKEN};
use serde_json::json;

/// Lets site and devices have been there for long, in Paris.
fn long_ago(desk: &mut Desk) {
    desk.sql
        .batch_execute(
            "UPDATE sites SET timezone = 'Europe/Paris', created_at = '2020-01-01';
             UPDATE devices SET created_at = '2020-01-01'",
        )
        .unwrap();
}

/// Writes observations of a device into the history: (time, verdict).
fn observe(desk: &mut Desk, device: i64, observations: &[(&str, &str)]) {
    for (at, verdict) in observations {
        desk.sql
            .execute(
                "INSERT INTO observations (site_id, device_id, ip, observed_at, received_at, status, verdict)
                 SELECT site_id, id, ip, ($2::text)::timestamptz, now(), 'online', $3
                   FROM devices WHERE id = $1",
                &[&device, at, verdict],
            )
            .unwrap();
    }
}

/// The seconds of a day: ok, fault, expected off, doubt, unknown.
fn day(desk: &mut Desk, device: i64, day: &str) -> Option<[i32; 5]> {
    let row = desk
        .sql
        .query_opt(
            "SELECT ok_s, fault_s, expected_off_s, doubt_s, unknown_s FROM device_days
              WHERE device_id = $1 AND day = ($2::text)::date",
            &[&device, &day],
        )
        .unwrap()?;
    Some([0, 1, 2, 3, 4].map(|column| row.get(column)))
}

fn compute(desk: &mut Desk, day: &str) {
    desk.sql
        .execute(
            "SELECT av_compute_day($1, ($2::text)::date)",
            &[&desk.site, &day],
        )
        .unwrap();
}

#[test]
fn a_day_is_that_of_the_sites_zone_and_unknown_is_what_nobody_observed() {
    let mut desk = Desk::open(|command| {
        // Computed by hand here.
        command.env("AV_HISTORY_EVERY_MS", "3600000");
    });
    let device = desk.add_device("10.0.0.1", "101");
    let quiet = desk.add_device("10.0.0.2", "101");
    long_ago(&mut desk);
    // An observation holds at most an hour and the silence limit: with
    // intervals of 300 s, 3600 + 3 * 300 + 30 = 4530 s.
    observe(
        &mut desk,
        device,
        &[
            // 23:30 in Paris on the day before: holds 45.5 minutes into the 10th.
            ("2026-03-09T22:30:00Z", "ok"),
            ("2026-03-10T10:00:00Z", "ok"),
            ("2026-03-10T10:30:00Z", "fault"),
            ("2026-03-10T11:00:00Z", "expected_off"),
            ("2026-03-10T11:10:00Z", "doubt"),
            ("2026-03-10T11:20:00Z", "unknown"),
            // 23:50 in Paris: ten minutes of it are of the 10th.
            ("2026-03-10T22:50:00Z", "ok"),
        ],
    );
    compute(&mut desk, "2026-03-10");
    let ok = (4530 - 1800) + 1800 + 600;
    let expected = [ok, 1800, 600, 600, 86_400 - ok - 1800 - 600 - 600];
    assert_eq!(day(&mut desk, device, "2026-03-10"), Some(expected));
    assert_eq!(
        day(&mut desk, quiet, "2026-03-10"),
        Some([0, 0, 0, 0, 86_400])
    );
    // Again, and it is the same.
    compute(&mut desk, "2026-03-10");
    assert_eq!(day(&mut desk, device, "2026-03-10"), Some(expected));
    assert_eq!(desk.one::<i64>("SELECT count(*) FROM device_days"), 2);

    // Days on which the clock is changed have 23 and 25 hours.
    for (date, seconds) in [("2026-03-29", 23 * 3600), ("2026-10-25", 25 * 3600)] {
        compute(&mut desk, date);
        assert_eq!(
            day(&mut desk, device, date),
            Some([0, 0, 0, 0, seconds]),
            "{date}"
        );
    }
    // A device counts from when it was entered, and what it was outlives it.
    desk.sql
        .batch_execute(
            "UPDATE devices SET created_at = '2026-03-10T11:00:00Z' WHERE ip = '10.0.0.2'",
        )
        .unwrap();
    compute(&mut desk, "2026-03-10");
    assert_eq!(
        day(&mut desk, quiet, "2026-03-10"),
        Some([0, 0, 0, 0, 12 * 3600])
    );
    desk.sql
        .execute("DELETE FROM devices WHERE id = $1", &[&device])
        .unwrap();
    compute(&mut desk, "2026-03-10");
    assert_eq!(day(&mut desk, device, "2026-03-10"), Some(expected));
}

#[test]
fn finished_days_are_computed_and_a_late_report_has_its_day_computed_anew() {
    let mut desk = Desk::open(|_| {});
    let device = desk.add_device("10.0.0.1", "101");
    long_ago(&mut desk);
    let yesterday: String =
        desk.one("SELECT ((now() AT TIME ZONE 'Europe/Paris')::date - 1)::text");
    let noon: String = desk.one(
        "SELECT to_char((((now() AT TIME ZONE 'Europe/Paris')::date - 1) + time '12:00')
                        AT TIME ZONE 'Europe/Paris' AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    // A quarter of an hour after midnight yesterday is not finished yet.
    let finished: bool =
        desk.one("SELECT (now() AT TIME ZONE 'Europe/Paris')::time > time '00:16'");
    observe(&mut desk, device, &[(&noon, "ok")]);
    if !finished {
        assert_eq!(day(&mut desk, device, &yesterday), None);
        return;
    }
    let first = desk.wait("yesterday is computed", |desk| {
        day(desk, device, &yesterday)
    });
    assert_eq!(first[..2], [4530, 0]);
    let path = format!("/admin/devices/{device}/days");
    let shown = desk.get(&path);
    assert_eq!(
        shown["days"].as_array().unwrap().last().unwrap()["ok_s"],
        4530,
        "{shown}"
    );
    assert_eq!(
        desk.get(&format!("{path}?limit=1"))["days"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        desk.ask("GET", "/admin/devices/999999/days", None).status,
        404
    );
    let today: i64 = desk.one(
        "SELECT count(*) FROM device_days WHERE day >= (now() AT TIME ZONE 'Europe/Paris')::date",
    );
    assert_eq!(today, 0, "today is not finished");

    // The agent's spool arrives: it was in fault ten minutes after noon.
    let at: String = desk.one(&format!(
        "SELECT to_char((timestamptz '{noon}' + interval '10 minutes') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ));
    let answer = desk.backend.ingest(
        SITE_TOKEN,
        &json!({"site_name": "Paris", "devices": [
            {"ip": "10.0.0.1", "name": "", "building": "", "floor": "", "room": "", "type": "other",
             "driver": "ping", "status": "offline", "detail": null, "metrics": {}, "verdict": "fault",
             "observed_at": at}]}),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    desk.wait("it is computed anew", |desk| {
        (day(desk, device, &yesterday)?[..2] == [600, 4530]).then_some(())
    });
}

#[test]
fn old_months_are_dropped_whole_and_their_days_stay() {
    let mut desk = Desk::open(|command| {
        command.env("AV_HISTORY_MONTHS", "2");
    });
    let device = desk.add_device("10.0.0.1", "101");
    let old: String = desk.one(
        "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '6 months' + interval '10 days 12 hours',
                        'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    // One of a month that has no partition: the default's.
    let stray: String = desk.one(
        "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '4 months' + interval '10 days 12 hours',
                        'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    let recent: String = desk.one(
        "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'observations'::regclass";
    let before: i64 = desk.one(months);
    // All in one transaction: the housekeeping sees all of it or nothing.
    let mut transaction = desk.sql.transaction().unwrap();
    // Six months back a month's partition, as they were made then.
    transaction
        .batch_execute(
            "DO $$ DECLARE
                 month TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '6 months';
             BEGIN
                 EXECUTE format('CREATE TABLE %I PARTITION OF observations FOR VALUES FROM (%L) TO (%L)',
                     to_char(month, '\"observations_y\"YYYY\"m\"MM'),
                     month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
             END $$",
        )
        .unwrap();
    transaction
        .batch_execute(
            "UPDATE sites SET created_at = '2020-01-01'; UPDATE devices SET created_at = '2020-01-01'",
        )
        .unwrap();
    for at in [&old, &stray, &recent] {
        transaction
            .execute(
                "INSERT INTO observations (site_id, device_id, ip, observed_at, received_at, status, verdict)
                 SELECT site_id, id, ip, ($2::text)::timestamptz, now(), 'online', 'ok'
                   FROM devices WHERE id = $1",
                &[&device, at],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
    desk.wait(
        "the old rows are gone, those of the default partition too",
        |desk| (desk.one::<i64>("SELECT count(*) FROM observations") == 1).then_some(()),
    );
    assert_eq!(desk.one::<i64>(months), before, "the old month is dropped");
    for at in [&old, &stray] {
        assert_eq!(day(&mut desk, device, &at[..10]).unwrap()[0], 4530, "{at}");
    }
    let days: i64 = desk.one("SELECT count(*) FROM device_days");
    assert!(days > 140, "{days}");
}
