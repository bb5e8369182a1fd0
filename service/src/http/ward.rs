//! When a connection is closed: pure decisions over what is seen of it.

use std::collections::LinkedList;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::respond::has;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many may be open. With more, those that have been idle for the
    /// longest are closed.
    pub connections: usize,
    /// So long the head of a request may take from its first byte.
    pub head: Duration,
    /// So long a connection may be without a request.
    pub idle: Duration,
    /// So many bytes may have come that belong to no request being answered.
    pub unread: u64,
    /// So many more may have come while one is whose body has no length.
    pub chunked: u64,
    /// So many requests that claim more than memory holds are answered, and so
    /// many connections may stay though they were closed, before the program
    /// must start anew.
    pub stuck: usize,
    /// So long after it was closed a connection stays for good: some requests
    /// (`HTTP/2.0`) make a thread of tiny_http wait for itself.
    pub let_go: Duration,
    /// So long the peer may take nothing of what is sent to it.
    pub send: Duration,
}

impl Default for Limits {
    /// Some more than what proxies keep a connection for (nginx: 60 s).
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(20),
            idle: Duration::from_secs(75),
            unread: 256 << 10,
            chunked: 64 << 20,
            stuck: 256,
            let_go: Duration::from_secs(60),
            send: Duration::from_secs(10),
        }
    }
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The head of a request did not end in time, or nobody had the time for
    /// the request.
    SlowHead,
    /// Its body did not.
    SlowBody,
    /// Nothing came for long.
    Idle,
    /// More came than is answered.
    Flood,
    /// There were too many.
    TooMany,
    /// The head of a request does not say where it ends.
    Refused,
    /// It was accepted by a thread that has ended.
    Moved,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::SlowHead,
        Self::SlowBody,
        Self::Idle,
        Self::Flood,
        Self::TooMany,
        Self::Refused,
        Self::Moved,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::Idle => "idle",
            Self::Flood => "flood",
            Self::TooMany => "too_many",
            Self::Refused => "refused",
            Self::Moved => "moved",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The body that a request announces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// So many bytes, or none.
    Length(u64),
    /// As many as come.
    Chunked,
}

impl Body {
    pub(super) fn of(request: &Request) -> Self {
        match request.body_length() {
            Some(length) => Self::Length(length as u64),
            None if has(request, "Transfer-Encoding") => Self::Chunked,
            None => Self::Length(0),
        }
    }
}

/// What the requests of a connection say of it.
#[derive(Debug, Default)]
pub(super) struct Talk {
    in_flight: u32,
    /// How many have been answered.
    answered: u64,
    /// The bytes of those that have been begun, as far as is known.
    accounted: u64,
    /// The bytes of the bodies of those in flight.
    bodies: u64,
    /// How many of those in flight have a body without a length.
    chunked: u32,
    /// Such a one has been answered.
    unknown: bool,
    /// When the body that is being read must have arrived.
    pub(super) reads_until: Option<Instant>,
    /// Nothing of it is to be answered any more.
    pub(super) refused: bool,
    /// Requests that came before the one that is in flight is answered. No
    /// deque: its code is larger.
    pub(super) parked: LinkedList<Request>,
    /// Its connection was seen at this look.
    pub(super) present: bool,
}

impl Talk {
    pub(super) fn begins(&mut self, head: u64, body: Body) {
        self.in_flight += 1;
        self.accounted = self.accounted.saturating_add(head);
        match body {
            Body::Length(length) => self.bodies = self.bodies.saturating_add(length),
            Body::Chunked => self.chunked += 1,
        }
    }

    pub(super) fn ends(&mut self, body: Body) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.answered += 1;
        self.reads_until = None;
        match body {
            Body::Length(length) => {
                self.bodies = self.bodies.saturating_sub(length);
                self.accounted = self.accounted.saturating_add(length);
            }
            Body::Chunked => {
                self.chunked = self.chunked.saturating_sub(1);
                self.unknown = true;
            }
        }
    }

    /// The next of those put aside, where none is being answered.
    pub(super) fn next(&mut self) -> Option<Request> {
        match self.in_flight {
            0 => self.parked.pop_front(),
            _ => None,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0 || !self.parked.is_empty()
    }
}

