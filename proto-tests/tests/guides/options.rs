//! Every subcommand and option of our programs that a guide names exists.

use std::collections::HashMap;
use std::process::Command;

use av_proto_tests::process::binary;

use crate::blocks::{Block, Language, guides, spans};

/// What a program says of a subcommand.
#[derive(Debug, Default)]
struct Help {
    subcommands: Vec<String>,
    options: Vec<String>,
}

/// Reads what `--help` prints.
fn read(text: &str) -> Help {
    let mut help = Help::default();
    let mut in_commands = false;
    for line in text.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            in_commands = line == "Commands:";
        }
        let mut words = line.split_whitespace();
        if in_commands && line.starts_with("  ") && !line.starts_with("   ") {
            help.subcommands.extend(words.next().map(str::to_owned));
        } else if line.trim_start().starts_with('-') {
            let names = words
                .map(|word| word.trim_end_matches(','))
                .take_while(|word| word.starts_with('-'))
                .map(|word| word.split(['=', '[']).next().unwrap_or_default());
            help.options.extend(names.map(str::to_owned));
        }
    }
    help
}

/// The help of programs and their subcommands, each asked for once.
#[derive(Default)]
struct Manual(HashMap<Vec<String>, Help>);

impl Manual {
    fn of(&mut self, program: &str, subcommand: &[String]) -> &Help {
        let mut key = vec![program.to_owned()];
        key.extend_from_slice(subcommand);
        self.0.entry(key).or_insert_with(|| {
            let output = Command::new(binary(program))
                .args(subcommand)
                .arg("--help")
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{program} {subcommand:?}: {output:?}"
            );
            read(&String::from_utf8(output.stdout).unwrap())
        })
    }
}

/// The calls of a program in some shell text: what stands behind its name.
fn calls(text: &str, program: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let mut all = Vec::new();
    for line in joined.lines() {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        // A comment, where it is none of a text in quotation marks.
        let line = line.split(" #").next().unwrap_or_default();
        for command in line.split([';', '|', '&', '<', '>']) {
            let mut words = command.split_whitespace().peekable();
            while let Some(word) = words.peek() {
                let prefix = ["sudo", "env", "-u", "DATABASE_URL"].contains(word)
                    || (word.contains('=') && !word.starts_with('-'));
                let of_user = *word == "-u";
                if !prefix {
                    break;
                }
                words.next();
                if of_user {
                    words.next();
                }
            }
            let name = words.next().unwrap_or_default();
            if name.strip_prefix("./").unwrap_or(name) == program {
                let rest = words.map(|word| word.trim_matches(['[', ']', '"', '\'']).to_owned());
                all.push(rest.collect());
            }
        }
    }
    all
}

/// What is wrong with a call.
fn wrong(manual: &mut Manual, program: &str, words: &[String]) -> Option<String> {
    let mut path: Vec<String> = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.peek() {
        let help = manual.of(program, &path);
        if help.subcommands.is_empty() || word.starts_with('-') {
            break;
        }
        if *word == "help" || *word == "..." {
            return None;
        }
        if !help.subcommands.contains(word) {
            return Some(format!("no subcommand {word:?}"));
        }
        path.push((*word).clone());
        rest.next();
    }
    let help = manual.of(program, &path);
    rest.filter(|word| word.starts_with('-') && word.len() > 1)
        .map(|word| word.split('=').next().unwrap_or_default().to_owned())
        .find(|option| !help.options.contains(option))
        .map(|option| format!("no option {option} of {path:?}"))
}

#[test]
fn every_subcommand_and_option_that_a_guide_names_exists() {
    let mut manual = Manual::default();
    let mut seen = 0;
    for (name, text) in guides() {
        let blocks = Block::all(&name, &text);
        let typed = blocks.into_iter().flat_map(|block| match block.language {
            Language::Shell => vec![block.text],
            Language::Session => block.commands().into_iter().map(|(it, _)| it).collect(),
            Language::Sql | Language::Python => Vec::new(),
        });
        for typed in typed.chain(spans(&text)) {
            for program in ["av-agent", "av-backend"] {
                for call in calls(&typed, program) {
                    let problem = wrong(&mut manual, program, &call);
                    assert_eq!(problem, None, "{name}: {program} {call:?}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 60, "{seen} calls");
}

#[test]
fn whole_words_are_compared() {
    let mut manual = Manual::default();
    for (typed, problem) in [
        ("probe 192.0.2.1 --driver ping -v", None),
        (
            "probe --drive ping",
            Some("no option --drive of [\"probe\"]"),
        ),
        ("prob", Some("no subcommand \"prob\"")),
        ("status -x", Some("no option -x of [\"status\"]")),
        ("status --url=http://rack:8080", None),
    ] {
        let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
        assert_eq!(wrong(&mut manual, "av-agent", &words).as_deref(), problem);
    }
    assert_eq!(
        calls(
            "sudo -u av-agent env A=b av-agent check --json; x av-agent y",
            "av-agent"
        ),
        [["check", "--json"].map(str::to_owned).to_vec()]
    );
}
