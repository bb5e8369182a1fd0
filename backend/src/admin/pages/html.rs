//! Small pieces of HTML that templates and the live state share.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::i18n::Lang;
use crate::store::pages::{AlertPage, DevicePage, SitePage, Tally};
use crate::store::users::Role;

/// A value, however often a template borrows it.
pub(super) trait Plain<T> {
    /// The value.
    fn plain(&self) -> T;
}

impl<T: Copy> Plain<T> for T {
    fn plain(&self) -> T {
        *self
    }
}

impl<T: Copy> Plain<T> for &T {
    fn plain(&self) -> T {
        **self
    }
}

impl<T: Copy> Plain<T> for &&T {
    fn plain(&self) -> T {
        ***self
    }
}

/// What every page has around it.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The browser's language.
    pub(super) lang: Lang,
    /// The user's name.
    pub(super) user: String,
    /// The user's id.
    pub(super) user_id: i64,
    /// What the user may do.
    pub(super) role: Role,
    /// Proves that a form or script is ours.
    pub(super) csrf: String,
    /// The part of the menu in which the page is.
    pub(super) here: &'static str,
    /// When the page is made.
    pub(super) now: Timestamp,
    /// Times carry no text: for an answer that must be equal while nothing
    /// happens. The script fills them in.
    pub(super) bare: bool,
}

/// What is to be said of a site's agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgentWords {
    /// Its dot.
    pub(super) class: &'static str,
    /// HTML.
    pub(super) html: String,
}

impl AgentWords {
    /// The dot and the words.
    pub(super) fn line(&self) -> String {
        format!("<i class=\"dot {}\"></i> {}", self.class, self.html)
    }
}

impl Frame {
    /// Whether the user may change sites and devices.
    pub(super) fn can_edit(&self) -> bool {
        self.role >= Role::Editor
    }

    /// Whether the user manages users.
    pub(super) fn is_admin(&self) -> bool {
        self.role >= Role::Admin
    }

    /// Whether the page is one of those in the menu's last part.
    pub(super) fn in_more(&self) -> bool {
        matches!(self.here, "channels" | "users" | "audit" | "account")
    }

    /// "3 min ago", kept up to date by the script.
    pub(super) fn ago(&self, at: impl Plain<Timestamp>) -> String {
        let at = at.plain();
        let text = self.lang.with("js.ago", &self.span_text(at));
        self.time(at, "ago", &text)
    }

    /// "3 min": how long it lasts.
    pub(super) fn span(&self, since: impl Plain<Timestamp>) -> String {
        let since = since.plain();
        self.time(since, "span", &self.span_text(since))
    }

    /// The same; nothing where there is no time.
    pub(super) fn span_or_none(&self, since: impl Plain<Option<Timestamp>>) -> String {
        since
            .plain()
            .map_or_else(String::new, |since| self.span(since))
    }

    /// Day and time; the script shows them in the browser's zone.
    pub(super) fn at(&self, at: impl Plain<Timestamp>) -> String {
        let at = at.plain();
        self.time(at, "at", &format!("{} UTC", at.strftime("%Y-%m-%d %H:%M")))
    }

    fn time(&self, at: Timestamp, kind: &str, text: &str) -> String {
        let text = if self.bare { "" } else { text };
        format!(
            "<time datetime=\"{}\" data-as=\"{kind}\">{text}</time>",
            at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        )
    }

    fn span_text(&self, since: Timestamp) -> String {
        span(self.lang, self.now.duration_since(since).as_secs())
    }

    /// What an alert is about.
    pub(super) fn alert_title(&self, alert: &AlertPage) -> String {
        match &alert.device {
            Some(name) => name.clone(),
            None => self.lang.t("alert.silent").to_owned(),
        }
    }

    /// What is to be said of a device: what its agent said, while it says
    /// something.
    pub(super) fn detail(&self, device: &DevicePage) -> String {
        match &device.was {
            Some(verdict) => self.lang.with("device.was", self.lang.worst(verdict)),
            None => device.detail.clone(),
        }
    }

    /// What is to be said of a site's agent: whether it is heard from, and
    /// whether it runs the configuration that is wanted.
    pub(super) fn agent(&self, site: &SitePage) -> AgentWords {
        let agent = &site.agent;
        let said = |class, html| AgentWords { class, html };
        let Some(heard) = agent.last_report_at else {
            return said("waiting", self.lang.t("agent.never").to_owned());
        };
        if agent.silent {
            let html = self.lang.with("agent.silent", &self.span(heard));
            return said("fault", html);
        }
        let heard = self.lang.with("agent.heard", &self.ago(heard));
        if let Some(why) = &agent.config_error {
            let why = self.lang.with("agent.refused", &escape(why));
            return said("fault", format!("{heard} · {why}"));
        }
        if agent.rejected > 0 {
            let rejected = self.lang.n("rejected", agent.rejected);
            return said("doubt", format!("{heard} · {rejected}"));
        }
        match (&agent.running_hash, &site.wanted_hash) {
            (Some(running), Some(wanted)) if running == wanted => {
                let in_sync = self.lang.t("agent.in_sync");
                said("ok", format!("{heard} · {in_sync}"))
            }
            (Some(_), Some(_)) => {
                let changed = site
                    .behind_since
                    .map_or_else(String::new, |at| self.ago(at));
                let behind = self.lang.with("agent.behind", &changed);
                said("doubt", format!("{heard} · {behind}"))
            }
            _ => said("ok", heard),
        }
    }

