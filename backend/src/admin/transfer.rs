//! Import and export: a site's devices as one file, CSV or JSON.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use av_proto::FieldError;
use av_proto::config::DEVICES_MAX;
use av_service::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Admin;
use super::context::{Call, Role};
use super::csv_file::{self, Row, RowError};
use super::devices::{overlaid, site_zone};
use super::draft::{Draft, changes};
use super::input::{flag, invalid_field, optional_id, read_any_json, read_json};
use super::precondition;
use super::secrets::mask;
use super::sites;
use super::users::conflict;
use crate::answer::Answer;
use crate::store::StoreError;
use crate::store::audit::Deed;
use crate::store::inventory::{DeviceFields, Lost};
use crate::store::transfer::{Plan, SiteDevices};

/// The most errors that are told at once.
const ERRORS_MAX: usize = 500;
/// How often an import is planned again because the site was changed.
const TRIES: usize = 5;

/// Answers where the path is `import` or `export`.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match (call.path, &call.method) {
        (["import"], Method::Post) => import(admin, call),
        (["import"], _) => Err(call.only("POST")),
        (["export"], Method::Get) => export(admin, call),
        (["export"], _) => Err(call.only("GET, HEAD")),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
}

/// The site of `?site_id=` and its devices.
fn site(admin: &Admin, call: &Call<'_>) -> Result<(i64, SiteDevices), Answer> {
    let id = optional_id(call.query, "site_id")?
        .ok_or_else(|| invalid_field("site_id", "is missing"))?;
    let site = admin.store.site_devices(id)?.ok_or_else(sites::unknown)?;
    Ok((id, site))
}

fn format(call: &Call<'_>) -> Result<Option<Format>, Answer> {
    match call.query.get("format") {
        None | Some("") => Ok(None),
        Some("csv") => Ok(Some(Format::Csv)),
        Some("json") => Ok(Some(Format::Json)),
        Some(_) => Err(invalid_field("format", "is neither csv nor json")),
    }
}

fn etag(site: &SiteDevices) -> String {
    format!("r{}", site.revision)
}

// ----------------------------------------------------------------- export

#[derive(Serialize)]
struct Exported<'a> {
    ip: &'a str,
    name: &'a str,
    building: &'a str,
    floor: &'a str,
    room: &'a str,
    #[serde(rename = "type")]
    device_type: &'a str,
    driver: &'a str,
    driver_config: Box<RawValue>,
    expectations: Box<RawValue>,
    alert_severity: &'static str,
}

fn export(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let reveal = flag(call.query, "reveal")?;
    if reveal {
        call.require(Role::Editor)?;
    }
    let format = format(call)?.unwrap_or(Format::Json);
    let (id, site) = site(admin, call)?;
    if reveal {
        admin.store.record(
            &call.caller.actor(),
            &Deed {
                action: "site.reveal",
                target: format!("site {id} ({})", site.name),
                site_id: Some(id),
                detail: json!({"devices": site.devices.len()}),
            },
        )?;
    }
    let config = |fields: &DeviceFields| {
        let text = fields.driver_config.as_deref().unwrap_or("{}");
        if reveal { text.to_owned() } else { mask(text) }
    };
    let answer = match format {
        Format::Json => {
            let devices: Vec<Exported<'_>> = site
                .devices
                .iter()
                .map(|(_, fields)| Exported {
                    ip: &fields.ip,
                    name: &fields.name,
                    building: fields.building.as_deref().unwrap_or_default(),
                    floor: fields.floor.as_deref().unwrap_or_default(),
                    room: fields.room.as_deref().unwrap_or_default(),
                    device_type: &fields.device_type,
                    driver: &fields.driver,
                    driver_config: RawValue::from_string(config(fields)).unwrap_or_default(),
                    expectations: RawValue::from_string(
                        fields
                            .expectations
                            .clone()
                            .unwrap_or_else(|| "{}".to_owned()),
                    )
                    .unwrap_or_default(),
                    alert_severity: fields.alert_severity.word(),
                })
                .collect();
            #[derive(Serialize)]
            struct Whole<'a> {
                site: &'a str,
                devices: Vec<Exported<'a>>,
            }
            Answer::json(
                200,
                &Whole {
                    site: &site.name,
                    devices,
                },
            )
        }
        Format::Csv => {
            let rows = site.devices.iter().map(|(_, fields)| {
                let place = |text: &Option<String>| text.clone().unwrap_or_default();
                [
                    fields.ip.clone(),
                    fields.name.clone(),
                    place(&fields.building),
                    place(&fields.floor),
                    place(&fields.room),
                    fields.device_type.clone(),
                    fields.driver.clone(),
                    config(fields),
                    fields
                        .expectations
                        .clone()
                        .unwrap_or_else(|| "{}".to_owned()),
                    fields.alert_severity.word().to_owned(),
                ]
            });
            let text = csv_file::write(rows).map_err(|error| {
                log::error!("a CSV file could not be written: {error}");
                Answer::error(500, "the file could not be written")
            })?;
            Answer::text("text/csv; charset=utf-8", text)
        }
    };
    let ending = match format {
        Format::Csv => "csv",
        Format::Json => "json",
    };
    Ok(answer
        .with(
            "Content-Disposition",
            format!("attachment; filename=\"site-{id}-devices.{ending}\""),
        )
        .with("ETag", format!("\"{}\"", etag(&site))))
}

