//! A site's configuration: the wire's document, and the valid values that the
//! rest of the agent works with.
//!
//! A document is read in two steps. [`SiteDocument`] has the contract's shape
//! with every device still a JSON text; [`SiteConfig`] has valid values only,
//! and beside them each device that was refused, with its reasons. A bad
//! device never takes the good ones with it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::FieldError;
use crate::driver::{DriverSettings, Sections, own_interval};
use crate::field::from_json;
use crate::hash::{ConfigHash, HashedDevice, HashedSite};
use crate::schedule::{RuleDocument, Schedule, zone};
use crate::unknown::{UnknownSetting, unknown_settings};
use crate::verdict::{ALERT_AFTER_DEFAULT_S, ALERT_AFTER_MIN_S, Expectations};

/// The least time between sweeps while all is well, in seconds.
pub const OK_INTERVAL_MIN_S: u32 = 60;
/// The least time between sweeps while something is in fault, in seconds.
pub const KO_INTERVAL_MIN_S: u32 = 15;
const OK_INTERVAL_DEFAULT_S: u32 = 300;
const KO_INTERVAL_DEFAULT_S: u32 = 60;
/// The most devices that one site can have.
pub const DEVICES_MAX: usize = 20_000;

/// `reporting` as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportingDocument {
    /// Seconds between sweeps while all is well.
    pub ok_interval_s: Option<i64>,
    /// Seconds between sweeps while something is in fault.
    pub ko_interval_s: Option<i64>,
}

/// The body of `GET /config/{site_token}`, each device a JSON text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteDocument {
    /// The backend's hash of the configuration.
    pub config_hash: ConfigHash,
    /// The site's name.
    pub site_name: String,
    /// The site's IANA time zone.
    pub timezone: String,
    /// Days after which a device that was not seen online is in doubt; 0 never.
    pub doubt_after_days: i64,
    /// The time between sweeps.
    pub reporting: ReportingDocument,
    /// The devices.
    pub devices: Vec<Box<RawValue>>,
}

/// A device on the wire.
#[derive(Debug, Deserialize)]
struct DeviceDocument {
    ip: String,
    name: String,
    building: Option<String>,
    floor: Option<String>,
    room: Option<String>,
    #[serde(rename = "type")]
    device_type: Option<String>,
    driver: String,
    snmp: Option<Box<RawValue>>,
    pjlink: Option<Box<RawValue>>,
    expectations: Option<Box<RawValue>>,
    driver_config: Option<Box<RawValue>>,
}

