//! Where a command takes a user's password from.

use std::io::{BufRead as _, IsTerminal as _, stdin};

use clap::Args;

use super::{Failure, new_token, password, print};

/// Where the password comes from. Never from an argument: every user of the
/// machine can read those.
#[derive(Debug, Args)]
pub(super) struct PasswordSource {
    /// Make a password and print it, alone on standard output; it cannot be shown again
    #[arg(long, conflicts_with = "password_stdin")]
    generate: bool,
    /// Read the password from standard input, one line, at a terminal too
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordSource {
    /// The password of the user of this name, checked.
    ///
    /// # Errors
    /// Where it is not what a password must be like, was typed in two ways, or
    /// cannot be read.
    pub(super) fn choose(&self, name: &str) -> Result<Chosen, Failure> {
        let check = |text: &str| password::check(name, text).map_err(Failure::new);
        if self.generate {
            // 128 bits are plenty, and can be typed.
            let text = new_token()?.chars().take(32).collect();
            return Ok(Chosen { text, is_new: true });
        }
        let text = if !self.password_stdin && stdin().is_terminal() {
            let text = ask(&format!("Password of {name:?}: "))?;
            check(&text)?;
            if ask("The same again: ")? != text {
                return Err(Failure::new("the two passwords are not the same"));
            }
            text
        } else {
            let text = line()?;
            check(&text)?;
            text
        };
        Ok(Chosen {
            text,
            is_new: false,
        })
    }
}

/// Asks at the terminal, which does not show what is typed.
fn ask(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question)
        .map_err(|error| Failure::unreadable(format!("the terminal: {error}")))
}

/// A line of standard input.
fn line() -> Result<String, Failure> {
    let mut text = String::new();
    let read = stdin()
        .lock()
        .read_line(&mut text)
        .map_err(|error| Failure::unreadable(format!("standard input: {error}")))?;
    if read == 0 {
        return Err(Failure::new(
            "standard input has no password; --generate makes one",
        ));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A password, and whether the person knows it already.
pub(super) struct Chosen {
    /// The password.
    pub(super) text: String,
    is_new: bool,
}

impl Chosen {
    /// Says what was done, and the password where it is a new one: alone on
    /// standard output, for scripts.
    pub(super) fn tell(&self, done: &str) -> Result<(), Failure> {
        if !self.is_new {
            eprintln!("{done}");
            return Ok(());
        }
        eprintln!("{done} The password follows; it cannot be shown again.");
        print(&format!("{}\n", self.text))
    }
}
