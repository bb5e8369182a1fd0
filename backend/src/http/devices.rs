//! `GET /devices`: what is known of the devices, as JSON.

use serde::Serialize;

use crate::answer::Answer;
use crate::device_state::StateDocument;
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
    #[serde(flatten)]
    state: StateDocument<'a>,
}

/// The devices as a JSON array. A device that was never reported is
/// `unknown`, with no times and no metrics.
pub(super) fn answer(readings: &[DeviceReading]) -> Answer {
    let devices: Vec<Device<'_>> = readings
        .iter()
        .map(|reading| Device {
            site: &reading.site,
            id: reading.id,
            ip: &reading.ip,
            name: &reading.name,
            building: &reading.building,
            floor: &reading.floor,
            room: &reading.room,
            device_type: &reading.device_type,
            driver: &reading.driver,
            state: StateDocument::new(reading.state.as_ref()),
        })
        .collect();
    Answer::json(200, &devices)
}
