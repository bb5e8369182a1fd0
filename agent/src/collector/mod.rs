//! The `collector` thread: has every device probed in its time, judges what is
//! found, shows it, remembers it and hands it to `report`.
//!
//! | module | what it does |
//! |---|---|
//! | `plan` | says when which device is probed |
//! | `memory` | knows what was seen before, and judges |
//! | `outgoing` | says what is reported when |
//! | `state` | observations and what the pages see |
//!
//! All of these only compute; what waits and what talks to other threads is
//! here.

mod memory;
mod outgoing;
mod plan;
mod state;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::report::ReportedDevice;
use av_proto::sort::sort_by;
use av_proto::text::excerpt;
use av_proto::verdict::{Status, Verdict};
use av_service::progress;
use crossbeam_channel::{Receiver, Sender, bounded, never, select, unbounded};

use crate::clock::{Clock, Line};
use crate::config::{ActiveConfig, ConfigHandle};
use crate::driver::{Done, Prober, Reply};
use crate::finding::Finding;
use crate::snapshot::Snapshots;
use crate::supervisor::Stop;

use memory::MemoryStore;
pub use memory::last_good_time;
use outgoing::{Due, Outgoing};
use plan::{Answer, Over, Plan, Reason};
pub use state::{Ended, Moment, Observation, SweepState};

/// How often the status page is brought up to date while probes come back.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// How often probes that do not return are looked for.
const STUCK_CHECK: Duration = Duration::from_secs(5);
/// The collector looks at the clock this often: a jump is seen at once, not
/// at the next sweep.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Answers that are taken before anything else is done.
const ANSWERS_AT_ONCE: usize = 256;

/// Observations for the report thread.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What was found, device by device, its times by `line`.
    pub devices: Vec<ReportedDevice>,
    /// What was believed of the clock.
    pub line: Line,
}

/// The `collector` thread's parts.
pub struct Collector {
    /// The running configuration.
    pub handle: ConfigHandle,
    /// Where its state is shown.
    pub snapshots: Snapshots,
    /// The time.
    pub clock: Clock,
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
        let (to, answers) = unbounded();
        let mut work = Work::new(&*self, to);
        // A channel that is not looked at for now takes the place of a real
        // one in the selection below.
        let (nowhere, _nobody) = bounded::<Batch>(0);
        let mut wishes = self.probe_now.clone();
        loop {
            progress::moves();
            work.step();
            let config_changed = match work.plan.is_sweeping() {
                // It is taken at the end of the sweep.
                true => never(),
                false => self.config_changed.clone(),
            };
            let batches = match work.outbox {
                Some(_) => &self.batches,
                None => &nowhere,
            };
            let wait = work.wait();
            progress::waits();
            select! {
                recv(self.stop) -> _ => break,
                recv(answers) -> done => if let Ok(done) = done {
                    work.take(done);
                    for done in answers.try_iter().take(ANSWERS_AT_ONCE) {
                        work.take(done);
                    }
                },
                recv(config_changed) -> changed => match changed {
                    Ok(()) => work.plan.hurry(self.clock.monotonic(), Duration::ZERO),
                    Err(_) => break,
                },
                recv(wishes) -> ip => match ip {
                    Ok(ip) => work.wish(ip),
                    Err(_) => wishes = never(),
                },
                send(batches, work.outbox.take().unwrap_or_else(|| work.empty_batch())) -> _ => {}
                default(wait) => {}
            }
        }
        work.end();
    }
}

/// What the thread works on; made afresh when it is started again.
struct Work<'a> {
    collector: &'a Collector,
    /// The configuration of the newest sweep.
    active: Arc<ActiveConfig>,
    devices: Vec<Arc<Device>>,
    /// The newest observation of each device.
    found: Vec<Option<Arc<Observation>>>,
    memory: MemoryStore,
    plan: Plan,
    outgoing: Outgoing,
    /// A batch that the report thread has not taken yet. There is one at
    /// most: what is found meanwhile waits in `outgoing`, device by device.
    outbox: Option<Batch>,
    to: Sender<Done>,
    state: SweepState,
    /// Something is new since the page was brought up to date.
    unshown: bool,
    shown_at: Option<Instant>,
    stuck_checked: Instant,
}

impl<'a> Work<'a> {
    fn new(collector: &'a Collector, to: Sender<Done>) -> Self {
        let now = collector.clock.monotonic();
        Self {
            collector,
            active: collector.handle.load_full(),
            devices: Vec::new(),
            found: Vec::new(),
            memory: MemoryStore::load(&collector.memory_path, now),
            plan: Plan::new(now),
            outgoing: Outgoing::default(),
            outbox: None,
            to,
            state: SweepState::default(),
            unshown: false,
            shown_at: None,
            stuck_checked: now,
        }
    }

