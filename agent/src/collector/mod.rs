//! The `collector` thread: sweeps.
//!
//! In a sweep every device is probed once, by its driver; what was found is judged, shown, remembered and handed to `report`.

mod memory;
mod state;
mod sweep;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::report::ReportedDevice;
use av_proto::verdict::Verdict;
use crossbeam_channel::{Receiver, Sender, select};
use jiff::Timestamp;

use crate::config::ConfigHandle;
use crate::driver::{Prober, Reply};
use crate::snapshot::Snapshots;
use crate::supervisor::Stop;

use memory::MemoryStore;
pub use state::{Observation, SweepState};

/// What one sweep found, for the report thread.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What it found, device by device.
    pub devices: Vec<ReportedDevice>,
}

/// The `collector` thread's parts.
pub struct Collector {
    /// The running configuration.
    pub handle: ConfigHandle,
    /// Where its state is shown.
    pub snapshots: Snapshots,
    /// Who probes.
    pub prober: Arc<dyn Prober>,
    /// Where the devices' memory is kept.
    pub memory_path: PathBuf,
    /// Says that the handle holds a new configuration.
    pub config_changed: Receiver<()>,
    /// Devices that want to be probed at once.
    pub probe_now: Receiver<IpAddr>,
    /// Where batches go.
    pub batches: Sender<Batch>,
    /// The stop signal.
    pub stop: Stop,
}

impl Collector {
    /// Sweeps until the stop signal.
    pub fn run(&mut self) {
        let mut memory = MemoryStore::load(&self.memory_path);
        loop {
            let began = Instant::now();
            // A notice that came before this moment is served by this sweep.
            let _ = self.config_changed.try_recv();
            let Some(interval) = self.sweep(&mut memory) else {
                return;
            };
            let next = began + interval;
            let mut wishes = self.probe_now.clone();
            loop {
                select! {
                    recv(self.stop) -> _ => return,
                    recv(self.config_changed) -> changed => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    recv(wishes) -> ip => match ip {
                        Ok(ip) => if self.probe(ip, &mut memory).is_none() { return },
                        Err(_) => wishes = crossbeam_channel::never(),
                    },
                    default(next.saturating_duration_since(Instant::now())) => break,
                }
            }
        }
    }

    /// Probes one device between two sweeps, and reports it at once; `None` at
    /// the stop signal.
    fn probe(&self, ip: IpAddr, memory: &mut MemoryStore) -> Option<()> {
        let active = self.handle.load_full();
        let Some(device) = active.site.devices.iter().find(|d| d.ip == ip) else {
            return Some(());
        };
        let (to, findings) = crossbeam_channel::unbounded();
        self.prober.begin(device, Reply::new(0, to));
        let done = select! {
            recv(findings) -> done => done.ok()?,
            recv(self.stop) -> _ => return None,
        };
        let observation =
            memory.observe(device.clone(), done.finding, Timestamp::now(), &active.site);
        let mut state = SweepState::clone(&self.snapshots.sweep.load());
        let batch = Batch {
            devices: vec![observation.reported()],
        };
        if let Some(shown) = state.observations.iter_mut().find(|o| o.device.ip == ip) {
            *shown = observation;
        }
        self.snapshots.sweep.store(state.into());
        select! {
            send(self.batches, batch) -> _ => Some(()),
            recv(self.stop) -> _ => None,
        }
    }

    /// One sweep; the time until the next, or `None` at the stop signal.
    fn sweep(&self, memory: &mut MemoryStore) -> Option<Duration> {
        let active = self.handle.load_full();
        let swept_at = Timestamp::now();
        let began = Instant::now();
        let observations = sweep::sweep(sweep::Sweep {
            active: &active,
            prober: &*self.prober,
            memory,
            shown: &self.snapshots.sweep,
            stop: &self.stop,
            swept_at,
        })?;

        let fault = observations
            .iter()
            .any(|observation| observation.verdict == Verdict::Fault);
        let seconds = if fault {
            active.site.ko_interval_s
        } else {
            active.site.ok_interval_s
        };
        let interval = Duration::from_secs(u64::from(seconds));
        let took = began.elapsed();
        log::info!(
            "📡 Sweep of {} devices took {:.1} s: {}; next in {seconds} s",
            observations.len(),
            took.as_secs_f64(),
            sweep::summary(&observations),
        );
        if let Err(error) = memory.save() {
            log::error!("❌ Memory of the devices not saved: {error}");
        }
        let next_sweep_at = swept_at.checked_add(interval).ok();
        let state = SweepState::finished(observations, swept_at, took, next_sweep_at);
        let batch = Batch {
            devices: state
                .observations
                .iter()
                .map(Observation::reported)
                .collect(),
        };
        self.snapshots.sweep.store(state.into());
        if batch.devices.is_empty() {
            return Some(interval);
        }
        // Waits while the report thread is busy with the disk: a batch is
        // never dropped here.
        select! {
            send(self.batches, batch) -> _ => Some(interval),
            recv(self.stop) -> _ => None,
        }
    }
}
