//! Equipment that agents found and that nobody watches yet.

use std::time::SystemTime;

use av_proto::suggestion::Found;
use jiff::Timestamp;
use postgres::types::Type;
use postgres::{Row, Transaction};
use serde_json::json;

use super::actor::Actor;
use super::audit::{Deed, record};
use super::inventory::{DeviceFields, Lost, insert_device};
use super::time::{from_sql, to_sql};
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// The most suggestions of one site that are kept: a site has fewer addresses
/// that anybody would watch.
const KEPT_MAX: i64 = 20_000;

/// What became of what an agent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// New ones, and ones that came back because their facts changed.
    pub suggested: i64,
    /// Ones that were there, open or dismissed, and are as they were.
    pub known: i64,
    /// Addresses that are configured.
    pub configured: i64,
}

/// A suggestion as an administrator sees it.
#[derive(Debug, Clone)]
pub struct Suggestion {
    /// Its id.
    pub id: i64,
    /// The site where it was found.
    pub site_id: i64,
    /// Its name.
    pub site: String,
    /// The site's time zone.
    pub timezone: String,
    /// The address.
    pub ip: String,
    /// What it is: the text of a JSON object.
    pub facts: String,
    /// What was seen: the text of a JSON array of texts.
    pub evidence: String,
    /// `open`, `accepted` or `dismissed`.
    pub state: String,
    /// When it was first found.
    pub first_seen: Timestamp,
    /// When it was last found.
    pub last_seen: Timestamp,
    /// When it was accepted or dismissed.
    pub decided_at: Option<Timestamp>,
    /// By whom.
    pub decided_by: Option<String>,
    /// The device that came of it.
    pub device_id: Option<i64>,
}

/// One statement for all of a body, however many it tells of.
///
/// A dismissed one comes back when its facts change. An accepted one whose
/// device is gone comes back too: it is found, and not watched.
const TAKE: &str = "
WITH found AS (
    SELECT DISTINCT ON (f.ip) f.ip, f.facts::jsonb AS facts, f.evidence::jsonb AS evidence
      FROM unnest($2::text[], $3::text[], $4::text[]) AS f (ip, facts, evidence)
), fresh AS (
    SELECT f.* FROM found f
     WHERE NOT EXISTS (SELECT FROM devices d WHERE d.site_id = $1 AND d.ip = f.ip)
), before AS (
    SELECT s.ip, s.state, s.facts FROM suggestions s JOIN fresh USING (ip) WHERE s.site_id = $1
), written AS (
    INSERT INTO suggestions AS s (site_id, ip, facts, evidence, first_seen, last_seen)
    SELECT $1, ip, facts, evidence, $5, $5 FROM fresh ORDER BY ip
        ON CONFLICT (site_id, ip) DO UPDATE SET
           facts = EXCLUDED.facts,
           evidence = EXCLUDED.evidence,
           last_seen = greatest(s.last_seen, EXCLUDED.last_seen),
           state = CASE WHEN s.state = 'dismissed' AND s.facts = EXCLUDED.facts
                        THEN s.state ELSE 'open' END,
           decided_at = CASE WHEN s.state = 'dismissed' AND s.facts = EXCLUDED.facts
                             THEN s.decided_at END,
           decided_by = CASE WHEN s.state = 'dismissed' AND s.facts = EXCLUDED.facts
                             THEN s.decided_by END,
           device_id = NULL
    RETURNING ip, facts, state
)
SELECT (SELECT count(*) FROM written w LEFT JOIN before b USING (ip)
         WHERE b.ip IS NULL OR b.state = 'accepted'
            OR b.facts IS DISTINCT FROM w.facts),
       (SELECT count(*) FROM written w JOIN before b USING (ip)
         WHERE b.state <> 'accepted' AND b.facts = w.facts),
       (SELECT count(*) FROM found) - (SELECT count(*) FROM fresh)";

/// The oldest go past the limit; open ones last.
const FORGET: &str = "
DELETE FROM suggestions WHERE id IN (
    SELECT id FROM suggestions WHERE site_id = $1
     ORDER BY state = 'open' DESC, last_seen DESC, id DESC OFFSET $2)";

const SUGGESTION: &str = "
    SELECT g.id, g.site_id, s.name, s.timezone, g.ip, g.facts::text, g.evidence::text, g.state,
           g.first_seen, g.last_seen, g.decided_at, g.decided_by, g.device_id
      FROM suggestions g JOIN sites s ON s.id = g.site_id";

fn suggestion(row: &Row) -> Suggestion {
    Suggestion {
        id: row.get(0),
        site_id: row.get(1),
        site: row.get(2),
        timezone: row.get(3),
        ip: row.get(4),
        facts: row.get(5),
        evidence: row.get(6),
        state: row.get(7),
        first_seen: from_sql(row.get(8)),
        last_seen: from_sql(row.get(9)),
        decided_at: row.get::<_, Option<SystemTime>>(10).map(from_sql),
        decided_by: row.get(11),
        device_id: row.get(12),
    }
}

