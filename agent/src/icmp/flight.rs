//! The probes of one socket and their echoes in flight: what leaves next,
//! whose an answer is, what a probe found. No I/O, and time comes in as an
//! [`Instant`].

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use av_proto::driver::PingSettings;

use super::outcome::finding;
use super::pace::Pace;
use super::packet::{Echo, Heard, Mark};
use super::round::{Event, News, Round, Step};
use super::socket::SendFault;
use crate::driver::Reply;
use crate::driver::engine::Deadlines;

/// How long this machine may have no room to send before those that wait for
/// it are told.
const NO_ROOM_MAX: Duration = Duration::from_secs(1);

/// What was counted since the start, over all probes.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    pub unrelated: AtomicU64,
    pub no_room: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One probe that is asked for.
#[derive(Debug)]
pub(super) struct Job {
    pub target: IpAddr,
    pub settings: PingSettings,
    pub reply: Reply,
}

/// An echo that may leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    probe: u64,
    pub target: IpAddr,
    pub echo: Echo,
}

/// Everything in flight on one socket.
#[derive(Debug)]
pub(super) struct Flight {
    identifier: u16,
    /// The socket's own random word.
    socket: u64,
    pace: Pace,
    probes: HashMap<u64, Probe>,
    next_probe: u64,
    /// Whose each sequence number is.
    echoes: HashMap<u16, u64>,
    next_sequence: u16,
    /// Probes with an echo to send.
    ready: VecDeque<u64>,
    deadlines: Deadlines<u64>,
    /// Since when there has been no room to send.
    no_room_since: Option<Instant>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Probe {
    job: Job,
    /// The probe's random word.
    cookie: u64,
    round: Round,
    /// Whether it stands in `ready`.
    queued: bool,
    /// The earliest deadline of it that stands in `deadlines`.
    due: Option<Instant>,
}

impl Flight {
    /// `identifier` and `socket` stand in every echo.
    pub(super) fn new(identifier: u16, socket: u64, counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            identifier,
            socket,
            pace: Pace::new(now),
            probes: HashMap::new(),
            next_probe: 0,
            echoes: HashMap::new(),
            next_sequence: 0,
            ready: VecDeque::new(),
            deadlines: Deadlines::default(),
            no_room_since: None,
            counters,
        }
    }

    /// Begins a probe; `cookie` is its random word.
    pub(super) fn submit(&mut self, job: Job, cookie: u64, now: Instant) {
        let key = self.next_probe;
        self.next_probe += 1;
        let round = Round::new(job.settings.count, job.settings.timeout);
        self.probes.insert(
            key,
            Probe {
                job,
                cookie,
                round,
                queued: false,
                due: None,
            },
        );
        self.advance(key, now);
    }

