//! PJLink class 1 as text: pure functions.
//!
//! JBMIA, "PJLink Specifications Class 1": lines of ASCII that end with a
//! carriage return, at most 136 bytes each.

/// The first line of a connection (5.1, "Authentication procedure").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// `PJLINK 0`: no password is wanted.
    Open,
    /// `PJLINK 1 498e4a67`: the first command must carry the digest of this
    /// text and the password.
    Locked(String),
    /// `PJLINK ERRA`: refused before anything was asked.
    Refused,
}

/// What is asked of a projector, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// `POWR` (4.2).
    Power,
    /// `ERST` (4.7).
    Errors,
    /// `LAMP` (4.8).
    Lamps,
    /// `INPT` (4.4).
    Input,
    /// `NAME` (4.10).
    Name,
    /// `INF1` (4.11).
    Manufacturer,
    /// `INF2` (4.12).
    Model,
}

/// An answer to a query (2.4, "Get commands").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `=value`; `OK` too, which is none to a query.
    Value(String),
    /// `ERR1`: the projector does not know the command.
    Undefined,
    /// `ERR2`: it does not know the parameter.
    OutOfParameter,
    /// `ERR3`: not at this time, for instance in standby.
    Unavailable,
    /// `ERR4`: the projector or its display has failed.
    Failure,
    /// `PJLINK ERRA`: the digest is wrong or missing.
    AuthenticationFailed,
}

/// `POWR`.
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

/// One part's state in `ERST`.
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

/// One lamp of `LAMP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lamp {
    /// Hours of use.
    pub hours: u32,
    /// Whether it shines now.
    pub on: bool,
}

impl Query {
    /// All of them, in that order.
    pub const ALL: [Self; 7] = [
        Self::Power,
        Self::Errors,
        Self::Lamps,
        Self::Input,
        Self::Name,
        Self::Manufacturer,
        Self::Model,
    ];

    /// The command's name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Power => "POWR",
            Self::Errors => "ERST",
            Self::Lamps => "LAMP",
            Self::Input => "INPT",
            Self::Name => "NAME",
            Self::Manufacturer => "INF1",
            Self::Model => "INF2",
        }
    }

    /// Whether the projector's health hangs on it. A projector that keeps
    /// its name to itself is as well as any.
    pub fn vital(self) -> bool {
        matches!(self, Self::Power | Self::Errors | Self::Lamps)
    }
}

impl Power {
    /// The digit on the wire.
    pub fn digit(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::Cooling => 2,
            Self::WarmUp => 3,
        }
    }
}

/// Reads the first line of a connection; `None` where it is not PJLink's.
pub fn parse_greeting(line: &str) -> Option<Greeting> {
    let mut words = line.split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("PJLINK") {
        return None;
    }
    let greeting = match (words.next()?, words.next()) {
        ("0", None) => Greeting::Open,
        // The standard has 8 hexadecimal digits. Its letter case is part of
        // what is hashed.
        ("1", Some(random)) if random.len() <= 32 && random.bytes().all(is_token) => {
            Greeting::Locked(random.to_owned())
        }
        (word, None) if word.eq_ignore_ascii_case("ERRA") => Greeting::Refused,
        _ => return None,
    };
    words.next().is_none().then_some(greeting)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// The line that asks `query`, with the digest in front where this is the
/// first of a connection that wants one.
pub fn request(query: Query, digest: Option<&str>) -> String {
    format!("{}%1{} ?\r", digest.unwrap_or_default(), query.code())
}

/// The MD5 of the greeting's random text and the password, in lower-case
/// hexadecimal digits (5.1).
pub fn digest(random: &str, password: &str) -> String {
    format!("{:x}", md5::compute(format!("{random}{password}")))
}

/// Reads a line as the answer to `query`; `None` where it is none, such as a
/// late answer to an earlier query.
pub fn parse_answer(line: &str, query: Query) -> Option<Answer> {
    if parse_greeting(line) == Some(Greeting::Refused) {
        return Some(Answer::AuthenticationFailed);
    }
    let (command, value) = line.trim().strip_prefix('%')?.split_once('=')?;
    let command = command.trim_end();
    // One digit for the class, then the command.
    if !command.starts_with(|c: char| c.is_ascii_digit())
        || !command.get(1..)?.eq_ignore_ascii_case(query.code())
    {
        return None;
    }
    let value = value.trim();
    Some(match value.to_ascii_uppercase().as_str() {
        "ERR1" => Answer::Undefined,
        "ERR2" => Answer::OutOfParameter,
        "ERR3" => Answer::Unavailable,
        "ERR4" => Answer::Failure,
        "ERRA" => Answer::AuthenticationFailed,
        _ => Answer::Value(value.to_owned()),
    })
}

/// `POWR`'s value.
pub fn parse_power(value: &str) -> Option<Power> {
    Some(match value {
        "0" => Power::Off,
        "1" => Power::On,
        "2" => Power::Cooling,
        "3" => Power::WarmUp,
        _ => return None,
    })
}

/// `ERST`'s value: six digits.
pub fn parse_errors(value: &str) -> Option<Errors> {
    let digits: [u8; PARTS.len()] = value.as_bytes().try_into().ok()?;
    let mut errors = [Health::Ok; PARTS.len()];
    for (health, digit) in errors.iter_mut().zip(digits) {
        *health = match digit {
            b'0' => Health::Ok,
            b'1' => Health::Warning,
            b'2' => Health::Error,
            _ => return None,
        };
    }
    Some(errors)
}

/// `LAMP`'s value: for each lamp its hours and whether it is on. The
/// standard has at most 8 lamps and 99999 hours.
pub fn parse_lamps(value: &str) -> Option<Vec<Lamp>> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    if words.is_empty() || words.len() % 2 != 0 || words.len() > 16 {
        return None;
    }
    words
        .chunks_exact(2)
        .map(|pair| match pair {
            [hours, on] if hours.bytes().all(|b| b.is_ascii_digit()) => Some(Lamp {
                hours: hours.parse().ok()?,
                on: match *on {
                    "0" => false,
                    "1" => true,
                    _ => return None,
                },
            }),
            _ => None,
        })
        .collect()
}

