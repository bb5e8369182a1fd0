//! `driver_config.tcp`.

use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;

use super::{port, settled, timeout};
use crate::FieldError;

/// The longest text that is sent, in bytes.
const SEND_MAX: usize = 512;
/// The longest text or pattern that is looked for, in characters.
const BANNER_MAX: usize = 200;
/// What a compiled pattern may take, in bytes.
const PATTERN_BYTES: usize = 64 * 1024;

/// How a TCP service is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpSettings {
    /// TCP port.
    pub port: u16,
    /// How long the connection, and then what is said over it, is waited for.
    pub timeout: Duration,
    /// What is sent once the connection stands.
    pub send: Option<String>,
    /// What must come, for the service to be the one that is meant.
    pub banner: Option<Banner>,
}

/// What must stand in what a service says.
#[derive(Debug, Clone)]
pub enum Banner {
    /// A text, somewhere.
    Text(String),
    /// A regular expression that must match, somewhere.
    Pattern(Regex),
}

impl Banner {
    /// Whether `said` has it.
    #[must_use]
    pub fn is_in(&self, said: &str) -> bool {
        match self {
            Self::Text(text) => said.contains(text.as_str()),
            Self::Pattern(pattern) => pattern.is_match(said),
        }
    }
}

impl PartialEq for Banner {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Pattern(a), Self::Pattern(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl TcpSettings {
    /// What a service that does not answer costs.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.timeout
    }

    /// What a probe takes at the most: a time-out for the connection and one
    /// for what is said then.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout * 2
    }
}

#[derive(Deserialize)]
pub(super) struct Document {
    port: Option<i64>,
    timeout_s: Option<f64>,
    send: Option<String>,
    banner: Option<String>,
    banner_regex: Option<String>,
}

impl Document {
    pub(super) fn validate(self) -> Result<TcpSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        if self.port.is_none() {
            errors.push(FieldError::new(
                "port",
                "is missing: the driver tcp has none by default",
            ));
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (text, pattern) = (filled(self.banner), filled(self.banner_regex));
        let banner = match (text, pattern) {
            (Some(_), Some(_)) => {
                errors.push(FieldError::new(
                    "banner_regex",
                    "stands beside banner: only one of them is looked for",
                ));
                None
            }
            (Some(text), None) => {
                short("banner", &text, &mut errors);
                Some(Banner::Text(text))
            }
            (None, Some(text)) => {
                short("banner_regex", &text, &mut errors);
                pattern_of(&text, &mut errors)
            }
            (None, None) => None,
        };
        let settings = TcpSettings {
            port: port("port", self.port, 0, &mut errors),
            timeout: timeout(
                "timeout_s",
                self.timeout_s,
                Duration::from_secs(2),
                &mut errors,
            ),
            send: filled(self.send).and_then(|text| match unescape(&text) {
                Ok(text) if text.len() <= SEND_MAX => Some(text),
                Ok(_) => {
                    errors.push(FieldError::new(
                        "send",
                        format!("is longer than {SEND_MAX} bytes"),
                    ));
                    None
                }
                Err(problem) => {
                    errors.push(FieldError::new("send", problem));
                    None
                }
            }),
            banner,
        };
        settled(settings, errors)
    }
}

fn short(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    if text.chars().count() > BANNER_MAX {
        errors.push(FieldError::new(
            field,
            format!("is longer than {BANNER_MAX} characters"),
        ));
    }
}

fn pattern_of(text: &str, errors: &mut Vec<FieldError>) -> Option<Banner> {
    match RegexBuilder::new(text).size_limit(PATTERN_BYTES).build() {
        Ok(pattern) => Some(Banner::Pattern(pattern)),
        Err(error) => {
            errors.push(FieldError::new(
                "banner_regex",
                format!("is not a regular expression: {error}"),
            ));
            None
        }
    }
}

/// `\r`, `\n`, `\t` and `\\` as what they mean: a form has no key for a
/// carriage return.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        plain.push(match chars.next() {
            Some('r') => '\r',
            Some('n') => '\n',
            Some('t') => '\t',
            Some('\\') => '\\',
            Some(other) => {
                return Err(format!(
                    "has \\{other}, and only \\r, \\n, \\t and \\\\ are known"
                ));
            }
            None => return Err("ends with a single \\".to_owned()),
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<TcpSettings, Vec<String>> {
        let document: Document = serde_json::from_str(json).unwrap();
        document
            .validate()
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn settings_are_read() {
        let settings = parse(r#"{"port": 23}"#).unwrap();
        assert_eq!((settings.port, settings.timeout.as_secs()), (23, 2));
        assert_eq!((settings.send, settings.banner), (None, None));

        let settings = parse(
            r#"{"port": 22, "timeout_s": 0.5, "send": "a\\r\\n\\\\\\t\r", "banner": "SSH-2.0"}"#,
        )
        .unwrap();
        assert_eq!(settings.send.as_deref(), Some("a\r\n\\\t\r"));
        let banner = settings.banner.unwrap();
        assert!(banner.is_in("xSSH-2.0-y") && !banner.is_in("ssh-2.0"));

        let settings =
            parse(r#"{"port": 22, "send": "", "banner": "", "banner_regex": "^SSH-[12]"}"#)
                .unwrap();
        assert_eq!(settings.send, None);
        let banner = settings.banner.unwrap();
        assert!(banner.is_in("SSH-2.0") && !banner.is_in("x SSH-2.0"));
    }

    #[test]
    fn every_bad_field_is_named() {
        for (json, said) in [
            (
                "{}",
                vec!["port: is missing: the driver tcp has none by default"],
            ),
            (
                r#"{"port": 0, "timeout_s": 61, "send": "\\x", "banner_regex": "("}"#,
                vec![
                    "banner_regex: is not a regular expression: found open group without closing ')'",
                    "port: 0 is not a port (1 to 65535)",
                    "timeout_s: 61 is not above 0 and at most 60 seconds",
                    "send: has \\x, and only \\r, \\n, \\t and \\\\ are known",
                ],
            ),
            (
                r#"{"port": 1, "send": "\\", "banner": "a", "banner_regex": "b"}"#,
                vec![
                    "banner_regex: stands beside banner: only one of them is looked for",
                    "send: ends with a single \\",
                ],
            ),
        ] {
            assert_eq!(parse(json).unwrap_err(), said, "{json}");
        }
        let long = "x".repeat(600);
        assert_eq!(
            parse(&format!(
                r#"{{"port": 1, "send": "{long}", "banner": "{long}"}}"#
            ))
            .unwrap_err(),
            [
                "banner: is longer than 200 characters",
                "send: is longer than 512 bytes"
            ]
        );
        // Small to write, large to run.
        let huge = parse(r#"{"port": 1, "banner_regex": "((a{100}){100}){100}"}"#).unwrap_err();
        assert!(huge[0].starts_with("banner_regex: is not"), "{huge:?}");
    }
}
