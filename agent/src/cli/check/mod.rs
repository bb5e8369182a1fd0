//! `av-agent check`: whether the agent can work here, and what to do where it
//! cannot.
//!
//! It changes nothing: files are tried with one of its own that it takes away
//! again, and what the backend answers is not applied.
//!
//! | module | what it looks at |
//! |---|---|
//! | `files` | permissions, folders, space |
//! | `network` | ping, ports, name, backend, clock |

mod files;
mod network;

pub(super) use network::unreachable_advice;

use std::fs;
use std::io;
use std::path::PathBuf;

use av_proto::config::SiteConfig;
use av_proto::text::one_line;
use jiff::civil::Weekday;
use serde::Serialize;

use super::args::Given;
use super::installed::{Service, explained, own};
use super::output::{self, BAD, DOUBTFUL, FAINT, GOOD};
use super::{Exit, Outcome};
use crate::config::{Identity, parse};
use crate::driver::Drivers;
use crate::settings::Settings;
use crate::supervisor::Health;

/// What `av-agent check` is told.
#[derive(Debug)]
pub struct Arguments {
    config: Option<PathBuf>,
    offline: bool,
    json: bool,
}

impl Arguments {
    /// What `av-agent check --help` prints.
    pub(super) const HELP: &str = "\
Say whether the agent can work here, and what to do where it cannot.

Nothing is changed. The exit code is 1 where something must be put right.

Where the service is installed, and no other configuration is named, the service
is judged: with its variables, its user and its rights, not those of the caller.

Usage: av-agent check [OPTIONS] [<CONFIG.json>]

Arguments:
  [<CONFIG.json>]
          The configuration file, where it is not the installed service's;
          AGENT_CONFIG and the agent's other variables say the rest

Options:
      --offline
          Leave out what needs the backend
      --json
          Print one JSON document
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Self {
        Self {
            config: given.path_at(0),
            offline: given.has("offline"),
            json: given.has("json"),
        }
    }
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Good,
    /// It works, and somebody should know.
    Doubtful,
    /// The agent, or a part of it, does not work like this.
    Bad,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    level: Level,
    /// What was looked at.
    about: &'static str,
    /// How it is.
    found: String,
    /// What to do.
    advice: Option<String>,
}

impl Line {
    fn new(level: Level, about: &'static str, found: impl Into<String>) -> Self {
        Self {
            level,
            about,
            found: found.into(),
            advice: None,
        }
    }

    pub(super) fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Good, about, found)
    }

    pub(super) fn doubtful(about: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Doubtful, about, found)
    }

    pub(super) fn bad(about: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Bad, about, found)
    }

    /// The same with what to do about it.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Looks at everything and prints what it found.
///
/// # Errors
/// When the output cannot be written.
pub fn run(arguments: &Arguments) -> Outcome {
    let lines = check(arguments);
    let worst = |level| lines.iter().any(|line| line.level == level);
    if arguments.json {
        output::print_json(&lines)?;
    } else {
        output::print(&text(&lines))?;
    }
    Ok(if worst(Level::Bad) {
        Exit::Bad
    } else {
        Exit::Good
    })
}

fn text(lines: &[Line]) -> String {
    let about = lines.iter().map(|line| line.about.len()).max();
    let about = about.unwrap_or_default();
    let mut text = String::new();
    for line in lines {
        let (mark, style) = match line.level {
            Level::Good => ('✓', GOOD),
            Level::Doubtful => ('⚠', DOUBTFUL),
            Level::Bad => ('✗', BAD),
        };
        text += &format!(
            "{style}{mark}{style:#} {:about$}  {}\n",
            line.about,
            one_line(&line.found)
        );
        for advice in line.advice.iter().flat_map(|advice| advice.lines()) {
            text += &format!("  {:about$}  {FAINT}→{FAINT:#} {}\n", "", one_line(advice));
        }
    }
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    text += &match (count(Level::Bad), count(Level::Doubtful)) {
        (0, 0) => format!("{GOOD}everything is in order{GOOD:#}\n"),
        (0, doubtful) => format!("{DOUBTFUL}works; {doubtful} to look at{DOUBTFUL:#}\n"),
        (bad, doubtful) => format!("{BAD}{bad} to put right{BAD:#}, {doubtful} to look at\n"),
    };
    text
}

fn check(arguments: &Arguments) -> Vec<Line> {
    let service = service(arguments);
    let settings = match &service {
        Some(service) => service.settings(),
        None => Settings::from_env(),
    };
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            return vec![
                Line::bad("environment", error.to_string())
                    .advise("put the variable right (/etc/av-monitoring/agent.env) or unset it"),
            ];
        }
    };
    if let (Some(path), None) = (&arguments.config, &service) {
        if std::env::var_os("AV_STATE_DIR").is_none() {
            settings.state_dir = path.with_file_name("state");
        }
        settings.config_path.clone_from(path);
    }
    let mut lines: Vec<Line> = service.iter().map(service_line).collect();
    let active = configuration(&settings, &mut lines);
    files::check(&settings, service.as_ref(), &mut lines);
    let site = active.as_ref().map(|(_, site)| site);
    network::ping(site, service.as_ref(), &mut lines);
    network::page(&settings, service.as_ref(), &mut lines);
    match &active {
        Some((identity, site)) => {
            zone(site, &mut lines);
            if arguments.offline {
                network::clock(None, &mut lines);
            } else {
                network::backend(&settings, identity, &mut lines);
            }
        }
        None => network::clock(None, &mut lines),
    }
    lines
}

