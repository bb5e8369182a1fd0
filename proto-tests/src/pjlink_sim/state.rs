//! What a projector knows of itself.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// Power status (section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// 0: standby.
    Standby,
    /// 1: lamp on.
    On,
    /// 2: cooling down.
    Cooling,
    /// 3: warming up.
    WarmUp,
}

impl Power {
    /// The digit on the wire.
    #[must_use]
    pub fn digit(self) -> u8 {
        match self {
            Self::Standby => 0,
            Self::On => 1,
            Self::Cooling => 2,
            Self::WarmUp => 3,
        }
    }

    /// The digit in a notice, which has two: off or cooling, on or warming up.
    #[must_use]
    pub fn notice_digit(self) -> u8 {
        match self {
            Self::Standby | Self::Cooling => 0,
            Self::On | Self::WarmUp => 1,
        }
    }
}

impl FromStr for Power {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "standby" | "off" | "0" => Ok(Self::Standby),
            "on" | "1" => Ok(Self::On),
            "cooling" | "2" => Ok(Self::Cooling),
            "warm-up" | "3" => Ok(Self::WarmUp),
            _ => Err("is not standby, on, cooling or warm-up".to_owned()),
        }
    }
}

/// How bad one part is (section 4.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// 0: no error, or the projector cannot tell.
    #[default]
    Ok,
    /// 1: warning.
    Warning,
    /// 2: error.
    Error,
}

impl Level {
    fn digit(self) -> char {
        match self {
            Self::Ok => '0',
            Self::Warning => '1',
            Self::Error => '2',
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ok" => Ok(Self::Ok),
            "warning" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            _ => Err("is not ok, warning or error".to_owned()),
        }
    }
}

/// The six parts of the error status, in the order of section 4.7.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's own names")]
pub struct ErrorStatus {
    pub fan: Level,
    pub lamp: Level,
    pub temperature: Level,
    pub cover: Level,
    pub filter: Level,
    pub other: Level,
}

impl ErrorStatus {
    /// The six digits on the wire.
    #[must_use]
    pub fn digits(&self) -> String {
        [
            self.fan,
            self.lamp,
            self.temperature,
            self.cover,
            self.filter,
            self.other,
        ]
        .map(Level::digit)
        .iter()
        .collect()
    }

    /// Sets the part that a text names: `lamp=error`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (part, level) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not PART=LEVEL, as lamp=error"))?;
        let level = level.parse().map_err(|e| format!("{level:?} {e}"))?;
        let part = match part {
            "fan" => &mut self.fan,
            "lamp" => &mut self.lamp,
            "temperature" => &mut self.temperature,
            "cover" => &mut self.cover,
            "filter" => &mut self.filter,
            "other" => &mut self.other,
            _ => {
                return Err(format!(
                    "{part:?} is not fan, lamp, temperature, cover, filter or other"
                ));
            }
        };
        *part = level;
        Ok(())
    }
}

/// What can be asked of a projector, and set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Power.
    pub power: Power,
    /// The selected input, as `31` (section 4.3).
    pub input: String,
    /// The inputs that exist (section 4.9).
    pub inputs: Vec<String>,
    /// The mute status: `11`, `21`, `31` or `30` (section 4.6).
    pub mute: String,
    /// The error status.
    pub errors: ErrorStatus,
    /// Lighting hours of each lamp, at most 8 (section 4.8). Empty: the
    /// projector has no lamp and answers ERR1.
    pub lamp_hours: Vec<u32>,
    /// The projector's name, at most 64 bytes of UTF-8 (section 4.10).
    pub name: String,
    /// The manufacturer, at most 32 characters (section 4.11).
    pub manufacturer: String,
    /// The product, at most 32 characters (section 4.12).
    pub product: String,
    /// Anything else, at most 32 characters (section 4.13).
    pub other: String,
    /// Answers ERR3 to questions about lamps, input and mute in standby, as
    /// projectors do whose main board sleeps.
    pub sleeps_in_standby: bool,
    /// What it has of class 2; `None`: it is of class 1.
    pub class2: Option<Class2>,
}

/// What a projector of class 2 knows beyond class 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class2 {
    /// `SNUM`: the serial number, at most 32 characters.
    pub serial: String,
    /// `SVER`: the software's version, at most 32 characters.
    pub version: String,
    /// `IRES`: `1920x1080`, `-` without a signal, `*` where it is not known.
    pub resolution: String,
    /// `RRES`: `1920x1080`.
    pub recommended: String,
    /// `FILT`: hours of the filter. `None`: it has none and answers ERR1.
    pub filter_hours: Option<u32>,
    /// `RLMP`: the models of new lamps.
    pub lamp_models: String,
    /// `RFIL`: the models of new filters.
    pub filter_models: String,
    /// `FREZ`: whether the picture is frozen.
    pub frozen: bool,
    /// The address of its network interface, for `ACKN` and `LKUP`.
    pub mac: [u8; 6],
}

