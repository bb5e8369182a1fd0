//! Devices as CSV (RFC 4180), as spreadsheets write and read it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::secrets::is_secret;

/// The columns of an export, which an import takes in any order. An import
/// also takes columns such as `driver_config.pjlink.port` or
/// `expectations.always_on`.
pub(super) const COLUMNS: [&str; 10] = [
    "ip",
    "name",
    "building",
    "floor",
    "room",
    "type",
    "driver",
    "driver_config",
    "expectations",
    "alert_severity",
];

/// What is wrong with a row of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct RowError {
    /// The line in a CSV file, the place from 1 in a JSON array.
    pub(super) row: u64,
    /// The field.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) problem: String,
}

impl RowError {
    pub(super) fn new(row: u64, field: impl Into<String>, problem: impl ToString) -> Self {
        Self {
            row,
            field: field.into(),
            problem: problem.to_string(),
        }
    }
}

/// The fields of a device, as far as a row has them.
pub(super) type Members = BTreeMap<String, Option<Box<RawValue>>>;

/// A device of a file.
#[derive(Debug)]
pub(super) struct Row {
    /// The line in a CSV file, the place from 1 in a JSON array.
    pub(super) number: u64,
    /// The fields that stand for themselves.
    pub(super) members: Members,
    /// The parts of `driver_config` and `expectations` that have columns of
    /// their own.
    pub(super) parts: BTreeMap<String, Map<String, Value>>,
}

impl Row {
    /// The fields, with the parts put over what the row has as a whole, or
    /// else over what is stored.
    ///
    /// # Errors
    /// A field that is not an object.
    pub(super) fn complete(
        self,
        stored: impl Fn(&str) -> Option<String>,
    ) -> Result<Members, RowError> {
        let mut members = self.members;
        for (root, parts) in self.parts {
            let whole = match members.get(&root).and_then(Option::as_ref) {
                Some(raw) => raw.get().to_owned(),
                None => stored(&root).unwrap_or_else(|| "{}".to_owned()),
            };
            let merged = over(&whole, parts)
                .map_err(|error| RowError::new(self.number, root.as_str(), error))?;
            members.insert(root, Some(merged));
        }
        Ok(members)
    }
}

/// A JSON object with other members put over its own. What they do not touch
/// stays as it is written, so that numbers keep every digit.
fn over(whole: &str, parts: Map<String, Value>) -> Result<Box<RawValue>, serde_json::Error> {
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(whole)?;
    for (name, value) in parts {
        let inner = members
            .get(&name)
            .map(|raw| raw.get())
            .filter(|raw| raw.starts_with('{'));
        let merged = match (inner, value) {
            (Some(inner), Value::Object(parts)) => over(inner, parts)?,
            (_, value) => serde_json::value::to_raw_value(&value)?,
        };
        members.insert(name, merged);
    }
    serde_json::value::to_raw_value(&members)
}

/// A cell that a spreadsheet would take for a formula is written with an
/// apostrophe before it, and read without.
fn is_formula(cell: &str) -> bool {
    cell.trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t'])
}

fn guarded(cell: &str) -> String {
    if is_formula(cell) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

fn unguarded(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if is_formula(cell) => rest,
        _ => cell,
    }
}

/// Writes rows of [`COLUMNS`].
pub(super) fn write(rows: impl Iterator<Item = [String; 10]>) -> Result<String, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for row in rows {
        writer.write_record(row.iter().map(|cell| guarded(cell)))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    // Without the mark, Excel takes UTF-8 for the machine's own code page.
    Ok(format!("\u{feff}{}", String::from_utf8_lossy(&bytes)))
}