    /// Does what is due now.
    fn step(&mut self) {
        let now = self.now();
        if self.plan.sweep_is_due(now) {
            self.begin_sweep(now);
        }
        for start in self.plan.starts(now) {
            let reply = Reply::new(start.ticket, self.to.clone());
            self.collector
                .prober
                .begin(&self.devices[start.index], reply);
            self.unshown = true;
        }
        if now.duration_since(self.stuck_checked) >= STUCK_CHECK {
            self.stuck_checked = now;
            self.give_up_stuck(now);
        }
        if let Some(over) = self.plan.end_sweep(now, self.interval()) {
            self.end_sweep(over);
        }
        self.hand_over(now);
        self.show(now);
    }

    /// How long there is nothing to do.
    fn wait(&self) -> Duration {
        let now = self.now();
        let plan = self.plan.wake(now);
        let outgoing = match self.outbox {
            Some(_) => None,
            None => self.outgoing.due_at(self.plan.is_sweeping()),
        };
        let show = self
            .shown_at
            .filter(|_| self.unshown)
            .map(|at| at + SHOW_EVERY);
        [plan, outgoing, show]
            .into_iter()
            .flatten()
            .min()
            .map_or(IDLE_MAX, |at| at.saturating_duration_since(now))
            .min(IDLE_MAX)
    }

    fn begin_sweep(&mut self, now: Instant) {
        // A notice that came before this moment is served by this sweep.
        let _ = self.collector.config_changed.try_recv();
        let active = self.collector.handle.load_full();
        if self.devices.is_empty() || !Arc::ptr_eq(&active, &self.active) {
            self.configure(active, now);
        }
        self.state.swept = Some(now);
        let (memory, devices) = (&self.memory, &self.devices);
        self.plan
            .begin_sweep(now, |index| memory.is_offline(&devices[index]));
        self.unshown = true;
    }

    fn configure(&mut self, active: Arc<ActiveConfig>, now: Instant) {
        self.devices.clone_from(&active.site.devices);
        self.active = active;
        self.memory.retain(&self.devices);
        let mut old: std::collections::HashMap<IpAddr, Arc<Observation>> = self
            .found
            .drain(..)
            .flatten()
            .map(|observation| (observation.device.ip, observation))
            .collect();
        self.found = self
            .devices
            .iter()
            .map(|device| old.remove(&device.ip))
            .collect();
        self.outgoing = Outgoing::default();
        self.plan.configure(&self.devices, now);
    }

    /// Takes an answer.
    fn take(&mut self, done: Done) {
        match self.plan.answered(done.ticket, done.at) {
            Answer::Counts { index, reason } => {
                self.observe(index, reason, done.finding, done.at);
            }
            Answer::Nobodys => {}
        }
        self.unshown = true;
    }

    fn give_up_stuck(&mut self, now: Instant) {
        let stuck = self.plan.stuck(now);
        if !stuck.is_empty() {
            log::error!("❌ {} probes did not return", stuck.len());
        }
        for index in stuck {
            let finding = Finding::new(Status::Unknown)
                .with_detail("the probe did not return: see the agent's log");
            self.observe(index, Reason::Sweep, finding, now);
        }
    }

    fn observe(&mut self, index: usize, reason: Reason, finding: Finding, at: Instant) {
        let line = self.collector.clock.line();
        let observation =
            self.memory
                .observe(&self.devices[index], finding, at, &line, &self.active.site);
        log_change(&observation);
        let now = self.now();
        self.plan.judged(index, now, observation.decides_in);
        let before = self.found[index].replace(Arc::new(observation));
        let is_sweeping = self.plan.is_sweeping();
        if let Some(observation) = &self.found[index] {
            self.outgoing
                .observed(index, reason, before.as_deref(), observation, now);
            if observation.verdict == Verdict::Fault && !is_sweeping {
                let interval = self.interval();
                self.plan.hurry(now, interval);
            }
        }
        self.unshown = true;
    }

    /// A device says that it changed.
    fn wish(&mut self, ip: IpAddr) {
        if !self.plan.notice(ip, self.now()) {
            log::debug!("a notice came from {ip}, which is not configured");
        }
    }

    /// The time from the beginning of one sweep to that of the next.
    fn interval(&self) -> Duration {
        let fault = self
            .found
            .iter()
            .flatten()
            .any(|observation| observation.verdict == Verdict::Fault);
        let site = &self.active.site;
        Duration::from_secs(u64::from(match fault {
            true => site.ko_interval_s,
            false => site.ok_interval_s,
        }))
    }