/// A configuration that is not what its hash says.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The hash over the received fields is another one.
    #[error("config_hash: is {claimed}, but the configuration received hashes to {computed}")]
    Mismatch {
        /// What the backend said.
        claimed: ConfigHash,
        /// What was received.
        computed: ConfigHash,
    },
    /// A device has not the fields from which the hash is made.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl SiteDocument {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// The first field that is not of the contract's shape.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let document: Self = from_json(body)?;
        if document.devices.len() > DEVICES_MAX {
            return Err(FieldError::new(
                "devices",
                format!("has {}, more than {DEVICES_MAX}", document.devices.len()),
            ));
        }
        Ok(document)
    }

    /// The parts that are not devices, for [`SiteConfig::validate`].
    #[must_use]
    pub fn parts(&self) -> SiteParts<'_> {
        SiteParts {
            site_name: &self.site_name,
            timezone: Some(&self.timezone),
            doubt_after_days: Some(self.doubt_after_days),
            reporting: Some(self.reporting),
        }
    }

    /// Recomputes the hash from what was received and compares. A backend
    /// that does not send `driver_config` is trusted: the hash cannot be
    /// recomputed without it.
    ///
    /// # Errors
    /// [`HashError`] when the configuration must be refused.
    pub fn verify_hash(&self) -> Result<(), HashError> {
        #[derive(Deserialize)]
        struct Hashed {
            ip: String,
            name: String,
            building: String,
            floor: String,
            room: String,
            #[serde(rename = "type")]
            device_type: String,
            driver: String,
            expectations: Option<Box<RawValue>>,
            driver_config: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Probe {
            driver_config: Option<Box<RawValue>>,
        }

        let sends_driver_config = self.devices.iter().any(|raw| {
            match serde_json::from_str::<Probe>(raw.get()) {
                Ok(probe) => probe.driver_config.is_some(),
                // One that has it twice does not pass for one without.
                Err(_) => raw.get().contains("\"driver_config\""),
            }
        });
        if !sends_driver_config {
            return Ok(());
        }
        let devices: Vec<Hashed> = self
            .devices
            .iter()
            .enumerate()
            .map(|(i, raw)| from_json(raw.get().as_bytes()).map_err(|error| in_device(i, error)))
            .collect::<Result<_, FieldError>>()?;
        let site = HashedSite {
            site_name: &self.site_name,
            timezone: &self.timezone,
            doubt_after_days: self.doubt_after_days,
            ok_interval_s: self
                .reporting
                .ok_interval_s
                .unwrap_or(i64::from(OK_INTERVAL_DEFAULT_S)),
            ko_interval_s: self
                .reporting
                .ko_interval_s
                .unwrap_or(i64::from(KO_INTERVAL_DEFAULT_S)),
            devices: devices
                .iter()
                .map(|device| HashedDevice {
                    ip: &device.ip,
                    name: &device.name,
                    building: &device.building,
                    floor: &device.floor,
                    room: &device.room,
                    device_type: &device.device_type,
                    driver: &device.driver,
                    driver_config: Some(device.driver_config.get()),
                    expectations: device.expectations.as_ref().map(|raw| raw.get()),
                })
                .collect(),
        };
        let computed = site
            .hash()
            .map_err(|error| FieldError::new("devices", error))?;
        if computed == self.config_hash {
            Ok(())
        } else {
            Err(HashError::Mismatch {
                claimed: self.config_hash.clone(),
                computed,
            })
        }
    }
}

fn in_device(index: usize, error: FieldError) -> FieldError {
    error.under(&format!("devices[{index}]"))
}

/// The parts of a configuration that are not devices, before validation.
/// An absent part takes the contract's default.
#[derive(Debug, Clone, Default)]
pub struct SiteParts<'a> {
    /// The site's name.
    pub site_name: &'a str,
    /// The site's IANA time zone.
    pub timezone: Option<&'a str>,
    /// Days until doubt.
    pub doubt_after_days: Option<i64>,
    /// The time between sweeps.
    pub reporting: Option<ReportingDocument>,
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteConfig {
    /// The site's name.
    pub site_name: String,
    /// The site's zone; UTC where its name is not known.
    pub timezone: TimeZone,
    /// Days until doubt; 0 never.
    pub doubt_after_days: u32,
    /// Seconds between sweeps while all is well.
    pub ok_interval_s: u32,
    /// Seconds between sweeps while something is in fault.
    pub ko_interval_s: u32,
    /// The devices that can be watched, in the order of the document. Shared:
    /// an agent holds each once, however many of its parts look at it.
    pub devices: Vec<Arc<Device>>,
    /// The devices that cannot.
    pub rejected: Vec<RejectedDevice>,
    /// What was put right on reading: a time zone that does not exist.
    pub warnings: Vec<FieldError>,
}

/// A device that can be watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Its address, unique in the site.
    pub ip: IpAddr,
    /// The address as the configuration spells it, which is what reports name.
    pub ip_text: String,
    /// Its name.
    pub name: String,
    /// Where it stands; `""` where unknown.
    pub building: String,
    /// Where it stands; `""` where unknown.
    pub floor: String,
    /// Where it stands; `""` where unknown.
    pub room: String,
    /// What it is: `projector`, `display`, ...
    pub device_type: String,
    /// The driver as the configuration spells it.
    pub driver: String,
    /// How it is probed.
    pub settings: DriverSettings,
    /// The time between its probes; `None` where it goes with the sweeps.
    pub interval: Option<Duration>,
    /// What is expected of it.
    pub expectations: Expectations,
    /// Its settings that have no effect because their names are not known.
    pub unknown: Box<[UnknownSetting]>,
    /// `expectations` as they were sent, where the backend is an older one, that
    /// sends no `driver_config`: it takes them from reports, and what a report
    /// does not say is lost.
    pub echoed: Option<Box<str>>,
}

