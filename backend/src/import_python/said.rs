//! What is told of an import.

use std::fmt::Write as _;

use av_proto::text::excerpt;

use super::taken::{Odd, Tallies};
use crate::store::python::Unplaced;

/// How long an example may be.
const EXAMPLE_MAX: usize = 160;

/// A site's configuration, there and here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteHash {
    pub(super) site: String,
    pub(super) hash: String,
    /// What the Python system stored, if it did.
    pub(super) theirs: Option<String>,
}

/// Everything that is told.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) from: String,
    pub(super) to: Option<String>,
    pub(super) sites: Vec<SiteHash>,
    pub(super) devices: usize,
    pub(super) events: u64,
    pub(super) states: usize,
    pub(super) alerts: u64,
    pub(super) open_alerts: u64,
    pub(super) acknowledged: u64,
    pub(super) tallies: Tallies,
    pub(super) unplaced: Vec<Unplaced>,
}

impl Account {
    /// What was taken, on one line.
    pub(super) fn summary(&self) -> String {
        format!(
            "{}, {}, {} of the history, the state of {}, {} ({} open, {} acknowledged)",
            counted(self.sites.len(), "site"),
            counted(self.devices, "device"),
            counted(self.events, "event"),
            counted(self.states, "device"),
            counted(self.alerts, "alert"),
            self.open_alerts,
            self.acknowledged,
        )
    }

    /// The whole.
    pub(super) fn told(&self) -> String {
        let mut text = match &self.to {
            Some(to) => format!("Taken over from {} into {to}:\n", self.from),
            None => format!(
                "Would be taken over from {} (nothing was written):\n",
                self.from
            ),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}", self.summary());
        for site in &self.sites {
            let name = excerpt(&site.site, EXAMPLE_MAX);
            let _ = match &site.theirs {
                Some(theirs) if *theirs == site.hash => writeln!(
                    text,
                    "  site {name:?}: configuration {}, as the Python system had it",
                    site.hash
                ),
                Some(theirs) => writeln!(
                    text,
                    "  site {name:?}: configuration {}; the Python system last stored {}, at an agent's poll before the last change, or of what is put right below",
                    site.hash,
                    excerpt(theirs, 64)
                ),
                None => writeln!(
                    text,
                    "  site {name:?}: configuration {}; no agent ever asked the Python system for it",
                    site.hash
                ),
            };
        }
        if !self.tallies.0.is_empty() {
            text.push_str("Taken otherwise than it was there, or worth a look:\n");
            for (odd, tally) in &self.tallies.0 {
                let _ = write!(text, "  {} {}", tally.count, words(*odd));
                self.examples(&mut text, &tally.examples, tally.count);
            }
        }
        if !self.unplaced.is_empty() {
            text.push_str("No place here, and left in the Python system's database:\n");
            for left in &self.unplaced {
                let _ = match &left.column {
                    Some(column) => write!(text, "  {}.{column}: ", left.table),
                    None => write!(text, "  table {}: ", left.table),
                };
                match left.rows {
                    None => text.push_str("this user may not read it"),
                    Some(rows) => text.push_str(&counted(rows, "row")),
                }
                let more = left.rows.unwrap_or_default();
                self.examples(&mut text, &left.names, more);
            }
        }
        if self.to.is_some() {
            text.push_str(
                "Agents go on with the tokens that they have. Point their backend_url, or the\nname that it has, at this backend.\n",
            );
        }
        text
    }

    fn examples(&self, text: &mut String, examples: &[String], of: u64) {
        let shown: Vec<String> = examples
            .iter()
            .map(|example| excerpt(example, EXAMPLE_MAX))
            .collect();
        match shown.is_empty() {
            true => text.push('\n'),
            false => {
                let more = u64::try_from(shown.len()).is_ok_and(|shown| shown < of);
                let end = if more { ", ..." } else { "" };
                let _ = writeln!(text, ": {}{end}", shown.join(", "));
            }
        }
    }
}

fn counted(count: impl ToString, what: &str) -> String {
    let count = count.to_string();
    let end = if count == "1" { "" } else { "s" };
    format!("{count} {what}{end}")
}

/// What an oddity is, after its number.
fn words(odd: Odd) -> &'static str {
    match odd {
        Odd::Rejected => "device(s) taken that no agent watches as they are",
        Odd::Driver => "device(s) taken whose driver no agent has",
        Odd::Zone => {
            "time zone(s) taken that are no IANA names, for which agents use the site's or UTC"
        }
        Odd::Default => {
            "setting(s) of nothing, taken as the Python system reads them, by their default"
        }
        Odd::Range => "setting(s) out of range, taken as the nearest in range",
        Odd::Renamed => "name(s) or address(es) empty or there twice, taken under another",
        Odd::Token => {
            "site(s) whose token is empty or another site's: renew it and give it to their agents"
        }
        Odd::NoObject => "JSON value(s) that should be an object",
        Odd::NoSite => "row(s) left out that are of no site",
        Odd::StatusLetters => "status word(s) in other letters, taken in lower case",
        Odd::Status => "status word(s) that are none here, taken as unknown",
        Odd::VerdictLetters => "verdict(s) in other letters, taken in lower case",
        Odd::Verdict => "verdict(s) that are none here, taken as unknown",
        Odd::NoVerdict => "row(s) without a verdict, taken as unknown",
        Odd::Twice => "event(s) left out, of a device that has one of the same time",
        Odd::Time => "event(s) left out whose time is ahead of the clock, or none",
        Odd::Severity => "alert(s) of another severity, taken as warning",
        Odd::Backwards => {
            "alert(s) closed before they were opened, taken as closed when they were opened"
        }
        Odd::SecondOpen => {
            "alert(s) open beside another of their device, taken as closed when they were last reported"
        }
    }
}
