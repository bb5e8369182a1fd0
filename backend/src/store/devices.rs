//! What is known of the devices: their configuration, without its secrets,
//! and what was last observed.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::Row;
use postgres::types::Type;

use super::time::from_sql;
use super::{Store, StoreError};

/// Which device it is, and where.
#[derive(Debug, Clone)]
pub struct DeviceLabel {
    /// Its id.
    pub id: i64,
    /// Its site's name.
    pub site: String,
    /// Its address.
    pub ip: String,
    /// Its name.
    pub name: String,
    /// Its building; `""` where unknown.
    pub building: String,
    /// Its floor; `""` where unknown.
    pub floor: String,
    /// Its room; `""` where unknown.
    pub room: String,
    /// What it is.
    pub device_type: String,
    /// How it is probed.
    pub driver: String,
}

impl DeviceLabel {
    /// The columns that [`Self::read`] reads first of a row, of the tables
    /// `devices d` and `sites s`.
    const COLUMNS: &str = "d.id, s.name, d.ip, d.name, coalesce(d.building, ''), \
         coalesce(d.floor, ''), coalesce(d.room, ''), d.device_type, d.driver";
    /// How many they are.
    const COUNT: usize = 9;

    fn read(row: &Row) -> Self {
        Self {
            id: row.get(0),
            site: row.get(1),
            ip: row.get(2),
            name: row.get(3),
            building: row.get(4),
            floor: row.get(5),
            room: row.get(6),
            device_type: row.get(7),
            driver: row.get(8),
        }
    }
}

/// A device with its state.
#[derive(Debug, Clone)]
pub struct DeviceReading {
    /// Which it is.
    pub device: DeviceLabel,
    /// What was observed; `None` before the first report.
    pub state: Option<DeviceState>,
}

/// What was last observed of a device.
#[derive(Debug, Clone)]
pub struct DeviceState {
    /// Whether it answered, in the contract's word.
    pub status: String,
    /// What that means, in the contract's word.
    pub verdict: String,
    /// For a person.
    pub detail: Option<String>,
    /// What was measured: the text of a JSON object.
    pub metrics: String,
    /// When the agent observed it.
    pub observed_at: Timestamp,
    /// When the backend last heard of it.
    pub last_seen: Timestamp,
    /// The newest observation that found it online.
    pub last_ok_at: Option<Timestamp>,
    /// Since when the verdict is what it is.
    pub verdict_since: Timestamp,
    /// It was not heard of for so long that status and verdict are unknown,
    /// whatever was observed last.
    pub stale: bool,
}

impl DeviceState {
    /// Reads `status, verdict, detail, metrics::text, observed_at, last_seen,
    /// last_ok_at, verdict_since, stale` from the column `first` on; `None`
    /// where nothing was reported yet.
    pub(super) fn read(row: &Row, first: usize) -> Option<Self> {
        Some(Self {
            status: row.get::<_, Option<String>>(first)?,
            verdict: row.get(first + 1),
            detail: row.get(first + 2),
            metrics: row.get(first + 3),
            observed_at: from_sql(row.get::<_, SystemTime>(first + 4)),
            last_seen: from_sql(row.get::<_, SystemTime>(first + 5)),
            last_ok_at: row.get::<_, Option<SystemTime>>(first + 6).map(from_sql),
            verdict_since: from_sql(row.get::<_, SystemTime>(first + 7)),
            stale: row.get(first + 8),
        })
    }
}

/// What can be sampled of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// Whether it answers: `online` or `offline`.
    Up,
    /// Its verdict, in the contract's word.
    Verdict,
    /// A number of its metrics, by its name.
    Metric(&'static str),
}

/// One sample of a device.
#[derive(Debug, Clone)]
pub struct DeviceSample {
    /// Which it is.
    pub device: DeviceLabel,
    /// What was sampled, as a text.
    pub value: String,
}

