//! The commands that a technician types: each does one thing at once and ends.
//! None of them starts the agent, and none but [`enroll`] writes to its files.
//!
//! | module | command |
//! |---|---|
//! | [`args`] | the words of the command line |
//! | [`check`] | says whether the agent can work here, and what to do |
//! | [`discover`] | says what equipment is in a network |
//! | [`enroll`] | gets a new agent its token, and writes its configuration |
//! | [`probe`] | probes one device once, with the wire shown |
//! | [`status`] | shows what the running agent knows |
//! | [`sweep`] | probes every device of a configuration file once |
//! | [`table`] | columns for a terminal |
//! | `progress` | how far a command is, and Ctrl-C |
//! | `installed` | the service's variables, user and rights |
//! | [`output`] | what goes to the terminal, coloured or not |

pub mod args;
pub mod check;
pub mod discover;
pub mod enroll;
mod installed;
pub mod output;
pub mod probe;
mod progress;
pub mod status;
pub mod sweep;
pub mod table;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Instant;

use av_proto::config::Device;
use av_proto::nearest::nearest;
use av_proto::text::one_line;

use self::args::{ArgsError, Given, Stop};
use self::output::DOUBTFUL;
use crate::driver::wire;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything as wished.
    Good,
    /// It did what it should, and found something bad.
    Bad,
    /// It could not do what it should, or found nothing out.
    Unknown,
    /// It was ended by Ctrl-C, and gave what it had until then.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Bad => 1,
            Exit::Unknown => 2,
            // A shell's for a program that SIGINT ended.
            Exit::Interrupted => 130,
        })
    }
}

/// What a command gives back: how it ended, or why it could not do its work.
pub type Outcome = Result<Exit, Box<dyn std::error::Error>>;

/// The commands.
#[derive(Debug)]
pub enum Command {
    /// Say whether the agent can work here.
    Check(check::Arguments),
    /// Say what equipment is in networks.
    Discover(discover::Arguments),
    /// Get a new agent its token for a code.
    Enroll(enroll::Arguments),
    /// Probe one device once.
    Probe(Box<probe::Arguments>),
    /// Show what the running agent knows.
    Status(status::Arguments),
    /// Probe every device of a configuration file once.
    Sweep(sweep::Arguments),
}

/// What `av-agent --help` prints.
const HELP: &str = "\
Watches a site's audio-visual equipment and reports to the backend.

