//! What is remembered of each device between sweeps and across restarts: when
//! it was last online and since when it is offline.
//!
//! On disk it is one small file, written when something changed that a
//! restart must not forget, and otherwise once an hour: a memory card wears.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use av_proto::config::{Device, SiteConfig};
use av_proto::verdict::{Situation, Status, Verdict, verdict};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::Observation;
use crate::durable::write_atomic;
use crate::finding::Finding;

/// How stale a `last_ok` on disk may be: nothing beside the days until doubt.
const SAVE_EVERY: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    last_ok: Option<Timestamp>,
    offline_since: Option<Timestamp>,
    verdict: Option<Verdict>,
}

/// The memory of every device, by its address as configured.
#[derive(Debug)]
pub(super) struct MemoryStore {
    path: PathBuf,
    devices: BTreeMap<String, Memory>,
    /// Something changed that a restart must not forget.
    changed: bool,
    saved_at: Option<Timestamp>,
}

impl MemoryStore {
    /// Reads the file; one that is missing or does not parse is an empty
    /// memory, and said.
    pub(super) fn load(path: &Path) -> Self {
        let devices = match fs::read(path) {
            Ok(content) => serde_json::from_slice(&content).unwrap_or_else(|error| {
                log::warn!(
                    "⚠️ {}: {error}; last seen times start afresh",
                    path.display()
                );
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                log::warn!(
                    "⚠️ {}: {error}; last seen times start afresh",
                    path.display()
                );
                BTreeMap::new()
            }
        };
        Self {
            path: path.to_owned(),
            devices,
            changed: false,
            saved_at: None,
        }
    }

    /// Forgets the devices that are no longer configured.
    pub(super) fn retain(&mut self, devices: &[Device]) {
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

    /// Takes a finding into memory and judges it.
    pub(super) fn observe(
        &mut self,
        device: Device,
        finding: Finding,
        now: Timestamp,
        site: &SiteConfig,
    ) -> Observation {
        let memory = self.devices.entry(device.ip_text.clone()).or_default();
        let offline_before = memory.offline_since;
        match finding.status {
            Status::Online => {
                memory.last_ok = Some(now);
                memory.offline_since = None;
            }
            Status::Offline => {
                memory.offline_since.get_or_insert(now);
            }
            // Nothing was learned of the device.
            Status::Unknown => {}
        }
        let verdict = verdict(
            &Situation {
                status: finding.status,
                now,
                last_ok: memory.last_ok,
                offline_since: memory.offline_since,
            },
            &device.expectations,
            site.doubt_after_days,
        );
        let verdict_changed = memory.verdict != Some(verdict);
        memory.verdict = Some(verdict);
        self.changed |= verdict_changed || memory.offline_since != offline_before;
        Observation {
            device,
            finding,
            observed_at: now,
            verdict,
            verdict_changed,
            last_ok_at: memory.last_ok,
            offline_since: memory.offline_since,
        }
    }

    /// Writes the file where it is due.
    ///
    /// # Errors
    /// When it cannot be written; it is then due again.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let now = Timestamp::now();
        let stale = self
            .saved_at
            .is_none_or(|saved| now.duration_since(saved).abs() >= SAVE_EVERY);
        if !self.changed && !stale {
            return Ok(());
        }
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_atomic(&self.path, &serde_json::to_vec(&self.devices)?)?;
        self.changed = false;
        self.saved_at = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use av_proto::config::SiteParts;

    fn site(devices: &str) -> SiteConfig {
        let parts = SiteParts {
            site_name: "S",
            doubt_after_days: Some(2),
            ..SiteParts::default()
        };
        SiteConfig::validate(&parts, &serde_json::from_str::<Vec<_>>(devices).unwrap()).unwrap()
    }

    fn always_on() -> SiteConfig {
        site(
            r#"[{"ip":"10.0.0.1","name":"P","driver":"ping",
                 "expectations":{"always_on":true,"alert_after_s":300}}]"#,
        )
    }

    fn observe(
        memory: &mut MemoryStore,
        site: &SiteConfig,
        status: Status,
        second: i64,
    ) -> Observation {
        let at = Timestamp::from_second(1_800_000_000 + second).unwrap();
        memory.observe(site.devices[0].clone(), Finding::new(status), at, site)
    }

    #[test]
    fn verdicts_follow_the_run_of_observations() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = MemoryStore::load(&dir.path().join("devices.json"));
        let site = always_on();
        for (second, status, verdict, changed) in [
            (0, Status::Online, Verdict::Ok, true),
            (60, Status::Offline, Verdict::Unknown, true),
            (120, Status::Unknown, Verdict::Unknown, false),
            (359, Status::Offline, Verdict::Unknown, false),
            (360, Status::Offline, Verdict::Fault, true),
            (420, Status::Online, Verdict::Ok, true),
            (480, Status::Offline, Verdict::Unknown, true),
            (420 + 2 * 86_400, Status::Offline, Verdict::Doubt, true),
            (421 + 2 * 86_400, Status::Online, Verdict::Ok, true),
        ] {
            let observation = observe(&mut memory, &site, status, second);
            assert_eq!(observation.verdict, verdict, "at {second}");
            assert_eq!(observation.verdict_changed, changed, "at {second}");
        }
    }

    #[test]
    fn last_ok_and_offline_since_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/devices.json");
        let site = always_on();
        let mut memory = MemoryStore::load(&path);
        observe(&mut memory, &site, Status::Online, 0);
        observe(&mut memory, &site, Status::Offline, 60);
        memory.save().unwrap();

        let mut memory = MemoryStore::load(&path);
        assert!(memory.is_offline(&site.devices[0]));
        let observation = observe(&mut memory, &site, Status::Offline, 360);
        assert_eq!(observation.verdict, Verdict::Fault);
        assert_eq!(
            observation.last_ok_at,
            Timestamp::from_second(1_800_000_000).ok()
        );
        assert_eq!(
            observation.offline_since,
            Timestamp::from_second(1_800_000_060).ok()
        );
    }

    #[test]
    fn the_file_is_written_on_change_and_not_at_every_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.json");
        let site = always_on();
        let mut memory = MemoryStore::load(&path);
        observe(&mut memory, &site, Status::Online, 0);
        memory.save().unwrap();
        fs::remove_file(&path).unwrap();
        observe(&mut memory, &site, Status::Online, 300);
        memory.save().unwrap();
        assert!(!path.exists(), "nothing changed");
        observe(&mut memory, &site, Status::Offline, 600);
        memory.save().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_device_that_left_the_configuration_is_forgotten_and_garbage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.json");
        fs::write(&path, "garbage").unwrap();
        let mut memory = MemoryStore::load(&path);
        let site = always_on();
        observe(&mut memory, &site, Status::Offline, 0);
        memory.retain(&[]);
        assert!(!memory.is_offline(&site.devices[0]));
    }
}
