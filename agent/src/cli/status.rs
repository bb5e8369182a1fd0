//! `av-agent status`: what the running agent knows, on a terminal.

use std::cmp::Ordering;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use av_proto::config::RejectedDevice;
use av_proto::secret::Secret;
use av_proto::sort::sort_by;
use av_proto::text::one_line;
use av_proto::unknown::UnknownSetting;
use av_proto::verdict::{Status, Verdict};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::args::{ArgsError, Given};
use super::installed::{Environment, explained};
use super::output::{self, BAD, DOUBTFUL, FAINT, GOOD, HEADING, verdict_style};
use super::table::{Cell, Table};
use super::{Exit, Outcome};
use crate::http_client::HttpClient;
use crate::page::{natural, span, with_age};

/// The largest answer that is read: 20,000 devices.
const ANSWER_MAX_BYTES: u64 = 64 << 20;

/// What `av-agent status` is told.
#[derive(Debug)]
pub struct Arguments {
    /// The status page, where it is named.
    url: Option<String>,
    json: bool,
    /// Seconds between two looks, where there is more than one.
    watch: Option<u32>,
    problems: bool,
}

impl Arguments {
    /// What `av-agent status --help` prints.
    pub(super) const HELP: &str = "\
Show what the running agent knows.

The exit code is 0 where all is well, 1 where something is in fault or the sync
with the backend fails, 2 where no agent answers.

Usage: av-agent status [OPTIONS]

Options:
      --url <URL>
          The agent's status page [default: where AV_PAGE_LISTEN has it on this
          machine, or http://127.0.0.1:8080]
      --json
          Print the agent's own JSON document
  -w, --watch [<SECONDS>]
          Look again and again, every so many seconds [2 where none is said]
  -p, --problems
          Show only what is not ok
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Result<Self, ArgsError> {
        let url = given.option("url")?;
        let every = given.number("watch", 1, 65_535)?;
        Ok(Self {
            url,
            json: given.has("json"),
            watch: given.has("watch").then(|| every.unwrap_or(2)),
            problems: given.has("problems"),
        })
    }
}

/// `/api/status`, as far as it is shown. An agent of a neighbouring version
/// may lack a field.
#[derive(Debug, Deserialize)]
struct StatusDocument {
    version: String,
    site_name: String,
    started_at: Option<Timestamp>,
    now: Timestamp,
    timezone: Option<String>,
    #[serde(default)]
    backend_url: String,
    config_fallback: Option<String>,
    #[serde(default)]
    sync: SyncDocument,
    /// Between two polls; an older agent does not say.
    sync_interval_s: Option<f64>,
    #[serde(default)]
    sweep: SweepDocument,
    #[serde(default)]
    report: ReportDocument,
    #[serde(default)]
    devices: Vec<DeviceDocument>,
    #[serde(default)]
    rejected_devices: Vec<RejectedDevice>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    thread_panics: Vec<PanicDocument>,
}

