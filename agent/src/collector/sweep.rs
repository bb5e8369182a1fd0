//! One sweep: every device once, the living before the dead.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use av_proto::config::Device;
use av_proto::verdict::{Status, Verdict};
use crossbeam_channel::select;
use jiff::Timestamp;

use super::memory::MemoryStore;
use super::state::{Observation, SweepState};
use crate::config::ActiveConfig;
use crate::driver::{Prober, Reply};
use crate::finding::Finding;
use crate::supervisor::Stop;

/// How often the status page is brought up to date during a sweep.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// No driver takes this long: a probe that has not returned by then is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// What a sweep works with.
pub(super) struct Sweep<'a> {
    pub(super) active: &'a ActiveConfig,
    pub(super) prober: &'a dyn Prober,
    pub(super) memory: &'a mut MemoryStore,
    pub(super) shown: &'a ArcSwap<SweepState>,
    pub(super) stop: &'a Stop,
    pub(super) swept_at: Timestamp,
}

/// Runs a sweep; the observations in the order of the configuration, or
/// `None` at the stop signal.
pub(super) fn sweep(sweep: Sweep<'_>) -> Option<Vec<Observation>> {
    let Sweep {
        active,
        prober,
        memory,
        shown,
        stop,
        swept_at,
    } = sweep;
    memory.retain(&active.site.devices);
    let devices = &active.site.devices;
    let total = devices.len();
    let mut found: Vec<Option<Observation>> = Vec::new();
    found.resize_with(total, || None);

    let (done, results) = crossbeam_channel::unbounded();
    for index in living_first(devices, memory) {
        prober.begin(&devices[index], Reply::new(index, done.clone()));
    }
    drop(done);
    let mut open = total;
    let mut last_shown = Instant::now();
    let mut last_result = Instant::now();
    while open > 0 {
        let result = select! {
            recv(results) -> done => done.ok(),
            recv(stop) -> _ => return None,
            default(SHOW_EVERY) => None,
        };
        if let Some(done) = result {
            last_result = Instant::now();
            open -= 1;
            let device = devices[done.ticket].clone();
            let observation = memory.observe(device, done.finding, Timestamp::now(), &active.site);
            log_change(&observation);
            found[done.ticket] = Some(observation);
        } else if last_result.elapsed() > STUCK_AFTER {
            log::error!("❌ {open} probes did not return");
            break;
        }
        if last_shown.elapsed() > SHOW_EVERY {
            last_shown = Instant::now();
            show(shown, active, &found, swept_at);
        }
    }
    Some(
        found
            .into_iter()
            .zip(&active.site.devices)
            .map(|(observation, device)| {
                observation.unwrap_or_else(|| {
                    let finding = Finding::new(Status::Unknown)
                        .with_detail("the probe did not return: see the agent's log");
                    memory.observe(device.clone(), finding, Timestamp::now(), &active.site)
                })
            })
            .collect(),
    )
}

/// The order of a sweep: what was offline the last time waits until
/// everything else was asked, because it costs its whole time-out.
fn living_first(devices: &[Device], memory: &MemoryStore) -> Vec<usize> {
    let (dead, mut order): (Vec<usize>, Vec<usize>) =
        (0..devices.len()).partition(|&index| memory.is_offline(&devices[index]));
    order.extend(dead);
    order
}

/// Shows a sweep in progress: what it has found so far, and for the rest what
/// the last one found.
fn show(
    shown: &ArcSwap<SweepState>,
    active: &ActiveConfig,
    found: &[Option<Observation>],
    swept_at: Timestamp,
) {
    let before = shown.load();
    let old: HashMap<&str, &Observation> = before
        .observations
        .iter()
        .map(|observation| (observation.device.ip_text.as_str(), observation))
        .collect();
    let observations = found
        .iter()
        .zip(&active.site.devices)
        .filter_map(|(observation, device)| {
            observation
                .clone()
                .or_else(|| old.get(device.ip_text.as_str()).map(|&old| old.clone()))
        })
        .collect();
    shown.store(before.in_progress(observations, swept_at).into());
}

fn log_change(observation: &Observation) {
    if observation.verdict_changed {
        log::info!(
            "🔎 {} ({}): {}, {}{}",
            av_proto::text::one_line(&observation.device.name),
            observation.device.ip,
            observation.finding.status.as_str(),
            observation.verdict.as_str(),
            observation
                .finding
                .detail
                .as_ref()
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default(),
        );
    }
}

