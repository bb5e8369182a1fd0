//! Whether the backend's own work gets on: the last write that was committed,
//! and the last look at the alerts. A database that answers and takes
//! nothing is of no use, and a full disk leaves it just so.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::error::describe;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// Between two writes that only try whether one is taken.
const TRY_EVERY: Duration = Duration::from_secs(15);
/// A write is old after this.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// A look at the alerts is old after this, where they are looked at often.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// The same, in the time between two.
const ROUNDS: u32 = 6;
/// Rows of a try: 72 kB, and 2 MB to find out whether there is room again.
const ROWS: i32 = 2_000;
const ROWS_AGAIN: i32 = 60_000;

/// What keeps the database from being of use, although it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It refused a write for want of room, in its own words.
    NoRoom(String),
    /// The last write is older than this.
    OldWrite(Duration),
    /// The last look at the alerts is older than this.
    OldRound(Duration),
}

impl Fault {
    /// What is missing, in a few words.
    #[must_use]
    pub fn missing(&self) -> &'static str {
        match self {
            Self::NoRoom(_) => "room to write",
            Self::OldWrite(_) => "a write that is taken",
            Self::OldRound(_) => "a look at the alerts",
        }
    }

    /// The same in a sentence.
    #[must_use]
    pub fn said(&self) -> String {
        match self {
            Self::NoRoom(why) => format!("the database has no room to write: {why}"),
            Self::OldWrite(age) => {
                format!("the database has taken no write for {} s", age.as_secs())
            }
            Self::OldRound(age) => {
                format!("the alerts have not been looked at for {} s", age.as_secs())
            }
        }
    }
}

/// The pulse of a store, and of those beside it.
pub(super) struct Pulse(Mutex<State>);

struct State {
    wrote: Instant,
    round: Instant,
    round_limit: Duration,
    tried: Option<Instant>,
    no_room: Option<String>,
}

impl Pulse {
    /// Nothing is old yet.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State {
            wrote: now,
            round: now,
            round_limit: ROUND_LIMIT,
            tried: None,
            no_room: None,
        }))
    }

    /// A transaction was committed that wrote.
    pub(super) fn wrote(&self) {
        self.lock().wrote = Instant::now();
    }

    /// Looks whether an error says that there is no room.
    pub(super) fn failed(&self, error: &postgres::Error) {
        let no_room = error
            .code()
            .is_some_and(|code| [SqlState::DISK_FULL, SqlState::IO_ERROR].contains(code));
        if !no_room {
            return;
        }
        let why = describe(error);
        let before = self.lock().no_room.replace(why.clone());
        if before.is_none() {
            log::error!("the database has no room to write: {why}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&self, now: Instant) -> Option<Fault> {
        if let Some(why) = &self.no_room {
            return Some(Fault::NoRoom(why.clone()));
        }
        let write = now.saturating_duration_since(self.wrote);
        let round = now.saturating_duration_since(self.round);
        if write > WRITE_LIMIT.max(self.round_limit) {
            Some(Fault::OldWrite(write))
        } else if round > self.round_limit {
            Some(Fault::OldRound(round))
        } else {
            None
        }
    }
}

impl Store {
    /// What keeps the database from being of use, although it answers.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.pulse.lock().fault(Instant::now())
    }

    /// Says how often the alerts are looked at.
    pub fn expect_rounds(&self, every: Duration) {
        self.pulse.lock().round_limit = ROUND_LIMIT.max(every.saturating_mul(ROUNDS));
    }

    /// Notes that the alerts were looked at, here or by another backend.
    pub fn note_round(&self) {
        self.pulse.lock().round = Instant::now();
    }

    /// Tries from time to time whether a write is taken: one that needs new room
    /// on the disk, as reports do, and leaves nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn try_to_write(&self) -> Result<(), StoreError> {
        let rows = {
            let mut state = self.pulse.lock();
            let is_full = state.no_room.is_some();
            let now = Instant::now();
            if !is_full && state.tried.is_some_and(|at| now < at + TRY_EVERY) {
                return Ok(());
            }
            state.tried = Some(now);
            if is_full { ROWS_AGAIN } else { ROWS }
        };
        self.transact(Twice::Ask, |transaction| {
            transaction.batch_execute(&format!(
                "CREATE TEMPORARY TABLE av_room (n INTEGER) ON COMMIT DROP;
                 INSERT INTO av_room SELECT generate_series(1, {rows})"
            ))?;
            Ok(End::Commit(()))
        })
        .or_else(|error| match error {
            // A role that may make no temporary table: the rounds tell then.
            StoreError::Refused(why) if why.contains("42501") => {
                self.pulse.wrote();
                Ok(())
            }
            error => Err(error),
        })?;
        if self.pulse.lock().no_room.take().is_some() {
            log::info!("the database has room to write again");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_a_fault() {
        let pulse = Pulse::new();
        let state = || pulse.lock();
        let now = state().wrote;
        assert_eq!(state().fault(now + ROUND_LIMIT), None);
        let later = now + ROUND_LIMIT + Duration::from_secs(1);
        let age = later - now;
        assert_eq!(state().fault(later), Some(Fault::OldRound(age)));
        state().round = later;
        assert_eq!(state().fault(later), None);
        let later = now + WRITE_LIMIT + Duration::from_secs(1);
        let age = later - now;
        assert_eq!(state().fault(later), Some(Fault::OldWrite(age)));
        state().no_room = Some("No space left on device".to_owned());
        let fault = state().fault(now).unwrap();
        assert_eq!(fault.missing(), "room to write");
        assert!(fault.said().contains("No space left"));
    }
}
