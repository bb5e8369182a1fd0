//! What goes to the terminal.
//!
//! Colours are for terminals, and for those who did not set `NO_COLOR`
//! (<https://no-color.org>); `anstream` takes them out otherwise.

use std::error::Error;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use av_proto::text::one_line;
use av_proto::verdict::{Status, Verdict};
use serde::Serialize;

/// Green: good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Red: bad.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Yellow: worth a look.
pub const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// Faint: for whoever looks closely.
pub const FAINT: Style = Style::new().dimmed();
/// Nothing special.
pub const PLAIN: Style = Style::new();
/// Bold: a heading.
pub const HEADING: Style = Style::new().bold();

/// The colour of a status.
#[must_use]
pub fn status_style(status: Status) -> Style {
    match status {
        Status::Online => GOOD,
        Status::Offline => BAD,
        Status::Unknown => DOUBTFUL,
    }
}

/// The colour of a verdict.
#[must_use]
pub fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Ok => GOOD,
        Verdict::Fault => BAD,
        Verdict::Doubt | Verdict::Unknown => DOUBTFUL,
        Verdict::ExpectedOff => FAINT,
    }
}

/// Prints `text` on the standard output.
///
/// # Errors
/// When it cannot be written. A reader that went away, such as `head`, is no
/// error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    settled(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints `value` as JSON, on a line of its own.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    // Not through anstream: JSON has no colours to take out.
    let mut out = io::BufWriter::new(io::stdout().lock());
    settled(
        serde_json::to_writer_pretty(&mut out, value)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush()),
    )
}

fn settled(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says on the standard error why a command could not do its work.
pub fn error(error: &dyn Error) {
    let _ = writeln!(
        anstream::stderr(),
        "{BAD}error{BAD:#}: {}",
        one_line(&error.to_string())
    );
}

/// Says something on the standard error beside an error.
pub fn hint(text: &str) {
    let _ = write!(anstream::stderr(), "{}", with_headings(text));
}

/// A help with its headings, the words before a colon at the beginning of a
/// line, in bold.
#[must_use]
pub fn with_headings(help: &str) -> String {
    let mut text = String::new();
    for line in help.split_inclusive('\n') {
        text += &match line.split_once(':') {
            Some((head, rest)) if !head.contains(' ') => {
                format!("{HEADING}{head}:{HEADING:#}{rest}")
            }
            _ => line.to_owned(),
        };
    }
    text
}

/// The width of the terminal in columns; `None` where the output is none, and
/// nothing is then cut.
#[must_use]
pub fn width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0))
}
