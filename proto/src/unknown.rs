//! Settings that no reader knows: misspelt ones, most of them.
//!
//! Such a setting is no error, because a newer agent may know it. It is kept
//! as it is written, and named as unknown with the nearest known one wherever
//! a person reads about the device.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FieldError;
use crate::config::ExpectationsDocument;
use crate::driver;
use crate::nearest::nearest;
use crate::shape::{Shape, shape_of};
use crate::text::excerpt;

/// The most that are named of one device.
pub const UNKNOWN_MAX: usize = 20;
/// The most characters of a name that are shown.
const NAME_MAX: usize = 60;

/// A setting that is stored and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownSetting {
    /// Where it is in the device, dotted: `driver_config.pjlink.pasword`. Safe
    /// to print.
    pub path: String,
    /// Its name as it is written: `pasword`. Safe to print.
    pub name: String,
    /// The known setting that may have been meant, from the object in which
    /// the unknown one is: `password`, or `schedule.rules` where it belongs
    /// further inside.
    pub nearest: Option<String>,
}

impl UnknownSetting {
    /// What is wrong, as a clause after the path.
    #[must_use]
    pub fn problem(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("is not a known setting; the nearest is {nearest:?}"),
            None => "is not a known setting".to_owned(),
        }
    }
}

impl fmt::Display for UnknownSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem())
    }
}

impl From<&UnknownSetting> for FieldError {
    fn from(unknown: &UnknownSetting) -> Self {
        Self::new(&unknown.path, unknown.problem())
    }
}

/// The settings of a device that no reader knows, [`UNKNOWN_MAX`] at most.
///
/// `driver_config` and `expectations` are JSON texts. What is not JSON, or is
/// of another type than it must be, has no unknown settings: the readers name
/// it. The section of a driver that is not the device's own is left alone: it
/// waits for the day on which the driver is changed back.
#[must_use]
pub fn unknown_settings(
    driver: &str,
    driver_config: &str,
    expectations: &str,
) -> Vec<UnknownSetting> {
    static EXPECTATIONS: LazyLock<Shape> =
        LazyLock::new(|| shape_of::<ExpectationsDocument>().with("health", health()));

    let mut unknown = Vec::new();
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let config = driver::shape(driver);
    look(&read(driver_config), &config, "driver_config", &mut unknown);
    // A driver that this version does not know reads its own section itself.
    let own = format!("driver_config.{}", driver.trim().to_ascii_lowercase());
    unknown.retain(|it| it.path != own);
    let expectations = read(expectations);
    look(&expectations, &EXPECTATIONS, "expectations", &mut unknown);
    unknown
}

/// `expectations.health`, as the contract names it.
fn health() -> Shape {
    let fields = |names: &[&'static str]| {
        let field = |name: &&'static str| (*name, Shape::Any);
        Shape::Fields(names.iter().map(field).collect())
    };
    let limits = || fields(&["min", "max"]);
    let rule = fields(&["reading", "for_s", "clear_by"])
        .with("warn", limits())
        .with("crit", limits());
    fields(&["ignore", "lamp_life_h", "left_on_after_s"]).with("rules", Shape::List(Box::new(rule)))
}

fn look(value: &Value, shape: &Shape, path: &str, unknown: &mut Vec<UnknownSetting>) {
    match (value, shape) {
        (Value::Array(items), Shape::List(item)) => {
            for (index, value) in items.iter().enumerate() {
                look(value, item, &format!("{path}[{index}]"), unknown);
            }
        }
        (Value::Object(members), Shape::Fields(fields)) => {
            for (name, value) in members {
                // A note: the Python system keeps _password_updated_at there.
                if name.starts_with('_') {
                    continue;
                }
                let shown = excerpt(name, NAME_MAX);
                let path = format!("{path}.{shown}");
                match fields.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => look(value, shape, &path, unknown),
                    None if unknown.len() < UNKNOWN_MAX => unknown.push(UnknownSetting {
                        nearest: meant(name, fields),
                        path,
                        name: shown,
                    }),
                    None => return,
                }
            }
        }
        _ => {}
    }
}

