//! Everything that speaks SQL, and nothing else does.
//!
//! | module | what it holds |
//! |---|---|
//! | `condition` | what is missing before the database can be used |
//! | `connector` | how a connection is made, and to which of several hosts |
//! | `place` | a connection string, taken apart |
//! | `tls` | what TLS to PostgreSQL has to prove |
//! | `pool` | connections that are shared, and a database that is down |
//! | `pulse` | whether writes are taken and alerts looked at |
//! | `transaction` | transactions, and one whose commit had no answer |
//! | [`actor`] | who changes something |
//! | [`sessions`] | who gets in: sessions, API tokens, set-up links |
//! | [`users`] | users and their roles |
//! | [`attempts`] | tries that failed, counted by their sender |
//! | [`audit`] | what users did |
//! | [`backup`] | what a backup is held against |
//! | [`migrate`] | the schema brought up to date |
//! | [`sites`] | sites, tokens, their agents |
//! | [`config`] | a site's configuration in one snapshot |
//! | [`python`] | the Python system's database, read |
//! | [`reports`] | what agents report |
//! | [`devices`] | what is known of the devices |
//! | [`inventory`] | sites and devices as an administrator sees and changes them |
//! | `known` | the tokens that open something |
//! | [`transfer`] | many devices at once |
//! | [`alerts`] | alerts and maintenance windows |
//! | [`channels`] | channels, and the messages that wait for them |
//! | [`fold`] | text without case and accents |
//! | `foreign` | tables of another program in the schema's place |
//! | [`history`] | the history's months, and each device's days |
//! | [`pages`] | what the web interface shows |
//! | [`versions`] | the history of configurations, and the way back |
//! | [`suggestions`] | equipment that agents found |
//! | [`takeover`] | what another system had, written |
//! | [`tokens`] | site tokens and their renewal |
//! | [`enrolments`] | codes with which agents enrol |
//! | [`listen`] | notifications of changed configurations |
//! | `locks` | advisory locks: every number |

pub mod actor;
pub mod alerts;
pub mod attempts;
pub mod audit;
pub mod backup;
pub mod channels;
mod condition;
pub mod config;
mod connector;
pub mod devices;
pub mod enrolments;
mod error;
pub mod fold;
mod foreign;
pub mod history;
pub mod inventory;
mod known;
pub mod listen;
mod locks;
pub mod migrate;
pub mod pages;
mod place;
mod pool;
mod pulse;
pub mod python;
pub mod reports;
pub mod sessions;
pub mod sites;
mod statements;
pub mod suggestions;
pub mod takeover;
mod time;
mod tls;
pub mod tokens;
mod transaction;
pub mod transfer;
pub mod users;
pub mod versions;

use std::sync::Arc;

use postgres::types::ToSql;
use postgres::{Client, Row};

pub use condition::Condition;
pub use connector::{Connector, UrlError};
pub use error::StoreError;
pub use known::KnownTokens;
pub use pulse::Fault;

use error::{describe, is_conflict, is_connection_loss, schema_is_missing};
use pool::Pool;
use pulse::Pulse;
use statements::{Statements, is_stale};
use transaction::{Failure, Fate};

/// How often a transaction is tried that conflicts with others.
const CONFLICT_TRIES: u32 = 4;

/// The database.
pub struct Store {
    connector: Connector,
    pool: Pool,
    /// Whether the schema is there and up to date, and why not.
    condition: condition::Shared,
    /// Whether writes are taken.
    pulse: Arc<Pulse>,
}

impl Store {
    /// A store with at most `connections` pooled connections. Nothing is
    /// connected yet: a database that is down is found out later.
    #[must_use]
    pub fn new(connector: Connector, connections: usize) -> Self {
        Self {
            pool: Pool::new(connector.clone(), connections.max(1)),
            connector,
            condition: condition::Shared::new(),
            pulse: Arc::new(Pulse::new()),
        }
    }

    /// The same database over connections of its own. What looks at it
    /// unasked has these: it takes none from requests, and what it finds out
    /// of a database that is down refuses none.
    #[must_use]
    pub fn beside(&self, connections: usize) -> Self {
        Self {
            pool: self.pool.beside(connections.max(1)),
            connector: self.connector.clone(),
            condition: self.condition.clone(),
            pulse: self.pulse.clone(),
        }
    }

    /// Whether the schema is there, as far as is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition.is_ready()
    }

    /// What can be done with the database, as far as is known.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (self.condition.get(), self.pool.why_down()) {
            (Condition::Ready { .. }, Some(why)) => Condition::Unreachable(why),
            (known, _) => known,
        }
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Busy`].
    pub fn ping(&self) -> Result<(), StoreError> {
        self.run(|client| client.batch_execute("SELECT 1"))
    }

    /// Runs `work` on a pooled connection. It is run again on a fresh one
    /// where the first turns out to be dead, and again where it conflicts
    /// with another transaction: it must be one statement that is harmless
    /// twice. Anything else is a [`Store::transact`].
    fn run<T>(
        &self,
        mut work: impl FnMut(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|client, _| work(client).map_err(Failure::Database))
    }

    /// The row that a statement answers, if any; the statement stays prepared,
    /// and must be harmless twice.
    fn row(
        &self,
        text: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        self.attempt(|client, statements| {
            let statement = statements.get(client, text)?;
            Ok(client.query_opt(&statement, values)?)
        })
    }

    fn attempt<T>(
        &self,
        mut work: impl FnMut(&mut Client, &mut Statements) -> Result<T, Failure<T>>,
    ) -> Result<T, StoreError> {
        if !self.is_ready() {
            // It may have become ready between the two looks.
            if let Some(refusal) = self.condition.get().refusal() {
                return Err(refusal);
            }
        }
        let mut fresh = false;
        let mut asked = false;
        let mut conflicts = 0;
        loop {
            let mut connection = self.pool.take(fresh)?;
            let reused = connection.reused;
            let timeline = connection.timeline();
            let Some((client, statements)) = connection.parts() else {
                return Err(StoreError::Unavailable("the connection is gone".to_owned()));
            };
            let error = match work(client, statements) {
                Ok(value) => return Ok(value),
                Err(Failure::Database(error)) => error,
                Err(Failure::CommitUnanswered { id, value, error }) => {
                    connection.discard();
                    log::warn!("a commit had no answer: {}", describe(&error));
                    match self.fate(id, timeline) {
                        Fate::Committed => return Ok(value),
                        Fate::Undone if !asked => {
                            asked = true;
                            continue;
                        }
                        Fate::Undone => return Err(error.into()),
                        Fate::Unknown(why) => return Err(StoreError::Unavailable(why)),
                    }
                }
            };
            self.pulse.failed(&error);
            if is_connection_loss(&error) {
                connection.discard();
                if reused && !fresh {
                    fresh = true;
                    continue;
                }
                let error = StoreError::from(error);
                self.pool.mark_down(error.to_string());
                return Err(error);
            }
            if is_stale(&error) && reused && !fresh {
                connection.discard();
                fresh = true;
                continue;
            }
            if is_conflict(&error) {
                conflicts += 1;
                if conflicts < CONFLICT_TRIES {
                    continue;
                }
            }
            if schema_is_missing(&error) {
                self.condition.migrates(None);
            }
            return Err(error.into());
        }
    }
}
