//! Alerts: opened, closed, acknowledged, commented; and the maintenance
//! windows in which none opens.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::types::{ToSql, Type};
use postgres::{Row, Transaction};
use serde::Serialize;
use serde_json::json;

use super::actor::Actor;
use super::audit::{self, Deed};
use super::locks::Lock;
use super::time::{from_sql, to_sql};
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// Opens an alert for each of these devices that is in fault, has none open
/// and is not in maintenance.
pub(super) const OPEN_ALERTS: &str = "
INSERT INTO alerts (site_id, device_id, device_ip, device_name, opened_at, detail)
SELECT d.site_id, d.id, d.ip, d.name, s.verdict_since, s.detail
  FROM device_states s JOIN devices d ON d.id = s.device_id
 WHERE s.device_id = ANY ($1) AND s.verdict = 'fault'
   AND NOT av_in_maintenance(d.site_id, d.id, d.building, d.floor, d.room)
    ON CONFLICT (device_id) WHERE closed_at IS NULL
    DO UPDATE SET detail = EXCLUDED.detail
        WHERE alerts.detail IS DISTINCT FROM EXCLUDED.detail";

/// Notes which agents are silent since when. Where no backend ran for a
/// minute, everybody has the whole limit to be heard again.
const MARK_SILENT: &str = "
WITH quiet AS (
    SELECT a.site_id
      FROM site_agents a JOIN sites s ON s.id = a.site_id CROSS JOIN backend_watch w
     WHERE a.silent_since IS NULL
       AND now() > greatest(a.last_report_at, w.up_since)
                   + av_silence_limit(greatest(
                         av_report_interval_s(s.ok_interval_s, s.ko_interval_s), a.report_interval_s))
     ORDER BY a.site_id
       FOR NO KEY UPDATE OF a SKIP LOCKED
)
UPDATE site_agents a SET silent_since = a.last_report_at
  FROM quiet WHERE a.site_id = quiet.site_id
RETURNING a.site_id";

/// Writes into the history that nothing is known of these sites' devices
/// since they were last heard of, and lets the next observation of each into
/// the history even where it brings nothing new.
const RECORD_SILENCE: &str = "
WITH lost AS (
    UPDATE device_states s SET recorded_at = '-infinity'
      FROM devices d
     WHERE d.id = s.device_id AND d.site_id = ANY ($1)
    RETURNING d.site_id, d.id, d.ip, s.verdict, greatest(s.observed_at, s.last_seen) AS at
)
INSERT INTO observations
       (site_id, device_id, ip, observed_at, received_at, status, verdict, detail)
SELECT site_id, id, ip, at + interval '1 microsecond', now(), 'unknown', 'unknown',
       'the agent is silent'
  FROM lost WHERE verdict <> 'unknown'
    ON CONFLICT DO NOTHING";

const OPEN_SILENT: &str = "
INSERT INTO alerts (site_id, kind, severity, opened_at, detail)
SELECT a.site_id, 'agent_silent', 'critical', now(),
       'no report since ' || to_char(a.silent_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
  FROM site_agents a
 WHERE a.silent_since IS NOT NULL
   AND NOT av_in_maintenance(a.site_id, NULL, NULL, NULL, NULL)
    ON CONFLICT (site_id) WHERE kind = 'agent_silent' AND closed_at IS NULL DO NOTHING";

const CLOSE_SILENT: &str = "
UPDATE alerts l SET closed_at = greatest(now(), l.opened_at), closed_by = 'reported'
 WHERE l.kind = 'agent_silent' AND l.closed_at IS NULL
   AND NOT EXISTS (SELECT 1 FROM site_agents a
                    WHERE a.site_id = l.site_id AND a.silent_since IS NOT NULL)";

/// Devices in fault without an alert: their maintenance window has ended.
const STANDING: &str = "
SELECT s.device_id
  FROM device_states s JOIN device_current c ON c.device_id = s.device_id
  JOIN devices d ON d.id = s.device_id
 WHERE s.verdict = 'fault' AND NOT c.stale
   AND NOT EXISTS (SELECT 1 FROM alerts l WHERE l.device_id = s.device_id AND l.closed_at IS NULL)
   AND NOT av_in_maintenance(d.site_id, d.id, d.building, d.floor, d.room)
 ORDER BY s.device_id
   FOR NO KEY UPDATE OF s SKIP LOCKED";

/// What one look at the alerts did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Alerts of silent agents that it opened.
    pub silent: u64,
    /// Alerts of silent agents that it closed.
    pub heard_again: u64,
    /// Alerts that it opened because they still stood after maintenance.
    pub standing: u64,
}

