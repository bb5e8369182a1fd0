//! The thread that has the listener and every connection that no worker has.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use mio::{Events, Interest, Poll, Token};

use super::answer::{Answer, Content, Outgoing};
use super::connection::{Connection, Received, can_be_read};
use super::exchange::{Exchange, Returned, Then};
use super::frame::Framing;
use super::limits::{
    CLOSE_LIMIT, LINGER, LINGER_MAX, LINGER_SILENT, Limits, READ_AHEAD, Reason, WAITING_MAX,
};
use super::request::{HeadError, Request};
use super::shared::Shared;
use super::{Admission, Admit, Class};
use crate::engine::{Deadlines, INBOX, Inbox, Work};
use crate::progress;

const LISTENER: Token = Token(usize::MAX - 1);
/// What is read at once.
const SCRATCH: usize = 16 << 10;
/// Connections that are accepted before others get their turn.
const ACCEPTS: usize = 64;
/// Reads of one connection that are discarded before others get their turn.
const DISCARDS: usize = 16;
/// File descriptors that are not for connections.
const OTHER_DESCRIPTORS: u64 = 128;
/// Before the next try, where there is no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said that there is none.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Has the listener and every connection that no worker has.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    listener: Option<mio::net::TcpListener>,
    /// When connections are accepted again: `None` where none waits.
    accepts: Option<Instant>,
    said: Option<Instant>,
    limits: Limits,
    shared: Arc<Shared>,
    returned: Work<Returned>,
    /// In the order of [`Class::ALL`]; none once the edge is closed.
    queues: Vec<Sender<Exchange>>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    deadlines: Deadlines<usize>,
    /// Those to go on with though no event tells.
    ready: VecDeque<usize>,
    accepted: u64,
    /// Bytes that wait for the rest of a request.
    waiting: usize,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Slot {
    /// `None` where a worker has it.
    connection: Option<Connection>,
    stage: Stage,
    /// Of the stage that was entered last.
    kind: Kind,
    /// When it began.
    since: Instant,
    /// Counts connections, of which many may come at one time.
    serial: u64,
    /// When it ends; none where a worker has the connection.
    due: Option<Instant>,
    /// The earliest entry among the deadlines.
    scheduled: Option<Instant>,
    /// The bytes that it adds to those that wait.
    waiting: usize,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// A head has begun.
    Head,
    /// The head has come, and not yet all of the body.
    Body(Box<(Request, Class)>, usize),
    /// A worker has it.
    Away,
    Sending(Outgoing),
    /// The last answer is sent; what still comes is discarded: at most this
    /// number of bytes. Something came last at this time.
    Lingering(usize, Instant),
}

/// A stage without what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Idle,
    Head,
    Body,
    Away,
    Sending,
    Lingering,
}

impl Stage {
    fn kind(&self) -> Kind {
        match self {
            Self::Idle => Kind::Idle,
            Self::Head => Kind::Head,
            Self::Body(..) => Kind::Body,
            Self::Away => Kind::Away,
            Self::Sending(_) => Kind::Sending,
            Self::Lingering(..) => Kind::Lingering,
        }
    }
}

/// What becomes of a connection after a step.
enum Step {
    /// It waits in this stage.
    Wait(Stage),
    /// It goes to a worker.
    Hand(Request, Class),
    /// It has sent an answer, and has another request.
    Next,
    /// It is closed.
    Close(Option<Reason>),
}

