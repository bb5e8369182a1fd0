//! Errors that name a field and what is wrong with its value.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::object::Strict;

/// The field of an error about a document as a whole.
const DOCUMENT: &str = "document";

/// One field's problem, such as `devices[3].ip: "projector" is not an IP address`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Where it stands in the document, dotted: `expectations.schedule.rules[0].start`.
    pub field: String,
    /// What is wrong with the value, as a clause after the field's name.
    pub problem: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same error seen from the document that holds this one under `parent`.
    /// What was wrong with this document as a whole is then wrong with `parent`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        if self.field == DOCUMENT && !parent.is_empty() {
            self.field.clear();
        }
        self.field = match (parent.is_empty(), self.field.is_empty()) {
            (true, _) => self.field,
            (_, true) => parent.to_owned(),
            _ if self.field.starts_with('[') => format!("{parent}{}", self.field),
            _ => format!("{parent}.{}", self.field),
        };
        self
    }
}

/// Reads a JSON text into `T`; the error names the field that did not fit. An
/// array never stands for a structure.
///
/// # Errors
/// A [`FieldError`] whose field is `document` where the text is not JSON.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, FieldError> {
    // The reader itself looks only at the texts that it keeps: a field that is
    // not read could hold anything.
    let json = std::str::from_utf8(json)
        .map_err(|_| FieldError::new(DOCUMENT, "is not JSON: it is not UTF-8"))?;
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(Strict(&mut reader)).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.inner();
        let field = if path == "." || !cause.is_data() {
            DOCUMENT.to_owned()
        } else {
            path
        };
        FieldError::new(field, problem(cause))
    })?;
    reader
        .end()
        .map_err(|error| FieldError::new(DOCUMENT, problem(&error)))?;
    Ok(value)
}

/// serde_json's message in plain words; the position only where the syntax is
/// wrong.
fn problem(error: &serde_json::Error) -> String {
    let message = error.to_string();
    if error.is_data() {
        let message = match message.rfind(" at line ") {
            Some(end) => &message[..end],
            None => &message,
        };
        in_plain_words(message).unwrap_or_else(|| message.to_owned())
    } else {
        format!("is not JSON: {message}")
    }
}

/// What serde says of a value of another type, without the value: a password
/// that was entered as a number must not stand in an error.
fn in_plain_words(message: &str) -> Option<String> {
    let (found, wanted) = message
        .strip_prefix("invalid type: ")?
        .rsplit_once(", expected ")?;
    let found = match found.split([' ', ',']).next()? {
        "string" | "character" => "a text",
        "integer" => "a number",
        "floating" => "a number with a decimal point",
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "an object",
        "null" | "unit" => "null",
        _ => "something else",
    };
    let wanted = match wanted {
        "a string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "f32" | "f64" => "a number",
        wanted if wanted.starts_with("struct ") => "an object",
        wanted if wanted.starts_with("enum ") => "a text",
        wanted if wanted.strip_prefix(['i', 'u']).is_some_and(is_width) => "a whole number",
        wanted => wanted,
    };
    Some(format!("is {found}, not {wanted}"))
}

/// Whether this is what follows the letter of an integer type.
fn is_width(text: &str) -> bool {
    text == "size" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Inner {
        port: u16,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        A,
        B,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        items: Vec<Inner>,
    }

    #[test]
    fn errors_name_the_field() {
        for (json, message) in [
            (
                r#"{"items":[{"port":1},{"port":"x"}]}"#,
                "items[1].port: is a text, not a whole number",
            ),
            (
                r#"{"items":[{"port":1.5}]}"#,
                "items[0].port: is a number with a decimal point, not a whole number",
            ),
            (
                r#"{"items":", expected x"}"#,
                "items: is a text, not a list",
            ),
            (r#"{"items":[7]}"#, "items[0]: is a number, not an object"),
            (r#"{"items":null}"#, "items: is null, not a list"),
            (r#"{"items":[[7]]}"#, "items[0]: is a list, not an object"),
            (r#"[[{"port":1}]]"#, "document: is a list, not an object"),
            (
                r#"{"items":[{"port":1,"kind":null}]}"#,
                "items[0].kind: is null, not a text",
            ),
            (
                r#"{"items":[{"port":1,"kind":"c"}]}"#,
                "items[0].kind: unknown variant `c`, expected `a` or `b`",
            ),
            (r#"{"items":[{}]}"#, "items[0]: missing field `port`"),
            ("{}", "document: missing field `items`"),
            (
                r#"{"items":[]"#,
                "document: is not JSON: EOF while parsing an object at line 1 column 11",
            ),
            (
                r#"{"items":[]} x"#,
                "document: is not JSON: trailing characters at line 1 column 14",
            ),
        ] {
            let error = from_json::<Outer>(json.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_field_that_is_not_read_is_utf_8_as_well() {
        for json in [&b"{\"items\":[],\"new\":\"\xd1\xd1\"}"[..], b"\xff\xfe"] {
            let error = from_json::<Outer>(json).unwrap_err();
            let message = "document: is not JSON: it is not UTF-8";
            assert_eq!(error.to_string(), message, "{json:?}");
        }
    }

    #[test]
    fn what_fits_is_read() {
        let json = br#"{"items":[{"port":1,"kind":"b"},{"port":2,"new":[{}]}]}"#;
        let outer: Outer = from_json(json).unwrap();
        assert_eq!(outer.items.len(), 2);
        assert!(matches!(outer.items[0].kind, Kind::B));
    }

    #[test]
    fn paths_join() {
        let error = FieldError::new("ip", "is empty");
        assert_eq!(error.clone().under("devices[2]").field, "devices[2].ip");
        assert_eq!(error.under("").field, "ip");
        assert_eq!(FieldError::new("[1]", "x").under("rules").field, "rules[1]");
        assert_eq!(FieldError::new("", "x").under("rules").field, "rules");
        let whole = FieldError::new("document", "x");
        assert_eq!(whole.clone().under("devices[2]").field, "devices[2]");
        assert_eq!(whole.under("").field, "document");
    }
}