/// `INPT`'s value: the kind of input (1 RGB, 2 video, 3 digital, 4 storage,
/// 5 network) and its number.
pub fn parse_input(value: &str) -> Option<String> {
    let valid = value.len() == 2
        && value.starts_with(|c: char| c.is_ascii_digit())
        && value.bytes().all(|b| b.is_ascii_alphanumeric());
    valid.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings() {
        let locked = |random: &str| Some(Greeting::Locked(random.to_owned()));
        for (line, greeting) in [
            ("PJLINK 0", Some(Greeting::Open)),
            ("pjlink 0 ", Some(Greeting::Open)),
            ("PJLINK 1 498e4a67", locked("498e4a67")),
            ("PJLINK 1 498E4A67", locked("498E4A67")),
            ("PJLINK 1 0", locked("0")),
            ("PJLINK ERRA", Some(Greeting::Refused)),
            ("PJLink erra", Some(Greeting::Refused)),
            ("", None),
            ("PJLINK", None),
            ("PJLINK 1", None),
            ("PJLINK 2", None),
            ("PJLINK 0 498e4a67", None),
            ("PJLINK 1 498e4a67 x", None),
            ("PJLINK 1 498e\u{fffd}a67", None),
            ("PJLINK 1 123456789012345678901234567890123", None),
            ("PJLINK0", None),
            ("SSH-2.0-OpenSSH_9.2", None),
            ("HTTP/1.1 400 Bad Request", None),
            ("%1POWR=1", None),
        ] {
            assert_eq!(parse_greeting(line), greeting, "{line}");
        }
    }

    #[test]
    fn requests_and_the_digest_of_the_standard() {
        // The example of the standard, 5.1.
        let digest = digest("498e4a67", "JBMIAProjectorLink");
        assert_eq!(digest, "5d8409bc1c3fa39749434aa3a5c38682");
        assert_eq!(
            request(Query::Power, Some(&digest)),
            "5d8409bc1c3fa39749434aa3a5c38682%1POWR ?\r"
        );
        let requests: Vec<String> = Query::ALL.map(|query| request(query, None)).into();
        assert_eq!(
            requests.concat(),
            "%1POWR ?\r%1ERST ?\r%1LAMP ?\r%1INPT ?\r%1NAME ?\r%1INF1 ?\r%1INF2 ?\r"
        );
    }

    #[test]
    fn answers() {
        let value = |text: &str| Some(Answer::Value(text.to_owned()));
        for (line, query, answer) in [
            ("%1POWR=1", Query::Power, value("1")),
            ("%1powr=1", Query::Power, value("1")),
            (" %2POWR = 1 ", Query::Power, value("1")),
            ("%1POWR=OK", Query::Power, value("OK")),
            ("%1POWR=", Query::Power, value("")),
            ("%1NAME=a=b é", Query::Name, value("a=b é")),
            ("%1LAMP=ERR1", Query::Lamps, Some(Answer::Undefined)),
            ("%1LAMP=ERR2", Query::Lamps, Some(Answer::OutOfParameter)),
            ("%1LAMP=err3", Query::Lamps, Some(Answer::Unavailable)),
            ("%1LAMP=ERR4", Query::Lamps, Some(Answer::Failure)),
            ("%1LAMP=ERR5", Query::Lamps, value("ERR5")),
            (
                "PJLINK ERRA",
                Query::Power,
                Some(Answer::AuthenticationFailed),
            ),
            (
                "%1POWR=ERRA",
                Query::Power,
                Some(Answer::AuthenticationFailed),
            ),
            // Not the answer to this query, or to any.
            ("%1POWR=1", Query::Lamps, None),
            ("%1POWR 1", Query::Power, None),
            ("%1POWR ?", Query::Power, None),
            ("1POWR=1", Query::Power, None),
            ("%POWR=1", Query::Power, None),
            ("%xPOWR=1", Query::Power, None),
            ("%éPOWR=1", Query::Power, None),
            ("%=1", Query::Power, None),
            ("%1=1", Query::Power, None),
            ("PJLINK 0", Query::Power, None),
            ("", Query::Power, None),
        ] {
            assert_eq!(parse_answer(line, query), answer, "{line}");
        }
    }

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
            assert_eq!(parse_power(value), power, "{value}");
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
}
