//! When which device is probed. Nothing here waits, probes or looks at a
//! clock: what is due follows from the time that is given, the devices and
//! what was found.
//!
//! A device is probed for one of four reasons: a sweep takes its turn, its own
//! interval is over, it has just failed and is looked at again, or something
//! said that it changed. Whatever the reason, it is never probed twice at the
//! same time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::sort::sort_by;

use crate::driver::engine::Deadlines;

/// A sweep begins its probes over this part of its budget: a switch in a rack
/// sees a stream and no burst, and the deadline has room for it.
const PACE_PART: u32 = 10;
/// Probes of one sweep begin in steps of this: a thread that wakes for every
/// single one would do little else.
const PACE_STEP: Duration = Duration::from_millis(10);
/// What a sweep may take beyond its budget, pace included: a fifth.
const DEADLINE_PART: u32 = 5;
/// A sweep that missed its deadline waits for the slow until the longest limit
/// of its devices, a fifth and so much time have passed, and then ends without
/// them: by then every driver has ended what it began.
const CLOSE_SLACK: Duration = Duration::from_secs(5);
/// The first look again at a device that failed; each next one waits twice as
/// long.
const RECHECK_FIRST: Duration = Duration::from_secs(5);
/// Notices are not served faster than this, whoever sends them.
const NOTICE_GAP: Duration = Duration::from_secs(2);
/// So long after its limit a probe that has not returned is stuck. It may have
/// waited for a socket.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// Why a device is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its turn in a sweep.
    Sweep,
    /// Its own interval is over.
    Own,
    /// Something said that it changed.
    Notice,
    /// It failed a moment ago.
    Recheck,
}

/// A probe to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// Names the probe; given out once.
    pub(super) ticket: usize,
    /// The device's place in the configuration.
    pub(super) index: usize,
}

/// What became of a probe that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is the newest of this device.
    Counts {
        /// The device's place in the configuration.
        index: usize,
        /// Why it was probed.
        reason: Reason,
    },
    /// The device left the configuration, was changed in it, or its probe was
    /// given up.
    Nobodys,
}

/// A sweep that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    /// How long it took.
    pub(super) took: Duration,
    /// How long it may take.
    pub(super) deadline: Duration,
    /// The places of the devices that answered after the deadline, and how
    /// long after the sweep's begin.
    pub(super) late: Vec<(usize, Duration)>,
    /// The places of the devices that have not answered yet.
    pub(super) missing: Vec<usize>,
}

#[derive(Debug)]
struct Flight {
    ticket: usize,
    reason: Reason,
    since: Instant,
    /// The device was changed meanwhile: what comes back is of no use.
    outdated: bool,
}

#[derive(Debug)]
struct Slot {
    device: Arc<Device>,
    flight: Option<Flight>,
    begun: Option<Instant>,
    /// Its turn in the running sweep.
    turn: Option<Instant>,
    /// The running sweep waits for it.
    awaited: bool,
    /// When its own interval is over.
    own: Option<Instant>,
    /// When it is looked at again, and how often it was.
    recheck: Option<Instant>,
    rechecks: u32,
    /// When a notice of it is served.
    notice: Option<Instant>,
}

impl Slot {
    fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            flight: None,
            begun: None,
            turn: None,
            awaited: false,
            own: None,
            recheck: None,
            rechecks: 0,
            notice: None,
        }
    }

    /// The reasons and their times, in the order in which they count.
    fn reasons(&self) -> [(Reason, Option<Instant>); 4] {
        [
            (Reason::Sweep, self.turn),
            (Reason::Own, self.own),
            (Reason::Notice, self.notice),
            (Reason::Recheck, self.recheck),
        ]
    }

    /// When it is to be probed next; `None` while it is being probed.
    fn due(&self) -> Option<Instant> {
        if self.flight.is_some() {
            return None;
        }
        self.reasons().into_iter().filter_map(|(_, at)| at).min()
    }
}

#[derive(Debug)]
enum Sweep {
    /// The next begins then.
    Waits { begins: Instant },
    Runs {
        began: Instant,
        deadline: Duration,
        close: Duration,
        open: usize,
        late: Vec<(usize, Duration)>,
    },
}

/// The plan of one site.
#[derive(Debug)]
pub(super) struct Plan {
    slots: Vec<Slot>,
    by_ip: HashMap<IpAddr, usize>,
    /// Probes on their way, by ticket. One whose device is gone stays here
    /// until it answers.
    tickets: HashMap<usize, IpAddr>,
    next_ticket: usize,
    heap: Deadlines<usize>,
    sweep: Sweep,
    /// When the newest sweep began.
    swept: Option<Instant>,
    rechecks: u64,
}

