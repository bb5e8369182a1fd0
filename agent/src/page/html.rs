//! `GET /`: the status page.

use std::sync::Arc;

use askama::Template;
use av_proto::sort::sort_by;
use av_proto::text::one_line;
use av_proto::verdict::{Status, Verdict};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Sources;
use super::order::natural;
use super::times::{local, span, with_age};
use crate::clock::{Line, Trust};
use crate::collector::Observation;

/// A line of "name: value".
struct Fact {
    name: &'static str,
    value: String,
}

/// A place with its devices.
struct Place {
    title: String,
    rows: Vec<Row>,
}

/// A device's line.
struct Row {
    name: String,
    ip: String,
    kind: String,
    driver: String,
    status: &'static str,
    verdict: &'static str,
    verdict_words: &'static str,
    icon: &'static str,
    detail: String,
    /// Settings that have no effect.
    unknown: Vec<String>,
    age: String,
    observed: String,
}

/// How many devices have a verdict.
struct Count {
    verdict: &'static str,
    words: &'static str,
    icon: &'static str,
    count: usize,
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    version: &'static str,
    site_name: String,
    now: String,
    counts: Vec<Count>,
    sync_ok: Option<bool>,
    sync_error: String,
    sync_facts: Vec<Fact>,
    sweep_facts: Vec<Fact>,
    report_facts: Vec<Fact>,
    problems: Vec<String>,
    places: Vec<Place>,
    total: usize,
    swept: bool,
}

/// The page as it is now.
pub(super) fn render(sources: &Sources) -> askama::Result<String> {
    let line = sources.clock.line();
    let now = sources.clock.now();
    let active = sources.handle.load();
    let sweep = sources.snapshots.sweep.load();
    let sync = sources.snapshots.sync.load();
    let zone = &active.site.timezone;
    StatusPage {
        version: crate::VERSION,
        site_name: one_line(&active.site.site_name),
        now: local(now, zone),
        counts: counts(&sweep.observations),
        sync_ok: sync.last_sync_ok,
        sync_error: sync.last_sync_error.clone().unwrap_or_default(),
        sync_facts: sync_facts(sources, now, zone),
        sweep_facts: sweep_facts(sources, &line, now, zone),
        report_facts: report_facts(sources, now, zone),
        problems: problems(sources, zone),
        places: places(&sweep.observations, &line, now, zone),
        total: sweep.observations.len(),
        swept: sweep.last.is_some(),
    }
    .render()
}

fn fact(name: &'static str, value: impl Into<String>) -> Fact {
    Fact {
        name,
        value: value.into(),
    }
}

fn sync_facts(sources: &Sources, now: Timestamp, zone: &TimeZone) -> Vec<Fact> {
    let sync = sources.snapshots.sync.load();
    let active = sources.handle.load();
    let moment = |at: Option<Timestamp>| {
        at.map_or_else(|| "not yet".to_owned(), |at| with_age(at, now, zone))
    };
    let hash = |hash: &Option<av_proto::hash::ConfigHash>| {
        hash.as_ref()
            .map_or_else(|| "none yet".to_owned(), ToString::to_string)
    };
    let mut facts = vec![
        fact("Last sync", moment(sync.last_sync_at)),
        fact("Hash", hash(&sync.current_hash)),
        fact("Config date", moment(sync.config_updated_at)),
        fact("Backend", active.identity.backend_url.to_string()),
    ];
    if sync.last_sync_ok == Some(false) {
        facts.insert(1, fact("Last success", moment(sync.last_success_at)));
    }
    if sync.backend_hash != sync.current_hash {
        facts.push(fact("Backend's hash", hash(&sync.backend_hash)));
    }
    facts
}

