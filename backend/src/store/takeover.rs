//! What another system had, written into an empty schema of ours in one
//! transaction: an import that is interrupted leaves nothing.

use std::io::Write as _;

use postgres::types::Type;
use postgres::{Client, CopyInWriter, Transaction};

use super::actor::Actor;
use super::audit::{Deed, record};
use super::config::{SNAPSHOT, SiteSnapshot, snapshot_of};
use super::connector::Purpose;
use super::locks::Lock;
use super::{Connector, StoreError};

/// So much text is sent at a time.
const CHUNK: usize = 64 * 1024;
/// How many sites are named that are there already.
const NAMED: i64 = 5;

/// A connection for an import.
pub struct Takeover {
    client: Client,
}

/// The transaction.
pub struct Taking<'a> {
    transaction: Transaction<'a>,
}

/// Why the schema cannot take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupied {
    /// How many sites are there already, and the names of the first.
    Sites(i64, Vec<String>),
    /// No site is there, and what one left behind is.
    History,
    /// Another import is at it.
    Busy,
}

/// Which table rows go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The history.
    Observations,
    /// Sites.
    Sites,
    /// Devices.
    Devices,
    /// What is known of the devices.
    States,
    /// Alerts.
    Alerts,
}

impl Table {
    fn copy(self) -> &'static str {
        match self {
            Self::Observations => {
                "COPY observations (site_id, device_id, ip, observed_at, received_at, status,
                                    verdict, detail, metrics) FROM STDIN"
            }
            Self::Sites => {
                "COPY sites (id, name, token, timezone, doubt_after_days, ok_interval_s,
                             ko_interval_s, config_version, config_updated_at, created_at)
                 FROM STDIN"
            }
            Self::Devices => {
                "COPY devices (id, site_id, name, ip, device_type, driver, building, floor, room,
                               driver_config, expectations, created_at) FROM STDIN"
            }
            Self::States => {
                "COPY device_states (device_id, status, verdict, detail, metrics, observed_at,
                                     last_seen, last_ok_at, status_since, verdict_since,
                                     recorded_at) FROM STDIN"
            }
            Self::Alerts => {
                "COPY alerts (id, site_id, device_id, device_ip, device_name, kind, severity,
                              opened_at, closed_at, closed_by, detail, acknowledged_at,
                              acknowledged_by) FROM STDIN"
            }
        }
    }
}

/// Rows on their way into a table.
pub struct Rows<'a> {
    writer: CopyInWriter<'a>,
    text: String,
    count: u64,
}

impl Takeover {
    /// Connects. Nothing is migrated.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(connector: &Connector) -> Result<Self, StoreError> {
        Ok(Self {
            client: connector.connect(Purpose::Takeover)?.client,
        })
    }

    /// Whether the schema is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_migrated(&mut self) -> Result<bool, StoreError> {
        let row = self.client.query_one(
            "SELECT to_regclass('schema_migrations') IS NOT NULL
                AND to_regclass('config_versions') IS NOT NULL",
            &[],
        )?;
        Ok(row.get(0))
    }

    /// Begins, or says what is in the way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(&mut self) -> Result<Result<Taking<'_>, Occupied>, StoreError> {
        let mut transaction = self.client.transaction()?;
        if !Lock::TakeOver.take(&mut transaction)? {
            return Ok(Err(Occupied::Busy));
        }
        // Until the end none is added.
        transaction.batch_execute("LOCK TABLE sites, devices IN SHARE ROW EXCLUSIVE MODE")?;
        let row = transaction.query_one(
            &format!(
                "SELECT (SELECT count(*) FROM sites),
                        ARRAY(SELECT name FROM sites ORDER BY id LIMIT {NAMED}),
                        EXISTS (SELECT FROM config_versions) OR EXISTS (SELECT FROM observations)
                        OR EXISTS (SELECT FROM device_days)"
            ),
            &[],
        )?;
        let sites: i64 = row.get(0);
        if sites > 0 {
            return Ok(Err(Occupied::Sites(sites, row.get(1))));
        }
        if row.get(2) {
            return Ok(Err(Occupied::History));
        }
        Ok(Ok(Taking { transaction }))
    }
}

