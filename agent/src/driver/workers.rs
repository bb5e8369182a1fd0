//! Threads for drivers that block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Reply;
use crate::finding::Finding;
use crate::supervisor::Health;

/// How many probes block at the same time.
const WORKERS_MAX: usize = 32;
/// A worker holds one answer and one line of text at a time.
const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads, started as they are needed. They end with the
/// last clone.
#[derive(Debug, Clone)]
pub struct Workers {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    /// Jobs given and not yet done.
    open: Arc<AtomicUsize>,
    started: Arc<AtomicUsize>,
    health: Health,
}

impl Workers {
    /// No thread yet.
    #[must_use]
    pub fn new(health: &Health) -> Self {
        let (jobs, queue) = unbounded();
        Self {
            jobs,
            queue,
            open: Arc::default(),
            started: Arc::default(),
            health: health.clone(),
        }
    }

    /// Runs `probe` as soon as a thread is free, and answers with what it
    /// returns; one that panics is told to [`Health`] and is an unknown
    /// observation.
    pub fn run(&self, reply: Reply, probe: impl FnOnce() -> Finding + Send + 'static) {
        let health = self.health.clone();
        let open = Arc::clone(&self.open);
        let job = move || {
            match catch_unwind(AssertUnwindSafe(probe)) {
                Ok(finding) => reply.send(finding),
                Err(payload) => {
                    health.record("probe", &*payload);
                    drop(reply);
                }
            }
            open.fetch_sub(1, Ordering::AcqRel);
        };
        let open = self.open.fetch_add(1, Ordering::AcqRel) + 1;
        if open > self.started.load(Ordering::Acquire) {
            self.grow();
        }
        // The queue lives as long as this value does.
        let _ = self.jobs.send(Box::new(job));
    }

    /// One more thread, if there is room for it.
    fn grow(&self) {
        // `fetch_update` by hand: a newer Rust has another name for it.
        let mut started = self.started.load(Ordering::Acquire);
        loop {
            if started >= WORKERS_MAX {
                return;
            }
            match self.started.compare_exchange_weak(
                started,
                started + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(changed) => started = changed,
            }
        }
        let queue = self.queue.clone();
        let spawned = thread::Builder::new()
            .name("probe".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job();
                }
            });
        if let Err(error) = spawned {
            let left = self.started.fetch_sub(1, Ordering::AcqRel) - 1;
            log::error!("❌ Only {left} probe threads could start: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use av_proto::verdict::Status;
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn more_jobs_than_workers_all_end() {
        let workers = Workers::new(&Health::default());
        let (to, findings) = unbounded();
        let (release, held) = bounded::<()>(0);
        for ticket in 0..3 * WORKERS_MAX {
            let held = held.clone();
            workers.run(Reply::new(ticket, to.clone()), move || {
                let _ = held.recv();
                Finding::new(Status::Offline)
            });
        }
        assert!(findings.try_recv().is_err());
        assert_eq!(workers.started.load(Ordering::Acquire), WORKERS_MAX);
        drop((release, to));
        assert_eq!(findings.iter().count(), 3 * WORKERS_MAX);
    }

    #[test]
    fn a_panic_is_an_unknown_observation_and_costs_no_worker() {
        let health = Health::default();
        let workers = Workers::new(&health);
        let (to, findings) = unbounded();
        for ticket in 0..100 {
            workers.run(Reply::new(ticket, to.clone()), || panic!("to order"));
        }
        drop(to);
        let unknown = |done: super::super::Done| done.finding.status == Status::Unknown;
        assert_eq!(findings.iter().map(unknown).filter(|it| *it).count(), 100);
        assert_eq!(health.panics()[0].thread, "probe");
        let (to, findings) = unbounded();
        workers.run(Reply::new(0, to), || Finding::new(Status::Online));
        assert_eq!(findings.recv().unwrap().finding.status, Status::Online);
    }
}
