//! What is remembered of each device between sweeps and across restarts: when
//! it was last online and since when it is offline.
//!
//! On disk it is one small file, written when something changed that a
//! restart must not forget, and otherwise once an hour: a memory card wears.
//! Times in it are wall times, because no other outlives a restart; what was
//! seen while the clock was not believed is marked, and counts from the next
//! start on: an age that is too small makes neither doubt nor fault.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::{Device, SiteConfig};
use av_proto::verdict::{Situation, Status, Verdict, verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::{Moment, Observation, ago};
use crate::clock::{Line, Trust};
use crate::durable::write_atomic;
use crate::finding::Finding;

/// How stale a `last_ok` on disk may be: nothing beside the days until doubt.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

/// A device's line in the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Stored {
    last_ok: Option<Timestamp>,
    offline_since: Option<Timestamp>,
    verdict: Option<Verdict>,
    /// `last_ok` was stamped by a clock that nobody believed.
    #[serde(default, skip_serializing_if = "is_false")]
    last_ok_unsynced: bool,
    /// The same of `offline_since`.
    #[serde(default, skip_serializing_if = "is_false")]
    offline_since_unsynced: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The file.
#[derive(Debug, Serialize)]
struct Written<'a> {
    last_good_time: Option<Timestamp>,
    devices: &'a BTreeMap<&'a str, Stored>,
}

/// The file as it is now, or as it was before it knew of the clock.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Now {
        last_good_time: Option<Timestamp>,
        devices: BTreeMap<String, Stored>,
    },
    Before(BTreeMap<String, Stored>),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    last_ok: Option<Moment>,
    offline_since: Option<Moment>,
    verdict: Option<Verdict>,
}

/// The memory of every device, by its address as configured.
#[derive(Debug)]
pub(super) struct MemoryStore {
    path: PathBuf,
    started: Instant,
    last_good: Option<Timestamp>,
    devices: BTreeMap<String, Memory>,
    /// Something changed that a restart must not forget.
    changed: bool,
    saved_at: Option<Instant>,
    /// The file holds times that were marked, and may be true by now.
    saved_unsynced: bool,
}

/// The newest time in the file that was known to be right; `None` where there
/// is none or the file cannot be read.
#[must_use]
pub fn last_good_time(path: &Path) -> Option<Timestamp> {
    match serde_json::from_slice(&fs::read(path).ok()?).ok()? {
        Document::Now { last_good_time, .. } => last_good_time,
        Document::Before(_) => None,
    }
}

