//! `driver_config.snmp.oids`: what a device is asked for, and what is
//! expected of the answers.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::Oid;
use crate::FieldError;

/// Each costs room in a request, and a place in every report.
const READINGS_MAX: usize = 64;
const NAME_MAX: usize = 64;
const UNIT_MAX: usize = 16;
const VALUES_MAX: usize = 128;
/// What the driver itself reports (the contract, "Metrics by driver").
const RESERVED: [&str; 3] = ["ts", "sys_descr", "sys_uptime"];

/// One value, or one column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its name among the metrics.
    pub name: String,
    /// The variable; of a column all rows are asked for.
    pub oid: Oid,
    /// Whether `oid` is a column. Its metric is an object of rows.
    pub is_column: bool,
    /// How the value is understood.
    pub kind: ReadingKind,
    /// For a person: `%`, `°C`. `""` where there is none.
    pub unit: String,
    /// A column of the same table that names the rows; the rows' indexes do
    /// where there is none.
    pub label: Option<Oid>,
    /// Of what the value is a part: the metric is the percentage. A column
    /// where `oid` is one.
    pub percent_of: Option<Oid>,
    /// What is remarkable.
    pub thresholds: Thresholds,
}

/// How a value is understood.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadingKind {
    /// A number that rises and falls, times `scale`.
    Gauge {
        /// 0.1 for tenths.
        scale: f64,
    },
    /// A number that only rises, until it starts again.
    Counter,
    /// Text; bytes that are none are shown in hexadecimal.
    Text,
    /// A `TruthValue` (RFC 2579): 1 is true; 0 and 2 are false.
    Bool,
    /// A number that stands for a word.
    Enum(BTreeMap<i64, String>),
    /// A string of bits (RFC 3417, 8), each of which stands for a word where it
    /// is set; the first is bit 0.
    Bits(BTreeMap<u16, String>),
}

/// What a value must not pass. Crossing one is told in a device's `detail` and
/// changes no verdict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thresholds {
    /// Past these somebody should look when there is time.
    pub warn: Limits,
    /// Past these somebody should look at once.
    pub crit: Limits,
    /// The words that are as they should be, as the metric shows them; any
    /// where this is empty. For [`ReadingKind::Bits`]: bits that may be set,
    /// and the empty word where none has to be.
    pub expected: Vec<String>,
}

