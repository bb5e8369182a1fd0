//! The HTTP edge: tiny_http, kept alive and kept from being filled.
//!
//! tiny_http accepts connections on a thread of its own that ends at the first
//! error (no file descriptor, no thread), gives each connection a thread for as
//! long as its peer likes, and reads heads of any length. [`Edge`] starts a new
//! accepting thread where one has ended, on the same listening socket, so that
//! whoever connected meanwhile is answered; and it closes connections that hold
//! on without getting on: see [`Limits`].

mod frame;
mod knocks;
mod respond;
mod socket;
mod ward;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use av_proto::sort::sort_by;
use socket2::SockRef;
use tiny_http::{Request, Response, Server};

pub use self::frame::{FrameError, check_frame};
use self::knocks::Knocks;
use self::respond::Sender;
pub use self::respond::{TooManyStuck, came_with_head};
use self::socket::{Descriptors, bytes_received};
use self::ward::{Body, Connection, Talk};
pub use self::ward::{Limits, Reason};
use crate::progress;

/// How long [`Edge::recv`] waits at most.
const RECV_LIMIT: Duration = Duration::from_millis(250);
/// Between two looks at the connections.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long the accepting thread may leave a knock without an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// So long a server whose accepting thread has ended answers what it accepted.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// How long what is left of a flood is thrown away.
const FLOODED_FOR: Duration = Duration::from_secs(30);
/// File descriptors that are not for connections.
const OTHER_DESCRIPTORS: u64 = 128;

/// The listening socket, and tiny_http over it. Clones are the same edge.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

struct Shared {
    socket: TcpListener,
    address: SocketAddr,
    limits: Limits,
    sender: Sender,
    /// Held by who waits for the next request.
    turn: Mutex<()>,
    servers: Mutex<Servers>,
    /// The accepting thread has ended.
    ended: AtomicBool,
    /// Too many connections stay though they were closed.
    stuck: AtomicBool,
    /// Nothing is accepted any more.
    shut: AtomicBool,
    talks: Mutex<HashMap<SocketAddr, Talk>>,
    /// Connections that were closed with requests in tiny_http's queue, which
    /// has no end: nobody waits for these.
    flooded: Mutex<Vec<(SocketAddr, Instant)>>,
    connections: AtomicUsize,
    reopened: AtomicU64,
    /// In the order of [`Reason::ALL`].
    closed: [AtomicU64; Reason::ALL.len()],
}

struct Servers {
    current: Arc<Server>,
    /// Those whose accepting thread has ended, and since when.
    retired: Vec<(Arc<Server>, Instant)>,
}

/// What an edge counts.
#[derive(Debug, Clone, Default)]
pub struct EdgeCounts {
    /// Connections that are open.
    pub connections: usize,
    /// How often a new accepting thread was started.
    pub reopened: u64,
    /// Connections that were closed, by reason.
    pub closed: Vec<(Reason, u64)>,
}

