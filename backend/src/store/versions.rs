//! The history of a site's configuration: its versions, each as it was, and
//! the way back. The rows are written by triggers (`003_versions.sql`).

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::types::Type;
use postgres::{GenericClient, Row};
use serde_json::json;

use super::actor::Actor;
use super::audit::{Deed, record};
use super::config::{DeviceRow, Revision, SiteSnapshot};
use super::time::from_sql;
use super::{Store, StoreError};

/// One version of a site's configuration: what one transaction left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The site's revision at the end of the transaction.
    pub revision: i64,
    /// The revision of the version before it, where there is one.
    pub previous: Option<i64>,
    /// When the transaction began.
    pub at: Timestamp,
    /// The user, or the database role where somebody edited by hand.
    pub author: String,
    /// `web`, `api`, `import`, `rollback`, `sql`, `migration`.
    pub origin: String,
    /// The address from which it came.
    pub ip: Option<String>,
    /// The hash of the configuration, where it was needed already.
    pub hash: Option<String>,
    /// The version in which the site is deleted.
    pub deleted: bool,
}

/// A device that differs, or may differ, between a version and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The version.
    pub revision: i64,
    /// As the version has it, or as the one before had it.
    pub after: bool,
    /// The device.
    pub device_id: i64,
    /// Its address there.
    pub ip: String,
    /// Stands for all that is configured of it there.
    pub digest: String,
}

/// A part of the list of a site's versions, the newest first.
#[derive(Debug, Clone)]
pub struct VersionPage {
    /// How many versions there are.
    pub total: i64,
    /// The versions of this page.
    pub versions: Vec<Version>,
    /// Their devices that may differ from the version before.
    pub touched: Vec<Touched>,
    /// Those among them that changed the site's own settings.
    pub settings_changed: Vec<i64>,
}

/// A version with its configuration.
#[derive(Debug, Clone)]
pub struct VersionConfig {
    /// Which one it is.
    pub version: Version,
    /// The configuration; `None` where the site is deleted in it.
    pub config: Option<SiteSnapshot>,
    /// The ids of the devices, in the order of `config.devices`.
    pub device_ids: Vec<i64>,
}

/// Why a site is not taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWayBack {
    /// There is no such site.
    UnknownSite,
    /// It has no such version.
    UnknownVersion,
    /// It is deleted in that version.
    Deleted,
    /// The newest version is another than the caller saw.
    Changed {
        /// The newest one.
        newest: i64,
    },
}

/// What taking a site back did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenBack {
    /// The newest version now; the one before where nothing differed.
    pub revision: i64,
    /// Devices added.
    pub added: u64,
    /// Devices changed.
    pub changed: u64,
    /// Devices removed.
    pub removed: u64,
    /// Whether the site's own settings changed.
    pub settings_changed: bool,
}

/// What a site's agent says that it runs, and what it should run.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// The site.
    pub site_id: i64,
    /// The newest version.
    pub wanted_revision: Option<i64>,
    /// Since when there is that version.
    pub wanted_since: Option<Timestamp>,
    /// Its hash, where it was needed already.
    pub wanted_hash: Option<String>,
    /// The newest report; `None` before the first.
    pub last_report_at: Option<Timestamp>,
    /// The agent's version.
    pub version: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// The hash of what it runs.
    pub running_hash: Option<String>,
    /// Why it refused what the backend has.
    pub config_error: Option<String>,
    /// The devices that it cannot watch: the text of a JSON array.
    pub rejected_devices: String,
    /// Reports that it had to drop.
    pub dropped_reports: i64,
    /// The first version after the one that it runs: since then it is behind.
    /// `None` where no version is known to have that hash.
    pub left_behind_at: Option<Timestamp>,
}

/// The columns of a [`Version`] from `v`, with the one before it.
const VERSIONS: &str = "
SELECT * FROM (
    SELECT revision, lag(revision) OVER (ORDER BY revision) AS previous, at, author, origin, ip,
           hash, deleted
      FROM config_versions WHERE site_id = $1) v";

const TOUCHED: &str = "
WITH page AS (
    SELECT * FROM unnest($2::bigint[], $3::bigint[]) AS p (revision, previous)
)
SELECT p.revision, true, h.device_id, h.ip,
       md5((h.name, h.ip, h.device_type, h.driver, coalesce(h.building, ''),
            coalesce(h.floor, ''), coalesce(h.room, ''),
            coalesce(nullif(h.driver_config, 'null'), '{}')::text,
            coalesce(nullif(h.expectations, 'null'), '{}')::text)::text)
  FROM page p JOIN device_history h
    ON h.site_id = $1 AND h.rev_from > p.previous AND h.rev_from <= p.revision
   AND (h.rev_to IS NULL OR h.rev_to > p.revision)
 UNION ALL
