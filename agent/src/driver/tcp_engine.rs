//! Conversations over TCP, thousands in flight on one thread.
//!
//! A driver says what it wants to say as a [`Conversation`], which has no
//! socket and no clock: it is told what happened and answers what comes next.
//! The engine connects, carries bytes, watches the time, and keeps the number
//! of open sockets within what the system allows: what waits for a socket has
//! not begun, and its time-out does not run.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use av_proto::verdict::Status;
use av_service::progress;
use crossbeam_channel::{Receiver, TryRecvError};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use super::Reply;
use super::engine::{self, Deadlines, INBOX, Inbox};
use crate::finding::Finding;
use crate::supervisor::Health;

/// Conversations at the same time. A local network with more hosts than this
/// in question would overflow the kernel's table of neighbours (1,024 by
/// default).
const OPEN_MAX: usize = 1000;
/// File descriptors that the rest of the agent has need of.
const RESERVED: rlim_t = 128;
/// Where the limit is lower than that: one conversation after the other.
const OPEN_MIN: usize = 4;
/// Conversations that begin between two looks at the sockets. With few, those
/// that live would keep the dead from beginning, whose time-outs end a sweep.
const BEGIN_MAX: usize = 256;
/// Reads of one socket before the others have their turn.
const READS_MAX: usize = 16;
const BUFFER_BYTES: usize = 2048;
const EVENTS: usize = 256;

/// What happened to a conversation.
#[derive(Debug)]
pub enum Event<'a> {
    /// It begins now. Nothing is open; its first answer is mostly
    /// [`Next::Connect`].
    Begin,
    /// The connection that it wanted stands.
    Connected,
    /// There is none: why, `TimedOut` where its time is up.
    Unreached(io::Error),
    /// Bytes came, as many as there were.
    Received(&'a [u8]),
    /// The peer closed the connection, or it broke. It is closed here too.
    Closed,
    /// The time of [`Next::Wait`] has come.
    Due,
}

/// What a conversation wants.
#[derive(Debug)]
pub enum Next {
    /// A new connection. The one that is open is closed at once.
    Connect {
        /// Not before.
        at: Instant,
        /// Given up then.
        by: Instant,
    },
    /// The next event, and [`Event::Due`] where none comes until then.
    Wait(Instant),
    /// It is over, and this is what it found.
    Done(Finding),
}

/// What is said to one device, and what is learnt from it. It must come to
/// [`Next::Done`] by itself, whatever the peer does.
pub trait Conversation: Send {
    /// How long it may take from its begin, whatever the peer does. No wait
    /// reaches beyond: then it is told [`Event::Due`] or
    /// [`Event::Unreached`], and must be done with what it has learnt so far.
    fn limit(&self) -> Duration;

    /// Takes an event. What it appends to `out` is sent, where a connection is
    /// open.
    fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next;
}

/// What it means that `port` could not be reached, and words for it. Offline:
/// nobody is there, or nobody at that port. Unknown: this machine could not
/// try.
#[must_use]
pub fn unreached(error: &io::Error, port: u16, timeout: Duration) -> (Status, String) {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => (Status::Offline, format!("port {port} closed")),
        Kind::TimedOut | Kind::WouldBlock => (
            Status::Offline,
            format!(
                "no answer from port {port} within {} s",
                timeout.as_secs_f64()
            ),
        ),
        Kind::ConnectionReset | Kind::ConnectionAborted => (
            Status::Offline,
            format!("port {port} broke the connection off"),
        ),
        Kind::HostUnreachable => (Status::Offline, "host unreachable".to_owned()),
        Kind::NetworkUnreachable => (
            Status::Unknown,
            "no connection tried: this machine has no route to the network".to_owned(),
        ),
        Kind::NetworkDown => (
            Status::Unknown,
            "no connection tried: the network is down here".to_owned(),
        ),
        _ => (Status::Unknown, format!("no connection possible: {error}")),
    }
}

struct Task {
    address: SocketAddr,
    conversation: Box<dyn Conversation>,
    reply: Reply,
}

/// The engine's handle. Its thread ends with the last clone.
#[derive(Clone)]
pub struct TcpEngine(Option<Inbox<Task>>);

