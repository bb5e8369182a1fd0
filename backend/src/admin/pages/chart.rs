//! A device's history as SVG. Pure: history in, text out. Shapes only, which
//! stretch to the page's width; the words stand beside them in HTML.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::html::escape;
use crate::store::pages::{Past, class};

/// The width of every drawing in its own units.
const WIDTH: f64 = 1000.0;
/// The height of a plot in its own units.
const HEIGHT: f64 = 100.0;

/// A time during which the verdict was the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The verdict; `none` where nothing is known.
    pub(super) class: &'static str,
    /// Its begin.
    pub(super) from: Timestamp,
    /// Its end.
    pub(super) to: Timestamp,
}

/// The time from `from` to `to` cut where the verdict changes. An observation
/// holds until the next one, at most `holds_s` seconds; the newest one not past
/// `heard`, where the device is not heard of since then.
pub(super) fn segments(
    history: &[Past],
    (from, to): (Timestamp, Timestamp),
    holds_s: i64,
    heard: Option<Timestamp>,
) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut add = |class, start: Timestamp, end: Timestamp| {
        let (start, end) = (start.max(from), end.min(to));
        if start >= end {
            return;
        }
        match segments.last_mut() {
            Some(last) if last.class == class && last.to == start => last.to = end,
            _ => segments.push(Segment {
                class,
                from: start,
                to: end,
            }),
        }
    };
    let mut known_to = from;
    for (i, past) in history.iter().enumerate() {
        let next = history.get(i + 1).map(|next| next.at);
        let end = next
            .or(heard)
            .unwrap_or(to)
            .min(past.at + SignedDuration::from_secs(holds_s))
            .max(past.at);
        add("none", known_to, past.at);
        add(class(Some(&past.verdict)), past.at, end);
        known_to = known_to.max(end);
    }
    add("none", known_to, to);
    segments
}