/// A device that the configuration names and that cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedDevice {
    /// Its place in `devices`, from 0.
    pub index: usize,
    /// Its address as written, where there is one.
    pub ip: Option<String>,
    /// Its name, where there is one.
    pub name: Option<String>,
    /// Each field that is not valid.
    pub errors: Vec<FieldError>,
}

impl SiteConfig {
    /// Validates a configuration. Devices that are not valid, or repeat an
    /// address, are set aside in [`SiteConfig::rejected`].
    ///
    /// # Errors
    /// Each field of the site itself that is not valid.
    pub fn validate(
        parts: &SiteParts<'_>,
        devices: &[Box<RawValue>],
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut warnings = Vec::new();

        if parts.site_name.trim().is_empty() {
            errors.push(FieldError::new("site_name", "is empty"));
        }
        let timezone = match parts.timezone {
            None => TimeZone::UTC,
            Some(name) => zone(name).unwrap_or_else(|| {
                warnings.push(FieldError::new(
                    "timezone",
                    format!("{name:?} is not an IANA time zone, UTC is used"),
                ));
                TimeZone::UTC
            }),
        };
        let doubt_after_days = match parts.doubt_after_days.unwrap_or(2) {
            days @ 0..=36_500 => u32::try_from(days).unwrap_or_default(),
            days => {
                errors.push(FieldError::new(
                    "doubt_after_days",
                    format!("{days} is not between 0 and 36500"),
                ));
                0
            }
        };
        let reporting = parts.reporting.unwrap_or(ReportingDocument {
            ok_interval_s: None,
            ko_interval_s: None,
        });
        let mut interval = |field: &str, given: Option<i64>, default: u32, least: u32| {
            let seconds = given.unwrap_or(i64::from(default));
            match u32::try_from(seconds) {
                // The contract's least value stands for anything below it.
                Ok(seconds) if seconds <= 86_400 => seconds.max(least),
                _ => {
                    errors.push(FieldError::new(
                        field,
                        format!("{seconds} is not between 0 and 86400 seconds"),
                    ));
                    default
                }
            }
        };
        let ok_interval_s = interval(
            "reporting.ok_interval_s",
            reporting.ok_interval_s,
            OK_INTERVAL_DEFAULT_S,
            OK_INTERVAL_MIN_S,
        );
        let ko_interval_s = interval(
            "reporting.ko_interval_s",
            reporting.ko_interval_s,
            KO_INTERVAL_DEFAULT_S,
            KO_INTERVAL_MIN_S,
        );
        if !errors.is_empty() {
            return Err(errors);
        }

        let mut config = Self {
            site_name: parts.site_name.to_owned(),
            timezone,
            doubt_after_days,
            ok_interval_s,
            ko_interval_s,
            devices: Vec::with_capacity(devices.len()),
            rejected: Vec::new(),
            warnings,
        };
        config.take_devices(devices);
        Ok(config)
    }

    fn take_devices(&mut self, devices: &[Box<RawValue>]) {
        let mut seen: HashMap<IpAddr, usize> = HashMap::with_capacity(devices.len());
        for (index, raw) in devices.iter().enumerate() {
            let mut warnings = Vec::new();
            let parsed = Device::parse(raw.get(), &self.timezone, &mut warnings).and_then(
                |device| match seen.get(&device.ip) {
                    Some(first) => Err(vec![FieldError::new(
                        "ip",
                        format!("{} is that of devices[{first}] already", device.ip),
                    )]),
                    None => Ok(device),
                },
            );
            match parsed {
                Ok(device) => {
                    seen.insert(device.ip, index);
                    self.warnings.extend(
                        warnings
                            .into_iter()
                            .map(|warning| in_device(index, warning)),
                    );
                    self.devices.push(Arc::new(device));
                }
                Err(errors) => {
                    let text = |field: &str| {
                        serde_json::from_str::<HashMap<String, serde_json::Value>>(raw.get())
                            .ok()
                            .and_then(|fields| Some(fields.get(field)?.as_str()?.to_owned()))
                    };
                    self.rejected.push(RejectedDevice {
                        index,
                        ip: text("ip"),
                        name: text("name"),
                        errors,
                    });
                }
            }
        }
    }
}

