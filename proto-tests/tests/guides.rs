//! The commands of the guides: each is valid shell, and the commands and
//! options of our own programs that it names exist. They are not run here.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::PathBuf;
use std::process::Command;

use av_proto_tests::process::{binary, workspace};

/// The guides with their text.
fn guides() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(workspace().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    files.push(workspace().join("README.md"));
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The fenced blocks marked `sh`: the line of the fence and the commands.
fn shell_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .collect();
        if language == "sh" {
            blocks.push((number + 1, body.join("\n")));
        }
    }
    blocks
}

#[test]
fn every_shell_block_is_valid_shell() {
    let mut seen = 0;
    for (path, text) in guides() {
        for (line, block) in shell_blocks(&text) {
            let output = Command::new("bash")
                .args(["-n", "-c", &block])
                .output()
                .unwrap();
            assert!(output.status.success(), "{path:?}:{line}: {output:?}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} blocks");
}

/// `av-agent SUB --option ...` in a line: the words from the program's name
/// to the end of the command.
fn call<'a>(line: &'a str, program: &str) -> Option<Vec<&'a str>> {
    let words: Vec<&str> = line
        .split('#')
        .next()?
        .split_whitespace()
        .take_while(|word| !["|", "&&", ";"].contains(word))
        .collect();
    let at = words.iter().position(|word| *word == program)?;
    Some(words[at + 1..].to_vec())
}

#[test]
fn every_option_of_our_programs_in_a_guide_exists() {
    let mut seen = 0;
    for (program, subcommands) in [
        (
            "av-agent",
            &["status", "check", "probe", "sweep", "discover", "enroll"][..],
        ),
        (
            "av-backend",
            &["user", "backup", "restore", "check-config"][..],
        ),
    ] {
        for (path, text) in guides() {
            // Sessions with their answers have the command behind a `$`.
            let sessions = text.lines().filter_map(|line| line.strip_prefix("$ "));
            let blocks = shell_blocks(&text);
            let typed = blocks.iter().flat_map(|(_, block)| block.lines());
            for line in typed.chain(sessions) {
                let Some(words) = call(line, program) else {
                    continue;
                };
                let Some(first) = words.first().filter(|word| subcommands.contains(*word)) else {
                    continue;
                };
                let mut help = Command::new(binary(program));
                help.arg(first);
                if *first == "user" {
                    help.arg(words[1]);
                }
                let output = help.arg("--help").output().unwrap();
                assert!(output.status.success(), "{path:?}: {line}: {output:?}");
                let help = String::from_utf8(output.stdout).unwrap();
                for option in words.iter().filter(|word| word.starts_with("--")) {
                    assert!(help.contains(*option), "{path:?}: {line}: no {option}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen} commands");
}