#[derive(Debug, Default, Deserialize)]
struct SyncDocument {
    last_sync_at: Option<Timestamp>,
    last_sync_ok: Option<bool>,
    last_sync_error: Option<String>,
    last_success_at: Option<Timestamp>,
    current_hash: Option<String>,
    config_updated_at: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
struct SweepDocument {
    swept_at: Option<Timestamp>,
    took_s: Option<f64>,
    next_sweep_at: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReportDocument {
    pending: u64,
    in_memory: u64,
    spool_bytes: u64,
    refused: u64,
    dropped: u64,
    damaged: u64,
    last_sent_at: Option<Timestamp>,
    last_error: Option<String>,
    disk_error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeviceDocument {
    ip: String,
    name: String,
    #[serde(default)]
    building: String,
    #[serde(default)]
    floor: String,
    #[serde(default)]
    room: String,
    #[serde(default)]
    driver: String,
    status: Status,
    verdict: Verdict,
    detail: Option<String>,
    offline_since: Option<Timestamp>,
    #[serde(default)]
    unknown_settings: Vec<UnknownSetting>,
}

#[derive(Debug, Deserialize)]
struct PanicDocument {
    thread: String,
    message: String,
}

/// Shows the state once, or until it is interrupted.
///
/// # Errors
/// When the agent does not answer, or its answer is not one.
pub fn run(arguments: &Arguments) -> Outcome {
    let page = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => super::page_url(Environment::here().settings()?.page_listen),
    };
    let client = HttpClient::new();
    let Some(every) = arguments.watch else {
        return show(arguments, &client, &page);
    };
    loop {
        if io::stdout().is_terminal() {
            // Clear, and back to the first corner.
            output::print("\u{1b}[2J\u{1b}[H")?;
        }
        if let Err(error) = show(arguments, &client, &page) {
            output::error(&*error);
        }
        thread::sleep(Duration::from_secs(u64::from(every)));
    }
}

/// What to do where no agent answers at an address that was not named.
fn unread_variables(arguments: &Arguments) -> String {
    let unread = Environment::here();
    let unread = unread.service().and_then(|service| service.unread.as_ref());
    match unread {
        Some((path, error)) if arguments.url.is_none() => {
            format!(" Where it listens is not known: {}", explained(path, error))
        }
        _ => String::new(),
    }
}

fn show(arguments: &Arguments, client: &HttpClient, page: &str) -> Outcome {
    let url = format!("{page}/api/status");
    let answer = client
        .get(&Secret::new(url), None, ANSWER_MAX_BYTES)
        .map_err(|error| {
            format!(
                "no agent answers at {page}: {error}. Does it run (systemctl status av-agent), \
                 and does its page listen there (AV_PAGE_LISTEN)?{}",
                unread_variables(arguments)
            )
        })?;
    let not_ours = || format!("what answers at {page} is not an agent");
    if answer.status != 200 {
        return Err(format!("{}: HTTP {}", not_ours(), answer.status).into());
    }
    let status: StatusDocument =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{}: {error}", not_ours()))?;
    if arguments.json {
        let whole: Value = serde_json::from_slice(&answer.body)?;
        output::print_json(&whole)?;
    } else {
        output::print(&text(&status, arguments.problems, output::width()))?;
    }
    let fault = |device: &DeviceDocument| device.verdict == Verdict::Fault;
    Ok(
        if status.devices.iter().any(fault) || sync_trouble(&status).is_some() {
            Exit::Bad
        } else {
            Exit::Good
        },
    )
}

/// The whole picture, the worst first.
fn text(status: &StatusDocument, problems_only: bool, width: Option<usize>) -> String {
    let up = status.started_at.map_or_else(String::new, |at| {
        format!(", up {}", span(status.now.duration_since(at)))
    });
    let mut text = format!(
        "{HEADING}{}{HEADING:#} {FAINT}av-agent {}{up}{FAINT:#}\n",
        one_line(&status.site_name),
        one_line(&status.version),
    );
    text += &facts(status).render(None);
    if let Some(trouble) = sync_trouble(status) {
        text += &format!("{BAD}✗ {}{BAD:#}\n", one_line(&trouble));
    }
    for problem in problems(status) {
        text += &format!("{DOUBTFUL}⚠ {}{DOUBTFUL:#}\n", one_line(&problem));
    }
    text.push('\n');
    text += &counts(&status.devices);
    text += &devices(status, problems_only).render(width);
    text
}

/// When something was or will be, on the site's clock.
fn moment(status: &StatusDocument, at: Option<Timestamp>) -> Option<String> {
    let zone = status
        .timezone
        .as_deref()
        .and_then(av_proto::schedule::zone)
        .unwrap_or(TimeZone::UTC);
    at.map(|at| with_age(at, status.now, &zone))
}

/// Polls that may be missed before a sync that is not failing is too old.
const POLLS_MISSED: f64 = 3.0;
/// A poll takes its time, with each of its time-outs.
const POLL_SLACK: SignedDuration = SignedDuration::from_secs(300);
/// The longest that an agent may be set to wait between two polls.
const INTERVAL_MAX_S: f64 = 86_400.0;

/// Why changes in the backend do not reach this agent, where they do not.
fn sync_trouble(status: &StatusDocument) -> Option<String> {
    const LOST: &str = "a change in the backend does not reach this agent";
    let sync = &status.sync;
    if sync.last_sync_ok == Some(false) {
        let since = match moment(status, sync.last_success_at) {
            Some(at) => format!("it last worked at {at}"),
            None => "it has not worked since the agent started".to_owned(),
        };
        return Some(format!("sync fails: {LOST}; {since}"));
    }
    let interval = status.sync_interval_s.unwrap_or(INTERVAL_MAX_S);
    let interval = interval.clamp(0.0, INTERVAL_MAX_S);
    let patience = SignedDuration::from_secs_f64(interval * POLLS_MISSED) + POLL_SLACK;
    let quiet = status
        .now
        .duration_since(sync.last_sync_at.max(status.started_at)?);
    (quiet > patience).then(|| {
        format!(
            "no sync for {}, and one is due every {}: {LOST}",
            span(quiet),
            span(SignedDuration::from_secs_f64(interval))
        )
    })
}

fn facts(status: &StatusDocument) -> Table {
    let mut facts = Table::new(&["", "", ""]);
    let sync = &status.sync;
    let (word, style) = match sync.last_sync_ok {
        Some(true) => ("ok", GOOD),
        Some(false) => ("failed", BAD),
        None => ("not yet", DOUBTFUL),
    };
    let mut said: Vec<String> = moment(status, sync.last_sync_at).into_iter().collect();
    said.extend(sync.last_sync_error.clone());
    if sync.last_sync_ok == Some(false) {
        let success = moment(status, sync.last_success_at);
        said.extend(success.map(|at| format!("last success {at}")));
    }
    facts.row([
        "sync".into(),
        Cell::styled(word, style),
        said.join("; ").into(),
    ]);

    let mut said: Vec<String> = Vec::new();
    said.extend(sync.current_hash.as_ref().map(|hash| {
        let short: String = hash.chars().take(12).collect();
        format!("hash {short}")
    }));
    let applied = moment(status, sync.config_updated_at);
    said.extend(applied.map(|at| format!("applied {at}")));
    said.push(format!("backend {}", status.backend_url));
    facts.row(["config".into(), "".into(), said.join("; ").into()]);

    let sweep = &status.sweep;
    let mut said: Vec<String> = moment(status, sweep.swept_at).into_iter().collect();
    said.extend(sweep.took_s.map(|took| format!("took {took:.1} s")));
    said.extend(moment(status, sweep.next_sweep_at).map(|at| format!("next {at}")));
    let word = if sweep.next_sweep_at.is_some() {
        ""
    } else {
        "running"
    };
    facts.row(["sweep".into(), word.into(), said.join("; ").into()]);

    let report = &status.report;
    let waiting = report.pending + report.in_memory;
    let (word, style) = match waiting {
        0 => ("none waits".to_owned(), GOOD),
        1 => ("1 waits".to_owned(), DOUBTFUL),
        _ => (format!("{waiting} wait"), DOUBTFUL),
    };
    let mut said: Vec<String> = Vec::new();
    said.extend(moment(status, report.last_sent_at).map(|at| format!("last taken {at}")));
    if waiting > 0 {
        said.push(format!("spool {} KiB", report.spool_bytes.div_ceil(1024)));
        said.extend(report.last_error.clone());
    }
    for (count, what) in [
        (report.dropped, "dropped, spool full"),
        (report.damaged, "damaged on disk"),
        (report.refused, "refused by the backend"),
    ] {
        if count > 0 {
            said.push(format!("{count} {what}"));
        }
    }
    facts.row([
        "reports".into(),
        Cell::styled(word, style),
        said.join("; ").into(),
    ]);
    facts
}

/// What somebody should put right.
fn problems(status: &StatusDocument) -> Vec<String> {
    let mut problems: Vec<String> = status.config_fallback.iter().cloned().collect();
    problems.extend(
        status
            .report
            .disk_error
            .iter()
            .map(|error| format!("reports cannot be kept on disk: {error}")),
    );
    problems.extend(status.warnings.iter().cloned());
    for device in &status.devices {
        for unknown in &device.unknown_settings {
            problems.push(format!("{} ({}): {unknown}", device.name, device.ip));
        }
    }
    for rejected in &status.rejected_devices {
        let who = match (&rejected.name, &rejected.ip) {
            (Some(name), Some(ip)) => format!("{name} ({ip})"),
            (Some(text), None) | (None, Some(text)) => text.clone(),
            (None, None) => format!("device {}", rejected.index + 1),
        };
        for error in &rejected.errors {
            problems.push(format!("{who} is not watched: {error}"));
        }
    }
    for panic in &status.thread_panics {
        problems.push(format!(
            "thread {} failed and was started again: {}",
            panic.thread, panic.message
        ));
    }
    problems
}

/// From what needs somebody to what does not.
const WORST_FIRST: [Verdict; 5] = [
    Verdict::Fault,
    Verdict::Doubt,
    Verdict::Unknown,
    Verdict::ExpectedOff,
    Verdict::Ok,
];

fn rank(verdict: Verdict) -> usize {
    WORST_FIRST
        .iter()
        .position(|&other| other == verdict)
        .unwrap_or_default()
}

fn counts(devices: &[DeviceDocument]) -> String {
    let counts: Vec<String> = WORST_FIRST
        .into_iter()
        .filter_map(|verdict| {
            let count = devices.iter().filter(|d| d.verdict == verdict).count();
            let style = verdict_style(verdict);
            (count > 0).then(|| format!("{style}{count} {}{style:#}", verdict.as_str()))
        })
        .collect();
    if counts.is_empty() {
        "no device was probed yet\n".to_owned()
    } else {
        counts.join(", ") + "\n"
    }
}

fn devices(status: &StatusDocument, problems_only: bool) -> Table {
    let mut sorted: Vec<&DeviceDocument> = status
        .devices
        .iter()
        .filter(|device| !problems_only || device.verdict != Verdict::Ok)
        .collect();
    sort_by(&mut sorted, |a, b| by_need(a, b));
    let mut table = Table::new(&[
        "VERDICT", "NAME", "IP", "PLACE", "DRIVER", "OFF FOR", "DETAIL",
    ])
    .whole(&[0, 2])
    .optional(&[4, 3, 5]);
    for device in sorted {
        let place: Vec<&str> = [&device.building, &device.floor, &device.room]
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        let off_for = device
            .offline_since
            .filter(|_| device.status == Status::Offline)
            .map(|since| span(status.now.duration_since(since)));
        table.row([
            Cell::styled(device.verdict.as_str(), verdict_style(device.verdict)),
            device.name.as_str().into(),
            device.ip.as_str().into(),
            place.join("/").into(),
            Cell::styled(&device.driver, FAINT),
            off_for.unwrap_or_default().into(),
            device.detail.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

/// The worst first, then by place.
fn by_need(a: &DeviceDocument, b: &DeviceDocument) -> Ordering {
    rank(a.verdict)
        .cmp(&rank(b.verdict))
        .then_with(|| natural(&a.building, &b.building))
        .then_with(|| natural(&a.floor, &b.floor))
        .then_with(|| natural(&a.room, &b.room))
        .then_with(|| natural(&a.name, &b.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "version":"0.1.0","started_at":"2026-11-24T07:00:00Z","now":"2026-11-24T10:00:00Z",
        "site_name":"Site Paris","timezone":"Europe/Paris","backend_url":"http://b:8000",
        "config_fallback":null,
        "sync":{"last_sync_at":"2026-11-24T09:59:00Z","last_sync_ok":false,
                "last_sync_error":"backend not reachable: refused","current_hash":"0123456789abcdef0123456789abcdef",
                "last_success_at":"2026-11-24T08:00:00Z","config_updated_at":null},
        "sweep":{"swept_at":"2026-11-24T09:59:30Z","took_s":2.04,"next_sweep_at":"2026-11-24T10:04:30Z"},
        "report":{"pending":3,"spool_bytes":2000,"last_error":"backend not reachable: refused"},
        "devices":[
          {"ip":"10.0.0.1","name":"A","building":"B","floor":"1","room":"Salle 10","type":"","driver":"ping",
           "status":"online","verdict":"ok","detail":null,"metrics":{},"offline_since":null},
          {"ip":"10.0.0.2","name":"C","building":"B","floor":"1","room":"Salle 2","type":"","driver":"ping",
           "status":"online","verdict":"ok","detail":"on","metrics":{},"offline_since":null},
          {"ip":"10.0.0.3","name":"P","building":"B","floor":"1","room":"Salle 9","type":"","driver":"pjlink",
           "status":"offline","verdict":"fault","detail":"connection refused","metrics":{},
           "offline_since":"2026-11-24T09:50:00Z",
           "unknown_settings":[{"path":"driver_config.ping.cuont","name":"cuont","nearest":"count"}]}],
        "rejected_devices":[{"index":3,"ip":"x","name":"Bad","errors":[{"field":"ip","problem":"\"x\" is not an IP address"}]}],
        "warnings":[],"thread_panics":[]}"#;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_worst_comes_first_and_places_in_order() {
        let status: StatusDocument = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(
            plain(&text(&status, false, None)),
            "Site Paris av-agent 0.1.0, up 3 h\n\
             sync     failed  10:59:00 (60 s ago); backend not reachable: refused; last success 09:00:00 (2 h ago)\n\
             config           hash 0123456789ab; backend http://b:8000\n\
             sweep            10:59:30 (30 s ago); took 2.0 s; next 11:04:30 (in 4 min)\n\
             reports  3 wait  spool 2 KiB; backend not reachable: refused\n\
             ✗ sync fails: a change in the backend does not reach this agent; it last worked at 09:00:00 (2 h ago)\n\
             ⚠ P (10.0.0.3): driver_config.ping.cuont: is not a known setting; the nearest is \"count\"\n\
             ⚠ Bad (x) is not watched: ip: \"x\" is not an IP address\n\
             \n\
             1 fault, 2 ok\n\
             VERDICT  NAME  IP        PLACE         DRIVER  OFF FOR  DETAIL\n\
             fault    P     10.0.0.3  B/1/Salle 9   pjlink  10 min   connection refused\n\
             ok       C     10.0.0.2  B/1/Salle 2   ping             on\n\
             ok       A     10.0.0.1  B/1/Salle 10  ping\n"
        );
        let problems = plain(&text(&status, true, Some(40)));
        assert!(!problems.contains("10.0.0.1"), "{problems}");
        assert!(problems.contains("10.0.0.3"), "{problems}");
    }

    #[test]
    fn a_sync_that_fails_or_is_long_gone_is_told() {
        let trouble = |sync: &str| {
            let document = format!(
                r#"{{"version":"1","site_name":"P","started_at":"2026-11-24T07:00:00Z",
                    "now":"2026-11-24T10:00:00Z"{sync}}}"#
            );
            sync_trouble(&serde_json::from_str(&document).unwrap()).unwrap_or_default()
        };
        for (sync, said) in [
            (
                r#","sync":{"last_sync_ok":true,"last_sync_at":"2026-11-24T09:56:00Z"},"sync_interval_s":300"#,
                "",
            ),
            (
                r#","sync":{"last_sync_ok":true,"last_sync_at":"2026-11-24T09:41:00Z"},"sync_interval_s":300"#,
                "",
            ),
            (
                r#","sync":{"last_sync_ok":true,"last_sync_at":"2026-11-24T09:39:00Z"},"sync_interval_s":300"#,
                "no sync for 21 min, and one is due every 5 min",
            ),
            // The thread never polled.
            (r#","sync":{},"sync_interval_s":300"#, "no sync for 3 h"),
            (
                r#","sync":{"last_sync_ok":true,"last_sync_at":"2026-11-24T05:00:00Z"},"sync_interval_s":3600"#,
                "",
            ),
            // An older agent does not say how often it polls.
            (
                r#","sync":{"last_sync_ok":true,"last_sync_at":"2026-11-24T07:00:00Z"}"#,
                "",
            ),
            (
                r#","sync":{"last_sync_ok":false,"last_sync_at":"2026-11-24T10:00:00Z"},"sync_interval_s":300"#,
                "it has not worked since the agent started",
            ),
            ("", ""),
        ] {
            let trouble = trouble(sync);
            assert!(
                trouble.contains(said) && trouble.is_empty() == said.is_empty(),
                "{sync}: {trouble}"
            );
        }
    }

    #[test]
    fn an_older_agent_may_lack_fields() {
        let older = r#"{"version":"0.0.1","site_name":"P","now":"2026-11-24T10:00:00Z"}"#;
        let status: StatusDocument = serde_json::from_str(older).unwrap();
        assert!(plain(&text(&status, false, None)).contains("no device was probed yet"));
    }
}
