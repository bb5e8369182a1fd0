//! `av-agent sweep`: every device of a configuration file, once.
//!
//! No backend, no state, nothing written to disk: what it costs is what the
//! drivers cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::{Device, RejectedDevice, SiteConfig};
use av_proto::unknown::UnknownSetting;
use av_proto::verdict::Status;
use crossbeam_channel::unbounded;
use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{ArgsError, Given};
use super::installed::{Service, explained, own};
use super::output::{self, BAD, FAINT, status_style};
use super::table::{Cell, Table};
use super::{Exit, Outcome};
use crate::config::parse_site;
use crate::driver::{Drivers, Prober, Reply};
use crate::finding::Finding;
use crate::supervisor::Health;

/// So long after the longest limit a probe that has not returned is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// What `av-agent sweep` is told.
#[derive(Debug)]
pub struct Arguments {
    config: PathBuf,
    json: bool,
    summary: bool,
}

impl Arguments {
    /// What `av-agent sweep --help` prints.
    pub(super) const HELP: &str = "\
Probe every device of a configuration file once.

Usage: av-agent sweep [OPTIONS] <CONFIG.json>

Arguments:
  <CONFIG.json>
          The configuration file, or the answer of a backend's /config. A token
          and a backend need not be in it. Where it is not named it is
          AGENT_CONFIG's, or the installed service's

Options:
      --json
          Print one JSON document
      --summary
          Print the summary only
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Result<Self, ArgsError> {
        let config = given
            .path_at(0)
            .or_else(|| own("AGENT_CONFIG").map(PathBuf::from))
            .or_else(|| Some(Service::find()?.config_path()))
            .ok_or_else(|| ArgsError::Required(given.place(0).to_owned()))?;
        if given.has("summary") && given.has("json") {
            return Err(ArgsError::Conflict("--summary", "--json"));
        }
        Ok(Self {
            config,
            json: given.has("json"),
            summary: given.has("summary"),
        })
    }
}

/// One device, as `--json` has it.
#[derive(Debug, Serialize)]
struct DeviceDocument<'a> {
    ip: &'a str,
    name: &'a str,
    driver: &'a str,
    status: Status,
    detail: Option<&'a str>,
    metrics: &'a Map<String, Value>,
    /// Seconds from the beginning of the sweep until the answer.
    after_s: f64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unknown_settings: &'a [UnknownSetting],
}

#[derive(Debug, Serialize)]
struct SweepDocument<'a> {
    site_name: &'a str,
    seconds: f64,
    online: usize,
    offline: usize,
    unknown: usize,
    devices: Vec<DeviceDocument<'a>>,
    rejected_devices: &'a [RejectedDevice],
}

/// What one probe found, and how long after the sweep's beginning.
#[derive(Debug, Clone)]
struct Found {
    finding: Finding,
    after: Duration,
}

/// Sweeps once and prints what was found.
///
/// # Errors
/// When the file cannot be read or is not valid, or the output not written.
pub fn run(arguments: &Arguments) -> Outcome {
    let site = read_site(&arguments.config)?;
    let drivers = Drivers::start(&Health::default());
    let began = Instant::now();
    let found = sweep(&drivers, &site.devices, began);
    let took = began.elapsed();
    if arguments.json {
        output::print_json(&document(&site, &found, took))?;
    } else {
        output::print(&text(&site, &found, took, arguments.summary))?;
    }
    Ok(Exit::Good)
}

/// Reads what is watched from a file.
///
/// # Errors
/// When it cannot be read or is not valid; the error names the file.
pub(super) fn read_site(path: &Path) -> Result<SiteConfig, Box<dyn std::error::Error>> {
    let shown = path.display();
    let content = fs::read(path).map_err(|error| explained(path, &error))?;
    Ok(parse_site(&content).map_err(|error| format!("{shown}: {error}"))?)
}

/// Probes each device once; the findings in the order of the devices.
fn sweep(prober: &dyn Prober, devices: &[Arc<Device>], began: Instant) -> Vec<Found> {
    let (to, findings) = unbounded();
    for (ticket, device) in devices.iter().enumerate() {
        prober.begin(device, Reply::new(ticket, to.clone()));
    }
    drop(to);
    let limit = devices.iter().map(|device| device.settings.limit()).max();
    let patience = limit.unwrap_or_default() + STUCK_AFTER;
    let stuck = Found {
        finding: Finding::new(Status::Unknown).with_detail("the probe did not return"),
        after: patience,
    };
    let mut found = vec![stuck; devices.len()];
    // Ends early when every reply has come.
    while let Ok(done) = findings.recv_timeout(patience) {
        found[done.ticket] = Found {
            finding: done.finding,
            after: done.at.saturating_duration_since(began),
        };
    }
    found
}

fn count(found: &[Found], status: Status) -> usize {
    found
        .iter()
        .filter(|found| found.finding.status == status)
        .count()
}

fn document<'a>(site: &'a SiteConfig, found: &'a [Found], took: Duration) -> SweepDocument<'a> {
    SweepDocument {
        site_name: &site.site_name,
        seconds: took.as_secs_f64(),
        online: count(found, Status::Online),
        offline: count(found, Status::Offline),
        unknown: count(found, Status::Unknown),
        devices: site
            .devices
            .iter()
            .zip(found)
            .map(|(device, Found { finding, after })| DeviceDocument {
                ip: &device.ip_text,
                name: &device.name,
                driver: &device.driver,
                status: finding.status,
                detail: finding.detail.as_deref(),
                metrics: &finding.metrics,
                after_s: after.as_secs_f64(),
                unknown_settings: &device.unknown,
            })
            .collect(),
        rejected_devices: &site.rejected,
    }
}

fn text(site: &SiteConfig, found: &[Found], took: Duration, summary_only: bool) -> String {
    let mut text = String::new();
    if !summary_only {
        let mut table = Table::new(&["STATUS", "IP", "NAME", "DRIVER", "DETAIL"])
            .whole(&[0, 1])
            .optional(&[3]);
        for (device, Found { finding, .. }) in site.devices.iter().zip(found) {
            table.row([
                Cell::styled(finding.status.as_str(), status_style(finding.status)),
                device.ip_text.as_str().into(),
                device.name.as_str().into(),
                Cell::styled(device.settings.name(), FAINT),
                finding.detail.as_deref().unwrap_or_default().into(),
            ]);
        }
        for rejected in &site.rejected {
            let problems: Vec<String> = rejected.errors.iter().map(ToString::to_string).collect();
            table.row([
                Cell::styled("rejected", BAD),
                rejected.ip.as_deref().unwrap_or("?").into(),
                rejected.name.as_deref().unwrap_or_default().into(),
                "".into(),
                problems.join("; ").into(),
            ]);
        }
        text = table.render(output::width());
        text.extend(
            site.devices
                .iter()
                .map(|device| super::unknown_lines(device)),
        );
    }
    text + &summary(site, found, took)
}

/// `1000 devices in 2.41 s: 800 online, 200 offline, 0 unknown`.
fn summary(site: &SiteConfig, found: &[Found], took: Duration) -> String {
    let rejected = match site.rejected.len() {
        0 => String::new(),
        count => format!(", {count} rejected"),
    };
    format!(
        "{} devices in {:.2} s: {} online, {} offline, {} unknown{rejected}\n",
        found.len(),
        took.as_secs_f64(),
        count(found, Status::Online),
        count(found, Status::Offline),
        count(found, Status::Unknown),
    )
}