// ----------------------------------------------------------------- import

/// A device of the answer.
#[derive(Serialize)]
struct Named {
    ip: String,
    name: String,
}

/// A device that changes.
#[derive(Serialize)]
struct Changed {
    id: i64,
    ip: String,
    name: String,
    fields: serde_json::Map<String, Value>,
}

/// What an import did, or would do.
#[derive(Serialize)]
struct Difference {
    dry_run: bool,
    added: Vec<Named>,
    changed: Vec<Changed>,
    removed: Vec<Named>,
    unchanged: usize,
    warnings: Vec<RowError>,
}

fn import(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let dry_run = flag(call.query, "dry_run")?;
    let replace = match call.query.get("mode") {
        None | Some("" | "merge") => false,
        Some("replace") => true,
        Some(_) => return Err(invalid_field("mode", "is neither merge nor replace")),
    };
    let media = call.headers.media_type();
    let format = match (format(call)?, media.as_str()) {
        (Some(format), _) => format,
        (None, "text/csv" | "application/csv" | "application/vnd.ms-excel") => Format::Csv,
        (None, "application/json") => Format::Json,
        (None, _) => {
            return Err(Answer::error(
                415,
                "the Content-Type is neither text/csv nor application/json",
            ));
        }
    };
    let mut tries = 0;
    loop {
        let (id, site) = site(admin, call)?;
        // Who looked at a dry run can ask for just that.
        if call.headers.get("if-match").is_some() {
            precondition::if_match(call.headers, &etag(&site))?;
        }
        let rows = read(format, call.body)?;
        let (plan, difference) =
            plan(id, &site, rows, replace, dry_run).map_err(|errors| refused(&errors))?;
        if !dry_run && !plan.is_empty() {
            let detail = json!({
                "added": plan.added.len(),
                "changed": plan.changed.len(),
                "removed": plan.removed.len(),
            });
            let applied = admin
                .store
                .apply_plan(
                    &call.caller.actor_as("import"),
                    id,
                    site.revision,
                    &plan,
                    &detail,
                )
                .map_err(|error| match error {
                    StoreError::Taken(_) => {
                        conflict("ip", "is that of another device, spelled differently")
                    }
                    StoreError::BadValue(why) => invalid_field("driver_config", why),
                    error => error.into(),
                })?;
            tries += 1;
            match applied {
                Err(Lost::Race) if tries < TRIES => continue,
                other => other.map_err(precondition::lost)?,
            }
        }
        return Ok(Answer::json(200, &difference).with("ETag", format!("\"{}\"", etag(&site))));
    }
}

/// 422: each field of each row.
fn refused(errors: &[RowError]) -> Answer {
    let said = match errors {
        [one] => format!("row {}, {}: {}", one.row, one.field, one.problem),
        many => format!("{} fields are not valid; nothing was changed", many.len()),
    };
    Answer::json(
        422,
        &json!({"error": said, "fields": errors.get(..ERRORS_MAX).unwrap_or(errors)}),
    )
}

fn read(format: Format, body: &[u8]) -> Result<Vec<Row>, Answer> {
    let rows = match format {
        Format::Csv => {
            let text = std::str::from_utf8(body).map_err(|_| {
                Answer::error(
                    400,
                    "the file is not UTF-8: save it as \"CSV UTF-8\" in the spreadsheet",
                )
            })?;
            csv_file::read(text).map_err(|errors| refused(&errors))?
        }
        Format::Json => read_devices(body)?,
    };
    if rows.len() > DEVICES_MAX {
        return Err(invalid_field(
            "devices",
            format!("has {}, more than {DEVICES_MAX}", rows.len()),
        ));
    }
    Ok(rows)
}