impl Reactor {
    pub(super) fn new(
        socket: TcpListener,
        limits: Limits,
        queues: [Sender<Exchange>; Class::ALL.len()],
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(socket);
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let (inbox, returned) = Inbox::new(&poll)?;
        Ok(Self {
            poll,
            listener: Some(listener),
            accepts: None,
            said: None,
            limits: Limits {
                connections: limits.connections.min(affordable()).max(1),
                ..limits
            },
            shared: Arc::new(Shared::new(address, inbox)),
            returned,
            queues: queues.into(),
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            accepted: 0,
            waiting: 0,
            scratch: vec![0; SCRATCH],
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Serves until the edge is closed and every answer is sent, or for some
    /// seconds after it was closed. Can be run again where it panics.
    ///
    /// # Errors
    /// When the operating system refuses to tell of events.
    pub fn run(&mut self, admit: &impl Admit) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut ends = None;
        loop {
            let now = Instant::now();
            if self.shared.is_closed() {
                let end = *ends.get_or_insert_with(|| {
                    self.close();
                    now + CLOSE_LIMIT
                });
                if self.open() == 0 || now >= end {
                    return Ok(());
                }
            }
            let wait = self.wait(now, ends);
            progress::waits();
            let polled = self.poll.poll(&mut events, wait);
            progress::moves();
            match polled {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accepts = Some(now),
                    INBOX => {}
                    Token(number) => self.go_on(number, admit, now),
                }
            }
            while let Ok(returned) = self.returned.try_recv() {
                self.take_back(returned, admit, now);
            }
            if self.accepts.is_some_and(|at| at <= now) {
                self.accept(now);
            }
            while let Some(number) = self.deadlines.due(now) {
                self.is_due(number, now);
            }
            // Not those that become ready meanwhile: others get their turn.
            for _ in 0..self.ready.len() {
                if let Some(number) = self.ready.pop_front() {
                    self.go_on(number, admit, now);
                }
            }
            self.make_room();
            self.shared.open.store(self.open(), Ordering::Relaxed);
        }
    }

    fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn wait(&self, now: Instant, ends: Option<Instant>) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        let next = [
            self.deadlines.wait(now),
            self.accepts.map(until),
            ends.map(until),
        ];
        next.into_iter().flatten().min()
    }

    /// Accepts nothing any more, and closes what waits for nothing.
    fn close(&mut self) {
        self.listener = None;
        self.accepts = None;
        self.queues.clear();
        for number in 0..self.slots.len() {
            let kind = self.slots[number].as_ref().map(|slot| slot.kind);
            if let Some(Kind::Idle | Kind::Head | Kind::Body) = kind {
                self.release(number, None);
            }
        }
        self.shared.open.store(self.open(), Ordering::Relaxed);
    }

