//! What was learnt of a projector, and how it is told.

use av_proto::driver::PjlinkSettings;
use av_proto::text::excerpt;
use av_proto::verdict::Status;
use serde_json::{Map, Value, json};

use super::protocol::{
    Answer, Errors, Health, Lamp, PARTS, Power, Query, parse_errors, parse_input, parse_lamps,
    parse_power,
};
use crate::finding::Finding;

/// The longest name that the standard knows; the other texts have 32.
const TEXT_MAX: usize = 64;

/// What was learnt so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Whether the projector wants a password.
    pub auth: Option<bool>,
    /// The first thing that went wrong.
    pub error: Option<String>,
    power: Option<Power>,
    errors: Option<Errors>,
    lamps: Option<Vec<Lamp>>,
    input: Option<String>,
    name: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
}

impl Reading {
    /// Takes the answer to `query`.
    pub(super) fn take(&mut self, query: Query, answer: Answer) {
        let code = query.code();
        match answer {
            Answer::Value(value) => {
                if !self.read(query, &value) && query.vital() {
                    self.fail(format!(
                        "answer to {code} not understood: {}",
                        excerpt(&value, TEXT_MAX)
                    ));
                }
            }
            Answer::Failure => self.fail(format!("projector reports a failure (ERR4 to {code})")),
            Answer::AuthenticationFailed => {
                self.fail("authentication failed (ERRA): check the password".to_owned());
            }
            // Laser projectors know no lamp; only the power is known to all.
            Answer::Undefined if query == Query::Power => {
                self.fail(format!("projector does not know {code} (ERR1)"));
            }
            Answer::OutOfParameter if query == Query::Power => {
                self.fail(format!("projector does not take {code} (ERR2)"));
            }
            // Normal in standby.
            Answer::Unavailable | Answer::Undefined | Answer::OutOfParameter => {}
        }
    }

    /// Notes what went wrong, where nothing had before.
    pub(super) fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    fn read(&mut self, query: Query, value: &str) -> bool {
        let text = || Some(excerpt(value, TEXT_MAX)).filter(|text| !text.is_empty());
        match query {
            Query::Power => {
                self.power = parse_power(value);
                self.power.is_some()
            }
            Query::Errors => {
                self.errors = parse_errors(value);
                self.errors.is_some()
            }
            Query::Lamps => {
                self.lamps = parse_lamps(value);
                self.lamps.is_some()
            }
            Query::Input => {
                self.input = parse_input(value);
                self.input.is_some()
            }
            Query::Name => {
                self.name = text();
                true
            }
            Query::Manufacturer => {
                self.manufacturer = text();
                true
            }
            Query::Model => {
                self.model = text();
                true
            }
        }
    }

    /// The finding. A projector that speaks PJLink at all is online.
    pub(super) fn finding(self, status: Status, settings: &PjlinkSettings) -> Finding {
        let found = Finding::new(status);
        let found = match self.detail() {
            Some(detail) => found.with_detail(detail),
            None => found,
        };
        found
            .with("pjlink_ok", self.error.is_none())
            .with("pjlink_port", settings.port)
            .with("pjlink_auth", self.auth)
            .with("pjlink_power", self.power.map(Power::digit))
            .with("pjlink_power_label", self.power.map(label))
            .with("pjlink_lamps", self.lamps.map(lamps_json))
            .with("pjlink_errors", self.errors.map(errors_json))
            .with("pjlink_input", self.input)
            .with("pjlink_name", self.name)
            .with("pjlink_manufacturer", self.manufacturer)
            .with("pjlink_model", self.model)
            .with("pjlink_error", self.error)
    }

    /// For a person: "on, lamp 1234 h", "standby", "on, lamp error".
    fn detail(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        if let Some(power) = self.power {
            parts.push(match power {
                Power::Off => "standby".to_owned(),
                other => label(other).to_owned(),
            });
        }
        let ailing: Vec<String> = self
            .errors
            .iter()
            .flat_map(|errors| PARTS.iter().zip(errors))
            .filter(|(_, health)| **health != Health::Ok)
            .map(|(part, health)| format!("{part} {}", word(*health)))
            .collect();
        match &self.lamps {
            _ if !ailing.is_empty() => parts.extend(ailing),
            Some(lamps) if self.power != Some(Power::Off) => {
                let hours: Vec<String> = lamps.iter().map(|l| format!("{} h", l.hours)).collect();
                let noun = if lamps.len() == 1 { "lamp" } else { "lamps" };
                parts.push(format!("{noun} {}", hours.join(" and ")));
            }
            _ => {}
        }
        let state = parts.join(", ");
        match &self.error {
            Some(error) if state.is_empty() => Some(error.clone()),
            Some(error) => Some(format!("{state}; {error}")),
            None if state.is_empty() => Some("answers, but not on its power now".to_owned()),
            None => Some(state),
        }
    }
}

fn label(power: Power) -> &'static str {
    match power {
        Power::Off => "off",
        Power::On => "on",
        Power::Cooling => "cooling",
        Power::WarmUp => "warm-up",
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Warning => "warning",
        Health::Error => "error",
    }
}

fn lamps_json(lamps: Vec<Lamp>) -> Value {
    lamps
        .iter()
        .map(|lamp| json!({"hours": lamp.hours, "on": lamp.on}))
        .collect()
}

