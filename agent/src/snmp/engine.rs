//! The thread `snmp`: one socket a family, and every probe in flight on them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use av_proto::driver::{SnmpAccess, SnmpSettings, SnmpUser};
use av_service::progress;
use crossbeam_channel::TryRecvError;
use mio::{Events, Interest, Poll, Token};

use super::finding::{Outcome, finding};
use super::pdu::Stray;
use super::plan::Plan;
use super::session::{Answer, Progress, Session};
use super::socket::{Event, Family, Wire};
use super::v3::{Dialogue, Incoming, Masters};
use crate::driver::engine::{Deadlines, Work};
use crate::driver::{Reply, wire};

/// More than an agent may send unasked (RFC 3417, 3.2.1: 484 bytes), and than
/// the answer to any request of ours should be.
const RECEIVE_SIZE: usize = 65_535;
/// Datagrams that are no answer to us, before a probe gives up: somebody is
/// flooding it.
const STRAYS_MAX: u32 = 64;
/// Probes begun before answers are looked at: with more at a time, these
/// would find no room in the socket.
const BATCH: usize = 32;
/// Datagrams taken before the clock is looked at.
const DRAIN: usize = 256;
/// Until a datagram is tried again for which the system had no room.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const BUSY_TRIES: u32 = 200;
/// Engines of version 3 that are remembered: as many as a site has devices.
const ENGINES_MAX: usize = 20_000;

/// A probe to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub ip: IpAddr,
    pub settings: SnmpSettings,
    pub reply: Reply,
}

/// A device and its port.
type Peer = (IpAddr, u16);

/// A probe under way.
#[derive(Debug)]
struct Flight {
    peer: Peer,
    settings: SnmpSettings,
    reply: Reply,
    session: Session,
    /// Tries of the request at hand.
    tries: u8,
    /// Until when its answer is waited for.
    deadline: Instant,
    /// Until when the whole probe may go on: no wait reaches beyond it.
    last: Instant,
    strays: u32,
    stray: Option<Stray>,
    busy: u32,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Engine {
    poll: Poll,
    work: Work<Job>,
    v4: Result<Wire, String>,
    v6: Result<Wire, String>,
}

impl Engine {
    /// Opens a socket for each family. One that cannot be had is no error
    /// here: its probes say so.
    pub(super) fn new(poll: Poll, work: Work<Job>) -> Self {
        let open = |family, token| {
            let mut wire = Wire::open(family).map_err(|error| error.to_string())?;
            poll.registry()
                .register(wire.source(), Token(token), Interest::READABLE)
                .map_err(|error| error.to_string())?;
            Ok(wire)
        };
        Self {
            v4: open(Family::V4, 0),
            v6: open(Family::V6, 1),
            poll,
            work,
        }
    }

