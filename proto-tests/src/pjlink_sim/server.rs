//! Sockets and threads of a simulated projector.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::command::{Command, LINE_MAX, answer};
use super::fault::{Faults, Garbage};
use super::session::{Admission, Session, WRONG_PASSWORD};
use super::state::{Machine, State, Timing};
use super::udp::{Answering, Responder, notices};

/// PJLink lines end with a carriage return alone (section 2.1).
const END: u8 = b'\r';

/// The port of both TCP and UDP.
pub const PORT: u16 = 4352;

/// What another service on the port might say.
const GARBAGE: &[u8] = b"SSH-2.0-\xff\xfe\x00 not a projector\r";

/// Stack of each thread: nothing here recurses, and benchmarks start
/// thousands of projectors.
const STACK: usize = 128 * 1024;

/// How a projector starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens. Port 0: one that is free.
    pub listen: SocketAddr,
    /// The password; `None`: none is wanted.
    pub password: Option<String>,
    /// What it says of itself.
    pub state: State,
    /// How long the lamp takes.
    pub timing: Timing,
    /// A connection without a command for so long is closed: 30 s in the
    /// standard (section 5.4).
    pub idle_close: Duration,
    /// Connections served at once; one more is closed at once.
    pub max_connections: usize,
    /// Where notices go, for a projector of class 2.
    pub notify: Option<SocketAddr>,
    /// The asker's port to which a projector of class 2 answers a search: 4352
    /// in the standard. `None`: that from which it asked.
    pub search_port: Option<u16>,
    /// How it misbehaves.
    pub faults: Faults,
}

impl Config {
    /// A well-behaved projector without a password, at that address.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            password: None,
            state: State::default(),
            timing: Timing::default(),
            idle_close: Duration::from_secs(30),
            max_connections: 8,
            notify: None,
            search_port: Some(PORT),
            faults: Faults::default(),
        }
    }
}

/// What happened since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were served.
    pub connections: u64,
    /// Connections closed at once because too many were open.
    pub turned_away: u64,
    /// Connections open now.
    pub open: usize,
    /// Commands that got in: with the right digest where one is wanted.
    pub commands: u64,
    /// Commands with a wrong digest or none.
    pub wrong_passwords: u64,
    /// Commands by upper-case body: `POWR`.
    pub by_command: BTreeMap<String, u64>,
}

/// A running projector. Dropping it closes its sockets and ends its threads.
#[derive(Debug)]
pub struct Projector {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Threads wait on the other end; closing this one stops them.
    stop: Option<Sender<()>>,
    acceptor: Option<JoinHandle<()>>,
    /// Of a projector of class 2.
    responder: Option<Responder>,
    notify: Option<SocketAddr>,
}

#[derive(Debug)]
struct Shared {
    password: Option<String>,
    idle_close: Duration,
    max_connections: usize,
    inner: Mutex<Inner>,
    /// Told when the faults change, connections end or the projector stops.
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    faults: Faults,
    counters: Counters,
    wrong_in_a_row: u32,
    stopping: bool,
    /// Open connections, to be shut from outside.
    streams: HashMap<u64, TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked leaves numbers and flags, nothing torn.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Projector {
    /// Starts a projector.
    ///
    /// # Errors
    /// When the address cannot be listened on or no thread can be had.
    pub fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        let addr = listener.local_addr()?;
        let class2 = config.state.class2.clone();
        let responder = class2
            .as_ref()
            .map(|class2| {
                let answering = Answering {
                    port: config.search_port,
                    delay: config.faults.search_delay,
                };
                Responder::start(addr, class2, answering, STACK)
            })
            .transpose()?;
        let shared = Arc::new(Shared {
            password: config.password,
            idle_close: config.idle_close,
            max_connections: config.max_connections.max(1),
            inner: Mutex::new(Inner {
                machine: Machine::new(config.state, config.timing),
                faults: config.faults,
                counters: Counters::default(),
                wrong_in_a_row: 0,
                stopping: false,
                streams: HashMap::new(),
            }),
            changed: Condvar::new(),
        });
        // Nobody connects before `start` returns, so a projector that refuses
        // from the start never accepts.
        let listener = (!shared.lock().faults.refuse).then_some(listener);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let acceptor = thread::Builder::new()
            .name(format!("pj {addr}"))
            .stack_size(STACK)
            .spawn({
                let shared = Arc::clone(&shared);
                move || accept(listener, addr, &shared, &stopped)
            })?;
        let projector = Self {
            addr,
            shared,
            stop: Some(stop),
            acceptor: Some(acceptor),
            responder,
            notify: config.notify,
        };
        if let Some(class2) = &class2 {
            projector.tell(&format!("%2LKUP={}", class2.mac_text()));
        }
        Ok(projector)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.lock().machine.state(Instant::now()).clone()
    }