impl Edge {
    /// Answers on a listening socket. [`Edge::guard`] must run on a thread.
    ///
    /// # Errors
    /// When the operating system refuses a thread or a descriptor.
    pub fn open(socket: TcpListener, limits: Limits) -> io::Result<Self> {
        count_panics();
        // Linux hands it on to each accepted connection, and tiny_http gives no
        // other way to set it.
        SockRef::from(&socket).set_write_timeout(Some(limits.send))?;
        let address = socket.local_addr()?;
        let current = serve(socket.try_clone()?)?;
        Ok(Self(Arc::new(Shared {
            socket,
            address,
            limits: Limits {
                connections: limits.connections.min(affordable()),
                ..limits
            },
            sender: Sender::new(limits.stuck),
            turn: Mutex::default(),
            servers: Mutex::new(Servers {
                current,
                retired: Vec::new(),
            }),
            ended: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            talks: Mutex::default(),
            flooded: Mutex::default(),
            connections: AtomicUsize::new(0),
            reopened: AtomicU64::new(0),
            closed: Default::default(),
        })))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The next request, or `None` where none came for a moment, so that the
    /// caller can look whether it must end.
    ///
    /// # Errors
    /// [`TooManyStuck`]: the program must start anew.
    pub fn recv(&self) -> Result<Option<Arrival>, TooManyStuck> {
        // One waits, and the others wait for it: what a request says of its
        // connection must be known before anybody is handed the next of that
        // connection.
        let turn = lock(&self.0.turn);
        if self.0.stuck.load(Ordering::Relaxed) {
            return Err(TooManyStuck);
        }
        let new = self.wait().and_then(|request| self.park(request));
        let Some(request) = new.or_else(|| self.parked()) else {
            return Ok(None);
        };
        let Some(talking) = self.talk(&request) else {
            self.unblock(1);
            drop(turn);
            return self.0.sender.discard(request).map(|()| None);
        };
        let frame = check_frame(&request);
        if frame.is_err() {
            talking.refuse();
        }
        drop(turn);
        Ok(Some(Arrival {
            request,
            talking,
            frame,
            body_read: false,
        }))
    }

    fn wait(&self) -> Option<Request> {
        let (current, retired) = {
            let servers = lock(&self.0.servers);
            let retired: Vec<_> = servers.retired.iter().map(|(old, _)| old.clone()).collect();
            (servers.current.clone(), retired)
        };
        for old in &retired {
            if let Ok(Some(request)) = old.try_recv() {
                return Some(request);
            }
        }
        let limit = match retired.is_empty() {
            true => RECV_LIMIT,
            false => Duration::from_millis(20),
        };
        match current.recv_timeout(limit) {
            Ok(received) => received,
            Err(error) => {
                log::error!("the HTTP server accepts nothing any more: {error}");
                self.0.ended.store(true, Ordering::SeqCst);
                None
            }
        }
    }

    /// A request that was put aside and whose turn has come: looked for where
    /// nothing new has come, or [`Edge::unblock`] has said so.
    fn parked(&self) -> Option<Request> {
        let mut talks = lock(&self.0.talks);
        talks.values_mut().find_map(Talk::next)
    }

    /// Puts a request aside where one before it is being answered: whoever
    /// sends many and takes no answer is to hold one thread, not all.
    fn park(&self, request: Request) -> Option<Request> {
        if let Some(peer) = request.remote_addr() {
            if let Some(talk) = lock(&self.0.talks).get_mut(peer) {
                if talk.is_busy() {
                    talk.parked.push_back(request);
                    return None;
                }
            }
        }
        Some(request)
    }

    /// Notes that a request is answered, until the answer is dropped. `None`
    /// where its connection was refused: nothing that came on it later is to
    /// be believed.
    fn talk(&self, request: &Request) -> Option<Talking> {
        let peer = request.remote_addr().copied();
        let body = Body::of(request);
        if let Some(peer) = peer {
            if lock(&self.0.flooded)
                .iter()
                .any(|(flooded, _)| *flooded == peer)
            {
                return None;
            }
            let mut talks = lock(&self.0.talks);
            let talk = talks.entry(peer).or_default();
            if talk.refused {
                return None;
            }
            talk.begins(head_length(request), body);
        }
        Some(Talking {
            edge: self.clone(),
            peer,
            body,
        })
    }

    /// Wakes so many that wait in [`Edge::recv`].
    pub fn unblock(&self, waiting: usize) {
        let current = lock(&self.0.servers).current.clone();
        for _ in 0..waiting {
            current.unblock();
        }
    }

    /// Accepts nothing any more; answers whether it did until now.
    pub fn close(&self) -> bool {
        let accepted = !self.0.shut.swap(true, Ordering::SeqCst);
        if accepted {
            // Ends the accepting thread, which has a descriptor of its own.
            let _ = SockRef::from(&self.0.socket).shutdown(Shutdown::Both);
        }
        accepted
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> EdgeCounts {
        EdgeCounts {
            connections: self.0.connections.load(Ordering::Relaxed),
            reopened: self.0.reopened.load(Ordering::Relaxed),
            closed: Reason::ALL
                .into_iter()
                .zip(&self.0.closed)
                .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
                .collect(),
        }
    }

    /// Watches over the accepting thread and the connections, every `pause` and
    /// sooner where many connect at once, until `stopped` says so: it waits as
    /// long as it is told.
    ///
    /// # Errors
    /// When `/proc` cannot be read, which the program needs.
    pub fn guard(&self, pause: Duration, stopped: impl Fn(Duration) -> bool) -> io::Result<()> {
        let mut descriptors = Descriptors::open()?;
        let mut spare = self.0.socket.try_clone().ok();
        let mut knocks = Knocks::new(self.0.address);
        let mut seen = HashMap::new();
        let mut looked = Instant::now();
        let mut panics = PANICS.load(Ordering::SeqCst);
        while !stopped(pause / knocks.hurry()) {
            progress::moves();
            let before = std::mem::replace(&mut panics, PANICS.load(Ordering::SeqCst));
            if panics != before {
                self.0.ended.store(true, Ordering::SeqCst);
            }
            if !self.0.shut.load(Ordering::SeqCst) {
                let silent = knocks.knock(&mut descriptors) > SILENCE_LIMIT;
                if silent {
                    log::error!(
                        "the HTTP server does not answer its own knocks: it is started anew"
                    );
                }
                if silent || self.0.ended.load(Ordering::SeqCst) {
                    self.reopen(&mut spare);
                    knocks.heard();
                }
            }
            if spare.is_none() {
                spare = self.0.socket.try_clone().ok();
            }
            self.retire();
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look(&mut descriptors, &mut seen);
            }
        }
        Ok(())
    }

    /// Starts an accepting thread on the same socket. Where that fails, the
    /// next round tries again.
    fn reopen(&self, spare: &mut Option<TcpListener>) {
        let started = match spare.take() {
            Some(socket) => serve(socket),
            None => self.0.socket.try_clone().and_then(serve),
        };
        match started {
            Ok(server) => {
                let mut servers = lock(&self.0.servers);
                let old = std::mem::replace(&mut servers.current, server);
                servers.retired.push((old, Instant::now()));
                self.0.ended.store(false, Ordering::SeqCst);
                let times = self.0.reopened.fetch_add(1, Ordering::Relaxed) + 1;
                log::warn!("the HTTP server accepts again; started anew {times} time(s)");
            }
            Err(error) => log::error!("the HTTP server does not start anew: {error}"),
        }
    }

    fn retire(&self) {
        let mut servers = lock(&self.0.servers);
        let (gone, kept) = std::mem::take(&mut servers.retired)
            .into_iter()
            .partition(|(_, since)| since.elapsed() > RETIRE_AFTER);
        servers.retired = kept;
        drop(servers);
        // Dropping one connects to it, which takes its time.
        drop::<Vec<_>>(gone);
    }

    /// Looks at each connection, and closes those that hold on.
    fn look(&self, descriptors: &mut Descriptors, seen: &mut HashMap<u64, Option<Connection>>) {
        let now = Instant::now();
        let open = descriptors.sockets();
        seen.retain(|inode, _| open.contains_key(inode));
        for (&inode, &descriptor) in &open {
            let connection = seen.entry(inode).or_insert_with(|| {
                let (local, peer) = descriptors.ends(descriptor, inode)?;
                (local.port() == self.0.address.port()).then(|| Connection::new(peer, now))
            });
            if let Some(connection) = connection {
                connection.received(bytes_received(descriptor));
            }
        }
        for (inode, reason) in self.judge(seen, now) {
            let Some(&descriptor) = open.get(&inode) else {
                continue;
            };
            match reason {
                // Its sender is to learn what it did.
                Reason::SlowBody => descriptors.shut(descriptor, inode, Shutdown::Read),
                Reason::Flood => descriptors.abort(descriptor, inode),
                _ => descriptors.shut(descriptor, inode, Shutdown::Both),
            }
            if let Some(count) = self.0.closed.get(reason as usize) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            log::debug!("a connection was closed: {reason}");
        }
    }

    /// Which connections are to be closed, and why.
    fn judge(
        &self,
        seen: &mut HashMap<u64, Option<Connection>>,
        now: Instant,
    ) -> Vec<(u64, Reason)> {
        // Those of a server that accepts nothing any more change over to the
        // new one, as soon as they are between two requests.
        let retired = lock(&self.0.servers).retired.last().map(|(_, at)| *at);
        let mut count = 0;
        let mut stuck = 0;
        let mut closing = Vec::new();
        // Those that may stay, and since when they are idle.
        let mut idle = Vec::new();
        let mut flooded = lock(&self.0.flooded);
        flooded.retain(|(_, since)| since.elapsed() < FLOODED_FOR);
        let mut talks = lock(&self.0.talks);
        for (&inode, connection) in seen.iter_mut() {
            let Some(connection) = connection else {
                continue;
            };
            count += 1;
            stuck += usize::from(connection.is_stuck(now, &self.0.limits));
            let mut talk = talks.get_mut(&connection.peer());
            if let Some(talk) = &mut talk {
                talk.present = true;
            }
            match connection.judge(talk, now, &self.0.limits, retired) {
                Some(reason) => {
                    connection.closes(now);
                    if reason == Reason::Flood {
                        flooded.push((connection.peer(), now));
                    }
                    closing.push((inode, reason));
                }
                None => idle.extend(connection.idle_since().map(|since| (since, inode))),
            }
        }
        talks.retain(|_, talk| std::mem::take(&mut talk.present) || talk.is_busy());
        drop((talks, flooded));
        self.0.connections.store(count, Ordering::Relaxed);
        if stuck > self.0.limits.stuck {
            self.0.stuck.store(true, Ordering::Relaxed);
        }
        let excess = (count - closing.len()).saturating_sub(self.0.limits.connections);
        if excess > 0 {
            // Whoever has got on with nothing for the longest goes first.
            sort_by(&mut idle, Ord::cmp);
            let longest = idle.into_iter().take(excess);
            closing.extend(longest.map(|(_, inode)| (inode, Reason::TooMany)));
        }
        closing
    }
}

/// A request that has arrived.
pub struct Arrival {
    /// The request.
    pub request: Request,
    /// Whether it is clear where it ends. Where it is not, it is to be
    /// answered with 400, and nothing else of its connection is handed out.
    pub frame: Result<(), FrameError>,
    talking: Talking,
    body_read: bool,
}

impl Arrival {
    /// The length of the body, where it is known.
    #[must_use]
    pub fn body_length(&self) -> Option<usize> {
        match self.talking.body {
            // tiny_http says that it does not know.
            Body::Length(0) => Some(0),
            _ => self.request.body_length(),
        }
    }