/// The facts of what was found: all but its address and what was seen.
fn facts(found: &Found) -> String {
    json!({
        "mac": found.mac, "vendor": found.vendor, "model": found.model, "name": found.name,
        "type": found.device_type, "driver": found.driver, "driver_config": found.driver_config,
    })
    .to_string()
}

fn deed(action: &'static str, suggestion: &Suggestion) -> Deed {
    Deed {
        action,
        target: format!("suggestion {} ({})", suggestion.id, suggestion.ip),
        site_id: Some(suggestion.site_id),
        detail: json!({"ip": suggestion.ip}),
    }
}

/// Marks an open or dismissed one; an accepted one is another's affair.
fn decide(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    id: i64,
    state: &str,
    device_id: Option<i64>,
) -> Result<Result<(), Lost>, postgres::Error> {
    let changed = transaction.execute(
        "UPDATE suggestions
            SET state = $2, decided_at = now(), decided_by = $3, device_id = $4
          WHERE id = $1 AND state <> 'accepted'",
        &[&id, &state, &actor.name, &device_id],
    )?;
    if changed == 1 {
        return Ok(Ok(()));
    }
    let there = transaction
        .query_opt("SELECT FROM suggestions WHERE id = $1", &[&id])?
        .is_some();
    Ok(Err(if there { Lost::Race } else { Lost::Gone }))
}

impl Store {
    /// Takes what an agent found at a site.
    ///
    /// # Errors
    /// [`StoreError::BadValue`] where a text holds what JSONB cannot.
    pub fn take_suggestions(
        &self,
        site_id: i64,
        found: &[Found],
        at: Timestamp,
    ) -> Result<Taken, StoreError> {
        let column = |text: fn(&Found) -> String| found.iter().map(text).collect::<Vec<_>>();
        // One spelling for one address, as devices have it.
        let ips = column(|found| {
            let ip: Option<std::net::IpAddr> = found.ip.parse().ok();
            ip.map_or_else(|| found.ip.clone(), |ip| ip.to_string())
        });
        let facts = column(facts);
        let evidence = column(|found| json!(found.evidence).to_string());
        self.transact(Twice::Ask, |transaction| {
            let row =
                transaction.query_one(TAKE, &[&site_id, &ips, &facts, &evidence, &to_sql(at)])?;
            transaction.execute(FORGET, &[&site_id, &KEPT_MAX])?;
            Ok(End::Commit(Taken {
                suggested: row.get(0),
                known: row.get(1),
                configured: row.get(2),
            }))
        })
    }

    /// Suggestions, the newest first: of one site, in one state, or all; at
    /// most `limit` of them, and how many there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn suggestions(
        &self,
        site_id: Option<i64>,
        state: Option<&str>,
        (limit, offset): (i64, i64),
    ) -> Result<(Vec<Suggestion>, i64), StoreError> {
        const WHERE: &str = "WHERE ($1::bigint IS NULL OR g.site_id = $1)
                               AND ($2::text IS NULL OR g.state = $2)";
        self.run(|client| {
            let rows = client.query_typed(
                &format!("{SUGGESTION} {WHERE} ORDER BY g.last_seen DESC, g.id LIMIT $3 OFFSET $4"),
                &[
                    (&site_id, Type::INT8),
                    (&state, Type::TEXT),
                    (&limit, Type::INT8),
                    (&offset, Type::INT8),
                ],
            )?;
            let total = client.query_typed(
                &format!("SELECT count(*) FROM suggestions g {WHERE}"),
                &[(&site_id, Type::INT8), (&state, Type::TEXT)],
            )?;
            let total = total.first().map_or(0, |row| row.get(0));
            Ok((rows.iter().map(suggestion).collect(), total))
        })
    }

    /// One suggestion.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn suggestion(&self, id: i64) -> Result<Option<Suggestion>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!("{SUGGESTION} WHERE g.id = $1"),
                &[(&id, Type::INT8)],
            )?;
            Ok(rows.first().map(suggestion))
        })
    }

    /// Makes a device of a suggestion; answers the device's id. Both or
    /// neither.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the site has a device with this address.
    pub fn accept_suggestion(
        &self,
        actor: &Actor,
        suggestion: &Suggestion,
        fields: &DeviceFields,
    ) -> Result<Result<i64, Lost>, StoreError> {
        self.act(actor, |transaction| {
            let device = insert_device(transaction, actor, fields)?;
            if let Err(lost) = decide(transaction, actor, suggestion.id, "accepted", Some(device))?
            {
                return Ok(Err(lost));
            }
            record(transaction, actor, &deed("suggestion.accept", suggestion))?;
            Ok(Ok(device))
        })
    }

    /// Puts a suggestion aside until its facts change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dismiss_suggestion(
        &self,
        actor: &Actor,
        suggestion: &Suggestion,
    ) -> Result<Result<(), Lost>, StoreError> {
        self.act(actor, |transaction| {
            if let Err(lost) = decide(transaction, actor, suggestion.id, "dismissed", None)? {
                return Ok(Err(lost));
            }
            record(transaction, actor, &deed("suggestion.dismiss", suggestion))?;
            Ok(Ok(()))
        })
    }
}