    /// Runs until the inbox is closed.
    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(8);
        let mut probes = Probes::default();
        let mut buffer = vec![0; RECEIVE_SIZE];
        loop {
            let mut is_more = false;
            for begun in 0.. {
                if begun == BATCH {
                    is_more = true;
                    break;
                }
                match self.work.try_recv() {
                    Ok(job) => probes.begin(self, job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            for wire in [&self.v4, &self.v6].into_iter().flatten() {
                for taken in 0.. {
                    if taken == DRAIN {
                        is_more = true;
                        break;
                    }
                    match wire.receive(&mut buffer) {
                        None => break,
                        Some(Event::Datagram(length, from)) => {
                            let bytes = buffer.get(..length).unwrap_or_default();
                            probes.receive(self, from, bytes);
                        }
                        Some(Event::Error(to, error)) => probes.fail(to, &error),
                    }
                }
            }
            probes.pass_time(self);
            let wait = match is_more {
                true => Some(Duration::ZERO),
                false => probes.deadlines.wait(Instant::now()),
            };
            progress::waits();
            let polled = self.poll.poll(&mut events, wait);
            progress::moves();
            if let Err(error) = polled {
                if error.kind() != io::ErrorKind::Interrupted {
                    log::error!("❌ The SNMP thread cannot wait: {error}");
                    std::thread::sleep(BUSY_PAUSE);
                }
            }
        }
    }

    fn wire(&self, ip: IpAddr) -> Result<&Wire, &String> {
        match ip {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

/// The probes in flight, and what is remembered between probes.
#[derive(Default)]
struct Probes {
    flights: HashMap<u64, Flight>,
    /// Those of each peer: one, unless the device is asked twice at a time.
    peers: HashMap<Peer, Vec<u64>>,
    deadlines: Deadlines<u64>,
    last_key: u64,
    masters: Masters,
    dialogues: HashMap<Peer, Dialogue>,
}

impl Probes {
    fn begin(&mut self, engine: &Engine, job: Job) {
        let Job {
            ip,
            settings,
            reply,
        } = job;
        let now = Instant::now();
        let peer = (ip.to_canonical(), settings.port);
        let (request_id, salt) = match (getrandom::u32(), getrandom::u64()) {
            // Room to count on from it.
            (Ok(id), Ok(salt)) => (i32::try_from(id >> 2).unwrap_or_default(), salt),
            (Err(error), _) | (_, Err(error)) => {
                let outcome = Outcome::Here(format!("no random numbers: {error}"));
                reply.send(finding(&outcome, &settings));
                return;
            }
        };
        let dialogue = match &settings.access {
            SnmpAccess::V3(user) => Some(self.dialogue(peer, user, salt)),
            _ => None,
        };
        let plan = Plan::of(&settings.readings);
        let Some(session) = Session::new(&settings.access, dialogue, plan, request_id, now) else {
            return;
        };
        let flight = Flight {
            peer,
            last: now + settings.limit(),
            deadline: now,
            tries: 0,
            strays: 0,
            stray: None,
            busy: 0,
            settings,
            reply,
            session,
        };
        self.last_key += 1;
        let key = self.last_key;
        self.peers.entry(peer).or_default().push(key);
        self.flights.insert(key, flight);
        self.send(engine, key, now);
    }

    fn dialogue(&self, peer: Peer, user: &SnmpUser, salt: u64) -> Dialogue {
        match self.dialogues.get(&peer) {
            Some(dialogue) if dialogue.is_of(user) => dialogue.clone().renewed(),
            _ => Dialogue::new(user, &self.masters, salt),
        }
    }

    /// Sends the request of a probe, the first time or again.
    fn send(&mut self, engine: &Engine, key: u64, now: Instant) {
        let Some(flight) = self.flights.get_mut(&key) else {
            return;
        };
        let (ip, port) = flight.peer;
        let mut others = Vec::new();
        let sent = match engine.wire(ip) {
            Ok(wire) => wire.send(flight.session.datagram(), (ip, port).into(), &mut others),
            Err(reason) => {
                let outcome = Outcome::Here(reason.clone());
                self.end(key, &outcome);
                return;
            }
        };
        match sent {
            Ok(()) => {
                wire::sent(ip, &flight.session);
                flight.busy = 0;
                flight.tries += 1;
                flight.deadline = flight.last.min(now + flight.settings.timeout);
                self.deadlines.add(flight.deadline, key);
            }
            Err(error) if is_busy(&error) && flight.busy < BUSY_TRIES => {
                flight.busy += 1;
                flight.deadline = flight.last.min(now + BUSY_PAUSE);
                self.deadlines.add(flight.deadline, key);
            }
            Err(error) => self.end(key, &Outcome::of(&error)),
        }
        for (to, error) in others {
            self.fail(to, &error);
        }
    }

    fn receive(&mut self, engine: &Engine, from: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let keys = match self.peers.get(&peer_of(from)) {
            Some(keys) => keys.clone(),
            // Late, or from a stranger.
            None => return,
        };
        let mut strays = Vec::new();
        for key in keys {
            let Some(flight) = self.flights.get_mut(&key) else {
                continue;
            };
            let see = |incoming: &Incoming| wire::received(from.ip(), incoming);
            match flight.session.receive(bytes, now, see) {
                Ok(Progress::Send) => {
                    flight.tries = 0;
                    self.send(engine, key, now);
                    return;
                }
                Ok(Progress::Done(answer)) => {
                    self.end(key, &Outcome::Answered(answer));
                    return;
                }
                Err(stray) => strays.push((key, stray)),
            }
        }
        for (key, stray) in strays {
            wire::received(from.ip(), format_args!("no answer to us: {stray:?}"));
            let Some(flight) = self.flights.get_mut(&key) else {
                continue;
            };
            flight.stray = Some(stray);
            flight.strays += 1;
            if flight.strays >= STRAYS_MAX {
                self.give_up(key);
            }
        }
    }

    /// ICMP says that nothing arrives at `to`.
    fn fail(&mut self, to: SocketAddr, error: &io::Error) {
        wire::event(to.ip(), format_args!("ICMP: {error}"));
        for key in self.peers.get(&peer_of(to)).cloned().unwrap_or_default() {
            self.end(key, &Outcome::of(error));
        }
    }

    fn pass_time(&mut self, engine: &Engine) {
        let now = Instant::now();
        while let Some(key) = self.deadlines.due(now) {
            let Some(flight) = self.flights.get(&key) else {
                continue;
            };
            // An answer has come meanwhile, and another deadline.
            if flight.deadline > now {
                continue;
            }
            if flight.busy == 0 {
                wire::event(flight.peer.0, "no answer in time");
            }
            if flight.tries > flight.settings.retries || flight.last <= now {
                self.give_up(key);
            } else {
                self.send(engine, key, now);
            }
        }
    }

    /// Ends a probe that gets no further answer.
    fn give_up(&mut self, key: u64) {
        let Some(flight) = self.flights.get_mut(&key) else {
            return;
        };
        let outcome = match flight.session.fall_silent() {
            Some(answer) => Outcome::Answered(answer),
            None => Outcome::Silent(flight.stray),
        };
        self.end(key, &outcome);
    }

    fn end(&mut self, key: u64, outcome: &Outcome) {
        let Some(flight) = self.flights.remove(&key) else {
            return;
        };
        if let Some(keys) = self.peers.get_mut(&flight.peer) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.peers.remove(&flight.peer);
            }
        }
        flight.reply.send(finding(outcome, &flight.settings));
        let Some(dialogue) = flight.session.dialogue() else {
            return;
        };
        if matches!(
            outcome,
            Outcome::Answered(Answer::Values(_) | Answer::Refused(_))
        ) {
            if self.dialogues.len() >= ENGINES_MAX {
                self.dialogues.clear();
            }
            self.dialogues.insert(flight.peer, dialogue);
        } else {
            // Whoever is there next is asked who it is: whether that much is
            // answered tells a dead device from a wrong password.
            self.dialogues.remove(&flight.peer);
        }
    }
}

fn peer_of(address: SocketAddr) -> Peer {
    (address.ip(), address.port())
}

fn is_busy(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
