//! Times as a technician reads them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment on the site's wall clock: `2026-11-24 08:05:09`.
pub(crate) fn local(at: Timestamp, zone: &TimeZone) -> String {
    // Not by `strftime`, whose many formats are 15 kB of the program.
    let there = at.to_zoned_datetime(zone.clone());
    let (hour, minute, second) = (there.hour(), there.minute(), there.second());
    format!("{} {hour:02}:{minute:02}:{second:02}", there.date())
}

/// How long ago, or until when, in one unit: `12 s`, `3 min`, `2 h`, `4 d`.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().abs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A moment with its distance from `now`: `08:05:09 (3 min ago)`, and with the
/// date where it is not today's.
pub(crate) fn with_age(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let distance = now.duration_since(at);
    let words = if distance >= SignedDuration::ZERO {
        format!("{} ago", span(distance))
    } else {
        format!("in {}", span(distance))
    };
    let today = |at: Timestamp| at.to_zoned_datetime(zone.clone()).date();
    let moment = local(at, zone);
    let shown = match moment.split_once(' ') {
        Some((_, time)) if today(at) == today(now) => time,
        _ => &moment,
    };
    format!("{shown} ({words})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (-30, "30 s"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn moments_are_on_the_sites_clock() {
        let zone = av_proto::schedule::zone("Europe/Paris").unwrap();
        let at: Timestamp = "2026-11-24T07:05:09Z".parse().unwrap();
        let now = at + SignedDuration::from_mins(3);
        assert_eq!(with_age(at, now, &zone), "08:05:09 (3 min ago)");
        assert_eq!(with_age(now, at, &zone), "08:08:09 (in 3 min)");
        let yesterday = at - SignedDuration::from_hours(24);
        assert_eq!(
            with_age(yesterday, at, &zone),
            "2026-11-23 08:05:09 (24 h ago)"
        );
    }
}
