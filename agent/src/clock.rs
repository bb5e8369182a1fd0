//! What time it is, on a computer that may not know.
//!
//! A Raspberry Pi has no clock that runs while it is off. It starts in 1970,
//! or where it was last switched off, and is right when the network has told
//! it the time, some seconds or some hours later. So nothing in the agent is
//! measured on the wall clock: moments are [`Instant`]s, and become wall time
//! where they leave, by the [`Line`] that is believed then. When the belief
//! changes, moments of before move with it.
//!
//! The line follows the machine's clock while that can be right. It is
//! *known* to be right when it agrees with the backend's `Date`, and believed
//! when it has run for a while without a jump. Where it does not agree, the
//! backend's time is taken: the site's history is kept by it, and many sites
//! let no time server through.

pub mod boot;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// A clock that shows an earlier time is wrong: this program did not exist
/// then.
pub(crate) const WRITTEN: Timestamp = Timestamp::constant(1_735_689_600, 0); // 2025-01-01
/// How long after the last good time a clock can still be believed unasked;
/// one that is further ahead has probably lost its battery.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24 * 400);
/// The same where no good time was ever known.
const AHEAD_AT_FIRST: SignedDuration = SignedDuration::from_hours(24 * 365 * 20);
/// How far a clock may be off and still be the right one.
const AGREES: SignedDuration = SignedDuration::from_secs(300);
/// A clock that moves by so much against the monotonic one was set.
const JUMP: SignedDuration = SignedDuration::from_secs(2);
/// Smaller differences are not followed: what is stamped twice is then
/// stamped the same.
const STEADY: SignedDuration = SignedDuration::from_millis(50);
/// How long a clock that can be right runs without a jump until it is
/// believed.
const SETTLES: Duration = Duration::from_secs(60);
/// systemd makes this file when it has set the clock by a time server.
const NTP_FLAG: &str = "/run/systemd/timesync/synchronized";

/// Where the machine's time comes from; a test has its own.
pub trait Source: Send + Sync {
    /// A clock that never jumps.
    fn monotonic(&self) -> Instant;
    /// The machine's wall clock.
    fn wall(&self) -> Timestamp;
    /// Whether the system says that a time server set it.
    fn is_set_by_ntp(&self) -> bool;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemSource;

impl Source for SystemSource {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn is_set_by_ntp(&self) -> bool {
        Path::new(NTP_FLAG).exists()
    }
}

/// How far the wall time is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The machine shows a time that cannot be.
    Unset,
    /// It can be right, and has not run long enough to be believed.
    Settling,
    /// It can be right, and nothing says otherwise.
    Believed,
    /// It agrees with the backend, or a time server set it.
    Known,
    /// The machine's clock is wrong: the backend's time is used.
    Backend,
}

impl Trust {
    /// Whether ages and schedules may be judged by it.
    #[must_use]
    pub fn is_true(self) -> bool {
        matches!(self, Self::Believed | Self::Known | Self::Backend)
    }
}

/// The relation between monotonic and wall time that is believed at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    zero: Instant,
    /// The wall time of `zero`.
    wall_of_zero: Timestamp,
    /// How far it is believed.
    pub trust: Trust,
}

impl Line {
    /// A line by which `zero` was at `wall_of_zero`.
    #[must_use]
    pub fn of(zero: Instant, wall_of_zero: Timestamp, trust: Trust) -> Self {
        Self {
            zero,
            wall_of_zero,
            trust,
        }
    }

    /// The wall time of a moment.
    #[must_use]
    pub fn wall(&self, at: Instant) -> Timestamp {
        plus(self.wall_of_zero, since(at, self.zero))
    }

    /// The wall time of the moment at which the machine's monotonic clock was
    /// 0: what two lines of one [`boot`] differ in, whichever program has them.
    #[must_use]
    pub fn wall_of_boot(&self) -> Timestamp {
        let (at, monotonic) = boot::reading();
        plus(self.wall(at), -monotonic)
    }
}

