//! The `report` thread: keeps every batch on disk and sends the reports in
//! order, each until the backend has taken it.

mod send;
mod spool;
mod stamp;
mod state;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use av_proto::report::{AgentInfo, RejectedInfo, ReportedDevice};
use av_proto::text::excerpt;
use av_service::progress;
use crossbeam_channel::{Receiver, Sender, select};

use crate::clock::{Clock, Trust, boot};
use crate::collector::Batch;
use crate::config::ConfigHandle;
use crate::http_client::HttpClient;
use crate::snapshot::Snapshots;
use crate::supervisor::{Stop, stopped};

use send::{Outcome, send};
pub use spool::{Limits, Now, Spool, SpoolError};
pub use stamp::Stamp;
use stamp::settle;
pub use state::ReportState;

/// Devices in one report: a large site's sweep becomes several, so that none
/// comes near the backend's size limit.
const DEVICES_PER_REPORT: usize = 500;
/// Batches that wait in memory while the disk takes none.
const MEMORY_MAX: usize = 64;
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether the time is known.
const HOLD: Duration = Duration::from_millis(500);

/// The `report` thread's parts.
pub struct Reporter {
    /// Where the spool lives.
    pub spool_dir: PathBuf,
    /// What it may take.
    pub limits: Limits,
    /// The running configuration.
    pub handle: ConfigHandle,
    /// Where its state is shown.
    pub snapshots: Snapshots,
    /// The way to the backend.
    pub client: HttpClient,
    /// The time.
    pub clock: Clock,
    /// When the agent started.
    pub started: Instant,
    /// Asks `sync` for a poll: its answer says what time it is.
    pub sync_now: Sender<()>,
    /// What the collector found.
    pub batches: Receiver<Batch>,
    /// The stop signal.
    pub stop: Stop,
}

impl Reporter {
    /// Keeps and sends until the stop signal.
    pub fn run(&mut self) {
        let mut work = Work {
            spool: None,
            memory: VecDeque::new(),
            memory_dropped: 0,
            spool_dropped: 0,
            state: ReportState::clone(&self.snapshots.report.load()),
            retry: RETRY_MIN,
            due: Some(Instant::now()),
            run: run_id(),
            held_since: None,
        };
        loop {
            self.open_spool(&mut work);
            self.show(&mut work);
            let wait = work.due.map_or(RETRY_MAX, |due| {
                due.saturating_duration_since(Instant::now())
            });
            progress::waits();
            select! {
                recv(self.batches) -> batch => match batch {
                    Ok(batch) => {
                        progress::moves();
                        self.keep(&mut work, batch);
                    }
                    Err(_) => break,
                },
                recv(self.stop) -> _ => break,
                default(wait) => {}
            }
            progress::moves();
            if work.due.is_some_and(|due| due <= Instant::now()) {
                self.send_next(&mut work);
            }
        }
        // What the collector handed over must be on disk before the end.
        while let Ok(batch) = self.batches.try_recv() {
            self.keep(&mut work, batch);
        }
        if let Some(spool) = &mut work.spool {
            if let Err(error) = spool.close() {
                log::error!("❌ Spool not closed cleanly: {error}");
            }
        }
    }

    fn open_spool(&self, work: &mut Work) {
        if work.spool.is_some() {
            return;
        }
        match Spool::open(&self.spool_dir, self.limits) {
            Ok(spool) => {
                if spool.pending() > 0 {
                    log::info!(
                        "📦 {} reports from before wait in the spool",
                        spool.pending()
                    );
                }
                work.spool = Some(spool);
                work.state.disk_error = None;
                for (stamp, devices) in std::mem::take(&mut work.memory) {
                    self.append(work, &stamp, devices);
                }
            }
            Err(error) => work.disk_failed(&error),
        }
    }

    /// Takes a batch: to disk, or to memory while the disk takes nothing.
    fn keep(&self, work: &mut Work, batch: Batch) {
        let stamp = Stamp::of(&batch.line, &work.run);
        self.append(work, &stamp, batch.devices);
        // Something new is a reason to try at once, also in a back-off.
        if work.retry <= RETRY_MIN || work.due.is_none() {
            work.due = Some(Instant::now());
        }
    }

    fn append(&self, work: &mut Work, stamp: &Stamp, devices: Vec<ReportedDevice>) {
        let appended = match &mut work.spool {
            Some(spool) => {
                let reports: Vec<&[ReportedDevice]> = devices.chunks(DEVICES_PER_REPORT).collect();
                spool.append(&reports, stamp, &self.now())
            }
            None => Err(SpoolError::Closed),
        };
        match appended {
            Ok(dropped) => {
                work.state.disk_error = None;
                if dropped > 0 {
                    log::warn!("⚠️ The spool is full: the {dropped} oldest reports were dropped");
                }
            }
            Err(error) => {
                work.disk_failed(&error);
                work.spool = None;
                if work.memory.len() == MEMORY_MAX {
                    work.memory.pop_front();
                    work.memory_dropped += 1;
                    log::warn!("⚠️ The disk takes nothing: the oldest report was dropped");
                }
                work.memory.push_back((stamp.clone(), devices));
            }
        }
    }