SELECT p.revision, false, h.device_id, h.ip,
       md5((h.name, h.ip, h.device_type, h.driver, coalesce(h.building, ''),
            coalesce(h.floor, ''), coalesce(h.room, ''),
            coalesce(nullif(h.driver_config, 'null'), '{}')::text,
            coalesce(nullif(h.expectations, 'null'), '{}')::text)::text)
  FROM page p JOIN device_history h
    ON h.site_id = $1 AND h.rev_to > p.previous AND h.rev_to <= p.revision
   AND h.rev_from <= p.previous";

const SETTINGS_CHANGED: &str = "
SELECT p.revision
  FROM unnest($2::bigint[], $3::bigint[]) AS p (revision, previous)
  JOIN site_history a ON a.site_id = $1 AND a.rev_from <= p.revision
                     AND (a.rev_to IS NULL OR a.rev_to > p.revision)
  JOIN site_history b ON b.site_id = $1 AND b.rev_from <= p.previous
                     AND (b.rev_to IS NULL OR b.rev_to > p.previous)
 WHERE (a.name, a.timezone, a.doubt_after_days, a.ok_interval_s, a.ko_interval_s)
    IS DISTINCT FROM (b.name, b.timezone, b.doubt_after_days, b.ok_interval_s, b.ko_interval_s)";

/// The devices of the site $1 as they were in revision $2.
const THEN: &str = "
    SELECT * FROM device_history
     WHERE site_id = $1 AND rev_from <= $2 AND (rev_to IS NULL OR rev_to > $2)";

