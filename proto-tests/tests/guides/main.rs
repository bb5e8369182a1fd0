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

use blocks::{Block, Language, guides};
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
    run("administration.md");
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
            let twice = std::mem::replace(&mut of_use[fitting[0]], true) && name != "technicien.md";
            let mark = TABLE[fitting[0]].mark;
            assert!(!twice, "{mark:?} fits more than one block: {place}");
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
fn both_technicians_guides_have_the_same_sections_and_code() {
    let all = guides();
    let text = |name: &str| &all.iter().find(|(known, _)| known == name).unwrap().1;
    let (english, french) = (text("technician.md"), text("technicien.md"));
    assert_eq!(blocks::fenced(english), blocks::fenced(french));
    let levels = |text: &str| {
        blocks::prose(text)
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.chars().take_while(|letter| *letter == '#').count())
            .collect::<Vec<_>>()
    };
    assert_eq!(levels(english), levels(french));
    // Tables too: the same first words, row by row, where they are code.
    let keys = |text: &str| {
        blocks::prose(text)
            .lines()
            .filter_map(|line| {
                line.strip_prefix("| `")?
                    .split('`')
                    .next()
                    .map(str::to_owned)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(english), keys(french));
    assert!(keys(english).len() > 30);
    assert!(english.contains("(technicien.md)") && french.contains("(technician.md)"));
}
