//! What an administrator sees and changes: sites and devices, one by one and
//! in lists.

use std::time::SystemTime;

use jiff::Timestamp;
use postgres::types::{ToSql, Type};
use postgres::{Row, Transaction};
use serde_json::{Value, json};

use super::actor::Actor;
use super::audit::{Deed, record};
use super::devices::DeviceState;
use super::fold::{fold, folded};
use super::sites::TokenDigest;
use super::time::{from_sql, to_sql};
use super::{Store, StoreError};

/// What an administrator sets of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFields {
    /// Its name, unique.
    pub name: String,
    /// Its IANA time zone.
    pub timezone: String,
    /// Days until doubt; 0 never.
    pub doubt_after_days: i32,
    /// Seconds between sweeps while all is well.
    pub ok_interval_s: i32,
    /// Seconds between sweeps while something is in fault.
    pub ko_interval_s: i32,
}

impl SiteFields {
    /// A site of which nothing else is said, as the schema has it.
    #[must_use]
    pub fn new(name: impl Into<String>, timezone: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timezone: timezone.into(),
            doubt_after_days: 2,
            ok_interval_s: 300,
            ko_interval_s: 60,
        }
    }
}

/// A site as an administrator sees it.
#[derive(Debug, Clone)]
pub struct SiteRecord {
    /// Its id.
    pub id: i64,
    /// What is set.
    pub fields: SiteFields,
    /// Counts the changes of its configuration, the devices' too.
    pub config_revision: i64,
    /// The hash last computed.
    pub config_hash: Option<String>,
    /// When that changed.
    pub config_updated_at: Option<Timestamp>,
    /// Since when there is this site.
    pub created_at: Timestamp,
    /// When its configuration last changed.
    pub updated_at: Timestamp,
    /// When its agent last reported.
    pub last_report_at: Option<Timestamp>,
    /// The agent's version.
    pub agent_version: Option<String>,
    /// The hash of the configuration that the agent runs.
    pub running_hash: Option<String>,
    /// Why the agent refused the newest configuration.
    pub config_error: Option<String>,
    /// Open alerts.
    pub open_alerts: i64,
    /// Devices by verdict: ok, fault, expected_off, doubt, unknown.
    pub verdicts: [i64; 5],
}

/// The verdicts in the order of [`SiteRecord::verdicts`].
pub const VERDICTS: [&str; 5] = ["ok", "fault", "expected_off", "doubt", "unknown"];

/// How seriously a fault of a device is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlertSeverity {
    /// It can wait for the morning.
    Warning,
    /// It cannot.
    #[default]
    Critical,
}

impl AlertSeverity {
    /// The word of the API and the database.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// What the word means; `None` where it is no such word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }
}

/// What an administrator sets of a device. The JSON fields are texts, so that
/// numbers keep every digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFields {
    /// Its site.
    pub site_id: i64,
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
    /// The driver's settings, with secrets.
    pub driver_config: Option<String>,
    /// What is expected of it.
    pub expectations: Option<String>,
    /// Of its alerts to come. No part of the configuration that an agent gets.
    pub alert_severity: AlertSeverity,
}

/// A device as an administrator sees it.
#[derive(Debug, Clone)]
pub struct DeviceRecord {
    /// Its id.
    pub id: i64,
    /// What is set.
    pub fields: DeviceFields,
    /// Its site's name.
    pub site: String,
    /// Its site's time zone.
    pub timezone: String,
    /// Since when there is this device.
    pub created_at: Timestamp,
    /// Changes with each change of the row: what locks optimistically.
    pub updated_at: Timestamp,
    /// What was last observed.
    pub state: Option<DeviceState>,
}

/// Why a row was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It is not there any more.
    Gone,
    /// Somebody else changed it first.
    Race,
}

/// A column by which devices are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceOrder {
    /// Building, floor, room, name.
    Place,
    /// Name.
    Name,
    /// Address, as a number.
    Ip,
    /// Site's name.
    Site,
    /// Type.
    Type,
    /// Driver.
    Driver,
    /// The worst first.
    Verdict,
    /// When it was last heard of.
    LastSeen,
    /// When it was last changed.
    Updated,
}

