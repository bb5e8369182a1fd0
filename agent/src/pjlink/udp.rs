//! What class 2 projectors say over UDP, port 4352: the answer to a search,
//! and notices that they send by themselves (JBMIA, "PJLink Specifications
//! Class 2", "Search procedure" and "Status notification"). Pure functions.

use std::fmt;

use pnet::util::MacAddr;

use super::value::{Errors, Health, PARTS, Power, parse_errors, parse_input};

/// The port of both TCP and UDP.
pub const PORT: u16 = 4352;
/// The question to all projectors of a network.
pub const SEARCH: &[u8] = b"%2SRCH\r";
/// More than any of these messages has.
pub const MESSAGE_MAX: usize = 136;

/// One datagram of a projector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `%2ACKN`: the answer to [`SEARCH`], with the address of its interface.
    Found(MacAddr),
    /// `%2LKUP`: it has come to the network.
    LinkUp(MacAddr),
    /// `%2ERST`: the state of its parts is now this.
    Errors(Errors),
    /// `%2POWR`: so is its power. A notice has 0 for off or cooling and 1 for
    /// on or warming up; some projectors have 2 and 3 too, as in an answer.
    Power(Power),
    /// `%2INPT`: so is its input.
    Input(String),
}

impl Message {
    /// Reads a datagram; `None` where it is none of a projector's.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram.get(..datagram.len().min(MESSAGE_MAX))?).ok()?;
        let (command, value) = text.trim().strip_prefix("%2")?.split_once('=')?;
        let value = value.trim();
        Some(match command.trim_end().to_ascii_uppercase().as_str() {
            "ACKN" => Self::Found(mac(value)?),
            "LKUP" => Self::LinkUp(mac(value)?),
            "ERST" => Self::Errors(parse_errors(value)?),
            "POWR" => Self::Power(Power::parse(value)?),
            "INPT" => Self::Input(parse_input(value)?.to_owned()),
            _ => return None,
        })
    }
}

/// Six pairs of hexadecimal digits with colons between; some projectors have
/// hyphens.
fn mac(text: &str) -> Option<MacAddr> {
    let pairs: Vec<u8> = text
        .split([':', '-'])
        .map(|pair| {
            let digits = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        })
        .collect::<Option<_>>()?;
    let [a, b, c, d, e, f] = *pairs.as_slice() else {
        return None;
    };
    Some(MacAddr::new(a, b, c, d, e, f))
}

impl fmt::Display for Message {
    /// As on the wire, without the carriage return.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(mac) => write!(f, "%2ACKN={mac}"),
            Self::LinkUp(mac) => write!(f, "%2LKUP={mac}"),
            Self::Errors(errors) => {
                let digits: String = errors.iter().map(|health| health.digit()).collect();
                write!(f, "%2ERST={digits}")
            }
            Self::Power(power) => write!(f, "%2POWR={}", power.digit()),
            Self::Input(input) => write!(f, "%2INPT={input}"),
        }
    }
}

impl Message {
    /// For a log line: "power off or cooling".
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Found(mac) => format!("answers a search, {mac}"),
            Self::LinkUp(mac) => format!("has come to the network, {mac}"),
            Self::Errors(errors) => {
                let ailing: Vec<String> = PARTS
                    .iter()
                    .zip(errors)
                    .filter(|(_, health)| **health != Health::Ok)
                    .map(|(part, health)| format!("{part} {}", health.word()))
                    .collect();
                if ailing.is_empty() {
                    "every part ok".to_owned()
                } else {
                    ailing.join(", ")
                }
            }
            Self::Power(power) => match power {
                Power::Off => "power off or cooling",
                Power::On => "power on or warming up",
                Power::Cooling => "power cooling",
                Power::WarmUp => "power warming up",
            }
            .to_owned(),
            Self::Input(input) => format!("input {input}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_print_as_they_were() {
        for (text, described) in [
            (
                "%2ACKN=00:1b:2c:aa:bb:cc",
                "answers a search, 00:1b:2c:aa:bb:cc",
            ),
            (
                "%2LKUP=00:1b:2c:aa:bb:cc",
                "has come to the network, 00:1b:2c:aa:bb:cc",
            ),
            ("%2ERST=012000", "lamp warning, temperature error"),
            ("%2ERST=000000", "every part ok"),
            ("%2POWR=0", "power off or cooling"),
            ("%2POWR=1", "power on or warming up"),
            ("%2POWR=2", "power cooling"),
            ("%2POWR=3", "power warming up"),
            ("%2INPT=3A", "input 3A"),
        ] {
            let message = Message::parse(format!("{text}\r").as_bytes()).unwrap();
            assert_eq!(message.to_string(), text);
            assert_eq!(message.describe(), described);
        }
        for (odd, plain) in [
            ("%2ackn=00-1B-2C-AA-BB-CC", "%2ACKN=00:1b:2c:aa:bb:cc"),
            (" %2POWR = 1 \r\n", "%2POWR=1"),
        ] {
            let message = Message::parse(odd.as_bytes());
            assert_eq!(message.map(|m| m.to_string()).as_deref(), Some(plain));
        }
    }

    #[test]
    fn what_is_none_is_none() {
        for datagram in [
            &b""[..],
            b"%2SRCH\r",
            b"%2ACKN=",
            b"%2ACKN=00:1b:2c:aa:bb",
            b"%2ACKN=00:1b:2c:aa:bb:cc:dd",
            b"%2ACKN=0:1b:2c:aa:bb:cc",
            b"%2ACKN=+1:1b:2c:aa:bb:cc",
            b"%1POWR=1",
            b"%2POWR=4",
            b"%2POWR=OK",
            b"%2ERST=00000",
            b"%2INPT=HDMI",
            b"%2LAMP=1 1",
            b"\xff\xfe",
            &[b'%'; 5000],
        ] {
            assert_eq!(Message::parse(datagram), None, "{datagram:?}");
        }
    }
}
