//! Who still gets on with its work.
//!
//! A thread says when it begins to wait for something that need not come
//! ([`waits`]), and at each step of its work ([`moves`]). One that is at work
//! and has not moved for too long hangs: in a file system that does not answer,
//! in a lock, in a loop.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The value of a thread that waits.
const WAITS: u64 = 0;

thread_local! {
    static OWN: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Pulse {
    group: String,
    started: Instant,
    /// Milliseconds since `started`, and one, at the last move; or [`WAITS`].
    moved: AtomicU64,
}

impl Pulse {
    fn moves(&self) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(since.saturating_add(1), Ordering::Relaxed);
    }

    /// How long it has been at work without a move.
    fn still_for(&self) -> Duration {
        match self.moved.load(Ordering::Relaxed) {
            WAITS => Duration::ZERO,
            moved => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(moved - 1)),
        }
    }
}

/// This thread's work goes on.
pub fn moves() {
    OWN.with_borrow(|own| {
        if let Some(pulse) = own {
            pulse.moves();
        }
    });
}

/// This thread has nothing to do and waits for something that need not come:
/// until it [`moves`], it cannot hang.
pub fn waits() {
    OWN.with_borrow(|own| {
        if let Some(pulse) = own {
            pulse.moved.store(WAITS, Ordering::Relaxed);
        }
    });
}

/// The watched threads of a process.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Vec<Arc<Pulse>>>>);

impl Progress {
    /// Watches the calling thread until the answer is dropped. Threads with
    /// the same `group` do the same work, and one is enough to get on with it:
    /// a client that reads too slowly holds a thread, and nothing else.
    pub fn watch(&self, group: &str) -> Watched {
        let pulse = Arc::new(Pulse {
            group: group.to_owned(),
            started: Instant::now(),
            moved: AtomicU64::new(WAITS),
        });
        pulse.moves();
        self.lock().push(pulse.clone());
        OWN.set(Some(pulse.clone()));
        Watched {
            pulse,
            progress: self.clone(),
        }
    }

    /// A group that hangs: each of its threads has been at work for `limit`
    /// without a move.
    #[must_use]
    pub fn hanging(&self, limit: Duration) -> Option<String> {
        let pulses = self.lock();
        pulses
            .iter()
            .map(|pulse| &pulse.group)
            .find(|group| {
                pulses
                    .iter()
                    .filter(|pulse| pulse.group == **group)
                    .all(|pulse| pulse.still_for() >= limit)
            })
            .cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Pulse>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread is watched as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Watched {
    pulse: Arc<Pulse>,
    progress: Progress,
}

impl Drop for Watched {
    fn drop(&mut self) {
        OWN.set(None);
        self.progress
            .lock()
            .retain(|pulse| !Arc::ptr_eq(pulse, &self.pulse));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn who_works_without_a_move_hangs_and_who_waits_does_not() {
        let progress = Progress::default();
        let watched = progress.watch("sync");
        assert_eq!(progress.hanging(Duration::from_secs(600)), None);
        std::thread::sleep(SHORT);
        assert_eq!(progress.hanging(SHORT), Some("sync".to_owned()));
        waits();
        assert_eq!(progress.hanging(Duration::from_nanos(1)), None);
        moves();
        std::thread::sleep(SHORT);
        assert_eq!(progress.hanging(SHORT), Some("sync".to_owned()));
        drop(watched);
        assert_eq!(progress.hanging(Duration::ZERO), None);
    }

    #[test]
    fn one_of_a_group_is_enough() {
        let progress = Progress::default();
        let _still = progress.watch("page");
        std::thread::sleep(SHORT);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let other = progress.clone();
            scope.spawn(move || {
                let _watched = other.watch("page");
                waits();
                let _ = ready.send(());
                let _ = ended.recv();
            });
            assert_eq!(is_ready.recv(), Ok(()));
            assert_eq!(progress.hanging(SHORT), None);
            drop(end);
        });
        assert_eq!(progress.hanging(SHORT), Some("page".to_owned()));
    }
}
