//! Tries that failed: log-ins, codes of enrolments, tokens. One way to count
//! them, over all backends: by the sender, which is an IPv4 address or the /64
//! of an IPv6 one (the schema's `av_sender`).
//!
//! A try that is refused costs a look and no more: no lock and no write. One
//! that may be made takes the lock of its sender, and of no other.

use postgres::types::ToSql;
use postgres::{GenericClient, Transaction};

use super::locks::LockOf;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// How long failed log-ins and wrong codes count, as PostgreSQL's interval.
const WINDOW: &str = "15 minutes";
/// Failed log-ins within the window of one user from one sender.
const PAIR_MAX: i64 = 5;
/// Of anybody from one sender.
const LOGINS_MAX: i64 = 30;
/// Of one user from anywhere. High, because it also locks the user out.
const USER_MAX: i64 = 60;
/// Wrong codes from one sender within the window.
const CODES_MAX: i64 = 10;
/// Wrong codes from anywhere within the window. Of 30^10 codes a guess then
/// hits one of a thousand that are open once in 60 million years.
const ALL_CODES_MAX: i64 = 200;
/// How long wrong tokens count, as PostgreSQL's interval.
const TOKEN_WINDOW: &str = "10 minutes";
/// Wrong tokens from one sender within their window: more than a few racks with
/// an old token send, and 8,640 guesses a day.
const TOKENS_MAX: i64 = 60;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try<'a> {
    /// The password of this user, in lower case.
    Password(&'a str),
    /// A code with which an agent enrols.
    Code,
    /// The token of a site or a user.
    Token,
}

/// Whether something may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It may.
    Allowed,
    /// Not before this number of seconds is over.
    Blocked(i64),
}

impl Try<'_> {
    fn table(self) -> &'static str {
        match self {
            Self::Password(_) => "login_attempts",
            Self::Code => "enrolment_attempts",
            Self::Token => "token_attempts",
        }
    }

    fn window(self) -> &'static str {
        match self {
            Self::Password(_) | Self::Code => WINDOW,
            Self::Token => TOKEN_WINDOW,
        }
    }

    /// Looks whether there are too many already.
    fn look(self, client: &mut impl GenericClient, ip: &str) -> Result<Attempt, postgres::Error> {
        let (limit, of, user) = match self {
            Self::Password(user) => (
                format!(
                    "count(*) FILTER (WHERE a.user_name = $2 AND a.sender = s) >= {PAIR_MAX}
                     OR count(*) FILTER (WHERE a.sender = s) >= {LOGINS_MAX}
                     OR count(*) FILTER (WHERE a.user_name = $2) >= {USER_MAX}"
                ),
                "(a.sender = s OR a.user_name = $2)",
                Some(user),
            ),
            Self::Code => (
                format!(
                    "count(*) FILTER (WHERE a.sender = s) >= {CODES_MAX}
                     OR count(*) >= {ALL_CODES_MAX}"
                ),
                "true",
                None,
            ),
            Self::Token => (format!("count(*) >= {TOKENS_MAX}"), "a.sender = s", None),
        };
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&ip];
        values.extend(user.as_ref().map(|user| user as &(dyn ToSql + Sync)));
        let (table, window) = (self.table(), self.window());
        let row = client.query_one(
            &format!(
                "SELECT {limit},
                        coalesce(ceil(extract(epoch FROM
                            min(a.at) + interval '{window}' - now())), 0)::bigint
                   FROM {table} a, av_sender($1) s
                  WHERE {of} AND a.at > now() - interval '{window}'"
            ),
            &values,
        )?;
        Ok(match row.get(0) {
            true => Attempt::Blocked(row.get::<_, i64>(1).max(1)),
            false => Attempt::Allowed,
        })
    }

    /// Notes one more, which counts as failed until it is forgotten.
    fn note(self, transaction: &mut Transaction<'_>, ip: &str) -> Result<(), postgres::Error> {
        match self {
            Self::Password(user) => transaction.execute(
                "INSERT INTO login_attempts (user_name, ip) VALUES ($1, $2)",
                &[&user, &ip],
            )?,
            Self::Code | Self::Token => transaction.execute(
                &format!("INSERT INTO {} (ip) VALUES ($1)", self.table()),
                &[&ip],
            )?,
        };
        Ok(())
    }
}

impl Store {
    /// Looks whether something may be tried from an address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn may_try(&self, what: Try<'_>, ip: &str) -> Result<Attempt, StoreError> {
        self.run(|client| what.look(client, ip))
    }

    /// Notes that something is tried from an address, unless too many tries
    /// failed: then it is a look alone, with no lock and no write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin_try(&self, what: Try<'_>, ip: &str) -> Result<Attempt, StoreError> {
        let attempt = self.may_try(what, ip)?;
        if attempt != Attempt::Allowed {
            return Ok(attempt);
        }
        self.transact(Twice::Ask, |transaction| {
            // One after the other, or a burst would count as one.
            let sender: String = transaction
                .query_one("SELECT av_sender($1)", &[&ip])?
                .get(0);
            LockOf::Sender.wait(transaction, &sender)?;
            if let Try::Password(user) = what {
                LockOf::Password.wait(transaction, user)?;
            }
            let attempt = what.look(transaction, ip)?;
            if attempt != Attempt::Allowed {
                return Ok(End::Undo(attempt));
            }
            what.note(transaction, ip)?;
            Ok(End::Commit(attempt))
        })
    }

    /// Forgets the failed log-ins of this user from the sender of this address.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_attempts(&self, user_name: &str, ip: &str) -> Result<(), StoreError> {
        self.run(|client| forget(client, user_name, ip))
    }

    /// Forgets what counts no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old_attempts(&self) -> Result<(), StoreError> {
        self.run(|client| {
            for what in [Try::Password(""), Try::Code, Try::Token] {
                client.batch_execute(&format!(
                    "DELETE FROM {} WHERE at < now() - interval '{}'",
                    what.table(),
                    what.window()
                ))?;
            }
            Ok(())
        })
    }
}

/// Forgets the failed log-ins of a user from the sender of an address.
pub(super) fn forget(
    client: &mut impl GenericClient,
    user_name: &str,
    ip: &str,
) -> Result<(), postgres::Error> {
    client.execute(
        "DELETE FROM login_attempts WHERE user_name = $1 AND sender = av_sender($2)",
        &[&user_name, &ip],
    )?;
    Ok(())
}

/// Forgets the newest code of the sender of an address: it was right.
pub(super) fn forget_code(
    transaction: &mut Transaction<'_>,
    ip: &str,
) -> Result<(), postgres::Error> {
    transaction.execute(
        "DELETE FROM enrolment_attempts
          WHERE id = (SELECT max(id) FROM enrolment_attempts WHERE sender = av_sender($1))",
        &[&ip],
    )?;
    Ok(())
}
