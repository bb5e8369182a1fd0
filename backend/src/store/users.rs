//! Users and their roles.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::types::Type;
use postgres::{Row, Transaction};
use serde::Serialize;
use serde_json::json;

use super::actor::Actor;
use super::audit::{Deed, record};
use super::sessions::hold_users;
use super::sites::TokenDigest;
use super::time::from_sql;
use super::{Store, StoreError};

/// What a user may do: each role may also do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything but secrets.
    Viewer,
    /// Change sites, devices and alerts, and see secrets.
    Editor,
    /// Manage users, and see what everybody did.
    Admin,
}

impl Role {
    /// Reads `viewer`, `editor` or `admin`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "editor" => Some(Self::Editor),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    /// The role as the database and the API spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

/// A user, without the password.
#[derive(Debug, Clone, Serialize)]
pub struct User {
    /// The id.
    pub id: i64,
    /// The name with which the user logs in.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Since when there is this user.
    pub created_at: Timestamp,
    /// The newest log-in.
    pub last_login_at: Option<Timestamp>,
}

/// Why a user was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRefusal {
    /// There is no such user.
    Unknown,
    /// Nobody could manage users any more.
    LastAdmin,
}

const COLUMNS: &str = "id, name, role, created_at, last_login_at";

fn user(row: &Row) -> User {
    User {
        id: row.get(0),
        name: row.get(1),
        role: Role::of_row(row, 2),
        created_at: from_sql(row.get::<_, SystemTime>(3)),
        last_login_at: row.get::<_, Option<SystemTime>>(4).map(from_sql),
    }
}

impl Role {
    /// The role in a column; the least where the word is not known.
    pub(super) fn of_row(row: &Row, column: usize) -> Self {
        Self::parse(row.get(column)).unwrap_or(Self::Viewer)
    }
}

impl Store {
    /// Every user, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!("SELECT {COLUMNS} FROM users ORDER BY lower(name)"),
                &[],
            )?;
            Ok(rows.iter().map(user).collect())
        })
    }

    /// One user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn user(&self, id: i64) -> Result<Option<User>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                &format!("SELECT {COLUMNS} FROM users WHERE id = $1"),
                &[(&id, Type::INT8)],
            )?;
            Ok(row.as_ref().map(user))
        })
    }

    /// The id and password hash of the user of this name, in any case.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn password_hash(&self, name: &str) -> Result<Option<(i64, String)>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                "SELECT id, password_hash FROM users WHERE lower(name) = lower($1)",
                &[(&name, Type::TEXT)],
            )?;
            Ok(row.map(|row| (row.get(0), row.get(1))))
        })
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where there is one of this name.
    pub fn add_user(
        &self,
        actor: &Actor,
        name: &str,
        role: Role,
        password_hash: &str,
    ) -> Result<User, StoreError> {
        let added: Result<User, UserRefusal> = self.act(actor, |transaction| {
            Ok(Ok(insert_user(
                transaction,
                actor,
                name,
                role,
                password_hash,
            )?))
        })?;
        added.map_err(|_| StoreError::Refused("a user was not added".to_owned()))
    }

    /// Changes a user's role or password. A new password ends the user's
    /// sessions, except the one with the cookie `keep`.
    ///
    /// # Errors
    /// [`StoreError`]; [`UserRefusal`] in the inner result.
    pub fn change_user(
        &self,
        actor: &Actor,
        id: i64,
        role: Option<Role>,
        password_hash: Option<&str>,
        keep: Option<&TokenDigest>,
    ) -> Result<Result<User, UserRefusal>, StoreError> {
        self.act(actor, |transaction| {
            hold_users(transaction)?;
            let Some(row) = transaction.query_opt(
                &format!("SELECT {COLUMNS} FROM users WHERE id = $1"),
                &[&id],
            )?
            else {
                return Ok(Err(UserRefusal::Unknown));
            };
            let before = user(&row);
            let new_role = role.unwrap_or(before.role);
            if new_role < Role::Admin && is_last_admin(transaction, id)? {
                return Ok(Err(UserRefusal::LastAdmin));
            }
            let row = transaction.query_one(
                &format!(
                    "UPDATE users SET role = $2, password_hash = coalesce($3, password_hash),
                                      updated_at = now()
                      WHERE id = $1 RETURNING {COLUMNS}"
                ),
                &[&id, &new_role.as_str(), &password_hash],
            )?;
            if password_hash.is_some() {
                transaction.execute(
                    "DELETE FROM sessions WHERE user_id = $1 AND digest IS DISTINCT FROM $2",
                    &[&id, &keep.map(TokenDigest::as_str)],
                )?;
            }
            let after = user(&row);
            record(
                transaction,
                actor,
                &Deed {
                    action: "user.update",
                    target: target(&after),
                    site_id: None,
                    detail: json!({
                        "role": [before.role, after.role],
                        "password_changed": password_hash.is_some(),
                    }),
                },
            )?;
            Ok(Ok(after))
        })
    }

    /// Removes a user, with sessions and tokens.
    ///
    /// # Errors
    /// [`StoreError`]; [`UserRefusal`] in the inner result.
    pub fn remove_user(
        &self,
        actor: &Actor,
        id: i64,
    ) -> Result<Result<(), UserRefusal>, StoreError> {
        self.act(actor, |transaction| {
            hold_users(transaction)?;
            if is_last_admin(transaction, id)? {
                return Ok(Err(UserRefusal::LastAdmin));
            }
            let Some(row) = transaction.query_opt(
                &format!("DELETE FROM users WHERE id = $1 RETURNING {COLUMNS}"),
                &[&id],
            )?
            else {
                return Ok(Err(UserRefusal::Unknown));
            };
            record(
                transaction,
                actor,
                &Deed {
                    action: "user.delete",
                    target: target(&user(&row)),
                    site_id: None,
                    detail: json!({}),
                },
            )?;
            Ok(Ok(()))
        })
    }
}

fn target(user: &User) -> String {
    format!("user {} ({})", user.id, user.name)
}

fn is_last_admin(transaction: &mut Transaction<'_>, id: i64) -> Result<bool, postgres::Error> {
    let row = transaction.query_one(
        "SELECT EXISTS (SELECT FROM users WHERE id = $1 AND role = 'admin')
            AND NOT EXISTS (SELECT FROM users WHERE id <> $1 AND role = 'admin')",
        &[&id],
    )?;
    Ok(row.get(0))
}

/// Adds a user in a transaction.
pub(super) fn insert_user(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<User, postgres::Error> {
    let row = transaction.query_one(
        &format!(
            "INSERT INTO users (name, role, password_hash) VALUES ($1, $2, $3) RETURNING {COLUMNS}"
        ),
        &[&name, &role.as_str(), &password_hash],
    )?;
    let added = user(&row);
    // Whatever set-up links there are, they have served.
    transaction.execute("DELETE FROM setup_links", &[])?;
    record(
        transaction,
        actor,
        &Deed {
            action: "user.add",
            target: target(&added),
            site_id: None,
            detail: json!({"role": role}),
        },
    )?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Editor && Role::Editor < Role::Admin);
        for role in [Role::Viewer, Role::Editor, Role::Admin] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("Admin"), None);
    }
}
