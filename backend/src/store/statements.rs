//! Statements that a connection keeps prepared.
//!
//! To read and plan the statements of a report takes PostgreSQL about a third
//! of the time that it has for the report, and each takes a round trip of its
//! own.

use std::collections::HashMap;

use postgres::error::SqlState;
use postgres::{GenericClient, Statement};

/// What a connection has prepared, by its text.
#[derive(Default)]
pub(super) struct Statements(HashMap<&'static str, Statement>);

impl Statements {
    /// The statement of this text, prepared at its first use.
    ///
    /// # Errors
    /// What PostgreSQL says of it.
    pub(super) fn get(
        &mut self,
        client: &mut impl GenericClient,
        text: &'static str,
    ) -> Result<Statement, postgres::Error> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let prepared = client.prepare(text)?;
        self.0.insert(text, prepared.clone());
        Ok(prepared)
    }
}

/// Whether a statement that was prepared does not stand any more: a migration
/// changed what it answers, or somebody between here and PostgreSQL let go of
/// it.
pub(super) fn is_stale(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::FEATURE_NOT_SUPPORTED || *code == SqlState::INVALID_SQL_STATEMENT_NAME
    })
}