It is set by environment variables: AGENT_CONFIG (the configuration file,
default /agent/config/config.json; commands take the variables of the installed
service where AGENT_CONFIG is not set), CONFIG_SYNC_INTERVAL_MIN (default 5),
AV_PAGE_LISTEN (status page, default 0.0.0.0:8080), AV_PAGE_HOSTS (further
names under which it is opened, default none), AV_PAGE_PAUSE_S (between two
sweeps that are asked for on it, default 15), AV_STATE_DIR (default: state
beside the configuration file), AV_FIRST_SYNC_S (default 10), AV_SPOOL_MAX_MB
(default 256), AV_SPOOL_MAX_DAYS (default 30), AV_CA_FILE (authorities for TLS,
default: the system's), AV_CLIENT_CERT and AV_CLIENT_KEY (default none),
AV_PJLINK_NOTICES (where notices of projectors are heard, default none),
AV_HANG_S (default 300) and RUST_LOG (default info).

Usage: av-agent
       av-agent <COMMAND>

Commands:
  check     Say whether the agent can work here, and what to do where it cannot
  discover  Say what equipment is in networks, and how it may be watched
  enroll    Get a new agent its token for a code, and write its configuration
  probe     Probe one device once
  status    Show what the running agent knows
  sweep     Probe every device of a configuration file once
  help      Print this help, or that of a command

Options:
  -h, --help
          Print this help
  -V, --version
          Print the version
";

impl Command {
    /// The commands' names.
    const NAMES: [&str; 6] = ["check", "discover", "enroll", "probe", "status", "sweep"];

    /// What `--help` prints for the program, and then for each command with
    /// its name: what the man pages and completions are made of.
    pub fn helps() -> (
        &'static str,
        impl Iterator<Item = (&'static str, &'static str)>,
    ) {
        let of_commands = Self::NAMES
            .into_iter()
            .filter_map(|name| Some((name, help_of(OsStr::new(name)).ok()?)));
        (HELP, of_commands)
    }

    /// The command of a command line without the program's name; none where
    /// the agent is to run.
    ///
    /// # Errors
    /// Where the line asks for help, or is wrong.
    pub fn of(mut words: impl Iterator<Item = OsString>) -> Result<Option<Self>, Stop> {
        let Some(first) = words.next() else {
            return Ok(None);
        };
        let name = first.to_string_lossy();
        if name == "help" {
            let help = words.next().map_or(Ok(HELP), |name| help_of(&name));
            return Err(help.map_or_else(|stop| stop, |help| Stop::Say(help.to_owned())));
        }
        if name.starts_with('-') {
            let given = Given::read(HELP, iter::once(first).chain(words))?;
            return Err(if given.has("version") {
                Stop::Say(format!("av-agent {}\n", crate::VERSION))
            } else {
                given.wrong(ArgsError::Required("<COMMAND>".to_owned()))
            });
        }
        let given = Given::read(help_of(&first)?, words)?;
        Self::named(&name, &given)
            .map(Some)
            .map_err(|error| given.wrong(error))
    }

    fn named(name: &str, given: &Given) -> Result<Self, ArgsError> {
        Ok(match name {
            "check" => Self::Check(check::Arguments::of(given)),
            "discover" => Self::Discover(discover::Arguments::of(given)?),
            "enroll" => Self::Enroll(enroll::Arguments::of(given)?),
            "probe" => Self::Probe(Box::new(probe::Arguments::of(given)?)),
            "status" => Self::Status(status::Arguments::of(given)?),
            _ => Self::Sweep(sweep::Arguments::of(given)?),
        })
    }

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
            _ if self.shows_wire() => "warn,wire=debug",
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

/// A command's help.
fn help_of(name: &OsStr) -> Result<&'static str, Stop> {
    Ok(match name.to_str() {
        Some("check") => check::Arguments::HELP,
        Some("discover") => discover::Arguments::HELP,
        Some("enroll") => enroll::Arguments::HELP,
        Some("probe") => probe::Arguments::HELP,
        Some("status") => status::Arguments::HELP,
        Some("sweep") => sweep::Arguments::HELP,
        _ => {
            let given = args::shown(name);
            let names = Command::NAMES.into_iter().map(str::to_owned);
            let like = nearest(&given, names);
            return Err(Stop::Wrong {
                error: ArgsError::Unknown {
                    what: "command",
                    given,
                    like,
                },
                usage: args::usage(HELP),
            });
        }
    })
}

/// Says what a command line that is no command asks for, or what is wrong with
/// it.
#[must_use]
pub fn stop(stop: &Stop) -> ExitCode {
    match stop {
        Stop::Say(text) => match output::print(&output::with_headings(text)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Stop::Wrong { error, usage } => {
            output::error(error);
            output::hint(&format!("\n{usage}\n\nMore is said with --help.\n"));
            Exit::Unknown.into()
        }
    }
}

/// Lines about a device's settings that have no effect.
fn unknown_lines(device: &Device) -> String {
    let lines = device.unknown.iter().map(|unknown| {
        format!(
            "{DOUBTFUL}⚠ {} ({}): {unknown}{DOUBTFUL:#}\n",
            one_line(&device.name),
            one_line(&device.ip_text)
        )
    });
    lines.collect()
}

/// The address of the status page of an agent on this machine, which listens
/// there.
fn page_url(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("http://{host}:{}", listen.port())
}
