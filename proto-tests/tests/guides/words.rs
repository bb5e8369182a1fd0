//! Messages and variables that a guide names exist, and the reverse.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use av_proto_tests::process::{binary, workspace};
use regex_lite::Regex;

use crate::blocks::guides;

/// Messages that our programs put together of parts, one of which is in no
/// literal of ours as the guide has it: the parts.
const COMPOSED: &[(&str, &[&str])] = &[
    (
        "the database that can be written to is on db2:5432 (timeline 2)",
        &["the database that can be written to is on", "timeline"],
    ),
    (
        "on, lamp error, filter warning",
        &["lamp", "filter", "error", "warning"],
    ),
    (
        "destination host unreachable (ICMP 3/1 from 192.168.1.1)",
        &["destination host unreachable", "ICMP", "from"],
    ),
];

/// What the guides quote and the system or a library says.
const FOREIGN: &[&str] = &["refused", "in use", "401"];

/// Variables that `av-backend serve --help` alone explains: tests and benches
/// set them, nobody else has to.
const HELP_ALONE: &[&str] = &[
    "AV_ALERTS_EVERY_MS",
    "AV_HISTORY_EVERY_MS",
    "AV_NOTIFY_EVERY_MS",
    "AV_NOTIFY_RETRY_MS",
    "AV_NOTIFY_TIMEOUT_MS",
];

/// The files below a folder with this ending.
fn files(folder: &Path, endings: &[&str], into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !["target", "guides"].iter().any(|name| path.ends_with(name)) {
                files(&path, endings, into);
            }
        } else if endings
            .iter()
            .any(|ending| path.extension().is_some_and(|is| is == *ending))
        {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            into.push((path.display().to_string(), text));
        }
    }
}

/// The programs' sources without their tests.
fn sources() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for package in ["agent", "backend", "proto", "service"] {
        files(&workspace().join(package).join("src"), &["rs"], &mut all);
    }
    all.retain(|(path, _)| !path.contains("/tests"));
    for (_, text) in &mut all {
        if let Some(at) = text.find("#[cfg(test)]") {
            text.truncate(at);
        }
    }
    all
}

/// The string literals of Rust source: their text, with a line that goes on
/// joined to the next.
fn literals(source: &str) -> Vec<String> {
    // Comments, characters and raw strings first: quotation marks in them
    // begin nothing.
    let token = Regex::new(
        r###"//[^\n]*|'(?:[^'\\\n]|\\[^\n])'|r#"(?s:.*?)"#|r"[^"]*"|"((?s:[^"\\]|\\.)*)""###,
    )
    .unwrap();
    let continued = Regex::new(r"\\\n\s*").unwrap();
    token
        .captures_iter(source)
        .filter_map(|found| {
            let text = found.get(1)?.as_str();
            let text = continued.replace_all(text, "");
            Some(text.replace("\\\"", "\"").replace("{{", "{"))
        })
        .collect()
}

