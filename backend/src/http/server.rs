//! The listening socket and the fixed pool of worker threads.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use av_service::progress::{self, Progress};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::App;
use super::body::TooManyStuck;
use crate::stop::Stop;
use crate::threads::Ended;

/// How long a client may take to accept what is sent to it.
const SEND_LIMIT: Duration = Duration::from_secs(10);

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
}

/// Linux hands these options on to each accepted connection, and tiny_http
/// gives no other way to set them: a client that takes nothing any more, or
/// is gone without a word, must not keep a worker.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_write_timeout(Some(SEND_LIMIT))?;
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

/// The running server.
pub struct Server {
    server: Arc<tiny_http::Server>,
    workers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Answers requests with so many worker threads until `stop` is set.
    /// `ended` is told when the server cannot go on, and `progress` shows
    /// whether it does.
    ///
    /// # Errors
    /// [`ListenError::Start`].
    pub fn start(
        listener: Listener,
        app: &Arc<App>,
        workers: usize,
        stop: &Arc<Stop>,
        ended: &Ended,
        progress: &Progress,
    ) -> Result<Self, ListenError> {
        let address = listener.address;
        let server = tiny_http::Server::from_listener(listener.socket, None)
            .map_err(|error| ListenError::Start(error.to_string()))?;
        let server = Arc::new(server);
        let (nudged, nudge_stop) = (app.clone(), stop.clone());
        let nudge = crate::threads::spawn(
            "http-nudge",
            move || nudged.note_panic(),
            stop.clone(),
            progress,
            move || nudge(reachable(address), &nudge_stop),
        )
        .map_err(|error| ListenError::Start(error.to_string()))?;
        let mut workers: Vec<JoinHandle<()>> = (1..=workers.max(1))
            .map(|number| {
                let (server, app, stop, ended) =
                    (server.clone(), app.clone(), stop.clone(), ended.clone());
                let panicked = app.clone();
                crate::threads::spawn(
                    &format!("http-{number}"),
                    move || panicked.note_panic(),
                    stop.clone(),
                    progress,
                    move || work(&server, &app, &stop, &ended),
                )
            })
            .collect::<Result<_, _>>()
            .map_err(|error| ListenError::Start(error.to_string()))?;
        workers.push(nudge);
        Ok(Self { server, workers })
    }

    /// Wakes the workers, which end once `stop` is set.
    #[must_use]
    pub fn unblock(self) -> Vec<JoinHandle<()>> {
        for _ in &self.workers {
            self.server.unblock();
        }
        self.workers
    }
}

/// How long a connection can lie in tiny_http's queue.
const NUDGE_EVERY: Duration = Duration::from_millis(200);

/// Makes connections that end at once.
///
/// tiny_http has a thread for each open connection, and hands a new one to an
/// idle thread. Of two that arrive together both may be meant for the same
/// thread: the second then lies in a queue until some other connection ends,
/// which with a browser's idle ones takes minutes. The thread that takes a
/// connection of ours has nothing to do, and looks into the queue.
fn nudge(address: SocketAddr, stop: &Stop) {
    while !stop.wait(NUDGE_EVERY) {
        // Refused, or not in time: there is a next one.
        drop(TcpStream::connect_timeout(&address, NUDGE_EVERY));
    }
}

/// The address at which this machine reaches its own listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn work(server: &tiny_http::Server, app: &App, stop: &Stop, ended: &Ended) {
    while !stop.is_set() {
        progress::waits();
        let received = server.recv();
        progress::moves();
        match received {
            Ok(request) => {
                if let Err(TooManyStuck) = app.serve(request) {
                    ended.because(
                        "too many requests claimed bodies that no memory can hold; start again",
                    );
                    return;
                }
            }
            // Either somebody called `unblock`, or tiny_http's accepting
            // thread has ended: it does not survive an error of accept().
            Err(error) => {
                if !stop.is_set() {
                    ended.because(&format!(
                        "the HTTP server accepts nothing any more: {error}"
                    ));
                }
                return;
            }
        }
    }
}
