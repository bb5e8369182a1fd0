//! When a device is expected to be on.
//!
//! A rule names weekdays and two times on the wall clock of the schedule's
//! zone. One whose end is not after its start runs over midnight and belongs
//! to the day on which it starts; equal times make a whole day.
//!
//! A rule is laid on each day as an interval between two instants, so that it
//! is one piece even where the clock is changed. A wall time that the change
//! skips or repeats is resolved as calendars do (RFC 5545, 3.3.5): the first
//! of two, or the skipped time at the offset before the change.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Deserialize;

use crate::FieldError;

pub use crate::zones::zone;

/// Weekly rules in one time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The zone whose wall clock the rules speak of.
    pub zone: TimeZone,
    /// The device is expected to be on inside any of these.
    pub rules: Vec<Rule>,
}

/// One weekly rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The days on which it starts.
    pub days: Vec<Weekday>,
    /// First moment inside.
    pub start: Time,
    /// First moment outside; on the next day where it is not after `start`.
    pub end: Time,
}

impl Schedule {
    /// Whether `now` lies inside a rule.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        // A rule covers at most a day, so only yesterday's can still run.
        // A change of the clock can hold yesterday's end past midnight too.
        let yesterday = today.yesterday().ok();
        self.rules.iter().any(|rule| {
            [Some(today), yesterday]
                .into_iter()
                .flatten()
                .any(|day| rule.covers(day, &self.zone, now))
        })
    }
}

impl Rule {
    /// Whether the rule starts on `day` and runs at `now`.
    fn covers(&self, day: Date, zone: &TimeZone, now: Timestamp) -> bool {
        if !self.days.contains(&day.weekday()) {
            return false;
        }
        let end_day = if self.end > self.start {
            Some(day)
        } else {
            day.checked_add(Span::new().days(1)).ok()
        };
        let instant = |day: Date, time: Time| {
            day.to_datetime(time)
                .to_zoned_datetime(zone.clone())
                .map(|zoned| zoned.timestamp())
                .ok()
        };
        match (
            instant(day, self.start),
            end_day.and_then(|day| instant(day, self.end)),
        ) {
            (Some(start), Some(end)) => start <= now && now < end,
            _ => false, // outside the years that a calendar has
        }
    }
}

/// A rule as it stands in `expectations.schedule.rules`.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleDocument {
    days: Vec<String>,
    start: String,
    end: String,
}

impl RuleDocument {
    /// The valid rule, or each field that is not.
    pub(crate) fn validate(&self) -> Result<Rule, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut days = Vec::new();
        if self.days.is_empty() {
            errors.push(FieldError::new("days", "is empty"));
        }
        for (i, name) in self.days.iter().enumerate() {
            match weekday(name) {
                Some(day) => days.push(day),
                None => errors.push(FieldError::new(
                    format!("days[{i}]"),
                    format!("{name:?} is not one of mon, tue, wed, thu, fri, sat, sun"),
                )),
            }
        }
        let mut time = |field: &str, text: &str| {
            wall_time(text).unwrap_or_else(|| {
                errors.push(FieldError::new(
                    field,
                    format!("{text:?} is not a time such as 08:00"),
                ));
                Time::midnight()
            })
        };
        let start = time("start", &self.start);
        // "24:00" is midnight at the end of the day, which an end at 00:00
        // means already.
        let end = if self.end == "24:00" {
            Time::midnight()
        } else {
            time("end", &self.end)
        };
        if errors.is_empty() {
            Ok(Rule { days, start, end })
        } else {
            Err(errors)
        }
    }
}

fn weekday(name: &str) -> Option<Weekday> {
    Some(match name.to_ascii_lowercase().as_str() {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        _ => return None,
    })
}

