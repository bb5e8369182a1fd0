//! How far one probe has come: when to send, when to stop, what was found.
//! Pure: time comes in as an [`Instant`].

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::exchange::Event;

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
    Failed { from: IpAddr, reason: &'static str },
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

    /// The receiver heard something of one of the echoes.
    pub(super) fn heard(&mut self, event: Event) {
        let sequence = match event {
            Event::Answered { sequence, .. } | Event::Failed { sequence, .. } => sequence,
        };
        let Some(echo) = self.sent.iter_mut().find(|echo| echo.sequence == sequence) else {
            return;
        };
        match (event, echo.outcome) {
            (_, Some(Outcome::Answered(_))) => {}
            // An answer outweighs an error, whichever came first.
            (Event::Answered { at, .. }, _) => {
                echo.outcome = Some(Outcome::Answered(at.saturating_duration_since(echo.at)));
            }
            (Event::Failed { from, reason, .. }, None) => {
                echo.outcome = Some(Outcome::Failed { from, reason });
            }
            (Event::Failed { .. }, Some(_)) => {}
        }
    }

    /// Echoes that left.
    pub(super) fn attempts(&self) -> usize {
        self.sent.len()
    }

    /// Echoes that were answered.
    pub(super) fn answered(&self) -> usize {
        self.round_trips().count()
    }

    /// The mean round trip, in milliseconds to the microsecond.
    pub(super) fn average_ms(&self) -> Option<f64> {
        let (sum, count) = self
            .round_trips()
            .fold((Duration::ZERO, 0_u32), |(sum, count), rtt| {
                (sum + rtt, count + 1)
            });
        let mean = sum.checked_div(count)?;
        Some((mean.as_secs_f64() * 1e6).round() / 1e3)
    }

    /// The first ICMP error, and who sent it.
    pub(super) fn failure(&self) -> Option<(&'static str, IpAddr)> {
        self.sent.iter().find_map(|echo| match echo.outcome {
            Some(Outcome::Failed { from, reason }) => Some((reason, from)),
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

    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answered(sequence: u16, at: Instant) -> Event {
        Event::Answered { sequence, at }
    }

    fn failed(sequence: u16) -> Event {
        Event::Failed {
            sequence,
            from: ROUTER,
            reason: "destination host unreachable",
        }
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
        assert_eq!(round.average_ms(), None);
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
        round.heard(answered(0, t + ms(19)));
        round.heard(answered(0, t + ms(20)));
        round.sent(1, t + ms(30));
        // One is missing: not the whole time-out is spent on it.
        assert_eq!(round.step(t + ms(30)), Step::Wait(t + ms(230)));
        assert_eq!(round.average_ms(), Some(3.0));
        round.heard(answered(1, t + ms(30) + Duration::from_micros(1234)));
        assert_eq!(round.step(t + ms(32)), Step::Done);
        assert_eq!(round.average_ms(), Some(2.411));
        // Nothing is known of an echo that was never sent.
        round.heard(answered(9, t + ms(40)));
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
        assert_eq!(
            round.failure(),
            Some(("destination host unreachable", ROUTER))
        );
        round.heard(answered(2, t + ms(252)));
        round.heard(failed(2));
        assert_eq!(round.answered(), 1);
    }
}
