//! The commands that a technician types: each does one thing at once and ends.
//! None of them starts the agent, and none but [`enroll`] writes to its files.
//!
//! | module | command |
//! |---|---|
//! | [`check`] | says whether the agent can work here, and what to do |
//! | [`discover`] | says what equipment is in a network |
//! | [`enroll`] | gets a new agent its token, and writes its configuration |
//! | [`probe`] | probes one device once, with the wire shown |
//! | [`status`] | shows what the running agent knows |
//! | [`sweep`] | probes every device of a configuration file once |
//! | [`table`] | columns for a terminal |
//! | [`output`] | what goes to the terminal, coloured or not |

pub mod check;
pub mod discover;
pub mod enroll;
pub mod output;
pub mod probe;
pub mod status;
pub mod sweep;
pub mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;

use crate::driver::wire;
use crate::settings::Settings;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything as wished.
    Good,
    /// It did what it should, and found something bad.
    Bad,
    /// It could not do what it should, or found nothing out.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Bad => 1,
            Exit::Unknown => 2,
        })
    }
}

/// What a command gives back: how it ended, or why it could not do its work.
pub type Outcome = Result<Exit, Box<dyn std::error::Error>>;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether the agent can work here, and what to do where it cannot.
    ///
    /// Nothing is changed. The exit code is 1 where something must be put
    /// right.
    Check(check::Arguments),
    /// Say what equipment is in networks, and how it may be watched.
    ///
    /// Each address is asked with ping and ARP, SNMP and PJLink, at a bounded
    /// rate. Only the networks that are named are asked.
    Discover(discover::Arguments),
    /// Get a new agent its token for a code, and write its configuration file.
    ///
    /// The exit code is 2 where there is no configuration file then.
    Enroll(enroll::Arguments),
    /// Probe one device once.
    ///
    /// The exit code is 0 for online, 1 for offline, 2 for unknown or where
    /// the command itself is wrong.
    Probe(Box<probe::Arguments>),
    /// Show what the running agent knows.
    ///
    /// The exit code is 0 where nothing is in fault, 1 where something is, 2
    /// where no agent answers.
    Status(status::Arguments),
    /// Probe every device of a configuration file once.
    Sweep(sweep::Arguments),
}

impl Command {
    /// Whether what goes over the wire is to be shown.
    fn shows_wire(&self) -> bool {
        matches!(self, Self::Probe(arguments) if arguments.verbose())
    }

    /// Begins the log. A command's answer is its output, so only what is
    /// wrong is logged where `RUST_LOG` says nothing else.
    pub fn start_log(&self) {
        let filter = match self {
            // What is wrong stands in its lines.
            Self::Check(_) => "off",
            _ if self.shows_wire() => "warn,wire=trace",
            _ => "warn",
        };
        let began = Instant::now();
        av_service::journal::logger(filter)
            .format(move |line, record| {
                if record.target() == wire::TARGET {
                    let after = began.elapsed().as_secs_f64();
                    writeln!(line, "{after:8.3} s {}", record.args())
                } else {
                    writeln!(line, "{}: {}", record.level(), record.args())
                }
            })
            .init();
    }

    /// Runs the command.
    #[must_use]
    pub fn run(self) -> Exit {
        let outcome = match self {
            Self::Check(arguments) => check::run(&arguments),
            Self::Discover(arguments) => discover::run(&arguments),
            Self::Enroll(arguments) => enroll::run(&arguments),
            Self::Probe(arguments) => probe::run(&arguments),
            Self::Status(arguments) => status::run(&arguments),
            Self::Sweep(arguments) => sweep::run(&arguments),
        };
        outcome.unwrap_or_else(|error| {
            output::error(&*error);
            Exit::Unknown
        })
    }
}

/// The running agent's configuration file.
fn config_path() -> PathBuf {
    // Another variable that is not valid does not change where it is.
    Settings::from_env().map_or_else(
        |_| Settings::DEFAULT_CONFIG_PATH.into(),
        |settings| settings.config_path,
    )
}
