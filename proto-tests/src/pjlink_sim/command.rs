//! One command line and the answer to it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::state::{Machine, Power, State};

/// The longest line of a client: a digest, a header of 7 bytes with its
/// separator and 128 of parameter (sections 2.1 and 5.1), without the
/// carriage return.
pub const LINE_MAX: usize = 32 + 7 + 128;

/// A command line (section 2.1), taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// `%1POWR`, as it was sent: an answer repeats it.
    pub head: &'a str,
    /// The class: `1`.
    pub class: char,
    /// `POWR`, as it was sent.
    pub body: &'a str,
    /// What follows the separator.
    pub parameter: &'a str,
}

impl<'a> Command<'a> {
    /// Reads a line without its carriage return. `None`: not a command line,
    /// to which the standard has no answer.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let head = line.get(..6)?;
        let class = head.strip_prefix('%')?.chars().next()?;
        let body = head.get(2..)?;
        let rest = line.get(6..)?;
        let parameter = rest.strip_prefix(' ').or((rest.is_empty()).then_some(""))?;
        (class.is_ascii_alphanumeric() && body.bytes().all(|b| b.is_ascii_alphanumeric()))
            .then_some(Self {
                head,
                class,
                body,
                parameter,
            })
    }
}

/// The errors of section 2.4 that this projector gives by itself.
const UNDEFINED: &str = "ERR1";
const OUT_OF_PARAMETER: &str = "ERR2";
const UNAVAILABLE: &str = "ERR3";

/// The answer to a command, without the carriage return. Letters are not
/// case-sensitive.
///
/// `forced` holds answers that hold whatever the state
/// ([`super::Faults::answers`]).
pub fn answer(
    command: &Command<'_>,
    machine: &mut Machine,
    forced: &BTreeMap<String, String>,
    now: Instant,
) -> String {
    let body = command.body.to_ascii_uppercase();
    let class2 = machine.state(now).class2.is_some();
    let result = match command.class {
        '1' | '2' if command.class == '1' || class2 => match forced.get(&body) {
            Some(text) => text.clone(),
            None if command.class == '2' => obey_class2(&body, command.parameter, machine, now),
            None => obey(&body, command.parameter, machine, now),
        },
        _ => UNDEFINED.to_owned(),
    };
    format!("{}={result}", command.head)
}

fn obey(body: &str, parameter: &str, machine: &mut Machine, now: Instant) -> String {
    let state = machine.state(now);
    let awake = state.power != Power::Standby;
    let shows = awake || !state.sleeps_in_standby;
    let set = match (body, parameter) {
        ("POWR", "?") => return state.power.digit().to_string(),
        ("POWR", "1") => machine.power_on(now),
        ("POWR", "0") => machine.power_off(now),
        ("INPT", "?") if shows => return state.input.clone(),
        ("INPT", input) if input != "?" => {
            if !state.inputs.iter().any(|known| known == input) {
                return OUT_OF_PARAMETER.to_owned();
            }
            if awake {
                state.input = input.to_owned();
            }
            awake
        }
        ("AVMT", "?") if shows => return state.mute.clone(),
        ("AVMT", "10" | "11" | "20" | "21" | "30" | "31") => {
            if awake {
                state.mute = muted(&state.mute, parameter).to_owned();
            }
            awake
        }
        ("LAMP", "?") if state.lamp_hours.is_empty() => return UNDEFINED.to_owned(),
        ("LAMP", "?") if shows => {
            let lit = u8::from(matches!(state.power, Power::On | Power::WarmUp));
            let lamps: Vec<String> = state
                .lamp_hours
                .iter()
                .map(|hours| format!("{hours} {lit}"))
                .collect();
            return lamps.join(" ");
        }
        ("INPT" | "AVMT" | "LAMP", "?") => false,
        ("ERST", "?") => return state.errors.digits(),
        ("INST", "?") => return state.inputs.join(" "),
        ("NAME", "?") => return state.name.clone(),
        ("INF1", "?") => return state.manufacturer.clone(),
        ("INF2", "?") => return state.product.clone(),
        ("INFO", "?") => return state.other.clone(),
        ("CLSS", "?") => {
            return if state.class2.is_some() { "2" } else { "1" }.to_owned();
        }
        (
            "POWR" | "INPT" | "AVMT" | "LAMP" | "ERST" | "INST" | "NAME" | "INF1" | "INF2" | "INFO"
            | "CLSS",
            _,
        ) => return OUT_OF_PARAMETER.to_owned(),
        _ => return UNDEFINED.to_owned(),
    };
    if set { "OK" } else { UNAVAILABLE }.to_owned()
}