impl TcpEngine {
    /// Starts the thread. Where the system refuses, that is logged, and each
    /// probe is an unknown observation that says so.
    #[must_use]
    pub fn start(health: &Health) -> Self {
        Self::with_sockets(health, sockets_max())
    }

    /// The same with at most so many sockets.
    #[must_use]
    pub fn with_sockets(health: &Health, open_max: usize) -> Self {
        let started = Poll::new().and_then(|mut poll| {
            let (inbox, work) = Inbox::new(&poll)?;
            let panics = health.clone();
            engine::spawn("tcp", health, move || {
                Engine::new(&mut poll, &work, &panics, open_max).run();
            })?;
            Ok(inbox)
        });
        match started {
            Ok(inbox) => Self(Some(inbox)),
            Err(error) => {
                log::error!("❌ The thread of the TCP drivers could not be started: {error}");
                Self(None)
            }
        }
    }

    /// Has `conversation` with the device at `address` as soon as a socket is
    /// free; what it finds goes to `reply`.
    pub fn begin(
        &self,
        address: SocketAddr,
        conversation: impl Conversation + 'static,
        reply: Reply,
    ) {
        match &self.0 {
            Some(inbox) => inbox.put(Task {
                address,
                conversation: Box::new(conversation),
                reply,
            }),
            None => reply.send(
                Finding::new(Status::Unknown)
                    .with_detail("the agent could not start its thread for TCP: see its log"),
            ),
        }
    }
}

impl std::fmt::Debug for TcpEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpEngine(started: {})", self.0.is_some())
    }
}

/// How many sockets the engine may have, after asking the system for enough.
fn sockets_max() -> usize {
    let wanted = OPEN_MAX as rlim_t + RESERVED;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return OPEN_MIN;
    };
    if soft >= wanted {
        return OPEN_MAX;
    }
    // Sweeps of a thousand devices fit where the hard limit allows; the soft
    // one is low only for programs that use select(2).
    let raised = hard.min(wanted);
    match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => open_for(raised),
        Err(_) => open_for(soft),
    }
}

fn open_for(descriptors: rlim_t) -> usize {
    usize::try_from(descriptors.saturating_sub(RESERVED))
        .unwrap_or(OPEN_MAX)
        .clamp(OPEN_MIN, OPEN_MAX)
}

/// A conversation in flight.
struct Talk {
    /// Which one: a slot is used again.
    number: u64,
    address: SocketAddr,
    conversation: Box<dyn Conversation>,
    reply: Reply,
    link: Link,
    /// When it must be over.
    end: Instant,
    /// When the next thing happens if nothing else does.
    due: Instant,
    /// The time of its entry among the deadlines, at or before `due`.
    armed: Option<Instant>,
}

enum Link {
    /// None, and none wanted.
    Closed,
    /// None yet.
    Wanted {
        by: Instant,
    },
    Connecting(TcpStream),
    Open {
        stream: TcpStream,
        /// What the socket did not take yet.
        unsent: Vec<u8>,
    },
}

struct Engine<'a> {
    poll: &'a mut Poll,
    work: &'a Receiver<Task>,
    health: &'a Health,
    open_max: usize,
    talks: Vec<Option<Talk>>,
    free: Vec<usize>,
    next_number: u64,
    deadlines: Deadlines<(usize, u64)>,
    /// Sockets with more to read.
    again: Vec<usize>,
}

impl<'a> Engine<'a> {
    fn new(
        poll: &'a mut Poll,
        work: &'a Receiver<Task>,
        health: &'a Health,
        open_max: usize,
    ) -> Self {
        Self {
            poll,
            work,
            health,
            open_max: open_max.max(1),
            talks: Vec::new(),
            free: Vec::new(),
            next_number: 0,
            deadlines: Deadlines::default(),
            again: Vec::new(),
        }
    }

    /// Until the inbox is closed.
    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let Some(more) = self.begin_some() else {
                return;
            };
            let wait = if more || !self.again.is_empty() {
                Some(Duration::ZERO)
            } else {
                self.deadlines.wait(Instant::now())
            };
            progress::waits();
            let polled = self.poll.poll(&mut events, wait);
            progress::moves();
            if let Err(error) = polled {
                if error.kind() != io::ErrorKind::Interrupted {
                    // Nothing that waiting longer would put right.
                    log::error!("❌ The sockets of the TCP drivers: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
                continue;
            }
            for slot in std::mem::take(&mut self.again) {
                self.ready(slot);
            }
            for event in &events {
                if event.token() != INBOX {
                    self.ready(event.token().0);
                }
            }
            let now = Instant::now();
            while let Some((slot, number)) = self.deadlines.due(now) {
                self.due(slot, number, now);
            }
        }
    }

