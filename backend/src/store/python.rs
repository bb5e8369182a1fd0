//! The Python system's database, as its `models.py` makes it: read in one
//! unchanging view, and never written to.
//!
//! Every value is read as PostgreSQL's own text of it, so that numbers in JSON
//! keep their digits and times their microseconds. Columns that an earlier
//! version has not are NULL.

use std::collections::BTreeMap;

use postgres::{Client, Row, Transaction};

use super::connector::Purpose;
use super::{Connector, StoreError};

/// Rows of the history in memory at a time.
const BATCH: i32 = 1000;
/// How many rows are named of which a value has no place.
const NAMED: i64 = 5;

const SITES: &str = "sites";
const DEVICES: &str = "devices";
const EVENTS: &str = "device_events";
const ALERTS: &str = "device_alerts";

/// The columns that are taken over, in the order of the structures below.
const TAKEN: [(&str, &[&str]); 4] = [
    (
        SITES,
        &[
            "id",
            "name",
            "token",
            "timezone",
            "doubt_after_days",
            "ok_interval_s",
            "ko_interval_s",
            "config_version",
            "config_updated_at",
        ],
    ),
    (
        DEVICES,
        &[
            "id",
            "site_id",
            "name",
            "ip",
            "device_type",
            "driver",
            "building",
            "floor",
            "room",
            "driver_config",
            "expectations",
            "status",
            "verdict",
            "detail",
            "metrics",
            "last_seen",
            "last_ok_at",
        ],
    ),
    (
        EVENTS,
        &[
            "id",
            "site_id",
            "device_id",
            "ip",
            "created_at",
            "status",
            "verdict",
            "detail",
            "metrics_json",
        ],
    ),
    (
        ALERTS,
        &[
            "id",
            "site_id",
            "device_id",
            "severity",
            "opened_at",
            "closed_at",
            "last_seen_at",
            "detail",
            "acknowledged_at",
            "acknowledged_by",
        ],
    ),
];
/// Without these there is nothing to take over.
const NEEDED: [(&str, &[&str]); 2] = [
    (SITES, &["id", "name", "token"]),
    (DEVICES, &["id", "site_id", "name", "ip", "driver"]),
];

/// Why the Python system's database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is another one.
    #[error("this is no database of the Python system: {0}")]
    Another(String),
}

impl From<postgres::Error> for PythonError {
    fn from(error: postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A connection to it.
pub struct Python {
    client: Client,
}

/// One view of it.
pub struct Reading<'a> {
    transaction: Transaction<'a>,
    columns: BTreeMap<&'static str, Vec<String>>,
    /// Everything later is ahead of the clock of the database that it goes to.
    now: String,
}

/// A row of `sites`.
#[derive(Debug, Clone, Default)]
pub struct PythonSite {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its token, in plain text.
    pub token: String,
    /// Its time zone.
    pub timezone: String,
    /// Days until doubt.
    pub doubt_after_days: Option<i64>,
    /// Seconds between sweeps.
    pub ok_interval_s: Option<i64>,
    /// Seconds between sweeps while something is in fault.
    pub ko_interval_s: Option<i64>,
    /// The hash that it last stored.
    pub config_version: Option<String>,
    /// When.
    pub config_updated_at: Option<String>,
}

/// A row of `devices`.
#[derive(Debug, Clone, Default)]
pub struct PythonDevice {
    /// Its id.
    pub id: i64,
    /// Its site.
    pub site_id: i64,
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// What it is.
    pub device_type: String,
    /// How it is probed.
    pub driver: String,
    /// Where it is.
    pub building: Option<String>,
    /// Where it is.
    pub floor: Option<String>,
    /// Where it is.
    pub room: Option<String>,
    /// JSON.
    pub driver_config: Option<String>,
    /// JSON.
    pub expectations: Option<String>,
    /// As last reported.
    pub status: Option<String>,
    /// As last reported.
    pub verdict: Option<String>,
    /// As last reported.
    pub detail: Option<String>,
    /// JSON, as last reported.
    pub metrics: Option<String>,
    /// When it was last reported; never where `None`.
    pub last_seen: Option<String>,
    /// When it was last online.
    pub last_ok_at: Option<String>,
}

/// A row of `device_events`.
#[derive(Debug, Clone, Default)]
pub struct PythonEvent {
    /// Its site.
    pub site_id: i64,
    /// Its device.
    pub device_id: i64,
    /// The device's address then.
    pub ip: String,
    /// When.
    pub at: String,
    /// What was found.
    pub status: Option<String>,
    /// What it meant.
    pub verdict: Option<String>,
    /// For a person.
    pub detail: Option<String>,
    /// JSON.
    pub metrics: Option<String>,
    /// Its time is ahead of the clock, or none.
    pub is_out_of_time: bool,
}

/// A row of `device_alerts`.
#[derive(Debug, Clone, Default)]
pub struct PythonAlert {
    /// Its id.
    pub id: i64,
    /// Its site.
    pub site_id: i64,
    /// Its device.
    pub device_id: i64,
    /// How bad.
    pub severity: Option<String>,
    /// When it was opened.
    pub opened_at: Option<String>,
    /// When it was closed.
    pub closed_at: Option<String>,
    /// When it was last reported, and not before it was opened.
    pub last_seen_at: Option<String>,
    /// For a person.
    pub detail: Option<String>,
    /// When a person took note of it.
    pub acknowledged_at: Option<String>,
    /// Who did.
    pub acknowledged_by: Option<String>,
    /// It says that it was closed before it was opened.
    pub is_backwards: bool,
}

/// Something that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// The table.
    pub table: String,
    /// A column of it; the whole table where `None`.
    pub column: Option<String>,
    /// In how many rows there is something; `None` where that may not be seen.
    pub rows: Option<u64>,
    /// The names of the first of them, where rows have names.
    pub names: Vec<String>,
}

