//! From a snapshot to the body of `GET /config/{site_token}` and its hash.

use std::collections::BTreeMap;

use av_proto::canonical::CanonicalError;
use av_proto::hash::{ConfigHash, HashedDevice, HashedSite};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::config::{DeviceRow, SiteSnapshot};

/// A configuration that has no form on the wire.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A device's JSON nests too deep to be hashed.
    #[error("a device's driver_config or expectations {0}")]
    Canonical(#[from] CanonicalError),
    /// It could not be written as JSON.
    #[error("the configuration could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The body and its hash.
#[derive(Debug)]
pub struct Rendered {
    /// The hash of the configuration.
    pub hash: ConfigHash,
    /// The body of the answer.
    pub body: Vec<u8>,
}

/// The contract's fields in the contract's order.
#[derive(Serialize)]
struct Body<'a> {
    config_hash: &'a ConfigHash,
    site_name: &'a str,
    timezone: &'a str,
    doubt_after_days: i32,
    reporting: Reporting,
    devices: Vec<Device<'a>>,
}

#[derive(Serialize)]
struct Reporting {
    ok_interval_s: i32,
    ko_interval_s: i32,
}

#[derive(Serialize)]
struct Device<'a> {
    ip: &'a str,
    name: &'a str,
    building: &'a str,
    floor: &'a str,
    room: &'a str,
    #[serde(rename = "type")]
    device_type: &'a str,
    driver: &'a str,
    snmp: &'a RawValue,
    pjlink: &'a RawValue,
    expectations: &'a RawValue,
    driver_config: &'a RawValue,
}

/// Writes the body and computes the hash.
///
/// # Errors
/// [`RenderError`] where a device's JSON cannot be hashed.
pub fn render(site: &SiteSnapshot) -> Result<Rendered, RenderError> {
    let hash = hash(site)?;
    let empty: &RawValue = serde_json::from_str("{}")?;
    let devices = site
        .devices
        .iter()
        .map(|row| device(row, empty))
        .collect::<Result<_, _>>()?;
    let body = serde_json::to_vec(&Body {
        config_hash: &hash,
        site_name: &site.name,
        timezone: &site.timezone,
        doubt_after_days: site.doubt_after_days,
        reporting: Reporting {
            ok_interval_s: site.ok_interval_s,
            ko_interval_s: site.ko_interval_s,
        },
        devices,
    })?;
    Ok(Rendered { hash, body })
}

/// The hash of a configuration (`contract.md`, "The hash").
///
/// # Errors
/// Where a device's JSON nests too deep to be hashed.
pub fn hash(site: &SiteSnapshot) -> Result<ConfigHash, CanonicalError> {
    HashedSite {
        site_name: &site.name,
        timezone: &site.timezone,
        doubt_after_days: site.doubt_after_days.into(),
        ok_interval_s: site.ok_interval_s.into(),
        ko_interval_s: site.ko_interval_s.into(),
        devices: site
            .devices
            .iter()
            .map(|row| HashedDevice {
                ip: &row.ip,
                name: &row.name,
                building: row.building.as_deref().unwrap_or_default(),
                floor: row.floor.as_deref().unwrap_or_default(),
                room: row.room.as_deref().unwrap_or_default(),
                device_type: &row.device_type,
                driver: &row.driver,
                driver_config: row.driver_config.as_deref(),
                expectations: row.expectations.as_deref(),
            })
            .collect(),
    }
    .hash()
}

fn device<'a>(row: &'a DeviceRow, empty: &'a RawValue) -> Result<Device<'a>, serde_json::Error> {
    let driver_config = raw(row.driver_config.as_deref(), empty)?;
    // A driver_config that is not an object has no sections; the agent will
    // say what is wrong with it.
    let sections: BTreeMap<&str, &RawValue> = match driver_config.get().starts_with('{') {
        true => sections(driver_config)?,
        false => BTreeMap::new(),
    };
    let section = |name: &str| match sections.get(name) {
        Some(section) if section.get() != "null" => *section,
        _ => empty,
    };
    Ok(Device {
        ip: &row.ip,
        name: &row.name,
        building: row.building.as_deref().unwrap_or_default(),
        floor: row.floor.as_deref().unwrap_or_default(),
        room: row.room.as_deref().unwrap_or_default(),
        device_type: &row.device_type,
        driver: &row.driver,
        snmp: section("snmp"),
        pjlink: section("pjlink"),
        expectations: raw(row.expectations.as_deref(), empty)?,
        driver_config,
    })
}

