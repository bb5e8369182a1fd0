//! PJLink as text: pure functions.
//!
//! JBMIA, "PJLink Specifications", class 1 (1.04) and class 2 (2.00 of
//! 2017-01-31): lines of ASCII, texts in UTF-8, that end with a carriage return,
//! at most 136 bytes each. Section numbers are those of class 1; what class 2
//! adds is named. Version 2.10 (2024) adds a log-in by SHA-256. It is not used
//! here: the log-in is by MD5, after `PJLINK 1`.

use std::fmt;

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

/// What a projector knows of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Class 1: header `%1`.
    One,
    /// Class 2: header `%2`, more commands, and messages over UDP.
    Two,
}

/// What is asked of a projector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// `POWR` (4.2): the lamp.
    Power,
    /// `ERST` (4.7): the state of its parts.
    Errors,
    /// `LAMP` (4.8): the hours of each lamp.
    Lamps,
    /// `CLSS` (4.14): the class that it speaks.
    Class,
    /// `INPT` (4.4): the selected input. Class 2 knows more of them.
    Input(Class),
    /// `AVMT` (4.6): whether picture and sound are muted.
    Mute,
    /// `INST` (4.9): the inputs that it has. Class 2 knows more of them.
    Inputs(Class),
    /// `NAME` (4.10).
    Name,
    /// `INF1` (4.11): who made it.
    Manufacturer,
    /// `INF2` (4.12): what it is.
    Model,
    /// `INFO` (4.13): anything else.
    Other,
    /// `SNUM`, class 2: its serial number.
    Serial,
    /// `SVER`, class 2: its software's version.
    Version,
    /// `INNM`, class 2: the name of the selected input.
    InputName,
    /// `IRES`, class 2: the resolution of what comes in.
    Resolution,
    /// `RRES`, class 2: the resolution that it is made for.
    Recommended,
    /// `FILT`, class 2: the hours of its filter.
    Filter,
    /// `RLMP`, class 2: the model of a new lamp.
    LampModels,
    /// `RFIL`, class 2: the model of a new filter.
    FilterModels,
    /// `FREZ`, class 2: whether the picture is frozen.
    Freeze,
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

impl Class {
    /// The digit of its header.
    #[must_use]
    pub fn digit(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

impl Query {
    /// What every projector is asked, first what its health hangs on.
    pub const FIRST: [Self; 4] = [Self::Power, Self::Errors, Self::Lamps, Self::Class];

    /// What follows, of each class.
    #[must_use]
    pub fn rest(class: Class) -> Vec<Self> {
        let mut rest = vec![
            Self::Input(class),
            Self::Mute,
            Self::Inputs(class),
            Self::Name,
            Self::Manufacturer,
            Self::Model,
            Self::Other,
        ];
        if class == Class::Two {
            rest.extend([
                Self::InputName,
                Self::Resolution,
                Self::Filter,
                Self::Freeze,
                Self::Recommended,
                Self::Serial,
                Self::Version,
                Self::LampModels,
                Self::FilterModels,
            ]);
        }
        rest
    }

    /// The command's name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Power => "POWR",
            Self::Errors => "ERST",
            Self::Lamps => "LAMP",
            Self::Class => "CLSS",
            Self::Input(_) => "INPT",
            Self::Mute => "AVMT",
            Self::Inputs(_) => "INST",
            Self::Name => "NAME",
            Self::Manufacturer => "INF1",
            Self::Model => "INF2",
            Self::Other => "INFO",
            Self::Serial => "SNUM",
            Self::Version => "SVER",
            Self::InputName => "INNM",
            Self::Resolution => "IRES",
            Self::Recommended => "RRES",
            Self::Filter => "FILT",
            Self::LampModels => "RLMP",
            Self::FilterModels => "RFIL",
            Self::Freeze => "FREZ",
        }
    }

    /// The class in whose header it is asked.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Input(class) | Self::Inputs(class) => class,
            Self::Power
            | Self::Errors
            | Self::Lamps
            | Self::Class
            | Self::Mute
            | Self::Name
            | Self::Manufacturer
            | Self::Model
            | Self::Other => Class::One,
            Self::Serial
            | Self::Version
            | Self::InputName
            | Self::Resolution
            | Self::Recommended
            | Self::Filter
            | Self::LampModels
            | Self::FilterModels
            | Self::Freeze => Class::Two,
        }
    }

    /// Whether the projector's health hangs on it. A projector that keeps
    /// its name to itself is as well as any.
    #[must_use]
    pub fn vital(self) -> bool {
        matches!(self, Self::Power | Self::Errors | Self::Lamps)
    }
}