/// The commands that have the header of class 2. INPT and INST are there in
/// both: class 2 has more inputs.
fn obey_class2(body: &str, parameter: &str, machine: &mut Machine, now: Instant) -> String {
    if matches!(body, "INPT" | "INST") {
        return obey(body, parameter, machine, now);
    }
    let state = machine.state(now);
    let awake = state.power != Power::Standby;
    let State { class2, inputs, .. } = state;
    let Some(class2) = class2 else {
        return UNDEFINED.to_owned();
    };
    let result = match (body, parameter) {
        ("SNUM", "?") => &class2.serial,
        ("SVER", "?") => &class2.version,
        ("RRES", "?") => &class2.recommended,
        ("RLMP", "?") => &class2.lamp_models,
        ("RFIL", "?") => &class2.filter_models,
        ("FILT", "?") => match class2.filter_hours {
            Some(hours) => return hours.to_string(),
            None => UNDEFINED,
        },
        ("IRES" | "FREZ", "?") if !awake => UNAVAILABLE,
        ("IRES", "?") => &class2.resolution,
        ("FREZ", "?") => return u8::from(class2.frozen).to_string(),
        ("FREZ", "0" | "1") if awake => {
            class2.frozen = parameter == "1";
            "OK"
        }
        ("SVOL" | "MVOL", "0" | "1") if awake => "OK",
        ("FREZ" | "SVOL" | "MVOL", "0" | "1") => UNAVAILABLE,
        ("INNM", _) => match parameter.strip_prefix('?') {
            Some(input) if inputs.iter().any(|known| known == input) => {
                return format!("Entrée {input}");
            }
            _ => OUT_OF_PARAMETER,
        },
        (
            "SNUM" | "SVER" | "RRES" | "RLMP" | "RFIL" | "FILT" | "IRES" | "FREZ" | "SVOL" | "MVOL",
            _,
        ) => OUT_OF_PARAMETER,
        _ => UNDEFINED,
    };
    result.to_owned()
}

