//! What was learnt of a projector, and how it is told.

use av_proto::driver::PjlinkSettings;
use av_proto::text::excerpt;
use av_proto::verdict::Status;
use serde_json::{Map, Value, json};

use super::protocol::{Answer, Class, Query};
use super::refusal::REFUSED;
use super::value::{
    Errors, Health, Lamp, Mute, PARTS, Power, Resolution, Signal, parse_class, parse_errors,
    parse_flag, parse_hours, parse_input, parse_inputs, parse_lamps, parse_mute, parse_resolution,
    parse_signal,
};
use crate::finding::Finding;

/// The longest name that the standard knows; the other texts have 32, an
/// input's name 128 bytes.
const TEXT_MAX: usize = 64;
/// Models of lamps and filters that are kept.
const MODELS_MAX: usize = 8;

/// What was learnt so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Whether the projector wants a password.
    pub auth: Option<bool>,
    /// The first thing that went wrong.
    pub error: Option<String>,
    /// The class that it speaks.
    pub class: Option<Class>,
    power: Option<Power>,
    errors: Option<Errors>,
    lamps: Option<Vec<Lamp>>,
    input: Option<String>,
    inputs: Option<Vec<String>>,
    mute: Option<Mute>,
    name: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    other: Option<String>,
    serial: Option<String>,
    version: Option<String>,
    input_name: Option<String>,
    signal: Option<Signal>,
    recommended: Option<Resolution>,
    filter_hours: Option<u32>,
    lamp_models: Option<Vec<String>>,
    filter_models: Option<Vec<String>>,
    frozen: Option<bool>,
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
            Answer::AuthenticationFailed => self.fail(REFUSED.to_owned()),
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

    /// The selected input, where it is known.
    pub(super) fn input(&self) -> Option<&str> {
        self.input.as_deref()
    }

    /// Whether the value was understood.
    fn read(&mut self, query: Query, value: &str) -> bool {
        let text = || Some(excerpt(value, TEXT_MAX)).filter(|text| !text.is_empty());
        match query {
            Query::Power => keep(&mut self.power, Power::parse(value)),
            Query::Errors => keep(&mut self.errors, parse_errors(value)),
            Query::Lamps => keep(&mut self.lamps, parse_lamps(value)),
            Query::Class => keep(&mut self.class, parse_class(value)),
            Query::Input(_) => keep(&mut self.input, parse_input(value).map(str::to_owned)),
            Query::Inputs(_) => keep(&mut self.inputs, parse_inputs(value).map(owned)),
            Query::Mute => keep(&mut self.mute, parse_mute(value)),
            Query::Resolution => keep(&mut self.signal, parse_signal(value)),
            Query::Recommended => keep(&mut self.recommended, parse_resolution(value)),
            Query::Filter => keep(&mut self.filter_hours, parse_hours(value)),
            Query::Freeze => keep(&mut self.frozen, parse_flag(value)),
            Query::LampModels => keep(&mut self.lamp_models, models(value)),
            Query::FilterModels => keep(&mut self.filter_models, models(value)),
            Query::Name => keep(&mut self.name, text()),
            Query::Manufacturer => keep(&mut self.manufacturer, text()),
            Query::Model => keep(&mut self.model, text()),
            Query::Other => keep(&mut self.other, text()),
            Query::Serial => keep(&mut self.serial, text()),
            Query::Version => keep(&mut self.version, text()),
            Query::InputName => keep(&mut self.input_name, text()),
        }
    }

    /// The finding. A projector that speaks PJLink at all is online.
    pub(super) fn finding(self, status: Status, settings: &PjlinkSettings) -> Finding {
        let found = Finding::new(status);
        let found = match self.detail() {
            Some(detail) => found.with_detail(detail),
            None => found,
        };
        let most_used = self
            .lamps
            .as_ref()
            .and_then(|lamps| lamps.iter().map(|lamp| lamp.hours).max());
        let mut found = found
            .with("pjlink_ok", self.error.is_none())
            .with("pjlink_port", settings.port)
            .with("pjlink_auth", self.auth)
            .with("pjlink_power", self.power.map(Power::digit))
            .with("pjlink_power_label", self.power.map(Power::label))
            .with("pjlink_lamps", self.lamps.map(lamps_json))
            .with("pjlink_errors", self.errors.map(errors_json))
            .with("pjlink_input", self.input)
            .with("pjlink_name", self.name)
            .with("pjlink_manufacturer", self.manufacturer)
            .with("pjlink_model", self.model)
            .with("pjlink_error", self.error);
        // What not every projector has is there where it is known: a report
        // of a thousand projectors need not say twenty thousand times "null".
        let resolution = match self.signal {
            Some(Signal::Picture(resolution)) => Some(resolution.to_string()),
            _ => None,
        };
        for (name, value) in [
            ("pjlink_class", self.class.map(|c| c.digit().into())),
            ("pjlink_lamp_hours", most_used.map(Value::from)),
            ("pjlink_filter_hours", self.filter_hours.map(Value::from)),
            ("pjlink_inputs", self.inputs.map(Value::from)),
            ("pjlink_input_name", self.input_name.map(Value::from)),
            (
                "pjlink_signal",
                self.signal.map(|signal| (signal != Signal::None).into()),
            ),
            ("pjlink_resolution", resolution.map(Value::from)),
            (
                "pjlink_resolution_recommended",
                self.recommended.map(|r| r.to_string().into()),
            ),
            ("pjlink_mute", self.mute.map(mute_json)),
            ("pjlink_frozen", self.frozen.map(Value::from)),
            ("pjlink_serial_number", self.serial.map(Value::from)),
            ("pjlink_software_version", self.version.map(Value::from)),
            ("pjlink_lamp_models", self.lamp_models.map(Value::from)),
            ("pjlink_filter_models", self.filter_models.map(Value::from)),
            ("pjlink_info", self.other.map(Value::from)),
        ] {
            if let Some(value) = value {
                found = found.with(name, value);
            }
        }
        found
    }

    /// For a person: "on, lamp 1234 h", "standby", "on, lamp error".
    fn detail(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        if let Some(power) = self.power {
            parts.push(match power {
                Power::Off => "standby".to_owned(),
                other => other.label().to_owned(),
            });
        }
        let ailing: Vec<String> = self
            .errors
            .iter()
            .flat_map(|errors| PARTS.iter().zip(errors))
            .filter(|(_, health)| **health != Health::Ok)
            .map(|(part, health)| format!("{part} {}", health.word()))
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

/// Keeps what was understood; whether anything was.
fn keep<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Names of models, with a space between; there may be none.
fn models(value: &str) -> Option<Vec<String>> {
    let models: Vec<String> = value
        .split_ascii_whitespace()
        .take(MODELS_MAX)
        .map(|model| excerpt(model, TEXT_MAX))
        .collect();
    (!models.is_empty()).then_some(models)
}

fn lamps_json(lamps: Vec<Lamp>) -> Value {
    lamps
        .iter()
        .map(|lamp| json!({"hours": lamp.hours, "on": lamp.on}))
        .collect()
}

/// Only of what the projector spoke of.
fn mute_json(mute: Mute) -> Value {
    [("picture", mute.picture), ("sound", mute.sound)]
        .into_iter()
        .filter_map(|(what, muted)| Some((what.to_owned(), Value::from(muted?))))
        .collect::<Map<_, _>>()
        .into()
}

fn errors_json(errors: Errors) -> Value {
    let mut parts = Map::new();
    for (part, health) in PARTS.iter().zip(errors) {
        parts.insert((*part).to_owned(), health.word().into());
    }
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
        use Query::{Errors, Lamps, Name, Power};
        const INPUT: Query = Query::Input(Class::One);
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
                    (INPUT, "ERR3"),
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
                &[(Power, "1"), (Lamps, "ERR4"), (INPUT, "ERR4")],
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
            (&[(Power, "1"), (INPUT, "HDMI")], "on", None),
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
            (Query::Input(Class::One), "31"),
            (Query::Name, "Salle é\u{202e}"),
            (Query::Manufacturer, &"m".repeat(100)),
            (Query::Model, ""),
            (Query::Mute, "31"),
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
                "pjlink_lamp_hours": 1234,
                "pjlink_mute": {"picture": true, "sound": true},
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
    fn what_class_2_tells() {
        let found = reading(&[
            (Query::Class, "2"),
            (Query::Input(Class::Two), "3A"),
            (Query::Inputs(Class::Two), "11 31 3A"),
            (Query::InputName, "HDMI \u{e9}"),
            (Query::Resolution, "1920x1080"),
            (Query::Recommended, "3840x2160"),
            (Query::Filter, "321"),
            (Query::Freeze, "1"),
            (Query::Serial, "SN-1"),
            (Query::Version, "1.02"),
            (Query::LampModels, "L1 L2"),
            (Query::FilterModels, ""),
            (Query::Other, "x"),
        ])
        .finding(Status::Online, &settings());
        let told: Map<String, Value> = found
            .metrics
            .into_iter()
            .filter(|(name, value)| !value.is_null() && name != "pjlink_port")
            .collect();
        assert_eq!(
            Value::Object(told),
            json!({
                "pjlink_ok": true,
                "pjlink_auth": false,
                "pjlink_class": 2,
                "pjlink_input": "3A",
                "pjlink_inputs": ["11", "31", "3A"],
                "pjlink_input_name": "HDMI \u{e9}",
                "pjlink_signal": true,
                "pjlink_resolution": "1920x1080",
                "pjlink_resolution_recommended": "3840x2160",
                "pjlink_filter_hours": 321,
                "pjlink_frozen": true,
                "pjlink_serial_number": "SN-1",
                "pjlink_software_version": "1.02",
                "pjlink_lamp_models": ["L1", "L2"],
                "pjlink_info": "x",
            })
        );
        for (value, signal) in [("-", false), ("*", true)] {
            let found = reading(&[(Query::Resolution, value)]).finding(Status::Online, &settings());
            assert_eq!(found.metrics["pjlink_signal"], signal);
            assert!(!found.metrics.contains_key("pjlink_resolution"));
        }
    }

    #[test]
    fn a_mute_is_told_of_what_it_speaks_of() {
        for (value, told) in [
            ("31", json!({"picture": true, "sound": true})),
            ("10", json!({"picture": false})),
            ("20", json!({"sound": false})),
        ] {
            let found = reading(&[(Query::Mute, value)]).finding(Status::Online, &settings());
            assert_eq!(found.metrics["pjlink_mute"], told, "{value}");
        }
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
