//! The commands that a technician types: each does one thing at once and ends.
//! None of them starts the agent, and none writes to its files.
//!
//! | module | command |
//! |---|---|
//! | [`sweep`] | probes every device of a configuration file once |
//! | [`table`] | columns for a terminal |
//! | [`output`] | what goes to the terminal, coloured or not |

pub mod output;
pub mod sweep;
pub mod table;

use std::process::ExitCode;

use clap::Subcommand;

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
    /// Probe every device of a configuration file once.
    Sweep(sweep::Arguments),
}

impl Command {
    /// The log filter where `RUST_LOG` says nothing: a command's answer is
    /// its output, so only what is wrong is logged.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        "warn"
    }

    /// Runs the command.
    #[must_use]
    pub fn run(self) -> Exit {
        let outcome = match self {
            Self::Sweep(arguments) => sweep::run(&arguments),
        };
        outcome.unwrap_or_else(|error| {
            output::error(&*error);
            Exit::Unknown
        })
    }
}
