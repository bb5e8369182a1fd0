//! Many devices of a site at once.

use postgres::types::Type;
use serde_json::Value;

use super::actor::Actor;
use super::audit::{Deed, record};
use super::inventory::{AlertSeverity, DeviceFields, Lost};
use super::{Store, StoreError};

/// The devices of a site in one snapshot.
#[derive(Debug, Clone)]
pub struct SiteDevices {
    /// The site's name.
    pub name: String,
    /// The site's time zone.
    pub timezone: String,
    /// Counts the changes of the site's configuration.
    pub revision: i64,
    /// The devices with their ids, by place.
    pub devices: Vec<(i64, DeviceFields)>,
}

/// What an import changes.
#[derive(Debug, Default)]
pub struct Plan {
    /// Devices that are new.
    pub added: Vec<DeviceFields>,
    /// Devices that change, by their ids.
    pub changed: Vec<(i64, DeviceFields)>,
    /// Devices that go.
    pub removed: Vec<i64>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Store {
    /// The devices of a site; `None` where there is no such site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_devices(&self, site_id: i64) -> Result<Option<SiteDevices>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT s.name, s.timezone, s.config_revision,
                        d.id, d.ip, d.name, d.building, d.floor, d.room, d.device_type, d.driver,
                        nullif(d.driver_config, 'null')::text, nullif(d.expectations, 'null')::text,
                        d.alert_severity
                   FROM sites s LEFT JOIN devices d ON d.site_id = s.id
                  WHERE s.id = $1
                  ORDER BY d.building NULLS FIRST, d.floor NULLS FIRST, d.room NULLS FIRST,
                           d.name, d.id",
                &[(&site_id, Type::INT8)],
            )?;
            let Some(first) = rows.first() else {
                return Ok(None);
            };
            let devices = rows
                .iter()
                .filter_map(|row| {
                    // A site without devices has one row without a device.
                    let id: Option<i64> = row.get(3);
                    Some((
                        id?,
                        DeviceFields {
                            site_id,
                            ip: row.get(4),
                            name: row.get(5),
                            building: row.get(6),
                            floor: row.get(7),
                            room: row.get(8),
                            device_type: row.get(9),
                            driver: row.get(10),
                            driver_config: row.get(11),
                            expectations: row.get(12),
                            alert_severity: AlertSeverity::of_word(row.get(13)).unwrap_or_default(),
                        },
                    ))
                })
                .collect();
            Ok(Some(SiteDevices {
                name: first.get(0),
                timezone: first.get(1),
                revision: first.get(2),
                devices,
            }))
        })
    }

    /// Applies a plan as one change of the site's configuration, unless that
    /// is not at `revision` any more. `detail` goes into the audit log.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where an address is there twice.
    pub fn apply_plan(
        &self,
        actor: &Actor,
        site_id: i64,
        revision: i64,
        plan: &Plan,
        detail: &Value,
    ) -> Result<Result<(), Lost>, StoreError> {
        let ids: Vec<i64> = plan.changed.iter().map(|(id, _)| *id).collect();
        let changed = Columns::of(plan.changed.iter().map(|(_, fields)| fields));
        let added = Columns::of(plan.added.iter());
        self.act(actor, |transaction| {
            let row = transaction.query_opt(
                "SELECT config_revision, name FROM sites WHERE id = $1 FOR NO KEY UPDATE",
                &[&site_id],
            )?;
            let Some(row) = row else {
                return Ok(Err(Lost::Gone));
            };
            if row.get::<_, i64>(0) != revision {
                return Ok(Err(Lost::Race));
            }
            let name: String = row.get(1);
            if !plan.removed.is_empty() {
                transaction.execute(
                    "DELETE FROM devices WHERE site_id = $1 AND id = ANY ($2)",
                    &[&site_id, &plan.removed],
                )?;
            }
            if !ids.is_empty() {
                transaction.execute(
                    "UPDATE devices d
                        SET ip = n.ip, name = n.name, building = n.building, floor = n.floor,
                            room = n.room, device_type = n.device_type, driver = n.driver,
                            driver_config = n.driver_config::jsonb,
                            expectations = n.expectations::jsonb,
                            alert_severity = n.alert_severity
                       FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
                                   $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
                                   $12::text[])
                            AS n (id, ip, name, building, floor, room, device_type, driver,
                                  driver_config, expectations, alert_severity)
                      WHERE d.id = n.id AND d.site_id = $1",
                    &[
                        &site_id,
                        &ids,
                        &changed.ip,
                        &changed.name,
                        &changed.building,
                        &changed.floor,
                        &changed.room,
                        &changed.device_type,
                        &changed.driver,
                        &changed.driver_config,
                        &changed.expectations,
                        &changed.alert_severity,
                    ],
                )?;
            }
            if !plan.added.is_empty() {
                transaction.execute(
                    "INSERT INTO devices (site_id, ip, name, building, floor, room, device_type,
                                          driver, driver_config, expectations, alert_severity)
                     SELECT $1, ip, name, building, floor, room, device_type, driver,
                            driver_config::jsonb, expectations::jsonb, alert_severity
                       FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                                   $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
                            AS n (ip, name, building, floor, room, device_type, driver,
                                  driver_config, expectations, alert_severity)",
                    &[
                        &site_id,
                        &added.ip,
                        &added.name,
                        &added.building,
                        &added.floor,
                        &added.room,
                        &added.device_type,
                        &added.driver,
                        &added.driver_config,
                        &added.expectations,
                        &added.alert_severity,
                    ],
                )?;
            }
            record(
                transaction,
                actor,
                &Deed {
                    action: "site.import",
                    target: format!("site {site_id} ({name})"),
                    site_id: Some(site_id),
                    detail: detail.clone(),
                },
            )?;
            Ok(Ok(()))
        })
    }
}

/// Devices column by column, as PostgreSQL's arrays.
struct Columns<'a> {
    ip: Vec<&'a str>,
    name: Vec<&'a str>,
    building: Vec<Option<&'a str>>,
    floor: Vec<Option<&'a str>>,
    room: Vec<Option<&'a str>>,
    device_type: Vec<&'a str>,
    driver: Vec<&'a str>,
    driver_config: Vec<Option<&'a str>>,
    expectations: Vec<Option<&'a str>>,
    alert_severity: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(rows: impl Iterator<Item = &'a DeviceFields>) -> Self {
        let rows: Vec<&DeviceFields> = rows.collect();
        let text = |get: fn(&DeviceFields) -> &str| rows.iter().map(|row| get(row)).collect();
        let maybe =
            |get: fn(&DeviceFields) -> Option<&str>| rows.iter().map(|row| get(row)).collect();
        Self {
            ip: text(|row| &row.ip),
            name: text(|row| &row.name),
            building: maybe(|row| row.building.as_deref()),
            floor: maybe(|row| row.floor.as_deref()),
            room: maybe(|row| row.room.as_deref()),
            device_type: text(|row| &row.device_type),
            driver: text(|row| &row.driver),
            driver_config: maybe(|row| row.driver_config.as_deref()),
            expectations: maybe(|row| row.expectations.as_deref()),
            alert_severity: text(|row| row.alert_severity.word()),
        }
    }
}
