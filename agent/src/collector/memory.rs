//! What is remembered of each device between sweeps and across restarts: when
//! it was last online and since when it is offline.
//!
//! Times on the disk are wall times, because no other outlives a restart; what was
//! seen while the clock was not believed is marked, and counts from the next
//! start on: an age that is too small makes neither doubt nor fault.

mod file;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::{Device, SiteConfig};
use av_proto::verdict::{Situation, Status, Verdict, verdict};
use jiff::Timestamp;

use super::state::{Moment, Observation, ago};
use crate::clock::{Line, Trust};
use crate::finding::Finding;

use file::{MemoryFile, Stored};

/// How stale a `last_ok` on disk may be: nothing beside the days until doubt.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    last_ok: Option<Moment>,
    offline_since: Option<Moment>,
    verdict: Option<Verdict>,
    /// Something changed that a restart must not forget.
    changed: bool,
}

/// The memory of every device, by its address as configured.
#[derive(Debug)]
pub(super) struct MemoryStore {
    file: MemoryFile,
    started: Instant,
    last_good: Option<Timestamp>,
    devices: BTreeMap<String, Memory>,
    /// When the whole was last written; `None` where that is due.
    saved_at: Option<Instant>,
    /// The file holds times that were marked, and may be true by now.
    saved_unsynced: bool,
}

/// The newest time in the file that was known to be right; `None` where there
/// is none or the file cannot be read.
#[must_use]
pub fn last_good_time(path: &Path) -> Option<Timestamp> {
    file::last_good_time(path)
}

impl MemoryStore {
    /// Reads what an earlier run wrote. `now` is when this one began.
    pub(super) fn load(path: &Path, now: Instant) -> Self {
        let (file, loaded) = MemoryFile::load(path);
        let moment = |at: Option<Timestamp>, unsynced: bool| {
            at.map(|at| match unsynced {
                true => Moment::Here(now),
                false => Moment::Before(at),
            })
        };
        let mut devices = BTreeMap::new();
        for (ip, stored) in loaded.devices {
            let memory = Memory {
                last_ok: moment(stored.last_ok, stored.last_ok_unsynced),
                offline_since: moment(stored.offline_since, stored.offline_since_unsynced),
                verdict: stored.verdict,
                changed: false,
            };
            devices.insert(ip, memory);
        }
        Self {
            file,
            started: now,
            last_good: loaded.last_good,
            devices,
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
        if self.devices.len() != before {
            // The log cannot say that something is gone.
            self.saved_at = None;
        }
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
        memory.changed |= verdict_changed || memory.offline_since != offline_before;
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
            finding: finding.into(),
            at,
            verdict,
            verdict_changed,
            last_ok: memory.last_ok,
            offline_since: memory.offline_since,
            decides_in,
        }
    }

    /// Writes what is due: the whole once an hour, in between what changed.
    ///
    /// # Errors
    /// When it cannot be written; it is then due again.
    pub(super) fn save(&mut self, now: Instant, line: &Line) -> io::Result<()> {
        let is_true = line.trust.is_true();
        let is_recent = self
            .saved_at
            .is_some_and(|saved| now.duration_since(saved) < SAVE_EVERY);
        // What is marked in the file may be put right by now.
        let is_whole_due = !is_recent || (self.saved_unsynced && is_true);
        if matches!(line.trust, Trust::Known | Trust::Backend) {
            self.last_good = Some(line.wall(now));
        }
        let mut devices: BTreeMap<&str, Stored> = BTreeMap::new();
        for (ip, memory) in &self.devices {
            if is_whole_due || memory.changed {
                devices.insert(ip.as_str(), memory.stored(line));
            }
        }
        if is_whole_due {
            self.saved_at = None;
            self.file.replace(self.last_good, &devices)?;
            self.saved_at = Some(now);
            self.saved_unsynced = !is_true;
        } else if !devices.is_empty() {
            if let Err(error) = self.file.append(&devices) {
                self.saved_at = None;
                return Err(error);
            }
            self.saved_unsynced |= !is_true;
        }
        for memory in self.devices.values_mut() {
            memory.changed = false;
        }
        Ok(())
    }
}

impl Memory {
    fn stored(&self, line: &Line) -> Stored {
        let unsynced = |moment: Option<Moment>| {
            matches!(moment, Some(Moment::Here(_))) && !line.trust.is_true()
        };
        Stored {
            last_ok: self.last_ok.map(|moment| moment.wall(line)),
            offline_since: self.offline_since.map(|moment| moment.wall(line)),
            verdict: self.verdict,
            last_ok_unsynced: unsynced(self.last_ok),
            offline_since_unsynced: unsynced(self.offline_since),
        }
    }
}

#[cfg(test)]
mod tests;
