//! The man pages of a program: one for itself, and one for each command.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

/// What a page says beside the command line: files, and where to read on.
struct Program {
    files: &'static [(&'static str, &'static str)],
    guides: &'static [&'static str],
}

const AGENT: Program = Program {
    files: &[
        (
            "/etc/av-monitoring/agent/config.json",
            "The configuration. The agent writes it: edit it only to change the token or the backend's address.",
        ),
        (
            "/etc/av-monitoring/agent.env",
            "Environment variables of the service.",
        ),
        (
            "/var/lib/av-monitoring/agent",
            "Reports that wait to be sent, and what was last known.",
        ),
    ],
    guides: &[
        "technician.md",
        "technicien.md",
        "troubleshooting.md",
        "tls.md",
    ],
};

const BACKEND: Program = Program {
    files: &[
        (
            "/etc/av-monitoring/backend.env",
            "Environment variables of the service, DATABASE_URL among them; for root alone.",
        ),
        (
            "/etc/av-monitoring/backend-INSTANCE.env",
            "What only that instance of av-backend@INSTANCE.service has.",
        ),
    ],
    guides: &[
        "administration.md",
        "tls.md",
        "troubleshooting.md",
        "api.md",
    ],
};

/// Prints every page of a program: its name without the section, and its text.
///
/// # Errors
/// Where a page cannot be printed.
pub fn of(command: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let name = command.get_name().to_owned();
    let program = if name == "av-agent" { &AGENT } else { &BACKEND };
    // Full names and what all commands have in common are filled in by it.
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let names = names_below(&command, &name);
    let mut pages = Vec::new();
    print(&command, &name, &name, program, &names, &mut pages)?;
    Ok(pages)
}

/// The names of the pages of a command and of those below it.
fn names_below(command: &Command, name: &str) -> Vec<String> {
    let below = command
        .get_subcommands()
        .flat_map(|below| names_below(below, &format!("{name}-{}", below.get_name())));
    std::iter::once(name.to_owned()).chain(below).collect()
}

fn print(
    command: &Command,
    name: &str,
    program_name: &str,
    program: &Program,
    names: &[String],
    pages: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    let source = format!("av-monitoring {}", av_agent::VERSION);
    let mut page = Vec::new();
    // Its own title, since that of a command would be its last word.
    Man::new(command.clone())
        .title(name.to_owned())
        .section("1")
        .source(source)
        .manual("AV monitoring")
        .render(&mut page)?;
    let mut rest = Roff::new();
    if name == program_name {
        rest.control("SH", ["FILES"]);
        for (path, what) in program.files {
            rest.control("TP", []);
            rest.text([italic(*path)]);
            rest.text([roman(*what)]);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    // The page above, those below, and the guides.
    let related = names.iter().filter(|other| is_beside(name, other));
    for other in related {
        rest.text([bold(other.as_str()), roman("(1),")]);
    }
    rest.text([
        roman("and in "),
        italic(format!("/usr/share/doc/{program_name}")),
        roman(format!(": {}", program.guides.join(", "))),
    ]);
    rest.to_writer(&mut page)?;
    pages.push((name.to_owned(), page));
    for below in command.get_subcommands() {
        let name = format!("{name}-{}", below.get_name());
        print(below, &name, program_name, program, names, pages)?;
    }
    Ok(())
}

/// Whether one page is directly above or below another.
fn is_beside(name: &str, other: &str) -> bool {
    let below = |upper: &str, lower: &str| {
        lower
            .strip_prefix(upper)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some()
    };
    below(name, other) || below(other, name)
}
