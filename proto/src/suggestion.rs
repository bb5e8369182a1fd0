//! The body of `POST /suggestions`: equipment that an agent found and that an
//! administrator may want to watch.
//!
//! It is no configuration: nothing here is watched until somebody accepts it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FieldError;
use crate::field::from_json;

/// The most that one body may tell of.
pub const FOUND_MAX: usize = 5000;
/// The most characters of a vendor, model, name, type or driver.
pub const WORD_MAX_CHARS: usize = 100;
/// The most lines of evidence.
pub const EVIDENCE_MAX: usize = 20;
/// The most characters of a line of evidence.
pub const LINE_MAX_CHARS: usize = 280;
/// The most bytes of a proposed `driver_config`.
pub const CONFIG_MAX_BYTES: usize = 4096;

/// What was found at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suggestions {
    /// The site's name.
    pub site_name: String,
    /// What was found, address by address.
    pub found: Vec<Found>,
}

/// Equipment that was found, and how it may be watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its address.
    pub ip: String,
    /// Its interface, `aa:bb:cc:dd:ee:ff`.
    #[serde(default)]
    pub mac: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub vendor: Option<String>,
    /// Which of the maker's it is.
    #[serde(default)]
    pub model: Option<String>,
    /// A name for it.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is.
    #[serde(default, rename = "type")]
    pub device_type: Option<String>,
    /// The driver that would watch it.
    #[serde(default)]
    pub driver: Option<String>,
    /// The settings that this driver would need; without secrets.
    #[serde(default)]
    pub driver_config: Option<Value>,
    /// What was seen, in lines for a person.
    #[serde(default)]
    pub evidence: Vec<String>,
}

impl Suggestions {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// The first field that is not of this shape.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let suggestions: Self = from_json(body)?;
        if suggestions.found.len() > FOUND_MAX {
            return Err(FieldError::new(
                "found",
                format!("has more than {FOUND_MAX} entries"),
            ));
        }
        for (index, found) in suggestions.found.iter().enumerate() {
            found
                .check()
                .map_err(|error| error.under(&format!("found[{index}]")))?;
        }
        Ok(suggestions)
    }
}

impl Found {
    fn check(&self) -> Result<(), FieldError> {
        let fail = |field: &str, problem: &str| Err(FieldError::new(field, problem));
        if self.ip.parse::<IpAddr>().is_err() {
            return fail("ip", "is not an IP address");
        }
        for (field, text) in [
            ("mac", &self.mac),
            ("vendor", &self.vendor),
            ("model", &self.model),
            ("name", &self.name),
            ("type", &self.device_type),
            ("driver", &self.driver),
        ] {
            if let Some(text) = text {
                check_text(field, text, WORD_MAX_CHARS)?;
            }
        }
        if self.evidence.len() > EVIDENCE_MAX {
            return fail("evidence", "has more than 20 lines");
        }
        for line in &self.evidence {
            check_text("evidence", line, LINE_MAX_CHARS)?;
        }
        if let Some(config) = &self.driver_config {
            if !config.is_object() {
                return fail("driver_config", "is not an object");
            }
            if config.to_string().len() > CONFIG_MAX_BYTES {
                return fail("driver_config", "is too large");
            }
        }
        Ok(())
    }
}

fn check_text(field: &str, text: &str, most: usize) -> Result<(), FieldError> {
    if text.chars().count() > most {
        return Err(FieldError::new(
            field,
            format!("has more than {most} characters"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(FieldError::new(field, "has a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_checked_field_by_field() {
        let long = "x".repeat(101);
        for (found, said) in [
            (r#"{"ip":"10.0.0.1"}"#.to_owned(), None),
            (
                r#"{"ip":"10.0.0.1","mac":null,"vendor":"Epson","evidence":["a"],"new":1,
                    "driver":"pjlink","driver_config":{"pjlink":{"port":4353}}}"#
                    .to_owned(),
                None,
            ),
            (
                r#"{"ip":"x"}"#.to_owned(),
                Some("found[0].ip: is not an IP address"),
            ),
            ("{}".to_owned(), Some("found[0]: missing field `ip`")),
            (
                format!(r#"{{"ip":"10.0.0.1","model":"{long}"}}"#),
                Some("found[0].model: has more than 100 characters"),
            ),
            (
                r#"{"ip":"10.0.0.1","name":"a\u0000"}"#.to_owned(),
                Some("found[0].name: has a control character"),
            ),
            (
                r#"{"ip":"10.0.0.1","driver_config":[]}"#.to_owned(),
                Some("found[0].driver_config: is not an object"),
            ),
            (
                format!(
                    r#"{{"ip":"10.0.0.1","driver_config":{{"a":"{}"}}}}"#,
                    "x".repeat(4096)
                ),
                Some("found[0].driver_config: is too large"),
            ),
            (
                format!(
                    r#"{{"ip":"10.0.0.1","evidence":[{}"a"]}}"#,
                    r#""a","#.repeat(20)
                ),
                Some("found[0].evidence: has more than 20 lines"),
            ),
        ] {
            let body = format!(r#"{{"site_name":"P","found":[{found}]}}"#);
            let problem = Suggestions::parse(body.as_bytes())
                .err()
                .map(|error| error.to_string());
            assert_eq!(problem.as_deref(), said, "{found}");
        }
        let many = vec![r#"{"ip":"10.0.0.1"}"#; FOUND_MAX + 1].join(",");
        let body = format!(r#"{{"site_name":"P","found":[{many}]}}"#);
        assert!(Suggestions::parse(body.as_bytes()).is_err());
    }
}