impl Python {
    /// Connects to it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(connector: &Connector) -> Result<Self, StoreError> {
        Ok(Self {
            client: connector.connect(Purpose::Takeover)?.client,
        })
    }

    /// Begins to read. `now` is the time of the database that it goes to; its
    /// own where `None`.
    ///
    /// # Errors
    /// [`PythonError`].
    pub fn read(&mut self, now: Option<String>) -> Result<Reading<'_>, PythonError> {
        let mut transaction = self
            .client
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()?;
        let now = match now {
            Some(now) => now,
            None => transaction.query_one("SELECT now()::text", &[])?.get(0),
        };
        let mut columns = BTreeMap::new();
        for (table, _) in TAKEN {
            let rows = transaction.query(
                "SELECT attname::text FROM pg_attribute
                  WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
                  ORDER BY attname",
                &[&table],
            )?;
            let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            columns.insert(table, names);
        }
        let reading = Reading {
            transaction,
            columns,
            now,
        };
        for (table, needed) in NEEDED {
            let missing = needed.iter().find(|column| !reading.has(table, column));
            if let Some(column) = missing {
                return Err(PythonError::Another(format!(
                    "it has no {table}.{column}, or this user may not see it"
                )));
            }
        }
        if reading.has(SITES, "config_revision") {
            return Err(PythonError::Another(
                "its tables are those of av-backend".to_owned(),
            ));
        }
        Ok(reading)
    }
}