/// The mute status after an instruction (sections 4.5 and 4.6): the first
/// digit names picture, sound or both, the second on or off.
fn muted(before: &str, instruction: &str) -> &'static str {
    let picture_before = matches!(before, "11" | "31");
    let sound_before = matches!(before, "21" | "31");
    let (picture, sound) = match instruction {
        "10" => (false, sound_before),
        "11" => (true, sound_before),
        "20" => (picture_before, false),
        "21" => (picture_before, true),
        "31" => (true, true),
        _ => (false, false),
    };
    match (picture, sound) {
        (true, true) => "31",
        (true, false) => "11",
        (false, true) => "21",
        (false, false) => "30",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::state::{Class2, ErrorStatus, Level, State, Timing};
    use super::*;

    fn machine(change: impl FnOnce(&mut State)) -> Machine {
        let mut state = State::default();
        change(&mut state);
        Machine::new(state, Timing::default())
    }

    #[track_caller]
    fn check(machine: &mut Machine, line: &str, expected: &str) {
        let command = Command::parse(line.as_bytes()).expect("a command line");
        let now = Instant::now();
        assert_eq!(answer(&command, machine, &BTreeMap::new(), now), expected);
    }

    #[test]
    fn what_is_asked_is_answered() {
        let mut projector = machine(|state| {
            state.lamp_hours = vec![1234, 99];
            state.errors = ErrorStatus {
                lamp: Level::Error,
                filter: Level::Warning,
                ..ErrorStatus::default()
            };
            state.name = "Amphithéâtre".to_owned();
            state.manufacturer = "ACME".to_owned();
            state.product = "Bright 9".to_owned();
            state.other = "v1.0".to_owned();
        });
        for (line, expected) in [
            ("%1POWR ?", "%1POWR=1"),
            ("%1INPT ?", "%1INPT=31"),
            ("%1AVMT ?", "%1AVMT=30"),
            ("%1ERST ?", "%1ERST=020010"),
            ("%1LAMP ?", "%1LAMP=1234 1 99 1"),
            ("%1INST ?", "%1INST=11 12 21 31 32 51"),
            ("%1NAME ?", "%1NAME=Amphithéâtre"),
            ("%1INF1 ?", "%1INF1=ACME"),
            ("%1INF2 ?", "%1INF2=Bright 9"),
            ("%1INFO ?", "%1INFO=v1.0"),
            ("%1CLSS ?", "%1CLSS=1"),
            ("%1powr ?", "%1powr=1"),
        ] {
            check(&mut projector, line, expected);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_an_error() {
        let mut projector = machine(|state| state.lamp_hours.clear());
        for (line, expected) in [
            ("%1XXXX ?", "%1XXXX=ERR1"),
            ("%1LAMP ?", "%1LAMP=ERR1"),
            ("%2POWR ?", "%2POWR=ERR1"),
            ("%1POWR 2", "%1POWR=ERR2"),
            ("%1POWR", "%1POWR=ERR2"),
            ("%1INPT 99", "%1INPT=ERR2"),
            ("%1AVMT 32", "%1AVMT=ERR2"),
            ("%1ERST 000000", "%1ERST=ERR2"),
        ] {
            check(&mut projector, line, expected);
        }
    }

    #[test]
    fn in_standby_what_needs_the_lamp_is_unavailable() {
        let mut projector = machine(|state| state.power = Power::Standby);
        for (line, expected) in [
            ("%1POWR ?", "%1POWR=0"),
            ("%1LAMP ?", "%1LAMP=0 0"),
            ("%1INPT ?", "%1INPT=31"),
            ("%1INPT 11", "%1INPT=ERR3"),
            ("%1AVMT 31", "%1AVMT=ERR3"),
        ] {
            check(&mut projector, line, expected);
        }
        let mut asleep = machine(|state| {
            state.power = Power::Standby;
            state.sleeps_in_standby = true;
        });
        for (line, expected) in [
            ("%1LAMP ?", "%1LAMP=ERR3"),
            ("%1INPT ?", "%1INPT=ERR3"),
            ("%1AVMT ?", "%1AVMT=ERR3"),
            ("%1ERST ?", "%1ERST=000000"),
        ] {
            check(&mut asleep, line, expected);
        }
    }

    #[test]
    fn instructions_change_the_state() {
        let mut projector = machine(|_| {});
        for (line, expected) in [
            ("%1INPT 11", "%1INPT=OK"),
            ("%1INPT ?", "%1INPT=11"),
            ("%1AVMT 11", "%1AVMT=OK"),
            ("%1AVMT 21", "%1AVMT=OK"),
            ("%1AVMT ?", "%1AVMT=31"),
            ("%1AVMT 10", "%1AVMT=OK"),
            ("%1AVMT ?", "%1AVMT=21"),
            ("%1AVMT 30", "%1AVMT=OK"),
            ("%1AVMT ?", "%1AVMT=30"),
            ("%1POWR 0", "%1POWR=OK"),
            ("%1POWR ?", "%1POWR=2"),
            ("%1POWR 1", "%1POWR=ERR3"),
        ] {
            check(&mut projector, line, expected);
        }
        let later = Instant::now() + Duration::from_secs(60);
        let question = Command::parse(b"%1POWR ?").unwrap();
        assert_eq!(
            answer(&question, &mut projector, &BTreeMap::new(), later),
            "%1POWR=0"
        );
    }

    #[test]
    fn class_2_has_more() {
        let mut projector = machine(|state| {
            state.inputs.push("3A".to_owned());
            state.class2 = Some(Class2 {
                filter_hours: Some(321),
                ..Class2::default()
            });
        });
        for (line, expected) in [
            ("%1CLSS ?", "%1CLSS=2"),
            ("%1POWR ?", "%1POWR=1"),
            ("%2POWR ?", "%2POWR=ERR1"),
            ("%2INPT ?", "%2INPT=31"),
            ("%2INST ?", "%2INST=11 12 21 31 32 51 3A"),
            ("%2INNM ?3A", "%2INNM=Entrée 3A"),
            ("%2INNM ?99", "%2INNM=ERR2"),
            ("%2INNM ?", "%2INNM=ERR2"),
            ("%2SNUM ?", "%2SNUM=SIM-0001"),
            ("%2SVER ?", "%2SVER=1.00"),
            ("%2IRES ?", "%2IRES=1920x1080"),
            ("%2RRES ?", "%2RRES=1920x1200"),
            ("%2FILT ?", "%2FILT=321"),
            ("%2RLMP ?", "%2RLMP=SIM-LAMP"),
            ("%2RFIL ?", "%2RFIL=SIM-FILTER"),
            ("%2FREZ 1", "%2FREZ=OK"),
            ("%2FREZ ?", "%2FREZ=1"),
            ("%2SVOL 1", "%2SVOL=OK"),
            ("%2SNUM 1", "%2SNUM=ERR2"),
            ("%2XXXX ?", "%2XXXX=ERR1"),
            ("%3POWR ?", "%3POWR=ERR1"),
            ("%1SNUM ?", "%1SNUM=ERR1"),
        ] {
            check(&mut projector, line, expected);
        }
        projector.replace(Instant::now(), |state| {
            state.power = Power::Standby;
            state.class2 = Some(Class2 {
                filter_hours: None,
                ..Class2::default()
            });
        });
        for (line, expected) in [
            ("%2IRES ?", "%2IRES=ERR3"),
            ("%2FREZ 1", "%2FREZ=ERR3"),
            ("%2FILT ?", "%2FILT=ERR1"),
            ("%2SNUM ?", "%2SNUM=SIM-0001"),
        ] {
            check(&mut projector, line, expected);
        }
    }

    #[test]
    fn a_forced_answer_wins() {
        let forced = BTreeMap::from([("LAMP".to_owned(), "ERR4".to_owned())]);
        let question = Command::parse(b"%1LAMP ?").unwrap();
        assert_eq!(
            answer(&question, &mut machine(|_| {}), &forced, Instant::now()),
            "%1LAMP=ERR4"
        );
    }

    #[test]
    fn what_is_not_a_command_line_is_not_read() {
        for line in [
            &b""[..],
            b"%1POW",
            b"POWR ?",
            b"\n%1POWR ?",
            b"%1POWR?",
            b"%1P WR ?",
            b"%1POW\xff ?",
        ] {
            assert_eq!(Command::parse(line), None, "{line:?}");
        }
    }
}