impl MemoryStore {
    /// Reads the file; one that is missing or does not parse is an empty
    /// memory, and said. `now` is when this run began.
    pub(super) fn load(path: &Path, now: Instant) -> Self {
        let parsed = match fs::read(path) {
            Ok(content) => serde_json::from_slice(&content).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Document::Before(BTreeMap::new()))
            }
            Err(error) => Err(error),
        };
        let document = parsed.unwrap_or_else(|error| {
            log::warn!(
                "⚠️ {}: {error}; last seen times start afresh",
                path.display()
            );
            Document::Before(BTreeMap::new())
        });
        let (last_good, stored) = match document {
            Document::Now {
                last_good_time,
                devices,
            } => (last_good_time, devices),
            Document::Before(devices) => (None, devices),
        };
        let moment = |at: Option<Timestamp>, unsynced: bool| {
            at.map(|at| match unsynced {
                true => Moment::Here(now),
                false => Moment::Before(at),
            })
        };
        let devices = stored
            .into_iter()
            .map(|(ip, stored)| {
                let memory = Memory {
                    last_ok: moment(stored.last_ok, stored.last_ok_unsynced),
                    offline_since: moment(stored.offline_since, stored.offline_since_unsynced),
                    verdict: stored.verdict,
                };
                (ip, memory)
            })
            .collect();
        Self {
            path: path.to_owned(),
            started: now,
            last_good,
            devices,
            changed: false,
            saved_at: None,
            saved_unsynced: false,
        }
    }

    /// Forgets the devices that are no longer configured.
    pub(super) fn retain(&mut self, devices: &[Arc<Device>]) {
        let configured: HashSet<&str> = devices.iter().map(|d| d.ip_text.as_str()).collect();
        let before = self.devices.len();
        self.devices
            .retain(|ip, _| configured.contains(ip.as_str()));
        self.changed |= self.devices.len() != before;
    }

    /// Whether the device was offline when it was last probed.
    pub(super) fn is_offline(&self, device: &Device) -> bool {
        self.devices
            .get(&device.ip_text)
            .is_some_and(|memory| memory.offline_since.is_some())
    }

    /// Takes a finding of `at` into memory and judges it, ages by the clock
    /// that does not jump.
    pub(super) fn observe(
        &mut self,
        device: &Arc<Device>,
        finding: Finding,
        at: Instant,
        line: &Line,
        site: &SiteConfig,
    ) -> Observation {
        let memory = self.devices.entry(device.ip_text.clone()).or_default();
        let offline_before = memory.offline_since;
        match finding.status {
            Status::Online => {
                memory.last_ok = Some(Moment::Here(at));
                memory.offline_since = None;
            }
            Status::Offline => {
                memory.offline_since.get_or_insert(Moment::Here(at));
            }
            // Nothing was learned of the device.
            Status::Unknown => {}
        }
        let now = line.wall(at);
        let age = |moment: Moment| moment.age(at, self.started, line);
        let verdict = verdict(
            &Situation {
                status: finding.status,
                now,
                clock_is_true: line.trust.is_true(),
                last_ok: memory.last_ok.map(|moment| ago(now, age(moment))),
                offline_since: memory.offline_since.map(|moment| ago(now, age(moment))),
            },
            &device.expectations,
            site.doubt_after_days,
        );
        let verdict_changed = memory.verdict != Some(verdict);
        memory.verdict = Some(verdict);
        self.changed |= verdict_changed || memory.offline_since != offline_before;
        let undecided = finding.status == Status::Offline && verdict == Verdict::Unknown;
        let decides_in = memory.offline_since.filter(|_| undecided).map(|since| {
            let alert_after = Duration::from_secs(device.expectations.alert_after_s.into());
            let offline_for = Duration::try_from(age(since)).unwrap_or_default();
            match alert_after.checked_sub(offline_for) {
                Some(left) if !left.is_zero() => left,
                // Not time is missing but a clock that is believed.
                _ => Duration::MAX,
            }
        });
        Observation {
            device: Arc::clone(device),
            finding,
            at,
            verdict,
            verdict_changed,
            last_ok: memory.last_ok,
            offline_since: memory.offline_since,
            decides_in,
        }
    }

    /// Writes the file where it is due.
    ///
    /// # Errors
    /// When it cannot be written; it is then due again.
    pub(super) fn save(&mut self, now: Instant, line: &Line) -> io::Result<()> {
        let stale = self
            .saved_at
            .is_none_or(|saved| now.duration_since(saved) >= SAVE_EVERY);
        let is_true = line.trust.is_true();
        let better = self.saved_unsynced && is_true;
        if !self.changed && !stale && !better {
            return Ok(());
        }
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        if matches!(line.trust, Trust::Known | Trust::Backend) {
            self.last_good = Some(line.wall(now));
        }
        let unsynced = |moment: Option<Moment>| matches!(moment, Some(Moment::Here(_))) && !is_true;
        let devices: BTreeMap<&str, Stored> = self
            .devices
            .iter()
            .map(|(ip, memory)| {
                let stored = Stored {
                    last_ok: memory.last_ok.map(|moment| moment.wall(line)),
                    offline_since: memory.offline_since.map(|moment| moment.wall(line)),
                    verdict: memory.verdict,
                    last_ok_unsynced: unsynced(memory.last_ok),
                    offline_since_unsynced: unsynced(memory.offline_since),
                };
                (ip.as_str(), stored)
            })
            .collect();
        let written = Written {
            last_good_time: self.last_good,
            devices: &devices,
        };
        write_atomic(&self.path, &serde_json::to_vec(&written)?)?;
        self.changed = false;
        self.saved_at = Some(now);
        self.saved_unsynced = !is_true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
