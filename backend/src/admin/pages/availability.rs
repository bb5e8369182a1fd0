//! How much of the time in which something was expected it was well, by the
//! finished day: of a site, and a piece of a device's page.

use std::collections::HashMap;
use std::fmt::Write as _;

use askama::Template;
use jiff::civil::Date;

use super::html::{Frame, escape, key, span};
use super::i18n::Lang;
use super::{Admin, Call, Problem, frame, one_site, place, show};
use crate::answer::Answer;
use crate::store::history::{Availability, DeviceDay};
use crate::store::pages::SitePage;

/// How many days are the longest period.
pub(super) const YEAR: i64 = 365;
/// How many days a device's strip shows at most.
const STRIP_DAYS: i32 = 60;

/// Days side by side, and one by one.
pub(super) struct Days {
    /// The strip: SVG.
    pub(super) strip: String,
    /// The newest first.
    pub(super) rows: Vec<Row>,
    /// Periods with their percentages.
    pub(super) periods: Vec<(&'static str, String)>,
    /// The first day of the strip.
    pub(super) first: String,
    /// The last day of the strip.
    pub(super) last: String,
}

/// A day, or a device.
pub(super) struct Row {
    /// The device's id; 0 for a day.
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) place: String,
    pub(super) class: &'static str,
    pub(super) share: String,
    pub(super) fault: String,
    pub(super) unknown: String,
}

/// The class of a share: as it should be, nearly, or not; `none` where there
/// is nothing to say.
fn class(share: Option<i64>) -> &'static str {
    match share {
        None => "none",
        Some(9950..) => "ok",
        Some(9500..) => "doubt",
        Some(_) => "fault",
    }
}

/// `99.87 %`, in the language's way; words where nothing was expected.
fn words(lang: Lang, share: Option<i64>) -> String {
    let Some(share) = share else {
        return lang.t("availability.nothing").to_owned();
    };
    let text = match (share / 100, share % 100) {
        (whole, 0) => format!("{whole} %"),
        (whole, part) => format!("{whole}.{part:02} %"),
    };
    super::device::decimal(lang, text)
}

fn row(lang: Lang, id: i64, name: String, place: String, sum: &Availability) -> Row {
    let share = sum.basis_points();
    let length = |seconds: i64| {
        if seconds == 0 {
            "–".to_owned()
        } else {
            span(lang, seconds)
        }
    };
    Row {
        id,
        name,
        place,
        class: class(share),
        share: words(lang, share),
        fault: length(sum.fault_s),
        unknown: length(sum.unknown_s + sum.doubt_s),
    }
}

/// The days as a strip, with their rows; `None` where there is no day.
fn days(lang: Lang, known: &[(String, Availability)], most: i32) -> Option<Days> {
    let by_day: HashMap<Date, &Availability> = known
        .iter()
        .filter_map(|(day, sum)| Some((day.parse().ok()?, sum)))
        .collect();
    let last = *by_day.keys().max()?;
    let begin = last.checked_sub(jiff::Span::new().days(most - 1)).ok()?;
    let first = (*by_day.keys().min()?).max(begin);
    let mut cells = Vec::new();
    let mut rows = Vec::new();
    let mut day = first;
    while day <= last {
        let share = by_day.get(&day).and_then(|sum| sum.basis_points());
        cells.push((class(share), format!("{day}: {}", words(lang, share))));
        if let Some(sum) = by_day.get(&day) {
            rows.push(row(lang, 0, day.to_string(), String::new(), sum));
        }
        day = day.tomorrow().ok()?;
    }
    rows.reverse();
    Some(Days {
        strip: strip(lang, &cells),
        rows,
        periods: Vec::new(),
        first: first.to_string(),
        last: last.to_string(),
    })
}

