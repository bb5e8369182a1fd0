//! Errors that name a field and what is wrong with its value.

use std::fmt;

use serde::de::DeserializeOwned;

/// The field of an error about a document as a whole.
const DOCUMENT: &str = "document";

/// One field's problem, such as `devices[3].ip: "projector" is not an IP address`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
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

/// Reads a JSON text into `T`; the error names the field that did not fit.
///
/// # Errors
/// A [`FieldError`] whose field is `document` where the text is not JSON.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, FieldError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
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

/// serde_json's message; the position only where the syntax is wrong.
fn problem(error: &serde_json::Error) -> String {
    let message = error.to_string();
    if error.is_data() {
        match message.rfind(" at line ") {
            Some(end) => message[..end].to_owned(),
            None => message,
        }
    } else {
        format!("is not JSON: {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Inner {
        port: u16,
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its parsing is looked at")]
    struct Outer {
        items: Vec<Inner>,
    }

    #[test]
    fn errors_name_the_field() {
        for (json, message) in [
            (
                r#"{"items":[{"port":1},{"port":"x"}]}"#,
                "items[1].port: invalid type: string \"x\", expected u16",
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