fn sweep_facts(sources: &Sources, line: &Line, now: Timestamp, zone: &TimeZone) -> Vec<Fact> {
    let sweep = sources.snapshots.sweep.load();
    let mut facts = Vec::new();
    if let Some(at) = sweep.swept {
        facts.push(fact("Last sweep", with_age(line.wall(at), now, zone)));
    }
    if let Some(last) = sweep.last {
        let (took, deadline) = (last.took.as_secs_f64(), last.deadline.as_secs_f64());
        let kept = match (last.missing, last.is_in_time()) {
            (_, true) => "in time".to_owned(),
            (0, false) => "late".to_owned(),
            (missing, false) => format!("late, {missing} had not answered"),
        };
        facts.push(fact(
            "It took",
            format!("{took:.1} s of {deadline:.1} s, {kept}"),
        ));
    }
    facts.push(fact(
        "Next sweep",
        sweep.next_sweep.map_or_else(
            || "running now".to_owned(),
            |at| with_age(line.wall(at), now, zone),
        ),
    ));
    if sweep.in_flight > 0 {
        facts.push(fact("Probes on their way", sweep.in_flight.to_string()));
    }
    if sweep.rechecks > 0 {
        facts.push(fact("Looked again", sweep.rechecks.to_string()));
    }
    facts.push(fact("Clock", clock_words(sources)));
    facts
}

fn clock_words(sources: &Sources) -> String {
    let state = sources.clock.state();
    let ahead = state.machine_ahead_s;
    let words = match state.trust {
        Trust::Unset => "not set yet".to_owned(),
        Trust::Settling => "not confirmed yet".to_owned(),
        Trust::Believed => "not confirmed, can be right".to_owned(),
        Trust::Known => "right".to_owned(),
        Trust::Backend => format!(
            "the backend's, this machine's is {} {}",
            span(SignedDuration::from_secs(ahead)),
            if ahead < 0 { "behind" } else { "ahead" }
        ),
    };
    match state.jumps {
        0 => words,
        1 => format!("{words}; was set once"),
        jumps => format!("{words}; was set {jumps} times"),
    }
}

fn report_facts(sources: &Sources, now: Timestamp, zone: &TimeZone) -> Vec<Fact> {
    let report = sources.snapshots.report.load();
    let mut facts = vec![
        fact(
            "Last report taken",
            report
                .last_sent_at
                .map_or_else(|| "not yet".to_owned(), |at| with_age(at, now, zone)),
        ),
        fact(
            "Waiting",
            match report.pending + report.in_memory {
                0 => "none".to_owned(),
                waiting => format!("{waiting} ({} KiB on disk)", report.spool_bytes / 1024),
            },
        ),
    ];
    if report.in_memory > 0 {
        facts.push(fact("Of these in memory", report.in_memory.to_string()));
    }
    if let Some(error) = &report.last_error {
        facts.push(fact("Last problem", error.clone()));
    }
    if report.dropped > 0 {
        facts.push(fact("Dropped, spool full", report.dropped.to_string()));
    }
    if report.damaged > 0 {
        facts.push(fact("Damaged on disk", report.damaged.to_string()));
    }
    if report.refused > 0 {
        facts.push(fact("Refused by the backend", report.refused.to_string()));
    }
    facts
}

