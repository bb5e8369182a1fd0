//! What an observation means (`contract.md`, "Verdict").

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// Whether a device answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It answered; a projector in standby that answers is online.
    Online,
    /// It did not answer.
    Offline,
    /// Nobody can tell: the probe itself could not run.
    Unknown,
}

/// What that means at that hour, for that device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Off while it is expected to be on: somebody should look.
    Fault,
    /// Off, and nobody expects it to be on.
    ExpectedOff,
    /// Not seen for so long that its configuration is in doubt.
    Doubt,
    /// Too early to say, or not known.
    Unknown,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        }
    }
}

impl Verdict {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fault => "fault",
            Self::ExpectedOff => "expected_off",
            Self::Doubt => "doubt",
            Self::Unknown => "unknown",
        }
    }
}

/// What is expected of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectations {
    /// It should answer at every hour.
    pub always_on: bool,
    /// How long it may be offline before anybody is told, in seconds.
    pub alert_after_s: u32,
    /// When it should answer; `None` where nothing was said.
    pub schedule: Option<Schedule>,
}

/// The least that `alert_after_s` can be, in seconds.
pub const ALERT_AFTER_MIN_S: u32 = 15;
/// `alert_after_s` where nothing was said, in seconds.
pub const ALERT_AFTER_DEFAULT_S: u32 = 300;

impl Default for Expectations {
    fn default() -> Self {
        Self {
            always_on: false,
            alert_after_s: ALERT_AFTER_DEFAULT_S,
            schedule: None,
        }
    }
}

/// One observation with what is remembered of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// What the probe found.
    pub status: Status,
    /// When it found it.
    pub now: Timestamp,
    /// Whether `now` is known to be right: the differences between the three
    /// times are, also where the clock is not. A schedule cannot be asked by a
    /// clock that is not.
    pub clock_is_true: bool,
    /// When the device was last found online, this observation included.
    pub last_ok: Option<Timestamp>,
    /// When the present run of offline observations began.
    pub offline_since: Option<Timestamp>,
}

/// The verdict on one observation, by the contract's rules in their order.
///
/// `doubt_after_days` of 0 turns the first rule off. A clock that went back
/// makes no age negative: it counts as zero.
#[must_use]
pub fn verdict(
    situation: &Situation,
    expectations: &Expectations,
    doubt_after_days: u32,
) -> Verdict {
    let age = |since: Timestamp| {
        situation
            .now
            .duration_since(since)
            .max(SignedDuration::ZERO)
    };

    let doubt_after = SignedDuration::from_hours(24 * i64::from(doubt_after_days));
    if doubt_after_days > 0 && situation.last_ok.is_some_and(|at| age(at) >= doubt_after) {
        return Verdict::Doubt;
    }
    match situation.status {
        Status::Online => Verdict::Ok,
        Status::Unknown => Verdict::Unknown,
        Status::Offline => {
            let alert_after = expectations.alert_after_s.max(ALERT_AFTER_MIN_S);
            let offline_for = situation.offline_since.map_or(SignedDuration::ZERO, age);
            if offline_for < SignedDuration::from_secs(i64::from(alert_after)) {
                Verdict::Unknown
            } else if expectations.always_on {
                Verdict::Fault
            } else if expectations.schedule.is_some() && !situation.clock_is_true {
                Verdict::Unknown
            } else if expected_on(expectations, situation.now) {
                Verdict::Fault
            } else {
                Verdict::ExpectedOff
            }
        }
    }
}

