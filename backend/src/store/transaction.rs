//! Transactions that are done once, also where the answer to a commit is lost.
//!
//! When a connection breaks before `COMMIT` was sent, the transaction is undone
//! and may be run again. When it breaks afterwards nobody knows: the commit may
//! have been made and only its answer lost. To run it again could do it twice,
//! and would refuse an edit for the change that it made itself. So the database
//! is asked, by the transaction's number, on another connection.

use std::thread::sleep;
use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, Transaction};

use super::error::is_connection_loss;
use super::pulse::Pulse;
use super::statements::Statements;
use super::{Store, StoreError};

/// How long the database is asked what became of a transaction.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Between two such questions.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How a transaction ends.
pub(super) enum End<T> {
    /// It is committed.
    Commit(T),
    /// It is undone; the value says why, or it changed nothing.
    Undo(T),
}

/// What is to happen where the answer to a commit is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twice {
    /// The transaction is run again: the second time it finds by itself that
    /// it was done.
    Harmless,
    /// The database is asked whether it was done.
    Ask,
}

/// Why work on a connection did not succeed.
pub(super) enum Failure<T> {
    /// The database said so, or the connection broke before a commit.
    Database(postgres::Error),
    /// The connection broke after a commit was sent.
    CommitUnanswered {
        /// The transaction's number.
        id: i64,
        /// What the work answers if it was committed.
        value: T,
        /// How the connection broke.
        error: postgres::Error,
    },
}

impl<T> From<postgres::Error> for Failure<T> {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// What became of a transaction.
pub(super) enum Fate {
    Committed,
    Undone,
    /// Nobody can say, for a person.
    Unknown(String),
}

impl Store {
    /// Runs `work` in a transaction, which is done once or not at all.
    /// `work` may run more than once, each time in a transaction of its own,
    /// of which all but the last are undone.
    ///
    /// # Errors
    /// [`StoreError`]. Only where the database is gone after a commit was sent,
    /// and does not come back soon, it is not known whether that was done: the
    /// error says so.
    pub(super) fn transact<T>(
        &self,
        twice: Twice,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<End<T>, postgres::Error>,
    ) -> Result<T, StoreError> {
        self.transact_prepared(twice, |transaction, _| work(transaction))
    }

    /// The same with what the connection has prepared.
    ///
    /// # Errors
    /// Those of [`Store::transact`].
    pub(super) fn transact_prepared<T>(
        &self,
        twice: Twice,
        mut work: impl FnMut(&mut Transaction<'_>, &mut Statements) -> Result<End<T>, postgres::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|client, statements| {
            once(client, twice, &self.pulse, &mut |transaction| {
                work(transaction, statements)
            })
        })
    }

    /// Asks on another connection what became of a transaction. `timeline` is
    /// that of its own connection: after a promotion its number may be that of
    /// another transaction.
    pub(super) fn fate(&self, id: i64, timeline: u32) -> Fate {
        let deadline = Instant::now() + ASK_LIMIT;
        let mut fresh = true;
        loop {
            let why = match self.ask(id, timeline, fresh) {
                Ok(Some(fate)) => return fate,
                Ok(None) => "it is still at it".to_owned(),
                Err(error) => error.to_string(),
            };
            fresh = false;
            if Instant::now() > deadline {
                return unknown(&why);
            }
            sleep(ASK_EVERY);
        }
    }

    fn ask(&self, id: i64, timeline: u32, fresh: bool) -> Result<Option<Fate>, StoreError> {
        let mut connection = self.pool.take(fresh)?;
        if connection.timeline() != timeline {
            return Ok(Some(unknown("another server was promoted")));
        }
        let Some(client) = connection.client() else {
            return Err(StoreError::Unavailable("the connection is gone".to_owned()));
        };
        // The message is nobody's; it makes this a transaction that writes, so
        // that with synchronous replication the answer waits, as the lost one
        // did, until the standby has all that was committed before.
        let asked = client.query_typed_one(
            "SELECT txid_status($1), pg_logical_emit_message(true, 'av-backend', '')",
            &[(&id, Type::INT8)],
        );
        let row = match asked {
            Ok(row) => row,
            Err(error) if is_connection_loss(&error) => {
                connection.discard();
                return Err(error.into());
            }
            // A number that is to come yet, or was forgotten: not that database.
            Err(error) => return Ok(Some(unknown(&StoreError::from(error).to_string()))),
        };
        Ok(match row.get::<_, Option<&str>>(0) {
            Some("committed") => Some(Fate::Committed),
            Some("aborted") => Some(Fate::Undone),
            Some(_) => None,
            None => Some(unknown("it has forgotten")),
        })
    }
}

fn unknown(why: &str) -> Fate {
    Fate::Unknown(format!(
        "it is not known whether the change was made, look before trying again: {why}"
    ))
}

fn once<T>(
    client: &mut Client,
    twice: Twice,
    pulse: &Pulse,
    work: &mut impl FnMut(&mut Transaction<'_>) -> Result<End<T>, postgres::Error>,
) -> Result<T, Failure<T>> {
    let mut transaction = client.transaction()?;
    let value = match work(&mut transaction)? {
        End::Commit(value) => value,
        End::Undo(value) => return Ok(value),
    };
    let id: Option<i64> = match twice {
        Twice::Harmless => None,
        // None, where it wrote nothing.
        Twice::Ask => transaction
            .query_typed_one("SELECT txid_current_if_assigned()", &[])?
            .get(0),
    };
    match (transaction.commit(), id) {
        (Ok(()), id) => {
            if id.is_some() {
                pulse.wrote();
            }
            Ok(value)
        }
        (Err(error), Some(id)) if is_connection_loss(&error) => {
            Err(Failure::CommitUnanswered { id, value, error })
        }
        (Err(error), _) => Err(Failure::Database(error)),
    }
}
