//! The hash by which agent and backend tell whether they hold the same
//! configuration (`contract.md`, "The hash").

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::canonical::{CanonicalError, canonicalize, write_canonical, write_string};
use crate::sort::sort_by;

/// The MD5 of a site's configuration: 32 lower-case hex digits.
///
/// MD5 because the contract says so; it tells versions apart and guards
/// nothing.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigHash(String);

impl ConfigHash {
    /// The hash of a text that is canonical already.
    #[must_use]
    pub fn of_canonical(text: &str) -> Self {
        Self(format!("{:x}", md5::compute(text)))
    }

    /// All 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first six digits and an ellipsis, for a log line.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}...", &self.0[..6])
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigHash({})", self.0)
    }
}

/// A text that is not 32 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("is not 32 hex digits")]
pub struct NotAHash;

impl TryFrom<String> for ConfigHash {
    type Error = NotAHash;

    fn try_from(mut text: String) -> Result<Self, NotAHash> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            text.make_ascii_lowercase();
            Ok(Self(text))
        } else {
            Err(NotAHash)
        }
    }
}

impl From<ConfigHash> for String {
    fn from(hash: ConfigHash) -> Self {
        hash.0
    }
}

/// A device's part of the hashed object. The two JSON fields are JSON texts
/// as stored; `None` counts as `{}`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the contract's own field names")]
pub struct HashedDevice<'a> {
    pub ip: &'a str,
    pub name: &'a str,
    pub building: &'a str,
    pub floor: &'a str,
    pub room: &'a str,
    pub device_type: &'a str,
    pub driver: &'a str,
    pub driver_config: Option<&'a str>,
    pub expectations: Option<&'a str>,
}

/// The hashed object of a site. The devices may come in any order.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the contract's own field names")]
pub struct HashedSite<'a> {
    pub site_name: &'a str,
    pub timezone: &'a str,
    pub doubt_after_days: i64,
    pub ok_interval_s: i64,
    pub ko_interval_s: i64,
    pub devices: Vec<HashedDevice<'a>>,
}

impl HashedSite<'_> {
    /// The canonical text that is hashed.
    ///
    /// # Errors
    /// When a device's `driver_config` or `expectations` is not JSON, or
    /// nests too deep.
    pub fn canonical(&self) -> Result<String, CanonicalError> {
        let mut devices: Vec<&HashedDevice<'_>> = self.devices.iter().collect();
        sort_by(&mut devices, |a, b| a.ip.cmp(b.ip));

        // Keys are written in sorted order by hand; a test holds this against
        // `canonicalize`.
        let mut out = String::with_capacity(256 * (devices.len() + 1));
        out.push_str("{\"devices\": [");
        for (i, device) in devices.into_iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_device(&mut out, device)?;
        }
        out.push_str(&format!(
            "], \"doubt_after_days\": {}, \"ko_interval_s\": {}, \"ok_interval_s\": {}, \"site_name\": ",
            self.doubt_after_days, self.ko_interval_s, self.ok_interval_s
        ));
        write_string(&mut out, self.site_name);
        out.push_str(", \"timezone\": ");
        write_string(&mut out, self.timezone);
        out.push('}');
        Ok(out)
    }

    /// The configuration's hash.
    ///
    /// # Errors
    /// As [`HashedSite::canonical`].
    pub fn hash(&self) -> Result<ConfigHash, CanonicalError> {
        Ok(ConfigHash::of_canonical(&self.canonical()?))
    }
}

fn write_device(out: &mut String, device: &HashedDevice<'_>) -> Result<(), CanonicalError> {
    out.push_str("{\"building\": ");
    write_string(out, device.building);
    out.push_str(", \"driver\": ");
    write_string(out, device.driver);
    out.push_str(", \"driver_config\": ");
    write_canonical(out, device.driver_config.unwrap_or("{}"))?;
    out.push_str(", \"expectations\": ");
    write_canonical(out, device.expectations.unwrap_or("{}"))?;
    for (key, value) in [
        (", \"floor\": ", device.floor),
        (", \"ip\": ", device.ip),
        (", \"name\": ", device.name),
        (", \"room\": ", device.room),
        (", \"type\": ", device.device_type),
    ] {
        out.push_str(key);
        write_string(out, value);
    }
    out.push('}');
    Ok(())
}