fn expected_on(expectations: &Expectations, now: Timestamp) -> bool {
    expectations
        .schedule
        .as_ref()
        .is_some_and(|schedule| schedule.contains(now))
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Weekday, time};
    use jiff::tz::TimeZone;

    use super::*;
    use crate::schedule::Rule;

    const NOW: &str = "2026-11-24T10:00:00Z"; // a Tuesday

    fn expectations(always_on: bool, alert_after_s: u32, start: Option<i8>) -> Expectations {
        Expectations {
            always_on,
            alert_after_s,
            schedule: start.map(|hour| Schedule {
                zone: TimeZone::UTC,
                rules: vec![Rule {
                    days: vec![Weekday::Tuesday],
                    start: time(hour, 0, 0, 0),
                    end: time(hour + 2, 0, 0, 0),
                }],
            }),
        }
    }

    #[test]
    fn the_rules_in_their_order() {
        use Status::{Offline, Online, Unknown as NotKnown};
        use Verdict::{Doubt, ExpectedOff, Fault, Ok, Unknown};
        let always = expectations(true, 300, None);
        let inside = expectations(false, 300, Some(9));
        let outside = expectations(false, 300, Some(14));
        let nothing = expectations(false, 300, None);
        let hasty = expectations(true, 0, None);
        const DAY: i64 = 86_400;

        // status, last ok and offline since (seconds ago), expectations, days, verdict
        for (i, (status, last_ok, offline_since, expectations, days, expected)) in [
            (Online, Some(0), None, &nothing, 2, Ok),
            (Online, Some(0), None, &always, 2, Ok),
            // 1: doubt comes first, at the age itself, and 0 turns it off
            (Offline, Some(2 * DAY), Some(DAY), &always, 2, Doubt),
            (Offline, Some(2 * DAY - 1), Some(DAY), &always, 2, Fault),
            (Offline, Some(400 * DAY), Some(DAY), &always, 0, Fault),
            (NotKnown, Some(3 * DAY), None, &nothing, 2, Doubt),
            // never seen online: no doubt, whatever the age
            (Offline, None, Some(9 * DAY), &always, 2, Fault),
            // 3: the first alert_after_s seconds, at least 15
            (Offline, Some(400), Some(0), &always, 2, Unknown),
            (Offline, Some(400), Some(299), &always, 2, Unknown),
            (Offline, Some(400), Some(300), &always, 2, Fault),
            (Offline, Some(400), Some(14), &hasty, 2, Unknown),
            (Offline, Some(400), Some(15), &hasty, 2, Fault),
            (Offline, None, None, &always, 2, Unknown),
            // 5 and 6: the schedule decides
            (Offline, Some(400), Some(300), &inside, 2, Fault),
            (Offline, Some(400), Some(300), &outside, 2, ExpectedOff),
            (Offline, Some(400), Some(299), &outside, 2, Unknown),
            // no schedule and not always on: never a fault
            (Offline, Some(400), Some(DAY), &nothing, 2, ExpectedOff),
            // 7: anything else
            (NotKnown, Some(0), None, &always, 2, Unknown),
            (NotKnown, None, Some(DAY), &always, 2, Unknown),
            // a clock that went back makes neither doubt nor fault
            (Offline, Some(-5 * DAY), Some(-DAY), &always, 2, Unknown),
        ]
        .into_iter()
        .enumerate()
        {
            let now: Timestamp = NOW.parse().unwrap();
            let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
            let situation = Situation {
                status,
                now,
                clock_is_true: true,
                last_ok: last_ok.map(ago),
                offline_since: offline_since.map(ago),
            };
            assert_eq!(verdict(&situation, expectations, days), expected, "row {i}");
        }
    }

    #[test]
    fn a_schedule_is_not_asked_by_a_clock_that_is_not_set() {
        for (expectations, expected) in [
            (expectations(true, 300, None), Verdict::Fault),
            (expectations(false, 300, Some(9)), Verdict::Unknown),
            (expectations(false, 300, Some(14)), Verdict::Unknown),
            (expectations(false, 300, None), Verdict::ExpectedOff),
        ] {
            let now: Timestamp = NOW.parse().unwrap();
            let situation = Situation {
                status: Status::Offline,
                now,
                clock_is_true: false,
                last_ok: None,
                offline_since: Some(now - SignedDuration::from_secs(400)),
            };
            assert_eq!(verdict(&situation, &expectations, 2), expected);
        }
    }

    #[test]
    fn words_on_the_wire() {
        for verdict in [
            Verdict::Ok,
            Verdict::Fault,
            Verdict::ExpectedOff,
            Verdict::Doubt,
            Verdict::Unknown,
        ] {
            let json = format!("\"{}\"", verdict.as_str());
            assert_eq!(serde_json::to_string(&verdict).unwrap(), json);
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
        }
        for status in [Status::Online, Status::Offline, Status::Unknown] {
            let json = format!("\"{}\"", status.as_str());
            assert_eq!(serde_json::to_string(&status).unwrap(), json);
            assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
        }
    }
}