    /// The next echo that may leave at `now`. Whoever takes it says what
    /// became of it: [`Flight::left`] or [`Flight::stayed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Departure> {
        if self.is_full() {
            return None;
        }
        loop {
            let key = *self.ready.front()?;
            let Some(probe) = self.probes.get(&key) else {
                self.ready.pop_front();
                continue;
            };
            let mark = Mark {
                socket: self.socket,
                cookie: probe.cookie,
            };
            let target = probe.job.target;
            if !self.pace.take(now) {
                return None;
            }
            self.ready.pop_front();
            if let Some(probe) = self.probes.get_mut(&key) {
                probe.queued = false;
            }
            let sequence = self.sequence(key)?;
            return Some(Departure {
                probe: key,
                target,
                echo: Echo {
                    identifier: self.identifier,
                    sequence,
                    mark,
                },
            });
        }
    }

    /// The echo left at `at`.
    pub(super) fn left(&mut self, departure: Departure, at: Instant) {
        count(&self.counters.sent);
        self.no_room_since = None;
        if let Some(probe) = self.probes.get_mut(&departure.probe) {
            probe.round.sent(departure.echo.sequence, at);
        }
        self.advance(departure.probe, at);
    }

    /// The echo did not leave.
    pub(super) fn stayed(&mut self, departure: Departure, fault: SendFault, now: Instant) {
        self.echoes.remove(&departure.echo.sequence);
        if fault != SendFault::Busy {
            self.no_room_since = None;
            self.finish(departure.probe, Some(fault));
            return;
        }
        count(&self.counters.no_room);
        self.pace.no_room(now);
        self.ready.push_front(departure.probe);
        if let Some(probe) = self.probes.get_mut(&departure.probe) {
            probe.queued = true;
        }
        let since = *self.no_room_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= NO_ROOM_MAX {
            // The next to ask has a second again.
            self.no_room_since = None;
            for key in std::mem::take(&mut self.ready) {
                self.finish(key, Some(SendFault::Busy));
            }
        }
    }

    /// A packet came in at `at`. Only an answer from where its echo went,
    /// with the words that its echo carried, is one.
    pub(super) fn heard(&mut self, heard: Heard, from: IpAddr, at: Instant) {
        match heard {
            Heard::Reply(echo) => {
                if echo.identifier != self.identifier || echo.mark.socket != self.socket {
                    count(&self.counters.unrelated);
                    return;
                }
                let sequence = echo.sequence;
                let Some((key, probe)) = self.probe_of(sequence) else {
                    count(&self.counters.late);
                    return;
                };
                if probe.cookie != echo.mark.cookie {
                    count(&self.counters.late);
                } else if probe.job.target != from {
                    count(&self.counters.unrelated);
                } else {
                    match probe.round.heard(Event::Answered { sequence, at }) {
                        News::First => {
                            count(&self.counters.answered);
                            self.pace.answered();
                            self.advance(key, at);
                        }
                        News::Duplicate => count(&self.counters.duplicates),
                        News::None => {}
                    }
                }
            }
            Heard::Failed {
                destination,
                identifier,
                sequence,
                mark,
                error,
            } => {
                let (own, socket) = (self.identifier, self.socket);
                let Some((key, probe)) = self.probe_of(sequence) else {
                    return;
                };
                let ours = Mark {
                    socket,
                    cookie: probe.cookie,
                };
                if identifier == own
                    && destination == probe.job.target
                    && mark.is_none_or(|mark| mark == ours)
                {
                    probe.round.heard(Event::Failed {
                        sequence,
                        from,
                        error,
                    });
                    self.advance(key, at);
                }
            }
        }
    }

    /// Lets those go on whose time has come.
    pub(super) fn due(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.due(now) {
            let Some(probe) = self.probes.get_mut(&key) else {
                continue;
            };
            // Else an earlier one has been seen to, or a later one stands.
            if probe.due.is_some_and(|due| due <= now) {
                probe.due = None;
                self.advance(key, now);
            }
        }
    }

    /// How long until there is something to do; `None`: until something is
    /// heard or asked.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let send = (!self.ready.is_empty() && !self.is_full()).then(|| self.pace.wait(now));
        match (send, self.deadlines.wait(now)) {
            (Some(send), Some(due)) => Some(send.min(due)),
            (one, other) => one.or(other),
        }
    }

    /// Whether every sequence number is in flight: probes have to end first.
    fn is_full(&self) -> bool {
        self.echoes.len() > usize::from(u16::MAX)
    }

    fn probe_of(&mut self, sequence: u16) -> Option<(u64, &mut Probe)> {
        let key = *self.echoes.get(&sequence)?;
        self.probes.get_mut(&key).map(|probe| (key, probe))
    }

    /// Numbers start again after 65535; one that is still in flight is passed
    /// over. `None`: every one is in flight.
    fn sequence(&mut self, probe: u64) -> Option<u16> {
        let free = (0..=u16::MAX)
            .map(|step| self.next_sequence.wrapping_add(step))
            .find(|sequence| !self.echoes.contains_key(sequence))?;
        self.next_sequence = free.wrapping_add(1);
        self.echoes.insert(free, probe);
        Some(free)
    }

    fn advance(&mut self, key: u64, now: Instant) {
        let Some(probe) = self.probes.get_mut(&key) else {
            return;
        };
        match probe.round.step(now) {
            Step::Send if probe.queued => {}
            Step::Send => {
                probe.queued = true;
                self.ready.push_back(key);
            }
            Step::Wait(until) => {
                if probe.due.is_none_or(|due| until < due) {
                    probe.due = Some(until);
                    self.deadlines.add(until, key);
                }
            }
            Step::Done => self.finish(key, None),
        }
    }

    fn finish(&mut self, key: u64, fault: Option<SendFault>) {
        if let Some(probe) = self.probes.remove(&key) {
            for sequence in probe.round.sequences() {
                self.echoes.remove(&sequence);
            }
            let Job {
                settings, reply, ..
            } = probe.job;
            reply.send(finding(&probe.round, fault, &settings));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use av_proto::verdict::Status;
    use crossbeam_channel::{Receiver, Sender, unbounded};

    use super::super::packet::IcmpError;
    use super::super::socket::Family;
    use super::*;
    use crate::driver::Done;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const ERROR: IcmpError = IcmpError {
        family: Family::V4,
        kind: 3,
        code: 1,
    };

    struct Bench {
        flight: Flight,
        to: Sender<Done>,
        found: Receiver<Done>,
        start: Instant,
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn target(n: usize) -> IpAddr {
        let [.., high, low] = n.to_be_bytes();
        IpAddr::from([10, 1, high, low])
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            let (to, found) = unbounded();
            Self {
                flight: Flight::new(77, 1000, Arc::default(), start),
                to,
                found,
                start,
            }
        }

        fn submit(&mut self, n: usize, count: u8, timeout_ms: u64, now: Instant) {
            let job = Job {
                target: target(n),
                settings: PingSettings {
                    count,
                    timeout: ms(timeout_ms),
                },
                reply: Reply::new(n, self.to.clone()),
            };
            let cookie = 2000 + u64::try_from(n).unwrap();
            self.flight.submit(job, cookie, now);
        }

        /// All that may leave at `now` leaves.
        fn leave(&mut self, now: Instant) -> Vec<Departure> {
            let mut left = Vec::new();
            while let Some(departure) = self.flight.next(now) {
                self.flight.left(departure, now);
                left.push(departure);
            }
            left
        }

        fn found(&self) -> Vec<(usize, Status)> {
            self.found
                .try_iter()
                .map(|done| (done.ticket, done.finding.status))
                .collect()
        }

        fn counts(&self) -> [u64; 3] {
            let counters = &self.flight.counters;
            [&counters.duplicates, &counters.late, &counters.unrelated]
                .map(|counter| counter.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn only_the_awaited_answer_counts() {
        let mut bench = Bench::new();
        let t = bench.start;
        bench.submit(1, 2, 1000, t);
        let sent = bench.leave(t);
        assert_eq!(sent.len(), 1);
        let (echo, from) = (sent[0].echo, sent[0].target);
        let change = |change: fn(&mut Echo)| {
            let mut other = echo;
            change(&mut other);
            other
        };
        for (echo, from, counts) in [
            // Another process with the same identifier and sequence number.
            (change(|e| e.mark.socket = 1), from, [0, 0, 1]),
            (change(|e| e.identifier = 78), from, [0, 0, 2]),
            // An answer in another's name.
            (echo, ROUTER, [0, 0, 3]),
            // A finished probe's, whose sequence number was used again.
            (change(|e| e.mark.cookie = 1), from, [0, 1, 3]),
            (change(|e| e.sequence = 9), from, [0, 2, 3]),
        ] {
            bench.flight.heard(Heard::Reply(echo), from, t + ms(1));
            assert_eq!(bench.counts(), counts);
            // Nobody has answered yet: the next is not due.
            bench.flight.due(t + ms(20));
            assert!(bench.leave(t + ms(20)).is_empty());
        }
        bench.flight.heard(Heard::Reply(echo), from, t + ms(21));
        bench.flight.heard(Heard::Reply(echo), from, t + ms(22));
        assert_eq!(bench.counts(), [1, 2, 3]);
        bench.flight.due(t + ms(22));
        let second = bench.leave(t + ms(22));
        assert_eq!(second.len(), 1);
        let answer = Heard::Reply(second[0].echo);
        bench.flight.heard(answer, from, t + ms(23));
        assert_eq!(bench.found(), [(1, Status::Online)]);
        assert!(bench.flight.echoes.is_empty() && bench.flight.probes.is_empty());
        bench.flight.heard(answer, from, t + ms(24));
        assert_eq!(bench.counts(), [1, 3, 3]);
    }

    #[test]
    fn an_error_must_quote_the_echo() {
        let mut bench = Bench::new();
        let t = bench.start;
        bench.submit(1, 1, 1000, t);
        let sent = bench.leave(t)[0];
        let failed = |destination, identifier, sequence, mark| Heard::Failed {
            destination,
            identifier,
            sequence,
            mark,
            error: ERROR,
        };
        let (sequence, mark) = (sent.echo.sequence, sent.echo.mark);
        let others = Mark { cookie: 1, ..mark };
        for heard in [
            failed(ROUTER, 77, sequence, None),
            failed(target(1), 78, sequence, None),
            failed(target(1), 77, sequence.wrapping_add(1), None),
            failed(target(1), 77, sequence, Some(others)),
        ] {
            bench.flight.heard(heard, ROUTER, t + ms(1));
            assert!(bench.found().is_empty(), "{heard:?}");
        }
        let quoted = failed(target(1), 77, sequence, None);
        bench.flight.heard(quoted, ROUTER, t + ms(2));
        let done = bench.found.try_recv().unwrap();
        assert_eq!(
            done.finding.detail.as_deref(),
            Some("destination host unreachable (ICMP 3/1 from 10.0.0.1)")
        );
    }

    /// A site of 4,000, every fifth dead, on a network that takes 2 ms: the
    /// echoes keep the pace, every probe ends, and nothing is left behind.
    #[test]
    fn thousands_are_in_flight_at_once() {
        let mut bench = Bench::new();
        let t = bench.start;
        let dead: HashSet<IpAddr> = (0..4000).step_by(5).map(target).collect();
        for n in 0..4000 {
            bench.submit(n, 3, 1000, t);
        }
        let mut now = t;
        let mut on_the_way: VecDeque<(Instant, Departure)> = VecDeque::new();
        let (mut sent, mut answered) = (0_u32, 0_u32);
        loop {
            while on_the_way.front().is_some_and(|(at, _)| *at <= now) {
                let (at, departure) = on_the_way.pop_front().unwrap();
                if !dead.contains(&departure.target) {
                    answered += 1;
                    let answer = Heard::Reply(departure.echo);
                    bench.flight.heard(answer, departure.target, at);
                }
            }
            bench.flight.due(now);
            for departure in bench.leave(now) {
                sent += 1;
                on_the_way.push_back((now + ms(2), departure));
            }
            let trickle = u32::try_from((now - t).as_micros() / 50).unwrap();
            assert!(sent <= 64 + answered + trickle, "too fast at {:?}", now - t);
            if bench.flight.probes.is_empty() {
                break;
            }
            let wait = bench.flight.wait(now).unwrap().max(ms(1));
            let arrival = on_the_way.front().map(|(at, _)| *at - now);
            now += arrival.map_or(wait, |arrival| arrival.min(wait));
        }
        let found = bench.found();
        let online = found.iter().filter(|(_, status)| *status == Status::Online);
        assert_eq!((found.len(), online.count(), sent), (4000, 3200, 12_000));
        // The dead ones' spacings and time-out, and the time to send.
        assert!(now - t < ms(1500 + 500), "{:?}", now - t);
        assert!(bench.flight.echoes.is_empty());
        assert_eq!(bench.flight.wait(now), None);
    }

    #[test]
    fn sequence_numbers_wrap_around_those_in_flight() {
        let mut bench = Bench::new();
        let mut now = bench.start;
        bench.submit(0, 1, 3_600_000, now);
        let held = bench.leave(now)[0].echo.sequence;
        let mut seen = Vec::new();
        for n in 1..70_000 {
            now += ms(1);
            bench.submit(n, 1, 1000, now);
            let sent = bench.leave(now)[0];
            seen.push(sent.echo.sequence);
            bench
                .flight
                .heard(Heard::Reply(sent.echo), sent.target, now);
        }
        assert!(!seen.contains(&held));
        assert_eq!(seen[0], seen[65_535]);
        assert_eq!(
            (bench.flight.echoes.len(), bench.flight.probes.len()),
            (1, 1)
        );
    }

    #[test]
    fn when_every_sequence_number_is_in_flight_the_next_waits() {
        let mut bench = Bench::new();
        let mut now = bench.start;
        for n in 0..=65_536 {
            bench.submit(n, 1, 60_000 + u64::try_from(n).unwrap(), now);
        }
        let mut sent = 0;
        while let Some(wait) = bench.flight.wait(now).filter(|wait| *wait < ms(1000)) {
            now += wait.max(ms(1));
            sent += bench.leave(now).len();
        }
        assert_eq!((sent, bench.flight.ready.len()), (65_536, 1));
        // The first gives up, and the last takes its number.
        now = bench.start + ms(60_001);
        bench.flight.due(now);
        assert_eq!(bench.found(), [(0, Status::Offline)]);
        let last = bench.leave(now);
        assert_eq!((last.len(), last[0].echo.sequence), (1, 0));
    }

    #[test]
    fn no_room_is_waited_for_and_then_told() {
        let mut bench = Bench::new();
        let mut now = bench.start;
        for n in 0..3 {
            bench.submit(n, 1, 1000, now);
        }
        // Room for the first after one refusal, then never again.
        let refused = bench.flight.next(now).unwrap();
        bench.flight.stayed(refused, SendFault::Busy, now);
        assert_eq!(bench.flight.next(now), None);
        now += bench.flight.wait(now).unwrap();
        let again = bench.flight.next(now).unwrap();
        assert_eq!(again.target, refused.target);
        bench.flight.left(again, now);
        let stuck = now;
        let mut tries = 0;
        while !bench.flight.ready.is_empty() {
            if let Some(departure) = bench.flight.next(now) {
                bench.flight.stayed(departure, SendFault::Busy, now);
                tries += 1;
            }
            now += bench.flight.wait(now).unwrap().max(ms(1));
        }
        assert!((10..=60).contains(&tries), "{tries}");
        assert!(now - stuck >= NO_ROOM_MAX && now - stuck < NO_ROOM_MAX * 2);
        assert_eq!(bench.found(), [(1, Status::Unknown), (2, Status::Unknown)]);
        assert_eq!(bench.flight.echoes.len(), 1);
        // A fault of this machine ends its probe at once, and no other.
        bench.submit(3, 3, 1000, now);
        now += ms(100);
        let departure = bench.flight.next(now).unwrap();
        let fault = SendFault::Here("no".to_owned());
        bench.flight.stayed(departure, fault, now);
        assert_eq!(bench.found(), [(3, Status::Unknown)]);
        assert_eq!(bench.flight.probes.len(), 1);
    }
}
