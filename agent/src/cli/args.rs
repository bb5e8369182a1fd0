//! The words of a command line, read by the help that is printed for it.
//!
//! A command's help is its syntax too, so that neither can say what the other
//! does not know. Its usage names the words that it takes, and each option has
//! a line of its own:
//!
//! ```text
//! Usage: av-agent status [OPTIONS] [<NETWORK>]...
//!
//!   -q, --quiet
//!       --url <URL>
//!   -w, --watch [<SECONDS>]
//!       --set <NAME=VALUE>...
//! ```
//!
//! The first takes no value, the second one that must be there, the third one
//! that may be left out, and the fourth may be given again. The short letters,
//! `--option=value` and `--` are [`lexopt`]'s.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use av_proto::nearest::nearest;
use lexopt::{Arg, Parser};

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A command or an option that there is not, or a word too many.
    #[error("there is no {what} '{given}'{}", similar(.like))]
    Unknown {
        /// `command`, `option` or `argument`.
        what: &'static str,
        /// As it was typed.
        given: String,
        /// One that there is and that may have been meant.
        like: Option<String>,
    },
    /// An option or a word without which the command cannot work.
    #[error("'{0}' is required")]
    Required(String),
    /// An option without its value.
    #[error("a value is required for '{0}'")]
    NoValue(&'static str),
    /// An option with a value that takes none.
    #[error("'{0}' takes no value")]
    NeedlessValue(String),
    /// An option that was given more than once.
    #[error("'{0}' cannot be given twice")]
    Twice(&'static str),
    /// Two options that do not go together.
    #[error("'{0}' cannot be given with '{1}'")]
    Conflict(&'static str, &'static str),
    /// A value that the command does not understand.
    #[error("invalid value '{given}' for '{of}': {problem}")]
    Invalid {
        /// As it was typed.
        given: String,
        /// The option or word, as the usage names it.
        of: String,
        /// Why not.
        problem: String,
    },
}

/// Why a command line is no command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It asks for this text.
    Say(String),
    /// It is wrong.
    Wrong {
        /// Why.
        error: ArgsError,
        /// How it is used.
        usage: &'static str,
    },
}

/// An option, as its line of a help names it.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// `--watch [<SECONDS>]`.
    pub shown: &'static str,
    /// `watch`.
    pub long: &'static str,
    /// `w`.
    pub short: Option<char>,
    /// Whether a value comes after it.
    pub value: Value,
    /// Whether it may be given again.
    pub repeats: bool,
}

/// What comes after an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A value that may be left out.
    Optional,
    /// A value.
    Required,
}

impl Spec {
    /// Reads a line of a help; `None` where it is no option's.
    #[must_use]
    pub fn of(line: &'static str) -> Option<Self> {
        let text = line.trim_start();
        // What is said about options begins further to the right.
        if !text.starts_with('-') || line.len() - text.len() > 6 {
            return None;
        }
        let (short, shown) = match text.split_once(", ") {
            Some((short, rest)) => (short.chars().nth(1), rest),
            None => (None, text),
        };
        let (name, value) = match shown.split_once(' ') {
            None => (shown, Value::None),
            Some((name, value)) if value.starts_with('[') => (name, Value::Optional),
            Some((name, _)) => (name, Value::Required),
        };
        Some(Self {
            shown: shown.trim_end_matches("..."),
            long: name.strip_prefix("--")?,
            short,
            value,
            repeats: shown.ends_with("..."),
        })
    }
}

/// The options in a help.
pub fn specs(help: &'static str) -> impl Iterator<Item = Spec> {
    help.lines().filter_map(Spec::of)
}

