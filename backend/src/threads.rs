//! Threads that are started again when they fail, and a way to say that the
//! program cannot go on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use av_proto::text::excerpt;
use av_service::progress::Progress;
use crossbeam_channel::Sender;

use crate::stop::Stop;

/// Between a failure and the next start.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts a thread that runs `work` until it returns. Where it panics,
/// `panicked` is called and `work` is run again, unless `stop` is set. Whether
/// it gets on is seen in `progress`.
///
/// # Errors
/// When the operating system has no thread left.
pub fn spawn(
    name: &str,
    panicked: impl Fn() + Send + 'static,
    stop: Arc<Stop>,
    progress: &Progress,
    work: impl Fn() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    // http-1 and http-2 do the same work.
    let group = name.trim_end_matches(|end: char| end == '-' || end.is_ascii_digit());
    let (group, progress) = (group.to_owned(), progress.clone());
    Builder::new().name(name.to_owned()).spawn(move || {
        let _watched = progress.watch(&group);
        while catch_unwind(AssertUnwindSafe(&work)).is_err() {
            panicked();
            if stop.wait(PAUSE) {
                return;
            }
        }
    })
}

/// Logs panics on one line each, instead of printing them.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info
            .location()
            .map(|place| format!("{}:{}", place.file(), place.line()))
            .unwrap_or_default();
        log::error!(
            "thread {} failed at {place}: {}",
            std::thread::current().name().unwrap_or("unnamed"),
            excerpt(message, 300)
        );
    }));
}

/// Why the program ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was asked to, by this signal.
    Signal(i32),
    /// It cannot go on.
    Failure(String),
}

/// Says that the program must end.
#[derive(Clone)]
pub struct Ended(Sender<End>);

impl Ended {
    /// Says it on this channel, which must have room for at least one.
    #[must_use]
    pub fn new(sender: Sender<End>) -> Self {
        Self(sender)
    }

    /// It was asked to.
    pub fn by_signal(&self, signal: i32) {
        let _ = self.0.try_send(End::Signal(signal));
    }

    /// It cannot go on. Only the first reason counts.
    pub fn because(&self, why: &str) {
        let _ = self.0.try_send(End::Failure(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_panics_is_counted_and_started_again() {
        let runs = Arc::new(AtomicU32::new(0));
        let panics = Arc::new(AtomicU32::new(0));
        let (counted_runs, counted_panics) = (runs.clone(), panics.clone());
        spawn(
            "test",
            move || {
                counted_panics.fetch_add(1, Ordering::SeqCst);
            },
            Arc::new(Stop::new()),
            &Progress::default(),
            move || {
                if counted_runs.fetch_add(1, Ordering::SeqCst) < 2 {
                    panic!("on purpose");
                }
            },
        )
        .unwrap()
        .join()
        .unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(panics.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn the_first_reason_counts() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let ended = Ended::new(sender);
        ended.because("a");
        ended.by_signal(15);
        assert_eq!(receiver.recv().unwrap(), End::Failure("a".to_owned()));
        assert!(receiver.is_empty());
    }
}
