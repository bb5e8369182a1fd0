//! Site tokens: what opens a site, and how a token is renewed without an
//! agent that is ever cut off.
//!
//! `sites.token` is the one that an administrator was shown last. Beside it
//! `site_tokens` has those that were renewed, until their grace is over, and
//! those that agents fetched for themselves. An agent that comes with a
//! renewed token is asked to fetch a new one. The renewed one ends when that
//! new one is first used: until then the agent may have lost it again.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use postgres::types::Type;
use serde_json::json;

use super::actor::Actor;
use super::audit::{Deed, record};
use super::sites::TokenDigest;
use super::time::from_sql;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// How many tokens an agent may fetch with one token without using any: more
/// than answers are lost on the way, and too few to fill a table.
const FETCHED_MAX: i64 = 8;

/// How a token that opens a site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It is to be used.
    Current,
    /// It was renewed and ends with its grace.
    Renewed,
    /// An agent fetched it and comes with it for the first time.
    Fetched,
}

impl TokenState {
    /// The joins that [`TokenState::SQL`] needs, for the token $1.
    pub(super) const JOIN: &str = "LEFT JOIN site_tokens t ON t.digest = $1 AND s.token <> $1";
    /// The column.
    pub(super) const SQL: &str = "CASE WHEN t.renewed THEN 'renewed'
             WHEN t.parent IS NOT NULL AND t.used_at IS NULL THEN 'fetched'
             ELSE 'current' END";

    pub(super) fn from_sql(text: &str) -> Self {
        match text {
            "renewed" => Self::Renewed,
            "fetched" => Self::Fetched,
            _ => Self::Current,
        }
    }
}

/// What became of an agent's wish for a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetch {
    /// The token with which it asks opens nothing.
    Unknown,
    /// Nobody asked it to renew that token.
    NotAsked,
    /// It has a new one.
    Fetched {
        /// The site.
        site: String,
        /// Until when the old one lives, where the new one is not used.
        old_until: Timestamp,
    },
}

/// The tokens of a site as an administrator sees them: never the tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenReport {
    /// Until when a renewed token still opens the site.
    pub old_until: Option<Timestamp>,
    /// When an agent last took a new token into use by itself.
    pub taken_over_at: Option<Timestamp>,
}

impl Store {
    /// Gives a site another token; the ones so far live on for `grace`.
    /// Answers until when, or `None` where there is no such site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn renew_site_token(
        &self,
        actor: &Actor,
        site_id: i64,
        token: &TokenDigest,
        grace: SignedDuration,
    ) -> Result<Option<Timestamp>, StoreError> {
        let grace_s = grace.as_secs();
        let done = self.act(actor, |transaction| {
            let site = transaction.query_opt(
                "SELECT name, now() + make_interval(secs => $2::bigint::double precision)
                   FROM sites WHERE id = $1 FOR NO KEY UPDATE",
                &[&site_id, &grace_s],
            )?;
            let Some(site) = site else {
                return Ok(Err(()));
            };
            transaction.execute(
                "SELECT av_renew_token($1, $2, make_interval(secs => $3::bigint::double precision))",
                &[&site_id, &token.as_str(), &grace_s],
            )?;
            let name: String = site.get(0);
            record(
                transaction,
                actor,
                &Deed {
                    action: "site.token.renew",
                    target: format!("site {site_id} ({name})"),
                    site_id: Some(site_id),
                    detail: json!({"grace_s": grace_s}),
                },
            )?;
            Ok(Ok(from_sql(site.get(1))))
        })?;
        Ok(done.ok())
    }

    /// An agent that comes with a renewed token fetches a new one: from now
    /// on both open the site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fetch_site_token(
        &self,
        presented: &TokenDigest,
        new: &TokenDigest,
    ) -> Result<Fetch, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            let row = transaction.query_opt(
                "SELECT s.name, t.valid_until
                   FROM site_tokens t JOIN sites s ON s.id = t.site_id
                  WHERE t.digest = $1 AND t.renewed AND t.valid_until > now()
                    FOR UPDATE OF t",
                &[&presented.as_str()],
            )?;
            let Some(row) = row else {
                let known: bool = transaction
                    .query_one(
                        "SELECT av_site_of_token($1) IS NOT NULL",
                        &[&presented.as_str()],
                    )?
                    .get(0);
                return Ok(End::Undo(if known {
                    Fetch::NotAsked
                } else {
                    Fetch::Unknown
                }));
            };
            transaction.execute(
                "DELETE FROM site_tokens
                  WHERE digest IN (SELECT digest FROM site_tokens
                                    WHERE parent = $1 AND used_at IS NULL
                                    ORDER BY created_at DESC, digest OFFSET $2)",
                &[&presented.as_str(), &(FETCHED_MAX - 1)],
            )?;
            transaction.execute(
                "INSERT INTO site_tokens (digest, site_id, valid_until, parent)
                 SELECT $2, site_id, valid_until, digest FROM site_tokens WHERE digest = $1",
                &[&presented.as_str(), &new.as_str()],
            )?;
            let fetched = Fetch::Fetched {
                site: row.get(0),
                old_until: from_sql(row.get(1)),
            };
            Ok(End::Commit(fetched))
        })
    }

    /// An agent came with a token that it fetched: it has it safe, and the
    /// one before it ends. Harmless twice.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_token_used(&self, token: &TokenDigest) -> Result<(), StoreError> {
        self.run(|client| {
            client.execute_typed(
                "WITH used AS (
                     UPDATE site_tokens
                        SET used_at = now(),
                            valid_until = CASE WHEN renewed THEN valid_until END
                      WHERE digest = $1 AND used_at IS NULL AND parent IS NOT NULL
                  RETURNING parent)
                 DELETE FROM site_tokens WHERE digest IN (SELECT parent FROM used)",
                &[(&token.as_str(), Type::TEXT)],
            )?;
            Ok(())
        })
    }

    /// How the renewal of a site's token stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token_report(&self, site_id: i64) -> Result<TokenReport, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                "SELECT max(valid_until) FILTER (WHERE renewed AND valid_until > now()),
                        max(used_at)
                   FROM site_tokens WHERE site_id = $1",
                &[(&site_id, Type::INT8)],
            )?;
            Ok(row.map_or_else(TokenReport::default, |row| TokenReport {
                old_until: row.get::<_, Option<SystemTime>>(0).map(from_sql),
                taken_over_at: row.get::<_, Option<SystemTime>>(1).map(from_sql),
            }))
        })
    }
}
