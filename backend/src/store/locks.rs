//! The advisory locks of PostgreSQL: every number that this program and its
//! schema use.
//!
//! A job that comes again by itself only tries its lock, and leaves the work to
//! the backend that has it. Where requests queued for the same number, a few of
//! them would keep every such job out: so a lock is either tried or queued for,
//! never both.

use postgres::{GenericClient, Transaction};

/// A lock of its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Lock {
    /// The schema changes; the migrations take it too.
    Schema = 7_209_411_230_417_735,
    /// Partitions of the history are made or dropped; taken by the schema's
    /// functions.
    #[cfg_attr(not(test), expect(dead_code, reason = "taken in SQL alone"))]
    Partitions = 7_209_411_230_417_736,
    /// Silent agents and ended maintenance are looked at.
    AlertRound = 7_209_411_230_417_737,
    /// Events become messages.
    Messages = 7_209_411_230_417_738,
    /// A day's availability is computed.
    Days = 7_209_411_230_417_739,
    /// It is decided about users.
    Users = 7_209_411_230_417_740,
    /// Another system's data is taken over.
    TakeOver = 7_209_411_230_417_741,
}

/// Locks of one thing each, which PostgreSQL keeps apart from those of
/// [`Lock`]: a class and the hash of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum LockOf {
    /// The tries of one sender.
    Sender = 1,
    /// The tries of one user's password.
    Password = 2,
}

impl Lock {
    /// Every one.
    #[cfg(test)]
    const ALL: [Self; 7] = [
        Self::Schema,
        Self::Partitions,
        Self::AlertRound,
        Self::Messages,
        Self::Days,
        Self::Users,
        Self::TakeOver,
    ];

    /// Whether it is tried, and not queued for.
    fn is_tried(self) -> bool {
        match self {
            Self::AlertRound | Self::Messages | Self::Days | Self::TakeOver => true,
            Self::Schema | Self::Partitions | Self::Users => false,
        }
    }

    /// Waits for it; it is held until the transaction ends.
    pub(super) fn wait(self, transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
        debug_assert!(!self.is_tried(), "{self:?} is tried elsewhere");
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&(self as i64)])?;
        Ok(())
    }

    /// Waits for it; it is held until the connection ends.
    pub(super) fn hold(self, client: &mut impl GenericClient) -> Result<(), postgres::Error> {
        debug_assert!(!self.is_tried(), "{self:?} is tried elsewhere");
        client.execute("SELECT pg_advisory_lock($1)", &[&(self as i64)])?;
        Ok(())
    }

    /// Takes it until the transaction ends, unless somebody else has it;
    /// answers whether it did.
    pub(super) fn take(self, transaction: &mut Transaction<'_>) -> Result<bool, postgres::Error> {
        debug_assert!(self.is_tried(), "{self:?} is queued for elsewhere");
        Ok(transaction
            .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&(self as i64)])?
            .get(0))
    }
}

impl LockOf {
    /// Waits for the one of this name; it is held until the transaction ends.
    /// Who takes several takes them in the order of their classes.
    pub(super) fn wait(
        self,
        transaction: &mut Transaction<'_>,
        name: &str,
    ) -> Result<(), postgres::Error> {
        transaction.execute(
            "SELECT pg_advisory_xact_lock($1, hashtext($2))",
            &[&(self as i32), &name],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn files(folder: &Path, extension: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, extension, found);
            } else if path.extension().is_some_and(|own| own == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.display().to_string(), text));
            }
        }
    }

    #[test]
    fn every_number_is_here_and_has_one_meaning() {
        let numbers: BTreeSet<i64> = Lock::ALL.iter().map(|lock| *lock as i64).collect();
        assert_eq!(numbers.len(), Lock::ALL.len());
        assert_ne!(LockOf::Sender as i32, LockOf::Password as i32);

        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        files(&root.join("src"), "rs", &mut sources);
        let elsewhere: Vec<&String> = sources
            .iter()
            .filter(|(path, _)| !path.ends_with("locks.rs"))
            .filter(|(_, text)| text.contains("pg_advisory") || text.contains("pg_try_advisory"))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(elsewhere, Vec::<&String>::new());

        // The migrations wait for these two, and for no other.
        let mut taken = BTreeSet::new();
        let mut migrations = Vec::new();
        files(&root.join("../migrations"), "sql", &mut migrations);
        for (path, text) in &migrations {
            assert!(!text.contains("pg_try_advisory"), "{path}");
            for (_, after) in text
                .match_indices("pg_advisory_")
                .filter_map(|(at, _)| text[at..].split_once('('))
            {
                let number = after.split_once(')').unwrap().0;
                taken.insert(
                    number
                        .parse::<i64>()
                        .unwrap_or_else(|_| panic!("{path}: {number}")),
                );
            }
        }
        let known = [Lock::Schema as i64, Lock::Partitions as i64];
        assert_eq!(taken, BTreeSet::from(known));
    }
}