    /// Sends the oldest report; more are due at once when that worked.
    fn send_next(&self, work: &mut Work) {
        work.due = None;
        let Some(spool) = &mut work.spool else {
            work.due = Some(Instant::now() + RETRY_MIN);
            return;
        };
        if self.clock.is_worth_waiting_for() && spool.pending() > 0 {
            self.hold(work);
            return;
        }
        let mut pending = match spool.take() {
            Ok(None) => return,
            Ok(Some(pending)) => pending,
            Err(error) => {
                work.disk_failed(&error);
                work.spool = None;
                work.due = Some(Instant::now() + RETRY_MIN);
                return;
            }
        };
        settle(&mut pending, &work.run, &self.clock.line());
        let active = self.handle.load_full();
        let agent = self.agent_info(&active, spool.dropped());
        let stream = spool.stream();
        let outcome = send(
            &self.client,
            &active,
            agent,
            &mut pending,
            stream,
            &self.clock,
        );
        match outcome {
            Outcome::Taken { duplicate } => {
                spool.ack(pending.seq);
                work.state.sent += 1;
                work.state.duplicates += u64::from(duplicate);
                work.state.last_sent_at = Some(self.clock.now());
                if work.state.last_error.take().is_some() {
                    log::info!("📤 The backend takes reports again");
                }
                work.retry = RETRY_MIN;
                work.due = Some(Instant::now());
            }
            Outcome::Refused(reason) => {
                // It would be refused again for ever, and hold up the rest.
                log::error!("❌ The backend refuses report {}: {reason}", pending.seq);
                match spool.set_refused_aside(&pending) {
                    Ok(path) => log::error!("   It is kept as {}", path.display()),
                    Err(error) => log::error!("   It could not be kept: {error}"),
                }
                spool.ack(pending.seq);
                work.state.refused += 1;
                work.state.last_error = Some(excerpt(&reason, 300));
                work.due = Some(Instant::now());
            }
            Outcome::NotNow(reason) => {
                let reason = excerpt(&reason, 300);
                if work.state.last_error.as_ref() != Some(&reason) {
                    log::warn!(
                        "📦 Reports wait: {reason}; {} are kept on disk",
                        spool.pending()
                    );
                }
                spool.give_back(pending);
                work.state.last_error = Some(reason);
                work.due = Some(Instant::now() + work.retry);
                work.retry = (work.retry * 2).min(RETRY_MAX);
            }
        }
        if stopped(&self.stop, Duration::ZERO) {
            work.due = None;
        }
    }

    /// What is sent before the time is known lands at a wrong one: waits, and
    /// asks for it.
    fn hold(&self, work: &mut Work) {
        work.due = Some(Instant::now() + HOLD);
        let since = *work.held_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= RETRY_MIN {
            work.held_since = None;
            let _ = self.sync_now.try_send(());
        }
    }

    fn agent_info(&self, active: &crate::config::ActiveConfig, dropped: u64) -> AgentInfo {
        let sync = self.snapshots.sync.load();
        let line = self.clock.line();
        AgentInfo {
            version: crate::VERSION.to_owned(),
            config_hash: active.hash.as_ref().map(ToString::to_string),
            started_at: Some(line.wall(self.started)).filter(|_| line.trust.is_true()),
            config_error: sync.refused.clone(),
            rejected_devices: active
                .site
                .rejected
                .iter()
                .map(|rejected| RejectedInfo {
                    ip: rejected.ip.as_deref().map(|ip| excerpt(ip, 100)),
                    problem: excerpt(
                        &rejected
                            .errors
                            .iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                            .join("; "),
                        300,
                    ),
                })
                .collect(),
            dropped_reports: dropped,
        }
    }

    /// Now, for the spool: file times are by the machine's clock, and compare
    /// with it only where it is right.
    fn now(&self) -> Now {
        let line = self.clock.line();
        let at = self.clock.monotonic();
        Now {
            at,
            machine: matches!(line.trust, Trust::Known | Trust::Believed).then(|| line.wall(at)),
        }
    }

    fn show(&self, work: &mut Work) {
        let state = &mut work.state;
        if let Some(spool) = &work.spool {
            state.pending = spool.pending();
            state.spool_bytes = spool.bytes();
            state.damaged = spool.lost();
            work.spool_dropped = spool.dropped();
        }
        state.dropped = work.spool_dropped + work.memory_dropped;
        state.in_memory = work.memory.len() as u64;
        self.snapshots.report.store(state.clone().into());
    }
}

/// What the thread works on; made afresh when it is started again.
struct Work {
    spool: Option<Spool>,
    memory: VecDeque<(Stamp, Vec<ReportedDevice>)>,
    /// Dropped from memory, and by the spool when it was last open.
    memory_dropped: u64,
    spool_dropped: u64,
    state: ReportState,
    retry: Duration,
    /// When to send next; `None` until there is something.
    due: Option<Instant>,
    /// Names the clock in the stamps of reports.
    run: String,
    /// Since when reports wait for the time.
    held_since: Option<Instant>,
}

impl Work {
    fn disk_failed(&mut self, error: &SpoolError) {
        let text = excerpt(&error.to_string(), 300);
        if self.state.disk_error.as_ref() != Some(&text) {
            log::error!("❌ The spool cannot be used: {text}");
        }
        self.state.disk_error = Some(text);
    }
}

/// The name of the clock in the stamps: the boot's. Where the system has none,
/// a random one; where it has no chance either, one that matches no other run's
/// stamps all the same, because those are random.
fn run_id() -> String {
    if let Some(boot) = boot::id() {
        return boot;
    }
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => format!("{:016x}", u64::from_be_bytes(bytes)),
        Err(_) => format!("process-{}", std::process::id()),
    }
}
