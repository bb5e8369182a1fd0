//! Devices: list with filter, sort and paging; create, read, update, delete.

use std::collections::BTreeMap;

use av_proto::FieldError;
use av_proto::schedule::zone;
use av_proto::unknown::unknown_settings;
use av_service::http::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Admin;
use super::context::{Call, Role};
use super::draft::{Draft, Valid, changes};
use super::input::{flag, id, invalid, invalid_field, number, optional_id, read_json};
use super::merge_patch;
use super::precondition::{self, if_match};
use super::secrets::mask;
use super::sites;
use super::users::conflict;
use crate::answer::Answer;
use crate::device_state::StateDocument;
use crate::store::StoreError;
use crate::store::inventory::{
    DeviceFields, DeviceFilter, DeviceOrder, DeviceRecord, Page, VERDICTS, device_deed,
};

/// Answers where the path is `devices` or `devices/{id}`.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match (call.path, &call.method) {
        (["devices"], Method::Get) => list(admin, call),
        (["devices"], Method::Post) => create(admin, call),
        (["devices"], _) => Err(call.only("GET, HEAD, POST")),
        (["devices", device], method) => {
            let Some(device) = id(device) else {
                return Some(unknown());
            };
            match method {
                Method::Get => show(admin, call, device),
                Method::Put | Method::Patch => update(admin, call, device),
                Method::Delete => delete(admin, call, device),
                _ => Err(call.only("GET, HEAD, PUT, PATCH, DELETE")),
            }
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn unknown() -> Answer {
    Answer::error(404, "there is no such device")
}

fn find(admin: &Admin, device: i64) -> Result<DeviceRecord, Answer> {
    admin.store.device_record(device)?.ok_or_else(unknown)
}

fn etag(device: &DeviceRecord) -> String {
    format!("{}-{}", device.id, device.updated_at.as_microsecond())
}

/// A device as it is shown.
#[derive(Serialize)]
struct Document<'a> {
    id: i64,
    site_id: i64,
    site: &'a str,
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
    state: StateDocument<'a>,
    created_at: Timestamp,
    updated_at: Timestamp,
    etag: String,
    warnings: &'a [FieldError],
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_default()
}

fn document<'a>(
    device: &'a DeviceRecord,
    reveal: bool,
    warnings: &'a [FieldError],
) -> Document<'a> {
    let fields = &device.fields;
    let config = fields.driver_config.as_deref().unwrap_or("{}");
    Document {
        id: device.id,
        site_id: fields.site_id,
        site: &device.site,
        ip: &fields.ip,
        name: &fields.name,
        building: fields.building.as_deref().unwrap_or_default(),
        floor: fields.floor.as_deref().unwrap_or_default(),
        room: fields.room.as_deref().unwrap_or_default(),
        device_type: &fields.device_type,
        driver: &fields.driver,
        driver_config: raw(if reveal {
            config.to_owned()
        } else {
            mask(config)
        }),
        expectations: raw(fields.expectations.as_deref().unwrap_or("{}").to_owned()),
        alert_severity: fields.alert_severity.word(),
        state: StateDocument::new(device.state.as_ref()),
        created_at: device.created_at,
        updated_at: device.updated_at,
        etag: etag(device),
        warnings,
    }
}

fn answer(status: u16, device: &DeviceRecord, reveal: bool, warnings: &[FieldError]) -> Answer {
    Answer::json(status, &document(device, reveal, warnings))
        .with("ETag", format!("\"{}\"", etag(device)))
}

fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    #[derive(Serialize)]
    struct List<'a> {
        total: i64,
        limit: i64,
        offset: i64,
        devices: Vec<Document<'a>>,
    }
    let query = call.query;
    let text = |name: &str| {
        query
            .get(name)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    // A place may be asked for that is empty.
    let place = |name: &str| query.get(name).map(str::to_owned);
    if let Some((name, _)) = query.iter().find(|(_, value)| value.contains('\0')) {
        return Err(invalid_field(name, "has a NUL character"));
    }
    let verdict = one_of(text("verdict"), "verdict", &VERDICTS)?;
    let status = one_of(text("status"), "status", &["online", "offline", "unknown"])?;
    let site_id = match (optional_id(query, "site_id")?, text("site")) {
        (Some(id), _) => Some(id),
        (None, Some(site)) => Some(
            admin
                .store
                .site_by_name_or_id(&site)?
                .ok_or_else(sites::unknown)?
                .id,
        ),
        (None, None) => None,
    };
    let filter = DeviceFilter {
        site_id,
        driver: text("driver"),
        device_type: text("type"),
        building: place("building"),
        floor: place("floor"),
        room: place("room"),
        verdict,
        status,
        text: text("q"),
    };
    let sort = query.get("sort").unwrap_or("place");
    let page = Page {
        order: order(sort.strip_prefix('-').unwrap_or(sort))?,
        descending: sort.starts_with('-'),
        limit: number(query, "limit", 100, (1, 5000))?,
        offset: number(query, "offset", 0, (0, 1_000_000_000))?,
    };
    let (devices, total) = admin.store.device_list(&filter, page)?;
    let warnings: Vec<_> = devices
        .iter()
        .map(|device| unknown_settings_of(&device.fields))
        .collect();
    Ok(Answer::json(
        200,
        &List {
            total,
            limit: page.limit,
            offset: page.offset,
            devices: devices
                .iter()
                .zip(&warnings)
                .map(|(device, warnings)| document(device, false, warnings))
                .collect(),
        },
    ))
}

fn one_of(value: Option<String>, name: &str, words: &[&str]) -> Result<Option<String>, Answer> {
    match value {
        Some(value) if !words.contains(&value.as_str()) => Err(invalid_field(
            name,
            format!("is none of {}", words.join(", ")),
        )),
        value => Ok(value),
    }
}

fn order(word: &str) -> Result<DeviceOrder, Answer> {
    Ok(match word {
        "place" => DeviceOrder::Place,
        "name" => DeviceOrder::Name,
        "ip" => DeviceOrder::Ip,
        "site" => DeviceOrder::Site,
        "type" => DeviceOrder::Type,
        "driver" => DeviceOrder::Driver,
        "verdict" => DeviceOrder::Verdict,
        "last_seen" => DeviceOrder::LastSeen,
        "updated_at" => DeviceOrder::Updated,
        _ => {
            return Err(invalid_field(
                "sort",
                "is none of place, name, ip, site, type, driver, verdict, last_seen, updated_at, \
                 with - before it for the other way round",
            ));
        }
    })
}

fn show(admin: &Admin, call: &Call<'_>, device: i64) -> Result<Answer, Answer> {
    let reveal = flag(call.query, "reveal")?;
    if reveal {
        call.require(Role::Editor)?;
    }
    let device = find(admin, device)?;
    if reveal {
        admin.store.record(
            &call.caller.actor(),
            &device_deed(
                "device.reveal",
                device.id,
                &device.fields,
                serde_json::json!({}),
            ),
        )?;
    }
    let warnings = unknown_settings_of(&device.fields);
    Ok(answer(200, &device, reveal, &warnings))
}

/// What is stored and has no effect.
fn unknown_settings_of(fields: &DeviceFields) -> Vec<FieldError> {
    unknown_settings(
        &fields.driver,
        fields.driver_config.as_deref().unwrap_or("{}"),
        fields.expectations.as_deref().unwrap_or("{}"),
    )
    .iter()
    .map(FieldError::from)
    .collect()
}

/// The zone of a site as an agent uses it.
pub(super) fn site_zone(name: &str) -> TimeZone {
    zone(name).unwrap_or(TimeZone::UTC)
}

fn check(admin: &Admin, draft: Draft, stored: Option<&DeviceRecord>) -> Result<Valid, Answer> {
    let site_id = draft.site_id.or(stored.map(|device| device.fields.site_id));
    let zone = match (site_id, stored) {
        (None, _) => Err("is missing"),
        (Some(id), Some(device)) if device.fields.site_id == id => Ok(site_zone(&device.timezone)),
        (Some(id), _) => admin
            .store
            .site_records(Some(id))?
            .pop()
            .map(|site| site_zone(&site.fields.timezone))
            .ok_or("there is no such site"),
    };
    // Without its site the other fields are looked at all the same.
    let valid = draft.validate(
        site_id.unwrap_or_default(),
        zone.as_ref().unwrap_or(&TimeZone::UTC),
        stored.map(|device| &device.fields),
    );
    match (zone, valid) {
        (Ok(_), Ok(valid)) => Ok(valid),
        (zone, valid) => {
            let site = zone
                .err()
                .map(|problem| FieldError::new("site_id", problem));
            let errors: Vec<FieldError> = site
                .into_iter()
                .chain(valid.err().into_iter().flatten())
                .collect();
            Err(invalid(&errors))
        }
    }
}

