//! The listening socket and the fixed pool of worker threads.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use av_service::http::{Class, Edge, Limits, Queues, Reactor};
use av_service::progress::Progress;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::App;
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

    /// Takes connections, at most this number at a time.
    ///
    /// # Errors
    /// [`ListenError::Start`].
    pub fn open(self, connections: usize) -> Result<(Edge, Reactor), ListenError> {
        let limits = Limits {
            connections,
            ..Limits::default()
        };
        Edge::open(self.socket, limits, QUEUES)
            .map_err(|error| ListenError::Start(error.to_string()))
    }
}

/// Linux hands these options on to each accepted connection: a client that is
/// gone without a word must not keep a connection for good.
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

/// How many requests wait for a worker. Each holds its connection and at most
/// 32 KiB.
const QUEUES: Queues = Queues {
    health: 16,
    agent: 1024,
    person: 256,
    stranger: 64,
};
/// More workers than requests are worked on at a time: as many bodies may be on
/// their way, and a sender that stalls holds none of the others.
pub(super) const UPLOADS: usize = 20;
/// Workers for what must be answered while all else is full.
const HEALTH_WORKERS: usize = 2;

/// The running server.
pub struct Server {
    edge: Edge,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Works on this number of requests at a time until [`Server::close`].
    /// `ended` is told when the server cannot go on, and `progress` shows
    /// whether it does.
    ///
    /// # Errors
    /// [`ListenError::Start`].
    pub fn start(
        edge: &Edge,
        reactor: Reactor,
        app: &Arc<App>,
        workers: usize,
        stop: &Arc<Stop>,
        ended: &Ended,
        progress: &Progress,
    ) -> Result<Self, ListenError> {
        let refused = |error: std::io::Error| ListenError::Start(error.to_string());
        let mut threads = Vec::new();
        let mut start = |name: &str, work: Box<dyn Fn() + Send>| {
            let panicked = app.clone();
            crate::threads::spawn(
                name,
                move || panicked.note_panic(),
                stop.clone(),
                progress,
                work,
            )
            .map(|thread| threads.push(thread))
            .map_err(refused)
        };
        let (admit, ended) = (app.clone(), ended.clone());
        let reactor = Mutex::new(reactor);
        start(
            "edge",
            Box::new(move || {
                let mut reactor = reactor.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = reactor.run(&*admit) {
                    ended.because(&format!("the HTTP server: {error}"));
                }
            }),
        )?;
        let work = |classes: &'static [Class]| {
            let (edge, app) = (edge.clone(), app.clone());
            Box::new(move || {
                while let Some(exchange) = edge.next(classes) {
                    app.serve(exchange);
                }
            })
        };
        for number in 1..=HEALTH_WORKERS {
            start(&format!("health-{number}"), work(&[Class::Health]))?;
        }
        let workers = workers.max(1) + UPLOADS;
        for number in 0..workers {
            let name = format!("http-{}", number + 1);
            start(&name, work(classes(number, workers)))?;
        }
        Ok(Self {
            edge: edge.clone(),
            threads,
        })
    }

    /// Accepts nothing any more. The threads end once what has come is
    /// answered.
    #[must_use]
    pub fn close(self) -> Vec<JoinHandle<()>> {
        self.edge.close();
        self.threads
    }
}

/// What a worker works on: a quarter of them for anybody, a quarter for agents
/// alone.
fn classes(number: usize, workers: usize) -> &'static [Class] {
    let quarter = workers / 4;
    if number < quarter {
        &[Class::Agent, Class::Person, Class::Stranger]
    } else if number < workers - quarter {
        &[Class::Agent, Class::Person]
    } else {
        &[Class::Agent]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_have_a_quarter_of_the_workers_and_agents_one_of_their_own() {
        for workers in [21, 28, 276] {
            let serving = |class| {
                let all = (0..workers).map(|number| classes(number, workers));
                all.filter(|classes| classes.contains(&class)).count()
            };
            assert_eq!(serving(Class::Stranger), workers / 4);
            assert_eq!(serving(Class::Person), workers - workers / 4);
            assert_eq!(serving(Class::Agent), workers);
        }
    }
}
