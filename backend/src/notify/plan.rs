//! Which events become a message now: collected per room, as a digest, and
//! held back in quiet hours. Pure: time and events come in, messages go out.

use std::collections::BTreeMap;

use av_proto::schedule::zone;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::message::{Body, Event};
use crate::store::channels::{Channel, NewMessage, PendingEvent};

/// A message tells of so many events at most; the next one of the rest.
const EVENTS_MAX: usize = 500;

/// The messages that are due now. An event that is in none stays collected.
#[must_use]
pub fn plan(
    now: Timestamp,
    channels: &[Channel],
    events: Vec<PendingEvent>,
    link: Option<&str>,
) -> Vec<NewMessage> {
    let channels: BTreeMap<i64, &Channel> = channels
        .iter()
        .map(|channel| (channel.id, channel))
        .collect();
    let mut groups: BTreeMap<(i64, String), Vec<PendingEvent>> = BTreeMap::new();
    for event in events {
        if let Some(channel) = channels.get(&event.channel_id) {
            let key = subject_key(channel, &event);
            groups.entry((channel.id, key)).or_default().push(event);
        }
    }
    let mut messages = Vec::new();
    for ((channel_id, subject_key), group) in groups {
        let Some(channel) = channels.get(&channel_id) else {
            continue;
        };
        if !is_due(now, channel, &group) {
            continue;
        }
        let ids: Vec<i64> = group.iter().map(|event| event.id).collect();
        let events: Vec<Event> = group.into_iter().map(Event::from).collect();
        for (ids, events) in ids.chunks(EVENTS_MAX).zip(events.chunks(EVENTS_MAX)) {
            let body = Body::alerts(now, &channel.settings, events.to_vec(), link);
            messages.push(NewMessage {
                channel_id,
                subject_key: subject_key.clone(),
                body: body.to_json(),
                events: ids.to_vec(),
            });
        }
    }
    messages
}

/// Events with the same key go into one message.
fn subject_key(channel: &Channel, event: &PendingEvent) -> String {
    if channel.settings.digest_minutes > 0 {
        return "digest".to_owned();
    }
    let alert = &event.alert;
    if alert.kind == "agent_silent" {
        return format!("{}\u{1f}agent", alert.site_id);
    }
    format!(
        "{}\u{1f}room\u{1f}{}\u{1f}{}\u{1f}{}",
        alert.site_id, alert.building, alert.floor, alert.room
    )
}

fn is_due(now: Timestamp, channel: &Channel, group: &[PendingEvent]) -> bool {
    let settings = &channel.settings;
    let wait = if settings.digest_minutes > 0 {
        SignedDuration::from_mins(settings.digest_minutes.into())
    } else {
        SignedDuration::from_secs(settings.collect_s.into())
    };
    let collected = group
        .iter()
        .map(|event| event.at)
        .min()
        .is_some_and(|oldest| now.duration_since(oldest) >= wait);
    if !collected {
        return false;
    }
    let passes =
        settings.critical_passes && group.iter().any(|event| event.alert.severity == "critical");
    let quiet =
        settings
            .quiet
            .as_ref()
            .is_some_and(|(from, to)| match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => is_quiet(now, &zone_of(&settings.timezone), from, to),
                _ => false,
            });
    passes || !quiet
}

/// The channel's zone; UTC where it is not known here.
pub(super) fn zone_of(name: &str) -> TimeZone {
    zone(name).unwrap_or(TimeZone::UTC)
}

