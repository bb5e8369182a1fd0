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

/// A probe whose agent answers may last this many times as long as one whose
/// agent does not.
const PATIENCE: u32 = 4;

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

impl SnmpSettings {
    /// What a device that does not answer costs: each try its time-out.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.timeout * (u32::from(self.retries) + 1)
    }

    /// What a probe takes at the most. Its readings can need several
    /// requests, and a slow agent is waited for at each.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.budget() * PATIENCE
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DriverSettings;

    fn parse(section: &str) -> Result<SnmpSettings, Vec<String>> {
        let config = format!(r#"{{"snmp":{section}}}"#);
        let sections = serde_json::from_str(&config).unwrap();
        match DriverSettings::parse("snmp", &sections) {
            Ok(DriverSettings::Snmp(settings)) => Ok(settings),
            Ok(other) => panic!("{other:?}"),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn versions() {
        for text in ["1", "\"1\"", "\"v1\""] {
            let settings = parse(&format!(r#"{{"version":{text},"community":"c"}}"#)).unwrap();
            let community = Secret::new("c");
            assert_eq!(settings.access, SnmpAccess::V1 { community });
        }
        for text in ["2", "\"2c\"", "\" V2C \""] {
            // What belongs to another version may be anything.
            let section = format!(r#"{{"version":{text},"v3":{{"level":"no such"}}}}"#);
            let community = Secret::new("public");
            assert_eq!(
                parse(&section).unwrap().access,
                SnmpAccess::V2c { community }
            );
        }
    }

    #[test]
    fn users_of_version_3() {
        let user = |v3: &str| match parse(&format!(r#"{{"version":"3","v3":{v3}}}"#)) {
            Ok(SnmpSettings {
                access: SnmpAccess::V3(user),
                ..
            }) => user,
            other => panic!("{other:?}"),
        };
        let auth = |hash| SnmpAuth {
            hash,
            password: Secret::new("password-1"),
        };
        let open = user(r#"{"user":"u","context":"room","auth_password":"","level":""}"#);
        assert_eq!((&*open.name, &*open.context), ("u", "room"));
        assert_eq!(open.security, SnmpSecurity::NoAuthNoPriv);
        for (text, hash) in [
            ("MD5", SnmpHash::Md5),
            ("sha", SnmpHash::Sha1),
            ("SHA-1", SnmpHash::Sha1),
            ("SHA224", SnmpHash::Sha224),
            ("sha_256", SnmpHash::Sha256),
            ("SHA-384", SnmpHash::Sha384),
            ("SHA-512", SnmpHash::Sha512),
        ] {
            let given =
                format!(r#"{{"user":"u","auth_protocol":"{text}","auth_password":"password-1"}}"#);
            assert_eq!(user(&given).security, SnmpSecurity::AuthNoPriv(auth(hash)));
        }
        for (text, cipher) in [
            ("DES", SnmpCipher::Des),
            ("aes", SnmpCipher::Aes128),
            ("AES-128", SnmpCipher::Aes128),
            ("AES192", SnmpCipher::Aes192),
            ("AES-256", SnmpCipher::Aes256),
        ] {
            let given = format!(
                r#"{{"user":"u","level":"AuthPriv","auth_protocol":"MD5","auth_password":"password-1",
                    "priv_protocol":"{text}","priv_password":"password-2"}}"#
            );
            let privacy = SnmpPriv {
                cipher,
                password: Secret::new("password-2"),
            };
            let security = SnmpSecurity::AuthPriv(auth(SnmpHash::Md5), privacy);
            assert_eq!(user(&given).security, security);
            let shown = format!("{:?}", user(&given));
            assert!(!shown.contains("password-"), "{shown}");
        }
        // Less than the passwords allow, where that is asked for.
        let less = user(r#"{"user":"u","level":"noAuthNoPriv","auth_password":"password-1"}"#);
        assert_eq!(less.security, SnmpSecurity::NoAuthNoPriv);
    }

    #[test]
    fn readings() {
        let settings = parse(
            r#"{"profile":" UPS ","oids":[
              {"oid":"1.3.6.1.2.1.33.1.2.4.0","name":"ups_charge_percent","unit":"%"},
              {"oid":".1.3.6.1.4.1.9.1.*","name":"state","type":"enum","values":{"1":"ok","-2":"bad"},
               "label_oid":"1.3.6.1.4.1.9.2.*","thresholds":{"expected":["ok"]}},
              {"oid":"1.3.6.1.4.1.9.3.0","name":"tenths","scale":0.1,
               "thresholds":{"warn":{"min":1,"max":2},"crit":{"max":3}}}]}"#,
        )
        .unwrap();
        let profile = Profile::named("ups").unwrap().readings;
        // The device's own reading takes the place of the profile's.
        assert_eq!(settings.readings.len(), profile.len() - 1 + 3);
        let own = &settings.readings[profile.len() - 1..];
        assert_eq!(own[0].thresholds, Thresholds::default());
        assert!(own[1].is_column && own[1].label.is_some());
        assert_eq!(own[1].oid.to_string(), "1.3.6.1.4.1.9.1");
        assert_eq!(own[2].kind, ReadingKind::Gauge { scale: 0.1 });
        assert_eq!(own[2].thresholds.crit.max, Some(3.0));
    }

    #[test]
    fn every_bad_field_is_named() {
        let many: Vec<String> = (0..65)
            .map(|i| format!(r#"{{"oid":"1.3.{i}","name":"n{i}"}}"#))
            .collect();
        let many = format!(r#"{{"oids":[{}]}}"#, many.join(","));
        for (section, said) in [
            (
                r#"{"version":"3"}"#,
                vec!["v3: is missing, and version is 3"],
            ),
            (
                r#"{"version":"3","v3":{"user":"","level":"secret","context":7}}"#,
                vec!["v3.context: is a number, not a text"],
            ),
            (
                r#"{"version":"3","v3":{"level":"secret"}}"#,
                vec![
                    "v3.user: is missing",
                    "v3.level: \"secret\" is not noAuthNoPriv, authNoPriv or authPriv",
                ],
            ),
            (
                r#"{"version":"3","v3":{"user":"u","level":"authPriv","auth_password":"short","priv_protocol":"3DES"}}"#,
                vec![
                    "v3.auth_protocol: is missing: one of MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512",
                    "v3.auth_password: is shorter than 8 characters",
                    "v3.priv_protocol: \"3DES\" is not one of DES, AES-128, AES-192, AES-256",
                    "v3.priv_password: is missing",
                ],
            ),
            (
                r#"{"profile":"toaster"}"#,
                vec![
                    "profile: \"toaster\" is not one of interface, pdu_apc, printer, projector_dell, projector_epson, projector_pwg, ups",
                ],
            ),
            (&many, vec!["oids: has 65, more than 64"]),
            (
                r#"{"oids":[{"oid":"sysName","name":"Name"},{"oid":"1.3","name":"ts","type":"float"}]}"#,
                vec![
                    "oids[0].name: \"Name\" is not a name such as lamp_hours: a letter, then small letters, digits and _, at most 64",
                    "oids[0].oid: \"sysName\" is not an object identifier such as 1.3.6.1.2.1.1.5.0",
                    "oids[1].name: \"ts\" is a name of the driver's own",
                    "oids[1].type: \"float\" is not one of gauge, counter, string, bool, enum, bits",
                ],
            ),
            (
                r#"{"oids":[{"oid":"1.3.1","name":"a"},{"oid":"1.3.2","name":"a","scale":0,"percent_of":"1.3.*"}]}"#,
                vec![
                    "oids[1].name: \"a\" is there twice",
                    "oids[1].percent_of: ends in .*, and oid does not",
                    "oids[1].scale: 0 is no factor",
                ],
            ),
            (
                r#"{"oids":[{"oid":"1.3.1","name":"a","type":"enum","label_oid":"1.3.2"},
                    {"oid":"1.3.1.*","name":"b","type":"enum","values":{"x":"y"},"label_oid":"1.3.2"},
                    {"oid":"1.3.1","name":"c","type":"bool","unit":"far too long a unit","values":{"1":"x"},"scale":2}]}"#,
                vec![
                    "oids[0].label_oid: is only for an oid that ends in .*",
                    "oids[0].values: is not 1 to 128 words by number",
                    "oids[1].label_oid: does not end in .*, as oid does",
                    "oids[1].values: \"x\" is not a number",
                    "oids[2].unit: is longer than 16 characters",
                    "oids[2].scale: is only for the type gauge",
                    "oids[2].values: is only for the types enum and bits",
                ],
            ),
            (
                r#"{"oids":[{"oid":"1.3.1","name":"a","thresholds":{"warn":{"min":3,"max":2}}},
                    {"oid":"1.3.1","name":"b","type":"enum","values":{"1":"ok"},"thresholds":{"crit":{"min":1},"expected":["OK"]}}]}"#,
                vec![
                    "oids[0].thresholds.warn: has a min of 3 above its max of 2",
                    "oids[1].thresholds: has limits, which are only for the types gauge and counter: give expected values",
                    "oids[1].thresholds.expected[0]: \"OK\" is not one of the words in values",
                ],
            ),
        ] {
            let said: Vec<String> = said
                .iter()
                .map(|it| format!("driver_config.snmp.{it}"))
                .collect();
            assert_eq!(parse(section).unwrap_err(), said);
        }
    }
}