/// Which devices a list has. `None` does not filter.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// Of one site.
    pub site_id: Option<i64>,
    /// With this driver.
    pub driver: Option<String>,
    /// Of this type.
    pub device_type: Option<String>,
    /// In this building; `""` where none is known.
    pub building: Option<String>,
    /// On this floor.
    pub floor: Option<String>,
    /// In this room.
    pub room: Option<String>,
    /// With this verdict; one that was never reported is `unknown`.
    pub verdict: Option<String>,
    /// With this status.
    pub status: Option<String>,
    /// With this text in name, address, place, type or driver, whatever case and accents.
    pub text: Option<String>,
}

/// Which part of a list, in which order.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// By what.
    pub order: DeviceOrder,
    /// The other way round.
    pub descending: bool,
    /// How many at most.
    pub limit: i64,
    /// How many are left out before.
    pub offset: i64,
}

const SITE: &str = "
    SELECT s.id, s.name, s.timezone, s.doubt_after_days, s.ok_interval_s, s.ko_interval_s,
           s.config_revision, s.config_version, s.config_updated_at, s.created_at, s.updated_at,
           a.last_report_at, a.version, a.running_hash, a.config_error,
           (SELECT count(*) FROM alerts l WHERE l.site_id = s.id AND l.closed_at IS NULL),
           coalesce(v.ok, 0), coalesce(v.fault, 0), coalesce(v.expected_off, 0),
           coalesce(v.doubt, 0), coalesce(v.unknown, 0)
      FROM sites s
      LEFT JOIN site_agents a ON a.site_id = s.id
      LEFT JOIN (
           SELECT t.site_id,
                  count(*) FILTER (WHERE t.verdict = 'ok') AS ok,
                  count(*) FILTER (WHERE t.verdict = 'fault') AS fault,
                  count(*) FILTER (WHERE t.verdict = 'expected_off') AS expected_off,
                  count(*) FILTER (WHERE t.verdict = 'doubt') AS doubt,
                  count(*) FILTER (WHERE coalesce(t.verdict, 'unknown') = 'unknown') AS unknown
             FROM device_current t
            WHERE $1::bigint IS NULL OR t.site_id = $1
            GROUP BY t.site_id) v ON v.site_id = s.id
     WHERE $1::bigint IS NULL OR s.id = $1
     ORDER BY lower(s.name), s.id";

fn site(row: &Row) -> SiteRecord {
    let time = |column: usize| row.get::<_, Option<SystemTime>>(column).map(from_sql);
    SiteRecord {
        id: row.get(0),
        fields: SiteFields {
            name: row.get(1),
            timezone: row.get(2),
            doubt_after_days: row.get(3),
            ok_interval_s: row.get(4),
            ko_interval_s: row.get(5),
        },
        config_revision: row.get(6),
        config_hash: row.get(7),
        config_updated_at: time(8),
        created_at: from_sql(row.get(9)),
        updated_at: from_sql(row.get(10)),
        last_report_at: time(11),
        agent_version: row.get(12),
        running_hash: row.get(13),
        config_error: row.get(14),
        open_alerts: row.get(15),
        verdicts: [16, 17, 18, 19, 20].map(|column| row.get(column)),
    }
}

const DEVICE_COLUMNS: &str = "
    d.id, d.site_id, d.ip, d.name, d.building, d.floor, d.room, d.device_type, d.driver,
    nullif(d.driver_config, 'null')::text, nullif(d.expectations, 'null')::text,
    s.name, s.timezone, d.created_at, d.updated_at,
    t.status, t.verdict, t.detail, t.metrics::text, t.observed_at, t.last_seen, t.last_ok_at,
    t.verdict_since, t.stale, d.alert_severity";

/// The device with the id $1.
fn one_device() -> String {
    format!(
        "SELECT {DEVICE_COLUMNS}
           FROM devices d JOIN sites s ON s.id = d.site_id
           JOIN device_current t ON t.device_id = d.id
          WHERE d.id = $1"
    )
}

fn device(row: &Row) -> DeviceRecord {
    DeviceRecord {
        id: row.get(0),
        fields: DeviceFields {
            site_id: row.get(1),
            ip: row.get(2),
            name: row.get(3),
            building: row.get(4),
            floor: row.get(5),
            room: row.get(6),
            device_type: row.get(7),
            driver: row.get(8),
            driver_config: row.get(9),
            expectations: row.get(10),
            // A constraint of the column allows these words alone.
            alert_severity: AlertSeverity::of_word(row.get(24)).unwrap_or_default(),
        },
        site: row.get(11),
        timezone: row.get(12),
        created_at: from_sql(row.get(13)),
        updated_at: from_sql(row.get(14)),
        state: DeviceState::read(row, 15),
    }
}

