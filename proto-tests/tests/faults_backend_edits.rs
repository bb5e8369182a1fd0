//! Two backends on one database while many people edit at once: no edit is
//! lost, and no configuration is served that was out of date 100 ms before it
//! was asked for, also while the connections that notify are cut all the time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod admin_support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use admin_support::Office;
use av_proto_tests::faults::full;
use av_proto_tests::process::{Answer, Backend};
use serde_json::{Value, json};

/// After this a poll must see a change.
const SEEN_AFTER: Duration = Duration::from_millis(100);
/// Editors of the device at each backend, beside one of the site.
const EDITORS: usize = 2;

/// Ends the other threads where a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What was committed of a counter, and when at the latest.
type Committed = Mutex<Vec<(i64, Instant)>>;

/// The two backends and what is edited through them.
struct Scene<'a> {
    backends: [&'a Backend; 2],
    bearer: String,
    /// The paths of the device, and of the site.
    device: String,
    site: String,
    token: String,
}

impl Scene<'_> {
    fn send(
        &self,
        at: usize,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut headers = vec![
            ("Authorization", self.bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        headers.extend_from_slice(more);
        let body = (method != "GET").then_some(body.as_bytes());
        self.backends[at].request(method, path, &headers, body)
    }

    /// Reads a counter and writes the next number with the ETag that was read,
    /// until it is nobody else's turn; answers the number.
    fn count_up(&self, at: usize, path: &str, field: &str) -> Option<i64> {
        let read = self.send(at, "GET", path, &[], "");
        assert_eq!(read.status, 200, "{read:?}");
        let now = number(&read.json()[field]);
        // Text where it was text.
        let next = if read.json()[field].is_string() {
            json!((now + 1).to_string())
        } else {
            json!(now + 1)
        };
        let etag = &read.headers["etag"];
        let body = json!({ field: next }).to_string();
        let written = self.send(at, "PATCH", path, &[("If-Match", etag)], &body);
        match written.status {
            200 => {
                assert_eq!(number(&written.json()[field]), now + 1);
                Some(now + 1)
            }
            // Somebody else was first, or the lock was held too long.
            412 | 503 => None,
            _ => panic!("{written:?}"),
        }
    }

    /// Polls a backend and holds each answer against what was committed;
    /// answers how many there were.
    fn poll(&self, at: usize, committed: &Committed, stop: &AtomicBool) -> usize {
        let mut served = 0;
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let answer = self.backends[at].get(&format!("/config/{}", self.token));
            assert_eq!(answer.status, 200, "{answer:?}");
            served += 1;
            let shown = number(&answer.json()["devices"][0]["room"]);
            let least = committed
                .lock()
                .unwrap()
                .iter()
                .filter(|(_, at)| *at + SEEN_AFTER <= asked)
                .map(|(number, _)| *number)
                .max()
                .unwrap_or(0);
            assert!(
                shown >= least,
                "{shown} was served by backend {at} when {least} was committed 100 ms before"
            );
        }
        served
    }
}

