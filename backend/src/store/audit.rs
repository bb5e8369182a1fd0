//! What users did: rows that are only ever added.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::GenericClient;
use postgres::types::Type;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::actor::Actor;
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

    /// The newest deeds with an id below `before`, in one site or all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audit(
        &self,
        site_id: Option<i64>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Entry>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT id, at, actor, origin, ip, action, target, site_id, detail::text
                   FROM audit
                  WHERE ($1::bigint IS NULL OR site_id = $1) AND ($2::bigint IS NULL OR id < $2)
                  ORDER BY id DESC LIMIT $3",
                &[
                    (&site_id, Type::INT8),
                    (&before, Type::INT8),
                    (&limit, Type::INT8),
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
