//! What can go wrong between the backend and its database, by what a caller
//! can do about it.

use std::error::Error as _;

use av_proto::text::excerpt;
use postgres::error::SqlState;

use crate::causes::with_causes;

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or not ready: the same request may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// It is there, but every connection is in use, or a lock was held too
    /// long: the same request may succeed soon.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// It cannot hold a value that it was given.
    #[error("PostgreSQL cannot store a value: {0}")]
    BadValue(String),
    /// A unique value is taken already.
    #[error("{0} is taken already")]
    Taken(String),
    /// Another program keeps its tables where the schema would be. Nothing of
    /// it was touched.
    #[error(
        "the database has tables that another program made ({names}{}): use an empty database{}",
        if *is_python { "; it looks like the Python backend" } else { "" },
        if *is_python { ", into which av-backend import-python takes its data over" } else { "" }
    )]
    Foreign {
        /// Which, for a person.
        names: String,
        /// They are those of the Python system.
        is_python: bool,
    },
    /// Some of what the migrations made was dropped.
    #[error(
        "the schema is incomplete: {0} is gone, although the migration that made it was applied; \
         put a backup back"
    )]
    Incomplete(String),
    /// Anything else: a fault of this program or of the schema.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl From<postgres::Error> for StoreError {
    fn from(error: postgres::Error) -> Self {
        let said = describe(&error);
        let Some(code) = error.code() else {
            return Self::Unavailable(said);
        };
        match code.code().get(..2) {
            _ if is_connection_loss(&error) => Self::Unavailable(said),
            _ if schema_is_missing(&error) => Self::Unavailable(said),
            // Data exception; program limit exceeded (nesting too deep).
            Some("22" | "54") => Self::BadValue(said),
            // Lock not available, cancelled by a time-out, deadlock, serialization.
            Some("55" | "40") => Self::Busy(said),
            Some("53") => Self::Busy(said),
            _ if *code == SqlState::QUERY_CANCELED => Self::Busy(said),
            _ if *code == SqlState::UNIQUE_VIOLATION => Self::Taken(
                error
                    .as_db_error()
                    .and_then(|db| db.constraint())
                    .unwrap_or("a unique value")
                    .to_owned(),
            ),
            _ => Self::Refused(said),
        }
    }
}

/// The error on one line: the server's message and SQLSTATE, or the causes
/// one after the other. It never holds values or passwords: PostgreSQL puts
/// those into `DETAIL`, which stays out.
pub(super) fn describe(error: &postgres::Error) -> String {
    let text = match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => with_causes(error),
    };
    excerpt(&text, 300)
}

/// Whether the connection is of no more use, whatever is asked next.
pub(super) fn is_connection_loss(error: &postgres::Error) -> bool {
    match error.code() {
        // Connection exception, shutdowns, and a server that became read-only:
        // the new primary is elsewhere.
        Some(code) => {
            code.code().starts_with("08")
                || [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                ]
                .contains(code)
        }
        None => {
            let mut source = error.source();
            while let Some(cause) = source {
                if cause.is::<std::io::Error>() {
                    return true;
                }
                source = cause.source();
            }
            error.is_closed()
        }
    }
}

/// Whether the same transaction may succeed when it is tried again at once.
pub(super) fn is_conflict(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
        ]
        .contains(code)
    })
}

/// Whether a table or column of ours is not there: the database was made
/// anew, and the migrations have to run again.
pub(super) fn schema_is_missing(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
        ]
        .contains(code)
    })
}