/// One box a day. The table beside it says the same in words.
fn strip(lang: Lang, cells: &[(&'static str, String)]) -> String {
    let mut svg = format!(
        "<svg class=\"days\" viewBox=\"0 0 {} 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        cells.len() * 10,
        escape(lang.t("availability")),
    );
    for (i, (class, words)) in cells.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{}\" width=\"9\" height=\"10\"><title>{}</title></rect>",
            i * 10,
            escape(words)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn total<'a>(sums: impl Iterator<Item = &'a Availability>) -> Availability {
    let mut total = Availability::default();
    for sum in sums {
        total.add(*sum);
    }
    total
}

/// A device's days, oldest first, for its own page.
pub(super) fn of_device(lang: Lang, known: &[DeviceDay]) -> Option<Days> {
    let sums: Vec<(String, Availability)> = known
        .iter()
        .map(|day| (day.day.clone(), day.into()))
        .collect();
    let mut days = days(lang, &sums, STRIP_DAYS)?;
    days.periods = [(7, "period.7"), (30, "period.30"), (365, "period.365")]
        .into_iter()
        .map(|(length, name)| {
            let from = sums.len().saturating_sub(length);
            let newest = sums.get(from..).unwrap_or_default();
            let share = total(newest.iter().map(|(_, sum)| sum)).basis_points();
            (lang.t(name), words(lang, share))
        })
        .collect();
    Some(days)
}

struct Period {
    days: i32,
    words: &'static str,
    here: bool,
}

#[derive(Template)]
#[template(path = "availability.html")]
struct Page {
    f: Frame,
    site: SitePage,
    periods: Vec<Period>,
    share: String,
    days: Option<Days>,
    devices: Vec<Row>,
}

/// `GET /sites/{id}/availability?days=`.
pub(super) fn page(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let lang = f.lang;
    let site = one_site(admin, id)?;
    let length = match call.query.get("days") {
        Some("7") => 7,
        Some("90") => 90,
        Some("365") => 365,
        _ => 30,
    };
    let known = admin.store.site_days(id, length)?;
    let sums: HashMap<i64, Availability> = admin
        .store
        .devices_availability(id, length)?
        .into_iter()
        .collect();
    let mut devices: Vec<_> = admin
        .store
        .device_pages(id)?
        .into_iter()
        .filter_map(|device| {
            let sum = sums.get(&device.id)?;
            Some((sum.basis_points().unwrap_or(i64::MAX), sum, device))
        })
        .collect();
    // The worst first.
    devices.sort_by_cached_key(|(share, sum, device)| {
        (*share, -sum.unknown_s, key(&device.name), device.id)
    });
    let devices = devices
        .into_iter()
        .map(|(_, sum, device)| {
            let place = place(&device.building, &device.floor, &device.room);
            row(lang, device.id, device.name, place, sum)
        })
        .collect();
    let periods = [
        (7, "period.7"),
        (30, "period.30"),
        (90, "period.90"),
        (365, "period.365"),
    ]
    .into_iter()
    .map(|(days, name)| Period {
        days,
        words: lang.t(name),
        here: days == length,
    })
    .collect();
    Ok(show(
        200,
        &Page {
            site,
            periods,
            share: words(lang, total(known.iter().map(|(_, sum)| sum)).basis_points()),
            days: days(lang, &known, length),
            devices,
            f,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: &str, ok_s: i64, fault_s: i64) -> (String, Availability) {
        let sum = Availability {
            ok_s,
            fault_s,
            ..Availability::default()
        };
        (day.to_owned(), sum)
    }

    #[test]
    fn shares_have_classes_and_words() {
        for (share, expected, en, fr) in [
            (Some(10_000), "ok", "100 %", "100 %"),
            (Some(9999), "ok", "99.99 %", "99,99 %"),
            (Some(9501), "doubt", "95.01 %", "95,01 %"),
            (Some(0), "fault", "0 %", "0 %"),
            (None, "none", "nothing expected", "rien d'attendu"),
        ] {
            assert_eq!(class(share), expected);
            assert_eq!(words(Lang::En, share), en);
            assert_eq!(words(Lang::Fr, share), fr);
        }
    }

    #[test]
    fn a_day_that_is_missing_leaves_a_gap() {
        let known = [
            day("2026-02-27", 100, 0),
            day("2026-03-01", 0, 100),
            day("2025-01-01", 100, 0),
        ];
        let shown = days(Lang::En, &known, 60).unwrap();
        assert_eq!(shown.strip.matches("<rect").count(), 60);
        assert!(shown.strip.contains("2026-02-28: nothing expected"));
        let rows: Vec<(&str, &str)> = shown
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.class))
            .collect();
        assert_eq!(rows, [("2026-03-01", "fault"), ("2026-02-27", "ok")]);
        assert!(days(Lang::En, &[], 60).is_none());
    }
}
