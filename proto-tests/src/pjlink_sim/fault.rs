//! The ways in which a simulated projector can misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

/// Where a projector talks nonsense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Garbage {
    /// Nowhere.
    #[default]
    None,
    /// Instead of the greeting, as some other service on the port would.
    Greeting,
    /// Instead of every answer.
    Answers,
    /// An answer without an end: bytes without a carriage return.
    Endless,
}

/// How bytes are dripped out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Bytes in a piece; 0 counts as 1.
    pub size: usize,
    /// The pause after each piece.
    pub pause: Duration,
}

/// Every fault at once; the default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nothing listens on the port: a connection is refused.
    pub refuse: bool,
    /// Accepts the connection and never says a word.
    pub silent: bool,
    /// Waits this long before the greeting.
    pub greeting_delay: Duration,
    /// Waits this long before each answer, that to a wrong password too.
    pub answer_delay: Duration,
    /// Waits this long before it answers a search. What is set later holds
    /// from the next start on.
    pub search_delay: Duration,
    /// Commands that get no answer, by upper-case body.
    pub ignores: BTreeSet<String>,
    /// Sends greeting and answers in pieces.
    pub pieces: Option<Pieces>,
    /// Closes the connection after each answer.
    pub close_after_answer: bool,
    /// Closes the connection instead of answering.
    pub close_before_answer: bool,
    /// Talks nonsense.
    pub garbage: Garbage,
    /// The greeting's random number is in upper-case hex digits; the digest
    /// is still of the number as it was sent.
    pub upper_case: bool,
    /// Greeting and answers are in lower-case letters.
    pub lower_case: bool,
    /// Greets with `PJLINK ERRA`, as a projector that locked the address.
    pub greet_erra: bool,
    /// After this many wrong passwords in a row every greeting is
    /// `PJLINK ERRA`, until [`super::Projector::unlock`].
    pub lock_after: Option<u32>,
    /// The answer to a command, whatever the state: `LAMP` to `ERR4`. Keys
    /// are upper-case command bodies.
    pub answers: BTreeMap<String, String>,
}

impl Faults {
    /// Adds the fault that a text names: `NAME` or `NAME=VALUE`, where a
    /// duration is in milliseconds.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match name {
            "refuse" => self.refuse = true,
            "silent" => self.silent = true,
            "slow-greeting" => self.greeting_delay = milliseconds(name, value)?,
            "slow-answers" => self.answer_delay = milliseconds(name, value)?,
            "slow-search" => self.search_delay = milliseconds(name, value)?,
            "ignores" => {
                let body = value.ok_or("ignores needs a command: ignores=ERST")?;
                self.ignores.insert(body.to_owned());
            }
            "pieces" => {
                self.pieces = Some(Pieces {
                    size: 1,
                    pause: milliseconds(name, value)?,
                });
            }
            "close-after-answer" => self.close_after_answer = true,
            "close-before-answer" => self.close_before_answer = true,
            "garbage-greeting" => self.garbage = Garbage::Greeting,
            "garbage-answers" => self.garbage = Garbage::Answers,
            "endless-answers" => self.garbage = Garbage::Endless,
            "upper-case" => self.upper_case = true,
            "lower-case" => self.lower_case = true,
            "erra-greeting" => self.greet_erra = true,
            "lock-after" => self.lock_after = Some(number(name, value)?),
            body if body.len() == 4
                && body
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) =>
            {
                let answer = value.ok_or_else(|| format!("{body} needs an answer: {body}=ERR4"))?;
                self.answers.insert(body.to_owned(), answer.to_owned());
            }
            _ => return Err(format!("there is no fault {name:?}")),
        }
        Ok(())
    }
}

fn number<T: FromStr>(name: &str, value: Option<&str>) -> Result<T, String> {
    value
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{name} needs a number: {name}=3"))
}

fn milliseconds(name: &str, value: Option<&str>) -> Result<Duration, String> {
    number(name, value).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_texts() {
        let mut faults = Faults::default();
        for text in [
            "silent",
            "slow-greeting=250",
            "slow-search=9000",
            "ignores=ERST",
            "pieces=5",
            "lock-after=3",
            "LAMP=ERR4",
        ] {
            faults.add(text).unwrap();
        }
        let expected = Faults {
            silent: true,
            greeting_delay: Duration::from_millis(250),
            search_delay: Duration::from_secs(9),
            ignores: BTreeSet::from(["ERST".to_owned()]),
            pieces: Some(Pieces {
                size: 1,
                pause: Duration::from_millis(5),
            }),
            lock_after: Some(3),
            answers: BTreeMap::from([("LAMP".to_owned(), "ERR4".to_owned())]),
            ..Faults::default()
        };
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_text_that_names_no_fault_is_refused() {
        for text in [
            "",
            "slow",
            "slow-greeting",
            "slow-greeting=soon",
            "lock-after=-1",
            "ignores",
            "LAMP",
        ] {
            assert!(Faults::default().add(text).is_err(), "{text:?}");
        }
    }
}