    /// Changes the state, as a person at the projector does. One of class 2
    /// sends its notices.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        let (before, after) = {
            let mut inner = self.shared.lock();
            let now = Instant::now();
            let before = inner.machine.state(now).clone();
            inner.machine.replace(now, change);
            (before, inner.machine.state(now).clone())
        };
        for notice in notices(&before, &after) {
            self.tell(&notice);
        }
    }

    fn tell(&self, notice: &str) {
        if let (Some(responder), Some(to)) = (&self.responder, self.notify) {
            responder.notify(to, notice);
        }
    }

    /// Changes the faults. Connections that are open keep those with which
    /// they began, except that `refuse` closes them all.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        let refuses = {
            let mut inner = self.shared.lock();
            change(&mut inner.faults);
            if inner.faults.refuse {
                shut_all(&inner);
            }
            inner.faults.refuse
        };
        self.shared.changed.notify_all();
        if refuses {
            wake(self.addr);
        }
    }

    /// Forgets the wrong passwords, as turning a projector off and on does.
    pub fn unlock(&self) {
        self.shared.lock().wrong_in_a_row = 0;
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let inner = self.shared.lock();
        Counters {
            open: inner.streams.len(),
            ..inner.counters.clone()
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.stop = None;
        {
            let mut inner = self.shared.lock();
            inner.stopping = true;
            shut_all(&inner);
        }
        self.shared.changed.notify_all();
        wake(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let mut inner = self.shared.lock();
        while !inner.streams.is_empty() {
            inner = self
                .shared
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn shut_all(inner: &Inner) {
    for stream in inner.streams.values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Makes a thread that blocks in `accept` look at the flags.
fn wake(addr: SocketAddr) {
    let _ = TcpStream::connect_timeout(&addr, Duration::from_secs(1));
}

/// The accepting thread.
fn accept(
    mut listener: Option<TcpListener>,
    addr: SocketAddr,
    shared: &Arc<Shared>,
    stopped: &Receiver<()>,
) {
    let mut next_id = 0;
    loop {
        let Some(open) = &listener else {
            let mut inner = shared.lock();
            while inner.faults.refuse && !inner.stopping {
                inner = shared
                    .changed
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if inner.stopping {
                return;
            }
            drop(inner);
            listener = TcpListener::bind(addr).ok();
            if listener.is_none() {
                // Somebody else has the port for the moment.
                pause(stopped, Duration::from_millis(50));
            }
            continue;
        };
        let accepted = open.accept();
        let mut inner = shared.lock();
        if inner.stopping {
            return;
        }
        if inner.faults.refuse {
            drop(inner);
            listener = None;
            continue;
        }
        let Ok((stream, _)) = accepted else {
            drop(inner);
            // Out of file handles, most likely: some may be free soon.
            pause(stopped, Duration::from_millis(50));
            continue;
        };
        if inner.streams.len() >= shared.max_connections {
            inner.counters.turned_away += 1;
            continue;
        }
        let Ok(copy) = stream.try_clone() else {
            continue;
        };
        next_id += 1;
        inner.streams.insert(next_id, copy);
        inner.counters.connections += 1;
        let faults = inner.faults.clone();
        drop(inner);

        let ends = Ends {
            shared: Arc::clone(shared),
            id: next_id,
        };
        let stopped = stopped.clone();
        // Where no thread can be had, dropping `ends` closes the connection.
        let _ = thread::Builder::new()
            .name(format!("pj {addr} #{next_id}"))
            .stack_size(STACK)
            .spawn(move || {
                let connection = Connection {
                    shared: &ends.shared,
                    stopped: &stopped,
                    faults: &faults,
                    stream: &stream,
                };
                // An error is a client that went away.
                let _ = connection.serve();
            });
    }
}

/// Takes a connection off the list however its thread ends.
struct Ends {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(stream) = self.shared.lock().streams.remove(&self.id) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }
}

/// Waits; `false` when the projector stops meanwhile.
fn pause(stopped: &Receiver<()>, length: Duration) -> bool {
    length.is_zero() || stopped.recv_timeout(length) == Err(RecvTimeoutError::Timeout)
}

struct Connection<'a> {
    shared: &'a Shared,
    stopped: &'a Receiver<()>,
    faults: &'a Faults,
    stream: &'a TcpStream,
}

impl Connection<'_> {
    fn serve(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        if self.faults.silent {
            return self.listen_only();
        }
        if !pause(self.stopped, self.faults.greeting_delay) {
            return Ok(());
        }
        if self.faults.garbage == Garbage::Greeting {
            return self.send(GARBAGE).and_then(|()| self.listen_only());
        }
        if self.faults.greet_erra || self.is_locked() {
            return self.say(WRONG_PASSWORD);
        }

        let password = self.shared.password.as_deref();
        let mut session = Session::new(password, random(), self.faults.upper_case);
        self.say(&session.greeting())?;
        let mut lines = Lines::new(self.stream, self.shared.idle_close);
        while let Some(line) = lines.next_line()? {
            let goes_on = match session.admit(&line) {
                Admission::Wrong => {
                    self.count_wrong();
                    if !pause(self.stopped, self.faults.answer_delay) {
                        break;
                    }
                    self.say(WRONG_PASSWORD)?;
                    false
                }
                Admission::Command(line) => self.obey(line)?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Takes what comes and says nothing, until the client or the idle time
    /// ends it.
    fn listen_only(&self) -> io::Result<()> {
        let mut lines = Lines::new(self.stream, self.shared.idle_close);
        while lines.next_line()?.is_some() {}
        Ok(())
    }

    /// Answers a command; `false` ends the connection.
    fn obey(&self, line: &[u8]) -> io::Result<bool> {
        let Some(command) = Command::parse(line) else {
            return Ok(true);
        };
        let body = command.body.to_ascii_uppercase();
        let ignored = self.faults.ignores.contains(&body);
        let text = {
            let mut inner = self.shared.lock();
            inner.wrong_in_a_row = 0;
            inner.counters.commands += 1;
            *inner.counters.by_command.entry(body).or_default() += 1;
            answer(
                &command,
                &mut inner.machine,
                &self.faults.answers,
                Instant::now(),
            )
        };
        if ignored {
            return Ok(true);
        }
        if self.faults.close_before_answer || !pause(self.stopped, self.faults.answer_delay) {
            return Ok(false);
        }
        match self.faults.garbage {
            Garbage::Answers => self.send(GARBAGE)?,
            Garbage::Endless => loop {
                self.send(&[b'x'; 1024])?;
            },
            Garbage::Greeting | Garbage::None => self.say(&text)?,
        }
        Ok(!self.faults.close_after_answer)
    }

    fn is_locked(&self) -> bool {
        let inner = self.shared.lock();
        inner
            .faults
            .lock_after
            .is_some_and(|limit| inner.wrong_in_a_row >= limit)
    }

    fn count_wrong(&self) {
        let mut inner = self.shared.lock();
        inner.counters.wrong_passwords += 1;
        inner.wrong_in_a_row = inner.wrong_in_a_row.saturating_add(1);
    }

    fn say(&self, text: &str) -> io::Result<()> {
        let mut bytes = if self.faults.lower_case {
            text.to_lowercase().into_bytes()
        } else {
            text.as_bytes().to_vec()
        };
        bytes.push(END);
        self.send(&bytes)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        let Some(pieces) = self.faults.pieces else {
            return stream.write_all(bytes);
        };
        for piece in bytes.chunks(pieces.size.max(1)) {
            stream.write_all(piece)?;
            if !pause(self.stopped, pieces.pause) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    }
}

/// Lines of a client, with the idle limit.
struct Lines<'a> {
    stream: &'a TcpStream,
    idle_close: Duration,
    pending: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(stream: &'a TcpStream, idle_close: Duration) -> Self {
        Self {
            stream,
            idle_close,
            pending: Vec::new(),
        }
    }

    /// The next line without its end. `None`: the client closed, was idle or
    /// sent a line that is too long.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + self.idle_close;
        loop {
            if let Some(end) = self.pending.iter().position(|&b| b == END) {
                let rest = self.pending.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.truncate(end);
                return Ok((line.len() <= LINE_MAX).then_some(line));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.pending.len() > LINE_MAX || left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 512];
            let mut stream = self.stream;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => self.pending.extend_from_slice(&buffer[..n]),
                // The read timed out: the loop sees that no time is left.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// 32 random bits: the standard library's hasher is seeded by the system.
fn random() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    u32::from_be_bytes([
        hash as u8,
        (hash >> 8) as u8,
        (hash >> 16) as u8,
        (hash >> 24) as u8,
    ])
}

#[cfg(test)]
mod tests;