    /// Reads the body with `read`. Where it has not come by the deadline, the
    /// connection is closed, which ends the read.
    ///
    /// # Errors
    /// What `read` says.
    pub fn read_body<T, E>(
        &mut self,
        deadline: Instant,
        read: impl FnOnce(&mut Request) -> Result<T, E>,
    ) -> Result<T, E> {
        self.talking.reads_until(Some(deadline));
        let body = read(&mut self.request);
        self.talking.reads_until(None);
        self.body_read = body.is_ok();
        body
    }

    /// Answers.
    ///
    /// # Errors
    /// [`TooManyStuck`]: the program must start anew.
    pub fn respond(
        self,
        response: Response<impl io::Read + Send + 'static>,
    ) -> Result<(), TooManyStuck> {
        let edge = self.talking.edge.clone();
        edge.0
            .sender
            .send(self.request, self.talking, self.body_read, response)
    }
}

/// A request that is being answered.
struct Talking {
    edge: Edge,
    peer: Option<SocketAddr>,
    body: Body,
}

impl Talking {
    fn reads_until(&self, deadline: Option<Instant>) {
        self.note(|talk| talk.reads_until = deadline);
    }

    /// What follows on the connection is no request, and is not answered.
    fn refuse(&self) {
        self.note(|talk| talk.refused = true);
    }