/// Which alerts.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
    /// Only this site's.
    pub site_id: Option<i64>,
    /// Only this device's.
    pub device_id: Option<i64>,
    /// Only those that somebody acknowledged, or only those that nobody did.
    pub acknowledged: Option<bool>,
}

/// An alert.
#[derive(Debug, Clone, Serialize)]
pub struct Alert {
    /// Its id.
    pub id: i64,
    /// Its site's id.
    pub site_id: i64,
    /// Its site's name.
    pub site: String,
    /// `fault` or `agent_silent`.
    pub kind: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// The device; `None` for an alert of the site, or once it is deleted.
    pub device_id: Option<i64>,
    /// The device's address when the alert opened.
    pub device_ip: Option<String>,
    /// The device's name when the alert opened.
    pub device_name: Option<String>,
    /// Where the device stood; `""` where unknown.
    pub building: String,
    /// Where the device stood; `""` where unknown.
    pub floor: String,
    /// Where the device stood; `""` where unknown.
    pub room: String,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// Why it was closed: the verdict, `reported` or `deleted`.
    pub closed_by: Option<String>,
    /// For a person.
    pub detail: Option<String>,
    /// When somebody took notice.
    pub acknowledged_at: Option<Timestamp>,
    /// Who did.
    pub acknowledged_by: Option<String>,
    /// How many comments there are.
    pub comments: i64,
}

/// What somebody said of an alert.
#[derive(Debug, Clone, Serialize)]
pub struct Comment {
    /// Its id.
    pub id: i64,
    /// Who.
    pub author: String,
    /// What.
    pub body: String,
    /// When.
    pub created_at: Timestamp,
}

/// What a maintenance window covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The whole site.
    Site,
    /// A room, by building, floor and name, each `""` where the devices have none.
    Room {
        /// The building.
        building: String,
        /// The floor.
        floor: String,
        /// The room.
        room: String,
    },
    /// One device.
    Device(i64),
}

/// A maintenance window that is to be.
#[derive(Debug, Clone)]
pub struct NewWindow {
    /// The site.
    pub site_id: i64,
    /// What of it.
    pub scope: Scope,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Why.
    pub reason: String,
}

/// A maintenance window.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Its id.
    pub id: i64,
    /// Its site's id.
    pub site_id: i64,
    /// Its site's name.
    pub site: String,
    /// The device, where it covers one.
    pub device_id: Option<i64>,
    /// That device's name.
    pub device_name: Option<String>,
    /// The building, where it covers a room.
    pub building: Option<String>,
    /// The floor, where it covers a room.
    pub floor: Option<String>,
    /// The room, where it covers one.
    pub room: Option<String>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Whether that is now.
    pub active: bool,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

/// Why a maintenance window was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowError {
    /// There is no such site.
    NoSite,
    /// The site has no such device.
    NoDevice,
    /// There is no such window.
    NoWindow,
}

const ALERT_COLUMNS: &str = "a.id, a.site_id, s.name, a.kind, a.severity, a.device_id,
    a.device_ip, a.device_name, a.building, a.floor, a.room, a.opened_at, a.closed_at,
    a.closed_by, a.detail, a.acknowledged_at, a.acknowledged_by,
    (SELECT count(*) FROM alert_comments c WHERE c.alert_id = a.id)";

const ALERT_FILTER: &str = "($1::bool IS NULL OR (a.closed_at IS NULL) = $1)
    AND ($2::bigint IS NULL OR a.site_id = $2)
    AND ($3::bigint IS NULL OR a.device_id = $3)
    AND ($4::bool IS NULL OR (a.acknowledged_at IS NOT NULL) = $4)";

fn alert(row: &Row) -> Alert {
    Alert {
        id: row.get(0),
        site_id: row.get(1),
        site: row.get(2),
        kind: row.get(3),
        severity: row.get(4),
        device_id: row.get(5),
        device_ip: row.get(6),
        device_name: row.get(7),
        building: row.get(8),
        floor: row.get(9),
        room: row.get(10),
        opened_at: from_sql(row.get(11)),
        closed_at: row.get::<_, Option<SystemTime>>(12).map(from_sql),
        closed_by: row.get(13),
        detail: row.get(14),
        acknowledged_at: row.get::<_, Option<SystemTime>>(15).map(from_sql),
        acknowledged_by: row.get(16),
        comments: row.get(17),
    }
}

