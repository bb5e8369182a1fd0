//! A bound on work that holds a thread: how much is done at a time, and how much
//! may wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Turns to do some work.
pub(crate) struct Turns {
    counts: Mutex<Counts>,
    freed: Condvar,
    /// The most that may wait, each with a thread of the server.
    waiting_max: usize,
    /// How long one waits.
    limit: Duration,
}

struct Counts {
    free: usize,
    waiting: usize,
}

/// A turn, until it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// This number of turns at a time, at least one.
    pub(crate) fn new(at_a_time: usize, waiting_max: usize, limit: Duration) -> Self {
        Self {
            counts: Mutex::new(Counts {
                free: at_a_time.max(1),
                waiting: 0,
            }),
            freed: Condvar::new(),
            waiting_max,
            limit,
        }
    }

    /// Waits for a turn; `None` where too many wait already, or none became
    /// free in time.
    pub(crate) fn take(&self) -> Option<Turn<'_>> {
        let mut counts = self.lock();
        if counts.free == 0 && counts.waiting < self.waiting_max {
            counts.waiting += 1;
            (counts, _) = self
                .freed
                .wait_timeout_while(counts, self.limit, |counts| counts.free == 0)
                .unwrap_or_else(PoisonError::into_inner);
            counts.waiting -= 1;
        }
        counts.free = counts.free.checked_sub(1)?;
        Some(Turn(self))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_turn_comes_back() {
        let turns = Turns::new(1, 1, Duration::from_millis(10));
        drop(turns.take().unwrap());
        let turn = turns.take().unwrap();
        assert!(turns.take().is_none());
        drop(turn);
        assert!(turns.take().is_some());
    }

    #[test]
    fn a_bounded_number_waits() {
        const WAITING_MAX: usize = 3;
        let turns = Turns::new(2, WAITING_MAX, LONG);
        let held = [turns.take().unwrap(), turns.take().unwrap()];
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..WAITING_MAX)
                .map(|_| scope.spawn(|| turns.take().is_some()))
                .collect();
            while turns.lock().waiting < WAITING_MAX {
                std::thread::yield_now();
            }
            assert!(turns.take().is_none());
            drop(held);
            for one in waiting {
                assert!(one.join().unwrap());
            }
        });
        assert_eq!(turns.lock().free, 2);
    }
}
