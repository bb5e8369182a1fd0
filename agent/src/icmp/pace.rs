//! How fast echoes leave. Pure: time comes in as an [`Instant`].
//!
//! A fixed interval, as other tools have it, is too slow where everybody
//! answers and too fast where a queue is full. Here each echo takes a place,
//! and a place comes free with an answer, which says that there was room for
//! the echo and the answer both, or with time. So what can arrive unread is
//! bounded, a network that answers is used as fast as it does, and one that
//! does not answer gets a slow trickle.

use std::time::{Duration, Instant};

/// Places: echoes that may be unanswered before time has to pass. Their
/// answers fit the smallest receive buffer many times.
const PLACES: u32 = 64;
const PLACES_MIN: u32 = 4;
/// One place comes free with each: 20,000 a second is a fifth of what a
/// 100 Mbit/s network can carry.
const INTERVAL: Duration = Duration::from_micros(50);
const INTERVAL_MAX: Duration = Duration::from_millis(10);
/// After "no room": long enough for a queue of a slow link to empty a bit.
const PAUSE: Duration = Duration::from_millis(20);
/// This long without "no room", and the pace doubles again.
const CALM: Duration = Duration::from_secs(1);

/// The pace of one socket.
#[derive(Debug)]
pub(super) struct Pace {
    free: u32,
    places: u32,
    interval: Duration,
    /// Until when the passing of time has been turned into places; ahead of
    /// the clock during a pause.
    counted: Instant,
    /// When the pace last changed.
    changed: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            free: PLACES,
            places: PLACES,
            interval: INTERVAL,
            counted: now,
            changed: now,
        }
    }

    /// Whether an echo may leave; it then has its place.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        if self.free == 0 || now < self.counted {
            return false;
        }
        self.free -= 1;
        true
    }

    /// An echo was answered.
    pub(super) fn answered(&mut self) {
        self.free = (self.free + 1).min(self.places);
    }

    /// An echo found no room to leave.
    pub(super) fn no_room(&mut self, now: Instant) {
        self.free = 1;
        self.places = (self.places / 2).max(PLACES_MIN);
        self.interval = (self.interval * 2).min(INTERVAL_MAX);
        self.counted = now + PAUSE;
        self.changed = now;
    }

    /// How long until [`Pace::take`] will say yes.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let due = if self.free > 0 {
            self.counted
        } else {
            self.counted + self.interval
        };
        if self.free > 0 && self.counted <= now {
            Duration::ZERO
        } else {
            due.saturating_duration_since(now)
        }
    }

    fn refill(&mut self, now: Instant) {
        if self.interval > INTERVAL && now.saturating_duration_since(self.changed) >= CALM {
            self.places = (self.places * 2).min(PLACES);
            self.interval = (self.interval / 2).max(INTERVAL);
            self.changed = now;
        }
        let passed =
            now.saturating_duration_since(self.counted).as_nanos() / self.interval.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if self.free.saturating_add(passed) >= self.places {
            self.free = self.places;
            self.counted = self.counted.max(now);
        } else {
            self.free += passed;
            self.counted += self.interval * passed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn taken(pace: &mut Pace, now: Instant) -> usize {
        (0..10_000).take_while(|_| pace.take(now)).count()
    }

    #[test]
    fn a_burst_then_one_at_each_interval() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        for (at, count, wait) in [
            (0, 64, 50),
            (0, 0, 50),
            (49, 0, 1),
            (50, 1, 50),
            (575, 10, 25),
            (600, 1, 50),
            // Time that nobody used does not add up to more than the burst.
            (60_000_000, 64, 50),
        ] {
            assert_eq!(taken(&mut pace, t + us(at)), count, "at {at}");
            assert_eq!(pace.wait(t + us(at)), us(wait), "at {at}");
        }
    }

    #[test]
    fn answers_free_places() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        // Nobody gains by answering more than was asked.
        pace.answered();
        assert_eq!(taken(&mut pace, t), 64);
        for _ in 0..10 {
            pace.answered();
        }
        assert_eq!(pace.wait(t), Duration::ZERO);
        assert_eq!(taken(&mut pace, t), 10);
        for _ in 0..1000 {
            pace.answered();
        }
        assert_eq!(taken(&mut pace, t), 64);
    }

    #[test]
    fn no_room_slows_down_and_calm_speeds_up() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        assert_eq!(taken(&mut pace, t), 64);
        pace.no_room(t);
        assert_eq!(taken(&mut pace, t), 0);
        assert_eq!(pace.wait(t), PAUSE);
        // The one that found no room tries again, then half as fast.
        let after = t + PAUSE;
        assert_eq!(taken(&mut pace, after), 1);
        assert_eq!(taken(&mut pace, after + us(100)), 1);
        assert_eq!(taken(&mut pace, after + us(200)), 1);
        assert_eq!(taken(&mut pace, after + us(500_000)), 32);
        for n in 0..100 {
            pace.no_room(after + us(600_000 + n));
        }
        assert_eq!((pace.places, pace.interval), (PLACES_MIN, INTERVAL_MAX));
        let mut now = after + us(700_000);
        for _ in 0..20 {
            now += CALM;
            taken(&mut pace, now);
        }
        assert_eq!((pace.places, pace.interval), (PLACES, INTERVAL));
    }
}
