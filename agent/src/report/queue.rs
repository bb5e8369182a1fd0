//! What waits for the backend: in the spool and, while the disk takes nothing,
//! in memory.
//!
//! A full or read-only disk keeps no report from being sent. What waits in
//! memory comes after what is on disk, and goes there when the disk takes
//! something again. It is sent under a stream of this run's own: a number of
//! the spool's would have to be noted on the disk before it is given out. One
//! that the backend may already have keeps its number, and so stays in memory
//! until that is known.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use av_proto::report::{ReportId, ReportedDevice};
use av_proto::text::excerpt;

use super::spool::{self, Limits, Now, Pending, Spool, SpoolError};
use super::stamp::Stamp;
use super::state::ReportState;

/// Devices in one report: a large site's sweep becomes several, so that none
/// comes near the backend's size limit.
const DEVICES_PER_REPORT: usize = 500;
/// Observations that wait in memory while the disk takes none: some 20 MB.
const DEVICES_IN_MEMORY: usize = 20_000;
/// How often a disk that took nothing is tried.
const TRY_DISK_EVERY: Duration = Duration::from_secs(5);

/// A report to be sent, and where it came from.
#[derive(Debug)]
pub(super) struct Turn {
    /// The report.
    pub(super) pending: Pending,
    /// Its name for the backend; none where the system has no chance.
    pub(super) id: Option<ReportId>,
    is_on_disk: bool,
}

/// Reports in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Queue {
    dir: PathBuf,
    limits: Limits,
    spool: Option<Spool>,
    /// Of memory, and the backend may have it.
    tried: Option<Turn>,
    /// What the disk did not take, oldest first; newer than all that it has.
    memory: VecDeque<(Stamp, Vec<ReportedDevice>)>,
    /// The stream of what is sent from memory, and its newest number.
    stream: Option<String>,
    seq: u64,
    /// Dropped from memory, and not yet in the spool's count.
    memory_dropped: u64,
    /// Dropped in all, while the spool cannot say.
    dropped: u64,
    /// Why the disk takes nothing.
    disk_error: Option<String>,
    tried_disk: Option<Instant>,
}

impl Queue {
    /// An empty one; [`Queue::tend`] opens the spool.
    pub(super) fn new(dir: PathBuf, limits: Limits) -> Self {
        Self {
            dir,
            limits,
            spool: None,
            tried: None,
            memory: VecDeque::new(),
            stream: None,
            seq: 0,
            memory_dropped: 0,
            dropped: 0,
            disk_error: None,
            tried_disk: None,
        }
    }

    /// When the disk is to be tried again; `None` while it has all.
    pub(super) fn tend_at(&self) -> Option<Instant> {
        let has_all = self.spool.is_some() && self.memory.is_empty();
        let tried = self.tried_disk.map(|at| at + TRY_DISK_EVERY);
        (!has_all).then(|| tried.unwrap_or_else(Instant::now))
    }

    /// Tries the disk, where that is due.
    pub(super) fn tend(&mut self, now: &Now) {
        if self.tend_at().is_some_and(|at| at <= Instant::now()) {
            self.write_down(now);
        }
    }

    /// Takes a batch: to disk, or to memory while the disk takes nothing.
    pub(super) fn keep(&mut self, stamp: &Stamp, mut devices: Vec<ReportedDevice>, now: &Now) {
        while devices.len() > DEVICES_PER_REPORT {
            let rest = devices.split_off(DEVICES_PER_REPORT);
            let report = std::mem::replace(&mut devices, rest);
            self.memory.push_back((stamp.clone(), report));
        }
        self.memory.push_back((stamp.clone(), devices));
        self.write_down(now);
        let mut dropped = 0;
        let mut kept: usize = self.memory.iter().map(|(_, devices)| devices.len()).sum();
        while kept > DEVICES_IN_MEMORY && self.memory.len() > 1 {
            let oldest = self.memory.pop_front();
            kept -= oldest.map_or(0, |(_, devices)| devices.len());
            dropped += 1;
        }
        if dropped > 0 {
            self.memory_dropped += dropped;
            log::warn!("⚠️ The disk takes nothing: the {dropped} oldest reports were dropped");
        }
    }

    /// What waits in memory, to disk, in order and as far as it goes.
    fn write_down(&mut self, now: &Now) {
        self.tried_disk = Some(Instant::now());
        if let Err(error) = self.open().and_then(|()| self.append(now)) {
            self.disk_failed(&error);
        }
    }

    fn open(&mut self) -> Result<(), SpoolError> {
        if self.spool.is_none() {
            let spool = Spool::open(&self.dir, self.limits)?;
            if spool.pending() > 0 {
                log::info!("📦 {} reports wait in the spool", spool.pending());
            }
            self.spool = Some(spool);
        }
        Ok(())
    }

