//! `GET /devices`: what is known of the devices, as a JSON array.

use std::sync::Arc;

use serde::Serialize;

use super::pages::{PAGE, Pages};
use crate::answer::Answer;
use crate::device_state::StateDocument;
use crate::store::devices::DeviceReading;
use crate::store::{Store, StoreError};
use crate::url::{Query, encode};

/// The most devices of a page that is asked for.
const LIMIT_MAX: i64 = 5000;

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

/// Which devices are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name or id of a site.
    pub(super) site: Option<String>,
    /// The most devices of a page.
    limit: Option<i64>,
    /// Those behind the one of this id.
    after: i64,
}

impl Wanted {
    pub(super) fn read(query: &Query) -> Result<Self, Answer> {
        let number = |name: &str, most: i64| match query.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .map(Some)
                .ok_or_else(|| {
                    Answer::error(400, &format!("{name}: is no number from 1 to {most}"))
                }),
        };
        Ok(Self {
            site: query
                .get("site")
                .filter(|site| !site.is_empty())
                .map(str::to_owned),
            limit: number("limit", LIMIT_MAX)?,
            after: number("after", i64::MAX)?.unwrap_or_default(),
        })
    }
}

/// The devices of one site, or of all, by their ids. A device that was never
/// reported is `unknown`, with no times and no metrics. With a limit, the header
/// `Link` names the page that follows.
pub(super) fn answer(store: &Arc<Store>, site: Option<i64>, wanted: &Wanted) -> Answer {
    let listed = match wanted.limit {
        Some(limit) => page(store, site, wanted, limit),
        None => all(store, site, wanted.after),
    };
    listed.unwrap_or_else(Into::into)
}

fn page(
    store: &Store,
    site: Option<i64>,
    wanted: &Wanted,
    limit: i64,
) -> Result<Answer, StoreError> {
    // One more tells whether there is a next page.
    let mut readings = store.device_readings(site, wanted.after, limit + 1)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = readings.len() > most;
    readings.truncate(most);
    let mut body = b"[".to_vec();
    append(&mut body, &readings, true);
    body.push(b']');
    let answer = Answer::json_text(200, body);
    let Some(last) = readings.last().filter(|_| more) else {
        return Ok(answer);
    };
    let mut next = format!("</devices?limit={limit}&after={}", last.device.id);
    if let Some(site) = &wanted.site {
        next.push_str(&format!("&site={}", encode(site)));
    }
    next.push_str(">; rel=\"next\"");
    Ok(answer.with("Link", next))
}

fn all(store: &Arc<Store>, site: Option<i64>, after: i64) -> Result<Answer, StoreError> {
    let mut body = b"[".to_vec();
    let first = store.device_readings(site, after, PAGE)?;
    append(&mut body, &first, true);
    let mut last = following(&first);
    if last.is_none() {
        body.push(b']');
        return Ok(Answer::json_text(200, body));
    }
    let store = store.clone();
    let pages = Pages::new(body, move |page: &mut Vec<u8>| {
        let readings = match last {
            Some(after) => store.device_readings(site, after, PAGE)?,
            None => Vec::new(),
        };
        append(page, &readings, false);
        last = following(&readings);
        if last.is_none() {
            page.push(b']');
        }
        Ok(last.is_some())
    });
    Ok(Answer::json_stream(pages))
}

/// Behind which device the next page begins, where there may be one.
fn following(readings: &[DeviceReading]) -> Option<i64> {
    let full = i64::try_from(readings.len()) == Ok(PAGE);
    readings
        .last()
        .filter(|_| full)
        .map(|reading| reading.device.id)
}

fn append(body: &mut Vec<u8>, readings: &[DeviceReading], mut first: bool) {
    for reading in readings {
        let label = &reading.device;
        let device = Device {
            site: &label.site,
            id: label.id,
            ip: &label.ip,
            name: &label.name,
            building: &label.building,
            floor: &label.floor,
            room: &label.room,
            device_type: &label.device_type,
            driver: &label.driver,
            state: StateDocument::new(reading.state.as_ref()),
        };
        if !std::mem::replace(&mut first, false) {
            body.push(b',');
        }
        // Writing to memory cannot fail, and every key is a text.
        if let Err(error) = serde_json::to_writer(&mut *body, &device) {
            log::error!("device {} cannot be written: {error}", label.id);
        }
    }
}