/// Each verdict's share of the time, largest first, as whole per cents.
pub(super) fn shares(segments: &[Segment]) -> Vec<(&'static str, String)> {
    let mut sums: Vec<(&'static str, i64)> = Vec::new();
    for segment in segments {
        let seconds = segment.to.duration_since(segment.from).as_secs();
        match sums.iter_mut().find(|(class, _)| *class == segment.class) {
            Some((_, sum)) => *sum += seconds,
            None => sums.push((segment.class, seconds)),
        }
    }
    let total: i64 = sums.iter().map(|(_, sum)| sum).sum();
    sums.sort_by_key(|(_, sum)| -sum);
    sums.into_iter()
        .filter(|(_, sum)| *sum > 0)
        .map(|(class, sum)| {
            let tenths = sum * 1000 / total.max(1);
            let text = match tenths {
                0 => "< 0.1 %".to_owned(),
                1..=999 => format!("{}.{} %", tenths / 10, tenths % 10),
                _ => "100 %".to_owned(),
            };
            (class, text)
        })
        .collect()
}

/// The segments side by side. `words` names one, for people who cannot see
/// it and for the pointer.
pub(super) fn timeline(segments: &[Segment], words: impl Fn(&Segment) -> String) -> String {
    let mut svg = "<svg class=\"timeline\" viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" \
                   role=\"img\">"
        .to_owned();
    if let (Some(first), Some(last)) = (segments.first(), segments.last()) {
        for segment in segments {
            let x = place(segment.from, first.from, last.to);
            let width = (place(segment.to, first.from, last.to) - x).max(1.0);
            // Writing to a String cannot fail.
            let _ = write!(
                svg,
                "<rect class=\"{}\" x=\"{x:.1}\" width=\"{width:.1}\" height=\"20\"><title>{}</title></rect>",
                segment.class,
                escape(&words(segment))
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// A value plotted over time.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// The drawing.
    pub(super) svg: String,
    /// The least value of the scale.
    pub(super) min: f64,
    /// The largest value of the scale.
    pub(super) max: f64,
    /// The newest value.
    pub(super) last: f64,
}

/// The values as a line, broken where none came for longer than `holds_s`
/// seconds; `None` where there is no value.
pub(super) fn line(
    values: &[(Timestamp, f64)],
    (from, to): (Timestamp, Timestamp),
    holds_s: i64,
) -> Option<Line> {
    let values: Vec<(Timestamp, f64)> = values
        .iter()
        .copied()
        .filter(|(at, value)| value.is_finite() && *at >= from && *at <= to)
        .collect();
    let &(_, last) = values.last()?;
    let min = values.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min);
    let max = values
        .iter()
        .map(|(_, v)| *v)
        .fold(f64::NEG_INFINITY, f64::max);
    let height = |value: f64| {
        if max > min {
            // A little air above and below.
            HEIGHT - 5.0 - (value - min) / (max - min) * (HEIGHT - 10.0)
        } else {
            HEIGHT / 2.0
        }
    };
    let mut path = String::new();
    let mut before: Option<Timestamp> = None;
    for (at, value) in &values {
        let (x, y) = (place(*at, from, to), height(*value));
        let joined = before.is_some_and(|before| at.duration_since(before).as_secs() <= holds_s);
        // A line of no length makes a single value a dot.
        let _ = if joined {
            write!(path, "L{x:.1} {y:.1}")
        } else {
            write!(path, "M{x:.1} {y:.1}l0 0")
        };
        before = Some(*at);
    }
    Some(Line {
        svg: format!(
            "<svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>"
        ),
        min,
        max,
        last,
    })
}

fn place(at: Timestamp, from: Timestamp, to: Timestamp) -> f64 {
    let whole = to.duration_since(from).as_secs_f64();
    if whole <= 0.0 {
        return 0.0;
    }
    (at.duration_since(from).as_secs_f64() / whole).clamp(0.0, 1.0) * WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &str) -> Timestamp {
        format!("2026-11-24T{clock}:00Z").parse().unwrap()
    }

    fn past(clock: &str, verdict: &str) -> Past {
        Past {
            at: at(clock),
            verdict: verdict.to_owned(),
            detail: String::new(),
            rtt_ms: None,
            lamp_hours: None,
            uptime: None,
        }
    }

    #[track_caller]
    fn check(history: &[Past], heard: Option<&str>, expected: &[(&'static str, &str, &str)]) {
        let segments = segments(history, (at("10:00"), at("20:00")), 2 * 3600, heard.map(at));
        let expected: Vec<Segment> = expected
            .iter()
            .map(|(class, from, to)| Segment {
                class,
                from: at(from),
                to: at(to),
            })
            .collect();
        assert_eq!(segments, expected);
    }

    #[test]
    fn nothing_observed_is_nothing_known() {
        check(&[], None, &[("none", "10:00", "20:00")]);
    }

    #[test]
    fn what_held_before_holds_on_and_equals_are_one() {
        check(
            &[
                past("09:30", "ok"),
                past("10:30", "ok"),
                past("11:30", "fault"),
                past("12:00", "ok"),
                past("13:00", "ok"),
                past("14:00", "ok"),
            ],
            None,
            &[
                ("ok", "10:00", "11:30"),
                ("fault", "11:30", "12:00"),
                ("ok", "12:00", "16:00"),
                ("none", "16:00", "20:00"),
            ],
        );
    }

    #[test]
    fn what_is_not_confirmed_is_not_known() {
        check(
            &[past("11:00", "ok"), past("17:00", "strange")],
            Some("18:30"),
            &[
                ("none", "10:00", "11:00"),
                ("ok", "11:00", "13:00"),
                ("none", "13:00", "17:00"),
                ("unknown", "17:00", "18:30"),
                ("none", "18:30", "20:00"),
            ],
        );
    }

    #[test]
    fn shares_of_the_time() {
        let parts = segments(
            &[
                past("10:00", "ok"),
                past("11:59", "fault"),
                past("12:00", "ok"),
            ],
            (at("10:00"), at("14:00")),
            2 * 3600,
            None,
        );
        assert_eq!(
            shares(&parts),
            [("ok", "99.5 %".to_owned()), ("fault", "0.4 %".to_owned())]
        );
        assert_eq!(shares(&[]), []);
    }

    #[test]
    fn a_line_breaks_where_nothing_came() {
        let values = [
            (at("09:00"), 999.0),
            (at("10:00"), 1.0),
            (at("11:00"), 3.0),
            (at("15:00"), 2.0),
            (at("20:00"), f64::NAN),
        ];
        let line = line(&values, (at("10:00"), at("20:00")), 2 * 3600).unwrap();
        assert_eq!((line.min, line.max, line.last), (1.0, 3.0, 2.0));
        assert!(
            line.svg
                .contains("d=\"M0.0 95.0l0 0L100.0 5.0M500.0 50.0l0 0\""),
            "{}",
            line.svg
        );
        assert_eq!(super::line(&[], (at("10:00"), at("20:00")), 1), None);
    }

    #[test]
    fn a_timeline_is_drawn_to_scale() {
        let parts = segments(
            &[past("10:00", "ok")],
            (at("10:00"), at("20:00")),
            2 * 3600,
            None,
        );
        let svg = timeline(&parts, |segment| format!("<{}>", segment.class));
        assert!(
            svg.contains("<rect class=\"ok\" x=\"0.0\" width=\"200.0\" height=\"20\"><title>&lt;ok&gt;</title></rect>"),
            "{svg}"
        );
    }
}