pub(super) fn store_refused(error: StoreError) -> Answer {
    match error {
        StoreError::Taken(_) => conflict("ip", "is that of another device of this site"),
        // A number past PostgreSQL's range, say.
        StoreError::BadValue(why) => invalid_field("driver_config", why),
        error => error.into(),
    }
}

fn create(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let draft: Draft = read_json(call.body)?;
    let valid = check(admin, draft, None)?;
    let id = admin
        .store
        .create_device(&call.caller.actor(), &valid.fields)
        .map_err(store_refused)?;
    added(admin, id, &valid.warnings)
}

/// The answer for a device that was added.
pub(super) fn added(admin: &Admin, id: i64, warnings: &[FieldError]) -> Result<Answer, Answer> {
    let device = find(admin, id)?;
    Ok(answer(201, &device, false, warnings).with("Location", format!("/admin/devices/{id}")))
}

fn update(admin: &Admin, call: &Call<'_>, device: i64) -> Result<Answer, Answer> {
    let before = find(admin, device)?;
    if_match(call.headers, &etag(&before))?;
    let draft = if call.method == Method::Patch {
        patched(&before.fields, call)?
    } else {
        read_json(call.body)?
    };
    let valid = check(admin, draft, Some(&before))?;
    let changed = changes(&before.fields, &valid.fields);
    let after = if changed.is_empty() {
        before
    } else {
        admin
            .store
            .update_device(
                &call.caller.actor(),
                &before,
                &valid.fields,
                &Value::Object(changed),
            )
            .map_err(store_refused)?
            .map_err(precondition::lost)?
    };
    Ok(answer(200, &after, false, &valid.warnings))
}

/// The stored device with the members of a JSON object in place of its own; of
/// a merge patch, `driver_config` and `expectations` go over the stored ones.
fn patched(stored: &DeviceFields, call: &Call<'_>) -> Result<Draft, Answer> {
    let mut members: BTreeMap<String, Option<Box<RawValue>>> = read_json(call.body)?;
    if call.headers.media_type() == merge_patch::MEDIA_TYPE {
        for (name, old) in [
            ("driver_config", &stored.driver_config),
            ("expectations", &stored.expectations),
        ] {
            if let Some(Some(patch)) = members.get_mut(name) {
                *patch = merge_patch::merge(old.as_deref(), patch)
                    .map_err(|error| invalid_field(name, error))?;
            }
        }
    }
    let json = overlaid(Some(stored), members).map_err(|errors| invalid(&errors))?;
    read_json(&json)
}

/// The JSON text of a stored device with other members in place of its own. A
/// section `snmp` or `pjlink` takes the place of the stored one.
pub(super) fn overlaid(
    stored: Option<&DeviceFields>,
    over: BTreeMap<String, Option<Box<RawValue>>>,
) -> Result<Vec<u8>, Vec<FieldError>> {
    let text = |value: Option<&str>| Some(raw(Value::from(value).to_string()));
    let json = |value: &Option<String>| Some(raw(value.clone().unwrap_or_else(|| "{}".to_owned())));
    let mut members = BTreeMap::new();
    if let Some(stored) = stored {
        for (name, value) in [
            ("ip", text(Some(&stored.ip))),
            ("name", text(Some(&stored.name))),
            ("building", text(stored.building.as_deref())),
            ("floor", text(stored.floor.as_deref())),
            ("room", text(stored.room.as_deref())),
            ("type", text(Some(&stored.device_type))),
            ("driver", text(Some(&stored.driver))),
            ("alert_severity", text(Some(stored.alert_severity.word()))),
            ("driver_config", json(&stored.driver_config)),
            ("expectations", json(&stored.expectations)),
        ] {
            members.insert(name.to_owned(), value);
        }
    }
    members.extend(over);
    serde_json::to_vec(&members).map_err(|error| vec![FieldError::new("document", error)])
}

fn delete(admin: &Admin, call: &Call<'_>, device: i64) -> Result<Answer, Answer> {
    let before = find(admin, device)?;
    if_match(call.headers, &etag(&before))?;
    admin
        .store
        .delete_device(&call.caller.actor(), &before)?
        .map_err(precondition::lost)?;
    Ok(Answer::done())
}
