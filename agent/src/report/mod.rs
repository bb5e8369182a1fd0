//! The `report` thread: keeps every batch on disk and sends the reports in
//! order, each until the backend has taken it.

mod queue;
mod send;
mod spool;
mod stamp;
mod state;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use av_proto::report::{AgentInfo, RejectedInfo};
use av_proto::text::excerpt;
use av_service::progress;
use crossbeam_channel::{Receiver, Sender, select};

use crate::clock::{Clock, Trust, boot};
use crate::collector::Batch;
use crate::config::ConfigHandle;
use crate::http_client::HttpClient;
use crate::snapshot::Snapshots;
use crate::supervisor::{Stop, stopped};

use queue::Queue;
use send::{Outcome, send};
pub use spool::{Limits, Now, Spool, SpoolError};
pub use stamp::Stamp;
use stamp::settle;
pub use state::ReportState;

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
            queue: Queue::new(self.spool_dir.clone(), self.limits),
            state: ReportState::clone(&self.snapshots.report.load()),
            retry: RETRY_MIN,
            due: Some(Instant::now()),
            run: run_id(),
            held_since: None,
        };
        loop {
            work.queue.tend(&self.now());
            self.show(&mut work);
            let wake = [work.due, work.queue.tend_at()].into_iter().flatten().min();
            let wait = wake.map_or(RETRY_MAX, |at| at.saturating_duration_since(Instant::now()));
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
        work.queue.close(&self.now());
    }

    /// Takes a batch.
    fn keep(&self, work: &mut Work, batch: Batch) {
        let stamp = Stamp::of(&batch.line, &work.run);
        work.queue.keep(&stamp, batch.devices, &self.now());
        // Something new is a reason to try at once, also in a back-off.
        if work.retry <= RETRY_MIN || work.due.is_none() {
            work.due = Some(Instant::now());
        }
    }

    /// Sends the oldest report; more are due at once when that worked.
    fn send_next(&self, work: &mut Work) {
        work.due = None;
        if self.clock.is_worth_waiting_for() && work.queue.waiting() > 0 {
            self.hold(work);
            return;
        }
        let Some(mut turn) = work.queue.take() else {
            return;
        };
        settle(&mut turn.pending, &work.run, &self.clock.line());
        let active = self.handle.load_full();
        let agent = self.agent_info(&active, work.queue.dropped());
        let id = turn.id.clone();
        let outcome = send(
            &self.client,
            &active,
            agent,
            &mut turn.pending,
            id,
            &self.clock,
        );
        match outcome {
            Outcome::Taken { duplicate } => {
                work.queue.done(&turn);
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
                log::error!(
                    "❌ The backend refuses report {}: {reason}",
                    turn.pending.seq
                );
                work.queue.set_refused_aside(&turn);
                work.queue.done(&turn);
                work.state.refused += 1;
                work.state.last_error = Some(excerpt(&reason, 300));
                work.due = Some(Instant::now());
            }
            Outcome::NotNow {
                reason,
                may_have_arrived,
            } => {
                let reason = excerpt(&reason, 300);
                work.queue.give_back(turn, may_have_arrived);
                if work.state.last_error.as_ref() != Some(&reason) {
                    log::warn!(
                        "📦 Reports wait: {reason}; {} are kept",
                        work.queue.waiting()
                    );
                }
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
            started_at: line.trust.is_true().then(|| line.wall(self.started)),
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
    /// with it only where it is known to be right: one that is only believed may
    /// have been set by years just now.
    fn now(&self) -> Now {
        let line = self.clock.line();
        let at = self.clock.monotonic();
        Now {
            at,
            machine: (line.trust == Trust::Known).then(|| line.wall(at)),
        }
    }

    fn show(&self, work: &mut Work) {
        work.queue.show(&mut work.state);
        self.snapshots.report.store(work.state.clone().into());
    }
}

/// What the thread works on; made afresh when it is started again.
struct Work {
    queue: Queue,
    state: ReportState,
    retry: Duration,
    /// When to send next; `None` until there is something.
    due: Option<Instant>,
    /// Names the clock in the stamps of reports.
    run: String,
    /// Since when reports wait for the time.
    held_since: Option<Instant>,
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