fn read_devices(body: &[u8]) -> Result<Vec<Row>, Answer> {
    #[derive(Deserialize)]
    struct Whole {
        devices: Vec<Box<RawValue>>,
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let devices = if first == Some(&b'[') {
        read_any_json(body)?
    } else {
        read_json::<Whole>(body)?.devices
    };
    let mut rows = Vec::with_capacity(devices.len());
    let mut errors = Vec::new();
    for (row, device) in (1..).zip(devices) {
        match av_proto::field::from_json(device.get().as_bytes()) {
            Ok(members) => rows.push(Row {
                number: row,
                members,
                parts: BTreeMap::new(),
            }),
            Err(error) => errors.push(RowError::new(row, error.field, error.problem)),
        }
    }
    if errors.is_empty() {
        Ok(rows)
    } else {
        Err(refused(&errors))
    }
}

/// Compares a file with what is stored. A device is known by its address; a
/// field that a row does not have stays as it is stored.
fn plan(
    site_id: i64,
    site: &SiteDevices,
    rows: Vec<Row>,
    replace: bool,
    dry_run: bool,
) -> Result<(Plan, Difference), Vec<RowError>> {
    let zone = site_zone(&site.timezone);
    let mut stored: HashMap<String, &(i64, DeviceFields)> = HashMap::new();
    for device in &site.devices {
        stored.entry(address(&device.1.ip)).or_insert(device);
    }
    let mut plan = Plan::default();
    let mut difference = Difference {
        dry_run,
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
        unchanged: 0,
        warnings: Vec::new(),
    };
    let mut errors = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut kept = std::collections::HashSet::new();
    for row in rows {
        let ip = row
            .members
            .get("ip")
            .and_then(Option::as_ref)
            .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let known = ip
            .as_deref()
            .and_then(|ip| stored.get(&address(ip)).copied());
        let before = known.map(|(_, fields)| fields);
        let number = row.number;
        let members = row.complete(|field| {
            let stored = before?;
            match field {
                "driver_config" => stored.driver_config.clone(),
                _ => stored.expectations.clone(),
            }
        });
        let row = number;
        let members = match members {
            Ok(members) => members,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let valid = overlaid(before, members)
            .and_then(|json| Draft::read(&json))
            .and_then(|draft| draft.validate(site_id, &zone, before));
        let valid = match valid {
            Ok(valid) => valid,
            Err(bad) => {
                errors.extend(bad.into_iter().map(|error| in_row(row, error)));
                continue;
            }
        };
        let after = valid.fields;
        if let Some(first) = seen.insert(after.ip.clone(), row) {
            errors.push(RowError::new(
                row,
                "ip",
                format!("is that of row {first} already"),
            ));
            continue;
        }
        difference.warnings.extend(
            valid
                .warnings
                .into_iter()
                .map(|warning| in_row(row, warning)),
        );
        match known {
            None => {
                difference.added.push(named(&after));
                plan.added.push(after);
            }
            Some((id, before)) => {
                kept.insert(*id);
                let fields = changes(before, &after);
                if fields.is_empty() {
                    difference.unchanged += 1;
                } else {
                    difference.changed.push(Changed {
                        id: *id,
                        ip: after.ip.clone(),
                        name: after.name.clone(),
                        fields,
                    });
                    plan.changed.push((*id, after));
                }
            }
        }
    }
    if replace {
        for (id, fields) in site.devices.iter().filter(|(id, _)| !kept.contains(id)) {
            difference.removed.push(named(fields));
            plan.removed.push(*id);
        }
    }
    let total = site.devices.len() + plan.added.len() - plan.removed.len();
    if total > DEVICES_MAX {
        errors.push(RowError::new(
            0,
            "devices",
            format!("the site would have {total}, more than {DEVICES_MAX}"),
        ));
    }
    if errors.is_empty() {
        Ok((plan, difference))
    } else {
        Err(errors)
    }
}

fn in_row(row: u64, error: FieldError) -> RowError {
    RowError::new(row, error.field, error.problem)
}

fn named(fields: &DeviceFields) -> Named {
    Named {
        ip: fields.ip.clone(),
        name: fields.name.clone(),
    }
}

/// One spelling for one address.
fn address(text: &str) -> String {
    let text = text.trim();
    text.parse::<IpAddr>()
        .map_or_else(|_| text.to_owned(), |ip| ip.to_string())
}
