//! The thread that sends and receives for all probes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_service::progress;
use crossbeam_channel::TryRecvError;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use av_proto::verdict::Status;

use super::flight::{Counters, Departure, Flight, Job};
use super::packet;
use super::socket::{Buffers, Family, IcmpSocket, Mode, Received, SendFault};
use crate::driver::engine::Work;
use crate::driver::wire;
use crate::finding::Finding;

/// So many echoes leave, and so many packets are taken in, before the other
/// gets its turn.
const TURN: usize = 64;
/// After an error of the receiving socket: no spinning on one that lasts.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

/// One open socket and what makes its echoes ours.
#[derive(Debug)]
pub(super) struct Link {
    pub family: Family,
    pub socket: IcmpSocket,
    pub identifier: u16,
    /// The socket's own random word.
    pub word: u64,
}

/// What the thread keeps when a run of it panics.
#[derive(Debug)]
pub(super) struct Engine {
    poll: Poll,
    links: Vec<Link>,
    work: Work<Job>,
    counters: Arc<Counters>,
}

/// One socket at work.
#[derive(Debug)]
struct Lane<'a> {
    link: &'a Link,
    flight: Flight,
    buffers: Buffers,
    /// Whether there may be something to receive.
    readable: bool,
    /// When a socket that failed is tried again.
    retry_at: Option<Instant>,
}

impl Engine {
    /// # Errors
    /// When the system refuses.
    pub(super) fn new(
        poll: Poll,
        links: Vec<Link>,
        work: Work<Job>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        for (n, link) in links.iter().enumerate() {
            poll.registry().register(
                &mut SourceFd(&link.socket.fd()),
                Token(n),
                Interest::READABLE,
            )?;
        }
        Ok(Self {
            poll,
            links,
            work,
            counters,
        })
    }

    /// Works until nobody can ask for a probe any more.
    pub(super) fn run(&mut self) {
        let now = Instant::now();
        let mut events = Events::with_capacity(8);
        let mut random = Random::default();
        let mut lanes: Vec<Lane> = self
            .links
            .iter()
            .map(|link| Lane {
                link,
                flight: Flight::new(link.identifier, link.word, Arc::clone(&self.counters), now),
                buffers: Buffers::new(),
                readable: true,
                retry_at: None,
            })
            .collect();
        loop {
            loop {
                match self.work.try_recv() {
                    Ok(job) => submit(&mut lanes, job, &mut random),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            for lane in &mut lanes {
                lane.turn();
            }
            let now = Instant::now();
            let wait = lanes.iter().filter_map(|lane| lane.wait(now)).min();
            progress::waits();
            let polled = self.poll.poll(&mut events, wait);
            progress::moves();
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::error!("❌ ping: {error}");
                    std::thread::sleep(ERROR_PAUSE);
                }
            }
            for event in &events {
                if let Some(lane) = lanes.get_mut(event.token().0) {
                    lane.readable = true;
                }
            }
        }
    }
}

fn submit(lanes: &mut [Lane], job: Job, random: &mut Random) {
    let family = Family::of(job.target);
    let lane = lanes.iter_mut().find(|lane| lane.link.family == family);
    match (lane, random.word()) {
        (Some(lane), Ok(cookie)) => lane.flight.submit(job, cookie, Instant::now()),
        // Whoever submits looks whether there is a socket first.
        (None, _) => drop(job),
        (_, Err(reason)) => job
            .reply
            .send(Finding::new(Status::Unknown).with_detail(reason)),
    }
}

impl Lane<'_> {
    fn turn(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.readable = true;
        }
        if self.readable {
            self.receive();
        }
        self.flight.due(Instant::now());
        for _ in 0..TURN {
            let at = Instant::now();
            let Some(departure) = self.flight.next(at) else {
                break;
            };
            match self.send(&departure) {
                Ok(()) => self.flight.left(departure, at),
                Err(fault) => self.flight.stayed(departure, fault, Instant::now()),
            }
        }
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        if self.readable {
            return Some(Duration::ZERO);
        }
        let retry = self.retry_at.map(|at| at.saturating_duration_since(now));
        match (self.flight.wait(now), retry) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn send(&mut self, departure: &Departure) -> Result<(), SendFault> {
        let Departure { target, echo, .. } = *departure;
        let bytes = match self.link.family {
            Family::V4 => packet::request_v4(echo),
            Family::V6 => packet::request_v6(echo),
        };
        let mut sent = self.link.socket.send(&bytes, target);
        if sent.is_err() && self.link.socket.mode == Mode::Datagram {
            // It may be what became of an earlier echo.
            self.receive_errors();
            self.link.socket.forget_error();
            sent = self.link.socket.send(&bytes, target);
        }
        match sent {
            Ok(()) => {
                wire::sent(target, format_args!("echo request {}", echo.sequence));
                Ok(())
            }
            Err(error) => {
                wire::event(target, format_args!("echo request not sent: {error}"));
                Err(SendFault::of(&error))
            }
        }
    }

    fn receive(&mut self) {
        self.buffers.set_clock();
        if self.link.socket.mode == Mode::Datagram {
            self.receive_errors();
        }
        for _ in 0..2 * TURN {
            match self.link.socket.receive(&mut self.buffers) {
                Ok(Some(received)) => self.take(received),
                Ok(None) => {
                    self.readable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The error of an echo, which its error queue tells better.
                Err(_) if self.link.socket.mode == Mode::Datagram => self.receive_errors(),
                Err(error) => {
                    let family = self.link.family.name();
                    log::warn!("the {family} ping socket does not receive: {error}");
                    self.readable = false;
                    self.retry_at = Some(Instant::now() + ERROR_PAUSE);
                    return;
                }
            }
        }
    }

    fn receive_errors(&mut self) {
        while let Ok(Some(received)) = self.link.socket.receive_error(&mut self.buffers) {
            self.take(received);
        }
    }

    fn take(&mut self, received: Received) {
        let Received { from, at, heard } = received;
        if let Some(heard) = heard {
            wire::received(from, heard);
            self.flight.heard(heard, from, at);
        }
    }
}

/// Random words, some at a time: each would else be a call of the system.
#[derive(Debug, Default)]
pub(super) struct Random {
    words: Vec<u64>,
}

impl Random {
    /// # Errors
    /// The system has none, in words for a detail.
    pub(super) fn word(&mut self) -> Result<u64, String> {
        if let Some(word) = self.words.pop() {
            return Ok(word);
        }
        let mut bytes = [0; 512];
        getrandom::fill(&mut bytes)
            .map_err(|error| format!("ping not possible: no random numbers: {error}"))?;
        self.words = bytes
            .chunks_exact(8)
            .filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes))
            .collect();
        self.words
            .pop()
            .ok_or_else(|| "ping not possible: no random numbers".to_owned())
    }
}
