//! What a request brings: bodies, ids and numbers, and the answers to those
//! that are not valid.

use std::collections::BTreeMap;

use av_proto::FieldError;
use av_proto::field::from_json;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::url::Query;

/// 422: each field with its problem.
pub(super) fn invalid(errors: &[FieldError]) -> Answer {
    let said = match errors {
        [one] => one.to_string(),
        many => format!("{} fields are not valid", many.len()),
    };
    Answer::json(422, &json!({"error": said, "fields": errors}))
}

/// 422 for one field.
pub(super) fn invalid_field(field: &str, problem: impl std::fmt::Display) -> Answer {
    invalid(&[FieldError::new(field, problem)])
}

/// Reads a JSON object: 400 where it is not JSON, 422 where it is not an
/// object or a field does not fit.
pub(super) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    // serde would take an array for the fields of a struct in their order.
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => read_fields(body).map_err(|errors| refused(&errors)),
        _ => {
            let _: serde::de::IgnoredAny = read_any_json(body)?;
            Err(invalid_field("document", "is not an object"))
        }
    }
}

/// The same for any JSON.
pub(super) fn read_any_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    from_json(body).map_err(|error| refused(&[missing_by_name(error)]))
}

/// 400 where it is not JSON, or else [`invalid`].
fn refused(errors: &[FieldError]) -> Answer {
    match errors {
        [one] if one.problem.starts_with("is not JSON") => {
            Answer::error(400, &format!("the body {}", one.problem))
        }
        errors => invalid(errors),
    }
}

/// Reads the fields of a JSON object.
///
/// # Errors
/// Every field that has another type than it should, is missing, or unknown:
/// serde stops at the first, and who mends that wants to know the others too.
pub(super) fn read_fields<T: DeserializeOwned>(json: &[u8]) -> Result<T, Vec<FieldError>> {
    from_json(json).map_err(|first| {
        let mut errors = vec![missing_by_name(first)];
        if let Ok(members) = serde_json::from_slice(json) {
            name_the_others::<T>(members, &mut errors);
        }
        errors
    })
}

/// The most fields that are named at once.
const FIELDS_MAX: usize = 50;

/// Asks again, each time with a stand-in for the field that was named last.
fn name_the_others<T: DeserializeOwned>(
    mut members: BTreeMap<String, Box<RawValue>>,
    errors: &mut Vec<FieldError>,
) {
    while errors.len() < FIELDS_MAX {
        let Some(last) = errors.last() else { return };
        let name = member_of(&last.field).to_owned();
        let next = [None]
            .into_iter()
            .chain(["\"\"", "0", "false", "[]", "{}", "\"1970-01-01T00:00:00Z\""].map(Some))
            .find_map(|stand_in| {
                members.remove(&name);
                if let Some(json) = stand_in {
                    let raw = RawValue::from_string(json.to_owned()).ok()?;
                    members.insert(name.clone(), raw);
                }
                let json = serde_json::to_vec(&members).ok()?;
                match from_json::<T>(&json).map_err(missing_by_name) {
                    Err(error) if member_of(&error.field) == name => None,
                    outcome => Some(outcome.err()),
                }
            });
        match next {
            Some(Some(error)) if errors.iter().all(|known| known.field != error.field) => {
                errors.push(error);
            }
            _ => return,
        }
    }
}

/// The member of the document in which a field is.
fn member_of(field: &str) -> &str {
    field.split(['.', '[']).next().unwrap_or(field)
}

/// `document: missing field `ip`` says it of the document; the field is what
/// a form marks.
fn missing_by_name(error: FieldError) -> FieldError {
    let name = error
        .problem
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    match name {
        Some(name) => {
            let parent = if error.field == "document" {
                ""
            } else {
                &error.field
            };
            FieldError::new(name, "is missing").under(parent)
        }
        None => error,
    }
}

/// The id in a path; `None` where it cannot be one.
pub(super) fn id(text: &str) -> Option<i64> {
    text.parse().ok().filter(|id| *id > 0)
}

/// A whole number of a query, within bounds.
pub(super) fn number(
    query: &Query,
    name: &str,
    default: i64,
    (least, most): (i64, i64),
) -> Result<i64, Answer> {
    match query.get(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| {
                invalid_field(
                    name,
                    format!("is not a whole number from {least} to {most}"),
                )
            }),
    }
}