    /// Begins conversations while there is room. Whether more may wait, or
    /// `None` where nobody can ask for any more.
    fn begin_some(&mut self) -> Option<bool> {
        for _ in 0..BEGIN_MAX {
            if self.talks.len() - self.free.len() >= self.open_max {
                return Some(false);
            }
            match self.work.try_recv() {
                Ok(task) => self.begin(task),
                Err(TryRecvError::Empty) => return Some(false),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        Some(true)
    }

    fn begin(&mut self, task: Task) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.talks.push(None);
            self.talks.len() - 1
        });
        let now = Instant::now();
        self.next_number += 1;
        self.talks[slot] = Some(Talk {
            number: self.next_number,
            end: now + task.conversation.limit(),
            address: task.address,
            conversation: task.conversation,
            reply: task.reply,
            link: Link::Closed,
            due: now,
            armed: None,
        });
        self.tell(slot, Event::Begin, now);
    }

    /// Something happened to the socket of `slot`.
    fn ready(&mut self, slot: usize) {
        let Some(talk) = self.talks.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if let Link::Connecting(stream) = &talk.link {
            match outcome(stream) {
                None => return,
                Some(Err(error)) => {
                    talk.link = Link::Closed;
                    self.tell(slot, Event::Unreached(error), Instant::now());
                    return;
                }
                Some(Ok(())) => {
                    let Link::Connecting(stream) = std::mem::replace(&mut talk.link, Link::Closed)
                    else {
                        return;
                    };
                    // A command is one small packet; nothing follows it to
                    // wait for.
                    let _ = stream.set_nodelay(true);
                    talk.link = Link::Open {
                        stream,
                        unsent: Vec::new(),
                    };
                    self.tell(slot, Event::Connected, Instant::now());
                }
            }
        }
        self.flush(slot);
        self.read(slot);
    }

    fn read(&mut self, slot: usize) {
        let mut buffer = [0; BUFFER_BYTES];
        for _ in 0..READS_MAX {
            let Some(Talk {
                link: Link::Open { stream, .. },
                ..
            }) = self.talks.get_mut(slot).and_then(Option::as_mut)
            else {
                return;
            };
            let event = match stream.read(&mut buffer) {
                Ok(length @ 1..) => Event::Received(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => {
                    self.close(slot);
                    Event::Closed
                }
            };
            self.tell(slot, event, Instant::now());
        }
        self.again.push(slot);
    }

    fn close(&mut self, slot: usize) {
        if let Some(talk) = self.talks.get_mut(slot).and_then(Option::as_mut) {
            talk.link = Link::Closed;
        }
    }

    /// Sends what is not sent yet, as far as the socket takes it.
    fn flush(&mut self, slot: usize) {
        let Some(Talk {
            link: Link::Open { stream, unsent },
            ..
        }) = self.talks.get_mut(slot).and_then(Option::as_mut)
        else {
            return;
        };
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(length) => drop(unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // What the peer said before it closed is still to be
                    // read, and the reading tells that it closed.
                    unsent.clear();
                    self.again.push(slot);
                    return;
                }
            }
        }
    }

    /// A deadline has come, perhaps one that was moved since.
    fn due(&mut self, slot: usize, number: u64, now: Instant) {
        let Some(talk) = self
            .talks
            .get_mut(slot)
            .and_then(Option::as_mut)
            .filter(|talk| talk.number == number)
        else {
            return;
        };
        talk.armed = None;
        if talk.due > now {
            let at = talk.due;
            self.arm(slot, at);
            return;
        }
        match talk.link {
            Link::Wanted { by } => self.connect(slot, by, now),
            Link::Connecting(_) => {
                talk.link = Link::Closed;
                self.tell(slot, Event::Unreached(io::ErrorKind::TimedOut.into()), now);
            }
            Link::Closed | Link::Open { .. } => self.tell(slot, Event::Due, now),
        }
    }

    fn connect(&mut self, slot: usize, by: Instant, now: Instant) {
        let Some(talk) = self.talks.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let connecting = TcpStream::connect(talk.address).and_then(|mut stream| {
            self.poll.registry().register(
                &mut stream,
                Token(slot),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            Ok(stream)
        });
        match connecting {
            Ok(stream) => {
                talk.link = Link::Connecting(stream);
                self.arm(slot, by);
            }
            Err(error) => {
                talk.link = Link::Closed;
                self.tell(slot, Event::Unreached(error), now);
            }
        }
    }

    /// Tells the conversation in `slot`, and does what it wants.
    fn tell(&mut self, slot: usize, event: Event<'_>, now: Instant) {
        let Some(talk) = self.talks.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let mut out = Vec::new();
        let is_last = now >= talk.end && matches!(event, Event::Due | Event::Unreached(_));
        // One device that a driver cannot bear must not cost the others their
        // probes.
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            talk.conversation.step(event, now, &mut out)
        }));
        let next = match stepped {
            Ok(next) => next,
            Err(payload) => {
                self.health.record("tcp", &*payload);
                self.end(slot);
                return;
            }
        };
        match next {
            Next::Wait(_) | Next::Connect { .. } if is_last => {
                let limit = talk.conversation.limit().as_secs_f64();
                if let Some(talk) = self.end(slot) {
                    // A fault of the driver, of which the device must not be
                    // accused.
                    talk.reply
                        .send(Finding::new(Status::Unknown).with_detail(format!(
                            "the agent's driver did not end its probe within {limit} s"
                        )));
                }
            }
            Next::Wait(until) => {
                if let Link::Open { unsent, .. } = &mut talk.link {
                    unsent.append(&mut out);
                    self.flush(slot);
                }
                self.arm(slot, until);
            }
            Next::Connect { at, by } => {
                talk.link = Link::Wanted { by };
                self.arm(slot, at);
            }
            Next::Done(finding) => {
                if let Some(talk) = self.end(slot) {
                    talk.reply.send(finding);
                }
            }
        }
    }

    fn end(&mut self, slot: usize) -> Option<Talk> {
        let talk = self.talks.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(talk)
    }

    /// Has `slot` looked at when `at` has come. There is one entry for a
    /// conversation in most cases: a deadline that moves on, as it does with
    /// each answer, is looked up again when the earlier one has come.
    fn arm(&mut self, slot: usize, at: Instant) {
        let Some(talk) = self.talks.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let at = at.min(talk.end);
        talk.due = at;
        if talk.armed.is_none_or(|armed| armed > at) {
            talk.armed = Some(at);
            self.deadlines.add(at, (slot, talk.number));
        }
    }
}