    fn accept(&mut self, now: Instant) {
        self.accepts = None;
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok((socket, peer)) => {
                    if self.open() >= self.limits.connections && !self.make_way() {
                        // Workers have all of them: the newest goes.
                        self.shared.count(Reason::TooMany);
                        continue;
                    }
                    if let Err(error) = self.add(socket, peer, now) {
                        log::warn!("a connection is given up: {error}");
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // It has gone again.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // Said though none waits, where there is no descriptor.
                    _ if !can_be_read(listener) => return,
                    _ => {
                        if self.said.is_none_or(|at| now - at >= SAID_AGAIN) {
                            self.said = Some(now);
                            log::error!(
                                "the HTTP server cannot accept: {error}; idle connections make way"
                            );
                        }
                        if !self.make_way() {
                            self.accepts = Some(now + ACCEPT_PAUSE);
                            return;
                        }
                    }
                },
            }
        }
        self.accepts = Some(now);
    }

    fn add(
        &mut self,
        socket: mio::net::TcpStream,
        peer: SocketAddr,
        now: Instant,
    ) -> io::Result<()> {
        let mut connection = Connection::new(socket, peer);
        self.accepted += 1;
        let number = self.free.last().copied().unwrap_or(self.slots.len());
        self.poll.registry().register(
            &mut connection.socket,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let slot = Some(Slot {
            connection: Some(connection),
            stage: Stage::Idle,
            kind: Kind::Away,
            since: now,
            serial: self.accepted,
            due: None,
            scheduled: None,
            waiting: 0,
        });
        match self.free.pop() {
            Some(number) => self.slots[number] = slot,
            None => self.slots.push(slot),
        }
        self.enter(number, Stage::Idle, now);
        Ok(())
    }

    /// Closes the connection that does nothing for the longest; answers whether
    /// there is one.
    fn make_way(&mut self) -> bool {
        self.close_first(Reason::TooMany, |kind| match kind {
            Kind::Lingering => Some(0),
            // Not the idle first: one that has just come would be the next.
            Kind::Idle | Kind::Head | Kind::Body => Some(1),
            Kind::Sending => Some(2),
            Kind::Away => None,
        })
    }

    /// Closes what has waited longest where too many bytes wait for the rest of
    /// their requests.
    fn make_room(&mut self) {
        while self.waiting > WAITING_MAX {
            let closed = self.close_first(Reason::Flood, |kind| {
                matches!(kind, Kind::Head | Kind::Body).then_some(0)
            });
            if !closed {
                return;
            }
        }
    }

    /// Closes the connection of the lowest rank, the oldest of them first.
    fn close_first(&mut self, reason: Reason, rank: impl Fn(Kind) -> Option<u8>) -> bool {
        let first = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(number, slot)| {
                let slot = slot.as_ref()?;
                Some((rank(slot.kind)?, slot.since, slot.serial, number))
            })
            .min();
        match first {
            Some((.., number)) => {
                self.release(number, Some(reason));
                true
            }
            None => false,
        }
    }

    /// Closes a connection.
    fn release(&mut self, number: usize, reason: Option<Reason>) {
        if let Some(slot) = self.slots.get_mut(number).and_then(Option::take) {
            self.waiting -= slot.waiting;
            self.free.push(number);
            // Before its peer learns of it.
            if let Some(reason) = reason {
                self.shared.count(reason);
            }
            drop(slot);
        }
    }

    /// Puts a connection into a stage. Where it is in such a one already, that
    /// one's time runs on.
    fn enter(&mut self, number: usize, stage: Stage, now: Instant) {
        let limits = &self.limits;
        let Some(Some(slot)) = self.slots.get_mut(number) else {
            return;
        };
        let kind = stage.kind();
        if slot.kind != kind {
            slot.kind = kind;
            slot.since = now;
        }
        slot.due = match &stage {
            Stage::Idle => Some(slot.since + limits.idle),
            Stage::Head => Some(slot.since + limits.head),
            Stage::Body(..) => Some(slot.since + limits.body),
            Stage::Sending(outgoing) => Some(outgoing.due(limits.send)),
            Stage::Lingering(_, heard) => Some((slot.since + LINGER).min(*heard + LINGER_SILENT)),
            Stage::Away => None,
        };
        let waits = match (&stage, &slot.connection) {
            (Stage::Head | Stage::Body(..), Some(connection)) => connection.input.len(),
            _ => 0,
        };
        self.waiting = self.waiting - slot.waiting + waits;
        slot.waiting = waits;
        slot.stage = stage;
        // One entry is enough, where it is not too late.
        if let Some(due) = slot.due {
            if slot.scheduled.is_none_or(|at| at > due) {
                slot.scheduled = Some(due);
                self.deadlines.add(due, number);
            }
        }
    }

    /// An entry among the deadlines has come.
    fn is_due(&mut self, number: usize, now: Instant) {
        let Some(Some(slot)) = self.slots.get_mut(number) else {
            return;
        };
        // One of a connection that was here before, or one that came too late.
        if slot.scheduled.is_none_or(|at| at > now) {
            return;
        }
        slot.scheduled = None;
        let Some(due) = slot.due else {
            return;
        };
        if due > now {
            slot.scheduled = Some(due);
            self.deadlines.add(due, number);
            return;
        }
        let (reason, said) = match slot.kind {
            Kind::Away => return,
            Kind::Lingering => (None, None),
            Kind::Idle => (Some(Reason::Idle), None),
            Kind::Sending => (Some(Reason::SlowReader), None),
            Kind::Head => (
                Some(Reason::SlowHead),
                Some("the head of the request did not arrive in time"),
            ),
            Kind::Body => (
                Some(Reason::SlowBody),
                Some("the body did not arrive in time"),
            ),
        };
        let (Some(said), Some(mut connection)) = (said, slot.connection.take()) else {
            return self.release(number, reason);
        };
        if let Some(reason) = reason {
            self.shared.count(reason);
        }
        let answer = Answer::plain_error(408, said);
        let step = self.say(&mut connection, None, answer, false, now);
        self.put(number, connection, step, now);
    }

    /// A connection comes back from a worker.
    fn take_back(&mut self, returned: Returned, admit: &impl Admit, now: Instant) {
        let Returned {
            token,
            connection,
            then,
        } = returned;
        let Some(mut connection) = connection else {
            return self.release(token, None);
        };
        let step = match then {
            Then::Close => Step::Close(None),
            Then::Next => Step::Next,
            Then::Linger => self.linger(&mut connection, now),
            Then::Send(outgoing) => Step::Wait(Stage::Sending(outgoing)),
        };
        self.put(token, connection, step, now);
        // No event tells of what came meanwhile.
        self.go_on(token, admit, now);
    }

    /// Goes on with a connection of which there is news.
    fn go_on(&mut self, number: usize, admit: &impl Admit, now: Instant) {
        let Some(Some(slot)) = self.slots.get_mut(number) else {
            return;
        };
        let Some(mut connection) = slot.connection.take() else {
            return;
        };
        let stage = std::mem::replace(&mut slot.stage, Stage::Away);
        let step = match stage {
            Stage::Sending(outgoing) => self.send(&mut connection, outgoing, now),
            Stage::Lingering(left, heard) => self.discard(&mut connection, left, heard, now),
            Stage::Away => Step::Close(None),
            Stage::Idle | Stage::Head => self.read_head(&mut connection, admit, now),
            Stage::Body(asked, length) => self.read_on(&mut connection, asked, length),
        };
        self.put(number, connection, step, now);
    }

    /// Puts a connection back, or hands it out.
    fn put(&mut self, number: usize, connection: Connection, step: Step, now: Instant) {
        match step {
            Step::Close(reason) => self.release(number, reason),
            Step::Wait(stage) => {
                // There is more, of which no event tells.
                if matches!(stage, Stage::Lingering(..)) && connection.more {
                    self.ready.push_back(number);
                }
                self.keep(number, connection, stage, now);
            }
            Step::Next => {
                // What came with the last request is told by no event.
                if connection.more || !connection.input.is_empty() {
                    self.ready.push_back(number);
                }
                if let Some(Some(slot)) = self.slots.get_mut(number) {
                    slot.kind = Kind::Away;
                }
                self.keep(number, connection, Stage::Idle, now);
            }
            Step::Hand(request, class) => self.hand(number, connection, request, class, now),
        }
    }

    fn keep(&mut self, number: usize, connection: Connection, stage: Stage, now: Instant) {
        if self.shared.is_closed() && !matches!(stage, Stage::Sending(_) | Stage::Lingering(..)) {
            return self.release(number, None);
        }
        if let Some(Some(slot)) = self.slots.get_mut(number) {
            slot.connection = Some(connection);
        }
        self.enter(number, stage, now);
    }

    /// Puts a request into its queue.
    fn hand(
        &mut self,
        number: usize,
        connection: Connection,
        request: Request,
        class: Class,
        now: Instant,
    ) {
        let exchange = Exchange::new(
            request,
            number,
            connection,
            class,
            self.shared.clone(),
            self.limits,
        );
        let refused = match self.queues.get(class as usize) {
            Some(queue) => match queue.try_send(exchange) {
                Ok(()) => return self.enter(number, Stage::Away, now),
                Err(TrySendError::Full(exchange) | TrySendError::Disconnected(exchange)) => {
                    exchange
                }
            },
            None => exchange,
        };
        let (request, connection) = refused.undo();
        let Some(mut connection) = connection else {
            return self.release(number, None);
        };
        let answer = Answer::plain_error(503, "too many requests wait; try again in a moment")
            .with("Retry-After", "2");
        let step = self.say(&mut connection, Some(&request), answer, true, now);
        self.put(number, connection, step, now);
    }

    /// Reads, and looks whether a head has come.
    fn read_head(&mut self, connection: &mut Connection, admit: &impl Admit, now: Instant) -> Step {
        loop {
            match connection.next_request() {
                Err(error) => return self.refuse(connection, error, now),
                Ok(Some(request)) => return self.judge(connection, request, admit, now),
                Ok(None) => {}
            }
            match connection.receive(&mut self.scratch) {
                Ok(Received::Bytes(count)) => {
                    connection.input.extend_from_slice(&self.scratch[..count]);
                }
                Ok(Received::End) | Err(_) => return Step::Close(None),
                Ok(Received::Nothing) => {
                    return Step::Wait(match connection.input.is_empty() {
                        true => Stage::Idle,
                        false => Stage::Head,
                    });
                }
            }
        }
    }

    /// Asks what is to be done with a request.
    fn judge(
        &mut self,
        connection: &mut Connection,
        request: Request,
        admit: &impl Admit,
        now: Instant,
    ) -> Step {
        let admission = catch_unwind(AssertUnwindSafe(|| admit.admit(&request)));
        match admission {
            Ok(Admission::Answer(answer)) => {
                self.say(connection, Some(&request), answer, true, now)
            }
            Ok(Admission::Queue(class)) => match request.framing() {
                Framing::Length(length) if length <= READ_AHEAD as u64 && !request.expects() => {
                    let asked = Box::new((request, class));
                    self.read_on(connection, asked, length as usize)
                }
                _ => Step::Hand(request, class),
            },
            Err(_) => {
                let answer =
                    Answer::plain_error(500, "an error in this program; the log says what");
                self.say(connection, Some(&request), answer, false, now)
            }
        }
    }

    /// Reads a short body to its end.
    fn read_on(
        &mut self,
        connection: &mut Connection,
        asked: Box<(Request, Class)>,
        length: usize,
    ) -> Step {
        while connection.input.len() < length {
            match connection.receive(&mut self.scratch) {
                Ok(Received::Bytes(count)) => {
                    connection.input.extend_from_slice(&self.scratch[..count]);
                }
                Ok(Received::Nothing) => return Step::Wait(Stage::Body(asked, length)),
                // Half closed: the worker says that the body is cut short.
                Ok(Received::End) => break,
                Err(_) => return Step::Close(None),
            }
        }
        let (request, class) = *asked;
        Step::Hand(request, class)
    }

    /// Refuses a head: what follows on the connection is not looked at.
    fn refuse(&mut self, connection: &mut Connection, error: HeadError, now: Instant) -> Step {
        self.shared.count(match error {
            HeadError::TooLong => Reason::Flood,
            _ => Reason::Refused,
        });
        let answer = Answer::plain_error(error.status(), &error.to_string());
        self.say(connection, None, answer, false, now)
    }

    /// Answers without a worker. `keep`: as far as the request allows it.
    fn say(
        &mut self,
        connection: &mut Connection,
        to: Option<&Request>,
        answer: Answer,
        keep: bool,
        now: Instant,
    ) -> Step {
        let mut keep = keep && !self.shared.is_closed();
        if let Some(request) = to {
            keep &= request.keeps_alive();
            match request.framing() {
                Framing::Length(length) if length <= connection.input.len() as u64 => {
                    connection.take(length as usize);
                }
                _ => keep = false,
            }
        }
        let prepared = answer.prepare(to, keep);
        match prepared.content {
            Content::Bytes(body) => {
                let outgoing = Outgoing::new(prepared.head, body, prepared.keep, now);
                self.send(connection, outgoing, now)
            }
            // Only a worker can wait for what makes it.
            Content::Stream(_) => Step::Close(None),
        }
    }

    /// Sends what the peer takes.
    fn send(&mut self, connection: &mut Connection, mut outgoing: Outgoing, now: Instant) -> Step {
        match outgoing.write(&mut connection.socket, now) {
            Err(_) => Step::Close(None),
            Ok(_) if outgoing.left() > 0 => Step::Wait(Stage::Sending(outgoing)),
            Ok(_) if outgoing.keep => Step::Next,
            Ok(_) => self.linger(connection, now),
        }
    }

    fn linger(&mut self, connection: &mut Connection, now: Instant) -> Step {
        connection.finish();
        connection.take(usize::MAX);
        self.discard(connection, LINGER_MAX, now, now)
    }

    /// Discards what has come, a bounded part of it at a time.
    fn discard(
        &mut self,
        connection: &mut Connection,
        mut left: usize,
        mut heard: Instant,
        now: Instant,
    ) -> Step {
        for _ in 0..DISCARDS {
            match connection.receive(&mut self.scratch) {
                Ok(Received::Bytes(count)) if count < left => {
                    left -= count;
                    heard = now;
                }
                Ok(Received::Nothing) => return Step::Wait(Stage::Lingering(left, heard)),
                _ => return Step::Close(None),
            }
        }
        Step::Wait(Stage::Lingering(left, heard))
    }
}

/// How many connections the process has descriptors for. The soft limit is
/// raised as far as it goes.
fn affordable() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // Without a number there is no limit.
    let descriptors = descriptors.unwrap_or(u64::MAX);
    let connections = descriptors.saturating_sub(OTHER_DESCRIPTORS.min(descriptors / 2));
    usize::try_from(connections).unwrap_or(usize::MAX)
}