const WINDOW_COLUMNS: &str = "m.id, m.site_id, s.name, m.device_id, d.name, m.building, m.floor,
    m.room, m.starts_at, m.ends_at, m.starts_at <= now() AND m.ends_at > now(), m.reason,
    m.created_by, m.created_at
    FROM maintenance_windows m JOIN sites s ON s.id = m.site_id
    LEFT JOIN devices d ON d.id = m.device_id";

fn window(row: &Row) -> Window {
    Window {
        id: row.get(0),
        site_id: row.get(1),
        site: row.get(2),
        device_id: row.get(3),
        device_name: row.get(4),
        building: row.get(5),
        floor: row.get(6),
        room: row.get(7),
        starts_at: from_sql(row.get(8)),
        ends_at: from_sql(row.get(9)),
        active: row.get(10),
        reason: row.get(11),
        created_by: row.get(12),
        created_at: from_sql(row.get(13)),
    }
}

impl Store {
    /// Looks after the alerts that no report opens or closes: agents that are
    /// silent or heard again, and faults that outlast their maintenance
    /// window. `None` where another backend is at it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert_round(&self) -> Result<Option<Round>, StoreError> {
        let Some(mut round) = self.transact(Twice::Ask, silence_round)? else {
            return Ok(None);
        };
        // On its own: whoever holds a state here holds no agent's row.
        round.standing = self.transact(Twice::Ask, |transaction| {
            let standing: Vec<i64> = transaction
                .query(STANDING, &[])?
                .iter()
                .map(|row| row.get(0))
                .collect();
            Ok(match standing.is_empty() {
                true => End::Undo(0),
                false => End::Commit(transaction.execute(OPEN_ALERTS, &[&standing])?),
            })
        })?;
        Ok(Some(round))
    }

    /// The alerts of a page, the newest first, and how many there are in all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alerts(
        &self,
        filter: &AlertFilter,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<Alert>, i64), StoreError> {
        let chosen: [(&(dyn ToSql + Sync), Type); 4] = [
            (&filter.open, Type::BOOL),
            (&filter.site_id, Type::INT8),
            (&filter.device_id, Type::INT8),
            (&filter.acknowledged, Type::BOOL),
        ];
        self.run(|client| {
            let total = client.query_typed(
                &format!("SELECT count(*) FROM alerts a WHERE {ALERT_FILTER}"),
                &chosen,
            )?;
            let mut paged = chosen.to_vec();
            paged.push((&limit, Type::INT8));
            paged.push((&offset, Type::INT8));
            let rows = client.query_typed(
                &format!(
                    "SELECT {ALERT_COLUMNS} FROM alerts a JOIN sites s ON s.id = a.site_id
                      WHERE {ALERT_FILTER}
                      ORDER BY a.opened_at DESC, a.id DESC LIMIT $5 OFFSET $6"
                ),
                &paged,
            )?;
            Ok((
                rows.iter().map(alert).collect(),
                total.first().map_or(0, |row| row.get(0)),
            ))
        })
    }

    /// One alert with its comments, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert(&self, id: i64) -> Result<Option<(Alert, Vec<Comment>)>, StoreError> {
        self.run(|client| {
            let Some(row) = client.query_typed_opt(
                &format!(
                    "SELECT {ALERT_COLUMNS} FROM alerts a JOIN sites s ON s.id = a.site_id
                      WHERE a.id = $1"
                ),
                &[(&id, Type::INT8)],
            )?
            else {
                return Ok(None);
            };
            let comments = client.query_typed(
                "SELECT id, author, body, created_at FROM alert_comments
                  WHERE alert_id = $1 ORDER BY id",
                &[(&id, Type::INT8)],
            )?;
            let comments = comments
                .iter()
                .map(|row| Comment {
                    id: row.get(0),
                    author: row.get(1),
                    body: row.get(2),
                    created_at: from_sql(row.get(3)),
                })
                .collect();
            Ok(Some((alert(&row), comments)))
        })
    }

    /// Notes that somebody took notice of an alert, with a comment where one
    /// is given; the first who did stands. Answers `false` where there is no
    /// such alert.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn acknowledge_alert(
        &self,
        actor: &Actor,
        id: i64,
        comment: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.on_alert(actor, id, "alert.acknowledge", |transaction| {
            transaction.execute(
                "UPDATE alerts SET acknowledged_at = now(), acknowledged_by = $2
                  WHERE id = $1 AND acknowledged_at IS NULL",
                &[&id, &actor.name],
            )?;
            comment.map_or(Ok(()), |body| add_comment(transaction, actor, id, body))
        })
    }

    /// Adds a comment. Answers `false` where there is no such alert.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn comment_alert(&self, actor: &Actor, id: i64, body: &str) -> Result<bool, StoreError> {
        self.on_alert(actor, id, "alert.comment", |transaction| {
            add_comment(transaction, actor, id, body)
        })
    }

    fn on_alert(
        &self,
        actor: &Actor,
        id: i64,
        action: &'static str,
        work: impl Fn(&mut Transaction<'_>) -> Result<(), postgres::Error>,
    ) -> Result<bool, StoreError> {
        let done = self.act(actor, |transaction| {
            let Some(row) = transaction.query_opt(
                "SELECT site_id FROM alerts WHERE id = $1 FOR NO KEY UPDATE",
                &[&id],
            )?
            else {
                return Ok(Err(()));
            };
            work(transaction)?;
            let deed = Deed {
                action,
                target: format!("alert {id}"),
                site_id: row.get(0),
                detail: json!({}),
            };
            audit::record(transaction, actor, &deed)?;
            Ok(Ok(()))
        })?;
        Ok(done.is_ok())
    }

    /// How seriously a device's faults are to be taken; `None` where there is
    /// no such device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert_severity(&self, device_id: i64) -> Result<Option<String>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                "SELECT alert_severity FROM devices WHERE id = $1",
                &[(&device_id, Type::INT8)],
            )?;
            Ok(row.map(|row| row.get(0)))
        })
    }

    /// Sets how seriously a device's faults are to be taken from now on.
    /// Answers `false` where there is no such device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_alert_severity(
        &self,
        actor: &Actor,
        device_id: i64,
        severity: &str,
    ) -> Result<bool, StoreError> {
        let done = self.act(actor, |transaction| {
            let Some(row) = transaction.query_opt(
                "UPDATE devices SET alert_severity = $2 WHERE id = $1 RETURNING site_id, name",
                &[&device_id, &severity],
            )?
            else {
                return Ok(Err(()));
            };
            let name: String = row.get(1);
            let deed = Deed {
                action: "device.severity",
                target: format!("device {device_id} ({name})"),
                site_id: row.get(0),
                detail: json!({"severity": severity}),
            };
            audit::record(transaction, actor, &deed)?;
            Ok(Ok(()))
        })?;
        Ok(done.is_ok())
    }

    /// The maintenance windows of one site, or of all, the latest first. Past
    /// ones only where they are asked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn windows(&self, site_id: Option<i64>, past: bool) -> Result<Vec<Window>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "SELECT {WINDOW_COLUMNS}
                      WHERE ($1::bigint IS NULL OR m.site_id = $1) AND ($2 OR m.ends_at > now())
                      ORDER BY m.starts_at DESC, m.id DESC LIMIT 1000"
                ),
                &[(&site_id, Type::INT8), (&past, Type::BOOL)],
            )?;
            Ok(rows.iter().map(window).collect())
        })
    }

    /// One maintenance window.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn window(&self, id: i64) -> Result<Option<Window>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                &format!("SELECT {WINDOW_COLUMNS} WHERE m.id = $1"),
                &[(&id, Type::INT8)],
            )?;
            Ok(row.as_ref().map(window))
        })
    }

    /// Stores a window: a new one where `id` is `None`. Answers its id.
    ///
    /// # Errors
    /// [`StoreError`]; what does not exist stands in the inner result.
    pub fn put_window(
        &self,
        actor: &Actor,
        id: Option<i64>,
        new: &NewWindow,
    ) -> Result<Result<i64, WindowError>, StoreError> {
        let (device, building, floor, room) = match &new.scope {
            Scope::Site => (None, None, None, None),
            Scope::Device(device) => (Some(*device), None, None, None),
            Scope::Room {
                building,
                floor,
                room,
            } => (None, Some(building), Some(floor), Some(room)),
        };
        self.act(actor, |transaction| {
            let site = transaction.query_opt(
                "SELECT FROM sites WHERE id = $1 FOR KEY SHARE",
                &[&new.site_id],
            )?;
            if site.is_none() {
                return Ok(Err(WindowError::NoSite));
            }
            if let Some(device) = device {
                let found = transaction.query_opt(
                    "SELECT FROM devices WHERE id = $1 AND site_id = $2 FOR KEY SHARE",
                    &[&device, &new.site_id],
                )?;
                if found.is_none() {
                    return Ok(Err(WindowError::NoDevice));
                }
            }
            let (starts, ends) = (to_sql(new.starts_at), to_sql(new.ends_at));
            let row = match id {
                None => transaction.query_opt(
                    "INSERT INTO maintenance_windows
                            (site_id, device_id, building, floor, room, starts_at, ends_at, reason, created_by)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
                    &[
                        &new.site_id, &device, &building, &floor, &room, &starts, &ends,
                        &new.reason, &actor.name,
                    ],
                )?,
                Some(id) => transaction.query_opt(
                    "UPDATE maintenance_windows
                        SET site_id = $1, device_id = $2, building = $3, floor = $4, room = $5,
                            starts_at = $6, ends_at = $7, reason = $8
                      WHERE id = $9 RETURNING id",
                    &[
                        &new.site_id, &device, &building, &floor, &room, &starts, &ends,
                        &new.reason, &id,
                    ],
                )?,
            };
            let Some(row) = row else {
                return Ok(Err(WindowError::NoWindow));
            };
            let stored: i64 = row.get(0);
            let deed = Deed {
                action: if id.is_none() { "maintenance.create" } else { "maintenance.update" },
                target: format!("maintenance window {stored}"),
                site_id: Some(new.site_id),
                detail: json!({"starts_at": new.starts_at, "ends_at": new.ends_at}),
            };
            audit::record(transaction, actor, &deed)?;
            Ok(Ok(stored))
        })
    }

    /// Deletes a window. Answers `false` where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_window(&self, actor: &Actor, id: i64) -> Result<bool, StoreError> {
        let done = self.act(actor, |transaction| {
            let Some(row) = transaction.query_opt(
                "DELETE FROM maintenance_windows WHERE id = $1 RETURNING site_id",
                &[&id],
            )?
            else {
                return Ok(Err(()));
            };
            let deed = Deed {
                action: "maintenance.delete",
                target: format!("maintenance window {id}"),
                site_id: row.get(0),
                detail: json!({}),
            };
            audit::record(transaction, actor, &deed)?;
            Ok(Ok(()))
        })?;
        Ok(done.is_ok())
    }
}