/// What the pages show of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClockState {
    /// How far the time is believed.
    pub trust: Trust,
    /// How often the machine's clock was set since the agent started.
    pub jumps: u64,
    /// How far the machine's clock is ahead of the time that is used, in
    /// seconds.
    pub machine_ahead_s: i64,
}

/// The agent's clock; clones are the same one.
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Source>,
    timeline: Arc<Mutex<Timeline>>,
}

impl Clock {
    /// A clock over the machine's. `last_good` is a time that was known to be
    /// right in an earlier run.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, last_good: Option<Timestamp>) -> Self {
        let timeline = Timeline::new(source.monotonic(), source.wall(), last_good);
        let clock = Self {
            source,
            timeline: Arc::new(Mutex::new(timeline)),
        };
        let _ = clock.line();
        clock
    }

    /// Now, on the clock that does not jump.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        self.source.monotonic()
    }

    /// Now, as wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let line = self.line();
        line.wall(self.monotonic())
    }

    /// What is believed now; looks at the machine's clocks.
    #[must_use]
    pub fn line(&self) -> Line {
        self.with(|_, _, _| ())
    }

    /// The backend's answer had this `Date`; `None` where it had none.
    pub fn heard(&self, date: Option<Timestamp>) {
        self.with(|timeline, at, source| match date {
            Some(date) => timeline.heard(at, date, || source.is_set_by_ntp()),
            None => timeline.asked_in_vain = true,
        });
    }

    /// Whether it is worth while to wait for a better time before something
    /// is sent: it is not believed yet, and the backend was not asked yet or
    /// knows it.
    #[must_use]
    pub fn is_worth_waiting_for(&self) -> bool {
        let line = self.line();
        !line.trust.is_true() && !self.locked().asked_in_vain
    }

    /// For the pages.
    #[must_use]
    pub fn state(&self) -> ClockState {
        let line = self.line();
        let timeline = self.locked();
        ClockState {
            trust: line.trust,
            jumps: timeline.jumps,
            machine_ahead_s: timeline.machine.duration_since(timeline.ours).as_secs(),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Timeline, Instant, &dyn Source)) -> Line {
        let mut timeline = self.locked();
        // Under the lock: readings must not come out of order.
        let at = self.source.monotonic();
        timeline.read(at, self.source.wall(), || self.source.is_set_by_ntp());
        change(&mut timeline, at, &*self.source);
        timeline.line()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// The belief, from readings. Wall times in it are those of `zero`, so that
/// two of them can be compared whenever they were read.
#[derive(Debug)]
struct Timeline {
    zero: Instant,
    /// A time that was known to be right.
    last_good: Option<Timestamp>,
    /// By the machine's clock.
    machine: Timestamp,
    /// As it is believed.
    ours: Timestamp,
    trust: Trust,
    /// Since when the machine's clock has not jumped.
    steady_since: Instant,
    ntp_asked: Option<Instant>,
    jumps: u64,
    asked_in_vain: bool,
}

impl Timeline {
    fn new(at: Instant, wall: Timestamp, last_good: Option<Timestamp>) -> Self {
        let mut timeline = Self {
            zero: at,
            last_good: last_good.filter(|good| *good >= WRITTEN),
            machine: wall,
            ours: wall,
            trust: Trust::Unset,
            steady_since: at,
            ntp_asked: None,
            jumps: 0,
            asked_in_vain: false,
        };
        if timeline.can_be(wall) {
            timeline.trust = Trust::Settling;
        } else {
            log::warn!("🕰️ The clock shows {wall}, which cannot be: not set yet");
        }
        timeline
    }

    fn line(&self) -> Line {
        Line {
            zero: self.zero,
            wall_of_zero: self.ours,
            trust: self.trust,
        }
    }

    /// Takes a reading of both clocks.
    fn read(&mut self, at: Instant, wall: Timestamp, ntp: impl FnOnce() -> bool) {
        let machine = plus(wall, -since(at, self.zero));
        let step = machine.duration_since(self.machine);
        self.machine = machine;
        let jumped = step.abs() >= JUMP;
        let can_be = self.can_be(wall);
        if jumped {
            self.jumps += 1;
            self.steady_since = at;
            // Whether the system vouches for the new time is asked afresh.
            self.ntp_asked = None;
            log::warn!(
                "🕰️ The machine's clock was set: by {} s, to {wall}",
                step.as_secs()
            );
        }
        match self.trust {
            Trust::Unset if can_be && jumped => {
                // It was set from nothing: somebody told it the time.
                self.trust = Trust::Believed;
                self.ours = machine;
            }
            Trust::Unset | Trust::Settling | Trust::Believed if can_be => self.follow(machine),
            // There is nothing better.
            Trust::Unset => self.follow(machine),
            // An impossible time is not followed.
            Trust::Settling | Trust::Believed => {}
            Trust::Known | Trust::Backend => {
                if machine.duration_since(self.ours).abs() <= AGREES {
                    self.follow(machine);
                    self.trust = Trust::Known;
                } else {
                    self.trust = Trust::Backend;
                }
            }
        }
        if self.trust == Trust::Settling {
            let asked = self
                .ntp_asked
                .is_some_and(|asked| at.duration_since(asked) < Duration::from_secs(1));
            if !asked {
                self.ntp_asked = Some(at);
                if ntp() {
                    self.trust = Trust::Known;
                }
            }
        }
        if self.trust == Trust::Settling && at.duration_since(self.steady_since) >= SETTLES {
            self.trust = Trust::Believed;
        }
    }

    /// Takes the backend's time.
    fn heard(&mut self, at: Instant, date: Timestamp, ntp: impl FnOnce() -> bool) {
        self.asked_in_vain = false;
        if date < WRITTEN {
            // The backend's clock is no better.
            return;
        }
        let elapsed = since(at, self.zero);
        let theirs = plus(date, -elapsed);
        let machine_wall = plus(self.machine, elapsed);
        if theirs.duration_since(self.machine).abs() <= AGREES {
            self.follow(self.machine);
            self.trust = Trust::Known;
        } else if machine_wall >= WRITTEN && ntp() {
            // Two against one.
            self.follow(self.machine);
            self.trust = Trust::Known;
            return;
        } else if self.can_be(machine_wall) && !self.can_be(date) {
            return;
        } else {
            // `Date` has whole seconds and was some time on its way: what is
            // already there is as good where it is near.
            if theirs.duration_since(self.ours).abs() > SignedDuration::from_secs(5) {
                log::warn!(
                    "🕰️ The machine's clock is {} s off the backend's, which is used",
                    self.machine.duration_since(theirs).as_secs()
                );
                self.ours = theirs;
            }
            self.trust = Trust::Backend;
        }
        self.last_good = Some(plus(self.ours, elapsed));
    }

    fn follow(&mut self, machine: Timestamp) {
        if machine.duration_since(self.ours).abs() >= STEADY {
            self.ours = machine;
        }
    }

    fn can_be(&self, wall: Timestamp) -> bool {
        let (earliest, latest) = match self.last_good {
            Some(good) => (plus(good, -AGREES), plus(good, AHEAD_MAX)),
            None => (WRITTEN, plus(WRITTEN, AHEAD_AT_FIRST)),
        };
        (earliest..=latest).contains(&wall)
    }
}

/// `a` - `b`, of either sign.
fn since(a: Instant, b: Instant) -> SignedDuration {
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    match a.checked_duration_since(b) {
        Some(after) => signed(after),
        None => -signed(b.duration_since(a)),
    }
}

/// A time moved by a duration; at the ends of time it stays there.
pub(crate) fn plus(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
pub(crate) mod tests;