/// The installed service, where it is the one that is meant.
fn service(arguments: &Arguments) -> Option<Service> {
    let service = Service::find()?;
    let named = [
        arguments.config.clone(),
        own("AGENT_CONFIG").map(PathBuf::from),
    ];
    let is_its_own = |path: &PathBuf| *path == service.config_path();
    named.iter().flatten().all(is_its_own).then_some(service)
}

/// Who the agent is when it runs as the service.
fn service_line(service: &Service) -> Line {
    const ABOUT: &str = "service";
    let unit = match &service.unit {
        Some(unit) => unit.display().to_string(),
        None => "no unit, as of the package".to_owned(),
    };
    if let Some((path, error)) = &service.unread {
        return Line::doubtful(
            ABOUT,
            format!(
                "{unit}: its variables are not known: {}",
                explained(path, error)
            ),
        );
    }
    match &service.user {
        Ok(user) => Line::good(
            ABOUT,
            format!("{unit}: judged is what the user {} may", user.name),
        ),
        Err(name) => Line::bad(ABOUT, format!("{unit}: there is no user {name}"))
            .advise("install the package again, or: systemd-sysusers"),
    }
}

/// The configuration, and each device in it.
fn configuration(settings: &Settings, lines: &mut Vec<Line>) -> Option<(Identity, SiteConfig)> {
    const ABOUT: &str = "configuration";
    let path = settings.config_path.display();
    let content = match fs::read(&settings.config_path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            lines.push(
                Line::bad(ABOUT, format!("{path}: {error}"))
                    .advise("look as root or as the agent's user: sudo av-agent check"),
            );
            return None;
        }
        Err(error) => {
            lines.push(Line::bad(ABOUT, format!("{path}: {error}")).advise(format!(
                "av-agent enroll writes it, with a code from the site's page in the backend; or write {path} with at least site_name, site_token and backend_url, or say \
                     where it is: AGENT_CONFIG"
            )));
            return None;
        }
    };
    match parse(&content) {
        Ok((identity, site)) => {
            lines.push(Line::good(
                ABOUT,
                format!("{path}: {}, {} devices", site.site_name, site.devices.len()),
            ));
            devices(&site, lines);
            Some((identity, site))
        }
        Err(error) => {
            for error in error.0 {
                lines.push(Line::bad(ABOUT, format!("{path}: {error}")).advise(
                    "put the field right; the agent would start with the backup beside it, where \
                     there is one",
                ));
            }
            None
        }
    }
}

fn devices(site: &SiteConfig, lines: &mut Vec<Line>) {
    const ABOUT: &str = "devices";
    for rejected in &site.rejected {
        let who = match (&rejected.name, &rejected.ip) {
            (Some(name), Some(ip)) => format!("{name} ({ip})"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => format!("devices[{}]", rejected.index),
        };
        for error in &rejected.errors {
            lines.push(
                Line::bad(ABOUT, format!("{who}: {error}"))
                    .advise("put it right in the backend: until then it is not watched"),
            );
        }
    }
    for warning in &site.warnings {
        lines.push(Line::doubtful(ABOUT, warning.to_string()));
    }
    for device in &site.devices {
        for unknown in &device.unknown {
            let found = format!("{} ({}): {unknown}", device.name, device.ip_text);
            lines.push(Line::doubtful(ABOUT, found).advise(
                "put its name right in the backend: it has no effect; a newer agent may know it",
            ));
        }
    }
    let drivers = Drivers::start(&Health::default());
    for device in &site.devices {
        let name = device.settings.name();
        if drivers.names().all(|known| known != name) {
            lines.push(
                Line::bad(
                    ABOUT,
                    format!("{} ({}): no driver {name:?}", device.name, device.ip_text),
                )
                .advise(format!(
                    "this agent ({}) has {}: install a newer one, or choose one of these",
                    crate::VERSION,
                    drivers.names().collect::<Vec<_>>().join(", ")
                )),
            );
        }
    }
}

fn zone(site: &SiteConfig, lines: &mut Vec<Line>) {
    const ABOUT: &str = "time zone";
    let there = jiff::Timestamp::now().to_zoned_datetime(site.timezone.clone());
    let day = match there.weekday() {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    };
    let name = site.timezone.iana_name().unwrap_or("UTC");
    if av_proto::schedule::zone("Europe/Paris").is_none() {
        lines.push(Line::bad(ABOUT, "no time zone data").advise("apt install tzdata"));
    } else {
        lines.push(Line::good(
            ABOUT,
            format!(
                "{name}: it is {day} {:02}:{:02} there",
                there.hour(),
                there.minute()
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_mark_and_say_what_to_do() {
        let lines = [
            Line::good("state", "fine"),
            Line::bad("configuration", "broken\nfile").advise("one\ntwo"),
        ];
        assert_eq!(
            anstream::adapter::strip_str(&text(&lines)).to_string(),
            "✓ state          fine\n\
             ✗ configuration  broken\u{fffd}file\n  \
             \u{20}              → one\n  \
             \u{20}              → two\n\
             1 to put right, 0 to look at\n"
        );
    }
}