/// Reads rows: separated by comma, semicolon or tab, whichever the first line
/// has most of.
pub(super) fn read(text: &str) -> Result<Vec<Row>, Vec<RowError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().next().unwrap_or_default();
    let count = |separator: char| first.matches(separator).count();
    let separator = [',', ';', '\t']
        .into_iter()
        .max_by_key(|separator| (count(*separator), *separator == ','))
        .unwrap_or(',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(u8::try_from(separator).unwrap_or(b','))
        .flexible(true)
        .from_reader(text.as_bytes());
    let heads: Vec<String> = match reader.headers() {
        Ok(heads) => heads.iter().map(|head| head.trim().to_owned()).collect(),
        Err(error) => return Err(vec![RowError::new(1, "file", error)]),
    };
    let mut errors = check_heads(&heads);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                errors.push(RowError::new(line, "file", error));
                continue;
            }
        };
        let line = record.position().map_or(0, |at| first_line(text, at));
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if record.len() > heads.len() {
            errors.push(RowError::new(
                line,
                "row",
                format!(
                    "has {} cells, and the first line {}",
                    record.len(),
                    heads.len()
                ),
            ));
            continue;
        }
        match cells(&heads, &record) {
            Ok((members, parts)) => rows.push(Row {
                number: line,
                members,
                parts,
            }),
            Err((field, problem)) => errors.push(RowError::new(line, field, problem)),
        }
    }
    if errors.is_empty() {
        Ok(rows)
    } else {
        Err(errors)
    }
}

/// The line in which a record begins. The reader gives the place at which the
/// one before ended: within its CR LF, and before empty lines.
fn first_line(text: &str, at: &csv::Position) -> u64 {
    let skipped = usize::try_from(at.byte())
        .ok()
        .and_then(|byte| text.as_bytes().get(byte..))
        .unwrap_or_default()
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|byte| **byte == b'\n')
        .count();
    at.line() + u64::try_from(skipped).unwrap_or(0)
}

fn check_heads(heads: &[String]) -> Vec<RowError> {
    let mut errors = Vec::new();
    for (i, head) in heads.iter().enumerate() {
        let nested = head.split_once('.').is_some_and(|(first, rest)| {
            matches!(first, "driver_config" | "expectations")
                && rest.split('.').all(|part| !part.is_empty())
        });
        if !nested && !COLUMNS.contains(&head.as_str()) {
            errors.push(RowError::new(
                1,
                head.as_str(),
                format!("is not a column; they are {}", COLUMNS.join(", ")),
            ));
        } else if heads.iter().take(i).any(|other| other == head) {
            errors.push(RowError::new(1, head.as_str(), "is there twice"));
        }
    }
    if !heads.iter().any(|head| head == "ip") {
        errors.push(RowError::new(1, "ip", "is missing"));
    }
    errors
}

/// The fields of a row, and the parts that have columns of their own.
type Cells = (Members, BTreeMap<String, Map<String, Value>>);

fn cells(heads: &[String], record: &csv::StringRecord) -> Result<Cells, (String, String)> {
    let mut members = Members::new();
    let mut parts: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (i, head) in heads.iter().enumerate() {
        let cell = unguarded(record.get(i).unwrap_or_default()).trim();
        if let Some((root, path)) = head.split_once('.') {
            if !cell.is_empty() {
                let path: Vec<&str> = path.split('.').collect();
                let object = parts.entry(root.to_owned()).or_default();
                set(object, &path, cell).map_err(|problem| (head.clone(), problem))?;
            }
            continue;
        }
        let raw = if matches!(head.as_str(), "driver_config" | "expectations") {
            let json = if cell.is_empty() { "{}" } else { cell };
            RawValue::from_string(json.to_owned())
                .map_err(|error| (head.clone(), format!("is not JSON: {error}")))?
        } else {
            RawValue::from_string(Value::from(cell).to_string())
                .map_err(|error| (head.clone(), error.to_string()))?
        };
        members.insert(head.clone(), Some(raw));
    }
    Ok((members, parts))
}