/// Whether the wall clock of the zone stands between these times: over
/// midnight where the end comes before the start, never where both are equal.
fn is_quiet(now: Timestamp, zone: &TimeZone, from: Time, to: Time) -> bool {
    let time = now.to_zoned_datetime(zone.clone()).time();
    if from <= to {
        from <= time && time < to
    } else {
        from <= time || time < to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::channels::{ChannelSettings, Destination, EventAlert};

    const NOW: &str = "2026-11-24T21:30:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn channel(change: impl FnOnce(&mut ChannelSettings)) -> Channel {
        let mut settings = ChannelSettings {
            name: "ops".to_owned(),
            enabled: true,
            site_id: None,
            min_severity: "warning".to_owned(),
            notify_closed: true,
            destination: Destination::Mail(vec!["a@example.org".to_owned()]),
            collect_s: 30,
            digest_minutes: 0,
            timezone: "Europe/Paris".to_owned(),
            quiet: None,
            critical_passes: true,
        };
        change(&mut settings);
        Channel {
            id: 1,
            settings,
            last_sent_at: None,
            last_error: None,
            last_error_at: None,
            waiting: 0,
            created_at: at(NOW),
            updated_at: at(NOW),
        }
    }

    fn event(id: i64, room: &str, severity: &str, ago_s: i64) -> PendingEvent {
        PendingEvent {
            id,
            channel_id: 1,
            what: "opened".to_owned(),
            at: at(NOW) - SignedDuration::from_secs(ago_s),
            alert: EventAlert {
                id: id * 10,
                kind: "fault".to_owned(),
                severity: severity.to_owned(),
                site_id: 1,
                site: "Paris".to_owned(),
                device_id: Some(id),
                device_ip: Some(format!("10.0.0.{id}")),
                device_name: Some(format!("P{id}")),
                building: "A".to_owned(),
                floor: "1".to_owned(),
                room: room.to_owned(),
                opened_at: at(NOW),
                closed_at: None,
                detail: None,
            },
        }
    }

    fn planned(channel: &Channel, events: Vec<PendingEvent>) -> Vec<Vec<i64>> {
        plan(at(NOW), std::slice::from_ref(channel), events, None)
            .into_iter()
            .map(|message| message.events)
            .collect()
    }

    #[test]
    fn a_room_is_one_message_once_its_oldest_event_is_old_enough() {
        let events = || {
            vec![
                event(1, "101", "critical", 31),
                event(2, "101", "critical", 1),
                event(3, "102", "critical", 29),
            ]
        };
        assert_eq!(planned(&channel(|_| {}), events()), [vec![1, 2]]);
        assert_eq!(
            planned(&channel(|c| c.collect_s = 0), events()),
            [vec![1, 2], vec![3]]
        );
        let mut other = events();
        other[0].channel_id = 99;
        assert_eq!(planned(&channel(|_| {}), other), Vec::<Vec<i64>>::new());
    }

    #[test]
    fn a_silent_agent_is_not_mixed_with_a_room() {
        let mut silent = event(1, "", "critical", 100);
        silent.alert.kind = "agent_silent".to_owned();
        silent.alert.building = String::new();
        silent.alert.floor = String::new();
        let mut placeless = event(2, "", "critical", 100);
        placeless.alert.building = String::new();
        placeless.alert.floor = String::new();
        let mut found = planned(&channel(|_| {}), vec![silent, placeless]);
        found.sort();
        assert_eq!(found, [vec![1], vec![2]]);
    }

    #[test]
    fn a_digest_is_one_message_of_everything() {
        let digest = channel(|c| c.digest_minutes = 60);
        let young = vec![
            event(1, "101", "critical", 3599),
            event(2, "102", "warning", 1),
        ];
        assert_eq!(planned(&digest, young), Vec::<Vec<i64>>::new());
        let old = vec![
            event(1, "101", "critical", 3600),
            event(2, "102", "warning", 1),
        ];
        assert_eq!(planned(&digest, old), [vec![1, 2]]);
    }

    #[test]
    fn many_events_are_several_messages_in_order() {
        let events = (1..=1100)
            .map(|id| event(id, "101", "warning", 60))
            .collect();
        let sizes: Vec<usize> = planned(&channel(|_| {}), events)
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(sizes, [500, 500, 100]);
    }

    #[test]
    fn quiet_hours_hold_back_what_is_not_critical() {
        // 22:30 in Paris.
        let quiet = |from: &str, to: &str, passes: bool| {
            channel(|c| {
                c.quiet = Some((from.to_owned(), to.to_owned()));
                c.critical_passes = passes;
            })
        };
        let sent = |channel: &Channel, severity: &str| {
            !planned(channel, vec![event(1, "101", severity, 60)]).is_empty()
        };
        for (from, to, severity, passes, expected) in [
            ("22:00", "07:00", "warning", true, false),
            ("22:00", "07:00", "critical", true, true),
            ("22:00", "07:00", "critical", false, false),
            ("22:30", "22:31", "warning", true, false),
            ("22:31", "07:00", "warning", true, true),
            ("21:00", "22:30", "warning", true, true),
            ("12:00", "12:00", "warning", true, true),
        ] {
            assert_eq!(
                sent(&quiet(from, to, passes), severity),
                expected,
                "{from} {to} {severity} {passes}"
            );
        }
    }

    #[test]
    fn quiet_hours_follow_the_zones_clock() {
        let paris = zone_of("Europe/Paris");
        let hours = |text: &str| {
            is_quiet(
                at(text),
                &paris,
                "22:00".parse().unwrap(),
                "07:00".parse().unwrap(),
            )
        };
        // +01:00 in winter, +02:00 in summer
        for (text, expected) in [
            ("2026-01-10T20:59:59Z", false),
            ("2026-01-10T21:00:00Z", true),
            ("2026-01-11T05:59:59Z", true),
            ("2026-01-11T06:00:00Z", false),
            ("2026-07-10T20:00:00Z", true),
            ("2026-07-11T05:00:00Z", false),
        ] {
            assert_eq!(hours(text), expected, "{text}");
        }
        assert_eq!(zone_of("Mars/Base"), TimeZone::UTC);
    }
}
