//! Lines of the log that would come again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time after which a line is said again.
const SAID_AGAIN: Duration = Duration::from_secs(3600);
/// Lines that are remembered; those beyond are not said.
const LINES_MAX: usize = 10_000;

/// Lines that are logged once an hour, and when they were.
#[derive(Default)]
pub(crate) struct News(Mutex<HashMap<String, Instant>>);

impl News {
    /// Whether a line was not said in the last hour.
    pub(crate) fn is_news(&self, line: &str) -> bool {
        self.is_news_at(line, Instant::now())
    }

    fn is_news_at(&self, line: &str, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= SAID_AGAIN;
        if said.get(line).is_some_and(|at| !is_old(at)) {
            return false;
        }
        if said.len() >= LINES_MAX {
            said.retain(|_, at| !is_old(at));
        }
        if said.len() >= LINES_MAX {
            return false;
        }
        said.insert(line.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_news_once_an_hour_and_there_is_an_end() {
        let news = News::default();
        let now = Instant::now();
        assert!(news.is_news_at("a", now));
        assert!(!news.is_news_at("a", now + SAID_AGAIN / 2));
        assert!(news.is_news_at("a", now + SAID_AGAIN));
        for n in 0..LINES_MAX {
            news.is_news_at(&n.to_string(), now + SAID_AGAIN);
        }
        assert!(!news.is_news_at("b", now + SAID_AGAIN));
        assert!(news.is_news_at("b", now + SAID_AGAIN * 2));
    }
}