/// The paragraph of a help that begins with `Usage:`.
pub(super) fn usage(help: &'static str) -> &'static str {
    let begin = help.find("Usage:").unwrap_or_default();
    let usage = &help[begin..];
    usage.split("\n\n").next().unwrap_or(usage)
}

/// The words in the usage, such as `<IP>`, in their order.
pub fn places(help: &'static str) -> impl Iterator<Item = &'static str> {
    usage(help)
        .split_whitespace()
        .filter(|word| word.contains('<'))
}

/// What a command was given.
#[derive(Debug)]
pub(super) struct Given {
    help: &'static str,
    words: Vec<OsString>,
    options: Vec<(Spec, Option<OsString>)>,
}

impl Given {
    /// Reads the words after a command's name by its help.
    ///
    /// # Errors
    /// [`Stop::Say`] with the help where it is asked for, [`Stop::Wrong`]
    /// where something was given that it does not name.
    pub(super) fn read(
        help: &'static str,
        words: impl Iterator<Item = OsString>,
    ) -> Result<Self, Stop> {
        let mut given = Self {
            help,
            words: Vec::new(),
            options: Vec::new(),
        };
        match given.take(Parser::from_args(words)) {
            Err(error) => Err(given.wrong(error)),
            Ok(()) if given.has("help") => Err(Stop::Say(help.to_owned())),
            Ok(()) => Ok(given),
        }
    }

    fn take(&mut self, mut parser: Parser) -> Result<(), ArgsError> {
        loop {
            let next = parser.next().map_err(|error| match error {
                lexopt::Error::UnexpectedValue { option, .. } => ArgsError::NeedlessValue(option),
                // Nothing else comes from where no value is asked for.
                other => ArgsError::NeedlessValue(other.to_string()),
            })?;
            let spec = match next {
                None => return Ok(()),
                Some(Arg::Value(word)) => {
                    self.word(word)?;
                    continue;
                }
                Some(Arg::Long(name)) => specs(self.help)
                    .find(|spec| spec.long == name)
                    .ok_or_else(|| self.unknown(format!("--{name}"))),
                Some(Arg::Short(letter)) => specs(self.help)
                    .find(|spec| spec.short == Some(letter))
                    .ok_or_else(|| self.unknown(format!("-{letter}"))),
            }?;
            if self.has(spec.long) && !spec.repeats {
                return Err(ArgsError::Twice(spec.shown));
            }
            let value = match spec.value {
                Value::None => None,
                _ => parser.optional_value().or_else(|| next_word(&mut parser)),
            };
            if value.is_none() && spec.value == Value::Required {
                return Err(ArgsError::NoValue(spec.shown));
            }
            self.options.push((spec, value));
            if spec.long == "help" {
                // Whatever comes after it.
                return Ok(());
            }
        }
    }

    fn word(&mut self, word: OsString) -> Result<(), ArgsError> {
        let last = places(self.help).last();
        let many = last.is_some_and(|place| place.ends_with("..."));
        if !many && self.words.len() >= places(self.help).count() {
            return Err(ArgsError::Unknown {
                what: "argument",
                given: shown(&word),
                like: None,
            });
        }
        self.words.push(word);
        Ok(())
    }

    fn unknown(&self, given: String) -> ArgsError {
        let like = nearest(
            &given,
            specs(self.help).map(|spec| format!("--{}", spec.long)),
        );
        ArgsError::Unknown {
            what: "option",
            given,
            like,
        }
    }

    /// The same error with how the command is used.
    pub(super) fn wrong(&self, error: ArgsError) -> Stop {
        Stop::Wrong {
            error,
            usage: usage(self.help),
        }
    }

    /// Whether an option was given.
    pub(super) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(spec, _)| spec.long == long)
    }

    /// An option's value, where it was given with one.
    pub(super) fn option<T: FromStr>(&self, long: &str) -> Result<Option<T>, ArgsError>
    where
        T::Err: Display,
    {
        Ok(self.options(long)?.pop())
    }

    /// All the values of an option, in the order in which they were given.
    pub(super) fn options<T: FromStr>(&self, long: &str) -> Result<Vec<T>, ArgsError>
    where
        T::Err: Display,
    {
        let of_it = self.options.iter().filter(|(spec, _)| spec.long == long);
        of_it
            .filter_map(|(spec, value)| Some(parsed(value.as_deref()?, spec.shown)))
            .collect()
    }

    /// An option's value, which is a path and need not be UTF-8.
    pub(super) fn path(&self, long: &str) -> Option<PathBuf> {
        let mut of_it = self.options.iter().filter(|(spec, _)| spec.long == long);
        Some(of_it.next()?.1.as_ref()?.into())
    }

    /// An option's value, a number from `least` to `most`.
    pub(super) fn number(
        &self,
        long: &str,
        least: u32,
        most: u32,
    ) -> Result<Option<u32>, ArgsError> {
        let number = self.option::<u32>(long)?;
        match number {
            Some(number) if !(least..=most).contains(&number) => Err(ArgsError::Invalid {
                given: number.to_string(),
                of: format!("--{long}"),
                problem: format!("it is not from {least} to {most}"),
            }),
            number => Ok(number),
        }
    }

    /// The words from the one at `index` on, each read as a `T`.
    pub(super) fn words<T: FromStr>(&self, index: usize) -> Result<Vec<T>, ArgsError>
    where
        T::Err: Display,
    {
        let place = self.place(index);
        let words = self.words.iter().skip(index);
        words.map(|word| parsed(word, place)).collect()
    }

    /// The word at `index`, without which the command cannot work.
    pub(super) fn required<T: FromStr>(&self, index: usize) -> Result<T, ArgsError>
    where
        T::Err: Display,
    {
        match self.words.get(index) {
            Some(word) => parsed(word, self.place(index)),
            None => Err(ArgsError::Required(self.place(index).to_owned())),
        }
    }

    /// The word at `index`, which is a path and need not be UTF-8.
    pub(super) fn path_at(&self, index: usize) -> Option<PathBuf> {
        self.words.get(index).map(PathBuf::from)
    }

    /// What the usage calls the word at `index`.
    pub(super) fn place(&self, index: usize) -> &'static str {
        places(self.help).nth(index).unwrap_or_default()
    }
}

/// The next word, where it is no option.
fn next_word(parser: &mut Parser) -> Option<OsString> {
    let is_word = |word: &OsStr| word == "-" || !word.as_encoded_bytes().starts_with(b"-");
    parser.try_raw_args()?.next_if(is_word)
}

fn parsed<T: FromStr>(text: &OsStr, of: &str) -> Result<T, ArgsError>
where
    T::Err: Display,
{
    let invalid = |problem| ArgsError::Invalid {
        given: shown(text),
        of: of.to_owned(),
        problem,
    };
    let text = text
        .to_str()
        .ok_or_else(|| invalid("it is not UTF-8".to_owned()))?;
    text.parse()
        .map_err(|error: T::Err| invalid(error.to_string()))
}

/// A word as it may stand in a line of a terminal.
pub(super) fn shown(word: &OsStr) -> String {
    av_proto::text::one_line(&word.to_string_lossy())
}

fn similar(like: &Option<String>) -> String {
    like.as_ref()
        .map(|like| format!("; there is '{like}'"))
        .unwrap_or_default()
}
