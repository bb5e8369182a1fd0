//! Who changes something, told to the database, whose triggers write it down.

use postgres::Transaction;

use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// Who did it, from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user's name.
    pub name: String,
    /// How: `web`, `api`, `import` or `rollback`.
    pub origin: &'static str,
    /// The address from which it came.
    pub ip: String,
}

impl Actor {
    /// Tells this transaction who acts in it: `av.actor`, `av.origin` and
    /// `av.ip`, which are gone when it ends. Where they are not set, somebody
    /// edits by hand: the author is the database role.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn introduce(&self, transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
        transaction.execute(
            "SELECT set_config('av.actor', $1, true), set_config('av.origin', $2, true),
                    set_config('av.ip', $3, true)",
            &[&self.name, &self.origin, &self.ip],
        )?;
        Ok(())
    }
}

impl Store {
    /// Runs `work` in one transaction in which the database knows who acts.
    /// It is committed where `work` answers `Ok(Ok(_))` and undone otherwise.
    /// `work` may run more than once, each time in a fresh transaction.
    ///
    /// # Errors
    /// [`StoreError`]; what `work` refused stands in the inner result.
    pub fn act<T, E>(
        &self,
        actor: &Actor,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<Result<T, E>, postgres::Error>,
    ) -> Result<Result<T, E>, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            actor.introduce(transaction)?;
            let done = work(transaction)?;
            Ok(match done {
                Ok(_) => End::Commit(done),
                Err(_) => End::Undo(done),
            })
        })
    }
}