    fn append(&mut self, now: &Now) -> Result<(), SpoolError> {
        let Some(spool) = &mut self.spool else {
            return Err(SpoolError::Closed);
        };
        while let Some((stamp, _)) = self.memory.front() {
            // Those of one sweep share a write.
            let same = self.memory.iter().take_while(|(other, _)| other == stamp);
            let reports: Vec<&[ReportedDevice]> =
                same.map(|(_, devices)| devices.as_slice()).collect();
            spool.count_dropped(std::mem::take(&mut self.memory_dropped));
            let dropped = spool.append(&reports, stamp, now)?;
            let written = reports.len();
            self.memory.drain(..written);
            if dropped > 0 {
                log::warn!("⚠️ The spool is full: the {dropped} oldest reports were dropped");
            }
            if self.disk_error.take().is_some() {
                log::info!("💾 The disk takes reports again");
            }
        }
        Ok(())
    }

    fn disk_failed(&mut self, error: &SpoolError) {
        let text = excerpt(&error.to_string(), 300);
        // Once, and not at each try.
        if self.disk_error.as_ref() != Some(&text) {
            log::error!(
                "❌ The disk takes no reports: {text}; they wait in memory, and go on to be sent"
            );
        }
        self.disk_error = Some(text);
        let is_gone = matches!(error, SpoolError::Io { source, .. }
            if source.kind() == ErrorKind::NotFound);
        if is_gone {
            self.spool = None;
        }
    }

    /// Reports that the backend has not taken.
    pub(super) fn waiting(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::pending) + self.in_memory()
    }

    fn in_memory(&self) -> u64 {
        self.memory.len() as u64 + u64::from(self.tried.is_some())
    }

    /// Reports dropped since the spool was made.
    pub(super) fn dropped(&self) -> u64 {
        self.spool.as_ref().map_or(self.dropped, Spool::dropped) + self.memory_dropped
    }

    /// The oldest report. Whoever takes it gives it back, or says that it is
    /// [`Queue::done`].
    pub(super) fn take(&mut self) -> Option<Turn> {
        if let Some(turn) = self.tried.take() {
            return Some(turn);
        }
        if let Some(spool) = &mut self.spool {
            match spool.take() {
                Ok(Some(pending)) => {
                    let id = ReportId {
                        stream: spool.stream().to_owned(),
                        seq: pending.seq,
                    };
                    return Some(Turn {
                        pending,
                        id: Some(id),
                        is_on_disk: true,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    self.disk_failed(&error);
                    self.dropped = self.spool.take().map_or(0, |spool| spool.dropped());
                }
            }
        }
        let (stamp, devices) = self.memory.pop_front()?;
        if self.stream.is_none() {
            self.stream = spool::random_stream().ok();
        }
        self.seq += 1;
        let seq = self.seq;
        Some(Turn {
            pending: Pending {
                seq,
                devices,
                stamp: Some(stamp),
                withheld: Vec::new(),
            },
            id: self.stream.clone().map(|stream| ReportId { stream, seq }),
            is_on_disk: false,
        })
    }

    /// A report that was not taken comes first again.
    pub(super) fn give_back(&mut self, mut turn: Turn, may_have_arrived: bool) {
        match &mut self.spool {
            Some(spool) if turn.is_on_disk => return spool.give_back(turn.pending),
            // What is on disk is read again when the disk can be read.
            None if turn.is_on_disk => return,
            _ => {}
        }
        turn.pending.restore_times();
        match turn.pending.stamp {
            Some(stamp) if !may_have_arrived => {
                self.memory.push_front((stamp, turn.pending.devices));
            }
            _ => self.tried = Some(turn),
        }
    }

    /// The backend has it, or will never take it.
    pub(super) fn done(&mut self, turn: &Turn) {
        if let (true, Some(spool)) = (turn.is_on_disk, &mut self.spool) {
            spool.ack(turn.pending.seq);
        }
    }

    /// Keeps a report that the backend refuses for a person to look at.
    pub(super) fn set_refused_aside(&self, turn: &Turn) {
        let kept = match &self.spool {
            Some(spool) => spool.set_refused_aside(&turn.pending),
            None => return,
        };
        match kept {
            Ok(path) => log::error!("   It is kept as {}", path.display()),
            Err(error) => log::error!("   It could not be kept: {error}"),
        }
    }

    /// Writes down what can be, before the end.
    pub(super) fn close(&mut self, now: &Now) {
        if self.tend_at().is_some() {
            self.write_down(now);
        }
        match self.in_memory() {
            0 => {}
            lost => log::error!("❌ {lost} reports are lost: the disk took none of them"),
        }
        if let Some(spool) = &mut self.spool {
            if let Err(error) = spool.close() {
                log::error!("❌ Spool not closed cleanly: {error}");
            }
        }
    }

    /// What the pages show.
    pub(super) fn show(&mut self, state: &mut ReportState) {
        if let Some(spool) = &self.spool {
            state.pending = spool.pending();
            state.spool_bytes = spool.bytes();
            state.damaged = spool.lost();
            self.dropped = spool.dropped();
        }
        state.dropped = self.dropped();
        state.in_memory = self.in_memory();
        state.disk_error.clone_from(&self.disk_error);
    }
}

#[cfg(test)]
mod tests;
