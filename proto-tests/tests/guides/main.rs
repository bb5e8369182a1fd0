//! The guides do what they say: every command in them is run by a test, or
//! stands in the table with the reason why no test machine can run it.
//!
//! | module | |
//! |---|---|
//! | [`blocks`] | the commands, out of the Markdown |
//! | [`table`] | which of them is run, with what in place of names and ports; and which is not, and why |
//! | [`sandbox`] | where they are run |
//! | [`options`] | every subcommand and option of our programs that a guide names exists |
//! | [`words`] | messages and variables that a guide names exist, and the reverse |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod blocks;
mod options;
mod sandbox;
mod table;
mod words;

use std::process::Command;

use av_proto_tests::namespace::may_ping;
use blocks::{Block, Language, PAIRS, english, guides};
use sandbox::Sandbox;
use table::{How, TABLE, entry};

/// Runs the commands of a guide, in their order, in one sandbox.
fn run(guide: &str) {
    let sandbox = Sandbox::open();
    let mut ran = 0;
    for (name, text) in guides() {
        if name != guide {
            continue;
        }
        for block in Block::all(&name, &text) {
            if let How::Run(steps) = &entry(&block).how {
                sandbox.run(&block, steps);
                ran += 1;
            }
        }
    }
    assert!(ran > 0, "no command of {guide} is run");
}

#[test]
fn administration() {
    if may_ping("administration") {
        run("administration.md");
    }
}

#[test]
fn api() {
    run("api.md");
}

/// The French one has the same commands: see below.
#[test]
fn technician() {
    run("technician.md");
}

#[test]
fn tls() {
    run("tls.md");
}

#[test]
fn troubleshooting() {
    run("troubleshooting.md");
}

#[test]
fn every_block_is_in_the_table_once_and_every_line_of_the_table_is_of_use() {
    let mut of_use = vec![false; TABLE.len()];
    for (name, text) in guides() {
        for block in Block::all(&name, &text) {
            let fitting: Vec<usize> = (0..TABLE.len())
                .filter(|line| TABLE[*line].fits(&block))
                .collect();
            let place = format!("{name}:{}", block.line);
            assert_eq!(fitting.len(), 1, "{place} has {fitting:?}\n{}", block.text);
            // The French guides have the same blocks once more.
            if english(&name) == name {
                let twice = std::mem::replace(&mut of_use[fitting[0]], true);
                let mark = TABLE[fitting[0]].mark;
                assert!(!twice, "{mark:?} fits more than one block: {place}");
            }
        }
    }
    for (line, used) in TABLE.iter().zip(of_use) {
        assert!(used, "{}: no block has {:?}", line.guide, line.mark);
    }
    // Whoever adds a guide whose commands are run adds a test above.
    for line in TABLE {
        let runs = match line.how {
            How::Run(_) => true,
            How::Machine(why) => {
                assert!(why.len() > 10, "{:?}: why not?", line.mark);
                false
            }
        };
        let tested = [
            "administration.md",
            "api.md",
            "technician.md",
            "tls.md",
            "troubleshooting.md",
        ];
        assert!(!runs || tested.contains(&line.guide), "{}", line.guide);
    }
}

#[test]
fn every_shell_block_is_valid_shell() {
    let mut seen = 0;
    for (name, text) in guides() {
        for block in Block::all(&name, &text) {
            let scripts = match block.language {
                Language::Shell => vec![block.text.clone()],
                Language::Session => block.commands().into_iter().map(|(it, _)| it).collect(),
                Language::Sql | Language::Python => continue,
            };
            for script in scripts {
                let output = Command::new("bash")
                    .args(["-n", "-c", &script])
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{name}:{}: {output:?}", block.line);
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen} scripts");
}

#[test]
fn both_languages_of_a_guide_have_the_same_sections_commands_and_table_rows() {
    let all = guides();
    let text = |name: &str| &all.iter().find(|(known, _)| known == name).unwrap().1;
    for (english, french) in PAIRS {
        let (in_english, in_french) = (text(english), text(french));
        let (blocks, other) = (blocks::fenced(in_english), blocks::fenced(in_french));
        for (block, other) in blocks.iter().zip(&other) {
            assert_eq!(block, other, "{english} and {french}");
        }
        assert_eq!(blocks.len(), other.len(), "{english} and {french}");
        assert_eq!(
            levels(in_english),
            levels(in_french),
            "{english} and {french}"
        );
        assert_eq!(keys(in_english), keys(in_french), "{english} and {french}");
        assert!(keys(in_english).len() > 3, "{english}");
        // Each language links to the other at its beginning.
        for (text, other) in [(in_english, french), (in_french, english)] {
            let head = text.split("\n## ").next().unwrap();
            assert!(head.contains(&format!("({other})")), "no link to {other}");
        }
    }
}

/// The depth of each heading.
fn levels(text: &str) -> Vec<usize> {
    blocks::prose(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.chars().take_while(|letter| *letter == '#').count())
        .collect()
}

/// The first words of the tables' rows, where they are code.
fn keys(text: &str) -> Vec<String> {
    blocks::prose(text)
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split('`')
                .next()
                .map(str::to_owned)
        })
        .collect()
}

/// The anchor that a heading gets: small letters, hyphens for spaces, without
/// punctuation.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        })
        .collect()
}

#[test]
fn every_link_of_a_guide_leads_somewhere() {
    let all = guides();
    let docs = av_proto_tests::process::workspace().join("docs");
    let mut seen = 0;
    for (name, text) in &all {
        let folder = match name.as_str() {
            "README.md" => docs.parent().unwrap(),
            _ => docs.as_path(),
        };
        for link in blocks::prose(text).split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { name.as_str() } else { file };
            let of = folder.join(file);
            assert!(of.exists(), "{name}: ({link}) is not there");
            seen += 1;
            if section.is_empty() {
                continue;
            }
            let target = std::fs::read_to_string(&of).unwrap();
            let target = blocks::prose(&target);
            let mut anchors = target
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(|line| anchor(line.trim_start_matches('#').trim()));
            assert!(
                anchors.any(|anchor| anchor == section),
                "{name}: ({link}): {file} has no such section"
            );
        }
    }
    assert!(seen > 60, "{seen} links");
}
