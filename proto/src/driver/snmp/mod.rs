//! `driver_config.snmp`.
//!
//! | module | what it holds |
//! |---|---|
//! | `oid` | object identifiers |
//! | `access` | who asks: a community, or a user of version 3 |
//! | `reading` | what is asked for, and what is expected of it |
//! | `profile` | readings for common kinds of equipment |

mod access;
mod oid;
mod profile;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{count, port, settled, timeout};
use crate::FieldError;
use crate::secret::Secret;

pub use access::{SnmpAccess, SnmpAuth, SnmpCipher, SnmpHash, SnmpPriv, SnmpSecurity, SnmpUser};
pub use oid::Oid;
pub use profile::{PROFILES, Profile};
pub use reading::{Limits, Reading, ReadingKind, Thresholds};

/// How a device is asked over SNMP.
#[derive(Debug, Clone, PartialEq)]
pub struct SnmpSettings {
    /// The version, and who asks.
    pub access: SnmpAccess,
    /// UDP port.
    pub port: u16,
    /// How long each try is waited for.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u8,
    /// What is asked for beside `sysDescr` and `sysUpTime`: the profile's
    /// readings, then the device's own.
    pub readings: Arc<[Reading]>,
}

#[derive(Deserialize)]
pub(super) struct Document {
    community: Option<Secret>,
    port: Option<i64>,
    timeout_s: Option<f64>,
    retries: Option<i64>,
    version: Option<serde_json::Value>,
    v3: Option<access::Document>,
    profile: Option<String>,
    oids: Option<Vec<reading::Document>>,
}

impl Document {
    pub(super) fn validate(self) -> Result<SnmpSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let port = port("port", self.port, 161, &mut errors);
        let timeout = timeout(
            "timeout_s",
            self.timeout_s,
            Duration::from_secs(2),
            &mut errors,
        );
        let retries = count("retries", self.retries, 1, (0, 5), &mut errors);
        let access = access::validate(self.version.as_ref(), self.community, self.v3, &mut errors);
        let profile = match self.profile.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(name) => {
                let profile = Profile::named(name);
                if profile.is_none() {
                    let known: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
                    errors.push(FieldError::new(
                        "profile",
                        format!("{name:?} is not one of {}", known.join(", ")),
                    ));
                }
                profile
            }
        };
        let own = reading::validate(self.oids.unwrap_or_default(), &mut errors);
        let readings = match (profile, own.is_empty()) {
            // Devices of one profile share its readings.
            (Some(profile), true) => profile.readings,
            (None, _) => own.into(),
            (Some(profile), false) => {
                let kept = profile
                    .readings
                    .iter()
                    .filter(|reading| own.iter().all(|other| other.name != reading.name));
                kept.chain(&own).cloned().collect()
            }
        };
        match access {
            Some(access) => settled(
                SnmpSettings {
                    access,
                    port,
                    timeout,
                    retries,
                    readings,
                },
                errors,
            ),
            None => Err(errors),
        }
    }
}
