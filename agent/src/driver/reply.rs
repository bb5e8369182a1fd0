//! Where a finding goes.

use std::time::Instant;

use av_proto::verdict::Status;
use crossbeam_channel::{Sender, unbounded};

use crate::finding::Finding;

/// What a probe found.
#[derive(Debug)]
pub struct Done {
    /// Which probe, as [`Reply::new`] was told.
    pub ticket: usize,
    /// What it found.
    pub finding: Finding,
    /// When, on a clock that does not jump.
    pub at: Instant,
}

/// Owed by a driver for each probe that it began. It answers exactly once:
/// one that is dropped, because its driver panicked, says so.
#[derive(Debug)]
pub struct Reply {
    ticket: usize,
    to: Option<Sender<Done>>,
}

impl Reply {
    /// A reply for the probe `ticket`. `to` must be unbounded, so that no
    /// engine waits for whoever listens; it holds one entry for each probe at
    /// most.
    #[must_use]
    pub fn new(ticket: usize, to: Sender<Done>) -> Self {
        Self {
            ticket,
            to: Some(to),
        }
    }

    /// Answers.
    pub fn send(mut self, finding: Finding) {
        self.deliver(finding);
    }

    /// Has `begin` begin one probe, and waits for what it finds.
    #[must_use]
    pub fn wait(begin: impl FnOnce(Self)) -> Finding {
        let (to, findings) = unbounded();
        begin(Self::new(0, to));
        match findings.recv() {
            Ok(done) => done.finding,
            // A reply that is dropped answers too.
            Err(_) => Self::lost(),
        }
    }

    /// What a probe found whose driver gave no answer.
    fn lost() -> Finding {
        Finding::new(Status::Unknown).with_detail("the probe failed inside the agent: see its log")
    }

    fn deliver(&mut self, finding: Finding) {
        if let Some(to) = self.to.take() {
            // Nobody waits for it any more when the sweep was stopped.
            let _ = to.send(Done {
                ticket: self.ticket,
                finding,
                at: Instant::now(),
            });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.to.is_some() {
            self.deliver(Self::lost());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_answers_once_even_when_dropped() {
        let (to, findings) = unbounded();
        Reply::new(7, to.clone()).send(Finding::new(Status::Online));
        drop(Reply::new(8, to));
        let found: Vec<_> = findings
            .iter()
            .map(|done| (done.ticket, done.finding.status))
            .collect();
        assert_eq!(found, [(7, Status::Online), (8, Status::Unknown)]);
    }
}
