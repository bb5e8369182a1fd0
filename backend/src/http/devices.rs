//! `GET /devices`: what is known of the devices, as JSON.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::store::devices::DeviceReading;

/// A device. Its `driver_config` stays out: it holds passwords.
#[derive(Serialize)]
struct Device<'a> {
    site: &'a str,
    id: i64,
    ip: &'a str,
    name: &'a str,
    building: &'a str,
    floor: &'a str,
    room: &'a str,
    #[serde(rename = "type")]
    device_type: &'a str,
    driver: &'a str,
    status: &'a str,
    verdict: &'a str,
    detail: Option<&'a str>,
    metrics: Option<&'a RawValue>,
    observed_at: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    last_ok_at: Option<Timestamp>,
    verdict_since: Option<Timestamp>,
    /// Not heard of for three intervals: unknown, whatever was observed last.
    stale: bool,
}

/// The devices as a JSON array. A device that was never reported is
/// `unknown`, with no times and no metrics.
pub(super) fn answer(readings: &[DeviceReading]) -> Answer {
    let devices: Vec<Device<'_>> = readings
        .iter()
        .map(|reading| {
            let state = reading.state.as_ref();
            Device {
                site: &reading.site,
                id: reading.id,
                ip: &reading.ip,
                name: &reading.name,
                building: &reading.building,
                floor: &reading.floor,
                room: &reading.room,
                device_type: &reading.device_type,
                driver: &reading.driver,
                status: state.map_or("unknown", |state| &state.status),
                verdict: state.map_or("unknown", |state| &state.verdict),
                detail: state.and_then(|state| state.detail.as_deref()),
                metrics: state.and_then(|state| serde_json::from_str(&state.metrics).ok()),
                observed_at: state.map(|state| state.observed_at),
                last_seen: state.map(|state| state.last_seen),
                last_ok_at: state.and_then(|state| state.last_ok_at),
                verdict_since: state.map(|state| state.verdict_since),
                stale: state.is_some_and(|state| state.stale),
            }
        })
        .collect();
    Answer::json(200, &devices)
}