/// How a connection ended up; `None` while it is under way.
fn outcome(stream: &TcpStream) -> Option<io::Result<()>> {
    match stream.take_error() {
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
        Ok(None) => {}
    }
    match stream.peer_addr() {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use crossbeam_channel::{Sender, bounded, unbounded};

    use super::*;
    use crate::driver::Done;

    /// How many are between their begin and their end, and the most that were.
    #[derive(Clone, Default)]
    struct Gauge {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    /// Connects, sends a line and takes the bytes that come until `wanted` are
    /// there.
    struct Echo {
        timeout: Duration,
        say: Vec<u8>,
        heard: Vec<u8>,
        wanted: usize,
        gauge: Gauge,
        panics: bool,
    }

    impl Echo {
        fn new(say: &[u8], timeout: Duration) -> Self {
            Self {
                timeout,
                say: say.to_vec(),
                heard: Vec::new(),
                wanted: say.len(),
                gauge: Gauge::default(),
                panics: false,
            }
        }

        fn done(&self, status: Status, detail: impl AsRef<str>) -> Next {
            self.gauge.now.fetch_sub(1, Ordering::SeqCst);
            Next::Done(Finding::new(status).with_detail(detail))
        }
    }

    impl Conversation for Echo {
        fn limit(&self) -> Duration {
            self.timeout * 3
        }

        fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next {
            match event {
                Event::Begin => {
                    let open = self.gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
                    self.gauge.most.fetch_max(open, Ordering::SeqCst);
                    Next::Connect {
                        at: now,
                        by: now + self.timeout,
                    }
                }
                Event::Connected => {
                    assert!(!self.panics, "to order");
                    out.append(&mut self.say);
                    Next::Wait(now + self.timeout)
                }
                Event::Received(bytes) => {
                    self.heard.extend_from_slice(bytes);
                    if self.heard.len() >= self.wanted {
                        return self.done(Status::Online, format!("{} bytes", self.heard.len()));
                    }
                    Next::Wait(now + self.timeout)
                }
                Event::Unreached(error) => {
                    self.done(Status::Offline, format!("unreached: {:?}", error.kind()))
                }
                Event::Closed => self.done(Status::Offline, "closed"),
                Event::Due => self.done(Status::Offline, "due"),
            }
        }
    }

    const PATIENT: Duration = Duration::from_secs(60);

    /// Echoes what each connection says, as long as it is open.
    fn echoing() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut copy = stream.try_clone().unwrap();
                    let _ = io::copy(&mut stream, &mut copy);
                });
            }
        });
        address
    }

    fn found(done: &Done) -> (Status, &str) {
        (
            done.finding.status,
            done.finding.detail.as_deref().unwrap_or_default(),
        )
    }

    /// What one conversation finds.
    fn hold(engine: &TcpEngine, address: SocketAddr, echo: Echo) -> Done {
        let (to, findings) = unbounded();
        engine.begin(address, echo, Reply::new(0, to));
        findings.recv().unwrap()
    }

    #[test]
    fn more_than_a_socket_takes_at_once_goes_and_comes() {
        let engine = TcpEngine::start(&Health::default());
        let big = vec![b'x'; 5_000_000];
        let done = hold(&engine, echoing(), Echo::new(&big, PATIENT));
        assert_eq!(found(&done), (Status::Online, "5000000 bytes"));
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let engine = TcpEngine::start(&Health::default());
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let done = hold(&engine, closed, Echo::new(b"a", PATIENT));
        assert_eq!(
            found(&done),
            (Status::Offline, "unreached: ConnectionRefused")
        );

        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let brief = Duration::from_millis(100);
        let done = hold(&engine, address, Echo::new(b"a", brief));
        assert_eq!(found(&done), (Status::Offline, "due"));

        let hanging_up = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = hanging_up.local_addr().unwrap();
        let closing = thread::spawn(move || drop(hanging_up.accept().unwrap()));
        let done = hold(&engine, address, Echo::new(b"", PATIENT));
        closing.join().unwrap();
        // Nothing was wanted of it, so an end is the only thing that can come.
        assert_eq!(found(&done), (Status::Offline, "closed"));
    }

    /// A listener whose backlog is full: further connections are not answered.
    fn deaf() -> (socket2::Socket, Vec<std::net::TcpStream>, SocketAddr) {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300))
        {
            held.push(stream);
        }
        (socket, held, address)
    }

    #[test]
    fn the_dead_all_wait_at_the_same_time() {
        let (_socket, _held, address) = deaf();
        let engine = TcpEngine::with_sockets(&Health::default(), 300);
        let gauge = Gauge::default();
        let (to, findings) = unbounded();
        for ticket in 0..300 {
            let mut echo = Echo::new(b"a", Duration::from_secs(2));
            echo.gauge = gauge.clone();
            engine.begin(address, echo, Reply::new(ticket, to.clone()));
        }
        drop(to);
        let all: Vec<Done> = findings.iter().collect();
        assert_eq!(all.len(), 300);
        for done in &all {
            assert_eq!(found(done), (Status::Offline, "unreached: TimedOut"));
        }
        // One after the other would take ten minutes.
        assert_eq!(gauge.most.load(Ordering::SeqCst), 300);
    }

    #[test]
    fn what_waits_for_a_socket_has_not_begun() {
        let address = echoing();
        let engine = TcpEngine::with_sockets(&Health::default(), 3);
        let gauge = Gauge::default();
        let (to, findings) = unbounded();
        for ticket in 0..50 {
            let mut echo = Echo::new(b"abc", PATIENT);
            echo.gauge = gauge.clone();
            engine.begin(address, echo, Reply::new(ticket, to.clone()));
        }
        drop(to);
        let online = findings
            .iter()
            .filter(|done| done.finding.status == Status::Online)
            .count();
        assert_eq!(online, 50);
        assert!(gauge.most.load(Ordering::SeqCst) <= 3);
    }

    #[test]
    fn a_conversation_that_panics_costs_no_other_one() {
        let address = echoing();
        let health = Health::default();
        let engine = TcpEngine::start(&health);
        let (to, findings): (Sender<Done>, _) = unbounded();
        for ticket in 0..20 {
            let mut echo = Echo::new(b"abc", PATIENT);
            echo.panics = ticket == 7;
            engine.begin(address, echo, Reply::new(ticket, to.clone()));
        }
        drop(to);
        for done in &findings {
            let unknown = done.finding.status == Status::Unknown;
            assert_eq!(unknown, done.ticket == 7);
        }
        assert_eq!(health.panics()[0].thread, "tcp");
    }

    /// Never has enough, and reads its time from nothing.
    struct Endless {
        limit: Duration,
        told: Arc<Mutex<Vec<String>>>,
    }

    impl Conversation for Endless {
        fn limit(&self) -> Duration {
            self.limit
        }

        fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next {
            let late = now + PATIENT;
            match &event {
                Event::Received(_) => {}
                other => self.told.lock().unwrap().push(format!("{other:?}")),
            }
            match event {
                Event::Begin => Next::Connect { at: now, by: late },
                _ => {
                    out.push(b'x');
                    Next::Wait(late)
                }
            }
        }
    }

    #[test]
    fn a_conversation_that_does_not_end_is_ended() {
        let engine = TcpEngine::start(&Health::default());
        let (_socket, _held, deaf) = deaf();
        for (address, last) in [(echoing(), "Due"), (deaf, "Unreached(Kind(TimedOut))")] {
            let told = Arc::new(Mutex::new(Vec::new()));
            let limit = Duration::from_millis(300);
            let (to, findings) = unbounded();
            let endless = Endless {
                limit,
                told: Arc::clone(&told),
            };
            let began = Instant::now();
            engine.begin(address, endless, Reply::new(0, to));
            let done = findings.recv_timeout(PATIENT / 2).unwrap();
            assert!(done.at - began >= limit);
            assert_eq!(
                found(&done),
                (
                    Status::Unknown,
                    "the agent's driver did not end its probe within 0.3 s"
                )
            );
            // It had its chance to end with what it knew.
            assert_eq!(told.lock().unwrap().last().unwrap(), last);
        }
    }

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let engine = TcpEngine::start(&Health::default());
        let (to, findings) = bounded(1);
        // It holds the reply until it is told to end.
        let (_socket, _held, address) = deaf();
        engine.begin(address, Echo::new(b"a", PATIENT * 60), Reply::new(0, to));
        drop(engine.clone());
        assert!(findings.try_recv().is_err());
        drop(engine);
        let done = findings.recv().unwrap();
        assert_eq!(done.finding.status, Status::Unknown);
    }

    #[test]
    fn sockets_follow_the_systems_limit() {
        for (descriptors, sockets) in [
            (rlim_t::MAX, OPEN_MAX),
            (1_048_576, OPEN_MAX),
            (1024, 896),
            (256, 128),
            (100, OPEN_MIN),
        ] {
            assert_eq!(open_for(descriptors), sockets, "{descriptors}");
        }
        assert!((OPEN_MIN..=OPEN_MAX).contains(&sockets_max()));
    }

    #[test]
    fn connection_errors_are_told_apart() {
        for (errno, status, reason) in [
            (111, Status::Offline, "port 4352 closed"),
            (110, Status::Offline, "no answer from port 4352 within 2 s"),
            (104, Status::Offline, "port 4352 broke the connection off"),
            (113, Status::Offline, "host unreachable"),
            (
                101,
                Status::Unknown,
                "no connection tried: this machine has no route to the network",
            ),
            (
                100,
                Status::Unknown,
                "no connection tried: the network is down here",
            ),
            (
                24,
                Status::Unknown,
                "no connection possible: Too many open files (os error 24)",
            ),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let (found, text) = unreached(&error, 4352, Duration::from_secs(2));
            assert_eq!((found, text.as_str()), (status, reason));
        }
    }
}