/// A counter in a field.
fn number(value: &Value) -> i64 {
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Editors at both backends and a technician with SQL count up until `least`
/// edits are done; every one of them must be there.
fn edited(cut: bool, least: usize) {
    let office = Office::open();
    let second = Backend::start(&office.db.url());
    let (site, token) = office.site("Paris");
    let made = office.edit(
        "POST",
        "/admin/devices",
        &[],
        &json!({"site_id": site, "ip": "10.0.0.1", "name": "P", "type": "projector",
                "driver": "ping", "room": "0", "floor": "0"}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let scene = Scene {
        backends: [&office.backend, &second],
        bearer: format!("Bearer {}", office.editor),
        device: made.headers["location"].clone(),
        site: format!("/admin/sites/{site}"),
        token,
    };
    let versions = || {
        office.one::<i64>(&format!(
            "SELECT count(*) FROM config_versions WHERE site_id = {site}"
        ))
    };
    let (first_version, first_doubt) = (
        versions(),
        number(&office.get(&scene.site)["doubt_after_days"]),
    );
    let committed: Committed = Mutex::default();
    let stop = AtomicBool::new(false);
    let (device_edits, site_edits, by_hand, refused) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let cuts = AtomicUsize::new(0);
    let polls: usize = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let pollers: Vec<_> = (0..2)
            .map(|at| {
                let (scene, committed, stop) = (&scene, &committed, &stop);
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    scene.poll(at, committed, stop)
                })
            })
            .collect();
        for editor in 0..EDITORS * 2 {
            let (scene, committed, stop) = (&scene, &committed, &stop);
            let (device_edits, refused) = (&device_edits, &refused);
            scope.spawn(move || {
                let _stop = Stop(stop);
                while !stop.load(Ordering::Relaxed) {
                    match scene.count_up(editor % 2, &scene.device, "room") {
                        Some(room) => {
                            committed.lock().unwrap().push((room, Instant::now()));
                            device_edits.fetch_add(1, Ordering::Relaxed);
                        }
                        None => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        for at in 0..2 {
            let (scene, stop, site_edits) = (&scene, &stop, &site_edits);
            scope.spawn(move || {
                let _stop = Stop(stop);
                // The field has an upper bound.
                while !stop.load(Ordering::Relaxed) && site_edits.load(Ordering::Relaxed) < 200 {
                    if scene
                        .count_up(at, &scene.site, "doubt_after_days")
                        .is_some()
                    {
                        site_edits.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let (db, stop, by_hand) = (&office.db, &stop, &by_hand);
        scope.spawn(move || {
            let _stop = Stop(stop);
            let mut sql = db.connect();
            while !stop.load(Ordering::Relaxed) {
                sql.batch_execute("UPDATE devices SET floor = (floor::integer + 1)::text")
                    .unwrap();
                by_hand.fetch_add(1, Ordering::Relaxed);
                // Each of these has every editor read the device again.
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        if cut {
            let cuts = &cuts;
            scope.spawn(move || {
                let _stop = Stop(stop);
                let mut sql = db.connect();
                while !stop.load(Ordering::Relaxed) {
                    let cut = sql
                        .query(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                              WHERE datname = current_database()
                                AND application_name = 'av-backend listen'",
                            &[],
                        )
                        .unwrap();
                    cuts.fetch_add(cut.len(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let started = Instant::now();
        while device_edits.load(Ordering::Relaxed) < least && !stop.load(Ordering::Relaxed) {
            assert!(
                started.elapsed() < Duration::from_secs(900),
                "{device_edits:?} edits and {refused:?} refusals in 900 s"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        pollers
            .into_iter()
            .map(|poller| poller.join().unwrap())
            .sum()
    });
    let count = |counter: &AtomicUsize| i64::try_from(counter.load(Ordering::Relaxed)).unwrap();
    println!(
        "{device_edits:?} edits of the device, {site_edits:?} of the site, {by_hand:?} by hand, \
         {refused:?} refused, {polls} polls, {cuts:?} cuts"
    );
    let device = office.get(&scene.device);
    assert_eq!(number(&device["room"]), count(&device_edits));
    assert_eq!(number(&device["floor"]), count(&by_hand));
    assert_eq!(
        number(&office.get(&scene.site)["doubt_after_days"]) - first_doubt,
        count(&site_edits)
    );
    assert_eq!(
        versions() - first_version,
        count(&device_edits) + count(&site_edits) + count(&by_hand),
        "one version for each edit"
    );
    assert!(refused.load(Ordering::Relaxed) > 0, "nobody collided");
    assert!(polls > 20, "{polls}");
    assert_eq!(cut, cuts.load(Ordering::Relaxed) > 0);
    // And both agree on the outcome.
    std::thread::sleep(SEEN_AFTER);
    let both = scene
        .backends
        .map(|backend| backend.get(&format!("/config/{}", scene.token)));
    assert_eq!(both[0].body, both[1].body);
    assert_eq!(both[0].headers["etag"], both[1].headers["etag"]);
}

#[test]
fn edits_through_two_backends_at_once_are_all_there_and_seen_within_100_ms() {
    edited(false, if full() { 400 } else { 100 });
}

#[test]
fn edits_are_all_there_and_seen_while_the_notifications_are_kept_cut() {
    edited(true, if full() { 400 } else { 60 });
}