/// What stands between placeholders, in every literal.
fn pieces() -> Vec<String> {
    let placeholder = Regex::new(r"\{[^{}]*\}").unwrap();
    // The proxy refuses in its own words.
    let mut proxies = Vec::new();
    files(&workspace().join("docs/proxy"), &["conf"], &mut proxies);
    sources()
        .iter()
        .chain(&proxies)
        .flat_map(|(_, text)| literals(text))
        .flat_map(|literal| {
            placeholder
                .split(&literal)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The parts of a message that do not change: what is between numbers and
/// `...`.
fn parts(message: &str) -> Vec<String> {
    Regex::new(r"\.\.\.|[0-9][0-9./]*")
        .unwrap()
        .split(message)
        .map(|part| part.trim_matches([' ', ':', '(', ')', '"']).to_owned())
        .filter(|part| part.len() > 2)
        .collect()
}

/// The messages that the guides quote: in the first column of tables of them,
/// and in headings of the guide by symptom.
fn quoted() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, text) in guides() {
        let mut in_table = false;
        for line in text.lines() {
            let heads = ["| it says |", "| detail |", "| in the log |"];
            in_table = (in_table && line.starts_with('|'))
                || heads.iter().any(|head| line.starts_with(head));
            let heading = name == "troubleshooting.md" && line.starts_with("### ");
            let place = match line.trim_start_matches('|').split('|').next() {
                Some(first) if in_table => first,
                _ if heading => line,
                _ => continue,
            };
            for span in place.split('`').skip(1).step_by(2) {
                all.push((name.clone(), span.to_owned()));
            }
        }
    }
    all
}

#[test]
fn every_message_that_a_guide_quotes_is_in_the_sources() {
    let pieces = pieces();
    let known = |part: &str| pieces.iter().any(|piece| piece.contains(part));
    let mut messages = quoted();
    for prose in [
        "no usable configuration",
        "Config sync endpoint called by site",
    ] {
        messages.push(("troubleshooting.md".to_owned(), prose.to_owned()));
    }
    let mut missing = Vec::new();
    for (name, message) in &messages {
        let composed = COMPOSED.iter().find(|(known, _)| known == message);
        let parts = match composed {
            Some((_, parts)) => parts.iter().map(|part| (*part).to_owned()).collect(),
            None => parts(message),
        };
        assert!(!parts.is_empty(), "{name}: {message:?} has no words");
        for part in parts {
            if !FOREIGN.contains(&part.as_str()) && !known(&part) {
                missing.push(format!("{name}: {message:?}: {part:?}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no program says:\n{}",
        missing.join("\n")
    );
    assert!(messages.len() > 25, "{} messages", messages.len());
}

fn variables(text: &str) -> BTreeSet<String> {
    Regex::new(r"\bAV_[A-Z_]*[A-Z]\b")
        .unwrap()
        .find_iter(text)
        .map(|found| found.as_str().to_owned())
        .collect()
}

#[test]
fn every_variable_of_the_programs_is_documented_and_every_documented_one_exists() {
    let read: BTreeSet<String> = sources()
        .iter()
        .flat_map(|(_, text)| variables(text))
        .collect();
    assert!(read.len() > 15, "{read:?}");
    let guides = guides();
    let text = |name: &str| &guides.iter().find(|(known, _)| known == name).unwrap().1;
    let documented: BTreeSet<String> = ["administration.md", "technician.md"]
        .iter()
        .flat_map(|name| variables(text(name)))
        .chain(HELP_ALONE.iter().map(|name| (*name).to_owned()))
        .collect();
    let missing: Vec<_> = read.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");

    let help = Command::new(binary("av-backend"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for name in HELP_ALONE {
        assert!(help.contains(name), "serve --help has no {name}");
        assert!(read.contains(*name), "{name} is gone");
    }

    // Those of scripts, tests and benches exist, too.
    let mut tools = Vec::new();
    for folder in ["scripts", "proto-tests"] {
        files(&workspace().join(folder), &["rs", "sh", "py"], &mut tools);
    }
    for file in ["compose.yaml", "scripts/container/agent-start"] {
        let text = fs::read_to_string(workspace().join(file)).unwrap();
        tools.push((file.to_owned(), text));
    }
    let mut exist = read;
    exist.extend(tools.iter().flat_map(|(_, text)| variables(text)));
    for (name, text) in &guides {
        let gone: Vec<_> = variables(text).difference(&exist).cloned().collect();
        assert!(gone.is_empty(), "{name}: no program knows {gone:?}");
    }
}

#[test]
fn literals_are_found_and_messages_taken_apart() {
    let source = "// \"no\"\nlet a = \"one {} \\\n    two\"; let q = '\"'; let r = r#\"raw\"#; f(\"th\\\"ree\")";
    assert_eq!(literals(source), ["one {} two", "th\"ree"]);
    assert_eq!(
        parts("no answer from port 4352 within 2 s (ICMP 3/1 from ...)"),
        ["no answer from port", "within", "s (ICMP", "from"]
    );
}
