//! How far one probe has come: when to send, when to stop, what was found.
//! Pure: time comes in as an [`Instant`].

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::IcmpError;

/// Between echoes while nobody has answered: a device that is busy, or a
/// switch that still learns, gets a chance with the next.
pub(super) const SPACING_SILENT: Duration = Duration::from_millis(250);
/// Between echoes once the device is known to be online: the rest only
/// refine the average.
pub(super) const SPACING_ANSWERED: Duration = Duration::from_millis(15);
/// Missing answers of a device that is online are waited for at least this
/// long, and at most the time-out.
const STRAGGLERS_AT_LEAST: Duration = Duration::from_millis(200);

/// The echoes of one probe.
#[derive(Debug)]
pub(super) struct Round {
    count: usize,
    timeout: Duration,
    sent: Vec<Sent>,
    duplicates: u32,
}

#[derive(Debug)]
struct Sent {
    sequence: u16,
    at: Instant,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Answered(Duration),
    Failed { from: IpAddr, error: IcmpError },
}

/// What was heard of one echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The target answered.
    Answered { sequence: u16, at: Instant },
    /// Somebody on the way, or the target itself, said that it cannot be had.
    Failed {
        sequence: u16,
        from: IpAddr,
        error: IcmpError,
    },
}

/// What an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The first to its echo.
    First,
    /// A further one.
    Duplicate,
    /// Nothing that changes the finding.
    None,
}

/// Of the answered echoes of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoundTrip {
    pub average: Duration,
    pub min: Duration,
    pub max: Duration,
    /// The mean change from one answered echo to the next; `None` where only
    /// one was answered.
    pub jitter: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send one more echo.
    Send,
    /// Wait for an event, until then.
    Wait(Instant),
    /// There is nothing more to be learnt.
    Done,
}

impl Round {
    pub(super) fn new(count: u8, timeout: Duration) -> Self {
        Self {
            count: usize::from(count.max(1)),
            timeout,
            sent: Vec::new(),
            duplicates: 0,
        }
    }

    /// What to do at `now`.
    pub(super) fn step(&self, now: Instant) -> Step {
        let Some(last) = self.sent.last() else {
            return Step::Send;
        };
        let due = if self.sent.len() < self.count {
            let spacing = if self.answered() > 0 {
                SPACING_ANSWERED
            } else {
                SPACING_SILENT
            };
            if now >= last.at + spacing {
                return Step::Send;
            }
            last.at + spacing
        } else {
            if self.sent.iter().all(|echo| echo.outcome.is_some()) {
                return Step::Done;
            }
            last.at + self.patience()
        };
        if now >= due {
            Step::Done
        } else {
            Step::Wait(due)
        }
    }

    /// One more echo left at `at`.
    pub(super) fn sent(&mut self, sequence: u16, at: Instant) {
        self.sent.push(Sent {
            sequence,
            at,
            outcome: None,
        });
    }

    /// Something was heard of one of the echoes.
    pub(super) fn heard(&mut self, event: Event) -> News {
        let sequence = match event {
            Event::Answered { sequence, .. } | Event::Failed { sequence, .. } => sequence,
        };
        let Some(echo) = self.sent.iter_mut().find(|echo| echo.sequence == sequence) else {
            return News::None;
        };
        match (event, echo.outcome) {
            (Event::Answered { .. }, Some(Outcome::Answered(_))) => {
                self.duplicates = self.duplicates.saturating_add(1);
                News::Duplicate
            }
            // An answer outweighs an error, whichever came first.
            (Event::Answered { at, .. }, _) => {
                echo.outcome = Some(Outcome::Answered(at.saturating_duration_since(echo.at)));
                News::First
            }
            (Event::Failed { from, error, .. }, None) => {
                echo.outcome = Some(Outcome::Failed { from, error });
                News::None
            }
            (Event::Failed { .. }, Some(_)) => News::None,
        }
    }

