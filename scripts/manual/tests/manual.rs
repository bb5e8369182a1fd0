//! The pages and completions say all that the command lines take.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use av_agent::cli::Command as AgentCommand;
use av_agent::cli::args::{places, specs};
use tempfile::TempDir;

fn written() -> TempDir {
    let into = tempfile::tempdir().unwrap();
    av_manual::write(into.path()).unwrap();
    into
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page as it is read: roff has its own way to write a hyphen of an option and
/// an apostrophe.
fn page(into: &TempDir, program: &str, name: &str) -> String {
    let path = into.path().join(program).join("man/man1");
    read(&path.join(format!("{name}.1")))
        .replace("\\-", "-")
        .replace("\\*(Aq", "'")
}

/// The completions of a program, of all shells.
fn scripts(into: &TempDir, program: &str) -> [String; 3] {
    [
        format!("bash-completion/completions/{program}"),
        format!("zsh/vendor-completions/_{program}"),
        format!("fish/vendor_completions.d/{program}.fish"),
    ]
    .map(|path| read(&into.path().join(program).join(path)))
}

#[test]
fn every_word_of_the_agents_helps_is_in_its_pages_and_completions() {
    let into = written();
    let scripts = scripts(&into, "av-agent");
    let (help, of_commands) = AgentCommand::helps();
    let mut options = 0;
    for (name, help) in of_commands.chain([("", help)]) {
        let name = match name {
            "" => "av-agent".to_owned(),
            name => format!("av-agent-{name}"),
        };
        let page = page(&into, "av-agent", &name);
        for spec in specs(help) {
            let line = page.contains(&format!("--{}", spec.long));
            assert!(line, "{name}.1 has no --{}", spec.long);
            for script in &scripts {
                assert!(script.contains(spec.long), "--{} of {name}", spec.long);
            }
            options += 1;
        }
        for place in places(help).filter(|place| *place != "<COMMAND>") {
            let word = place.trim_matches(['[', ']', '.', '<', '>']);
            assert!(page.contains(word), "{name}.1 has no {place}");
        }
        // What the help says of the exit code, and of anything else.
        let said = help.lines().next().unwrap().trim_end_matches('.');
        assert!(page.contains(said), "{name}.1 does not say: {said}");
    }
    assert!(options > 25, "{options}");
}

#[test]
fn every_option_of_the_backend_is_in_its_pages_and_completions() {
    let into = written();
    let scripts = scripts(&into, "av-backend");
    let mut options = 0;
    let mut commands = vec![("av-backend".to_owned(), av_backend::cli::declared())];
    while let Some((name, command)) = commands.pop() {
        let page = page(&into, "av-backend", &name);
        for long in command.get_opts().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{long}")), "{name}.1: --{long}");
            for script in &scripts {
                assert!(script.contains(long), "--{long} of {name}");
            }
            options += 1;
        }
        for below in command.get_subcommands() {
            commands.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
    }
    assert!(options > 25, "{options}");
}

/// What bash offers for a line whose last word is being typed.
fn offered(into: &TempDir, line: &[&str]) -> String {
    let program = line[0];
    let path = into.path().join(program);
    let script = path.join("bash-completion/completions").join(program);
    let words = line.iter().map(|word| format!("'{word}'"));
    let words = words.collect::<Vec<_>>().join(" ");
    let last = line.len() - 1;
    let before = line[last - 1];
    let typed = format!(
        ". '{}'; COMP_WORDS=({words}); COMP_CWORD={last}; \
         function=$(complete -p {program} | sed 's/.* -F \\([^ ]*\\).*/\\1/'); \
         \"$function\" {program} '{}' '{before}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        line[last],
    );
    let output = Command::new("bash").args(["-c", &typed]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn bash_offers_what_may_come_next() {
    let into = written();
    for (line, expected) in [
        (&["av-agent", "st"][..], "status"),
        (&["av-agent", "status", "--wa"], "--watch"),
        (&["av-agent", "probe", "--pass"], "--password-file"),
        (&["av-backend", "mi"], "migrate"),
        (&["av-backend", "user", "add", "--role", ""], "admin"),
        (&["av-backend", "restore", "--fo"], "--force"),
    ] {
        let offered = offered(&into, line);
        assert!(
            offered.lines().any(|word| word == expected),
            "{line:?}: {offered}"
        );
    }
}
