//! From what an agent said to metrics, and to what is remarkable of them:
//! pure functions.

use av_proto::driver::{Oid, Reading, ReadingKind, Thresholds};
use av_proto::sort::sort_by;
use av_proto::text::excerpt;
use serde_json::{Map, Number, Value as Json};

use super::pdu::{Value, text};
use super::session::Answers;

/// As long as a `DisplayString` can be (RFC 2579).
const TEXT_MAX: usize = 255;
const LABEL_MAX: usize = 64;

/// The metrics of a probe, and its remarks, the worst first.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub metrics: Map<String, Json>,
    pub remarks: Vec<String>,
}

/// How bad a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Critical,
    Warning,
}

/// Reads every value that was asked for. One that the agent does not have is
/// null; a column without rows is an empty object.
pub(super) fn read(readings: &[Reading], answers: &Answers) -> Read {
    let mut metrics = Map::new();
    let mut remarks = Vec::new();
    for reading in readings {
        if reading.is_column {
            let mut rows = Map::new();
            for (index, value) in answers.columns.get(&reading.oid).into_iter().flatten() {
                let whole = reading
                    .percent_of
                    .as_ref()
                    .map(|column| cell(answers, column, index));
                let shown = Shown::of(reading, value, whole);
                let row = label(reading, answers, index, &rows);
                remarks.extend(shown.remark(reading, Some(&row)));
                rows.insert(row, shown.metric);
            }
            metrics.insert(reading.name.clone(), Json::Object(rows));
        } else {
            let absent = Value::Absent("no answer");
            let value = answers.scalars.get(&reading.oid).unwrap_or(&absent);
            let whole = reading
                .percent_of
                .as_ref()
                .map(|oid| answers.scalars.get(oid));
            let shown = Shown::of(reading, value, whole);
            remarks.extend(shown.remark(reading, None));
            if let (ReadingKind::Enum(_), Some(word)) = (&reading.kind, &shown.word) {
                let name = format!("{}_label", reading.name);
                metrics.insert(name, Json::String(word.clone()));
            }
            metrics.insert(reading.name.clone(), shown.metric);
        }
    }
    sort_by(&mut remarks, |(a, _), (b, _)| a.cmp(b));
    Read {
        metrics,
        remarks: remarks.into_iter().map(|(_, remark)| remark).collect(),
    }
}

fn cell<'a>(answers: &'a Answers, column: &Oid, index: &[u32]) -> Option<&'a Value> {
    answers.columns.get(column)?.get(index)
}

/// A row's name: what the label column says, else its index. Two rows of one
/// name are told apart by their indexes.
fn label(reading: &Reading, answers: &Answers, index: &[u32], taken: &Map<String, Json>) -> String {
    let arcs: Vec<String> = index.iter().map(ToString::to_string).collect();
    let arcs = arcs.join(".");
    let named = reading
        .label
        .as_ref()
        .and_then(|column| cell(answers, column, index))
        .map(|value| excerpt(&value.to_string(), LABEL_MAX))
        .filter(|name| !name.is_empty());
    match named {
        None => arcs,
        Some(name) if taken.contains_key(&name) => format!("{name} ({arcs})"),
        Some(name) => name,
    }
}

/// A value as it is shown and judged.
struct Shown {
    metric: Json,
    /// Where it is a number.
    number: Option<f64>,
    /// Where it is a word, or several.
    word: Option<String>,
}

impl Shown {
    const NOTHING: Self = Self {
        metric: Json::Null,
        number: None,
        word: None,
    };

    /// `whole` is of what the value is a part, and `Some(None)` where that is
    /// not known.
    fn of(reading: &Reading, value: &Value, whole: Option<Option<&Value>>) -> Self {
        match &reading.kind {
            ReadingKind::Gauge { scale } => {
                let part = whole.map(|whole| whole.and_then(number));
                gauge(value, *scale, part).unwrap_or(Self::NOTHING)
            }
            ReadingKind::Counter => match value {
                Value::Unsigned(count) => Self::counted(*count),
                Value::Integer(count) => u64::try_from(*count).map_or(Self::NOTHING, Self::counted),
                _ => Self::NOTHING,
            },
            ReadingKind::Text => match value {
                Value::Absent(_) | Value::Odd => Self::NOTHING,
                value => Self::word(excerpt(&value.to_string(), TEXT_MAX)),
            },
            ReadingKind::Bool => match whole_number(value) {
                Some(number @ 0..=2) => Self {
                    metric: Json::Bool(number == 1),
                    number: None,
                    word: Some((number == 1).to_string()),
                },
                _ => Self::NOTHING,
            },
            ReadingKind::Enum(words) => match whole_number(value) {
                Some(number) => Self {
                    metric: if reading.is_column {
                        Json::String(word_of(words.get(&number), number))
                    } else {
                        Json::from(number)
                    },
                    number: None,
                    word: Some(word_of(words.get(&number), number)),
                },
                None => Self::NOTHING,
            },
            ReadingKind::Bits(words) => match value {
                Value::Octets(bytes) => {
                    let set: Vec<String> = bits(bytes)
                        .map(|bit| word_of(words.get(&bit), bit.into()))
                        .collect();
                    Self::word(excerpt(&set.join(", "), TEXT_MAX))
                }
                _ => Self::NOTHING,
            },
        }
    }

