//! What the answers of a projector say: pure functions from the text after
//! the `=`. Section numbers are those of the class 1 standard.

use super::protocol::Class;

/// `POWR` (4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// 0: standby.
    Off,
    /// 1: the lamp is on.
    On,
    /// 2: cooling down.
    Cooling,
    /// 3: warming up.
    WarmUp,
}

/// One part's state in `ERST` (4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// 0: no error, or the projector cannot tell.
    Ok,
    /// 1.
    Warning,
    /// 2.
    Error,
}

/// The parts of `ERST`, in its order.
pub const PARTS: [&str; 6] = ["fan", "lamp", "temperature", "cover", "filter", "other"];

/// `ERST`: the state of each of [`PARTS`].
pub type Errors = [Health; PARTS.len()];

/// One lamp of `LAMP` (4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lamp {
    /// Hours of use.
    pub hours: u32,
    /// Whether it shines now.
    pub on: bool,
}

/// `AVMT` (4.6). `None`: the answer says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mute {
    /// Whether the picture is.
    pub picture: Option<bool>,
    /// Whether the sound is.
    pub sound: Option<bool>,
}

/// `IRES`, class 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `-`: nothing comes in.
    None,
    /// `*`: something that the projector does not know.
    Unknown,
    /// A picture of that size.
    Picture(Resolution),
}

/// A picture's size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Power {
    /// The digit on the wire.
    #[must_use]
    pub fn digit(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::Cooling => 2,
            Self::WarmUp => 3,
        }
    }

    /// For a person, and `pjlink_power_label`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Cooling => "cooling",
            Self::WarmUp => "warm-up",
        }
    }

    /// Reads `POWR`'s value.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "0" => Self::Off,
            "1" => Self::On,
            "2" => Self::Cooling,
            "3" => Self::WarmUp,
            _ => return None,
        })
    }
}

impl Health {
    /// The digit on the wire.
    #[must_use]
    pub fn digit(self) -> char {
        match self {
            Self::Ok => '0',
            Self::Warning => '1',
            Self::Error => '2',
        }
    }

    /// For a person, and `pjlink_errors`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn parse(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Ok,
            b'1' => Self::Warning,
            b'2' => Self::Error,
            _ => return None,
        })
    }
}

/// `ERST`'s value: six digits.
#[must_use]
pub fn parse_errors(value: &str) -> Option<Errors> {
    let digits: [u8; PARTS.len()] = value.as_bytes().try_into().ok()?;
    let mut errors = [Health::Ok; PARTS.len()];
    for (health, digit) in errors.iter_mut().zip(digits) {
        *health = Health::parse(digit)?;
    }
    Some(errors)
}

/// `LAMP`'s value: for each lamp its hours and whether it is on. The
/// standard has at most 8 lamps and 99999 hours.
#[must_use]
pub fn parse_lamps(value: &str) -> Option<Vec<Lamp>> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    if words.is_empty() || words.len() % 2 != 0 || words.len() > 16 {
        return None;
    }
    words
        .chunks_exact(2)
        .map(|pair| match pair {
            [hours, on] => Some(Lamp {
                hours: parse_hours(hours)?,
                on: parse_flag(on)?,
            }),
            _ => None,
        })
        .collect()
}

/// `FILT`'s value, class 2, and the hours of a lamp.
#[must_use]
pub fn parse_hours(value: &str) -> Option<u32> {
    // Rust would take a plus sign.
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

/// `FREZ`'s value, class 2, and whether a lamp is on.
#[must_use]
pub fn parse_flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// `CLSS`'s value (4.14): a digit, before which some projectors have words, as
/// `Class 2`. A class that is not known here has what the ones before it had.
#[must_use]
pub fn parse_class(value: &str) -> Option<Class> {
    let (digit, before) = value.as_bytes().split_last()?;
    if before.last().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    match digit {
        b'1' => Some(Class::One),
        b'2'..=b'9' => Some(Class::Two),
        _ => None,
    }
}

/// `AVMT`'s value (4.6).
#[must_use]
pub fn parse_mute(value: &str) -> Option<Mute> {
    let (picture, sound) = match value {
        "11" => (Some(true), Some(false)),
        "21" => (Some(false), Some(true)),
        "31" => (Some(true), Some(true)),
        "30" => (Some(false), Some(false)),
        // These two the standard has as instructions only; some projectors
        // answer with them. They speak of one of the two.
        "10" => (Some(false), None),
        "20" => (None, Some(false)),
        _ => return None,
    };
    Some(Mute { picture, sound })
}

/// `INPT`'s value: the kind of input (1 RGB, 2 video, 3 digital, 4 storage,
/// 5 network, and in class 2 6 internal) and its number, in class 2 also a
/// letter.
#[must_use]
pub fn parse_input(value: &str) -> Option<&str> {
    let valid = value.len() == 2
        && value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|b| b.is_ascii_alphanumeric());
    valid.then_some(value)
}

/// `INST`'s value: the inputs, at most 50 by the standard.
#[must_use]
pub fn parse_inputs(value: &str) -> Option<Vec<&str>> {
    let inputs: Vec<&str> = value
        .split_ascii_whitespace()
        .map(parse_input)
        .collect::<Option<_>>()?;
    (1..=50).contains(&inputs.len()).then_some(inputs)
}