impl Device {
    /// Reads and validates one device's JSON text. A schedule whose zone does
    /// not exist takes `site_zone`, and `warnings` says so.
    ///
    /// # Errors
    /// Each field that is not valid, and then each that is not known: the one
    /// may be missing because the other is misspelt.
    pub fn parse(
        json: &str,
        site_zone: &TimeZone,
        warnings: &mut Vec<FieldError>,
    ) -> Result<Self, Vec<FieldError>> {
        let document: DeviceDocument = from_json(json.as_bytes()).map_err(|e| vec![e])?;
        let mut errors = Vec::new();

        let ip = document.ip.parse::<IpAddr>().ok();
        if ip.is_none() {
            errors.push(FieldError::new(
                "ip",
                format!("{:?} is not an IP address", document.ip),
            ));
        }
        let (settings, interval) = match document.sections() {
            Ok(sections) => (
                DriverSettings::parse(&document.driver, &sections)
                    .map_err(|e| errors.extend(e))
                    .ok(),
                own_interval(&sections).map_err(|e| errors.push(e)).ok(),
            ),
            Err(error) => {
                errors.push(error);
                (None, None)
            }
        };
        let expectations = match &document.expectations {
            None => Some(Expectations::default()),
            Some(raw) => parse_expectations(raw.get(), site_zone, warnings)
                .map_err(|e| {
                    errors.extend(e.into_iter().map(|error| error.under("expectations")));
                })
                .ok(),
        };
        let unknown = document.unknown();
        let echoed = match (&document.driver_config, &document.expectations) {
            (None, Some(raw)) => Some(raw.get().into()),
            _ => None,
        };
        match (ip, settings, interval, expectations) {
            (Some(ip), Some(settings), Some(interval), Some(expectations)) => Ok(Self {
                ip,
                ip_text: document.ip,
                name: document.name,
                building: document.building.unwrap_or_default(),
                floor: document.floor.unwrap_or_default(),
                room: document.room.unwrap_or_default(),
                device_type: document.device_type.unwrap_or_default(),
                driver: document.driver,
                settings,
                interval,
                expectations,
                unknown: unknown.into(),
                echoed,
            }),
            _ => {
                errors.extend(unknown.iter().map(FieldError::from));
                Err(errors)
            }
        }
    }
}

impl DeviceDocument {
    /// The `driver_config` by sections; from `snmp` and `pjlink` where the
    /// backend is an older one that does not send it.
    fn sections(&self) -> Result<Sections, FieldError> {
        match &self.driver_config {
            Some(raw) => {
                from_json(raw.get().as_bytes()).map_err(|error| error.under("driver_config"))
            }
            None => {
                let mut sections = Sections::new();
                sections.insert("snmp".to_owned(), self.snmp.clone());
                sections.insert("pjlink".to_owned(), self.pjlink.clone());
                Ok(sections)
            }
        }
    }

    fn unknown(&self) -> Vec<UnknownSetting> {
        fn text(raw: Option<&RawValue>) -> &str {
            raw.map_or("{}", RawValue::get)
        }
        let expectations = text(self.expectations.as_deref());
        match &self.driver_config {
            Some(raw) => unknown_settings(&self.driver, raw.get(), expectations),
            None => {
                let (snmp, pjlink) = (text(self.snmp.as_deref()), text(self.pjlink.as_deref()));
                let sections = format!("{{\"snmp\":{snmp},\"pjlink\":{pjlink}}}");
                unknown_settings(&self.driver, &sections, expectations)
            }
        }
    }
}

