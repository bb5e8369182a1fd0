//! The agent's command line, read from its help texts.

use av_agent::cli::Command as AgentCommand;
use av_agent::cli::args::{Spec, Value, places, specs};
use clap::{Arg, ArgAction, Command, ValueHint};

/// The agent's command line, as [`clap`] would declare it.
#[must_use]
pub fn command() -> Command {
    let (help, of_commands) = AgentCommand::helps();
    let whole = described(Command::new("av-agent").version(av_agent::VERSION), help);
    of_commands.fold(whole, |whole, (name, help)| {
        whole.subcommand(described(Command::new(name), help))
    })
}

/// A command with what its help says of it.
fn described(command: Command, help: &'static str) -> Command {
    let before = help.split("Usage:").next().unwrap_or_default().trim_end();
    let about = before.lines().next().unwrap_or_default();
    let about = about.trim_end_matches('.');
    let words = places(help)
        // Another command's place is taken by clap itself.
        .filter(|place| *place != "<COMMAND>")
        .map(|place| positional(place, help));
    let options = specs(help).map(|spec| option(&spec, help));
    // The help has a line for each of these two as well.
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .about(about)
        .long_about(unwrapped(before))
        .args(words)
        .args(options)
}

fn positional(place: &'static str, help: &'static str) -> Arg {
    let optional = place.starts_with('[');
    let many = place.ends_with("...");
    let name = value_name(place);
    let arg = Arg::new(name)
        .value_name(name)
        .value_hint(hint(name))
        .required(!optional)
        .help(said_of(place, help));
    if many {
        arg.num_args(1..).action(ArgAction::Append)
    } else {
        arg
    }
}

fn option(spec: &Spec, help: &'static str) -> Arg {
    let arg = Arg::new(spec.long)
        .long(spec.long)
        .help(said_of_option(spec, help));
    let arg = match spec.short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    let name = value_name(spec.shown.split_once(' ').map_or("", |(_, value)| value));
    let repeated = if spec.repeats {
        ArgAction::Append
    } else {
        ArgAction::Set
    };
    match spec.value {
        Value::None => arg.action(ArgAction::SetTrue),
        Value::Optional => arg
            .action(repeated)
            .num_args(0..=1)
            .value_name(name)
            .value_hint(hint(name)),
        Value::Required => arg.action(repeated).value_name(name).value_hint(hint(name)),
    }
}

/// `NETWORK` of `[<NETWORK>]...`.
fn value_name(shown: &'static str) -> &'static str {
    let begin = shown.find('<').map_or(0, |at| at + 1);
    let end = shown.find('>').unwrap_or(shown.len());
    shown.get(begin..end).unwrap_or(shown)
}

/// What a shell may complete.
fn hint(name: &str) -> ValueHint {
    match name {
        "CONFIG.json" | "FILE" => ValueHint::FilePath,
        "BACKEND" | "URL" => ValueHint::Url,
        _ => ValueHint::Other,
    }
}

/// What is said of a word of the usage, under its line.
fn said_of(place: &str, help: &'static str) -> String {
    said_below(help, |line| line.trim() == place)
}

/// What is said of an option, under its line.
fn said_of_option(spec: &Spec, help: &'static str) -> String {
    said_below(help, |line| {
        Spec::of(line).is_some_and(|other| other.long == spec.long)
    })
}

/// The lines further to the right, below the one that is looked for.
fn said_below(help: &'static str, is_it: impl Fn(&'static str) -> bool) -> String {
    let below = help.lines().skip_while(|line| !is_it(line)).skip(1);
    let text: Vec<&str> = below
        .take_while(|line| line.starts_with("          "))
        .map(str::trim)
        .collect();
    text.join(" ")
}

/// Paragraphs without the line ends of a terminal.
fn unwrapped(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ")
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