    /// The sequence numbers of the echoes that left.
    pub(super) fn sequences(&self) -> impl Iterator<Item = u16> + '_ {
        self.sent.iter().map(|echo| echo.sequence)
    }

    /// Echoes that left.
    pub(super) fn attempts(&self) -> usize {
        self.sent.len()
    }

    /// Echoes that were answered.
    pub(super) fn answered(&self) -> usize {
        self.round_trips().count()
    }

    /// Further answers to echoes that had been answered.
    pub(super) fn duplicates(&self) -> u32 {
        self.duplicates
    }

    /// What the answers took; `None` where there was none.
    pub(super) fn round_trip(&self) -> Option<RoundTrip> {
        let count = u32::try_from(self.answered()).ok()?;
        let sum: Duration = self.round_trips().sum();
        let changes: Vec<Duration> = self
            .round_trips()
            .zip(self.round_trips().skip(1))
            .map(|(one, next)| one.abs_diff(next))
            .collect();
        Some(RoundTrip {
            average: sum.checked_div(count)?,
            min: self.round_trips().min()?,
            max: self.round_trips().max()?,
            jitter: u32::try_from(changes.len())
                .ok()
                .and_then(|count| changes.iter().sum::<Duration>().checked_div(count)),
        })
    }

    /// The first ICMP error, and who sent it.
    pub(super) fn failure(&self) -> Option<(IcmpError, IpAddr)> {
        self.sent.iter().find_map(|echo| match echo.outcome {
            Some(Outcome::Failed { from, error }) => Some((error, from)),
            _ => None,
        })
    }

    fn patience(&self) -> Duration {
        match self.round_trips().max() {
            None => self.timeout,
            Some(slowest) => (slowest * 3).max(STRAGGLERS_AT_LEAST).min(self.timeout),
        }
    }

    fn round_trips(&self) -> impl Iterator<Item = Duration> + '_ {
        self.sent.iter().filter_map(|echo| match echo.outcome {
            Some(Outcome::Answered(rtt)) => Some(rtt),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::socket::Family;
    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answered(sequence: u16, at: Instant) -> Event {
        Event::Answered { sequence, at }
    }

    const UNREACHABLE: IcmpError = IcmpError {
        family: Family::V4,
        kind: 3,
        code: 1,
    };

    fn failed(sequence: u16) -> Event {
        Event::Failed {
            sequence,
            from: ROUTER,
            error: UNREACHABLE,
        }
    }

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn silence_ends_after_the_spacings_and_one_time_out() {
        let t = Instant::now();
        let mut round = Round::new(3, ms(1000));
        assert_eq!(round.step(t), Step::Send);
        round.sent(1, t);
        assert_eq!(round.step(t), Step::Wait(t + ms(250)));
        assert_eq!(round.step(t + ms(250)), Step::Send);
        round.sent(2, t + ms(250));
        assert_eq!(round.step(t + ms(260)), Step::Wait(t + ms(500)));
        round.sent(3, t + ms(500));
        assert_eq!(round.step(t + ms(500)), Step::Wait(t + ms(1500)));
        assert_eq!(round.step(t + ms(1499)), Step::Wait(t + ms(1500)));
        assert_eq!(round.step(t + ms(1500)), Step::Done);
        assert_eq!((round.answered(), round.attempts()), (0, 3));
        assert_eq!(round.round_trip(), None);
        assert_eq!(round.failure(), None);
    }

    #[test]
    fn after_an_answer_the_rest_hurries() {
        let t = Instant::now();
        let mut round = Round::new(3, ms(1000));
        round.sent(65_535, t);
        round.heard(answered(65_535, t + ms(2)));
        assert_eq!(round.step(t + ms(2)), Step::Wait(t + ms(15)));
        round.sent(0, t + ms(15));
        assert_eq!(round.heard(answered(0, t + ms(19))), News::First);
        assert_eq!(round.round_trip().unwrap().jitter, Some(ms(2)));
        assert_eq!(round.heard(answered(0, t + ms(20))), News::Duplicate);
        assert_eq!(round.duplicates(), 1);
        round.sent(1, t + ms(30));
        // One is missing: not the whole time-out is spent on it.
        assert_eq!(round.step(t + ms(30)), Step::Wait(t + ms(230)));
        assert_eq!(
            round.round_trip(),
            Some(RoundTrip {
                average: ms(3),
                min: ms(2),
                max: ms(4),
                jitter: Some(ms(2)),
            })
        );
        round.heard(answered(1, t + ms(30) + us(1234)));
        assert_eq!(round.step(t + ms(32)), Step::Done);
        let all = round.round_trip().unwrap();
        assert_eq!(
            (all.min, all.max, all.jitter),
            (us(1234), ms(4), Some(us(2383)))
        );
        assert_eq!(all.average, Duration::from_nanos(2_411_333));
        // Nothing is known of an echo that was never sent.
        assert_eq!(round.heard(answered(9, t + ms(40))), News::None);
        assert_eq!(round.answered(), 3);
    }

    #[test]
    fn a_slow_device_is_waited_for() {
        let t = Instant::now();
        let mut round = Round::new(2, ms(1000));
        round.sent(1, t);
        round.sent(2, t + ms(250));
        round.heard(answered(1, t + ms(300)));
        assert_eq!(round.step(t + ms(300)), Step::Wait(t + ms(250 + 900)));
        let mut round = Round::new(2, ms(500));
        round.sent(1, t);
        round.sent(2, t + ms(250));
        round.heard(answered(1, t + ms(300)));
        assert_eq!(round.step(t + ms(300)), Step::Wait(t + ms(250 + 500)));
    }

    #[test]
    fn errors_settle_the_matter_unless_an_answer_comes() {
        let t = Instant::now();
        let mut round = Round::new(2, ms(1000));
        round.sent(1, t);
        round.heard(failed(1));
        assert_eq!(round.step(t + ms(1)), Step::Wait(t + ms(250)));
        round.sent(2, t + ms(250));
        round.heard(failed(2));
        assert_eq!(round.step(t + ms(251)), Step::Done);
        assert_eq!(round.failure(), Some((UNREACHABLE, ROUTER)));
        round.heard(answered(2, t + ms(252)));
        round.heard(failed(2));
        assert_eq!(round.answered(), 1);
    }
}