fn raw<'a>(text: Option<&'a str>, empty: &'a RawValue) -> Result<&'a RawValue, serde_json::Error> {
    text.map_or(Ok(empty), serde_json::from_str)
}

/// The sections that the wire has fields for. Keys are read as owned strings
/// because one with an escape cannot be borrowed.
fn sections(
    driver_config: &RawValue,
) -> Result<BTreeMap<&'static str, &RawValue>, serde_json::Error> {
    let all: BTreeMap<String, &RawValue> = serde_json::from_str(driver_config.get())?;
    Ok(["snmp", "pjlink"]
        .into_iter()
        .filter_map(|name| Some((name, *all.get(name)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use av_proto::config::{SiteConfig, SiteDocument};

    use super::*;
    use crate::store::config::Revision;

    fn snapshot(devices: Vec<DeviceRow>) -> SiteSnapshot {
        SiteSnapshot {
            revision: Revision {
                site_id: 1,
                number: 1,
            },
            name: "Site Paris".to_owned(),
            timezone: "Europe/Paris".to_owned(),
            doubt_after_days: 2,
            ok_interval_s: 300,
            ko_interval_s: 60,
            stored_version: None,
            devices,
        }
    }

    fn row(ip: &str, driver_config: Option<&str>, expectations: Option<&str>) -> DeviceRow {
        DeviceRow {
            ip: ip.to_owned(),
            name: "Projecteur \"A\"".to_owned(),
            building: None,
            floor: Some("1".to_owned()),
            room: None,
            device_type: "projector".to_owned(),
            driver: "pjlink".to_owned(),
            driver_config: driver_config.map(str::to_owned),
            expectations: expectations.map(str::to_owned),
        }
    }

    #[test]
    fn the_body_has_the_contracts_fields_in_their_order() {
        let rendered = render(&snapshot(vec![row(
            "192.168.1.10",
            Some(r#"{"pjlink": {"port": 4352, "timeout_s": 2.50}, "a\"b": 1}"#),
            Some(r#"{"always_on": false}"#),
        )]))
        .unwrap();
        assert_eq!(
            String::from_utf8(rendered.body).unwrap(),
            format!(
                r#"{{"config_hash":"{}","site_name":"Site Paris","timezone":"Europe/Paris","doubt_after_days":2,"reporting":{{"ok_interval_s":300,"ko_interval_s":60}},"devices":[{{"ip":"192.168.1.10","name":"Projecteur \"A\"","building":"","floor":"1","room":"","type":"projector","driver":"pjlink","snmp":{{}},"pjlink":{{"port": 4352, "timeout_s": 2.50}},"expectations":{{"always_on": false}},"driver_config":{{"pjlink": {{"port": 4352, "timeout_s": 2.50}}, "a\"b": 1}}}}]}}"#,
                rendered.hash
            )
        );
    }

    #[test]
    fn an_agent_computes_the_same_hash_from_the_body_whatever_the_json_is() {
        for driver_config in [
            None,
            Some("{}"),
            Some("[1, 2]"),
            Some("\"x\""),
            Some("12"),
            Some(r#"{"snmp": null, "pjlink": []}"#),
            Some(r#"{"n": 123456789012345678901234567890.10}"#),
        ] {
            let rendered = render(&snapshot(vec![
                row("10.0.0.1", driver_config, None),
                row("10.0.0.2", None, driver_config),
            ]))
            .unwrap();
            let document = SiteDocument::parse(&rendered.body).unwrap();
            assert_eq!(document.config_hash, rendered.hash);
            document.verify_hash().unwrap();
        }
    }

    #[test]
    fn the_body_is_one_that_agents_take() {
        let rendered = render(&snapshot(vec![row("10.0.0.1", None, None)])).unwrap();
        let document = SiteDocument::parse(&rendered.body).unwrap();
        let config = SiteConfig::validate(&document.parts(), &document.devices).unwrap();
        assert_eq!(config.devices.len(), 1);
        assert!(config.rejected.is_empty());
    }

    #[test]
    fn what_cannot_be_hashed_is_said() {
        let deep = "[".repeat(2000) + &"]".repeat(2000);
        let error = render(&snapshot(vec![row("10.0.0.1", Some(&deep), None)])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a device's driver_config or expectations nests deeper than 900 levels"
        );
    }
}
