//! The PJLink driver: asks a projector over TCP (JBMIA, "PJLink
//! Specifications Class 1").
//!
//! | module | what it holds |
//! |---|---|
//! | `protocol` | the lines and what they mean |
//! | `connection` | a TCP connection that carries lines |
//! | `reading` | what was learnt, and how it is told |

mod connection;
pub mod protocol;
mod reading;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, PjlinkSettings};
use av_proto::text::excerpt;
use av_proto::verdict::Status;

use crate::driver::workers::Workers;
use crate::driver::{Driver, Reply, Rim};
use crate::finding::Finding;
use connection::{Connection, LineError};
use protocol::{Answer, Greeting, Query};
use reading::Reading;

/// What a probe may take beyond a time-out each for connection, greeting and
/// first answer.
const SLACK: Duration = Duration::from_secs(4);
/// A projector that left this many queries unanswered is not asked more.
const MISSES_MAX: u32 = 2;
/// Lines that answer nothing, before a projector is taken for something else.
const STRAY_LINES_MAX: u32 = 32;
/// Projectors that close after each command need a moment to listen again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How much of what is not PJLink is shown.
const EXCERPT: usize = 40;

/// The driver `pjlink`.
#[derive(Debug)]
pub struct Pjlink {
    workers: Workers,
}

impl Pjlink {
    /// Starts nothing yet.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            workers: rim.workers.clone(),
        }
    }
}

impl Driver for Pjlink {
    fn name(&self) -> &'static str {
        "pjlink"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Pjlink(settings) = &device.settings {
            let (ip, settings) = (device.ip, settings.clone());
            self.workers.run(reply, move || probe(ip, &settings));
        }
    }
}

/// Asks the projector at `ip` for power, errors, lamps, input, name and
/// model. Blocks for at most three times `timeout` and 4 s.
///
/// Online: it greeted as PJLink does, be it in standby or to refuse the
/// password, which `pjlink_error` then says. Offline: the port is closed,
/// silent, or speaks something else. Unknown: this machine cannot connect to
/// any.
#[must_use]
pub fn probe(ip: IpAddr, settings: &PjlinkSettings) -> Finding {
    let mut talk = Talk {
        address: SocketAddr::new(ip, settings.port),
        settings,
        deadline: Instant::now() + settings.timeout * 3 + SLACK,
        line: None,
    };
    let mut reading = Reading::default();
    let status = match talk.connect() {
        Ok(auth) => {
            reading.auth = Some(auth);
            ask_all(&mut talk, &mut reading);
            Status::Online
        }
        Err(Trouble::Refused) => {
            reading.auth = Some(true);
            reading.take(Query::Power, Answer::AuthenticationFailed);
            Status::Online
        }
        Err(Trouble::NoPassword) => {
            reading.auth = Some(true);
            reading.fail("projector wants a password, and none is configured".to_owned());
            Status::Online
        }
        Err(Trouble::NoTalk(status, reason)) => {
            reading.fail(reason);
            status
        }
    };
    reading.finding(status, settings)
}

fn ask_all(talk: &mut Talk<'_>, reading: &mut Reading) {
    let mut misses = 0;
    for query in Query::ALL {
        match talk.ask(query) {
            Ok(Answer::AuthenticationFailed) => {
                reading.take(query, Answer::AuthenticationFailed);
                return;
            }
            Ok(answer) => reading.take(query, answer),
            Err(miss) => {
                if query.vital() {
                    reading.fail(miss.text(query, talk));
                }
                misses += 1;
                // Without its power nothing of a projector is worth the wait.
                if miss.is_final() || query == Query::Power || misses >= MISSES_MAX {
                    return;
                }
            }
        }
    }
}

/// A conversation with a projector, over one connection or several.
#[derive(Debug)]
struct Talk<'a> {
    address: SocketAddr,
    settings: &'a PjlinkSettings,
    deadline: Instant,
    line: Option<Line>,
}

/// An open connection after its greeting.
#[derive(Debug)]
struct Line {
    connection: Connection,
    /// For the first command.
    digest: Option<String>,
    /// Whether the digest was wanted.
    auth: bool,
    /// Whether a command was answered.
    answered: bool,
}

/// Why a connection did not come to a first command.
#[derive(Debug)]
enum Trouble {
    /// TCP did not get there, or no PJLink is spoken there.
    NoTalk(Status, String),
    /// `PJLINK ERRA` for a greeting.
    Refused,
    /// A password is wanted that we do not have.
    NoPassword,
}

/// Why a query has no answer.
#[derive(Debug)]
enum Miss {
    /// None came in time.
    Silent,
    /// The projector closed the connection instead.
    Closed { after_password: bool },
    /// What came is not PJLink.
    Garbage,
    /// It had closed after the last command and could not be had again.
    Lost(String),
    /// The time for the whole probe is used up.
    OutOfTime,
}

impl Miss {
    /// Whether asking on makes no sense.
    fn is_final(&self) -> bool {
        !matches!(self, Self::Silent)
    }

    fn text(&self, query: Query, talk: &Talk<'_>) -> String {
        let code = query.code();
        match self {
            Self::Silent => format!(
                "no answer to {code} within {} s",
                talk.settings.timeout.as_secs_f64()
            ),
            Self::Closed {
                after_password: true,
            } => "projector closed the connection: check the password".to_owned(),
            Self::Closed {
                after_password: false,
            } => format!("projector closed the connection without an answer to {code}"),
            Self::Garbage => format!("answer to {code} is not PJLink"),
            Self::Lost(reason) => format!("projector closed the connection, then {reason}"),
            Self::OutOfTime => format!("too slow: {code} was not reached in time"),
        }
    }
}

