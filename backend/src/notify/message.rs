//! What a message says: a JSON document, which a webhook gets as it is and
//! from which a mail is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use av_proto::text::excerpt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::zone_of;
use crate::store::channels::{ChannelSettings, EventAlert, PendingEvent};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Of this shape: 1.
    pub version: u32,
    /// `alerts` or `test`.
    pub kind: String,
    /// All of it in one line.
    pub title: String,
    /// The channel's name.
    pub channel: String,
    /// The channel's time zone, in which a mail tells times.
    pub timezone: String,
    /// When it was written.
    pub written_at: Timestamp,
    /// Where the alerts are shown.
    pub link: Option<String>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// Something that happened to an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `opened` or `closed`.
    pub what: String,
    /// When.
    pub at: Timestamp,
    /// The alert as it was when the message was written.
    pub alert: Alert,
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its id.
    pub id: i64,
    /// `fault` or `agent_silent`.
    pub kind: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// The site.
    pub site: Site,
    /// The device; `None` for an alert of the site.
    pub device: Option<Device>,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// For a person.
    pub detail: Option<String>,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// A device and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id; `None` once it is deleted.
    pub id: Option<i64>,
    /// Its address.
    pub ip: String,
    /// Its name.
    pub name: String,
    /// `""` where unknown.
    pub building: String,
    /// `""` where unknown.
    pub floor: String,
    /// `""` where unknown.
    pub room: String,
}

impl From<PendingEvent> for Event {
    fn from(event: PendingEvent) -> Self {
        Self {
            what: event.what,
            at: event.at,
            alert: event.alert.into(),
        }
    }
}

impl From<EventAlert> for Alert {
    fn from(alert: EventAlert) -> Self {
        Self {
            id: alert.id,
            kind: alert.kind,
            severity: alert.severity,
            site: Site {
                id: alert.site_id,
                name: alert.site,
            },
            device: alert.device_ip.map(|ip| Device {
                id: alert.device_id,
                ip,
                name: alert.device_name.unwrap_or_default(),
                building: alert.building,
                floor: alert.floor,
                room: alert.room,
            }),
            opened_at: alert.opened_at,
            closed_at: alert.closed_at,
            detail: alert.detail,
        }
    }
}

impl Device {
    /// Building, floor and room, as far as they are known.
    fn place(&self) -> String {
        [&self.building, &self.floor, &self.room]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| excerpt(part, 80))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Body {
    /// A message of these events.
    #[must_use]
    pub fn alerts(
        now: Timestamp,
        channel: &ChannelSettings,
        events: Vec<Event>,
        link: Option<&str>,
    ) -> Self {
        Self {
            version: 1,
            kind: "alerts".to_owned(),
            title: title(&events),
            channel: channel.name.clone(),
            timezone: channel.timezone.clone(),
            written_at: now,
            link: link.map(|link| format!("{link}/alerts")),
            events,
        }
    }

    /// A message that only shows that messages arrive.
    #[must_use]
    pub fn test(now: Timestamp, channel: &ChannelSettings) -> Self {
        Self {
            version: 1,
            kind: "test".to_owned(),
            title: "a test message: alerts will arrive like this".to_owned(),
            channel: channel.name.clone(),
            timezone: channel.timezone.clone(),
            written_at: now,
            link: None,
            events: Vec::new(),
        }
    }

    /// What tells this message from every other, the same at every try. The
    /// id alone would not do: it comes again where a database is restored.
    #[must_use]
    pub fn key(&self, id: i64) -> String {
        format!("av-{id}-{}", self.written_at.as_microsecond())
    }

    /// As it is stored and posted.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only maps with keys that are no strings can fail, and there are none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a stored message.
    ///
    /// # Errors
    /// Where it is not of this shape.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("the message cannot be read: {error}"))
    }

    /// The text of a mail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", excerpt(&self.title, 300));
        let mut places: BTreeMap<(Site, String), Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            let place = event.alert.device.as_ref().map(Device::place);
            places
                .entry((event.alert.site.clone(), place.unwrap_or_default()))
                .or_default()
                .push(event);
        }
        // Writing to a String cannot fail.
        for ((site, place), events) in places {
            let _ = write!(text, "\n{}", excerpt(&site.name, 120));
            if !place.is_empty() {
                let _ = write!(text, ", {place}");
            }
            text.push('\n');
            for event in events {
                let _ = writeln!(text, "  {}", self.line(event));
            }
        }
        if let Some(link) = &self.link {
            let _ = write!(text, "\n{link}\n");
        }
        let _ = write!(
            text,
            "\n-- \nTimes are those of {}. Channel: {}\n",
            excerpt(&self.timezone, 60),
            excerpt(&self.channel, 120)
        );
        text
    }

    fn line(&self, event: &Event) -> String {
        let alert = &event.alert;
        let name = match &alert.device {
            Some(device) => format!(
                "{} ({})",
                excerpt(&device.name, 120),
                excerpt(&device.ip, 60)
            ),
            None => "the agent".to_owned(),
        };
        let mut line = if event.what == "closed" {
            format!(
                "OVER      {} {name}: {}, open since {}",
                self.time(event.alert.closed_at.unwrap_or(event.at)),
                if alert.device.is_some() {
                    "no longer in fault"
                } else {
                    "reports again"
                },
                self.time(alert.opened_at)
            )
        } else {
            format!(
                "{:<9} {} {name}: {}",
                alert.severity.to_uppercase(),
                self.time(alert.opened_at),
                if alert.device.is_some() {
                    "in fault"
                } else {
                    "is silent"
                }
            )
        };
        if let (Some(detail), "opened") = (&alert.detail, event.what.as_str()) {
            let _ = write!(line, " ({})", excerpt(detail, 280));
        }
        line
    }

    fn time(&self, at: Timestamp) -> String {
        at.to_zoned_datetime(zone_of(&self.timezone))
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string()
    }
}

