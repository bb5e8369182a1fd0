//! One signal that ends every thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use av_service::progress;

/// Set once, seen by every thread that waits on it.
#[derive(Debug, Default)]
pub struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// A signal that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it and wakes who waits.
    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        // Asked between two pieces of a long work.
        progress::moves();
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is set, at most so long; answers whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        // Whoever waits here has nothing to do, and who comes back goes on.
        progress::waits();
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let is_set = *self
            .changed
            .wait_timeout_while(set, limit, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        progress::moves();
        is_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_is_woken() {
        let stop = Stop::new();
        assert!(!stop.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| stop.wait(Duration::from_secs(600)));
            stop.set();
            assert!(waiter.join().unwrap());
        });
        assert!(stop.is_set());
    }
}