impl Talk<'_> {
    /// Connects and reads the greeting. Whether a password is wanted.
    fn connect(&mut self) -> Result<bool, Trouble> {
        self.line = None;
        let port = self.address.port();
        let seconds = self.settings.timeout.as_secs_f64();
        let mut connection = Connection::open(self.address, self.step())
            .map_err(|e| unreached(&e, port, seconds))?;
        let greeting = connection.line(self.step()).map_err(|error| {
            // Many projectors serve one controller at a time and leave the
            // others waiting or close on them.
            let reason = match error {
                LineError::TimedOut => format!(
                    "port {port} open, but no PJLink greeting within {seconds} s: \
                     another controller connected?"
                ),
                LineError::Closed => format!(
                    "port {port} open, but closed before a PJLink greeting: \
                     another controller connected?"
                ),
                LineError::TooLong => format!("port {port} does not speak PJLink"),
            };
            Trouble::NoTalk(Status::Offline, reason)
        })?;
        let digest = match protocol::parse_greeting(&greeting) {
            Some(Greeting::Open) => None,
            Some(Greeting::Locked(random)) => {
                let password = self.settings.password.as_ref().ok_or(Trouble::NoPassword)?;
                Some(protocol::digest(&random, password.expose()))
            }
            Some(Greeting::Refused) => return Err(Trouble::Refused),
            None => {
                let said = excerpt(&greeting, EXCERPT);
                return Err(Trouble::NoTalk(
                    Status::Offline,
                    format!("port {port} does not speak PJLink: {said}"),
                ));
            }
        };
        let auth = digest.is_some();
        self.line = Some(Line {
            connection,
            digest,
            auth,
            answered: false,
        });
        Ok(auth)
    }

    /// The answer to `query`. Connects again where the projector closed the
    /// connection after an earlier answer, as some do after each.
    fn ask(&mut self, query: Query) -> Result<Answer, Miss> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(Miss::OutOfTime);
            }
            let Some(mut line) = self.line.take() else {
                self.reconnect()?;
                continue;
            };
            match line.ask(query, self.step()) {
                Ok(answer) => {
                    line.answered = true;
                    self.line = Some(line);
                    return Ok(answer);
                }
                Err(LineError::Closed) if line.answered => {}
                Err(LineError::Closed) => {
                    return Err(Miss::Closed {
                        after_password: line.auth,
                    });
                }
                Err(LineError::TooLong) => return Err(Miss::Garbage),
                Err(LineError::TimedOut) => {
                    self.line = Some(line);
                    return Err(if Instant::now() >= self.deadline {
                        Miss::OutOfTime
                    } else {
                        Miss::Silent
                    });
                }
            }
        }
    }

    fn reconnect(&mut self) -> Result<(), Miss> {
        std::thread::sleep(RECONNECT_PAUSE);
        match self.connect() {
            Ok(_) => Ok(()),
            Err(Trouble::NoTalk(_, reason)) => Err(Miss::Lost(reason)),
            Err(Trouble::Refused | Trouble::NoPassword) => Err(Miss::Closed {
                after_password: true,
            }),
        }
    }

    /// The deadline of the next step.
    fn step(&self) -> Instant {
        self.deadline.min(Instant::now() + self.settings.timeout)
    }
}

impl Line {
    fn ask(&mut self, query: Query, deadline: Instant) -> Result<Answer, LineError> {
        let request = protocol::request(query, self.digest.take().as_deref());
        self.connection.send(&request, deadline)?;
        for _ in 0..STRAY_LINES_MAX {
            let line = self.connection.line(deadline)?;
            if let Some(answer) = protocol::parse_answer(&line, query) {
                return Ok(answer);
            }
        }
        Err(LineError::TooLong)
    }
}

fn unreached(error: &io::Error, port: u16, seconds: f64) -> Trouble {
    use io::ErrorKind as Kind;
    let (status, reason) = match error.kind() {
        Kind::ConnectionRefused => (Status::Offline, format!("port {port} closed")),
        Kind::TimedOut | Kind::WouldBlock => (
            Status::Offline,
            format!("no answer from port {port} within {seconds} s"),
        ),
        Kind::ConnectionReset | Kind::ConnectionAborted => (
            Status::Offline,
            format!("port {port} broke the connection off"),
        ),
        Kind::HostUnreachable => (Status::Offline, "host unreachable".to_owned()),
        Kind::NetworkUnreachable => (
            Status::Unknown,
            "no connection tried: this machine has no route to the network".to_owned(),
        ),
        Kind::NetworkDown => (
            Status::Unknown,
            "no connection tried: the network is down here".to_owned(),
        ),
        _ => (Status::Unknown, format!("no connection possible: {error}")),
    };
    Trouble::NoTalk(status, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_errors_are_told_apart() {
        for (errno, status, reason) in [
            (111, Status::Offline, "port 4352 closed"),
            (110, Status::Offline, "no answer from port 4352 within 2 s"),
            (104, Status::Offline, "port 4352 broke the connection off"),
            (113, Status::Offline, "host unreachable"),
            (
                101,
                Status::Unknown,
                "no connection tried: this machine has no route to the network",
            ),
            (
                100,
                Status::Unknown,
                "no connection tried: the network is down here",
            ),
            (
                24,
                Status::Unknown,
                "no connection possible: Too many open files (os error 24)",
            ),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            match unreached(&error, 4352, 2.0) {
                Trouble::NoTalk(found, text) => {
                    assert_eq!((found, text.as_str()), (status, reason));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