/// The verdicts of a sweep in a few words: `10 ok, 1 fault`.
pub(super) fn summary(observations: &[Observation]) -> String {
    let parts: Vec<String> = [
        Verdict::Ok,
        Verdict::Fault,
        Verdict::ExpectedOff,
        Verdict::Doubt,
        Verdict::Unknown,
    ]
    .into_iter()
    .filter_map(|verdict| {
        let count = observations.iter().filter(|o| o.verdict == verdict).count();
        (count > 0).then(|| format!("{count} {}", verdict.as_str()))
    })
    .collect();
    if parts.is_empty() {
        "nothing to watch".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use av_proto::config::{SiteConfig, SiteParts};
    use av_proto::secret::Secret;
    use crossbeam_channel::{Receiver, bounded};
    use serde_json::json;

    use super::*;
    use crate::config::{BackendUrl, Identity};
    use crate::driver::workers::Workers;
    use crate::supervisor::Health;

    /// Devices in 10.0.0.0/16 live; the others are dead, and their probes take
    /// until the test lets them go.
    struct Simulated {
        dead: Receiver<()>,
        panics_at: Option<IpAddr>,
        workers: Workers,
    }

    impl Prober for Simulated {
        fn begin(&self, device: &Device, reply: Reply) {
            let (ip, panics_at) = (device.ip, self.panics_at);
            let dead = self.dead.clone();
            self.workers.run(reply, move || {
                assert_ne!(Some(ip), panics_at, "to order");
                if ip.to_string().starts_with("10.0.") {
                    return Finding::new(Status::Online);
                }
                let _ = dead.recv();
                Finding::new(Status::Offline)
            });
        }
    }

    fn config(addresses: impl Iterator<Item = String>) -> ActiveConfig {
        let devices: Vec<_> = addresses
            .map(|ip| {
                let device = json!({"ip": ip, "name": ip, "driver": "ping"});
                serde_json::value::to_raw_value(&device).unwrap()
            })
            .collect();
        let parts = SiteParts {
            site_name: "S",
            ..SiteParts::default()
        };
        ActiveConfig {
            identity: Identity {
                site_token: Secret::new("t"),
                previous_token: None,
                backend_url: BackendUrl::parse("http://backend").unwrap(),
            },
            site: SiteConfig::validate(&parts, &devices).unwrap(),
            hash: None,
            applied_at: None,
        }
    }

    /// One sweep on a thread, its state shown in `shown`.
    fn run(
        active: &ActiveConfig,
        prober: &Simulated,
        memory: &mut MemoryStore,
        shown: &ArcSwap<SweepState>,
    ) -> Vec<Observation> {
        let (_running, stop) = bounded(0);
        sweep(Sweep {
            active,
            prober,
            memory,
            shown,
            stop: &stop,
            swept_at: Timestamp::now(),
        })
        .unwrap()
    }

    #[test]
    fn more_dead_devices_than_workers_do_not_delay_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = MemoryStore::load(&dir.path().join("devices.json"));
        let shown = ArcSwap::from_pointee(SweepState::default());
        let health = Health::default();
        // The dead come first in the configuration, 200 of them.
        let dead = (0..200).map(|i| format!("10.9.0.{i}"));
        let active = config(dead.chain((0..100).map(|i| format!("10.0.0.{i}"))));

        // The first sweep learns who is dead.
        let (release, dead) = bounded(0);
        drop(release);
        let prober = Simulated {
            dead,
            panics_at: None,
            workers: Workers::new(&health),
        };
        let first = run(&active, &prober, &mut memory, &shown);
        let online = |observations: &[Observation]| {
            observations
                .iter()
                .filter(|o| o.finding.status == Status::Online)
                .count()
        };
        assert_eq!((first.len(), online(&first)), (300, 100));
        assert_eq!(first[0].device.ip_text, "10.9.0.0", "in the given order");

        // In the second every living device is seen while all of the dead
        // still take their time.
        let (release, dead) = bounded(0);
        let prober = Simulated {
            dead,
            panics_at: None,
            workers: Workers::new(&health),
        };
        let second = Timestamp::now();
        std::thread::scope(|scope| {
            let swept = scope.spawn(|| run(&active, &prober, &mut memory, &shown));
            let seen = || {
                let state = shown.load();
                let fresh =
                    |o: &&Observation| o.finding.status == Status::Online && o.observed_at > second;
                state.observations.iter().filter(fresh).count()
            };
            let began = Instant::now();
            while seen() < 100 {
                assert!(began.elapsed() < Duration::from_secs(60), "{}", seen());
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(!swept.is_finished());
            drop(release);
            assert_eq!(swept.join().unwrap().len(), 300);
        });
    }

    #[test]
    fn a_probe_that_panics_is_an_observation_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = MemoryStore::load(&dir.path().join("devices.json"));
        let shown = ArcSwap::from_pointee(SweepState::default());
        let health = Health::default();
        let active = config((0..3).map(|i| format!("10.0.0.{i}")));
        let (_release, dead) = bounded(0);
        let prober = Simulated {
            dead,
            panics_at: Some("10.0.0.1".parse().unwrap()),
            workers: Workers::new(&health),
        };
        let found = run(&active, &prober, &mut memory, &shown);
        let statuses: Vec<Status> = found.iter().map(|o| o.finding.status).collect();
        assert_eq!(statuses, [Status::Online, Status::Unknown, Status::Online]);
        assert_eq!(health.panics()[0].thread, "probe");
    }
}