impl Store {
    /// The versions of a site with a revision below `before`, the newest
    /// first. A site that was deleted still has its versions; one that never
    /// was has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn versions(
        &self,
        site_id: i64,
        before: Option<i64>,
        limit: i64,
    ) -> Result<VersionPage, StoreError> {
        self.run(|client| {
            let total = client
                .query_one(
                    "SELECT count(*) FROM config_versions WHERE site_id = $1",
                    &[&site_id],
                )?
                .get(0);
            let versions: Vec<Version> = client
                .query_typed(
                    &format!(
                        "{VERSIONS} WHERE $2::bigint IS NULL OR revision < $2
                          ORDER BY revision DESC LIMIT $3"
                    ),
                    &[
                        (&site_id, Type::INT8),
                        (&before, Type::INT8),
                        (&limit, Type::INT8),
                    ],
                )?
                .iter()
                .map(version)
                .collect();
            let revisions: Vec<i64> = versions.iter().map(|v| v.revision).collect();
            let previous: Vec<i64> = versions.iter().map(|v| v.previous.unwrap_or(0)).collect();
            let page: [(&(dyn postgres::types::ToSql + Sync), Type); 3] = [
                (&site_id, Type::INT8),
                (&revisions, Type::INT8_ARRAY),
                (&previous, Type::INT8_ARRAY),
            ];
            let touched = client
                .query_typed(TOUCHED, &page)?
                .iter()
                .map(|row| Touched {
                    revision: row.get(0),
                    after: row.get(1),
                    device_id: row.get(2),
                    ip: row.get(3),
                    digest: row.get(4),
                })
                .collect();
            let settings_changed = client
                .query_typed(SETTINGS_CHANGED, &page)?
                .iter()
                .map(|row| row.get(0))
                .collect();
            Ok(VersionPage {
                total,
                versions,
                touched,
                settings_changed,
            })
        })
    }

    /// A version with the configuration as it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn version(
        &self,
        site_id: i64,
        revision: i64,
    ) -> Result<Option<VersionConfig>, StoreError> {
        self.run(|client| {
            let found = client.query_typed_opt(
                &format!("{VERSIONS} WHERE revision = $2"),
                &[(&site_id, Type::INT8), (&revision, Type::INT8)],
            )?;
            let Some(found) = found else {
                return Ok(None);
            };
            let version = version(&found);
            let (config, device_ids) = match version.deleted {
                true => (None, Vec::new()),
                false => config_then(client, site_id, &version)?,
            };
            Ok(Some(VersionConfig {
                version,
                config,
                device_ids,
            }))
        })
    }

    /// The newest versions of a site whose hash nobody needed yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn versions_without_hash(&self, site_id: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
        self.run(|client| {
            Ok(client
                .query_typed(
                    "SELECT revision FROM (
                         SELECT revision, hash FROM config_versions
                          WHERE site_id = $1 AND NOT deleted ORDER BY revision DESC LIMIT $2) v
                      WHERE hash IS NULL",
                    &[(&site_id, Type::INT8), (&limit, Type::INT8)],
                )?
                .iter()
                .map(|row| row.get(0))
                .collect())
        })
    }

    /// Keeps the hash of a version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store_version_hash(
        &self,
        site_id: i64,
        revision: i64,
        hash: &str,
    ) -> Result<(), StoreError> {
        self.run(|client| {
            client.execute_typed(
                "UPDATE config_versions SET hash = $3
                  WHERE site_id = $1 AND revision = $2 AND hash IS NULL",
                &[
                    (&site_id, Type::INT8),
                    (&revision, Type::INT8),
                    (&hash, Type::TEXT),
                ],
            )?;
            Ok(())
        })
    }

    /// Makes a site's configuration what it was in `revision`, in one
    /// transaction. Devices are told apart by their address; one that was
    /// deleted comes back under its old id, and so with its history, where
    /// nobody took the id.
    ///
    /// `seen` is the newest version that the caller knows of; `None` takes
    /// the site back whatever it is now.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the site had a name then that another has
    /// now.
    pub fn roll_back(
        &self,
        actor: &Actor,
        site_id: i64,
        revision: i64,
        seen: Option<i64>,
    ) -> Result<Result<TakenBack, NoWayBack>, StoreError> {
        self.act(actor, |transaction| {
            let site = transaction.query_opt(
                "SELECT name FROM sites WHERE id = $1 FOR NO KEY UPDATE",
                &[&site_id],
            )?;
            let Some(site) = site else {
                return Ok(Err(NoWayBack::UnknownSite));
            };
            let name: String = site.get(0);
            let target = transaction.query_opt(
                "SELECT deleted FROM config_versions WHERE site_id = $1 AND revision = $2",
                &[&site_id, &revision],
            )?;
            match target.map(|row| row.get(0)) {
                None => return Ok(Err(NoWayBack::UnknownVersion)),
                Some(true) => return Ok(Err(NoWayBack::Deleted)),
                Some(false) => {}
            }
            let before = newest(transaction, site_id)?;
            if seen.is_some_and(|seen| seen != before) {
                return Ok(Err(NoWayBack::Changed { newest: before }));
            }

            let place: [&(dyn postgres::types::ToSql + Sync); 2] = [&site_id, &revision];
            let removed = transaction.execute(
                &format!(
                    "DELETE FROM devices d WHERE d.site_id = $1
                        AND NOT EXISTS (SELECT 1 FROM ({THEN}) h WHERE h.ip = d.ip)"
                ),
                &place,
            )?;
            let changed = transaction.execute(
                &format!(
                    "UPDATE devices d
                        SET name = h.name, device_type = h.device_type, driver = h.driver,
                            building = h.building, floor = h.floor, room = h.room,
                            driver_config = h.driver_config, expectations = h.expectations
                       FROM ({THEN}) h
                      WHERE d.site_id = $1 AND d.ip = h.ip
                        AND (d.name, d.device_type, d.driver, d.building, d.floor, d.room,
                             d.driver_config::text, d.expectations::text)
                            IS DISTINCT FROM
                            (h.name, h.device_type, h.driver, h.building, h.floor, h.room,
                             h.driver_config::text, h.expectations::text)"
                ),
                &place,
            )?;
            let mut added = 0;
            for (id, free) in [
                ("h.device_id", "NOT"),
                ("nextval(pg_get_serial_sequence('devices', 'id'))", ""),
            ] {
                added += transaction.execute(
                    &format!(
                        "INSERT INTO devices (id, site_id, name, ip, device_type, driver, building,
                                              floor, room, driver_config, expectations)
                         SELECT {id}, $1, h.name, h.ip, h.device_type, h.driver, h.building,
                                h.floor, h.room, h.driver_config, h.expectations
                           FROM ({THEN}) h
                          WHERE NOT EXISTS (SELECT 1 FROM devices d
                                             WHERE d.site_id = $1 AND d.ip = h.ip)
                            AND {free} EXISTS (SELECT 1 FROM devices d WHERE d.id = h.device_id)"
                    ),
                    &place,
                )?;
            }
            let settings = transaction.execute(
                "UPDATE sites s
                    SET name = h.name, timezone = h.timezone,
                        doubt_after_days = h.doubt_after_days, ok_interval_s = h.ok_interval_s,
                        ko_interval_s = h.ko_interval_s
                   FROM site_history h
                  WHERE s.id = $1 AND h.site_id = $1 AND h.rev_from <= $2
                    AND (h.rev_to IS NULL OR h.rev_to > $2)
                    AND (s.name, s.timezone, s.doubt_after_days, s.ok_interval_s, s.ko_interval_s)
                        IS DISTINCT FROM
                        (h.name, h.timezone, h.doubt_after_days, h.ok_interval_s, h.ko_interval_s)",
                &place,
            )?;
            let done = TakenBack {
                revision: newest(transaction, site_id)?,
                added,
                changed,
                removed,
                settings_changed: settings > 0,
            };
            record(
                transaction,
                actor,
                &Deed {
                    action: "site.rollback",
                    target: format!("site {site_id} ({name})"),
                    site_id: Some(site_id),
                    detail: json!({"to": revision, "from": before, "made": done.revision,
                                   "added": added, "changed": changed, "removed": removed,
                                   "settings": done.settings_changed}),
                },
            )?;
            Ok(Ok(done))
        })
    }

    /// What the agent of one site, or of each, says that it runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn agent_rows(&self, site_id: Option<i64>) -> Result<Vec<AgentRow>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT s.id, v.revision, v.at, v.hash, a.last_report_at, a.version, a.started_at,
                        a.running_hash, a.config_error,
                        coalesce(a.rejected_devices, '[]')::text, coalesce(a.dropped_reports, 0),
                        (SELECT min(later.at) FROM config_versions later
                          WHERE later.site_id = s.id
                            AND later.revision > (SELECT max(run.revision)
                                                    FROM config_versions run
                                                   WHERE run.site_id = s.id
                                                     AND run.hash = a.running_hash))
                   FROM sites s
                   LEFT JOIN site_agents a ON a.site_id = s.id
                   LEFT JOIN LATERAL (SELECT revision, at, hash FROM config_versions
                                       WHERE site_id = s.id ORDER BY revision DESC LIMIT 1) v
                          ON true
                  WHERE $1::bigint IS NULL OR s.id = $1
                  ORDER BY s.id",
                &[(&site_id, Type::INT8)],
            )?;
            Ok(rows
                .iter()
                .map(|row| AgentRow {
                    site_id: row.get(0),
                    wanted_revision: row.get(1),
                    wanted_since: row.get::<_, Option<SystemTime>>(2).map(from_sql),
                    wanted_hash: row.get(3),
                    last_report_at: row.get::<_, Option<SystemTime>>(4).map(from_sql),
                    version: row.get(5),
                    started_at: row.get::<_, Option<SystemTime>>(6).map(from_sql),
                    running_hash: row.get(7),
                    config_error: row.get(8),
                    rejected_devices: row.get(9),
                    dropped_reports: row.get(10),
                    left_behind_at: row.get::<_, Option<SystemTime>>(11).map(from_sql),
                })
                .collect())
        })
    }
}