    fn note(&self, change: impl FnOnce(&mut Talk)) {
        if let Some(peer) = &self.peer {
            if let Some(talk) = lock(&self.edge.0.talks).get_mut(peer) {
                change(talk);
            }
        }
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let body = self.body;
        let mut more = false;
        self.note(|talk| {
            talk.ends(body);
            more = talk.is_busy();
        });
        if more {
            self.edge.unblock(1);
        }
    }
}

/// The panics of threads without a name.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of tiny_http's threads, which have no name: its accepting
/// thread ends so where there is no thread for a connection, or no second
/// descriptor. Whatever else is done about panics is done too.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Those that read requests panic where their peer has gone already,
            // and are nobody else's end.
            let reads = info
                .location()
                .is_some_and(|place| place.file().ends_with("/client.rs"));
            if std::thread::current().name().is_none() && !reads {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            others(info);
        }));
    });
}

/// tiny_http on a socket. It panics where there is no thread left.
fn serve(socket: TcpListener) -> io::Result<Arc<Server>> {
    catch_unwind(|| Server::from_listener(socket, None))
        .map_err(|_| io::Error::other("no thread"))?
        .map(Arc::new)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// How many connections the process has descriptors for: tiny_http takes two
/// for each. The soft limit is raised as far as it goes.
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
    let connections = descriptors.saturating_sub(OTHER_DESCRIPTORS.min(descriptors / 2)) / 2;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// As many bytes as the head of a request had, where it was written plainly.
fn head_length(request: &Request) -> u64 {
    let line = request.method().as_str().len() + request.url().len() + " HTTP/1.1\r\n ".len();
    let headers: usize = request
        .headers()
        .iter()
        .map(|header| {
            header.field.as_str().as_str().len() + header.value.as_str().len() + ": \r\n".len()
        })
        .sum();
    (line + headers + "\r\n".len()) as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