    fn end_sweep(&mut self, over: Over) {
        let ended = Ended {
            took: over.took,
            deadline: over.deadline,
            missing: over.missing.len(),
        };
        self.state.sweeps += 1;
        self.state.late += u64::from(!ended.is_in_time());
        self.state.last = Some(ended);
        log::info!(
            "📡 Sweep of {} devices took {:.1} s: {}; next in {} s",
            self.devices.len(),
            over.took.as_secs_f64(),
            outgoing::summary(self.found.iter().flatten()),
            self.interval().as_secs(),
        );
        let ip = |index: usize| {
            let device = self.devices.get(index)?;
            Some(device.ip_text.as_str())
        };
        if !over.late.is_empty() {
            let mut late = over.late;
            sort_by(&mut late, |(_, a), (_, b)| b.cmp(a));
            let late = late.into_iter().filter_map(|(index, after)| {
                Some(format!("{} after {:.1} s", ip(index)?, after.as_secs_f64()))
            });
            log::info!(
                "🐢 The sweep missed its deadline of {:.1} s: {}",
                over.deadline.as_secs_f64(),
                outgoing::few(&late.collect::<Vec<_>>())
            );
        }
        if !over.missing.is_empty() {
            let missing = over.missing.iter().filter_map(|&index| ip(index));
            log::warn!(
                "⚠️ {} devices have not answered in {:.1} s; the sweep ends without them: {}",
                over.missing.len(),
                over.took.as_secs_f64(),
                outgoing::few(&missing.map(str::to_owned).collect::<Vec<_>>())
            );
        }
        self.outgoing.sweep_ended();
        self.unshown = true;
    }

    /// Makes a batch where one is due and the last one was taken.
    fn hand_over(&mut self, now: Instant) {
        if self.outbox.is_some() {
            return;
        }
        let is_quiet = self.plan.in_flight() == 0;
        let due = self
            .outgoing
            .take_due(now, self.plan.is_sweeping(), is_quiet);
        self.fill_outbox(due);
    }

    fn fill_outbox(&mut self, due: Option<Due>) {
        let observations: Vec<&Arc<Observation>> = match &due {
            None => return,
            Some(Due::Whole) => self.found.iter().flatten().collect(),
            Some(Due::Some(indexes)) => indexes
                .iter()
                .filter_map(|&index| self.found.get(index)?.as_ref())
                .collect(),
        };
        let line = self.collector.clock.line();
        let devices: Vec<ReportedDevice> = observations
            .into_iter()
            .map(|observation| observation.reported(&line))
            .collect();
        self.save_memory(&line);
        if !devices.is_empty() {
            self.outbox = Some(Batch { devices, line });
        }
    }

    fn save_memory(&mut self, line: &Line) {
        let error = match self.memory.save(self.now(), line) {
            Ok(()) => None,
            Err(error) => Some(excerpt(&error.to_string(), 300)),
        };
        // A disk that is full is so for each sweep, and said once.
        if error != self.state.memory_error {
            match &error {
                Some(error) => log::error!("❌ Memory of the devices not saved: {error}"),
                None => log::info!("💾 The memory of the devices is saved again"),
            }
            self.state.memory_error = error;
            self.unshown = true;
        }
    }

    fn empty_batch(&self) -> Batch {
        Batch {
            devices: Vec::new(),
            line: self.collector.clock.line(),
        }
    }

    /// Brings the page up to date.
    fn show(&mut self, now: Instant) {
        let too_soon = self
            .shown_at
            .is_some_and(|at| now.duration_since(at) < SHOW_EVERY);
        if !self.unshown || (too_soon && self.plan.in_flight() > 0) {
            return;
        }
        self.unshown = false;
        self.shown_at = Some(now);
        self.state.observations = self.found.iter().flatten().cloned().collect();
        self.state.next_sweep = self.plan.next_sweep();
        self.state.in_flight = self.plan.in_flight();
        self.state.rechecks = self.plan.rechecks();
        self.collector
            .snapshots
            .sweep
            .store(Arc::new(self.state.clone()));
    }

    /// What is known and not yet reported goes to the report thread, which
    /// writes it down before it ends.
    fn end(&mut self) {
        if self.outbox.is_none() {
            let due = self.outgoing.take_changes();
            self.fill_outbox(due);
        }
        if let Some(batch) = self.outbox.take() {
            // A full channel: the disk is slow, and the next run sees the
            // devices again.
            let _ = self.collector.batches.try_send(batch);
        }
    }

    fn now(&self) -> Instant {
        self.collector.clock.monotonic()
    }
}

fn log_change(observation: &Observation) {
    if observation.verdict_changed {
        log::info!(
            "🔎 {} ({}): {}, {}{}",
            excerpt(&observation.device.name, 100),
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

#[cfg(test)]
mod tests;