/// Which of the fields may have been meant: one of the same name that belongs
/// further inside, or the one that is spelt most like it.
fn meant(name: &str, fields: &[(&'static str, Shape)]) -> Option<String> {
    let inside = fields.iter().find_map(|(outer, shape)| match shape {
        Shape::Fields(inner) => inner
            .iter()
            .any(|(known, _)| *known == name)
            .then(|| format!("{outer}.{name}")),
        _ => None,
    });
    let like = || nearest(name, fields.iter().map(|(known, _)| *known));
    inside.or_else(|| like().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(driver: &str, driver_config: &str, expectations: &str) -> Vec<String> {
        let unknown = unknown_settings(driver, driver_config, expectations);
        unknown.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_misspelt_is_named_with_the_nearest_known() {
        for (driver, config, path, nearest) in [
            (
                "pjlink",
                r#"{"pjlink":{"pasword":"x"}}"#,
                "pjlink.pasword",
                Some("password"),
            ),
            (
                "pjlink",
                r#"{"pjlink":{"prot":1,"port":2}}"#,
                "pjlink.prot",
                Some("port"),
            ),
            (
                "pjlink",
                r#"{"pjlink":{"Password":"x"}}"#,
                "pjlink.Password",
                Some("password"),
            ),
            (
                "pjlink",
                r#"{"pjlink":{"colour":1}}"#,
                "pjlink.colour",
                None,
            ),
            (
                "PJLink ",
                r#"{"pjlink":{"pass":"x"}}"#,
                "pjlink.pass",
                Some("password"),
            ),
            (
                "snmp",
                r#"{"snmp":{"comunity":"x"}}"#,
                "snmp.comunity",
                Some("community"),
            ),
            (
                "snmp",
                r#"{"snmp":{"v3":{"usr":"x"}}}"#,
                "snmp.v3.usr",
                Some("user"),
            ),
            // It belongs further inside.
            (
                "snmp",
                r#"{"snmp":{"auth_password":"x"}}"#,
                "snmp.auth_password",
                Some("v3.auth_password"),
            ),
            (
                "pjlink",
                r#"{"password":"x"}"#,
                "password",
                Some("pjlink.password"),
            ),
            (
                "snmp",
                r#"{"snmp":{"oids":[{"oid":"1.3","name":"a"},{"tresholds":{}}]}}"#,
                "snmp.oids[1].tresholds",
                Some("thresholds"),
            ),
            (
                "snmp",
                r#"{"snmp":{"oids":[{"thresholds":{"warn":{"mx":1}}}]}}"#,
                "snmp.oids[0].thresholds.warn.mx",
                Some("max"),
            ),
            (
                "snmp",
                r#"{"snmp":{"oids":[{"typ":"gauge"}]}}"#,
                "snmp.oids[0].typ",
                Some("type"),
            ),
            (
                "http",
                r#"{"http":{"body_macth":"x"}}"#,
                "http.body_macth",
                Some("body_match"),
            ),
            (
                "tcp",
                r#"{"tcp":{"timeout":1}}"#,
                "tcp.timeout",
                Some("timeout_s"),
            ),
            (
                "ping",
                r#"{"ping":{"counts":1}}"#,
                "ping.counts",
                Some("count"),
            ),
            // Sections.
            ("pjlink", r#"{"pjlnk":{}}"#, "pjlnk", Some("pjlink")),
            ("pjlink", r#"{"PJLink":{}}"#, "PJLink", Some("pjlink")),
            ("ping", r#"{"interval":60}"#, "interval", Some("interval_s")),
            ("ping", r#"{"zigbee":{"x":1}}"#, "zigbee", None),
        ] {
            assert_eq!(
                unknown_settings(driver, config, "{}"),
                [UnknownSetting {
                    path: format!("driver_config.{path}"),
                    name: path.rsplit('.').next().unwrap().to_owned(),
                    nearest: nearest.map(str::to_owned),
                }],
                "{config}"
            );
        }
    }

    #[test]
    fn expectations_are_looked_at_at_every_depth() {
        for (expectations, path, nearest) in [
            (r#"{"allways_on":true}"#, "allways_on", Some("always_on")),
            (r#"{"shedule":{}}"#, "shedule", Some("schedule")),
            (
                r#"{"alert_after":60}"#,
                "alert_after",
                Some("alert_after_s"),
            ),
            (r#"{"rules":[]}"#, "rules", Some("schedule.rules")),
            (
                r#"{"schedule":{"time_zone":"UTC"}}"#,
                "schedule.time_zone",
                Some("timezone"),
            ),
            (
                r#"{"schedule":{"rules":[{"day":["mon"],"start":"08:00","end":"09:00"}]}}"#,
                "schedule.rules[0].day",
                Some("days"),
            ),
            (
                r#"{"health":{"lamp_lif_h":1}}"#,
                "health.lamp_lif_h",
                Some("lamp_life_h"),
            ),
            (
                r#"{"health":{"rules":[{"reading":"a","warn":{"maxx":1}}]}}"#,
                "health.rules[0].warn.maxx",
                Some("max"),
            ),
        ] {
            assert_eq!(
                unknown_settings("ping", "{}", expectations),
                [UnknownSetting {
                    path: format!("expectations.{path}"),
                    name: path.rsplit('.').next().unwrap().to_owned(),
                    nearest: nearest.map(str::to_owned),
                }],
                "{expectations}"
            );
        }
    }

    #[test]
    fn what_is_known_or_of_another_driver_is_left_alone() {
        for (driver, config, expectations) in [
            (
                "pjlink",
                r#"{"interval_s":60,"pjlink":{"password":"x","port":1,"timeout_s":2},
                    "snmp":{"comunity":"x"},"tcp":{"x":1},"http":null,"ping":[],"protocol":{"a":1}}"#,
                r#"{"always_on":true,"alert_after_s":300,
                    "schedule":{"timezone":"UTC","rules":[{"days":["mon"],"start":"08:00","end":"09:00"}]},
                    "health":{"ignore":["pjlink_filter"],"lamp_life_h":4000,"left_on_after_s":3600,
                    "rules":[{"reading":"a","warn":{"max":35,"min":1},"crit":{"max":45},"for_s":300,"clear_by":2}]}}"#,
            ),
            (
                "snmp",
                r#"{"snmp":{"community":"x","port":1,"timeout_s":2,"retries":1,"version":3,"profile":"ups",
                    "v3":{"user":"u","level":"authPriv","auth_protocol":"SHA","auth_password":"x",
                          "priv_protocol":"AES","priv_password":"x","context":""},
                    "oids":[{"oid":"1","name":"a","type":"enum","scale":1,"unit":"%","values":{"1":"on","own":"x"},
                             "label_oid":"1","percent_of":"1",
                             "thresholds":{"warn":{"min":1,"max":2},"crit":null,"expected":["on"]}}]}}"#,
                "null",
            ),
            (
                "http",
                r#"{"http":{"tls":true,"port":1,"path":"/","host":"a","expect_status":[200,"2xx"],
                    "body_match":"a","expiry_warn_days":1,"timeout_s":1}}"#,
                "{}",
            ),
            (
                "tcp",
                r#"{"tcp":{"port":1,"timeout_s":1,"send":"a","banner":"a","banner_regex":"a"}}"#,
                "{}",
            ),
            ("ping", r#"{"ping":{"count":1,"timeout_s":1}}"#, "{}"),
            // The notes of the Python system.
            (
                "pjlink",
                r#"{"pjlink":{"password":"x","_password_updated_at":"2026-01-01"}}"#,
                "{}",
            ),
            ("telnet", r#"{"telnet":{"anything":1}}"#, "{}"),
            (
                "protocol",
                r#"{"protocol":{"name":"extron_sis","own":1}}"#,
                "{}",
            ),
            // The readers' part.
            ("pjlink", "[", r#"{"always_on":"#),
            ("pjlink", "[]", r#"["always"]"#),
            ("pjlink", r#"{"pjlink":["pasword"]}"#, r#"{"schedule":7}"#),
        ] {
            let none: [String; 0] = [];
            assert_eq!(said(driver, config, expectations), none, "{config}");
        }
    }

    #[test]
    fn a_line_says_what_was_meant_and_no_value() {
        assert_eq!(
            said("pjlink", r#"{"pjlink":{"pasword":"geheim","zz":1}}"#, "{}"),
            [
                "driver_config.pjlink.pasword: is not a known setting; the nearest is \"password\"",
                "driver_config.pjlink.zz: is not a known setting",
            ]
        );
    }

    #[test]
    fn hostile_names_are_shown_on_one_line_and_not_all_of_them() {
        let long = "x".repeat(500);
        let config = format!(r#"{{"pjlink":{{"a\n\u001b[31mb":1,"{long}":2}}}}"#);
        for line in said("pjlink", &config, "{}") {
            assert!(
                line.chars().count() < 200 && !line.contains(['\n', '\u{1b}']),
                "{line:?}"
            );
        }
        let many: Vec<String> = (0..1000).map(|n| format!("\"x{n}\":{n}")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(said("ping", &many, &many).len(), UNKNOWN_MAX);
    }
}