/// Reads the first line of a connection; `None` where it is not PJLink's.
#[must_use]
pub fn parse_greeting(line: &str) -> Option<Greeting> {
    let mut words = line.split_ascii_whitespace();
    if !words.next()?.eq_ignore_ascii_case("PJLINK") {
        return None;
    }
    let greeting = match (words.next()?, words.next()) {
        ("0", None) => Greeting::Open,
        // The standard has 8 hexadecimal digits. Its letter case is part of
        // what is hashed.
        ("1", Some(random))
            if random.len() <= 32 && random.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            Greeting::Locked(random.to_owned())
        }
        (word, None) if word.eq_ignore_ascii_case("ERRA") => Greeting::Refused,
        _ => return None,
    };
    words.next().is_none().then_some(greeting)
}

/// The line that asks `query`. `input` is the one whose name
/// [`Query::InputName`] is after.
#[must_use]
pub fn request(query: Query, input: Option<&str>) -> String {
    let parameter = match (query, input) {
        (Query::InputName, Some(input)) => input,
        _ => "",
    };
    format!("%{}{} ?{parameter}\r", query.class().digit(), query.code())
}

/// In which letters a digest is spelt. The standard has small ones; some
/// projectors compare with capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// As the standard wants it.
    Small,
    /// `5D84...`.
    Capital,
}

impl Letters {
    /// The other ones.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Small => Self::Capital,
            Self::Capital => Self::Small,
        }
    }
}

/// The MD5 of the greeting's random text and the password, in hexadecimal
/// digits (5.1), which stands before the first command of a connection.
#[must_use]
pub fn digest(random: &str, password: &str, letters: Letters) -> String {
    let digest = md5::compute(format!("{random}{password}"));
    match letters {
        Letters::Small => format!("{digest:x}"),
        Letters::Capital => format!("{digest:X}"),
    }
}

/// Reads a line as the answer to `query`; `None` where it is none, such as a
/// late answer to an earlier query.
#[must_use]
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

impl fmt::Display for Answer {
    /// What stands after the `=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(value) => value,
            Self::Undefined => "ERR1",
            Self::OutOfParameter => "ERR2",
            Self::Unavailable => "ERR3",
            Self::Failure => "ERR4",
            Self::AuthenticationFailed => "ERRA",
        })
    }
}

impl fmt::Display for Greeting {
    /// The line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("PJLINK 0"),
            Self::Locked(random) => write!(f, "PJLINK 1 {random}"),
            Self::Refused => f.write_str("PJLINK ERRA"),
        }
    }
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
        let (random, password) = ("498e4a67", "JBMIAProjectorLink");
        assert_eq!(
            digest(random, password, Letters::Small),
            "5d8409bc1c3fa39749434aa3a5c38682"
        );
        assert_eq!(
            digest(random, password, Letters::Capital),
            "5D8409BC1C3FA39749434AA3A5C38682"
        );
        let requests = |queries: &[Query]| -> String {
            queries.iter().map(|q| request(*q, Some("31"))).collect()
        };
        assert_eq!(
            requests(&Query::FIRST),
            "%1POWR ?\r%1ERST ?\r%1LAMP ?\r%1CLSS ?\r"
        );
        assert_eq!(
            requests(&Query::rest(Class::One)),
            "%1INPT ?\r%1AVMT ?\r%1INST ?\r%1NAME ?\r%1INF1 ?\r%1INF2 ?\r%1INFO ?\r"
        );
        assert_eq!(
            requests(&Query::rest(Class::Two)),
            "%2INPT ?\r%1AVMT ?\r%2INST ?\r%1NAME ?\r%1INF1 ?\r%1INF2 ?\r%1INFO ?\r\
             %2INNM ?31\r%2IRES ?\r%2FILT ?\r%2FREZ ?\r%2RRES ?\r%2SNUM ?\r%2SVER ?\r\
             %2RLMP ?\r%2RFIL ?\r"
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
}
