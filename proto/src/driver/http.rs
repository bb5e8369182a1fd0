//! `driver_config.http`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::{port, settled, timeout};
use crate::FieldError;

/// The longest path, host and text to look for, in bytes.
const TEXT_MAX: usize = 1024;
/// The days before a certificate's end at which the agent begins to say so.
const EXPIRY_WARN_DEFAULT_DAYS: u16 = 14;

/// How a device's web server is asked (HTTP, RFC 9110).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Over TLS; the certificate's end is then looked at.
    pub tls: bool,
    /// TCP port.
    pub port: u16,
    /// The request's target: a path, perhaps with a query.
    pub path: String,
    /// The `Host` asked for, and the TLS server name; `None` is the device's
    /// address.
    pub host: Option<String>,
    /// The statuses that are well.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Text that the answer's body must hold.
    pub body_match: Option<String>,
    /// How many days before its end a certificate is worth a word.
    pub expiry_warn_days: u16,
    /// How long the whole exchange may take.
    pub timeout: Duration,
}

impl HttpSettings {
    /// What a device that does not answer costs.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.timeout
    }

    /// What a probe takes at the most: the same.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout
    }
}

#[derive(Deserialize)]
pub(super) struct Document {
    tls: Option<bool>,
    port: Option<i64>,
    path: Option<String>,
    host: Option<String>,
    expect_status: Option<Vec<Expected>>,
    body_match: Option<String>,
    expiry_warn_days: Option<i64>,
    timeout_s: Option<f64>,
}

/// `204`, `"204"`, `"2xx"` or `"200-299"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Number(i64),
    Text(String),
}

impl Document {
    pub(super) fn validate(self) -> Result<HttpSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let tls = self.tls.unwrap_or(false);
        let expect_status = match self.expect_status {
            None => vec![200..=399],
            Some(expected) if expected.is_empty() => {
                errors.push(FieldError::new("expect_status", "is empty"));
                Vec::new()
            }
            Some(expected) => expected
                .iter()
                .enumerate()
                .filter_map(|(index, expected)| {
                    let range = statuses(expected);
                    if range.is_none() {
                        errors.push(FieldError::new(
                            format!("expect_status[{index}]"),
                            "is not a status such as 200, \"2xx\" or \"200-299\"",
                        ));
                    }
                    range
                })
                .collect(),
        };
        let expiry_warn_days = match self.expiry_warn_days {
            None => EXPIRY_WARN_DEFAULT_DAYS,
            Some(days) => match u16::try_from(days) {
                Ok(days) if days <= 3650 => days,
                _ => {
                    errors.push(FieldError::new(
                        "expiry_warn_days",
                        format!("{days} is not between 0 and 3650"),
                    ));
                    EXPIRY_WARN_DEFAULT_DAYS
                }
            },
        };
        let path = self.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || !one_word(&path) {
            errors.push(FieldError::new(
                "path",
                "does not begin with /, or holds a blank or what is not ASCII (write it as %20)",
            ));
        }
        let host = self.host.filter(|host| !host.trim().is_empty());
        if let Some(host) = &host {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            if !one_word(host) || !host.bytes().all(allowed) {
                errors.push(FieldError::new("host", "is not a host name"));
            }
        }
        let body_match = self.body_match.filter(|text| !text.is_empty());
        if body_match
            .as_ref()
            .is_some_and(|text| text.len() > TEXT_MAX)
        {
            errors.push(FieldError::new(
                "body_match",
                format!("is longer than {TEXT_MAX} bytes"),
            ));
        }
        let settings = HttpSettings {
            tls,
            port: port("port", self.port, if tls { 443 } else { 80 }, &mut errors),
            path,
            host,
            expect_status,
            body_match,
            expiry_warn_days,
            timeout: timeout(
                "timeout_s",
                self.timeout_s,
                Duration::from_secs(5),
                &mut errors,
            ),
        };
        settled(settings, errors)
    }
}

/// Whether it can stand in a request's first lines: nothing there ends a word
/// or a line.
fn one_word(text: &str) -> bool {
    text.len() <= TEXT_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

fn statuses(expected: &Expected) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|status| (100..=599).contains(status))
    };
    match expected {
        Expected::Number(number) => status(&number.to_string()).map(|s| s..=s),
        Expected::Text(text) => {
            let text = text.trim();
            if let Some(class) = text.to_ascii_lowercase().strip_suffix("xx") {
                let class = class.parse::<u16>().ok()?;
                return (1..=5)
                    .contains(&class)
                    .then_some(class * 100..=class * 100 + 99);
            }
            match text.split_once('-') {
                Some((from, to)) => {
                    let (from, to) = (status(from)?, status(to)?);
                    (from <= to).then_some(from..=to)
                }
                None => status(text).map(|s| s..=s),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(json: &str) -> Result<HttpSettings, Vec<String>> {
        serde_json::from_str::<Document>(json)
            .unwrap()
            .validate()
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_follow_tls() {
        let plain = validate("{}").unwrap();
        assert_eq!(
            (plain.port, plain.tls, plain.path.as_str()),
            (80, false, "/")
        );
        assert_eq!(plain.expect_status, [200..=399]);
        assert_eq!(plain.timeout, Duration::from_secs(5));
        assert_eq!(validate(r#"{"tls": true}"#).unwrap().port, 443);
    }

    #[test]
    fn statuses_are_numbers_classes_and_ranges() {
        let settings = validate(r#"{"expect_status": [204, "401", "2xx", "300-308"]}"#).unwrap();
        assert_eq!(
            settings.expect_status,
            [204..=204, 401..=401, 200..=299, 300..=308]
        );
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(
            validate(
                r#"{"port": 0, "path": "a b", "host": "a\r\nX: y", "timeout_s": 61,
                    "expect_status": [200, 99, "9xx", "300-200", ""], "expiry_warn_days": -1}"#
            )
            .unwrap_err(),
            [
                "expect_status[1]: is not a status such as 200, \"2xx\" or \"200-299\"",
                "expect_status[2]: is not a status such as 200, \"2xx\" or \"200-299\"",
                "expect_status[3]: is not a status such as 200, \"2xx\" or \"200-299\"",
                "expect_status[4]: is not a status such as 200, \"2xx\" or \"200-299\"",
                "expiry_warn_days: -1 is not between 0 and 3650",
                "path: does not begin with /, or holds a blank or what is not ASCII (write it as %20)",
                "host: is not a host name",
                "port: 0 is not a port (1 to 65535)",
                "timeout_s: 61 is not above 0 and at most 60 seconds",
            ]
        );
        assert_eq!(
            validate(r#"{"expect_status": []}"#).unwrap_err(),
            ["expect_status: is empty"]
        );
    }
}