/// What is seen of an open connection.
#[derive(Debug)]
pub(super) struct Connection {
    peer: SocketAddr,
    accepted: Instant,
    /// The bytes that have come.
    bytes: u64,
    /// How many of them belong to requests.
    settled: u64,
    /// How many of its requests had been answered at the last look.
    answered: u64,
    /// Since when it got on with nothing; `None` while a request is answered.
    idle_since: Option<Instant>,
    /// Since when a head has begun.
    head_since: Option<Instant>,
    /// When it was closed first.
    closed: Option<Instant>,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Instant) -> Self {
        Self {
            peer,
            accepted: now,
            bytes: 0,
            settled: 0,
            answered: 0,
            idle_since: Some(now),
            head_since: None,
            closed: None,
        }
    }

    pub(super) fn closes(&mut self, now: Instant) {
        self.closed.get_or_insert(now);
    }

    /// Whether it was closed and stays.
    pub(super) fn is_stuck(&self, now: Instant, limits: &Limits) -> bool {
        self.closed
            .is_some_and(|at| now.saturating_duration_since(at) > limits.let_go)
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    pub(super) fn received(&mut self, bytes: u64) {
        self.bytes = self.bytes.max(bytes);
    }

    /// Whether it is to be closed. `retired` is when the last accepting thread
    /// was given up.
    pub(super) fn judge(
        &mut self,
        talk: Option<&mut Talk>,
        now: Instant,
        limits: &Limits,
        retired: Option<Instant>,
    ) -> Option<Reason> {
        let mut busy = false;
        let mut allowed = limits.unread;
        if let Some(talk) = talk {
            if talk.refused && !talk.is_busy() {
                return Some(Reason::Refused);
            }
            if talk.reads_until.is_some_and(|deadline| now > deadline) {
                talk.reads_until = None;
                return Some(Reason::SlowBody);
            }
            if talk.answered != self.answered {
                self.answered = talk.answered;
                self.idle_since = Some(now);
                self.head_since = None;
            }
            busy = talk.is_busy();
            if std::mem::take(&mut talk.unknown) {
                talk.accounted = talk.accounted.max(self.bytes);
            }
            // Heads are not always written as they are counted: between two
            // requests a small difference is forgotten. A slow head that is
            // not the first of its connection is so found by its idleness.
            if !busy && self.bytes.abs_diff(talk.accounted) < limits.unread / 16 {
                talk.accounted = self.bytes;
            }
            self.settled = talk.accounted;
            allowed = allowed.saturating_add(talk.bodies);
            if talk.chunked > 0 {
                allowed = allowed.saturating_add(limits.chunked);
            }
            // Its body keeps tiny_http from reading on.
            allowed = allowed.saturating_add(match talk.parked.back().map(Body::of) {
                Some(Body::Length(length)) => length,
                Some(Body::Chunked) => limits.chunked,
                None => 0,
            });
        }
        let unread = self.bytes.saturating_sub(self.settled);
        if unread > allowed {
            return Some(Reason::Flood);
        }
        if busy {
            self.idle_since = None;
            self.head_since = None;
            return None;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        if retired.is_some_and(|retired| self.accepted < retired) {
            return Some(Reason::Moved);
        }
        if unread > 0 {
            let since = *self.head_since.get_or_insert(now);
            if now.saturating_duration_since(since) > limits.head {
                return Some(Reason::SlowHead);
            }
        }
        (now.saturating_duration_since(idle_since) > limits.idle).then_some(Reason::Idle)
    }
}

#[cfg(test)]
mod tests {
    use tiny_http::TestRequest;

    use super::*;

    const PEER: &str = "192.0.2.7:4711";

    struct Bench {
        start: Instant,
        connection: Connection,
        talk: Option<Talk>,
        limits: Limits,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                start,
                connection: Connection::new(PEER.parse().unwrap(), start),
                talk: None,
                limits: Limits::default(),
            }
        }

        fn at(&mut self, second: u64, bytes: u64) -> Option<Reason> {
            self.connection.received(bytes);
            self.connection.judge(
                self.talk.as_mut(),
                self.start + Duration::from_secs(second),
                &self.limits,
                None,
            )
        }
    }

    #[test]
    fn who_says_nothing_goes_after_a_while() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(75, 0), None);
        assert_eq!(bench.at(76, 0), Some(Reason::Idle));
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(30, 0), None);
        assert_eq!(bench.at(31, 1), None);
        for second in 32..=51 {
            assert_eq!(bench.at(second, u64::from(second > 40) + 1), None);
        }
        assert_eq!(bench.at(52, 9), Some(Reason::SlowHead));
    }

    #[test]
    fn a_head_without_an_end_is_a_flood() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(1, 256 << 10), None);
        assert_eq!(bench.at(2, (256 << 10) + 1), Some(Reason::Flood));
    }

    #[test]
    fn requests_that_are_answered_keep_a_connection() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        for second in 0..3600 {
            talk.begins(200, Body::Length(100_000));
            talk.ends(Body::Length(100_000));
            bench.talk = Some(talk);
            // A little more than was counted.
            assert_eq!(bench.at(second, (second + 1) * 100_205), None, "{second}");
            talk = bench.talk.take().unwrap();
        }
        bench.talk = Some(talk);
        let bytes = 3600 * 100_205;
        assert_eq!(bench.at(3599 + 75, bytes), None);
        assert_eq!(bench.at(3599 + 76, bytes), Some(Reason::Idle));
    }

    #[test]
    fn a_body_may_be_long_and_must_come_in_time() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        talk.begins(200, Body::Chunked);
        talk.reads_until = Some(bench.start + Duration::from_secs(30));
        bench.talk = Some(talk);
        assert_eq!(bench.at(30, 60 << 20), None);
        assert_eq!(bench.at(31, 60 << 20), Some(Reason::SlowBody));
        assert_eq!(bench.at(600, 60 << 20), None, "it is being answered");
        assert_eq!(bench.at(601, 65 << 20), Some(Reason::Flood));
    }

    #[test]
    fn requests_sent_ahead_of_their_answers_are_a_flood_when_they_are_many() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        talk.begins(100, Body::Length(0));
        talk.ends(Body::Length(0));
        bench.talk = Some(talk);
        assert_eq!(bench.at(1, 100_000), None);
        assert_eq!(bench.at(2, 400_000), Some(Reason::Flood));
        // One of them being answered changes nothing.
        bench.talk.as_mut().unwrap().begins(100, Body::Length(5));
        assert_eq!(bench.at(3, 400_000), Some(Reason::Flood));
    }

    #[test]
    fn those_put_aside_count_as_little_as_those_that_wait() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        talk.begins(100, Body::Length(0));
        for _ in 0..10 {
            talk.parked.push_back(TestRequest::new().into());
        }
        bench.talk = Some(talk);
        assert_eq!(bench.at(1, 200_000), None);
        assert_eq!(bench.at(2, 400_000), Some(Reason::Flood));
        // But for the body of the last.
        let length = "Content-Length: 500000".parse().unwrap();
        let last = TestRequest::new().with_header(length);
        let talk = bench.talk.as_mut().unwrap();
        talk.parked.push_back(last.into());
        assert_eq!(bench.at(3, 400_000), None);
        assert_eq!(bench.at(4, 800_000), Some(Reason::Flood));
    }

    #[test]
    fn the_length_of_chunks_is_taken_as_it_comes() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        talk.begins(100, Body::Chunked);
        talk.ends(Body::Chunked);
        bench.talk = Some(talk);
        assert_eq!(bench.at(1, 5_000_000), None);
        assert_eq!(bench.at(2, 5_000_000), None);
    }

    #[test]
    fn a_refused_connection_goes_once_it_has_its_answer() {
        let mut bench = Bench::new();
        let mut talk = Talk::default();
        talk.begins(100, Body::Length(0));
        talk.refused = true;
        bench.talk = Some(talk);
        assert_eq!(bench.at(1, 100), None);
        bench.talk.as_mut().unwrap().ends(Body::Length(0));
        assert_eq!(bench.at(2, 100), Some(Reason::Refused));
    }

    #[test]
    fn between_two_requests_a_connection_moves_to_the_new_server() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let limits = Limits::default();
        let mut old = Connection::new(PEER.parse().unwrap(), start);
        let mut talk = Talk::default();
        talk.begins(0, Body::Length(0));
        assert_eq!(
            old.judge(Some(&mut talk), later(2), &limits, Some(later(1))),
            None
        );
        talk.ends(Body::Length(0));
        assert_eq!(
            old.judge(Some(&mut talk), later(3), &limits, Some(later(1))),
            Some(Reason::Moved)
        );
        let mut new = Connection::new(PEER.parse().unwrap(), later(2));
        assert_eq!(new.judge(None, later(3), &limits, Some(later(1))), None);
    }
}
