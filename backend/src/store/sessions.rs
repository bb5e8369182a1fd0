//! Who gets in: sessions, personal API tokens and set-up links. Only digests of
//! what opens a door are kept.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::Transaction;
use postgres::types::Type;
use serde::Serialize;
use serde_json::json;

use super::actor::Actor;
use super::attempts;
use super::audit::{Deed, record};
use super::locks::Lock;
use super::sites::TokenDigest;
use super::time::{from_sql, to_sql};
use super::transaction::{End, Twice};
use super::users::{Role, User, insert_user};
use super::{Store, StoreError};

/// A session ends when it is not used for so long.
const IDLE: &str = "12 hours";
/// A session ends after so long, whatever happens.
const LIFE: &str = "7 days";

/// A user who showed a valid cookie or token.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user's id.
    pub user_id: i64,
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// A personal API token, without the token.
#[derive(Debug, Serialize)]
pub struct ApiToken {
    /// Its id.
    pub id: i64,
    /// What its owner calls it.
    pub name: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Until when; `None` until it is revoked.
    pub expires_at: Option<Timestamp>,
}

/// Lets one transaction at a time decide about users.
pub(super) fn hold_users(transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
    Lock::Users.wait(transaction)
}

impl Store {
    /// The user of a session, which is noted as used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn session_user(&self, cookie: &TokenDigest) -> Result<Option<Identity>, StoreError> {
        self.identity(
            &format!(
                "WITH found AS (
                     SELECT u.id, u.name, u.role
                       FROM sessions s JOIN users u ON u.id = s.user_id
                      WHERE s.digest = $1 AND s.expires_at > now()
                        AND s.last_used_at > now() - interval '{IDLE}'),
                 used AS (
                     UPDATE sessions SET last_used_at = now()
                      WHERE digest = $1 AND last_used_at < now() - interval '1 minute'
                        AND EXISTS (SELECT FROM found))
                 SELECT id, name, role FROM found"
            ),
            cookie,
        )
    }

    /// The user of a personal API token, which is noted as used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token_user(&self, token: &TokenDigest) -> Result<Option<Identity>, StoreError> {
        self.identity(
            "WITH found AS (
                 SELECT u.id, u.name, u.role
                   FROM api_tokens t JOIN users u ON u.id = t.user_id
                  WHERE t.digest = $1 AND (t.expires_at IS NULL OR t.expires_at > now())),
             used AS (
                 UPDATE api_tokens SET last_used_at = now()
                  WHERE digest = $1 AND EXISTS (SELECT FROM found)
                    AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute'))
             SELECT id, name, role FROM found",
            token,
        )
    }

    fn identity(&self, query: &str, digest: &TokenDigest) -> Result<Option<Identity>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(query, &[(&digest.as_str(), Type::TEXT)])?;
            Ok(row.map(|row| Identity {
                user_id: row.get(0),
                name: row.get(1),
                role: Role::of_row(&row, 2),
            }))
        })
    }

    /// Starts a session, and forgets the failures of this user from this
    /// sender.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn start_session(
        &self,
        actor: &Actor,
        user_id: i64,
        login_name: &str,
        cookie: &TokenDigest,
    ) -> Result<(), StoreError> {
        self.transact(Twice::Ask, |transaction| {
            attempts::forget(transaction, login_name, &actor.ip)?;
            start_session(transaction, actor, user_id, cookie)?;
            Ok(End::Commit(()))
        })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn end_session(&self, cookie: &TokenDigest) -> Result<(), StoreError> {
        self.run(|client| {
            client.execute(
                "DELETE FROM sessions WHERE digest = $1",
                &[&cookie.as_str()],
            )?;
            Ok(())
        })
    }

    /// Keeps a set-up link where there is no user yet; answers whether it did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_setup_link(&self, code: &TokenDigest) -> Result<bool, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            let added = transaction.execute(
                "INSERT INTO setup_links (digest)
                 SELECT $1 WHERE NOT EXISTS (SELECT FROM users)",
                &[&code.as_str()],
            )?;
            Ok(End::Commit(added > 0))
        })
    }

    /// Whether a set-up link still works.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn setup_link_works(&self, code: &TokenDigest) -> Result<bool, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                "SELECT FROM setup_links WHERE digest = $1 AND NOT EXISTS (SELECT FROM users)",
                &[(&code.as_str(), Type::TEXT)],
            )?;
            Ok(row.is_some())
        })
    }

    /// Makes the first user, an administrator, and logs it in; `None` where
    /// the link does not work.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_up(
        &self,
        code: &TokenDigest,
        actor: &Actor,
        password_hash: &str,
        cookie: &TokenDigest,
    ) -> Result<Option<User>, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            hold_users(transaction)?;
            let works = transaction.query_opt(
                "SELECT FROM setup_links WHERE digest = $1 AND NOT EXISTS (SELECT FROM users)",
                &[&code.as_str()],
            )?;
            if works.is_none() {
                return Ok(End::Undo(None));
            }
            actor.introduce(transaction)?;
            let user = insert_user(transaction, actor, &actor.name, Role::Admin, password_hash)?;
            start_session(transaction, actor, user.id, cookie)?;
            Ok(End::Commit(Some(user)))
        })
    }

    /// The tokens of a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn api_tokens(&self, user_id: i64) -> Result<Vec<ApiToken>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT id, name, created_at, last_used_at, expires_at
                   FROM api_tokens WHERE user_id = $1 ORDER BY id",
                &[(&user_id, Type::INT8)],
            )?;
            Ok(rows
                .iter()
                .map(|row| ApiToken {
                    id: row.get(0),
                    name: row.get(1),
                    created_at: from_sql(row.get::<_, SystemTime>(2)),
                    last_used_at: row.get::<_, Option<SystemTime>>(3).map(from_sql),
                    expires_at: row.get::<_, Option<SystemTime>>(4).map(from_sql),
                })
                .collect())
        })
    }

    /// Adds a token to a user; answers its id.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the user has one of this name.
    pub fn add_api_token(
        &self,
        actor: &Actor,
        user_id: i64,
        name: &str,
        token: &TokenDigest,
        expires_at: Option<Timestamp>,
    ) -> Result<i64, StoreError> {
        let expires_at = expires_at.map(to_sql);
        self.transact(Twice::Ask, |transaction| {
            let id = transaction
                .query_one(
                    "INSERT INTO api_tokens (user_id, name, digest, expires_at)
                     VALUES ($1, $2, $3, $4) RETURNING id",
                    &[&user_id, &name, &token.as_str(), &expires_at],
                )?
                .get(0);
            record(
                transaction,
                actor,
                &Deed {
                    action: "token.add",
                    target: format!("token {id} ({name})"),
                    site_id: None,
                    detail: json!({}),
                },
            )?;
            Ok(End::Commit(id))
        })
    }

    /// Revokes a token of a user; answers whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_api_token(
        &self,
        actor: &Actor,
        user_id: i64,
        id: i64,
    ) -> Result<bool, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            let Some(row) = transaction.query_opt(
                "DELETE FROM api_tokens WHERE id = $1 AND user_id = $2 RETURNING name",
                &[&id, &user_id],
            )?
            else {
                return Ok(End::Undo(false));
            };
            record(
                transaction,
                actor,
                &Deed {
                    action: "token.revoke",
                    target: format!("token {id} ({})", row.get::<_, &str>(0)),
                    site_id: None,
                    detail: json!({}),
                },
            )?;
            Ok(End::Commit(true))
        })
    }

    /// Forgets sessions that have ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old_sessions(&self) -> Result<(), StoreError> {
        self.run(|client| {
            client.batch_execute(&format!(
                "DELETE FROM sessions WHERE expires_at < now()
                     OR last_used_at < now() - interval '{IDLE}'"
            ))
        })
    }
}

fn start_session(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    user_id: i64,
    cookie: &TokenDigest,
) -> Result<(), postgres::Error> {
    transaction.execute(
        &format!(
            "INSERT INTO sessions (digest, user_id, expires_at, ip)
             VALUES ($1, $2, now() + interval '{LIFE}', $3)"
        ),
        &[&cookie.as_str(), &user_id, &actor.ip],
    )?;
    transaction.execute(
        "UPDATE users SET last_login_at = now() WHERE id = $1",
        &[&user_id],
    )?;
    record(
        transaction,
        actor,
        &Deed {
            action: "login",
            target: String::new(),
            site_id: None,
            detail: json!({}),
        },
    )
}