impl Thresholds {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The range in which a number should be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// The least, in the metric's own unit.
    pub min: Option<f64>,
    /// The most.
    pub max: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct Document {
    oid: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    scale: Option<f64>,
    unit: Option<String>,
    values: Option<BTreeMap<String, String>>,
    label_oid: Option<String>,
    percent_of: Option<String>,
    thresholds: Option<ThresholdsDocument>,
}

#[derive(Deserialize)]
struct ThresholdsDocument {
    #[serde(default)]
    warn: Option<LimitsDocument>,
    #[serde(default)]
    crit: Option<LimitsDocument>,
    expected: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
struct LimitsDocument {
    min: Option<f64>,
    max: Option<f64>,
}

/// The readings that are valid; `errors` names what is wrong with the others.
pub(super) fn validate(documents: Vec<Document>, errors: &mut Vec<FieldError>) -> Vec<Reading> {
    if documents.len() > READINGS_MAX {
        errors.push(FieldError::new(
            "oids",
            format!("has {}, more than {READINGS_MAX}", documents.len()),
        ));
        return Vec::new();
    }
    let mut readings = Vec::new();
    let mut names = HashSet::new();
    for (i, document) in documents.into_iter().enumerate() {
        let place = format!("oids[{i}]");
        if !names.insert(document.name.clone()) {
            errors.push(
                FieldError::new("name", format!("{:?} is there twice", document.name))
                    .under(&place),
            );
        }
        match document.validate() {
            Ok(reading) => readings.push(reading),
            Err(bad) => errors.extend(bad.into_iter().map(|error| error.under(&place))),
        }
    }
    readings
}

impl Document {
    fn validate(self) -> Result<Reading, Vec<FieldError>> {
        let mut errors = Vec::new();
        let name = self.name;
        if let Some(problem) = name_problem(&name) {
            errors.push(FieldError::new("name", problem));
        }
        let (is_column, oid) = match self.oid.trim().strip_suffix(".*") {
            Some(column) => (true, column.to_owned()),
            None => (false, self.oid.trim().to_owned()),
        };
        let oid = parse_oid("oid", &oid, &mut errors);
        let mut column_of_rows = |field: &str, text: Option<String>| {
            let text = text.filter(|text| !text.trim().is_empty())?;
            let text = text.trim();
            match (is_column, text.strip_suffix(".*")) {
                (true, Some(column)) => parse_oid(field, column, &mut errors),
                (false, None) => parse_oid(field, text, &mut errors),
                (true, None) => {
                    errors.push(FieldError::new(field, "does not end in .*, as oid does"));
                    None
                }
                (false, Some(_)) => {
                    errors.push(FieldError::new(field, "ends in .*, and oid does not"));
                    None
                }
            }
        };
        let label = column_of_rows("label_oid", self.label_oid);
        let percent_of = column_of_rows("percent_of", self.percent_of);
        if label.is_some() && !is_column {
            errors.push(FieldError::new(
                "label_oid",
                "is only for an oid that ends in .*",
            ));
        }
        let unit = self.unit.unwrap_or_default();
        if unit.chars().count() > UNIT_MAX {
            errors.push(FieldError::new(
                "unit",
                format!("is longer than {UNIT_MAX} characters"),
            ));
        }
        let word = self
            .kind
            .as_deref()
            .unwrap_or("gauge")
            .trim()
            .to_ascii_lowercase();
        let kind = kind(
            &word,
            self.scale,
            self.values.unwrap_or_default(),
            &mut errors,
        );
        if percent_of.is_some() && word != "gauge" {
            errors.push(FieldError::new("percent_of", "is only for the type gauge"));
        }
        let thresholds = self
            .thresholds
            .map_or_else(Thresholds::default, |document| {
                document
                    .validate(kind.as_ref())
                    .map_err(|bad| {
                        errors.extend(bad.into_iter().map(|error| error.under("thresholds")));
                    })
                    .unwrap_or_default()
            });
        match (oid, kind) {
            (Some(oid), Some(kind)) if errors.is_empty() => Ok(Reading {
                name,
                oid,
                is_column,
                kind,
                unit,
                label,
                percent_of,
                thresholds,
            }),
            _ => Err(errors),
        }
    }
}

fn name_problem(name: &str) -> Option<String> {
    let letters = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !letters || name.len() > NAME_MAX {
        return Some(format!(
            "{name:?} is not a name such as lamp_hours: a letter, then small letters, digits and _, at most {NAME_MAX}"
        ));
    }
    if RESERVED.contains(&name) || name.starts_with("snmp_") {
        return Some(format!("{name:?} is a name of the driver's own"));
    }
    None
}

fn parse_oid(field: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Oid> {
    text.parse()
        .map_err(|problem| errors.push(FieldError::new(field, format!("{text:?} {problem}"))))
        .ok()
}

fn kind(
    word: &str,
    scale: Option<f64>,
    values: BTreeMap<String, String>,
    errors: &mut Vec<FieldError>,
) -> Option<ReadingKind> {
    if scale.is_some() && word != "gauge" {
        errors.push(FieldError::new("scale", "is only for the type gauge"));
    }
    if !values.is_empty() && !matches!(word, "enum" | "bits") {
        errors.push(FieldError::new(
            "values",
            "is only for the types enum and bits",
        ));
    }
    match word {
        "gauge" => {
            let scale = scale.unwrap_or(1.0);
            if !scale.is_normal() {
                errors.push(FieldError::new("scale", format!("{scale} is no factor")));
            }
            Some(ReadingKind::Gauge { scale })
        }
        "counter" => Some(ReadingKind::Counter),
        "string" => Some(ReadingKind::Text),
        "bool" => Some(ReadingKind::Bool),
        "enum" => Some(ReadingKind::Enum(numbered(values, errors)?)),
        "bits" => Some(ReadingKind::Bits(numbered(values, errors)?)),
        _ => {
            errors.push(FieldError::new(
                "type",
                format!("{word:?} is not one of gauge, counter, string, bool, enum, bits"),
            ));
            None
        }
    }
}

fn numbered<K: std::str::FromStr + Ord>(
    values: BTreeMap<String, String>,
    errors: &mut Vec<FieldError>,
) -> Option<BTreeMap<K, String>> {
    if values.is_empty() || values.len() > VALUES_MAX {
        errors.push(FieldError::new(
            "values",
            format!("is not 1 to {VALUES_MAX} words by number"),
        ));
        return None;
    }
    let mut numbered = BTreeMap::new();
    for (key, word) in values {
        match key.trim().parse() {
            Ok(number) => {
                numbered.insert(number, word);
            }
            Err(_) => {
                errors.push(FieldError::new(
                    "values",
                    format!("{key:?} is not a number"),
                ));
                return None;
            }
        }
    }
    Some(numbered)
}

impl ThresholdsDocument {
    fn validate(self, kind: Option<&ReadingKind>) -> Result<Thresholds, Vec<FieldError>> {
        let mut errors = Vec::new();
        let thresholds = Thresholds {
            warn: limits("warn", self.warn, &mut errors),
            crit: limits("crit", self.crit, &mut errors),
            expected: self
                .expected
                .unwrap_or_default()
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                })
                .collect(),
        };
        let has_limits = [thresholds.warn, thresholds.crit]
            .iter()
            .any(|limits| limits.min.is_some() || limits.max.is_some());
        let is_number = matches!(
            kind,
            Some(ReadingKind::Gauge { .. } | ReadingKind::Counter) | None
        );
        if has_limits && !is_number {
            errors.push(FieldError::new(
                "",
                "has limits, which are only for the types gauge and counter: give expected values",
            ));
        }
        let words: Option<Vec<&String>> = match kind {
            Some(ReadingKind::Enum(words)) => Some(words.values().collect()),
            Some(ReadingKind::Bits(words)) => Some(words.values().collect()),
            _ => None,
        };
        if let Some(words) = words {
            for (i, expected) in thresholds.expected.iter().enumerate() {
                let none = expected.is_empty() && matches!(kind, Some(ReadingKind::Bits(_)));
                if !none && !words.contains(&expected) {
                    errors.push(FieldError::new(
                        format!("expected[{i}]"),
                        format!("{expected:?} is not one of the words in values"),
                    ));
                }
            }
        }
        if errors.is_empty() {
            Ok(thresholds)
        } else {
            Err(errors)
        }
    }
}

fn limits(field: &str, given: Option<LimitsDocument>, errors: &mut Vec<FieldError>) -> Limits {
    let LimitsDocument { min, max } = given.unwrap_or_default();
    if let (Some(min), Some(max)) = (min, max) {
        if min > max {
            errors.push(FieldError::new(
                field,
                format!("has a min of {min} above its max of {max}"),
            ));
        }
    }
    Limits { min, max }
}