impl Reading<'_> {
    fn has(&self, table: &str, column: &str) -> bool {
        self.columns
            .get(table)
            .is_some_and(|columns| columns.iter().any(|there| there == column))
    }

    /// The time that counts as now.
    #[must_use]
    pub fn now(&self) -> &str {
        &self.now
    }

    /// Whether it has a history.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.has(EVENTS, "created_at")
    }

    /// Whether it has alerts.
    #[must_use]
    pub fn has_alerts(&self) -> bool {
        self.has(ALERTS, "opened_at")
    }

    /// The text of a column, or NULL; times are not ahead of the clock `$1`.
    fn text_of(&self, table: &str, column: &str) -> String {
        let name = format!("\"{column}\"");
        match column {
            column if !self.has(table, column) => "NULL::text".to_owned(),
            "last_seen" | "last_ok_at" | "config_updated_at" | "opened_at" | "acknowledged_at" => {
                on_time(&name)
            }
            "closed_at" => format!(
                "CASE WHEN {name} IS NOT NULL THEN greatest({}, least(opened_at, $1::text::timestamptz)) END::text",
                finite(&name)
            ),
            "last_seen_at" => format!(
                "greatest({}, least(opened_at, $1::text::timestamptz))::text",
                finite(&name)
            ),
            _ => format!("{name}::text"),
        }
    }

    fn selected(&self, table: &'static str) -> String {
        let taken = TAKEN.iter().find(|(name, _)| *name == table);
        taken
            .map(|(_, columns)| *columns)
            .unwrap_or_default()
            .iter()
            .map(|column| self.text_of(table, column))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn rows(&mut self, query: &str) -> Result<Vec<Row>, postgres::Error> {
        // Mentioned where no time is.
        let query = format!("SELECT * FROM ({query}) q WHERE $1::text IS NOT NULL");
        self.transaction.query(&query, &[&self.now])
    }

    /// Every site, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sites(&mut self) -> Result<Vec<PythonSite>, StoreError> {
        let query = format!("SELECT {} FROM {SITES} ORDER BY id", self.selected(SITES));
        let rows = self.rows(&query)?;
        Ok(rows
            .iter()
            .map(|row| PythonSite {
                id: number(row, 0).unwrap_or_default(),
                name: word(row, 1),
                token: word(row, 2),
                timezone: word(row, 3),
                doubt_after_days: number(row, 4),
                ok_interval_s: number(row, 5),
                ko_interval_s: number(row, 6),
                config_version: row.get(7),
                config_updated_at: row.get(8),
            })
            .collect())
    }

    /// Every device, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices(&mut self) -> Result<Vec<PythonDevice>, StoreError> {
        let query = format!(
            "SELECT {} FROM {DEVICES} ORDER BY id",
            self.selected(DEVICES)
        );
        let rows = self.rows(&query)?;
        Ok(rows
            .iter()
            .map(|row| PythonDevice {
                id: number(row, 0).unwrap_or_default(),
                site_id: number(row, 1).unwrap_or_default(),
                name: word(row, 2),
                ip: word(row, 3),
                device_type: word(row, 4),
                driver: word(row, 5),
                building: row.get(6),
                floor: row.get(7),
                room: row.get(8),
                driver_config: row.get(9),
                expectations: row.get(10),
                status: row.get(11),
                verdict: row.get(12),
                detail: row.get(13),
                metrics: row.get(14),
                last_seen: row.get(15),
                last_ok_at: row.get(16),
            })
            .collect())
    }

    /// The time of the first event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn first_event(&mut self) -> Result<Option<String>, StoreError> {
        if !self.has_events() {
            return Ok(None);
        }
        let row = self.transaction.query_one(
            "SELECT min(created_at)::text FROM device_events WHERE isfinite(created_at)",
            &[],
        )?;
        Ok(row.get(0))
    }

    /// Looks at each event in turn, in the order of devices and times. Few are
    /// in memory at a time.
    ///
    /// # Errors
    /// Those of `look` and of the database.
    pub fn each_event<E>(
        &mut self,
        fail: impl Fn(StoreError) -> E,
        look: impl FnMut(PythonEvent) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.has_events() {
            return Ok(());
        }
        let query = format!(
            "SELECT {}, coalesce(NOT isfinite(created_at) OR created_at > $1::text::timestamptz, true)
               FROM {EVENTS} ORDER BY device_id, created_at, id",
            self.selected(EVENTS)
        );
        let event = |row: &Row| PythonEvent {
            site_id: number(row, 1).unwrap_or_default(),
            device_id: number(row, 2).unwrap_or_default(),
            ip: word(row, 3),
            at: word(row, 4),
            status: row.get(5),
            verdict: row.get(6),
            detail: row.get(7),
            metrics: row.get(8),
            is_out_of_time: row.get(9),
        };
        self.each(&query, fail, event, look)
    }

    /// Looks at each alert in turn, in the order of devices and times.
    ///
    /// # Errors
    /// Those of `look` and of the database.
    pub fn each_alert<E>(
        &mut self,
        fail: impl Fn(StoreError) -> E,
        look: impl FnMut(PythonAlert) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.has_alerts() {
            return Ok(());
        }
        let backwards = match self.has(ALERTS, "closed_at") {
            true => "coalesce(closed_at < opened_at, false)",
            false => "false",
        };
        let query = format!(
            "SELECT {}, {backwards} AND $1::text IS NOT NULL
               FROM {ALERTS} ORDER BY device_id, opened_at, id",
            self.selected(ALERTS)
        );
        let alert = |row: &Row| PythonAlert {
            id: number(row, 0).unwrap_or_default(),
            site_id: number(row, 1).unwrap_or_default(),
            device_id: number(row, 2).unwrap_or_default(),
            severity: row.get(3),
            opened_at: row.get(4),
            closed_at: row.get(5),
            last_seen_at: row.get(6),
            detail: row.get(7),
            acknowledged_at: row.get(8),
            acknowledged_by: row.get(9),
            is_backwards: row.get(10),
        };
        self.each(&query, fail, alert, look)
    }

    fn each<T, E>(
        &mut self,
        query: &str,
        fail: impl Fn(StoreError) -> E,
        of: impl Fn(&Row) -> T,
        mut look: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |error: postgres::Error| fail(error.into());
        let portal = self.transaction.bind(query, &[&self.now]).map_err(fail)?;
        loop {
            let rows = self
                .transaction
                .query_portal(&portal, BATCH)
                .map_err(fail)?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in &rows {
                look(of(row))?;
            }
        }
    }

    /// What is there and is not taken over: columns that hold something, and
    /// the other tables of the same schema.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unplaced(&mut self) -> Result<Vec<Unplaced>, StoreError> {
        let mut found = Vec::new();
        for (table, taken) in TAKEN {
            let left: Vec<String> = self.columns[table]
                .iter()
                .filter(|column| !taken.contains(&column.as_str()))
                .cloned()
                .collect();
            if left.is_empty() {
                continue;
            }
            let counts: Vec<String> = left
                .iter()
                .map(|column| format!("count(*) FILTER (WHERE {})", has_something(column)))
                .collect();
            let row = self
                .transaction
                .query_one(&format!("SELECT {} FROM {table}", counts.join(", ")), &[])?;
            for (nth, column) in left.into_iter().enumerate() {
                let rows = u64::try_from(row.get::<_, i64>(nth)).unwrap_or_default();
                if rows == 0 {
                    continue;
                }
                let names = match table {
                    SITES => self.names(&column)?,
                    _ => Vec::new(),
                };
                found.push(Unplaced {
                    table: table.to_owned(),
                    column: Some(column),
                    rows: Some(rows),
                    names,
                });
            }
        }
        let others = self.transaction.query(
            "SELECT c.relname::text, c.oid::regclass::text, has_table_privilege(c.oid, 'SELECT')
               FROM pg_class c
              WHERE c.relnamespace = (SELECT relnamespace FROM pg_class
                                       WHERE oid = to_regclass('sites'))
                AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
                AND c.relname NOT IN ('sites', 'devices', 'device_events', 'device_alerts')
              ORDER BY 1",
            &[],
        )?;
        for other in &others {
            let (table, quoted): (String, String) = (other.get(0), other.get(1));
            let rows = match other.get(2) {
                true => {
                    let count = format!("SELECT count(*) FROM {quoted}");
                    let row = self.transaction.query_one(&count, &[])?;
                    u64::try_from(row.get::<_, i64>(0)).ok()
                }
                false => None,
            };
            if rows != Some(0) {
                found.push(Unplaced {
                    table,
                    column: None,
                    rows,
                    names: Vec::new(),
                });
            }
        }
        Ok(found)
    }

    fn names(&mut self, column: &str) -> Result<Vec<String>, postgres::Error> {
        let query = format!(
            "SELECT name::text FROM {SITES} WHERE {} ORDER BY id LIMIT {NAMED}",
            has_something(column)
        );
        let rows = self.transaction.query(&query, &[])?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

fn has_something(column: &str) -> String {
    let quoted = column.replace('"', "\"\"");
    format!("\"{quoted}\"::text NOT IN ('', '{{}}', '[]', 'null')")
}

/// The time, where it is one, and not ahead of the clock.
fn finite(name: &str) -> String {
    format!("CASE WHEN isfinite({name}) THEN least({name}, $1::text::timestamptz) END")
}

fn on_time(name: &str) -> String {
    format!("({})::text", finite(name))
}

fn number(row: &Row, at: usize) -> Option<i64> {
    row.get::<_, Option<&str>>(at)?.parse().ok()
}

fn word(row: &Row, at: usize) -> String {
    row.get::<_, Option<String>>(at).unwrap_or_default()
}
