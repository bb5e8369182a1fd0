//! The settings of each driver, from `driver_config` to validated values.

mod http;
mod ping;
mod pjlink;
mod snmp;
mod tcp;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::value::RawValue;

pub use http::HttpSettings;
pub use ping::PingSettings;
pub use pjlink::PjlinkSettings;
pub use snmp::{
    Limits, Oid, PROFILES, Profile, Reading, ReadingKind, SnmpAccess, SnmpAuth, SnmpCipher,
    SnmpHash, SnmpPriv, SnmpSecurity, SnmpSettings, SnmpUser, Thresholds,
};
pub use tcp::{Banner, TcpSettings};

use crate::FieldError;
use crate::field::from_json;
use crate::shape::{Shape, shape_of};

/// The registry: the name of each driver, and the module, variant and type of
/// its settings.
macro_rules! drivers {
    ($($(#[$about:meta])* $name:literal => $module:ident::$variant:ident($settings:ident),)*) => {
        /// How a device is probed.
        #[derive(Debug, Clone, PartialEq)]
        pub enum DriverSettings {
            $($(#[$about])* $variant($settings),)*
            /// A driver that this crate does not know: whoever has it reads its
            /// settings itself.
            Other {
                /// Its name.
                driver: String,
                /// Its section of `driver_config`, a JSON text; `{}` where
                /// absent.
                section: String,
            },
        }

        impl DriverSettings {
            /// The driver's name, in lower case.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $name,)*
                    Self::Other { driver, .. } => driver,
                }
            }

            /// What a device that does not answer costs: the time-out, as
            /// often as it is waited for. A sweep's deadline is made from it.
            #[must_use]
            pub fn budget(&self) -> Duration {
                match self {
                    $(Self::$variant(settings) => settings.budget(),)*
                    Self::Other { .. } => OTHER_BUDGET,
                }
            }

            /// What a probe takes at the most, whatever the device does: one
            /// that lives and is slow may cost more than a dead one. The
            /// driver's engine ends a probe then.
            #[must_use]
            pub fn limit(&self) -> Duration {
                match self {
                    $(Self::$variant(settings) => settings.limit(),)*
                    Self::Other { .. } => OTHER_LIMIT,
                }
            }

            fn parse_section(name: &str, section: &[u8]) -> Result<Self, Vec<FieldError>> {
                match name {
                    $($name => from_json(section)
                        .map_err(|e| vec![e])
                        .and_then(|document: $module::Document| document.validate())
                        .map(Self::$variant),)*
                    _ => Ok(Self::Other {
                        driver: name.to_owned(),
                        section: String::from_utf8_lossy(section).into_owned(),
                    }),
                }
            }
        }

        /// The names of the drivers here.
        const NAMES: &[&str] = &[$($name),*];

        /// The fields of a driver's section; `None` where the driver is not
        /// one of these.
        fn section_shape(name: &str) -> Option<&'static Shape> {
            match name {
                $($name => {
                    static FIELDS: LazyLock<Shape> = LazyLock::new(shape_of::<$module::Document>);
                    Some(&*FIELDS)
                })*
                _ => None,
            }
        }
    };
}

drivers! {
    /// ICMP echo.
    "ping" => ping::Ping(PingSettings),
    /// SNMP of versions 1, 2c and 3.
    "snmp" => snmp::Snmp(SnmpSettings),
    /// PJLink over TCP.
    "pjlink" => pjlink::Pjlink(PjlinkSettings),
    /// A TCP service.
    "tcp" => tcp::Tcp(TcpSettings),
    /// A web server.
    "http" => http::Http(HttpSettings),
}

/// The budget of a driver that this crate does not know.
const OTHER_BUDGET: Duration = Duration::from_secs(5);
/// And its limit.
const OTHER_LIMIT: Duration = Duration::from_secs(60);

/// The least interval of a device's own, in seconds.
pub const INTERVAL_MIN_S: u32 = 15;
const INTERVAL_MAX_S: u32 = 86_400;

/// The sections of a `driver_config`, by driver.
pub type Sections = BTreeMap<String, Option<Box<RawValue>>>;

impl DriverSettings {
    /// Reads the section of `driver` from a `driver_config` split into
    /// sections. An absent section means the driver's defaults.
    ///
    /// # Errors
    /// Each field that is not valid, named from the `driver_config`'s root.
    pub fn parse(driver: &str, sections: &Sections) -> Result<Self, Vec<FieldError>> {
        let name = driver.trim().to_ascii_lowercase();
        let section = sections
            .get(&name)
            .and_then(Option::as_ref)
            .map_or("{}", |raw| raw.get())
            .as_bytes();
        if name.is_empty() {
            return Err(vec![FieldError::new("driver", "is empty")]);
        }
        let parsed = Self::parse_section(&name, section);
        parsed.map_err(|errors| {
            errors
                .into_iter()
                .map(|error| error.under(&format!("driver_config.{name}")))
                .collect()
        })
    }
}

/// What is not one driver's, and drivers that newer agents have: sections that
/// these read themselves.
const OTHER_FIELDS: [&str; 2] = ["interval_s", "protocol"];

/// The fields of the `driver_config` of a device with this driver. Nothing is
/// said of what other drivers' sections hold.
pub(crate) fn shape(driver: &str) -> Shape {
    let driver = driver.trim().to_ascii_lowercase();
    let fields = NAMES.iter().chain(&OTHER_FIELDS).map(|&name| {
        let own = section_shape(name).filter(|_| name == driver);
        (name, own.cloned().unwrap_or(Shape::Any))
    });
    Shape::Fields(fields.collect())
}

/// `driver_config.interval_s`: the time between probes of this device, in whole
/// seconds; less than [`INTERVAL_MIN_S`] counts as that. `None` where the
/// device goes with the site's sweeps.
///
/// # Errors
/// When it is not a number of seconds up to a day.
pub fn own_interval(sections: &Sections) -> Result<Option<Duration>, FieldError> {
    let Some(Some(raw)) = sections.get("interval_s") else {
        return Ok(None);
    };
    let seconds: i64 =
        from_json(raw.get().as_bytes()).map_err(|error| error.under("driver_config.interval_s"))?;
    match u32::try_from(seconds) {
        Ok(seconds) if seconds <= INTERVAL_MAX_S => Ok(Some(Duration::from_secs(u64::from(
            seconds.max(INTERVAL_MIN_S),
        )))),
        _ => Err(FieldError::new(
            "driver_config.interval_s",
            format!("{seconds} is not between 0 and {INTERVAL_MAX_S} seconds"),
        )),
    }
}

/// A time-out in seconds, whole or not: above 0 and at most a minute.
fn timeout(
    field: &str,
    given: Option<f64>,
    default: Duration,
    errors: &mut Vec<FieldError>,
) -> Duration {
    match given {
        None => default,
        Some(seconds) if seconds > 0.0 && seconds <= 60.0 => Duration::from_secs_f64(seconds),
        Some(seconds) => {
            errors.push(FieldError::new(
                field,
                format!("{seconds} is not above 0 and at most 60 seconds"),
            ));
            default
        }
    }
}

/// A port number: 1 to 65535.
fn port(field: &str, given: Option<i64>, default: u16, errors: &mut Vec<FieldError>) -> u16 {
    match given {
        None => default,
        Some(number) => match u16::try_from(number) {
            Ok(port) if port > 0 => port,
            _ => {
                errors.push(FieldError::new(
                    field,
                    format!("{number} is not a port (1 to 65535)"),
                ));
                default
            }
        },
    }
}

/// A small count between `least` and `most`.
fn count(
    field: &str,
    given: Option<i64>,
    default: u8,
    (least, most): (u8, u8),
    errors: &mut Vec<FieldError>,
) -> u8 {
    match given {
        None => default,
        Some(number) => match u8::try_from(number) {
            Ok(count) if (least..=most).contains(&count) => count,
            _ => {
                errors.push(FieldError::new(
                    field,
                    format!("{number} is not between {least} and {most}"),
                ));
                default
            }
        },
    }
}

fn settled<T>(settings: T, errors: Vec<FieldError>) -> Result<T, Vec<FieldError>> {
    if errors.is_empty() {
        Ok(settings)
    } else {
        Err(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn parse(driver: &str, driver_config: &str) -> Result<DriverSettings, Vec<String>> {
        let sections: Sections = serde_json::from_str(driver_config).unwrap();
        DriverSettings::parse(driver, &sections)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn absent_and_null_sections_mean_the_defaults() {
        for config in ["{}", r#"{"pjlink":{}}"#, r#"{"pjlink":null,"other":[1]}"#] {
            assert_eq!(
                parse("pjlink", config).unwrap(),
                DriverSettings::Pjlink(PjlinkSettings {
                    password: None,
                    port: 4352,
                    timeout: Duration::from_secs(2),
                })
            );
        }
        assert_eq!(
            parse("SNMP ", "{}").unwrap(),
            DriverSettings::Snmp(SnmpSettings {
                access: SnmpAccess::V2c {
                    community: Secret::new("public"),
                },
                port: 161,
                timeout: Duration::from_secs(2),
                retries: 1,
                readings: [].into(),
            })
        );
        assert_eq!(
            parse("ping", "{}").unwrap(),
            DriverSettings::Ping(PingSettings {
                count: 3,
                timeout: Duration::from_secs(1),
            })
        );
    }

    #[test]
    fn settings_are_read() {
        assert_eq!(
            parse(
                "pjlink",
                r#"{"pjlink":{"password":"admin","port":4353,"timeout_s":0.5,"new":1}}"#
            )
            .unwrap(),
            DriverSettings::Pjlink(PjlinkSettings {
                password: Some(Secret::new("admin")),
                port: 4353,
                timeout: Duration::from_millis(500),
            })
        );
        // An empty password is no password.
        let DriverSettings::Pjlink(settings) =
            parse("pjlink", r#"{"pjlink":{"password":""}}"#).unwrap()
        else {
            panic!("not pjlink");
        };
        assert_eq!(settings.password, None);
        assert!(parse("snmp", r#"{"snmp":{"version":2,"retries":0}}"#).is_ok());
        assert!(parse("snmp", r#"{"snmp":{"version":"v2c"}}"#).is_ok());
    }

    #[test]
    fn every_bad_field_is_named() {
        for (driver, config, said) in [
            (
                "pjlink",
                r#"{"pjlink":{"port":70000,"timeout_s":0,"password":"éé"}}"#,
                vec![
                    "driver_config.pjlink.port: 70000 is not a port (1 to 65535)",
                    "driver_config.pjlink.timeout_s: 0 is not above 0 and at most 60 seconds",
                    "driver_config.pjlink.password: is not 1 to 32 printable ASCII characters",
                ],
            ),
            // What is wrong with a secret is said without it.
            (
                "pjlink",
                r#"{"pjlink":{"password":12345678}}"#,
                vec!["driver_config.pjlink.password: is a number, not a text"],
            ),
            (
                "pjlink",
                r#"{"pjlink":"geheim7"}"#,
                vec!["driver_config.pjlink: is a text, not an object"],
            ),
            (
                "snmp",
                r#"{"snmp":{"port":"161"}}"#,
                vec!["driver_config.snmp.port: is a text, not a whole number"],
            ),
            (
                "snmp",
                r#"{"snmp":{"version":"4","community":"","retries":9}}"#,
                vec![
                    "driver_config.snmp.retries: 9 is not between 0 and 5",
                    "driver_config.snmp.version: \"4\" is not \"1\", \"2c\" or \"3\"",
                    "driver_config.snmp.community: is empty",
                ],
            ),
            (
                "ping",
                r#"{"ping":{"count":0}}"#,
                vec!["driver_config.ping.count: 0 is not between 1 and 20"],
            ),
            (
                "ping",
                r#"{"ping":[]}"#,
                vec!["driver_config.ping: is a list, not an object"],
            ),
            (
                "tcp",
                "{}",
                vec!["driver_config.tcp.port: is missing: the driver tcp has none by default"],
            ),
            ("", "{}", vec!["driver: is empty"]),
        ] {
            assert_eq!(parse(driver, config).unwrap_err(), said);
        }
    }

    #[test]
    fn a_device_may_have_an_interval_of_its_own() {
        for (config, seconds) in [
            ("{}", Ok(None)),
            (r#"{"interval_s":null}"#, Ok(None)),
            (r#"{"interval_s":30,"ping":{}}"#, Ok(Some(30))),
            (r#"{"interval_s":1}"#, Ok(Some(15))),
            (r#"{"interval_s":86400}"#, Ok(Some(86_400))),
            (
                r#"{"interval_s":86401}"#,
                Err("driver_config.interval_s: 86401 is not between 0 and 86400 seconds"),
            ),
            (
                r#"{"interval_s":-1}"#,
                Err("driver_config.interval_s: -1 is not between 0 and 86400 seconds"),
            ),
        ] {
            let sections: Sections = serde_json::from_str(config).unwrap();
            let interval = own_interval(&sections).map_err(|error| error.to_string());
            let expected = seconds
                .map(|seconds| seconds.map(Duration::from_secs))
                .map_err(str::to_owned);
            assert_eq!(interval, expected, "{config}");
        }
        let sections: Sections = serde_json::from_str(r#"{"interval_s":"5 min"}"#).unwrap();
        let error = own_interval(&sections).unwrap_err();
        assert_eq!(error.field, "driver_config.interval_s");
    }

    #[test]
    fn the_dead_cost_their_budget_and_nobody_more_than_the_limit() {
        for (driver, config, budget, limit) in [
            ("ping", r#"{"ping":{"count":3,"timeout_s":1}}"#, 1500, 1500),
            (
                "snmp",
                r#"{"snmp":{"retries":2,"timeout_s":0.5}}"#,
                1500,
                6000,
            ),
            ("pjlink", "{}", 2000, 11_000),
            ("tcp", r#"{"tcp":{"port":23}}"#, 2000, 4000),
            ("http", "{}", 5000, 5000),
            ("telnet", "{}", 5000, 60_000),
        ] {
            let settings = parse(driver, config).unwrap();
            let ms = Duration::from_millis;
            assert_eq!(settings.budget(), ms(budget), "{driver}");
            assert_eq!(settings.limit(), ms(limit), "{driver}");
        }
    }

    #[test]
    fn an_unknown_driver_is_kept_by_name() {
        assert_eq!(
            parse("Telnet", "{}").unwrap(),
            DriverSettings::Other {
                driver: "telnet".to_owned(),
                section: "{}".to_owned(),
            }
        );
    }
}