impl Default for Class2 {
    fn default() -> Self {
        Self {
            serial: "SIM-0001".to_owned(),
            version: "1.00".to_owned(),
            resolution: "1920x1080".to_owned(),
            recommended: "1920x1200".to_owned(),
            filter_hours: Some(0),
            lamp_models: "SIM-LAMP".to_owned(),
            filter_models: "SIM-FILTER".to_owned(),
            frozen: false,
            // Locally administered: no maker's.
            mac: [0x02, 0, 0, 0, 0, 1],
        }
    }
}

impl Class2 {
    /// Its MAC address as the standard prints it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            power: Power::On,
            input: "31".to_owned(),
            inputs: ["11", "12", "21", "31", "32", "51"]
                .map(str::to_owned)
                .to_vec(),
            mute: "30".to_owned(),
            errors: ErrorStatus::default(),
            lamp_hours: vec![0],
            name: "Projecteur".to_owned(),
            manufacturer: "SIMULATED".to_owned(),
            product: "PJ-1".to_owned(),
            other: String::new(),
            sleeps_in_standby: false,
            class2: None,
        }
    }
}

/// How long the lamp takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From standby to on.
    pub warm_up: Duration,
    /// From on to standby.
    pub cool_down: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            warm_up: Duration::from_secs(5),
            cool_down: Duration::from_secs(5),
        }
    }
}

/// A [`State`] with the power change that is under way.
#[derive(Debug)]
pub struct Machine {
    state: State,
    timing: Timing,
    change: Option<(Instant, Power)>,
}

impl Machine {
    /// A projector in that state, at rest.
    #[must_use]
    pub fn new(state: State, timing: Timing) -> Self {
        Self {
            state,
            timing,
            change: None,
        }
    }

    /// The state at `now`.
    pub fn state(&mut self, now: Instant) -> &mut State {
        match self.change {
            Some((when, power)) if now >= when => {
                self.state.power = power;
                self.change = None;
            }
            _ => {}
        }
        &mut self.state
    }

    /// Sets the state by hand; a power change under way ends.
    pub fn replace(&mut self, now: Instant, change: impl FnOnce(&mut State)) {
        let before = self.state(now).power;
        change(&mut self.state);
        if self.state.power != before {
            self.change = None;
        }
    }

    /// Turns the lamp on; `false` while it cools (ERR3).
    pub fn power_on(&mut self, now: Instant) -> bool {
        match self.state(now).power {
            Power::On | Power::WarmUp => true,
            Power::Cooling => false,
            Power::Standby => {
                self.start(now, Power::WarmUp, self.timing.warm_up, Power::On);
                true
            }
        }
    }

    /// Turns the lamp off; `false` while it warms up (ERR3).
    pub fn power_off(&mut self, now: Instant) -> bool {
        match self.state(now).power {
            Power::Standby | Power::Cooling => true,
            Power::WarmUp => false,
            Power::On => {
                self.start(now, Power::Cooling, self.timing.cool_down, Power::Standby);
                true
            }
        }
    }

    fn start(&mut self, now: Instant, through: Power, length: Duration, to: Power) {
        self.state.power = through;
        self.change = Some((now + length, to));
        self.state(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lamp_warms_up_and_cools_down() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let timing = Timing {
            warm_up: Duration::from_secs(10),
            cool_down: Duration::from_secs(20),
        };
        let standby = State {
            power: Power::Standby,
            ..State::default()
        };
        let mut machine = Machine::new(standby, timing);

        assert!(machine.power_on(at(0)));
        assert_eq!(machine.state(at(9)).power, Power::WarmUp);
        assert!(!machine.power_off(at(9)), "not while it warms up");
        assert_eq!(machine.state(at(10)).power, Power::On);
        assert!(machine.power_on(at(11)), "on already");

        assert!(machine.power_off(at(11)));
        assert_eq!(machine.state(at(30)).power, Power::Cooling);
        assert!(!machine.power_on(at(30)), "not while it cools");
        assert_eq!(machine.state(at(31)).power, Power::Standby);
    }

    #[test]
    fn a_power_set_by_hand_stays() {
        let now = Instant::now();
        let mut machine = Machine::new(State::default(), Timing::default());
        machine.power_off(now);
        machine.replace(now, |state| state.power = Power::WarmUp);
        assert_eq!(
            machine.state(now + Duration::from_secs(60)).power,
            Power::WarmUp
        );
    }

    #[test]
    fn the_error_status_prints_in_the_standards_order() {
        let mut errors = ErrorStatus::default();
        for (text, digits) in [
            ("fan=warning", "100000"),
            ("lamp=error", "120000"),
            ("temperature=warning", "121000"),
            ("cover=error", "121200"),
            ("filter=warning", "121210"),
            ("other=error", "121212"),
            ("lamp=ok", "101212"),
        ] {
            errors.set(text).unwrap();
            assert_eq!(errors.digits(), digits);
        }
        for text in ["lamp", "lamp=bad", "wheel=error"] {
            assert!(errors.set(text).is_err(), "{text}");
        }
    }
}