/// Why a document given to [`hash_document`] has no hash.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON, or nests too deep.
    #[error("the document {0}")]
    Canonical(#[from] CanonicalError),
    /// It is JSON, but not an object whose `devices` is an array of objects
    /// with an `ip`.
    #[error("{field}: {problem}")]
    Shape {
        /// The field that is wrong.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The hash of a document of the contract's hash section, whatever further
/// fields it has. Its devices are put into the contract's order first.
///
/// # Errors
/// [`DocumentError`] when the document is not such an object.
pub fn hash_document(json: &str) -> Result<ConfigHash, DocumentError> {
    #[derive(Deserialize)]
    struct Ip {
        ip: String,
    }
    let shape = |field: &str, error: &serde_json::Error| DocumentError::Shape {
        field: field.to_owned(),
        problem: error.to_string(),
    };
    // Read whole first, so that bad syntax is called that.
    canonicalize(json)?;
    let mut fields: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(json).map_err(|e| shape("document", &e))?;
    if let Some(raw) = fields.get("devices") {
        let devices: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|e| shape("devices", &e))?;
        let mut keyed = Vec::with_capacity(devices.len());
        for (i, device) in devices.into_iter().enumerate() {
            let Ip { ip } = serde_json::from_str(device.get())
                .map_err(|e| shape(&format!("devices[{i}].ip"), &e))?;
            keyed.push((ip, device));
        }
        sort_by(&mut keyed, |a, b| a.0.cmp(&b.0));
        let ordered: Vec<&RawValue> = keyed.into_iter().map(|(_, device)| device).collect();
        let ordered =
            serde_json::value::to_raw_value(&ordered).map_err(|e| shape("devices", &e))?;
        fields.insert("devices".to_owned(), ordered);
    }
    let ordered = serde_json::to_string(&fields).map_err(|e| shape("document", &e))?;
    Ok(ConfigHash::of_canonical(&canonicalize(&ordered)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> HashedSite<'static> {
        HashedSite {
            site_name: "Site \"Paris\"",
            timezone: "Europe/Paris",
            doubt_after_days: 2,
            ok_interval_s: 300,
            ko_interval_s: 60,
            devices: vec![
                HashedDevice {
                    ip: "192.168.1.9",
                    name: "Écran",
                    building: "",
                    floor: "1",
                    room: "101",
                    device_type: "display",
                    driver: "ping",
                    driver_config: None,
                    expectations: Some(r#"{"b":1e16,"a":{}}"#),
                },
                HashedDevice {
                    ip: "192.168.1.10",
                    name: "P",
                    building: "A",
                    floor: "",
                    room: "",
                    device_type: "projector",
                    driver: "pjlink",
                    driver_config: Some(r#"{"pjlink":{"port":4352}}"#),
                    expectations: None,
                },
            ],
        }
    }

    #[test]
    fn keys_written_by_hand_are_in_canonical_order() {
        let text = site().canonical().unwrap();
        assert_eq!(canonicalize(&text).unwrap(), text);
        // "192.168.1.10" < "192.168.1.9" as strings.
        assert!(text.find("192.168.1.10").unwrap() < text.find("192.168.1.9\"").unwrap());
    }

    #[test]
    fn the_hash_of_a_known_document_is_pythons() {
        // python3 -c 'import json,hashlib; ...' over the same object.
        let text = r#"{"devices": [], "doubt_after_days": 2, "ko_interval_s": 60, "ok_interval_s": 300, "site_name": "é", "timezone": "UTC"}"#;
        let site = HashedSite {
            site_name: "é",
            timezone: "UTC",
            devices: vec![],
            ..site()
        };
        assert_eq!(site.canonical().unwrap(), text);
        assert_eq!(
            site.hash().unwrap().as_str(),
            "b9f7eb9e0a886df1438a1a560886c276"
        );
    }

    #[test]
    fn a_document_hashes_as_the_site_that_it_spells_in_any_order_of_devices() {
        let text = site().canonical().unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["devices"].as_array_mut().unwrap().reverse();
        assert_eq!(
            hash_document(&value.to_string()).unwrap(),
            site().hash().unwrap()
        );
    }

    #[test]
    fn a_document_of_another_shape_names_the_field() {
        for (json, start) in [
            ("[]", "document: "),
            (r#"{"devices":{}}"#, "devices: "),
            (r#"{"devices":[{"ip":"1"},{"ip":2}]}"#, "devices[1].ip: "),
            ("{", "the document is not JSON"),
        ] {
            let message = hash_document(json).unwrap_err().to_string();
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn a_hash_is_32_hex_digits() {
        assert!(ConfigHash::try_from("ABCDEF0123456789abcdef0123456789".to_owned()).is_ok());
        for bad in ["", "abc", "zz23456789abcdef0123456789abcdef"] {
            assert!(ConfigHash::try_from(bad.to_owned()).is_err());
        }
    }
}