fn version(row: &Row) -> Version {
    Version {
        revision: row.get(0),
        previous: row.get(1),
        at: from_sql(row.get(2)),
        author: row.get(3),
        origin: row.get(4),
        ip: row.get(5),
        hash: row.get(6),
        deleted: row.get(7),
    }
}

/// The revision of the newest version; 0 where there is none.
fn newest(client: &mut impl GenericClient, site_id: i64) -> Result<i64, postgres::Error> {
    Ok(client
        .query_one(
            "SELECT coalesce(max(revision), 0) FROM config_versions WHERE site_id = $1",
            &[&site_id],
        )?
        .get(0))
}

fn config_then(
    client: &mut impl GenericClient,
    site_id: i64,
    version: &Version,
) -> Result<(Option<SiteSnapshot>, Vec<i64>), postgres::Error> {
    let place: [(&(dyn postgres::types::ToSql + Sync), Type); 2] =
        [(&site_id, Type::INT8), (&version.revision, Type::INT8)];
    let site = client.query_typed(
        "SELECT name, timezone, doubt_after_days, ok_interval_s, ko_interval_s
           FROM site_history
          WHERE site_id = $1 AND rev_from <= $2 AND (rev_to IS NULL OR rev_to > $2)",
        &place,
    )?;
    let Some(site) = site.first() else {
        return Ok((None, Vec::new()));
    };
    let rows = client.query_typed(
        &format!(
            "SELECT h.ip, h.name, h.building, h.floor, h.room, h.device_type, h.driver,
                    nullif(h.driver_config, 'null')::text, nullif(h.expectations, 'null')::text,
                    h.device_id
               FROM ({THEN}) h ORDER BY h.ip COLLATE \"C\""
        ),
        &place,
    )?;
    let devices = rows
        .iter()
        .map(|row| DeviceRow {
            ip: row.get(0),
            name: row.get(1),
            building: row.get(2),
            floor: row.get(3),
            room: row.get(4),
            device_type: row.get(5),
            driver: row.get(6),
            driver_config: row.get(7),
            expectations: row.get(8),
        })
        .collect();
    let snapshot = SiteSnapshot {
        revision: Revision {
            site_id,
            number: version.revision,
        },
        name: site.get(0),
        timezone: site.get(1),
        doubt_after_days: site.get(2),
        ok_interval_s: site.get(3),
        ko_interval_s: site.get(4),
        stored_version: version.hash.clone(),
        devices,
    };
    Ok((Some(snapshot), rows.iter().map(|row| row.get(9)).collect()))
}