/// What a technician should put right.
fn problems(sources: &Sources, zone: &TimeZone) -> Vec<String> {
    let active = sources.handle.load();
    let mut problems: Vec<String> = sources.fallback.iter().cloned().collect();
    let report = sources.snapshots.report.load();
    for (what, error) in [
        (
            "The configuration runs but cannot be saved",
            &sources.snapshots.sync.load().save_error,
        ),
        ("Reports cannot be kept on disk", &report.disk_error),
        (
            "What is known of the devices cannot be saved",
            &sources.snapshots.sweep.load().memory_error,
        ),
    ] {
        problems.extend(error.as_ref().map(|error| format!("{what}: {error}")));
    }
    problems.extend(active.site.warnings.iter().map(ToString::to_string));
    for rejected in &active.site.rejected {
        let who = match (&rejected.name, &rejected.ip) {
            (Some(name), Some(ip)) => format!("{name} ({ip})"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => format!("Device {} of the configuration", rejected.index + 1),
        };
        for error in &rejected.errors {
            problems.push(format!("{who} is not watched: {error}"));
        }
    }
    for panic in sources.health.panics() {
        problems.push(format!(
            "Thread {} failed at {} and was started again: {}",
            panic.thread,
            local(panic.at, zone),
            panic.message
        ));
    }
    problems.iter().map(|problem| one_line(problem)).collect()
}

fn words(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Ok => ("✅", "OK"),
        Verdict::Fault => ("🔴", "Fault"),
        Verdict::ExpectedOff => ("🌙", "Off as expected"),
        Verdict::Doubt => ("🤔", "In doubt"),
        Verdict::Unknown => ("⏳", "Not known yet"),
    }
}

fn counts(observations: &[Arc<Observation>]) -> Vec<Count> {
    [
        Verdict::Fault,
        Verdict::Doubt,
        Verdict::Unknown,
        Verdict::ExpectedOff,
        Verdict::Ok,
    ]
    .into_iter()
    .map(|verdict| {
        let (icon, words) = words(verdict);
        Count {
            verdict: verdict.as_str(),
            words,
            icon,
            count: observations.iter().filter(|o| o.verdict == verdict).count(),
        }
    })
    .filter(|count| count.count > 0)
    .collect()
}

fn places(
    observations: &[Arc<Observation>],
    line: &Line,
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<Place> {
    let mut sorted: Vec<&Observation> = observations.iter().map(AsRef::as_ref).collect();
    sort_by(&mut sorted, |a, b| {
        let (a, b) = (&a.device, &b.device);
        natural(&a.building, &b.building)
            .then_with(|| natural(&a.floor, &b.floor))
            .then_with(|| natural(&a.room, &b.room))
            .then_with(|| natural(&a.name, &b.name))
            .then_with(|| a.ip.cmp(&b.ip))
    });
    let mut places: Vec<Place> = Vec::new();
    for observation in sorted {
        let title = title(observation);
        if places.last().is_none_or(|place| place.title != title) {
            places.push(Place {
                title,
                rows: Vec::new(),
            });
        }
        if let Some(place) = places.last_mut() {
            place.rows.push(row(observation, line, now, zone));
        }
    }
    places
}

fn title(observation: &Observation) -> String {
    let device = &observation.device;
    let floor = if device.floor.is_empty() {
        String::new()
    } else {
        format!("floor {}", device.floor)
    };
    let parts: Vec<&str> = [device.building.as_str(), &floor, &device.room]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() {
        "No place given".to_owned()
    } else {
        one_line(&parts.join(" · "))
    }
}

fn row(observation: &Observation, line: &Line, now: Timestamp, zone: &TimeZone) -> Row {
    let device = &observation.device;
    let (icon, words) = words(observation.verdict);
    let mut detail = observation
        .finding
        .detail
        .as_deref()
        .map(str::to_owned)
        .unwrap_or_default();
    if let Some(since) = observation.offline_since {
        let offline = format!("offline for {}", span(now.duration_since(since.wall(line))));
        detail = if detail.is_empty() {
            offline
        } else {
            format!("{detail}; {offline}")
        };
    }
    let observed_at = line.wall(observation.at);
    Row {
        name: one_line(&device.name),
        ip: one_line(&device.ip_text),
        kind: one_line(&device.device_type),
        driver: one_line(&device.driver),
        status: match observation.finding.status {
            Status::Online => "online",
            Status::Offline => "offline",
            Status::Unknown => "unknown",
        },
        verdict: observation.verdict.as_str(),
        verdict_words: words,
        icon,
        detail,
        unknown: device.unknown.iter().map(ToString::to_string).collect(),
        age: span(now.duration_since(observed_at)),
        observed: local(observed_at, zone),
    }
}