fn errors_json(errors: Errors) -> Value {
    let parts: Map<String, Value> = PARTS
        .iter()
        .zip(errors)
        .map(|(part, health)| ((*part).to_owned(), word(health).into()))
        .collect();
    Value::Object(parts)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> PjlinkSettings {
        PjlinkSettings {
            password: None,
            port: 4352,
            timeout: Duration::from_secs(2),
        }
    }

    fn reading(answers: &[(Query, &str)]) -> Reading {
        let mut reading = Reading {
            auth: Some(false),
            ..Reading::default()
        };
        for (query, value) in answers {
            let line = format!("%1{}={value}", query.code());
            reading.take(
                *query,
                super::super::protocol::parse_answer(&line, *query).unwrap(),
            );
        }
        reading
    }

    #[test]
    fn details_and_errors() {
        use Query::{Errors, Input, Lamps, Name, Power};
        for (answers, detail, error) in [
            (
                &[(Power, "1"), (Errors, "000000"), (Lamps, "1234 1")][..],
                "on, lamp 1234 h",
                None,
            ),
            (
                &[(Power, "1"), (Lamps, "1234 1 99 0")],
                "on, lamps 1234 h and 99 h",
                None,
            ),
            (&[(Power, "0"), (Lamps, "1234 0")], "standby", None),
            // Standby: ERR3 is normal, and so is ERR1 of a laser's lamp.
            (
                &[
                    (Power, "0"),
                    (Errors, "ERR3"),
                    (Lamps, "ERR1"),
                    (Input, "ERR3"),
                    (Name, "ERR2"),
                ],
                "standby",
                None,
            ),
            (
                &[(Power, "1"), (Errors, "020010"), (Lamps, "9000 0")],
                "on, lamp error, filter warning",
                None,
            ),
            (
                &[(Power, "0"), (Errors, "000002")],
                "standby, other error",
                None,
            ),
            (&[(Power, "2")], "cooling", None),
            (&[(Power, "3"), (Lamps, "5 1")], "warm-up, lamp 5 h", None),
            (
                &[(Power, "ERR3")],
                "answers, but not on its power now",
                None,
            ),
            (
                &[(Power, "ERR4")],
                "projector reports a failure (ERR4 to POWR)",
                Some("projector reports a failure (ERR4 to POWR)"),
            ),
            (
                &[(Power, "1"), (Lamps, "ERR4"), (Input, "ERR4")],
                "on; projector reports a failure (ERR4 to LAMP)",
                Some("projector reports a failure (ERR4 to LAMP)"),
            ),
            (
                &[(Power, "ERR1")],
                "projector does not know POWR (ERR1)",
                Some("projector does not know POWR (ERR1)"),
            ),
            (
                &[(Power, "\u{1b}[2J")],
                "answer to POWR not understood: \u{fffd}[2J",
                Some("answer to POWR not understood: \u{fffd}[2J"),
            ),
            (
                &[(Power, "1"), (Errors, "00")],
                "on; answer to ERST not understood: 00",
                Some("answer to ERST not understood: 00"),
            ),
            // An input that the standard does not have is no fault.
            (&[(Power, "1"), (Input, "HDMI")], "on", None),
        ] {
            let found = reading(answers).finding(Status::Online, &settings());
            assert_eq!(found.detail.as_deref(), Some(detail));
            assert_eq!(found.metrics["pjlink_error"].as_str(), error);
            assert_eq!(found.metrics["pjlink_ok"], error.is_none());
        }
    }

    #[test]
    fn metrics_have_the_contracts_names() {
        let found = reading(&[
            (Query::Power, "3"),
            (Query::Errors, "210000"),
            (Query::Lamps, "1234 1 5 0"),
            (Query::Input, "31"),
            (Query::Name, "Salle é\u{202e}"),
            (Query::Manufacturer, &"m".repeat(100)),
            (Query::Model, ""),
        ])
        .finding(Status::Online, &settings());
        assert_eq!(
            Value::Object(found.metrics),
            json!({
                "pjlink_ok": true,
                "pjlink_port": 4352,
                "pjlink_auth": false,
                "pjlink_power": 3,
                "pjlink_power_label": "warm-up",
                "pjlink_error": null,
                "pjlink_lamps": [{"hours": 1234, "on": true}, {"hours": 5, "on": false}],
                "pjlink_errors": {"fan": "error", "lamp": "warning", "temperature": "ok",
                    "cover": "ok", "filter": "ok", "other": "ok"},
                "pjlink_input": "31",
                "pjlink_name": "Salle é\u{fffd}",
                "pjlink_manufacturer": format!("{}…", "m".repeat(63)),
                "pjlink_model": null,
            })
        );
        let mut nothing = Reading::default();
        nothing.fail("port 4352 closed".to_owned());
        let found = nothing.finding(Status::Offline, &settings());
        assert_eq!(
            Value::Object(found.metrics),
            json!({
                "pjlink_ok": false,
                "pjlink_port": 4352,
                "pjlink_auth": null,
                "pjlink_power": null,
                "pjlink_power_label": null,
                "pjlink_error": "port 4352 closed",
                "pjlink_lamps": null,
                "pjlink_errors": null,
                "pjlink_input": null,
                "pjlink_name": null,
                "pjlink_manufacturer": null,
                "pjlink_model": null,
            })
        );
    }

    #[test]
    fn power_labels() {
        for (value, digit, label) in [
            ("0", 0, "off"),
            ("1", 1, "on"),
            ("2", 2, "cooling"),
            ("3", 3, "warm-up"),
        ] {
            let found = reading(&[(Query::Power, value)]).finding(Status::Online, &settings());
            assert_eq!(found.metrics["pjlink_power"], digit);
            assert_eq!(found.metrics["pjlink_power_label"], label);
        }
    }
}
