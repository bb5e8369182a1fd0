//! The listening socket and the fixed pool of worker threads.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use av_service::http::{Edge, Limits};
use av_service::progress::{self, Progress};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::App;
use super::lead::Leads;
use crate::stop::Stop;
use crate::threads::Ended;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is not an address.
    #[error("{0:?} is not an address to listen on: write it as IP:PORT, such as 0.0.0.0:8000")]
    Address(String),
    /// It is one, but it cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// The server did not start.
    #[error("the HTTP server does not start: {0}")]
    Start(String),
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `IP:PORT` or `NAME:PORT`.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(text: &str) -> Result<Self, ListenError> {
        let address = text
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| ListenError::Address(text.to_owned()))?;
        let socket = listen(address).map_err(|error| ListenError::Bind { address, error })?;
        let address = socket
            .local_addr()
            .map_err(|error| ListenError::Bind { address, error })?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections, at most so many at a time.
    ///
    /// # Errors
    /// [`ListenError::Start`].
    pub fn open(self, connections: usize) -> Result<Edge, ListenError> {
        let limits = Limits {
            connections,
            ..Limits::default()
        };
        Edge::open(self.socket, limits).map_err(|error| ListenError::Start(error.to_string()))
    }
}

/// Linux hands these options on to each accepted connection, and tiny_http
/// gives no other way to set them: a client that is gone without a word must
/// not keep a worker. One that takes nothing any more is the edge's business.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5))
            .with_retries(3),
    )?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// So many more threads than requests are answered at a time: as many bodies
/// may be on their way, and a sender that stalls holds none of the others.
pub(super) const UPLOADS: usize = 24;
/// How often the edge is looked after. A connection lies in tiny_http's queue
/// no longer than that.
const GUARD_EVERY: Duration = Duration::from_millis(200);

/// The running server.
pub struct Server {
    edge: Edge,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Answers so many requests at a time until `stop` is set. `ended` is told
    /// when the server cannot go on, and `progress` shows whether it does.
    ///
    /// # Errors
    /// [`ListenError::Start`].
    pub fn start(
        edge: &Edge,
        app: &Arc<App>,
        workers: usize,
        stop: &Arc<Stop>,
        ended: &Ended,
        progress: &Progress,
    ) -> Result<Self, ListenError> {
        let refused = |error: std::io::Error| ListenError::Start(error.to_string());
        let (guarded, panicked) = (edge.clone(), app.clone());
        let (guard_stop, guard_ended) = (stop.clone(), ended.clone());
        let guard = crate::threads::spawn(
            "http-guard",
            move || panicked.note_panic(),
            stop.clone(),
            progress,
            move || {
                if let Err(error) = guarded.guard(GUARD_EVERY, |pause| guard_stop.wait(pause)) {
                    guard_ended.because(&format!("/proc/self/fd: {error}"));
                }
            },
        )
        .map_err(refused)?;
        let mut threads = vec![guard];
        let leads = Arc::<Leads>::default();
        for number in 1..=workers.max(1) + UPLOADS {
            let (edge, app, leads) = (edge.clone(), app.clone(), leads.clone());
            let (stop, ended) = (stop.clone(), ended.clone());
            let panicked = app.clone();
            threads.push(
                crate::threads::spawn(
                    &format!("http-{number}"),
                    move || panicked.note_panic(),
                    stop.clone(),
                    progress,
                    move || work(&edge, &app, &leads, &stop, &ended),
                )
                .map_err(refused)?,
            );
        }
        Ok(Self {
            edge: edge.clone(),
            threads,
        })
    }

    /// Wakes the threads, which end once `stop` is set.
    #[must_use]
    pub fn unblock(self) -> Vec<JoinHandle<()>> {
        self.edge.unblock(self.threads.len());
        self.threads
    }
}

fn work(edge: &Edge, app: &App, leads: &Leads, stop: &Stop, ended: &Ended) {
    while !stop.is_set() {
        progress::waits();
        let lead = leads.take();
        while !stop.is_set() && lead.listens() {
            progress::waits();
            let received = edge.recv();
            progress::moves();
            lead.serves();
            let served = match received {
                Ok(Some(arrival)) => app.serve(arrival, &lead),
                Ok(None) => Ok(()),
                Err(stuck) => Err(stuck),
            };
            if let Err(stuck) = served {
                ended.because(&stuck.to_string());
                return;
            }
        }
    }
}
