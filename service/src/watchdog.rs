//! The service manager's end: sd_notify(3).

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::progress::Progress;

/// Where there is no watchdog, hanging threads are looked for this often, for
/// the log.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Says to the service manager that the program is ready, and from then on, at
/// each [`Watchdog::look`], that it is alive. Without a service manager it only
/// logs what hangs.
#[derive(Debug)]
pub struct Watchdog {
    progress: Progress,
    limit: Duration,
    every: Duration,
    looked: Instant,
    hanging: Option<String>,
    complained: bool,
    is_ready: bool,
}

impl Watchdog {
    /// A watchdog that is fed while no thread of `progress` has been at work
    /// for `limit` without a move.
    #[must_use]
    pub fn new(progress: Progress, limit: Duration) -> Self {
        // Three times in its period, so that a busy machine does not miss it.
        let every = sd_notify::watchdog_enabled().map_or(LOOK_EVERY, |period| period / 3);
        Self {
            progress,
            limit,
            every,
            looked: Instant::now(),
            hanging: None,
            complained: false,
            is_ready: false,
        }
    }

    /// The program does what it is there for.
    pub fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        self.is_ready = true;
        self.feed();
    }

    /// What the program does now, for `systemctl status`.
    pub fn status(&mut self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// Whether [`Watchdog::ready`] was said.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The program ends.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Time until the next [`Watchdog::look`].
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.every.saturating_sub(self.looked.elapsed())
    }

    /// Looks at the threads, and feeds the watchdog where none hangs. Logs
    /// once when that changes.
    pub fn look(&mut self) {
        let hanging = self.progress.hanging(self.limit);
        match &hanging {
            None => {
                if let Some(thread) = &self.hanging {
                    log::info!("thread {thread} works again");
                }
                self.feed();
            }
            Some(thread) if hanging != self.hanging => log::error!(
                "thread {thread} has not moved for {} s: the watchdog is not fed",
                self.limit.as_secs()
            ),
            Some(_) => {}
        }
        self.hanging = hanging;
        self.looked = Instant::now();
    }

    fn feed(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
        self.looked = Instant::now();
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        match sd_notify::notify(states) {
            Ok(()) => self.complained = false,
            // Once, and not at each feeding.
            Err(error) if !self.complained => {
                log::warn!("the service manager is not told: {error}");
                self.complained = true;
            }
            Err(_) => {}
        }
    }
}
