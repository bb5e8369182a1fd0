//! How far a long command is, on the standard error, and Ctrl-C, which ends it
//! with what it has.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::FAINT;
use super::table::cut;
use crate::discover::look::Watcher;

/// A line on a terminal is written anew so often.
const REWRITE_EVERY: Duration = Duration::from_millis(100);
/// Elsewhere another line comes so often: in a file each stays.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where the progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Nobody,
    /// One line, written over.
    Terminal,
    /// A line now and then.
    Lines,
}

/// The progress of a look at networks.
#[derive(Debug)]
pub(super) struct Progress {
    to: To,
    stage: String,
    last: Instant,
    /// A line is on the terminal that the next one takes the place of.
    open: bool,
    over: Arc<AtomicBool>,
}

impl Progress {
    /// Begins to listen for Ctrl-C. A second one ends the program at once.
    ///
    /// # Errors
    /// When the signals cannot be had.
    pub(super) fn start(quiet: bool) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&over))?;
            flag::register(signal, Arc::clone(&over))?;
        }
        Ok(Self {
            to: match (quiet, io::stderr().is_terminal()) {
                (true, _) => To::Nobody,
                (false, true) => To::Terminal,
                (false, false) => To::Lines,
            },
            stage: String::new(),
            last: Instant::now(),
            open: false,
            over,
        })
    }

    /// Takes the line from the terminal again.
    pub(super) fn ends(&mut self) {
        if std::mem::take(&mut self.open) {
            // Not by anstream, which would take it out with the colours.
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

impl Watcher for Progress {
    fn begins(&mut self, what: &str) {
        what.clone_into(&mut self.stage);
    }

    fn notes(&mut self, what: &str) {
        self.ends();
        if self.to != To::Nobody {
            let _ = writeln!(anstream::stderr(), "{FAINT}{what}{FAINT:#}");
        }
    }

    fn counts(&mut self, asked: usize, of: usize, found: usize) {
        let every = match self.to {
            To::Nobody => return,
            To::Terminal => REWRITE_EVERY,
            To::Lines => LINE_EVERY,
        };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        self.ends();
        let line = line(&self.stage, asked, of, found);
        if self.to == To::Terminal {
            // A longer one would go on in the next line, and stay.
            let width = terminal_size::terminal_size_of(io::stderr());
            let line = cut(
                &line,
                width
                    .map_or(80, |(width, _)| usize::from(width.0))
                    .saturating_sub(1),
            );
            let _ = write!(anstream::stderr(), "{FAINT}{line}{FAINT:#}");
            let _ = io::stderr().flush();
            self.open = true;
        } else {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn line(stage: &str, asked: usize, of: usize, found: usize) -> String {
    if of == 0 {
        return format!("{stage}; {found} found so far");
    }
    format!("{stage}: {asked} of {of} addresses asked, {found} found so far")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_of_how_many() {
        assert_eq!(
            line("ping", 12, 254, 3),
            "ping: 12 of 254 addresses asked, 3 found so far"
        );
        assert_eq!(
            line("PJLink search", 0, 0, 3),
            "PJLink search; 3 found so far"
        );
    }
}
