use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Clocks that a test sets.
pub(crate) struct Hands {
    zero: Instant,
    monotonic: Mutex<Duration>,
    wall: Mutex<Timestamp>,
    ntp: AtomicBool,
}

impl Hands {
    pub(crate) fn new(wall: &str) -> Arc<Self> {
        Arc::new(Self {
            zero: Instant::now(),
            monotonic: Mutex::default(),
            wall: Mutex::new(wall.parse().unwrap()),
            ntp: AtomicBool::new(false),
        })
    }

    /// Lets time pass on both clocks.
    pub(crate) fn pass(&self, seconds: u64) {
        let by = Duration::from_secs(seconds);
        *self.monotonic.lock().unwrap() += by;
        *self.wall.lock().unwrap() += by;
    }

    /// Sets the wall clock.
    pub(crate) fn set(&self, wall: &str) {
        *self.wall.lock().unwrap() = wall.parse().unwrap();
    }
}

impl Source for Hands {
    fn monotonic(&self) -> Instant {
        self.zero + *self.monotonic.lock().unwrap()
    }

    fn wall(&self) -> Timestamp {
        *self.wall.lock().unwrap()
    }

    fn is_set_by_ntp(&self) -> bool {
        self.ntp.load(Ordering::Relaxed)
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn clock(hands: &Arc<Hands>, last_good: Option<&str>) -> Clock {
    Clock::new(Arc::clone(hands) as Arc<dyn Source>, last_good.map(at))
}

const TRUE: &str = "2026-11-24T10:00:00Z";

#[test]
fn what_a_clock_shows_at_the_start() {
    for (wall, last_good, trust) in [
        (TRUE, None, Trust::Settling),
        ("1970-01-01T00:00:10Z", None, Trust::Unset),
        ("2099-01-01T00:00:00Z", None, Trust::Unset),
        (TRUE, Some("2026-11-24T09:00:00Z"), Trust::Settling),
        // switched off here last time, to the minute
        (TRUE, Some("2026-11-24T10:01:00Z"), Trust::Settling),
        // an hour before what was known to be right
        (TRUE, Some("2026-11-24T11:00:00Z"), Trust::Unset),
        // more than a year in a drawer
        (TRUE, Some("2025-03-01T00:00:00Z"), Trust::Unset),
        // a good time that cannot have been one
        (TRUE, Some("1999-01-01T00:00:00Z"), Trust::Settling),
    ] {
        let clock = clock(&Hands::new(wall), last_good);
        assert_eq!(clock.line().trust, trust, "{wall} after {last_good:?}");
    }
}

#[test]
fn nineteen_seventy_until_ntp_moves_what_was_before() {
    let hands = Hands::new("1970-01-01T00:00:10Z");
    let clock = clock(&hands, None);
    let seen = clock.monotonic();
    hands.pass(3600);
    assert_eq!(
        clock.now(),
        at("1970-01-01T01:00:10Z"),
        "there is no better"
    );
    assert!(!clock.line().trust.is_true(), "however long it runs");
    hands.set(TRUE);
    let line = clock.line();
    assert_eq!(line.trust, Trust::Believed);
    assert_eq!(line.wall(seen), at("2026-11-24T09:00:00Z"));
    assert_eq!(clock.state().jumps, 1);
}

#[test]
fn a_clock_that_is_behind_is_believed_after_a_while_and_follows_ntp() {
    let hands = Hands::new("2026-11-21T10:00:00Z");
    let clock = clock(&hands, None);
    assert!(clock.is_worth_waiting_for());
    hands.pass(30);
    assert_eq!(clock.line().trust, Trust::Settling);
    hands.pass(30);
    assert_eq!(clock.line().trust, Trust::Believed);
    assert!(!clock.is_worth_waiting_for());
    let seen = clock.monotonic();
    hands.pass(60);
    hands.set(TRUE);
    assert_eq!(clock.now(), at(TRUE));
    assert_eq!(clock.line().wall(seen), at("2026-11-24T09:59:00Z"));
    // Back to where nothing was: not followed.
    hands.set("1970-01-01T00:00:00Z");
    hands.pass(60);
    assert_eq!(clock.now(), at("2026-11-24T10:01:00Z"));
    assert!(clock.line().trust.is_true());
    assert_eq!(clock.state().jumps, 2);
}

#[test]
fn a_time_server_is_believed_at_once() {
    let hands = Hands::new(TRUE);
    hands.ntp.store(true, Ordering::Relaxed);
    let clock = clock(&hands, None);
    assert_eq!(clock.line().trust, Trust::Known);
    assert!(!clock.is_worth_waiting_for());
}

#[test]
fn the_backends_time_confirms_or_replaces_the_machines() {
    for (wall, heard, trust, now) in [
        (TRUE, "2026-11-24T10:00:01Z", Trust::Known, TRUE),
        (TRUE, "2026-11-24T09:55:00Z", Trust::Known, TRUE),
        ("2026-11-21T10:00:00Z", TRUE, Trust::Backend, TRUE),
        ("1970-01-01T00:00:00Z", TRUE, Trust::Backend, TRUE),
        ("2099-01-01T00:00:00Z", TRUE, Trust::Backend, TRUE),
        // a backend that knows no time itself
        (TRUE, "1970-01-01T00:00:00Z", Trust::Settling, TRUE),
        (TRUE, "2099-01-01T00:00:00Z", Trust::Settling, TRUE),
    ] {
        let hands = Hands::new(wall);
        let clock = clock(&hands, None);
        clock.heard(Some(at(heard)));
        assert_eq!(clock.line().trust, trust, "{wall}, heard {heard}");
        assert_eq!(clock.now(), at(now), "{wall}, heard {heard}");
    }
}

#[test]
fn a_time_server_weighs_more_than_the_backend() {
    let hands = Hands::new(TRUE);
    hands.ntp.store(true, Ordering::Relaxed);
    let clock = clock(&hands, None);
    clock.heard(Some(at("2026-11-25T10:00:00Z")));
    assert_eq!((clock.line().trust, clock.now()), (Trust::Known, at(TRUE)));
}

#[test]
fn a_known_time_goes_on_whatever_the_machines_clock_does() {
    let hands = Hands::new(TRUE);
    let clock = clock(&hands, None);
    clock.heard(Some(at(TRUE)));
    let seen = clock.monotonic();
    for wall in [
        "1970-01-01T00:00:00Z",
        "2061-01-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
        "2026-11-24T13:00:00Z",
    ] {
        hands.set(wall);
        hands.pass(10);
        let line = clock.line();
        assert_eq!(line.trust, Trust::Backend, "{wall}");
        assert_eq!(line.wall(seen), at(TRUE), "{wall}");
    }
    assert_eq!(clock.now(), at("2026-11-24T10:00:40Z"));
    assert_eq!(clock.state().machine_ahead_s, 3 * 3600 - 30);
    // The backend says that it is so.
    clock.heard(Some(at("2026-11-24T13:00:10Z")));
    assert_eq!(clock.line().trust, Trust::Known);
    assert_eq!(clock.now(), at("2026-11-24T13:00:10Z"));
    // A small step is a time server's, and followed.
    hands.set("2026-11-24T13:00:50Z");
    assert_eq!(clock.now(), at("2026-11-24T13:00:50Z"));
    assert_eq!(clock.line().trust, Trust::Known);
}

#[test]
fn a_backends_whole_seconds_do_not_make_the_time_shake() {
    let hands = Hands::new("1970-01-01T00:00:00Z");
    let clock = clock(&hands, None);
    clock.heard(Some(at(TRUE)));
    let line = clock.line();
    hands.pass(10);
    clock.heard(Some(at("2026-11-24T10:00:12Z")));
    assert_eq!(clock.line(), line);
    hands.pass(10);
    clock.heard(Some(at("2026-11-24T10:00:40Z")));
    assert_eq!(clock.now(), at("2026-11-24T10:00:40Z"));
}

#[test]
fn a_backend_without_a_date_is_not_waited_for() {
    let hands = Hands::new("1970-01-01T00:00:00Z");
    let clock = clock(&hands, None);
    assert!(clock.is_worth_waiting_for());
    clock.heard(None);
    assert!(!clock.is_worth_waiting_for());
    assert!(!clock.line().trust.is_true());
}
