//! A site's configuration in one snapshot.

use postgres::Row;
use postgres::types::Type;

use super::sites::TokenDigest;
use super::tokens::TokenState;
use super::{Store, StoreError};

/// Which configuration a site has, without the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// The site.
    pub site_id: i64,
    /// Counts the changes of its configuration.
    pub number: i64,
}

/// A site's configuration as it was at one moment.
#[derive(Debug, Clone)]
pub struct SiteSnapshot {
    /// Which one it is.
    pub revision: Revision,
    /// The site's name.
    pub name: String,
    /// The site's time zone.
    pub timezone: String,
    /// Days until doubt.
    pub doubt_after_days: i32,
    /// Seconds between sweeps while all is well.
    pub ok_interval_s: i32,
    /// Seconds between sweeps while something is in fault.
    pub ko_interval_s: i32,
    /// The hash last stored.
    pub stored_version: Option<String>,
    /// The devices, sorted by `ip` as a string, by code point.
    pub devices: Vec<DeviceRow>,
}

/// A configured device. The JSON fields are PostgreSQL's own text of them, so
/// that numbers keep every digit; `None` where NULL or the JSON null, which
/// most libraries cannot tell apart.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Its address, unique in the site.
    pub ip: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub building: Option<String>,
    /// Where it stands.
    pub floor: Option<String>,
    /// Where it stands.
    pub room: Option<String>,
    /// What it is.
    pub device_type: String,
    /// How it is probed.
    pub driver: String,
    /// The driver's settings as a JSON text.
    pub driver_config: Option<String>,
    /// What is expected of it, as a JSON text.
    pub expectations: Option<String>,
}

/// What [`snapshot_of`] reads; `WHERE` picks one site, sorted by
/// `d.ip COLLATE "C"`.
pub(super) const SNAPSHOT: &str = "
SELECT s.id, s.config_revision, s.name, s.timezone, s.doubt_after_days,
       s.ok_interval_s, s.ko_interval_s, s.config_version,
       d.ip, d.name, d.building, d.floor, d.room, d.device_type, d.driver,
       nullif(d.driver_config, 'null')::text,
       nullif(d.expectations, 'null')::text
  FROM sites s LEFT JOIN devices d ON d.site_id = s.id";

/// One site's configuration out of the rows of [`SNAPSHOT`]; `None` where
/// there is no such site.
pub(super) fn snapshot_of(rows: &[Row]) -> Option<SiteSnapshot> {
    let first = rows.first()?;
    let mut snapshot = SiteSnapshot {
        revision: Revision {
            site_id: first.get(0),
            number: first.get(1),
        },
        name: first.get(2),
        timezone: first.get(3),
        doubt_after_days: first.get(4),
        ok_interval_s: first.get(5),
        ko_interval_s: first.get(6),
        stored_version: first.get(7),
        devices: Vec::with_capacity(rows.len()),
    };
    for row in rows {
        // A site without devices has one row without a device.
        let Some(ip) = row.get(8) else { break };
        snapshot.devices.push(DeviceRow {
            ip,
            name: row.get(9),
            building: row.get(10),
            floor: row.get(11),
            room: row.get(12),
            device_type: row.get(13),
            driver: row.get(14),
            driver_config: row.get(15),
            expectations: row.get(16),
        });
    }
    Some(snapshot)
}

impl Store {
    /// The revision of the configuration of the site that this token opens,
    /// and how the token stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn config_revision(
        &self,
        token: &TokenDigest,
    ) -> Result<Option<(Revision, TokenState)>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                &format!(
                    "SELECT s.id, s.config_revision, {} FROM sites s {}
                      WHERE s.id = av_site_of_token($1)",
                    TokenState::SQL,
                    TokenState::JOIN
                ),
                &[(&token.as_str(), Type::TEXT)],
            )?;
            Ok(row.map(|row| {
                let revision = Revision {
                    site_id: row.get(0),
                    number: row.get(1),
                };
                (revision, TokenState::from_sql(row.get(2)))
            }))
        })
    }

    /// The configuration of the site that this token opens: one statement,
    /// and so one snapshot of revision and devices together.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn config_snapshot(&self, token: &TokenDigest) -> Result<Option<SiteSnapshot>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "{SNAPSHOT} WHERE s.id = av_site_of_token($1) ORDER BY d.ip COLLATE \"C\""
                ),
                &[(&token.as_str(), Type::TEXT)],
            )?;
            Ok(snapshot_of(&rows))
        })
    }

    /// Stores the hash of a revision and the time, where that revision is
    /// still the site's and the hash another one; answers whether the site
    /// now has this hash. The version of that revision gets it too.
    ///
    /// It never waits: where the row is locked, by somebody who is changing
    /// the configuration, a later poll stores what comes of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store_config_version(&self, revision: Revision, hash: &str) -> Result<bool, StoreError> {
        self.run(|client| {
            // The configuration of a revision is that of the newest version
            // up to it: some revisions, as of a new token, change nothing.
            let stored = client.query_typed(
                "WITH site AS (
                     UPDATE sites
                        SET config_version = $3,
                            config_updated_at = CASE WHEN config_version IS DISTINCT FROM $3
                                                     THEN now() ELSE config_updated_at END
                      WHERE id = (SELECT id FROM sites
                                   WHERE id = $1 AND config_revision = $2
                                     FOR NO KEY UPDATE SKIP LOCKED)
                  RETURNING id
                 ), version AS (
                     UPDATE config_versions v SET hash = $3
                       FROM site
                      WHERE v.site_id = site.id AND v.hash IS NULL AND NOT v.deleted
                        AND v.revision = (SELECT max(revision) FROM config_versions
                                           WHERE site_id = $1 AND revision <= $2)
                 )
                 SELECT id FROM site",
                &[
                    (&revision.site_id, Type::INT8),
                    (&revision.number, Type::INT8),
                    (&hash, Type::TEXT),
                ],
            )?;
            Ok(!stored.is_empty())
        })
    }
}
