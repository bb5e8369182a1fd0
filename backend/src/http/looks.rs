//! What anybody may ask of the database: its health, and how much there is. Each
//! request looks anew. What was found a moment ago is for the requests beyond
//! those that wait already.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::store::devices::Counts;
use crate::store::{Condition, Store, StoreError};

/// How long what was found is of use.
const RECENT: Duration = Duration::from_secs(1);

/// Looks at the database, over connections of its own.
pub(super) struct Looks {
    store: Arc<Store>,
    health: Memo<(u16, Value)>,
    counts: Memo<Option<Counts>>,
}

/// What was found a moment ago.
struct Memo<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Memo<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// What was found a moment ago.
    fn recent(&self) -> Option<T> {
        let found = self.lock();
        let (at, found) = found.as_ref()?;
        (at.elapsed() < RECENT).then(|| found.clone())
    }

    /// Keeps what is found now.
    fn keep(&self, now: T) -> T {
        *self.lock() = Some((Instant::now(), now.clone()));
        now
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looks {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store: Arc::new(store),
            health: Memo::new(),
            counts: Memo::new(),
        }
    }

    /// Whether the database is of use.
    pub(super) fn health(&self) -> Answer {
        said(self.health.keep(health(&self.store)))
    }

    /// The same as it was found a moment ago.
    pub(super) fn recent_health(&self) -> Option<Answer> {
        self.health.recent().map(said)
    }

    /// How much there is; `None` where the database does not say.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.counts.keep(counts(&self.store))
    }

    /// The same as it was found a moment ago.
    pub(super) fn recent_counts(&self) -> Option<Option<Counts>> {
        self.counts.recent()
    }
}

fn said((status, document): (u16, Value)) -> Answer {
    let answer = Answer::json(status, &document);
    match status {
        200 => answer,
        _ => answer.with("Retry-After", "2"),
    }
}

fn health(store: &Store) -> (u16, Value) {
    let version = env!("CARGO_PKG_VERSION");
    let unavailable = |error: &str, missing: &str| {
        let document = json!({"status": "unavailable", "database": error, "missing": missing,
                              "version": version, "error": error});
        (503, document)
    };
    let pinged = store.ping();
    let condition = store.condition();
    let error = match pinged {
        Ok(()) => {
            // It answers, and that is not all that it is for.
            if let Some(fault) = store.fault() {
                return unavailable(&fault.said(), fault.missing());
            }
            let mut document = json!({"status": "ok", "database": "ok", "version": version});
            if matches!(condition, Condition::Ready { newer: Some(_) }) {
                document["schema"] = json!("newer than this program");
            }
            return (200, document);
        }
        Err(error) => error,
    };
    let missing = match &error {
        StoreError::Busy(_) => "database busy",
        _ => condition.missing().unwrap_or("database unreachable"),
    };
    let error = match &error {
        // Everybody may ask this: not the names of the tables.
        StoreError::Foreign { .. } => crate::answer::FOREIGN.to_owned(),
        error => error.to_string(),
    };
    unavailable(&error, missing)
}

fn counts(store: &Store) -> Option<Counts> {
    match store.counts() {
        Ok(counts) => Some(counts),
        Err(
            StoreError::Unavailable(_)
            | StoreError::Busy(_)
            | StoreError::Incomplete(_)
            | StoreError::Foreign { .. },
        ) => None,
        Err(error) => {
            log::error!("{error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_of_use_for_a_moment() {
        let memo = Memo::new();
        assert_eq!(memo.recent(), None);
        assert_eq!(memo.keep(1), 1);
        assert_eq!(memo.recent(), Some(1));
        assert_eq!(memo.keep(2), 2);
        assert_eq!(memo.recent(), Some(2));
        let before = Instant::now().checked_sub(RECENT).unwrap();
        *memo.lock() = Some((before, 1));
        assert_eq!(memo.recent(), None);
    }
}