/// The address as a number, where it is one; a bad one, made by SQL, comes
/// after all others.
const IP_ORDER: &str = "CASE WHEN d.ip ~ '^((25[0-5]|2[0-4]\\d|1?\\d?\\d)(\\.|$)){4}$' \
     THEN d.ip::inet END, d.ip COLLATE \"C\"";

/// The text in which is searched.
const SEARCHED: &str = "concat_ws(E'\\n', d.name, d.ip, d.building, d.floor, d.room, \
                        d.device_type, d.driver)";

const FILTER: &str = "
     WHERE ($1::bigint IS NULL OR d.site_id = $1)
       AND ($2::text IS NULL OR lower(d.driver) = lower($2))
       AND ($3::text IS NULL OR d.device_type = $3)
       AND ($4::text IS NULL OR coalesce(d.building, '') = $4)
       AND ($5::text IS NULL OR coalesce(d.floor, '') = $5)
       AND ($6::text IS NULL OR coalesce(d.room, '') = $6)
       AND ($7::text IS NULL OR coalesce(t.verdict, 'unknown') = $7)
       AND ($8::text IS NULL OR coalesce(t.status, 'unknown') = $8)";

impl DeviceFilter {
    fn parameters<'a>(&'a self, text: &'a Option<String>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&self.site_id, Type::INT8)];
        for text in [
            &self.driver,
            &self.device_type,
            &self.building,
            &self.floor,
            &self.room,
            &self.verdict,
            &self.status,
            text,
        ] {
            parameters.push((text, Type::TEXT));
        }
        parameters
    }
}