/// `expectations` as they are written.
#[derive(Deserialize)]
pub(crate) struct ExpectationsDocument {
    always_on: Option<bool>,
    alert_after_s: Option<i64>,
    schedule: Option<ScheduleDocument>,
}

#[derive(Deserialize)]
struct ScheduleDocument {
    timezone: Option<String>,
    rules: Option<Vec<RuleDocument>>,
}

/// Reads `expectations`; a field that is null counts as absent.
///
/// # Errors
/// Each field that is not valid.
pub fn parse_expectations(
    json: &str,
    site_zone: &TimeZone,
    warnings: &mut Vec<FieldError>,
) -> Result<Expectations, Vec<FieldError>> {
    let document: ExpectationsDocument = from_json(json.as_bytes()).map_err(|e| vec![e])?;
    let mut errors = Vec::new();
    let alert_after_s = match document.alert_after_s {
        None => ALERT_AFTER_DEFAULT_S,
        Some(seconds) => match u32::try_from(seconds) {
            Ok(seconds) => seconds.max(ALERT_AFTER_MIN_S),
            Err(_) => {
                errors.push(FieldError::new(
                    "alert_after_s",
                    format!("{seconds} is not a number of seconds"),
                ));
                ALERT_AFTER_DEFAULT_S
            }
        },
    };
    let schedule = document.schedule.map(|schedule| {
        let zone = match schedule.timezone.as_deref() {
            None => site_zone.clone(),
            Some(name) => zone(name).unwrap_or_else(|| {
                warnings.push(FieldError::new(
                    "expectations.schedule.timezone",
                    format!("{name:?} is not an IANA time zone, the site's is used"),
                ));
                site_zone.clone()
            }),
        };
        let mut rules = Vec::new();
        for (i, rule) in schedule.rules.unwrap_or_default().iter().enumerate() {
            match rule.validate() {
                Ok(rule) => rules.push(rule),
                Err(bad) => errors.extend(
                    bad.into_iter()
                        .map(|error| error.under(&format!("schedule.rules[{i}]"))),
                ),
            }
        }
        Schedule { zone, rules }
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Expectations {
        always_on: document.always_on.unwrap_or(false),
        alert_after_s,
        schedule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"{
      "config_hash": "00000000000000000000000000000000",
      "site_name": "Site Paris", "timezone": "Europe/Paris", "doubt_after_days": 2,
      "reporting": {"ok_interval_s": 300, "ko_interval_s": 60},
      "devices": [{
        "ip": "192.168.1.10", "name": "Projecteur Salle A",
        "building": "Bâtiment A", "floor": "1", "room": "Salle 101",
        "type": "projector", "driver": "pjlink",
        "snmp": {}, "pjlink": {"password": "admin", "port": 4352, "timeout_s": 2},
        "expectations": {
          "always_on": false, "alert_after_s": 300,
          "schedule": {"timezone": "Europe/Paris",
            "rules": [{"days": ["mon","tue","wed","thu","fri"], "start": "08:00", "end": "18:00"}]}
        }
      }]
    }"#;

    fn validate(document: &SiteDocument) -> Result<SiteConfig, Vec<FieldError>> {
        SiteConfig::validate(&document.parts(), &document.devices)
    }

    fn devices(json: &str) -> SiteConfig {
        let devices: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
        let parts = SiteParts {
            site_name: "S",
            ..SiteParts::default()
        };
        SiteConfig::validate(&parts, &devices).unwrap()
    }

    #[test]
    fn an_older_backend_gets_its_expectations_back_as_it_sent_them() {
        for (fields, echoed) in [
            (
                r#""expectations": {"alert_after_s": 300, "x": [ 1 ]}"#,
                Some(r#"{"alert_after_s": 300, "x": [ 1 ]}"#),
            ),
            (r#""expectations": {}, "snmp": {}"#, Some("{}")),
            (r#""expectations": null"#, None),
            (r#""snmp": {}"#, None),
            (
                r#""expectations": {"always_on": true}, "driver_config": {}"#,
                None,
            ),
        ] {
            let json = format!(r#"{{"ip": "10.0.0.1", "name": "P", "driver": "ping", {fields}}}"#);
            let device = Device::parse(&json, &TimeZone::UTC, &mut Vec::new());
            let found = match device {
                Ok(device) => device.echoed,
                Err(errors) => panic!("{fields}: {errors:?}"),
            };
            assert_eq!(found.as_deref(), echoed, "{fields}");
        }
    }

    #[test]
    fn the_contracts_example_is_valid() {
        let config = validate(&SiteDocument::parse(CONTRACT.as_bytes()).unwrap()).unwrap();
        assert_eq!(config.site_name, "Site Paris");
        assert_eq!((config.ok_interval_s, config.ko_interval_s), (300, 60));
        assert_eq!(config.rejected, []);
        assert_eq!(config.warnings, []);
        let [device] = &config.devices[..] else {
            panic!("{config:?}")
        };
        assert_eq!(device.room, "Salle 101");
        let DriverSettings::Pjlink(settings) = &device.settings else {
            panic!("{device:?}")
        };
        assert_eq!(settings.password.as_ref().unwrap().expose(), "admin");
        assert_eq!(
            device.expectations.schedule.as_ref().unwrap().rules.len(),
            1
        );
        assert!(!format!("{config:?}").contains("admin"));
    }

    #[test]
    fn a_device_that_has_its_driver_config_twice_is_no_older_backends() {
        let text = r#"{"config_hash":"00000000000000000000000000000000","site_name":"S",
            "timezone":"UTC","doubt_after_days":2,"reporting":{},
            "devices":[{"ip":"10.0.0.1","name":"P","building":"","floor":"","room":"",
                "type":"display","driver":"ping","snmp":{},"pjlink":{},"expectations":{},
                "driver_config":{},"driver_config":{"ping":{}}}]}"#;
        let document = SiteDocument::parse(text.as_bytes()).unwrap();
        assert!(matches!(document.verify_hash(), Err(HashError::Field(_))));
    }

    #[test]
    fn without_driver_config_the_backends_hash_is_trusted_and_with_it_checked() {
        let mut document = SiteDocument::parse(CONTRACT.as_bytes()).unwrap();
        document.verify_hash().unwrap();

        let body = CONTRACT.replace(
            "\"expectations\"",
            "\"driver_config\": {\"pjlink\": {\"x\": 1.50}}, \"expectations\"",
        );
        document = SiteDocument::parse(body.as_bytes()).unwrap();
        let error = document.verify_hash().unwrap_err();
        let HashError::Mismatch { computed, .. } = error else {
            panic!("{error}")
        };
        document.config_hash = computed;
        document.verify_hash().unwrap();
        document.site_name.push('!');
        assert!(document.verify_hash().is_err());
    }

    #[test]
    fn a_bad_device_is_set_aside_and_the_good_ones_stay() {
        let config = devices(
            r#"[
              {"ip":"10.0.0.1","name":"a","driver":"ping"},
              {"ip":"projector","name":"b","driver":"pjlink","driver_config":{"pjlink":{"port":0}},
               "expectations":{"alert_after_s":-1,"schedule":{"rules":[{"days":["mon"],"start":"x","end":"09:00"}]}}},
              {"ip":5,"name":"c","driver":"ping"},
              7,
              {"ip":"10.0.0.1","name":"d","driver":"ping"},
              {"ip":"10.0.0.2","name":"e","driver":"ping","driver_config":[],"expectations":null},
              {"ip":"10.0.0.3","name":"f","driver":"ping","expectations":{"always_on":1}},
              {"ip":"::1","name":"g","driver":"future"}
            ]"#,
        );
        let good: Vec<&str> = config.devices.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(good, ["a", "g"]);
        let said: Vec<(usize, Option<&str>, Vec<String>)> = config
            .rejected
            .iter()
            .map(|r| {
                let errors = r.errors.iter().map(ToString::to_string).collect();
                (r.index, r.ip.as_deref(), errors)
            })
            .collect();
        assert_eq!(
            said,
            [
                (
                    1,
                    Some("projector"),
                    vec![
                        "ip: \"projector\" is not an IP address".to_owned(),
                        "driver_config.pjlink.port: 0 is not a port (1 to 65535)".to_owned(),
                        "expectations.alert_after_s: -1 is not a number of seconds".to_owned(),
                        "expectations.schedule.rules[0].start: \"x\" is not a time such as 08:00"
                            .to_owned(),
                    ]
                ),
                (2, None, vec!["ip: is a number, not a text".to_owned()]),
                (
                    3,
                    None,
                    vec!["document: is a number, not an object".to_owned()]
                ),
                (
                    4,
                    Some("10.0.0.1"),
                    vec!["ip: 10.0.0.1 is that of devices[0] already".to_owned()]
                ),
                (
                    5,
                    Some("10.0.0.2"),
                    vec!["driver_config: is a list, not an object".to_owned()]
                ),
                (
                    6,
                    Some("10.0.0.3"),
                    vec!["expectations.always_on: is a number, not true or false".to_owned()]
                ),
            ]
        );
    }

    #[test]
    fn a_bad_zone_falls_back_and_is_said() {
        let mut document = SiteDocument::parse(CONTRACT.as_bytes()).unwrap();
        document.timezone = "Mars/Olympus".to_owned();
        let config = validate(&document).unwrap();
        assert_eq!(config.timezone, TimeZone::UTC);
        assert_eq!(
            config.warnings[0].to_string(),
            "timezone: \"Mars/Olympus\" is not an IANA time zone, UTC is used"
        );

        let body = CONTRACT.replacen(
            "\"schedule\": {\"timezone\": \"Europe/Paris\"",
            "\"schedule\": {\"timezone\": \"Paris\"",
            1,
        );
        let config = validate(&SiteDocument::parse(body.as_bytes()).unwrap()).unwrap();
        let schedule = config.devices[0].expectations.schedule.as_ref().unwrap();
        assert_eq!(schedule.zone.iana_name(), Some("Europe/Paris"));
        assert_eq!(
            config.warnings[0].to_string(),
            "devices[0].expectations.schedule.timezone: \"Paris\" is not an IANA time zone, the site's is used"
        );
    }

    #[test]
    fn the_sites_own_fields_are_checked_and_small_intervals_raised() {
        let mut document = SiteDocument::parse(CONTRACT.as_bytes()).unwrap();
        document.site_name = " ".to_owned();
        document.doubt_after_days = -1;
        document.reporting.ok_interval_s = Some(-5);
        let said: Vec<String> = validate(&document)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "site_name: is empty",
                "doubt_after_days: -1 is not between 0 and 36500",
                "reporting.ok_interval_s: -5 is not between 0 and 86400 seconds",
            ]
        );
        let mut document = SiteDocument::parse(CONTRACT.as_bytes()).unwrap();
        document.reporting.ok_interval_s = Some(1);
        document.reporting.ko_interval_s = Some(1);
        let config = validate(&document).unwrap();
        assert_eq!((config.ok_interval_s, config.ko_interval_s), (60, 15));
    }

    #[test]
    fn a_body_of_another_shape_names_the_field() {
        for (body, said) in [
            (
                "",
                "document: is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            ("[]", "document: is a list, not an object"),
            // Not even the fields in their order.
            (
                r#"["00000000000000000000000000000000","a","UTC",2,{},[]]"#,
                "document: is a list, not an object",
            ),
            (
                r#"{"config_hash":"x"}"#,
                "config_hash: is not 32 hex digits",
            ),
            (
                r#"{"config_hash":"00000000000000000000000000000000","site_name":"a","timezone":null}"#,
                "timezone: is null, not a text",
            ),
        ] {
            assert_eq!(
                SiteDocument::parse(body.as_bytes())
                    .unwrap_err()
                    .to_string(),
                said
            );
        }
    }
}