/// `RRES`'s value, class 2: `1920x1080`.
#[must_use]
pub fn parse_resolution(value: &str) -> Option<Resolution> {
    let (width, height) = value.split_once(['x', 'X'])?;
    let pixels = |text: &str| u16::try_from(parse_hours(text)?).ok();
    Some(Resolution {
        width: pixels(width)?,
        height: pixels(height)?,
    })
}

/// `IRES`'s value, class 2: a resolution, `-` or `*`.
#[must_use]
pub fn parse_signal(value: &str) -> Option<Signal> {
    match value {
        "-" => Some(Signal::None),
        "*" => Some(Signal::Unknown),
        size => parse_resolution(size).map(Signal::Picture),
    }
}

impl std::fmt::Display for Resolution {
    /// As on the wire.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power() {
        for (value, power) in [
            ("0", Some(Power::Off)),
            ("1", Some(Power::On)),
            ("2", Some(Power::Cooling)),
            ("3", Some(Power::WarmUp)),
            ("4", None),
            ("01", None),
            ("", None),
            ("OK", None),
        ] {
            assert_eq!(Power::parse(value), power, "{value}");
            if let Some(power) = power {
                assert_eq!(power.digit().to_string(), value);
            }
        }
    }

    #[test]
    fn errors() {
        use Health::{Error, Ok, Warning};
        for (value, errors) in [
            ("000000", Some([Ok; 6])),
            ("012012", Some([Ok, Warning, Error, Ok, Warning, Error])),
            ("020000", Some([Ok, Error, Ok, Ok, Ok, Ok])),
            ("00000", None),
            ("0000000", None),
            ("000003", None),
            ("00000é", None),
            ("", None),
        ] {
            assert_eq!(parse_errors(value), errors, "{value}");
        }
    }

    #[test]
    fn lamps() {
        let lamp = |hours, on| Lamp { hours, on };
        for (value, lamps) in [
            ("1234 1", Some(vec![lamp(1234, true)])),
            ("0 0", Some(vec![lamp(0, false)])),
            ("00099 1  5 0", Some(vec![lamp(99, true), lamp(5, false)])),
            ("", None),
            ("1234", None),
            ("1234 1 5", None),
            ("1234 2", None),
            ("-1 0", None),
            ("+1 0", None),
            ("4294967296 0", None),
            ("1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", None),
        ] {
            assert_eq!(parse_lamps(value), lamps, "{value}");
        }
    }

    #[test]
    fn inputs() {
        for (value, valid) in [
            ("31", true),
            ("11", true),
            ("3A", true),
            ("3", false),
            ("311", false),
            ("A1", false),
            ("é", false),
            ("", false),
        ] {
            assert_eq!(parse_input(value).is_some(), valid, "{value}");
        }
    }

    #[test]
    fn lists_of_inputs() {
        assert_eq!(parse_inputs("11 12  3A"), Some(vec!["11", "12", "3A"]));
        for value in ["", "1", "11 HDMI", &"11 ".repeat(51)] {
            assert_eq!(parse_inputs(value), None, "{value}");
        }
    }

    #[test]
    fn classes_flags_and_hours() {
        for (value, class) in [
            ("1", Some(Class::One)),
            ("2", Some(Class::Two)),
            ("3", Some(Class::Two)),
            ("Class 1", Some(Class::One)),
            ("Class 2", Some(Class::Two)),
            ("CLASS2", Some(Class::Two)),
            ("0", None),
            ("12", None),
            ("Class 12", None),
            ("Class", None),
            ("2.", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(parse_class(value), class, "{value}");
        }
        for (value, flag) in [("0", Some(false)), ("1", Some(true)), ("2", None)] {
            assert_eq!(parse_flag(value), flag, "{value}");
        }
        for (value, hours) in [
            ("0", Some(0)),
            ("99999", Some(99999)),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("4294967296", None),
        ] {
            assert_eq!(parse_hours(value), hours, "{value}");
        }
    }

    #[test]
    fn mutes() {
        for (value, mute) in [
            ("11", Some((Some(true), Some(false)))),
            ("21", Some((Some(false), Some(true)))),
            ("31", Some((Some(true), Some(true)))),
            ("30", Some((Some(false), Some(false)))),
            ("10", Some((Some(false), None))),
            ("20", Some((None, Some(false)))),
            ("32", None),
            ("", None),
        ] {
            let found = parse_mute(value).map(|mute| (mute.picture, mute.sound));
            assert_eq!(found, mute, "{value}");
        }
    }

    #[test]
    fn resolutions() {
        let picture = |width, height| Some(Signal::Picture(Resolution { width, height }));
        for (value, signal) in [
            ("1920x1080", picture(1920, 1080)),
            ("3840X2160", picture(3840, 2160)),
            ("-", Some(Signal::None)),
            ("*", Some(Signal::Unknown)),
            ("1920", None),
            ("1920x", None),
            ("70000x1", None),
            ("1x1x1", None),
            ("", None),
        ] {
            assert_eq!(parse_signal(value), signal, "{value}");
        }
    }
}
