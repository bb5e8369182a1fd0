//! What users did: rows that are only ever added.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::GenericClient;
use postgres::types::Type;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::actor::Actor;
use super::fold::{fold, folded};
use super::time::from_sql;
use super::{Store, StoreError};

/// Something that a user did.
#[derive(Debug, Clone)]
pub struct Deed {
    /// What, such as `device.update`.
    pub action: &'static str,
    /// To what, such as `device 12 (Projecteur Salle A)`.
    pub target: String,
    /// In which site.
    pub site_id: Option<i64>,
    /// An object with more; never with a secret.
    pub detail: Value,
}

/// A row of the audit log.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Counts up.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// How: `web`, `api`, `cli`, `import`, `rollback`.
    pub origin: String,
    /// From where.
    pub ip: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// In which site.
    pub site_id: Option<i64>,
    /// More.
    pub detail: Box<RawValue>,
}

/// Which deeds of the log are shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditFilter<'a> {
    /// In this site alone.
    pub site_id: Option<i64>,
    /// With a smaller id alone.
    pub before: Option<i64>,
    /// With this text in who, what, to what or from where, whatever its case
    /// and accents.
    pub text: Option<&'a str>,
}

/// Writes a deed down, in the transaction that does it.
///
/// # Errors
/// PostgreSQL's.
pub fn record(
    client: &mut impl GenericClient,
    actor: &Actor,
    deed: &Deed,
) -> Result<(), postgres::Error> {
    client.execute(
        "INSERT INTO audit (actor, origin, ip, action, target, site_id, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb)",
        &[
            &actor.name,
            &actor.origin,
            &actor.ip,
            &deed.action,
            &deed.target,
            &deed.site_id,
            &deed.detail.to_string(),
        ],
    )?;
    Ok(())
}

impl Store {
    /// Writes down a deed that changes nothing else, such as looking at a
    /// secret.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record(&self, actor: &Actor, deed: &Deed) -> Result<(), StoreError> {
        self.run(|client| record(client, actor, deed))
    }

    /// The newest deeds that a filter lets through, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audit(&self, filter: &AuditFilter<'_>, limit: i64) -> Result<Vec<Entry>, StoreError> {
        let text = filter.text.map(fold);
        let searched = folded("concat_ws(' ', actor, action, target, ip)");
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "SELECT id, at, actor, origin, ip, action, target, site_id, detail::text
                       FROM audit
                      WHERE ($1::bigint IS NULL OR site_id = $1)
                        AND ($2::bigint IS NULL OR id < $2)
                        AND ($4::text IS NULL OR strpos({searched}, $4) > 0)
                      ORDER BY id DESC LIMIT $3"
                ),
                &[
                    (&filter.site_id, Type::INT8),
                    (&filter.before, Type::INT8),
                    (&limit, Type::INT8),
                    (&text, Type::TEXT),
                ],
            )?;
            Ok(rows
                .iter()
                .map(|row| Entry {
                    id: row.get(0),
                    at: from_sql(row.get::<_, SystemTime>(1)),
                    actor: row.get(2),
                    origin: row.get(3),
                    ip: row.get(4),
                    action: row.get(5),
                    target: row.get(6),
                    site_id: row.get(7),
                    detail: RawValue::from_string(row.get(8)).unwrap_or_default(),
                })
                .collect())
        })
    }
}
