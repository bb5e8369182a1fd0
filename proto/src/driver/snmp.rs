//! `driver_config.snmp`.

use std::time::Duration;

use serde::Deserialize;

use super::{count, port, settled, timeout};
use crate::FieldError;
use crate::secret::Secret;

/// How a device is asked over SNMP v2c (RFC 3416).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpSettings {
    /// The community, sent in clear by this version of the protocol.
    pub community: Secret,
    /// UDP port.
    pub port: u16,
    /// How long each try is waited for.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u8,
}

#[derive(Deserialize)]
pub(super) struct Document {
    community: Option<Secret>,
    port: Option<i64>,
    timeout_s: Option<f64>,
    retries: Option<i64>,
    version: Option<serde_json::Value>,
}

impl Document {
    pub(super) fn validate(self) -> Result<SnmpSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let settings = SnmpSettings {
            community: self.community.unwrap_or_else(|| Secret::new("public")),
            port: port("port", self.port, 161, &mut errors),
            timeout: timeout(
                "timeout_s",
                self.timeout_s,
                Duration::from_secs(2),
                &mut errors,
            ),
            retries: count("retries", self.retries, 1, (0, 5), &mut errors),
        };
        if settings.community.expose().is_empty() {
            errors.push(FieldError::new("community", "is empty"));
        }
        if let Some(version) = self.version {
            let word = version.as_str().map_or_else(
                || version.to_string(),
                |text| text.trim().to_ascii_lowercase(),
            );
            if !matches!(word.as_str(), "2" | "2c" | "v2" | "v2c") {
                errors.push(FieldError::new(
                    "version",
                    format!("{version} is not supported, only \"2c\""),
                ));
            }
        }
        settled(settings, errors)
    }
}
