//! Maintenance windows: those that there are, and a new one.

use std::collections::BTreeSet;

use askama::Template;

use super::html::{Frame, key};
use super::{Admin, Call, Problem, editors_frame, frame, place, show};
use crate::answer::Answer;
use crate::store::alerts::Window;

#[derive(Template)]
#[template(path = "maintenance.html")]
struct Page {
    f: Frame,
    past: bool,
    windows: Vec<Line>,
}

/// A window with the words that say where it is in time and space.
struct Line {
    window: Window,
    place: String,
    when: &'static str,
    over: bool,
}

/// `GET /maintenance?past=1`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = frame(call, "maintenance");
    let past = call.query.get("past") == Some("1");
    let windows = admin
        .store
        .windows(None, past)?
        .into_iter()
        .map(|window| {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let over = window.ends_at <= f.now && !window.active;
            Line {
                place: place(
                    &part(&window.building),
                    &part(&window.floor),
                    &part(&window.room),
                ),
                when: f.lang.t(match (window.active, over) {
                    (true, _) => "maintenance.active",
                    (false, true) => "maintenance.past",
                    (false, false) => "maintenance.coming",
                }),
                over,
                window,
            }
        })
        .collect();
    Ok(show(200, &Page { f, past, windows }))
}

#[derive(Template)]
#[template(path = "maintenance_form.html")]
struct Form {
    f: Frame,
    /// The sites, where none is chosen yet.
    sites: Vec<(i64, String)>,
    site: Option<(i64, String)>,
    rooms: Vec<Room>,
    devices: Vec<Named>,
    device: i64,
}

struct Room {
    building: String,
    floor: String,
    room: String,
    words: String,
}

struct Named {
    id: i64,
    name: String,
    place: String,
}

/// `GET /maintenance/new?site=&device=`.
pub(super) fn new(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = editors_frame(call, "maintenance")?;
    let number = |name: &str| {
        call.query
            .get(name)
            .and_then(|text| text.parse::<i64>().ok())
    };
    let Some(id) = number("site") else {
        let sites = admin.store.sites()?;
        return Ok(show(
            200,
            &Form {
                f,
                sites: sites.into_iter().map(|site| (site.id, site.name)).collect(),
                site: None,
                rooms: Vec::new(),
                devices: Vec::new(),
                device: 0,
            },
        ));
    };
    let site = admin.store.site_page(id)?.ok_or(Problem::None)?;
    let mut devices = admin.store.device_pages(id)?;
    devices.sort_by_cached_key(|device| (key(&device.name), device.id));
    let rooms: BTreeSet<(&str, &str, &str)> = devices
        .iter()
        .map(|device| {
            let (building, floor) = (device.building.as_str(), device.floor.as_str());
            (building, floor, device.room.as_str())
        })
        .filter(|(_, _, room)| !room.is_empty())
        .collect();
    let rooms = rooms
        .into_iter()
        .map(|(building, floor, room)| Room {
            words: place(building, floor, room),
            building: building.to_owned(),
            floor: floor.to_owned(),
            room: room.to_owned(),
        })
        .collect();
    let devices = devices
        .into_iter()
        .map(|device| Named {
            place: place(&device.building, &device.floor, &device.room),
            id: device.id,
            name: device.name,
        })
        .collect();
    Ok(show(
        200,
        &Form {
            f,
            sites: Vec::new(),
            site: Some((id, site.name)),
            rooms,
            devices,
            device: number("device").unwrap_or(0),
        },
    ))
}