fn silence_round(transaction: &mut Transaction<'_>) -> Result<End<Option<Round>>, postgres::Error> {
    if !Lock::AlertRound.take(transaction)? {
        return Ok(End::Undo(None));
    }
    transaction.execute(
        "INSERT INTO backend_watch AS w (looked_at, up_since) VALUES (now(), now())
             ON CONFLICT (one) DO UPDATE
            SET looked_at = now(),
                up_since = CASE WHEN w.looked_at < now() - interval '1 minute'
                                THEN now() ELSE w.up_since END",
        &[],
    )?;
    transaction.execute(
        "UPDATE site_agents SET silent_since = NULL
          WHERE silent_since IS NOT NULL AND last_report_at > silent_since",
        &[],
    )?;
    let silent: Vec<i64> = transaction
        .query(MARK_SILENT, &[])?
        .iter()
        .map(|row| row.get(0))
        .collect();
    if !silent.is_empty() {
        transaction.execute(RECORD_SILENCE, &[&silent])?;
    }
    let round = Round {
        silent: transaction.execute(OPEN_SILENT, &[])?,
        heard_again: transaction.execute(CLOSE_SILENT, &[])?,
        standing: 0,
    };
    Ok(End::Commit(Some(round)))
}

fn add_comment(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    alert_id: i64,
    body: &str,
) -> Result<(), postgres::Error> {
    transaction.execute(
        "INSERT INTO alert_comments (alert_id, author, body) VALUES ($1, $2, $3)",
        &[&alert_id, &actor.name, &body],
    )?;
    Ok(())
}
