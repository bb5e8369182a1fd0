//! A site: its devices by place, live, and its settings.

use std::collections::BTreeMap;

use askama::Template;
use serde::Serialize;

use super::html::{Frame, key};
use super::{
    Admin, Call, Count, Problem, assets, editors_frame, frame, one_site, place, show, zones,
};
use crate::answer::Answer;
use crate::store::pages::{DevicePage, SitePage, Tally};

#[derive(Template)]
#[template(path = "site.html")]
struct Page {
    f: Frame,
    site: SitePage,
    counts: Vec<Count>,
    places: Vec<Place>,
}

/// The devices of one room.
struct Place {
    title: String,
    devices: Vec<DevicePage>,
}

/// `GET /sites/{id}`.
pub(super) fn page(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let site = one_site(admin, id)?;
    let devices = admin.store.device_pages(id)?;
    let tally = tally(&devices);
    let counts = tally
        .parts()
        .into_iter()
        .map(|(class, count)| Count {
            class,
            words: f.lang.worst(class),
            count,
        })
        .collect();
    let places = by_place(devices, f.lang.t("place.none"));
    Ok(show(
        200,
        &Page {
            f,
            site,
            counts,
            places,
        },
    ))
}

fn tally(devices: &[DevicePage]) -> Tally {
    let mut tally = Tally::default();
    for device in devices {
        tally.add(device.class(), 1);
    }
    tally
}

/// The devices by building, floor and room; what has no place comes last.
fn by_place(mut devices: Vec<DevicePage>, nowhere: &str) -> Vec<Place> {
    devices.sort_by_cached_key(|device| {
        let title = place(&device.building, &device.floor, &device.room);
        (
            title.is_empty(),
            key(&device.building),
            key(&device.floor),
            key(&device.room),
            key(&device.name),
            device.id,
        )
    });
    let mut places: Vec<Place> = Vec::new();
    for device in devices {
        let mut title = place(&device.building, &device.floor, &device.room);
        if title.is_empty() {
            title = nowhere.to_owned();
        }
        match places.last_mut() {
            Some(last) if last.title == title => last.devices.push(device),
            _ => places.push(Place {
                title,
                devices: vec![device],
            }),
        }
    }
    places
}

/// What changes on a site's page while it is open.
#[derive(Serialize)]
struct Live {
    revision: i64,
    agent: String,
    counts: BTreeMap<&'static str, i64>,
    /// Verdict, detail, and since when in milliseconds.
    devices: BTreeMap<i64, (&'static str, String, Option<i64>)>,
}

/// `GET /sites/{id}/live`: 304 where nothing changed.
pub(super) fn live(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let mut f = frame(call, "");
    f.bare = true;
    let site = one_site(admin, id)?;
    let devices = admin.store.device_pages(id)?;
    let live = Live {
        revision: site.revision,
        agent: f.agent(&site).line(),
        counts: tally(&devices).parts().into_iter().collect(),
        devices: devices
            .into_iter()
            .map(|device| {
                let since = device.since.map(|since| since.as_millisecond());
                (device.id, (device.class(), f.detail(&device), since))
            })
            .collect(),
    };
    let mut answer = Answer::json(200, &live);
    let tag = assets::tag(&serde_json::to_string(&live).unwrap_or_default());
    if assets::matches(call.headers.get("if-none-match"), &tag) {
        answer.status = 304;
    }
    Ok(answer.with("ETag", tag))
}

#[derive(Template)]
#[template(path = "site_form.html")]
struct Form {
    f: Frame,
    title: String,
    id: Option<i64>,
    name: String,
    zone: String,
    zones: Vec<String>,
}

/// `GET /sites/new`.
pub(super) fn new(call: &Call<'_>) -> Result<Answer, Problem> {
    let f = editors_frame(call, "sites")?;
    Ok(show(
        200,
        &Form {
            title: f.lang.t("site.new").to_owned(),
            f,
            id: None,
            name: String::new(),
            zone: "Europe/Paris".to_owned(),
            zones: zones(),
        },
    ))
}

/// `GET /sites/{id}/edit`.
pub(super) fn edit(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = editors_frame(call, "sites")?;
    let site = one_site(admin, id)?;
    Ok(show(
        200,
        &Form {
            f,
            title: site.name.clone(),
            id: Some(id),
            name: site.name,
            zone: site.timezone,
            zones: zones(),
        },
    ))
}

#[derive(Template)]
#[template(path = "import.html")]
struct Import {
    f: Frame,
    site: SitePage,
}

/// `GET /sites/{id}/import`.
pub(super) fn import(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = editors_frame(call, "sites")?;
    let site = one_site(admin, id)?;
    Ok(show(200, &Import { f, site }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: i64, floor: &str, room: &str, name: &str) -> DevicePage {
        DevicePage {
            id,
            site_id: 1,
            site: String::new(),
            site_timezone: String::new(),
            name: name.to_owned(),
            ip: String::new(),
            device_type: String::new(),
            driver: String::new(),
            building: String::new(),
            floor: floor.to_owned(),
            room: room.to_owned(),
            status: None,
            verdict: None,
            detail: String::new(),
            since: None,
            last_seen: None,
            last_ok_at: None,
            was: None,
        }
    }

    #[test]
    fn devices_stand_by_place_as_people_count() {
        let places = by_place(
            vec![
                device(1, "", "", "A"),
                device(2, "10", "Salle 1", "B"),
                device(3, "9", "Salle 12", "C"),
                device(4, "9", "Salle 2", "D 10"),
                device(5, "9", "Salle 2", "D 9"),
            ],
            "nowhere",
        );
        let shown: Vec<(&str, Vec<i64>)> = places
            .iter()
            .map(|place| {
                (
                    place.title.as_str(),
                    place.devices.iter().map(|device| device.id).collect(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("9 · Salle 2", vec![5, 4]),
                ("9 · Salle 12", vec![3]),
                ("10 · Salle 1", vec![2]),
                ("nowhere", vec![1]),
            ]
        );
    }
}