/// `Paris, A, 1, Salle 101: 3 in fault, 1 no longer in fault`.
fn title(events: &[Event]) -> String {
    let mut open: BTreeMap<i64, &Alert> = BTreeMap::new();
    let mut over: BTreeMap<i64, &Alert> = BTreeMap::new();
    for event in events {
        if event.what == "closed" {
            open.remove(&event.alert.id);
            over.insert(event.alert.id, &event.alert);
        } else if !over.contains_key(&event.alert.id) {
            open.insert(event.alert.id, &event.alert);
        }
    }
    let mut said = Vec::new();
    for (alerts, device, agent) in [
        (&open, "in fault", "silent"),
        (&over, "no longer in fault", "heard again"),
    ] {
        let devices = alerts
            .values()
            .filter(|alert| alert.device.is_some())
            .count();
        let agents = alerts.len() - devices;
        if agents > 0 {
            said.push(if agents == 1 {
                format!("the agent is {agent}")
            } else {
                format!("{agents} agents are {agent}")
            });
        }
        if devices > 0 {
            said.push(format!("{devices} {device}"));
        }
    }
    format!("{}: {}", subject(events), said.join(", "))
}

fn subject(events: &[Event]) -> String {
    let sites: BTreeSet<&Site> = events.iter().map(|event| &event.alert.site).collect();
    if sites.len() > 1 {
        return format!("{} sites", sites.len());
    }
    let site = sites
        .first()
        .map_or_else(String::new, |site| excerpt(&site.name, 80));
    let places: BTreeSet<String> = events
        .iter()
        .map(|event| {
            event
                .alert
                .device
                .as_ref()
                .map(Device::place)
                .unwrap_or_default()
        })
        .collect();
    match places.first() {
        Some(place) if places.len() == 1 && !place.is_empty() => format!("{site}, {place}"),
        _ => site,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, what: &str, room: &str) -> Event {
        Event {
            what: what.to_owned(),
            at: "2026-11-24T10:00:05Z".parse().unwrap(),
            alert: Alert {
                id,
                kind: "fault".to_owned(),
                severity: "critical".to_owned(),
                site: Site {
                    id: 1,
                    name: "Paris".to_owned(),
                },
                device: Some(Device {
                    id: Some(id),
                    ip: format!("10.0.0.{id}"),
                    name: format!("P{id}"),
                    building: "A".to_owned(),
                    floor: String::new(),
                    room: room.to_owned(),
                }),
                opened_at: "2026-11-24T10:00:00Z".parse().unwrap(),
                closed_at: (what == "closed").then(|| "2026-11-24T11:00:00Z".parse().unwrap()),
                detail: Some("no\nanswer".to_owned()),
            },
        }
    }

    fn silent(id: i64, what: &str) -> Event {
        let mut event = event(id, what, "");
        event.alert.kind = "agent_silent".to_owned();
        event.alert.device = None;
        event
    }

    fn at_lyon(mut event: Event) -> Event {
        event.alert.site.id = 2;
        event.alert.site.name = "Lyon".to_owned();
        event
    }

    #[test]
    fn titles() {
        for (events, expected) in [
            (
                vec![event(1, "opened", "101"), event(2, "opened", "101")],
                "Paris, A, 101: 2 in fault",
            ),
            (
                vec![event(1, "opened", "101"), event(2, "closed", "101")],
                "Paris, A, 101: 1 in fault, 1 no longer in fault",
            ),
            // Opened and closed while it was collected.
            (
                vec![event(1, "opened", "101"), event(1, "closed", "101")],
                "Paris, A, 101: 1 no longer in fault",
            ),
            (
                vec![event(1, "opened", "101"), event(2, "opened", "102")],
                "Paris: 2 in fault",
            ),
            (vec![silent(1, "opened")], "Paris: the agent is silent"),
            (vec![silent(1, "closed")], "Paris: the agent is heard again"),
            (
                vec![
                    silent(1, "opened"),
                    at_lyon(silent(2, "opened")),
                    event(3, "opened", "1"),
                ],
                "2 sites: 2 agents are silent, 1 in fault",
            ),
        ] {
            assert_eq!(title(&events), expected);
        }
    }

    #[test]
    fn a_mail_tells_times_of_the_channels_zone_and_forges_no_line() {
        let body = Body {
            version: 1,
            kind: "alerts".to_owned(),
            title: "Paris: 1 in fault".to_owned(),
            channel: "ops".to_owned(),
            timezone: "Europe/Paris".to_owned(),
            written_at: "2026-11-24T10:00:30Z".parse().unwrap(),
            link: Some("https://av.example.org/alerts".to_owned()),
            events: vec![
                event(1, "opened", "101"),
                event(2, "closed", "101"),
                silent(3, "opened"),
            ],
        };
        assert_eq!(
            body.text(),
            "Paris: 1 in fault\n\
             \n\
             Paris\n\
             \x20 CRITICAL  2026-11-24 11:00:00 the agent: is silent (no\u{fffd}answer)\n\
             \n\
             Paris, A, 101\n\
             \x20 CRITICAL  2026-11-24 11:00:00 P1 (10.0.0.1): in fault (no\u{fffd}answer)\n\
             \x20 OVER      2026-11-24 12:00:00 P2 (10.0.0.2): no longer in fault, open since 2026-11-24 11:00:00\n\
             \n\
             https://av.example.org/alerts\n\
             \n\
             -- \n\
             Times are those of Europe/Paris. Channel: ops\n"
        );
        assert_eq!(Body::parse(&body.to_json()).unwrap(), body);
    }
}
