//! Threads that do not die in silence.
//!
//! A thread that panics is logged, shown on the status page and started
//! again; one that keeps panicking ends the process, for systemd to start it
//! afresh. One stop signal, the closing of a channel, ends them all.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use av_proto::text::excerpt;
use av_service::progress::{self, Progress};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use jiff::Timestamp;
use serde::Serialize;

/// Panics of one thread within [`PANIC_WINDOW`] after which the process ends.
const PANICS_MAX: usize = 5;
const PANIC_WINDOW: Duration = Duration::from_secs(600);
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Enough for every thread of the agent; the default of 8 MiB would be address
/// space that a small board has not got to give.
const STACK_BYTES: usize = 512 * 1024;

/// The stop signal: it never carries a message, it closes.
pub type Stop = Receiver<std::convert::Infallible>;

/// A panic that was survived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadPanic {
    /// The thread's name.
    pub thread: String,
    /// When it panicked.
    pub at: Timestamp,
    /// What it said.
    pub message: String,
}

/// The panics since the start, the newest last; shared with the status page.
#[derive(Debug, Clone, Default)]
pub struct Health {
    panics: Arc<Mutex<Vec<ThreadPanic>>>,
    progress: Progress,
}

impl Health {
    /// Which threads get on with their work.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A copy of what happened, the newest 20.
    #[must_use]
    pub fn panics(&self) -> Vec<ThreadPanic> {
        self.panics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Logs a panic and keeps it for the status page.
    pub fn record(&self, thread: &str, payload: &(dyn Any + Send)) {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panicked".to_owned());
        let message = excerpt(&message, 200);
        log::error!("💥 Thread {thread} panicked: {message}");
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.len() == 20 {
            panics.remove(0);
        }
        panics.push(ThreadPanic {
            thread: thread.to_owned(),
            at: Timestamp::now(),
            message,
        });
    }
}

/// Starts threads and watches over them.
#[derive(Debug)]
pub struct Supervisor {
    health: Health,
    stop: Stop,
    fatal: Sender<String>,
    alive: Sender<std::convert::Infallible>,
    ended: Receiver<std::convert::Infallible>,
}

impl Supervisor {
    /// A supervisor whose threads end when `stop` closes; a thread that
    /// cannot be kept alive is named on `fatal`.
    #[must_use]
    pub fn new(health: Health, stop: Stop, fatal: Sender<String>) -> Self {
        let (alive, ended) = crossbeam_channel::bounded(0);
        Self {
            health,
            stop,
            fatal,
            alive,
            ended,
        }
    }

    /// Starts `body` on a thread of its own. It must return when the stop
    /// signal closes, and only then.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn spawn(
        &self,
        name: &'static str,
        mut body: impl FnMut() + Send + 'static,
    ) -> std::io::Result<()> {
        let health = self.health.clone();
        let stop = self.stop.clone();
        let fatal = self.fatal.clone();
        let alive = self.alive.clone();
        let progress = self.health.progress.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _alive = alive;
                let _watched = progress.watch(name);
                let mut panics: VecDeque<Instant> = VecDeque::new();
                loop {
                    progress::moves();
                    // The body keeps its state in what it owns and rebuilds it
                    // at each start, so nothing half-changed is looked at.
                    match catch_unwind(AssertUnwindSafe(&mut body)) {
                        Ok(()) if stopped(&stop, Duration::ZERO) => return,
                        Ok(()) => health.record(name, &"ended without being told to"),
                        Err(payload) => health.record(name, &*payload),
                    }
                    panics.push_back(Instant::now());
                    while panics.front().is_some_and(|at| at.elapsed() > PANIC_WINDOW) {
                        panics.pop_front();
                    }
                    if panics.len() >= PANICS_MAX {
                        // A full channel means that somebody else's end is
                        // being handled already.
                        let _ = fatal.try_send(name.to_owned());
                        return;
                    }
                    if stopped(&stop, RESTART_DELAY) {
                        return;
                    }
                    log::warn!("🔁 Thread {name} starts again");
                }
            })?;
        Ok(())
    }

    /// Waits until every thread has ended, at most `limit`; whether they did.
    #[must_use]
    pub fn join(self, limit: Duration) -> bool {
        drop(self.alive);
        self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Whether the stop signal is closed, or closes within `wait`.
#[must_use]
pub fn stopped(stop: &Stop, wait: Duration) -> bool {
    stop.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_panics_is_recorded_and_started_again() {
        let (running, stop) = crossbeam_channel::bounded(0);
        let (fatal, _fatal) = crossbeam_channel::bounded(1);
        let health = Health::default();
        let supervisor = Supervisor::new(health.clone(), stop.clone(), fatal);
        let runs = Arc::new(AtomicUsize::new(0));
        let (again, started_again) = crossbeam_channel::bounded(1);
        let counter = Arc::clone(&runs);
        supervisor
            .spawn("test", move || {
                if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                    panic!("first run fails");
                }
                let _ = again.send(());
                let _ = stop.recv();
            })
            .unwrap();
        started_again.recv_timeout(Duration::from_secs(60)).unwrap();
        let panics = health.panics();
        assert_eq!(panics.len(), 1);
        assert_eq!(panics[0].thread, "test");
        assert_eq!(panics[0].message, "first run fails");
        drop(running);
        assert!(supervisor.join(Duration::from_secs(60)));
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_thread_that_keeps_panicking_is_fatal() {
        let (_running, stop) = crossbeam_channel::bounded(0);
        let (fatal, ends) = crossbeam_channel::bounded(1);
        let supervisor = Supervisor::new(Health::default(), stop, fatal);
        supervisor.spawn("doomed", || panic!("again")).unwrap();
        assert_eq!(
            ends.recv_timeout(Duration::from_secs(60)).unwrap(),
            "doomed"
        );
    }
}