/// How many sites, alerts and devices there are.
#[derive(Debug, Clone)]
pub struct Counts {
    /// The sites.
    pub sites: i64,
    /// Open alerts.
    pub open_alerts: i64,
    /// Sites whose agent is silent.
    pub silent_agents: i64,
    /// Devices by verdict; `none` where nothing was reported yet.
    pub devices: Vec<(String, i64)>,
}

impl Store {
    /// The devices of one site, or of all, by id: the next behind the id `after`,
    /// at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_readings(
        &self,
        site_id: Option<i64>,
        after: i64,
        most: i64,
    ) -> Result<Vec<DeviceReading>, StoreError> {
        let query = format!(
            "SELECT {}, t.status, t.verdict, t.detail, t.metrics::text, t.observed_at,
                    t.last_seen, t.last_ok_at, t.verdict_since, t.stale
               FROM devices d JOIN sites s ON s.id = d.site_id
               JOIN device_current t ON t.device_id = d.id
              WHERE ($1::bigint IS NULL OR d.site_id = $1) AND d.id > $2
              ORDER BY d.id LIMIT $3",
            DeviceLabel::COLUMNS
        );
        self.run(|client| {
            let rows = client.query_typed(
                &query,
                &[
                    (&site_id, Type::INT8),
                    (&after, Type::INT8),
                    (&most, Type::INT8),
                ],
            )?;
            let reading = |row| DeviceReading {
                device: DeviceLabel::read(row),
                state: DeviceState::read(row, DeviceLabel::COUNT),
            };
            Ok(rows.iter().map(reading).collect())
        })
    }

    /// What is sampled of each device that has it, by id: of the next behind the id
    /// `after`, at most `most` of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_samples(
        &self,
        what: Sampled,
        after: i64,
        most: i64,
    ) -> Result<Vec<DeviceSample>, StoreError> {
        let (value, of) = match what {
            Sampled::Up => ("t.status", "t.status IN ('online', 'offline')"),
            Sampled::Verdict => ("t.verdict", "t.verdict IS NOT NULL"),
            // What is old is nothing that is now.
            Sampled::Metric(_) => (
                "t.metrics ->> $3",
                "jsonb_typeof(t.metrics -> $3) = 'number' AND NOT t.stale",
            ),
        };
        let query = format!(
            "SELECT {}, {value}
               FROM devices d JOIN sites s ON s.id = d.site_id
               JOIN device_current t ON t.device_id = d.id
              WHERE d.id > $1 AND {of}
              ORDER BY d.id LIMIT $2",
            DeviceLabel::COLUMNS
        );
        self.run(|client| {
            let rows = match what {
                Sampled::Metric(name) => client.query_typed(
                    &query,
                    &[
                        (&after, Type::INT8),
                        (&most, Type::INT8),
                        (&name, Type::TEXT),
                    ],
                )?,
                _ => client.query_typed(&query, &[(&after, Type::INT8), (&most, Type::INT8)])?,
            };
            let sample = |row: &Row| DeviceSample {
                device: DeviceLabel::read(row),
                value: row.get(DeviceLabel::COUNT),
            };
            Ok(rows.iter().map(sample).collect())
        })
    }

    /// How many sites, alerts and devices there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.run(|client| {
            let row = client.query_typed(
                "SELECT (SELECT count(*) FROM sites),
                        (SELECT count(*) FROM alerts WHERE closed_at IS NULL),
                        (SELECT count(*) FROM site_agents WHERE silent_since IS NOT NULL)",
                &[],
            )?;
            let devices = client.query_typed(
                "SELECT coalesce(verdict, 'none'), count(*) FROM device_current GROUP BY 1",
                &[],
            )?;
            Ok(Counts {
                sites: row.first().map_or(0, |row| row.get(0)),
                open_alerts: row.first().map_or(0, |row| row.get(1)),
                silent_agents: row.first().map_or(0, |row| row.get(2)),
                devices: devices.iter().map(|row| (row.get(0), row.get(1))).collect(),
            })
        })
    }
}
