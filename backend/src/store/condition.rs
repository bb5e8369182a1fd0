//! What is missing before the database can be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;

/// What a program can do with its database now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no connection, and why.
    Unreachable(String),
    /// The schema is being brought up to date: by this migration, or, with
    /// `None`, by another program or one that has not begun.
    Migrating(Option<&'static str>),
    /// The schema cannot be brought up to date, and waiting does not mend it.
    Blocked(String),
    /// Every migration was applied, and some of what they made is gone: this.
    Incomplete(String),
    /// Tables of another program are in the schema's place.
    Foreign {
        /// The names of some of them.
        names: String,
        /// They are those of the Python system.
        is_python: bool,
    },
    /// The schema is there.
    Ready {
        /// The newest migration in the database, where this program does not
        /// know it.
        newer: Option<i32>,
    },
}

impl Condition {
    /// Before anything is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self::Unreachable("no answer yet".to_owned())
    }

    /// What is missing, in a few words; `None` where nothing is.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable(_) => Some("database unreachable"),
            Self::Migrating(_) => Some("migration under way"),
            Self::Blocked(_) => Some("migration failed"),
            Self::Incomplete(_) => Some("part of the schema"),
            Self::Foreign { .. } => Some("database of another program"),
            Self::Ready { .. } => None,
        }
    }

    /// Why requests cannot be answered, without the database's place; `None`
    /// where they can.
    #[must_use]
    pub fn refusal(&self) -> Option<StoreError> {
        let why = match self {
            Self::Unreachable(why) => why.clone(),
            Self::Migrating(Some(name)) => format!("migration {name} is under way"),
            Self::Migrating(None) => "its schema is not up to date yet".to_owned(),
            Self::Blocked(why) => format!("its schema cannot be brought up to date: {why}"),
            Self::Incomplete(what) => return Some(StoreError::Incomplete(what.clone())),
            Self::Foreign { names, is_python } => {
                return Some(StoreError::Foreign {
                    names: names.clone(),
                    is_python: *is_python,
                });
            }
            Self::Ready { .. } => return None,
        };
        Some(StoreError::Unavailable(why))
    }

    /// Whether waiting alone does not mend it.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(
            self,
            Self::Blocked(_) | Self::Incomplete(_) | Self::Foreign { .. }
        )
    }
}

/// The condition as threads share it.
#[derive(Clone)]
pub(super) struct Shared {
    /// For those who ask with each request.
    ready: Arc<AtomicBool>,
    condition: Arc<Mutex<Condition>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            ready: Arc::new(AtomicBool::new(false)),
            condition: Arc::new(Mutex::new(Condition::unknown())),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn get(&self) -> Condition {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, condition: Condition) {
        let ready = matches!(condition, Condition::Ready { .. });
        let mut held = self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = condition;
        self.ready.store(ready, Ordering::Release);
    }

    /// A migration begins. What was blocked stays so until there is an
    /// outcome: it is tried again and again.
    pub(super) fn migrates(&self, name: Option<&'static str>) {
        if !self.get().is_stuck() {
            self.set(Condition::Migrating(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_schema_that_is_there_is_ready() {
        let shared = Shared::new();
        for (condition, ready) in [
            (Condition::Migrating(None), false),
            (Condition::Ready { newer: None }, true),
            (Condition::Blocked("permission denied".to_owned()), false),
            (Condition::Ready { newer: Some(9) }, true),
            (Condition::Incomplete("table alerts".to_owned()), false),
            (Condition::Unreachable("refused".to_owned()), false),
        ] {
            assert_eq!(condition.missing().is_none(), ready);
            assert_eq!(condition.refusal().is_none(), ready);
            shared.set(condition.clone());
            assert_eq!((shared.is_ready(), shared.get()), (ready, condition));
        }
    }
}