impl Store {
    /// Every site with its counters, by name; or one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_records(&self, id: Option<i64>) -> Result<Vec<SiteRecord>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(SITE, &[(&id, Type::INT8)])?;
            Ok(rows.iter().map(site).collect())
        })
    }

    /// Adds a site; answers its id.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where there is one of this name.
    pub fn create_site(
        &self,
        actor: &Actor,
        fields: &SiteFields,
        token: &TokenDigest,
    ) -> Result<i64, StoreError> {
        let created: Result<i64, Lost> = self.act(actor, |transaction| {
            let id = transaction
                .query_one(
                    "INSERT INTO sites (name, timezone, doubt_after_days, ok_interval_s,
                                        ko_interval_s, token)
                     VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
                    &[
                        &fields.name,
                        &fields.timezone,
                        &fields.doubt_after_days,
                        &fields.ok_interval_s,
                        &fields.ko_interval_s,
                        &token.as_str(),
                    ],
                )?
                .get(0);
            record(
                transaction,
                actor,
                &site_deed("site.create", id, &fields.name, json!({})),
            )?;
            Ok(Ok(id))
        })?;
        created.map_err(|_| StoreError::Refused("a site was not added".to_owned()))
    }

    /// Changes a site from `before` to `after`, unless somebody else was
    /// first.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the name is another site's.
    pub fn update_site(
        &self,
        actor: &Actor,
        id: i64,
        before: &SiteFields,
        after: &SiteFields,
    ) -> Result<Result<(), Lost>, StoreError> {
        self.act(actor, |transaction| {
            let changed = transaction.execute(
                "UPDATE sites SET name = $7, timezone = $8, doubt_after_days = $9,
                                  ok_interval_s = $10, ko_interval_s = $11
                  WHERE id = $1 AND name = $2 AND timezone = $3 AND doubt_after_days = $4
                    AND ok_interval_s = $5 AND ko_interval_s = $6",
                &[
                    &id,
                    &before.name,
                    &before.timezone,
                    &before.doubt_after_days,
                    &before.ok_interval_s,
                    &before.ko_interval_s,
                    &after.name,
                    &after.timezone,
                    &after.doubt_after_days,
                    &after.ok_interval_s,
                    &after.ko_interval_s,
                ],
            )?;
            if changed == 0 {
                return lost(transaction, "SELECT FROM sites WHERE id = $1", id);
            }
            let detail = json!({
                "name": [before.name, after.name],
                "timezone": [before.timezone, after.timezone],
                "doubt_after_days": [before.doubt_after_days, after.doubt_after_days],
                "ok_interval_s": [before.ok_interval_s, after.ok_interval_s],
                "ko_interval_s": [before.ko_interval_s, after.ko_interval_s],
            });
            record(
                transaction,
                actor,
                &site_deed("site.update", id, &after.name, only_changes(detail)),
            )?;
            Ok(Ok(()))
        })
    }

    /// Deletes a site with its devices, unless somebody else changed it first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_site(
        &self,
        actor: &Actor,
        id: i64,
        before: &SiteFields,
    ) -> Result<Result<(), Lost>, StoreError> {
        self.act(actor, |transaction| {
            let devices: i64 = transaction
                .query_one("SELECT count(*) FROM devices WHERE site_id = $1", &[&id])?
                .get(0);
            let deleted = transaction.execute(
                "DELETE FROM sites
                  WHERE id = $1 AND name = $2 AND timezone = $3 AND doubt_after_days = $4
                    AND ok_interval_s = $5 AND ko_interval_s = $6",
                &[
                    &id,
                    &before.name,
                    &before.timezone,
                    &before.doubt_after_days,
                    &before.ok_interval_s,
                    &before.ko_interval_s,
                ],
            )?;
            if deleted == 0 {
                return lost(transaction, "SELECT FROM sites WHERE id = $1", id);
            }
            record(
                transaction,
                actor,
                &site_deed("site.delete", id, &before.name, json!({"devices": devices})),
            )?;
            Ok(Ok(()))
        })
    }

    /// A part of the devices that a filter lets through, and how many it lets
    /// through in all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_list(
        &self,
        filter: &DeviceFilter,
        page: Page,
    ) -> Result<(Vec<DeviceRecord>, i64), StoreError> {
        let down = if page.descending { " DESC" } else { "" };
        let order = match page.order {
            DeviceOrder::Place => {
                "d.building{} NULLS FIRST, d.floor{} NULLS FIRST, d.room{} NULLS FIRST, d.name{}"
            }
            DeviceOrder::Name => "lower(d.name){}",
            DeviceOrder::Ip => IP_ORDER,
            DeviceOrder::Site => "lower(s.name){}",
            DeviceOrder::Type => "d.device_type{}",
            DeviceOrder::Driver => "lower(d.driver){}",
            DeviceOrder::Verdict => {
                "array_position(ARRAY['fault','doubt','unknown','expected_off','ok'],
                                coalesce(t.verdict, 'unknown')){}"
            }
            DeviceOrder::LastSeen => "t.last_seen{} NULLS LAST",
            DeviceOrder::Updated => "d.updated_at{}",
        };
        let order = if page.order == DeviceOrder::Ip {
            format!(
                "{}{down}",
                order.replace("END,", &format!("END{down} NULLS LAST,"))
            )
        } else {
            order.replace("{}", down)
        };
        let text = folded(SEARCHED);
        let query = format!(
            "SELECT {DEVICE_COLUMNS}
               FROM devices d JOIN sites s ON s.id = d.site_id
               JOIN device_current t ON t.device_id = d.id
             {FILTER} AND ($9::text IS NULL OR strpos({text}, $9) > 0)
              ORDER BY {order}, d.id LIMIT $10 OFFSET $11"
        );
        let count = format!(
            "SELECT count(*) FROM devices d JOIN device_current t ON t.device_id = d.id {FILTER}
                AND ($9::text IS NULL OR strpos({text}, $9) > 0)"
        );
        let searched = filter.text.as_deref().map(fold);
        self.run(|client| {
            let filters = filter.parameters(&searched);
            let total = client
                .query_typed_opt(&count, &filters)?
                .map_or(0, |row| row.get(0));
            let mut parameters = filters;
            parameters.push((&page.limit, Type::INT8));
            parameters.push((&page.offset, Type::INT8));
            let rows = client.query_typed(&query, &parameters)?;
            Ok((rows.iter().map(device).collect(), total))
        })
    }

    /// One device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_record(&self, id: i64) -> Result<Option<DeviceRecord>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(&one_device(), &[(&id, Type::INT8)])?;
            Ok(row.as_ref().map(device))
        })
    }

    /// Adds a device; answers its id.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the site has one of this address.
    pub fn create_device(&self, actor: &Actor, fields: &DeviceFields) -> Result<i64, StoreError> {
        let created: Result<i64, Lost> = self.act(actor, |transaction| {
            Ok(Ok(insert_device(transaction, actor, fields)?))
        })?;
        created.map_err(|_| StoreError::Refused("a device was not added".to_owned()))
    }

    /// Changes a device, unless somebody else changed it since `before` was
    /// read. Answers the device as this change left it, and not as the next
    /// one may have by now: its entity tag must be of what this user has seen.
    /// `changes` goes into the audit log: no secret may be in it.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the address is another device's.
    pub fn update_device(
        &self,
        actor: &Actor,
        before: &DeviceRecord,
        after: &DeviceFields,
        changes: &Value,
    ) -> Result<Result<DeviceRecord, Lost>, StoreError> {
        let updated_at = to_sql(before.updated_at);
        let severity = after.alert_severity.word();
        self.act(actor, |transaction| {
            let mut parameters = device_parameters(after, &severity).to_vec();
            parameters.push(&before.id);
            parameters.push(&updated_at);
            let changed = transaction.execute(
                "UPDATE devices
                    SET site_id = $1, ip = $2, name = $3, building = $4, floor = $5, room = $6,
                        device_type = $7, driver = $8, driver_config = $9::text::jsonb,
                        expectations = $10::text::jsonb, alert_severity = $11
                  WHERE id = $12 AND updated_at = $13",
                &parameters,
            )?;
            if changed == 0 {
                return lost(transaction, "SELECT FROM devices WHERE id = $1", before.id);
            }
            record(
                transaction,
                actor,
                &device_deed("device.update", before.id, after, changes.clone()),
            )?;
            let row = transaction.query_one(&one_device(), &[&before.id])?;
            Ok(Ok(device(&row)))
        })
    }

    /// Deletes a device, unless somebody else changed it since it was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_device(
        &self,
        actor: &Actor,
        before: &DeviceRecord,
    ) -> Result<Result<(), Lost>, StoreError> {
        let updated_at = to_sql(before.updated_at);
        self.act(actor, |transaction| {
            let deleted = transaction.execute(
                "DELETE FROM devices WHERE id = $1 AND updated_at = $2",
                &[&before.id, &updated_at],
            )?;
            if deleted == 0 {
                return lost(transaction, "SELECT FROM devices WHERE id = $1", before.id);
            }
            record(
                transaction,
                actor,
                &device_deed(
                    "device.delete",
                    before.id,
                    &before.fields,
                    json!({"ip": before.fields.ip}),
                ),
            )?;
            Ok(Ok(()))
        })
    }
}