impl Plan {
    /// A plan whose first sweep begins at once, as soon as it is configured.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: Vec::new(),
            by_ip: HashMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            heap: Deadlines::default(),
            sweep: Sweep::Waits { begins: now },
            swept: None,
            rechecks: 0,
        }
    }

    /// Takes the devices of a configuration and sweeps at once. What is
    /// known of a device that stays as it was is kept.
    pub(super) fn configure(&mut self, devices: &[Arc<Device>], now: Instant) {
        let mut old: HashMap<IpAddr, Slot> = self
            .slots
            .drain(..)
            .map(|slot| (slot.device.ip, slot))
            .collect();
        // Also of devices that had left the configuration and are back.
        let on_their_way: HashMap<IpAddr, usize> = self
            .tickets
            .iter()
            .map(|(&ticket, &ip)| (ip, ticket))
            .collect();
        self.slots = devices
            .iter()
            .map(|device| match old.remove(&device.ip) {
                Some(slot) if slot.device == *device => Slot {
                    device: Arc::clone(device),
                    turn: None,
                    awaited: false,
                    ..slot
                },
                _ => Slot {
                    flight: on_their_way.get(&device.ip).map(|&ticket| Flight {
                        ticket,
                        reason: Reason::Sweep,
                        since: now,
                        outdated: true,
                    }),
                    ..Slot::new(Arc::clone(device))
                },
            })
            .collect();
        self.by_ip = devices
            .iter()
            .enumerate()
            .map(|(index, device)| (device.ip, index))
            .collect();
        self.heap = Deadlines::default();
        for index in 0..self.slots.len() {
            self.plan(index);
        }
        self.sweep = Sweep::Waits { begins: now };
    }

    /// Whether a sweep is due.
    pub(super) fn sweep_is_due(&self, now: Instant) -> bool {
        matches!(self.sweep, Sweep::Waits { begins } if begins <= now)
    }

    /// Whether one runs.
    pub(super) fn is_sweeping(&self) -> bool {
        matches!(self.sweep, Sweep::Runs { .. })
    }

    /// Begins a sweep: of every device but those with an interval of their
    /// own, which come along the first time only. What was offline comes first:
    /// it costs its whole time-out, and the sooner that runs the more is left
    /// of the sweep's time for a machine that is busy. Else the order is one
    /// that keeps neighbours apart.
    pub(super) fn begin_sweep(&mut self, now: Instant, offline: impl Fn(usize) -> bool) {
        let mut keyed: Vec<((bool, u64), usize)> = (0..self.slots.len())
            .filter(|&index| {
                let slot = &self.slots[index];
                slot.device.interval.is_none() || slot.begun.is_none()
            })
            .map(|index| {
                let ip = self.slots[index].device.ip;
                ((!offline(index), scattered(ip)), index)
            })
            .collect();
        sort_by(&mut keyed, |(a, _), (b, _)| a.cmp(b));
        let order: Vec<usize> = keyed.into_iter().map(|(_, index)| index).collect();
        let settings = || {
            order
                .iter()
                .map(|&index| &self.slots[index].device.settings)
        };
        let budget = settings().map(DriverSettings::budget).max();
        let budget = budget.unwrap_or_default();
        let limit = settings().map(DriverSettings::limit).max();
        let limit = limit.unwrap_or_default();
        let pace = budget / PACE_PART;
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX).max(1);
        for (place, &index) in (0u32..).zip(&order) {
            let offset = pace.mul_f64(f64::from(place) / f64::from(count));
            let slot = &mut self.slots[index];
            slot.awaited = true;
            // One on its way since before counts as this sweep's, unless it
            // asks what is no longer wanted.
            if slot.flight.as_ref().is_none_or(|flight| flight.outdated) {
                slot.turn = Some(now + stepped(offset));
                self.plan(index);
            }
        }
        self.swept = Some(now);
        self.sweep = Sweep::Runs {
            began: now,
            deadline: budget + budget / DEADLINE_PART,
            close: limit + limit / DEADLINE_PART + CLOSE_SLACK,
            open: order.len(),
            late: Vec::new(),
        };
    }

    /// The probes to begin now.
    pub(super) fn starts(&mut self, now: Instant) -> Vec<Start> {
        let mut starts = Vec::new();
        while let Some(index) = self.heap.due(now) {
            let ticket = self.next_ticket;
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            // The heap may know of a time that is no longer wanted.
            if slot.due().is_none_or(|due| due > now) {
                continue;
            }
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let Some((reason, _)) = slot.reasons().into_iter().find(|(_, at)| due(*at)) else {
                continue;
            };
            // One probe serves every reason that is there.
            slot.turn = None;
            slot.recheck = None;
            if due(slot.notice) {
                slot.notice = None;
            }
            if let Some(interval) = slot.device.interval {
                let mut next = slot.own.unwrap_or(now);
                while next <= now {
                    next += interval;
                }
                slot.own = Some(next);
            }
            slot.begun = Some(now);
            slot.flight = Some(Flight {
                ticket,
                reason,
                since: now,
                outdated: false,
            });
            self.tickets.insert(ticket, slot.device.ip);
            self.next_ticket += 1;
            self.rechecks += u64::from(reason == Reason::Recheck);
            starts.push(Start { ticket, index });
        }
        starts
    }

    /// A probe answered, at `at`.
    pub(super) fn answered(&mut self, ticket: usize, at: Instant) -> Answer {
        let Some(ip) = self.tickets.remove(&ticket) else {
            return Answer::Nobodys;
        };
        let Some(&index) = self.by_ip.get(&ip) else {
            return Answer::Nobodys;
        };
        let slot = &mut self.slots[index];
        let flight = match slot.flight.take() {
            Some(flight) if flight.ticket == ticket => flight,
            other => {
                slot.flight = other;
                return Answer::Nobodys;
            }
        };
        if flight.outdated {
            // Its turn in the sweep, if there is one, is still to come.
            self.plan(index);
            return Answer::Nobodys;
        }
        if std::mem::take(&mut slot.awaited) {
            if let Sweep::Runs {
                began,
                deadline,
                open,
                late,
                ..
            } = &mut self.sweep
            {
                *open = open.saturating_sub(1);
                let after = at.saturating_duration_since(*began);
                if after > *deadline {
                    late.push((index, after));
                }
            }
        }
        self.plan(index);
        Answer::Counts {
            index,
            reason: flight.reason,
        }
    }

    /// What a probe that counted has shown: `decides_in` is the time until
    /// the device's `alert_after_s` decides, where it is offline and that is
    /// still to come.
    pub(super) fn judged(&mut self, index: usize, now: Instant, decides_in: Option<Duration>) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match decides_in {
            None => {
                slot.recheck = None;
                slot.rechecks = 0;
            }
            Some(left) => {
                let wait = RECHECK_FIRST.saturating_mul(1 << slot.rechecks.min(16));
                slot.rechecks += 1;
                slot.recheck = Some(now + wait.min(left));
                self.plan(index);
            }
        }
    }

    /// Something said that this device changed; whether it is configured.
    pub(super) fn notice(&mut self, ip: IpAddr, now: Instant) -> bool {
        let Some(&index) = self.by_ip.get(&ip) else {
            return false;
        };
        let slot = &mut self.slots[index];
        if slot.notice.is_none() {
            slot.notice = Some(slot.begun.map_or(now, |begun| now.max(begun + NOTICE_GAP)));
            self.plan(index);
        }
        true
    }

    /// Gives up the probes that are stuck: the devices that they were of.
    pub(super) fn stuck(&mut self, now: Instant) -> Vec<usize> {
        let mut stuck = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let patience = slot.device.settings.limit() + STUCK_AFTER;
            let gone = |flight: &Flight| now.duration_since(flight.since) >= patience;
            if let Some(flight) = slot.flight.take_if(|flight| gone(flight)) {
                self.tickets.remove(&flight.ticket);
                if std::mem::take(&mut slot.awaited) {
                    if let Sweep::Runs { open, .. } = &mut self.sweep {
                        *open = open.saturating_sub(1);
                    }
                }
                stuck.push(index);
            }
        }
        for &index in &stuck {
            self.plan(index);
        }
        stuck
    }

    /// Whether the running sweep is over now; it is then no longer running,
    /// and the next begins `interval` after it began.
    pub(super) fn end_sweep(&mut self, now: Instant, interval: Duration) -> Option<Over> {
        let Sweep::Runs {
            began,
            deadline,
            close,
            open,
            late,
        } = &mut self.sweep
        else {
            return None;
        };
        if *open > 0 && now < *began + *close {
            return None;
        }
        let (began, deadline, late) = (*began, *deadline, std::mem::take(late));
        let mut missing = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if std::mem::take(&mut slot.awaited) {
                missing.push(index);
            }
        }
        self.sweep = Sweep::Waits {
            begins: began + interval,
        };
        Some(Over {
            took: now.duration_since(began),
            deadline,
            late,
            missing,
        })
    }

    /// What was found between sweeps changed the time between them: the next
    /// comes `interval` from now, but not later than it would have come and
    /// not before it would with this interval.
    pub(super) fn hurry(&mut self, now: Instant, interval: Duration) {
        if let Sweep::Waits { begins } = &mut self.sweep {
            *begins = (*begins).min(now + interval);
        }
    }

    /// When there is something to do next; `None` for never.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let probes = self.heap.wait(now).map(|wait| now + wait);
        let sweep = match self.sweep {
            Sweep::Waits { begins } => begins,
            Sweep::Runs { began, close, .. } => began + close,
        };
        Some(probes.map_or(sweep, |probes| probes.min(sweep)))
    }

    /// Probes on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.tickets.len()
    }

    /// Looks again at devices that had failed, since the start.
    pub(super) fn rechecks(&self) -> u64 {
        self.rechecks
    }

    /// When the next sweep begins; `None` while one runs.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        match self.sweep {
            Sweep::Waits { begins } => Some(begins),
            Sweep::Runs { .. } => None,
        }
    }

    fn plan(&mut self, index: usize) {
        if let Some(due) = self.slots[index].due() {
            self.heap.add(due, index);
        }
    }
}

/// A place in the order of a sweep that has nothing to do with neighbouring
/// addresses, and is the same each time: Fibonacci hashing.
fn scattered(ip: IpAddr) -> u64 {
    let number = match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let folded = (number ^ (number >> 64)) as u64;
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// `offset`, rounded down to a step of the pace.
fn stepped(offset: Duration) -> Duration {
    let steps = offset.as_millis() / PACE_STEP.as_millis();
    PACE_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