/// `H:MM`, `HH:MM` or `HH:MM:SS`.
fn wall_time(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let mut part = |widths: &[usize]| -> Option<i8> {
        let part = parts.next()?;
        let digits = widths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let hour = part(&[1, 2])?;
    let minute = part(&[2])?;
    let second = if text.matches(':').count() == 2 {
        part(&[2])?
    } else {
        0
    };
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(days: &[&str], start: &str, end: &str) -> Rule {
        RuleDocument {
            days: days.iter().map(|&day| day.to_owned()).collect(),
            start: start.to_owned(),
            end: end.to_owned(),
        }
        .validate()
        .unwrap()
    }

    #[track_caller]
    fn check(zone_name: &str, rule: &Rule, cases: &[(&str, bool)]) {
        let schedule = Schedule {
            zone: zone(zone_name).unwrap(),
            rules: vec![rule.clone()],
        };
        for (at, inside) in cases {
            let now: Timestamp = at.parse().unwrap();
            assert_eq!(schedule.contains(now), *inside, "{at} in {rule:?}");
        }
    }

    const WORKDAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri"];

    #[test]
    fn a_days_rule_starts_inside_and_ends_outside() {
        // 2026-11-24 is a Tuesday.
        check(
            "Europe/Paris",
            &rule(WORKDAYS, "08:00", "18:00"),
            &[
                ("2026-11-24T07:59:59+01:00", false),
                ("2026-11-24T08:00:00+01:00", true),
                ("2026-11-24T17:59:59.999+01:00", true),
                ("2026-11-24T18:00:00+01:00", false),
                ("2026-11-28T12:00:00+01:00", false), // Saturday
            ],
        );
    }

    #[test]
    fn the_rule_speaks_of_its_own_zones_clock() {
        let nine_to_ten = rule(&["tue"], "09:00", "10:00");
        check(
            "Asia/Tokyo",
            &nine_to_ten,
            &[("2026-11-24T00:30:00Z", true)],
        );
        check(
            "America/New_York",
            &nine_to_ten,
            &[("2026-11-24T14:30:00Z", true)],
        );
        check("UTC", &nine_to_ten, &[("2026-11-24T14:30:00Z", false)]);
    }

    #[test]
    fn over_midnight_belongs_to_the_day_on_which_it_starts() {
        check(
            "Europe/Paris",
            &rule(&["fri"], "22:00", "02:00"),
            &[
                ("2026-11-27T01:00:00+01:00", false), // Friday, before it starts
                ("2026-11-27T22:00:00+01:00", true),
                ("2026-11-28T01:59:59+01:00", true), // Saturday, still Friday's
                ("2026-11-28T02:00:00+01:00", false),
                ("2026-11-28T22:30:00+01:00", false),
            ],
        );
    }

    #[test]
    fn sunday_night_runs_into_monday() {
        check(
            "UTC",
            &rule(&["sun"], "23:00", "01:00"),
            &[
                ("2026-11-30T00:30:00Z", true),
                ("2026-11-29T00:30:00Z", false),
            ],
        );
    }

    #[test]
    fn equal_times_make_a_whole_day_and_24_00_ends_one() {
        let cases = [
            ("2026-11-23T23:59:59Z", false),
            ("2026-11-24T00:00:00Z", true),
            ("2026-11-24T23:59:59Z", true),
            ("2026-11-25T00:00:00Z", false),
        ];
        check("UTC", &rule(&["tue"], "00:00", "00:00"), &cases);
        check("UTC", &rule(&["tue"], "00:00", "24:00"), &cases);
        check(
            "UTC",
            &rule(&["tue"], "08:00", "08:00"),
            &[
                ("2026-11-24T07:59:00Z", false),
                ("2026-11-25T07:59:00Z", true),
                ("2026-11-25T08:00:00Z", false),
            ],
        );
    }

    #[test]
    fn in_spring_the_skipped_hour_shortens_a_rule_over_it() {
        // Europe/Paris, Sunday 2026-03-29: 02:00 CET becomes 03:00 CEST.
        check(
            "Europe/Paris",
            &rule(&["sun"], "01:00", "04:00"),
            &[
                ("2026-03-28T23:59:59Z", false),
                ("2026-03-29T00:00:00Z", true), // 01:00 CET
                ("2026-03-29T01:00:00Z", true), // 03:00 CEST
                ("2026-03-29T01:59:59Z", true),
                ("2026-03-29T02:00:00Z", false), // 04:00 CEST, two hours later
            ],
        );
        // A start that does not exist is taken at the offset before the change.
        check(
            "Europe/Paris",
            &rule(&["sun"], "02:30", "05:00"),
            &[
                ("2026-03-29T01:29:59Z", false),
                ("2026-03-29T01:30:00Z", true), // 03:30 CEST
                ("2026-03-29T02:59:59Z", true),
                ("2026-03-29T03:00:00Z", false),
            ],
        );
    }

    #[test]
    fn in_autumn_the_repeated_hour_lengthens_a_rule_over_it() {
        // Europe/Paris, Sunday 2026-10-25: 03:00 CEST becomes 02:00 CET.
        check(
            "Europe/Paris",
            &rule(&["sun"], "01:00", "04:00"),
            &[
                ("2026-10-24T23:00:00Z", true), // 01:00 CEST
                ("2026-10-25T00:30:00Z", true), // 02:30 CEST
                ("2026-10-25T01:30:00Z", true), // 02:30 CET
                ("2026-10-25T02:59:59Z", true),
                ("2026-10-25T03:00:00Z", false), // 04:00 CET, four hours later
            ],
        );
        // A time that comes twice is the first of the two: one piece, no
        // second start.
        check(
            "Europe/Paris",
            &rule(&["sun"], "02:15", "02:45"),
            &[
                ("2026-10-25T00:15:00Z", true),
                ("2026-10-25T00:45:00Z", false),
                ("2026-10-25T01:30:00Z", false),
            ],
        );
    }

    #[test]
    fn over_midnight_and_over_the_change() {
        check(
            "Europe/Paris",
            &rule(&["sat"], "22:00", "06:00"),
            &[
                ("2026-03-28T21:00:00Z", true),  // 22:00 CET
                ("2026-03-29T03:59:59Z", true),  // 05:59:59 CEST
                ("2026-03-29T04:00:00Z", false), // 06:00 CEST: seven hours
                ("2026-10-24T20:00:00Z", true),  // 22:00 CEST
                ("2026-10-25T04:59:59Z", true),  // 05:59:59 CET
                ("2026-10-25T05:00:00Z", false), // nine hours
            ],
        );
    }

    #[test]
    fn a_zone_that_changes_at_midnight() {
        // America/Santiago, Sunday 2026-09-06: 00:00 becomes 01:00, so the
        // day has no midnight.
        check(
            "America/Santiago",
            &rule(&["sun"], "00:00", "00:00"),
            &[
                ("2026-09-06T03:59:59Z", false),
                ("2026-09-06T04:00:00Z", true),
                ("2026-09-07T02:59:59Z", true),
                ("2026-09-07T03:00:00Z", false),
            ],
        );
    }

    #[test]
    fn bad_rules_name_their_fields() {
        let errors = RuleDocument {
            days: vec!["mon".into(), "lundi".into()],
            start: "8h".into(),
            end: "25:00".into(),
        }
        .validate()
        .unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "days[1]: \"lundi\" is not one of mon, tue, wed, thu, fri, sat, sun",
                "start: \"8h\" is not a time such as 08:00",
                "end: \"25:00\" is not a time such as 08:00",
            ]
        );
        let empty = RuleDocument {
            days: vec![],
            start: "8:00".into(),
            end: "18:00:30".into(),
        };
        assert_eq!(
            empty.validate().unwrap_err()[0].to_string(),
            "days: is empty"
        );
        for bad in [
            "",
            ":",
            "08",
            "8:0",
            "+8:00",
            "08:00:",
            "08:00:00:00",
            "24:00",
        ] {
            assert_eq!(wall_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_zones_are_told() {
        for bad in ["", "Paris", "Europe/Pariss", "CET-1CEST"] {
            assert!(zone(bad).is_none(), "{bad}");
        }
        assert!(zone("Europe/Paris").is_some());
    }
}