/// Adds a device and writes the deed down; answers its id.
pub(super) fn insert_device(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    fields: &DeviceFields,
) -> Result<i64, postgres::Error> {
    let severity = fields.alert_severity.word();
    let id = transaction
        .query_one(
            "INSERT INTO devices (site_id, ip, name, building, floor, room, device_type,
                                  driver, driver_config, expectations, alert_severity)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10::text::jsonb, $11)
             RETURNING id",
            &device_parameters(fields, &severity),
        )?
        .get(0);
    record(
        transaction,
        actor,
        &device_deed("device.create", id, fields, json!({"ip": fields.ip})),
    )?;
    Ok(id)
}

fn device_parameters<'a>(
    fields: &'a DeviceFields,
    severity: &'a &'static str,
) -> [&'a (dyn ToSql + Sync); 11] {
    [
        &fields.site_id,
        &fields.ip,
        &fields.name,
        &fields.building,
        &fields.floor,
        &fields.room,
        &fields.device_type,
        &fields.driver,
        &fields.driver_config,
        &fields.expectations,
        severity,
    ]
}

fn lost<T>(
    transaction: &mut Transaction<'_>,
    query: &str,
    id: i64,
) -> Result<Result<T, Lost>, postgres::Error> {
    let there = transaction.query_opt(query, &[&id])?.is_some();
    Ok(Err(if there { Lost::Race } else { Lost::Gone }))
}

fn site_deed(action: &'static str, id: i64, name: &str, detail: Value) -> Deed {
    Deed {
        action,
        target: format!("site {id} ({name})"),
        site_id: Some(id),
        detail,
    }
}

/// What was done to a device, for the audit log.
#[must_use]
pub fn device_deed(action: &'static str, id: i64, fields: &DeviceFields, detail: Value) -> Deed {
    Deed {
        action,
        target: format!("device {id} ({})", fields.name),
        site_id: Some(fields.site_id),
        detail,
    }
}

/// Keeps the pairs of old and new that differ.
#[must_use]
pub fn only_changes(pairs: Value) -> Value {
    match pairs {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, pair)| pair.get(0) != pair.get(1))
                .collect(),
        ),
        other => other,
    }
}