    fn counted(count: u64) -> Self {
        Self {
            metric: Json::from(count),
            #[expect(clippy::cast_precision_loss, reason = "a threshold is no closer")]
            number: Some(count as f64),
            word: None,
        }
    }

    fn word(word: String) -> Self {
        Self {
            metric: Json::String(word.clone()),
            number: None,
            word: Some(word),
        }
    }

    /// What is remarkable of it.
    fn remark(&self, reading: &Reading, row: Option<&str>) -> Option<(Grade, String)> {
        let (grade, problem) = self.problem(&reading.thresholds, &reading.kind)?;
        let unit = match reading.unit.as_str() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let grade_word = match grade {
            Grade::Critical => "critical",
            Grade::Warning => "warning",
        };
        let of_row = row.map_or_else(String::new, |row| format!(" of {row}"));
        let name = &reading.name;
        let remark = match (self.number, &self.word) {
            (Some(number), _) => {
                format!("{grade_word}: {name}{of_row} is {number}{unit}, {problem}{unit}")
            }
            (None, Some(word)) => format!("{grade_word}: {name}{of_row} is {word}{problem}"),
            (None, None) => return None,
        };
        Some((grade, remark))
    }

    fn problem(&self, thresholds: &Thresholds, kind: &ReadingKind) -> Option<(Grade, String)> {
        if let Some(number) = self.number {
            for (grade, limits) in [
                (Grade::Critical, thresholds.crit),
                (Grade::Warning, thresholds.warn),
            ] {
                if let Some(min) = limits.min.filter(|min| number < *min) {
                    return Some((grade, format!("below {min}")));
                }
                if let Some(max) = limits.max.filter(|max| number > *max) {
                    return Some((grade, format!("above {max}")));
                }
            }
            let shown = number.to_string();
            let is_expected =
                thresholds.expected.is_empty() || thresholds.expected.contains(&shown);
            return (!is_expected).then(|| (Grade::Critical, "not as expected".to_owned()));
        }
        let word = self.word.as_ref()?;
        if thresholds.expected.is_empty() {
            return None;
        }
        let is_expected = match kind {
            // Each bit that is set must be one that may be.
            ReadingKind::Bits(_) => word
                .split(", ")
                .all(|word| word.is_empty() || thresholds.expected.iter().any(|it| it == word)),
            _ => thresholds.expected.contains(word),
        };
        (!is_expected).then(|| (Grade::Critical, String::new()))
    }
}

fn word_of(word: Option<&String>, number: i64) -> String {
    word.cloned().unwrap_or_else(|| number.to_string())
}

/// The bits that are set; the first is the highest of the first byte (RFC
/// 3417, 8).
fn bits(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.iter().zip(0_u16..).flat_map(|(byte, place)| {
        (0..8_u16)
            .filter(move |bit| byte & (0x80 >> bit) != 0)
            .map(move |bit| place * 8 + bit)
    })
}

/// `part` is the whole of a percentage, `Some(None)` where it is not known.
fn gauge(value: &Value, scale: f64, part: Option<Option<f64>>) -> Option<Shown> {
    if let (Value::Integer(whole), true, None) = (value, is_one(scale), part) {
        return Some(Shown {
            metric: Json::from(*whole),
            #[expect(clippy::cast_precision_loss, reason = "a threshold is no closer")]
            number: Some(*whole as f64),
            word: None,
        });
    }
    if let (Value::Unsigned(whole), true, None) = (value, is_one(scale), part) {
        return Some(Shown::counted(*whole));
    }
    let number = number(value)?;
    let number = match part {
        None => number * scale,
        // Negative numbers stand for "unknown" and the like (RFC 3805).
        Some(whole) => {
            let whole = whole.filter(|whole| *whole > 0.0)?;
            (number >= 0.0).then(|| 100.0 * number / whole)?
        }
    };
    // Tenths that are not exact in binary would be shown with 17 digits.
    let number = (number * 1e6).round() / 1e6;
    Some(Shown {
        metric: Json::Number(Number::from_f64(number)?),
        number: Some(number),
        word: None,
    })
}

fn is_one(scale: f64) -> bool {
    (scale - 1.0).abs() < f64::EPSILON
}

/// A number, also one that is written as a text: some agents have no other
/// way to a fraction.
fn number(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "measures are small")]
        Value::Integer(number) => Some(*number as f64),
        #[expect(clippy::cast_precision_loss, reason = "measures are small")]
        Value::Unsigned(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Octets(bytes) => text(bytes).trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Unsigned(number) => i64::try_from(*number).ok(),
        Value::Octets(bytes) => text(bytes).trim().parse().ok(),
        _ => None,
    }
}