/// An id of a query, where it is given.
pub(super) fn optional_id(query: &Query, name: &str) -> Result<Option<i64>, Answer> {
    match query.get(name) {
        None | Some("") => Ok(None),
        Some(text) => id(text)
            .map(Some)
            .ok_or_else(|| invalid_field(name, "is not an id")),
    }
}

/// A flag of a query: `1` or `true`, `0` or `false`, absent or without a
/// value for `?flag`.
pub(super) fn flag(query: &Query, name: &str) -> Result<bool, Answer> {
    match query.get(name) {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(_) => Err(invalid_field(name, "is neither 1 nor 0")),
    }
}

/// A name for people: of 1 to `most` characters, none of them a control
/// character, and no space around it.
pub(super) fn check_name(errors: &mut Vec<FieldError>, field: &str, value: &str, most: usize) {
    if value.trim().is_empty() {
        errors.push(FieldError::new(field, "is empty"));
    } else {
        check_text(errors, field, value, most);
    }
}

/// A text for people that may be empty.
pub(super) fn check_text(errors: &mut Vec<FieldError>, field: &str, value: &str, most: usize) {
    if value.chars().count() > most {
        errors.push(FieldError::new(
            field,
            format!("has more than {most} characters"),
        ));
    } else if value.chars().any(char::is_control) {
        errors.push(FieldError::new(field, "has a control character"));
    } else if value.trim() != value {
        errors.push(FieldError::new(field, "begins or ends with a space"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_is_read_into_fields() {
        #[derive(Debug, serde::Deserialize)]
        struct Fields {
            #[serde(rename = "name")]
            _name: Option<String>,
        }
        for (body, status) in [
            ("{}", None),
            (" {\"name\": null}", None),
            ("[null]", Some(422)),
            ("\"x\"", Some(422)),
            ("null", Some(422)),
            ("", Some(400)),
            ("[", Some(400)),
            ("{\"name\": 1}", Some(422)),
        ] {
            let refused = read_json::<Fields>(body.as_bytes()).err();
            assert_eq!(refused.map(|answer| answer.status), status, "{body}");
        }
    }

    #[test]
    fn every_field_that_does_not_fit_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its parsing is looked at")]
        struct Window {
            site_id: i64,
            rooms: Vec<String>,
            quiet: bool,
            #[serde(rename = "ends_at")]
            end: jiff::Timestamp,
            note: Option<String>,
        }
        for (json, fields) in [
            (
                "{}",
                vec![
                    "site_id: is missing",
                    "rooms: is missing",
                    "quiet: is missing",
                    "ends_at: is missing",
                ],
            ),
            (
                r#"{"site_id": "1", "rooms": ["a", 2], "quiet": true, "ends_at": 7, "note": [], "x": 1}"#,
                vec![
                    "site_id: is a text, not a whole number",
                    "rooms[1]: is a number, not a text",
                    "ends_at: ",
                    "note: is a list, not a text",
                    "x: unknown field",
                ],
            ),
            (r#"{"a.b": 1}"#, vec!["a.b: unknown field"]),
            ("7", vec!["document: is a number, not an object"]),
            ("{", vec!["document: is not JSON"]),
        ] {
            let errors = read_fields::<Window>(json.as_bytes()).unwrap_err();
            let mut said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            for text in &fields {
                assert!(
                    said.iter().any(|one| one.starts_with(text)),
                    "{text}: {said:?}"
                );
            }
            said.sort();
            said.dedup();
            assert_eq!(said.len(), fields.len(), "{said:?}");
        }
    }

    #[test]
    fn flags() {
        for (query, expected) in [
            ("", Some(false)),
            ("f", Some(true)),
            ("f=1", Some(true)),
            ("f=0", Some(false)),
            ("f=x", None),
        ] {
            let query = Query::parse(query).unwrap();
            assert_eq!(flag(&query, "f").ok(), expected);
        }
    }

    #[test]
    fn ids() {
        for (text, expected) in [
            ("12", Some(12)),
            ("0", None),
            ("-1", None),
            ("x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(id(text), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        for (error, field) in [
            (FieldError::new("document", "missing field `ip`"), "ip"),
            (
                FieldError::new("rows[2]", "missing field `ip`"),
                "rows[2].ip",
            ),
        ] {
            let named = missing_by_name(error);
            assert_eq!(
                (named.field.as_str(), named.problem.as_str()),
                (field, "is missing")
            );
        }
    }
}