fn set(object: &mut Map<String, Value>, path: &[&str], cell: &str) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [last] => {
            // A password of digits is a text.
            let value = if is_secret(last) {
                cell.into()
            } else {
                serde_json::from_str(cell).unwrap_or_else(|_| cell.into())
            };
            object.insert((*last).to_owned(), value);
            Ok(())
        }
        [first, rest @ ..] => match object
            .entry(*first)
            .or_insert_with(|| Value::Object(Map::new()))
        {
            Value::Object(inner) => set(inner, rest, cell),
            _ => Err(format!("{first} has a value of its own in another column")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(row: &Row) -> String {
        assert!(row.parts.is_empty());
        serde_json::to_string(&row.members).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let cells = [
            "10.0.0.1",
            "=1+1 \"é\"\r\nline",
            "",
            "'-1",
            "a;b,c",
            "other",
            "ping",
            "{\"ping\": {\"count\": 12345678901234567890123}}",
            "{}",
            "warning",
        ]
        .map(str::to_owned);
        let text = write(std::iter::once(cells.clone())).unwrap();
        assert!(text.contains("'=1+1"), "{text}");
        let rows = read(&text).unwrap();
        assert_eq!(rows.len(), 1);
        for (column, cell) in COLUMNS.iter().zip(&cells) {
            let raw = rows[0].members[*column].as_ref().unwrap().get();
            if column.contains("config") || *column == "expectations" {
                assert_eq!(raw, cell);
            } else {
                assert_eq!(serde_json::from_str::<String>(raw).unwrap(), *cell);
            }
        }
    }

    #[test]
    fn spreadsheets_of_many_countries_are_read() {
        for text in [
            "ip,name\r\n10.0.0.1,A\r\n\r\n,\r\n10.0.0.2,B\r\n",
            "\u{feff}ip;name\n10.0.0.1;A\n10.0.0.2;B",
            "ip\tname\n10.0.0.1\tA\n10.0.0.2\tB\n",
        ] {
            let rows = read(text).unwrap();
            assert_eq!(rows.len(), 2, "{text}");
            assert_eq!(shown(&rows[1]), r#"{"ip":"10.0.0.2","name":"B"}"#);
        }
    }

    #[test]
    fn settings_can_have_columns_of_their_own() {
        let rows = read(
            "ip,driver_config.pjlink.password,driver_config.pjlink.port,expectations.always_on,driver_config\n\
             10.0.0.1,1234,4352,true,\"{\"\"pjlink\"\": {\"\"port\"\": 1, \"\"timeout_s\"\": 3}}\"\n\
             10.0.0.2,,,,\n",
        )
        .unwrap();
        let complete = |row: Row| {
            let members = row.complete(|_| Some("{\"kept\": 0.10}".to_owned()));
            serde_json::to_string(&members.unwrap()).unwrap()
        };
        let shown: Vec<String> = rows.into_iter().map(complete).collect();
        assert_eq!(
            shown,
            [
                r#"{"driver_config":{"pjlink":{"password":"1234","port":4352,"timeout_s":3}},"expectations":{"always_on":true,"kept":0.10},"ip":"10.0.0.1"}"#,
                r#"{"driver_config":{},"ip":"10.0.0.2"}"#,
            ]
        );
    }

    #[test]
    fn what_has_no_column_stays_as_it_is_stored() {
        let mut rows = read("ip,driver_config.pjlink.port\n10.0.0.1,1\n").unwrap();
        let stored =
            r#"{"n": 123456789012345678901234567890, "pjlink": {"password": "x", "port": 2}}"#;
        let members = rows
            .remove(0)
            .complete(|_| Some(stored.to_owned()))
            .unwrap();
        assert_eq!(
            members["driver_config"].as_ref().unwrap().get(),
            r#"{"n":123456789012345678901234567890,"pjlink":{"password":"x","port":1}}"#
        );
    }

    #[test]
    fn errors_have_row_and_field() {
        for (text, row, field) in [
            ("ip,colour\n", 1, "colour"),
            ("name\n", 1, "ip"),
            ("ip,ip\n", 1, "ip"),
            (
                "ip,driver_config\n10.0.0.1,\n10.0.0.2,{x\n",
                3,
                "driver_config",
            ),
            ("ip\n10.0.0.1,x\n", 2, "row"),
            ("ip\r\n10.0.0.1\r\n\r\n10.0.0.2,x\r\n", 4, "row"),
            ("ip,name\n10.0.0.1,\"A\nB\"\n\n10.0.0.2,x,y\n", 5, "row"),
            ("", 1, "ip"),
        ] {
            let errors = read(text).unwrap_err();
            assert!(
                errors
                    .iter()
                    .any(|e| (e.row, e.field.as_str()) == (row, field)),
                "{text}: {errors:?}"
            );
        }
    }
}