    /// A site's devices as a bar, the worst first.
    pub(super) fn bar(&self, tally: impl Plain<Tally>) -> String {
        let tally = tally.plain();
        let total = tally.total();
        if total == 0 {
            return String::new();
        }
        let words: Vec<String> = tally
            .parts()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(verdict, count)| format!("{}: {count}", self.lang.worst(verdict)))
            .collect();
        let mut svg = format!(
            "<svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{0}\"><title>{0}</title>",
            escape(&words.join(", "))
        );
        let mut x = 0;
        for (verdict, count) in tally.parts() {
            // At least a sliver of what is there.
            let width = (count * 1000 / total).max(i64::from(count > 0) * 12);
            if width > 0 {
                // Writing to a String cannot fail.
                let _ = write!(
                    svg,
                    "<rect class=\"{verdict}\" x=\"{x}\" width=\"{width}\" height=\"10\"/>"
                );
                x += width;
            }
        }
        svg.push_str("</svg>");
        svg
    }
}

/// A length of time in its largest unit, as the script shows it too.
pub(super) fn span(lang: Lang, seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} {}", s / 86_400, lang.t("js.day")),
    }
}

/// Text made safe for HTML, also within quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Puts names with numbers in the order in which people count: "9" before
/// "10", "Salle 2" before "Salle 12".
pub(super) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

/// Runs of digits as numbers, everything else in lower case. The order of the
/// variants puts numbers first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    Number(u64),
    Text(String),
}

/// The pieces by which [`natural`] compares.
pub(super) fn key(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest
            .find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(match piece.parse() {
            Ok(number) if digits => Piece::Number(number),
            _ => Piece::Text(piece.to_lowercase()),
        });
        rest = after;
    }
    pieces
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::pages::AgentState;

    pub(in super::super) fn frame(lang: Lang) -> Frame {
        Frame {
            lang,
            user: "anna".to_owned(),
            user_id: 1,
            role: Role::Admin,
            csrf: "c".to_owned(),
            here: "sites",
            now: "2026-11-24T10:00:00Z".parse().unwrap(),
            bare: false,
        }
    }

    pub(in super::super) fn site(agent: AgentState) -> SitePage {
        SitePage {
            id: 1,
            name: "Paris".to_owned(),
            timezone: "Europe/Paris".to_owned(),
            revision: 1,
            wanted_hash: Some("a".to_owned()),
            behind_since: Some("2026-11-24T09:58:00Z".parse().unwrap()),
            tally: Tally {
                fault: 1,
                ok: 1999,
                ..Tally::default()
            },
            open_alerts: 0,
            agent,
        }
    }

    #[test]
    fn agents_in_words() {
        let heard = || AgentState {
            last_report_at: Some("2026-11-24T09:59:30Z".parse().unwrap()),
            running_hash: Some("a".to_owned()),
            ..AgentState::default()
        };
        let text = |html: &str| -> String {
            let mut out = String::new();
            let mut inside = false;
            for c in html.chars() {
                match c {
                    '<' => inside = true,
                    '>' => inside = false,
                    c if !inside => out.push(c),
                    _ => {}
                }
            }
            out
        };
        for (agent, class, en, fr) in [
            (
                AgentState::default(),
                "waiting",
                "never heard from",
                "jamais entendu",
            ),
            (
                heard(),
                "ok",
                "heard 30 s ago · in sync",
                "entendu il y a 30 s · à jour",
            ),
            (
                AgentState {
                    silent: true,
                    ..heard()
                },
                "fault",
                "not heard from for 30 s",
                "sans nouvelles depuis 30 s",
            ),
            (
                AgentState {
                    running_hash: Some("b".to_owned()),
                    ..heard()
                },
                "doubt",
                "heard 30 s ago · behind by a change made 2 min ago",
                "entendu il y a 30 s · en retard sur un changement fait il y a 2 min",
            ),
            (
                AgentState {
                    config_error: Some("<b>".to_owned()),
                    ..heard()
                },
                "fault",
                "heard 30 s ago · refuses its configuration: &lt;b&gt;",
                "entendu il y a 30 s · refuse sa configuration : &lt;b&gt;",
            ),
            (
                AgentState {
                    rejected: 2,
                    ..heard()
                },
                "doubt",
                "heard 30 s ago · 2 devices refused by the agent",
                "entendu il y a 30 s · 2 équipements refusés par l'agent",
            ),
        ] {
            for (lang, words) in [(Lang::En, en), (Lang::Fr, fr)] {
                let said = frame(lang).agent(&site(agent.clone()));
                assert_eq!((said.class, text(&said.html).as_str()), (class, words));
            }
        }
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(span(Lang::En, seconds), text);
        }
        assert_eq!(span(Lang::Fr, 172_800), "2 j");
    }

    #[test]
    fn one_bad_device_of_many_is_seen_in_the_bar() {
        let svg = frame(Lang::En).bar(site(AgentState::default()).tally);
        assert!(
            svg.contains("<rect class=\"fault\" x=\"0\" width=\"12\""),
            "{svg}"
        );
        assert!(svg.contains("Fault: 1, OK: 1999"), "{svg}");
    }

    #[test]
    fn names_with_numbers_are_counted() {
        let mut names = ["Salle 12", "salle 2", "RDC", "10", "9", "", "Salle 2b"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["", "9", "10", "RDC", "salle 2", "Salle 2b", "Salle 12"]
        );
    }

    #[test]
    fn foreign_text_is_no_html() {
        assert_eq!(
            escape("<a href=\"x\">&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;"
        );
    }
}
