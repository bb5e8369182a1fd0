//! Codes with which an agent enrols, each worth one site token.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::json;

use super::actor::Actor;
use super::attempts::{self, Attempt, Try};
use super::audit::{Deed, record};
use super::sites::TokenDigest;
use super::time::from_sql;
use super::{Store, StoreError};

/// How long a code is worth something, as PostgreSQL's interval: the way from
/// a desk to the rack.
const LIFE: &str = "15 minutes";
/// How long the tokens live on that the site has when an agent enrols, in
/// seconds: an agent that runs is not cut off, and fetches one of its own.
const GRACE_S: i64 = 7 * 86_400;

/// What became of a code that somebody came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// The site has the token now.
    Done {
        /// The site's id.
        site_id: i64,
        /// Its name.
        site: String,
    },
    /// There is no such code, or it was used, or its time is over.
    Unknown,
    /// Too many codes were wrong: not before so many seconds.
    Blocked(i64),
}

impl Store {
    /// Gives a site a code; the one before it is worth nothing then. Answers
    /// until when, or `None` where there is no such site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_enrolment(
        &self,
        actor: &Actor,
        site_id: i64,
        code: &TokenDigest,
    ) -> Result<Option<Timestamp>, StoreError> {
        let done = self.act(actor, |transaction| {
            let site = transaction.query_opt(
                "SELECT name FROM sites WHERE id = $1 FOR KEY SHARE",
                &[&site_id],
            )?;
            let Some(site) = site else {
                return Ok(Err(()));
            };
            let name: String = site.get(0);
            let row = transaction.query_one(
                &format!(
                    "INSERT INTO enrolments (site_id, digest, valid_until)
                     VALUES ($1, $2, now() + interval '{LIFE}')
                         ON CONFLICT (site_id) DO UPDATE
                        SET digest = EXCLUDED.digest, created_at = now(),
                            valid_until = EXCLUDED.valid_until
                  RETURNING valid_until"
                ),
                &[&site_id, &code.as_str()],
            )?;
            record(
                transaction,
                actor,
                &Deed {
                    action: "site.enrolment.open",
                    target: format!("site {site_id} ({name})"),
                    site_id: Some(site_id),
                    detail: json!({}),
                },
            )?;
            Ok(Ok(from_sql(row.get(0))))
        })?;
        Ok(done.ok())
    }

    /// Somebody comes with a code: where it is worth a token, the site has
    /// `token` from now on, and the ones so far end after a week.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn enrol(
        &self,
        actor: &Actor,
        code: &TokenDigest,
        token: &TokenDigest,
    ) -> Result<Enrolment, StoreError> {
        if let Attempt::Blocked(seconds) = self.begin_try(Try::Code, &actor.ip)? {
            return Ok(Enrolment::Blocked(seconds));
        }
        let done = self.act(actor, |transaction| {
            let found = transaction.query_opt(
                "DELETE FROM enrolments e USING sites s
                  WHERE e.digest = $1 AND e.valid_until > now() AND s.id = e.site_id
              RETURNING s.id, s.name",
                &[&code.as_str()],
            )?;
            let Some(found) = found else {
                return Ok(Err(()));
            };
            attempts::forget_code(transaction, &actor.ip)?;
            let (site_id, site): (i64, String) = (found.get(0), found.get(1));
            transaction.execute(
                "SELECT av_renew_token($1, $2, make_interval(secs => $3::bigint::double precision))",
                &[&site_id, &token.as_str(), &GRACE_S],
            )?;
            record(
                transaction,
                actor,
                &Deed {
                    action: "site.enrolment.use",
                    target: format!("site {site_id} ({site})"),
                    site_id: Some(site_id),
                    detail: json!({"grace_s": GRACE_S}),
                },
            )?;
            Ok(Ok(Enrolment::Done { site_id, site }))
        })?;
        Ok(done.unwrap_or(Enrolment::Unknown))
    }

    /// Until when a code of this site is worth something.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn enrolment_open_until(&self, site_id: i64) -> Result<Option<Timestamp>, StoreError> {
        self.run(|client| {
            let row = client.query_opt(
                "SELECT valid_until FROM enrolments WHERE site_id = $1 AND valid_until > now()",
                &[&site_id],
            )?;
            Ok(row.map(|row| from_sql(row.get::<_, SystemTime>(0))))
        })
    }

    /// Forgets codes that are worth nothing any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old_enrolments(&self) -> Result<(), StoreError> {
        self.run(|client| client.batch_execute("DELETE FROM enrolments WHERE valid_until < now()"))
    }
}