impl Taking<'_> {
    /// The time of this transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn now(&mut self) -> Result<String, StoreError> {
        Ok(self
            .transaction
            .query_one("SELECT now()::text", &[])?
            .get(0))
    }

    /// Makes the history's months from this time on that are not there, five
    /// years of them at most: what is older is dropped anyway, and the default
    /// partition takes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_months(&mut self, first: &str) -> Result<(), StoreError> {
        let months = self.transaction.query_typed(
            "SELECT format('CREATE TABLE %I PARTITION OF observations FOR VALUES FROM (%L) TO (%L)',
                           part, month AT TIME ZONE 'UTC',
                           (month + interval '1 month') AT TIME ZONE 'UTC')
               FROM generate_series(
                        greatest(date_trunc('month', $1::text::timestamptz AT TIME ZONE 'UTC'),
                                 date_trunc('month', now() AT TIME ZONE 'UTC') - interval '5 years'),
                        date_trunc('month', now() AT TIME ZONE 'UTC'), '1 month') month
              CROSS JOIN LATERAL to_char(month, '\"observations_y\"YYYY\"m\"MM') part
              WHERE NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                                 WHERE inhparent = 'observations'::regclass AND relname = part)
              ORDER BY month",
            &[(&first, Type::TEXT)],
        )?;
        for month in &months {
            self.transaction.batch_execute(month.get(0))?;
        }
        Ok(())
    }

    /// Begins to write rows. Who does so is kept in the history of what they
    /// configure.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write(&mut self, actor: &Actor, table: Table) -> Result<Rows<'_>, StoreError> {
        actor.introduce(&mut self.transaction)?;
        Ok(Rows {
            writer: self.transaction.copy_in(table.copy())?,
            text: String::with_capacity(CHUNK + 4096),
            count: 0,
        })
    }

    /// Gives these alerts the severity that they had: one that is opened takes
    /// that of its device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_warnings(&mut self, alerts: &[i64]) -> Result<(), StoreError> {
        self.transaction.execute(
            "UPDATE alerts SET severity = 'warning' WHERE id = ANY ($1)",
            &[&alerts],
        )?;
        Ok(())
    }

    /// Has ids go on after the highest; `device` is the highest of a device,
    /// deleted ones too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn go_on_counting(&mut self, device: i64) -> Result<(), StoreError> {
        self.transaction.execute(
            "SELECT setval(pg_get_serial_sequence('sites', 'id'),
                           greatest((SELECT max(id) FROM sites), 1)),
                    setval(pg_get_serial_sequence('devices', 'id'),
                           greatest((SELECT max(id) FROM devices), $1, 1)),
                    setval(pg_get_serial_sequence('alerts', 'id'),
                           greatest((SELECT max(id) FROM alerts), 1))",
            &[&device],
        )?;
        Ok(())
    }

    /// A site's configuration as it is here now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot(&mut self, site: i64) -> Result<Option<SiteSnapshot>, StoreError> {
        let rows = self.transaction.query_typed(
            &format!("{SNAPSHOT} WHERE s.id = $1 ORDER BY d.ip COLLATE \"C\""),
            &[(&site, Type::INT8)],
        )?;
        Ok(snapshot_of(&rows))
    }

    /// Writes down who did it and ends the transaction.
    ///
    /// # Errors
    /// [`StoreError`]. Where the connection is lost at that moment it is not
    /// known whether all or nothing was taken.
    pub fn commit(mut self, actor: &Actor, deed: &Deed) -> Result<(), StoreError> {
        record(&mut self.transaction, actor, deed)?;
        Ok(self.transaction.commit()?)
    }
}

impl Rows<'_> {
    /// Adds a row: the columns of [`Table`], NULL where `None`.
    ///
    /// # Errors
    /// [`StoreError`], for rows before this one too.
    pub fn add(&mut self, values: &[Option<&str>]) -> Result<(), StoreError> {
        for (nth, value) in values.iter().enumerate() {
            if nth > 0 {
                self.text.push('\t');
            }
            push(&mut self.text, *value);
        }
        self.text.push('\n');
        self.count += 1;
        if self.text.len() >= CHUNK {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), StoreError> {
        let sent = self.writer.write_all(self.text.as_bytes());
        self.text.clear();
        sent.map_err(|error| {
            let said = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<postgres::Error>())
                .map_or_else(|| error.to_string(), super::error::describe);
            StoreError::Refused(said)
        })
    }

    /// Ends it; answers how many rows there were.
    ///
    /// # Errors
    /// [`StoreError`]: what PostgreSQL does not take.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        // Why it broke is in its end.
        let sent = self.send();
        self.writer.finish()?;
        sent.map(|()| self.count)
    }
}

/// A value in the text format of `COPY` (PostgreSQL's manual, "COPY").
fn push(line: &mut String, value: Option<&str>) {
    let Some(value) = value else {
        line.push_str("\\N");
        return;
    };
    for c in value.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::push;

    #[test]
    fn values_of_copy() {
        for (value, text) in [
            (None, "\\N"),
            (Some(""), ""),
            (Some("\\N"), "\\\\N"),
            (Some("a\tb\r\nc \\. É"), "a\\tb\\r\\nc \\\\. É"),
        ] {
            let mut line = String::new();
            push(&mut line, value);
            assert_eq!(line, text);
        }
    }
}
