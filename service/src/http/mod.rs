//! The HTTP edge: sockets of our own, and workers that never wait for a
//! stranger.
//!
//! One thread, the [`Reactor`], has the listener and every connection that is
//! idle, sends its request or takes its answer slowly. It reads heads within
//! bounds, refuses those that do not say where they end, and asks the program
//! what to do with the others ([`Admit`]): answer at once, or put them into the
//! queue of a [`Class`]. Workers take [`Exchange`]s out of the queues, read
//! what is left of the body, and answer.
//!
//! ```text
//!   listener ─ accept ─▶ ┌─────────┐ ─ Exchange ─▶ queue of a class ─▶ worker
//!   connections ─ head ─▶│ Reactor │                                     │
//!            ◀─ answer ──└─────────┘◀─ connection, rest of an answer ────┘
//! ```
//!
//! HTTP/1.0 and 1.1 (RFC 9112): kept alive, one request of a connection at a
//! time, `Expect: 100-continue`, chunks in both directions. No TLS: that is a
//! proxy's.

mod answer;
mod chunks;
mod connection;
mod exchange;
mod frame;
mod host;
mod limits;
mod reactor;
mod request;
mod shared;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Select, bounded};

use self::shared::Shared;
use crate::progress;

pub use self::answer::{Answer, Bytes, Content};
pub use self::exchange::{BodyError, Exchange};
pub use self::frame::FrameError;
pub use self::host::Hosts;
pub use self::limits::{Limits, Reason};
pub use self::reactor::Reactor;
pub use self::request::{HeadError, Request, Version};
pub use tiny_http::Method;

/// Who asks, as far as the head tells. Each class has a queue of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// What must be answered while all else is full: health and metrics.
    Health,
    /// A site's agent with a token that is known.
    Agent,
    /// A person or a program that is logged in.
    Person,
    /// Everybody else.
    Stranger,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Health, Self::Agent, Self::Person, Self::Stranger];
}

/// What is to be done with a request, by its head.
#[derive(Debug)]
pub enum Admission {
    /// It is answered at once, whatever its body. Where that has not come, the
    /// connection ends.
    Answer(Answer),
    /// A worker answers it.
    Queue(Class),
}

/// Decides what is to be done with a request.
pub trait Admit {
    /// Decides by the head. Runs on the reactor's thread: it must wait for
    /// nothing.
    fn admit(&self, request: &Request) -> Admission;
}

/// How many requests wait for a worker, by class. Beyond, they are answered
/// with 503.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    /// Of [`Class::Health`].
    pub health: usize,
    /// Of [`Class::Agent`].
    pub agent: usize,
    /// Of [`Class::Person`].
    pub person: usize,
    /// Of [`Class::Stranger`].
    pub stranger: usize,
}

impl Queues {
    fn of(&self, class: Class) -> usize {
        match class {
            Class::Health => self.health,
            Class::Agent => self.agent,
            Class::Person => self.person,
            Class::Stranger => self.stranger,
        }
    }
}

/// What an edge counts.
#[derive(Debug, Clone, Default)]
pub struct EdgeCounts {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that this end closed, by reason.
    pub closed: Vec<(Reason, u64)>,
}

/// The workers' end of an edge. Clones are the same edge.
#[derive(Debug, Clone)]
pub struct Edge {
    shared: Arc<Shared>,
    /// In the order of [`Class::ALL`].
    queues: [Receiver<Exchange>; Class::ALL.len()],
}

impl Edge {
    /// Answers on a listening socket. [`Reactor::run`] must run on a thread.
    ///
    /// # Errors
    /// When the operating system refuses a descriptor.
    pub fn open(
        socket: TcpListener,
        limits: Limits,
        queues: Queues,
    ) -> io::Result<(Self, Reactor)> {
        let [health, agent, person, stranger] = Class::ALL.map(|class| bounded(queues.of(class)));
        let senders = [health.0, agent.0, person.0, stranger.0];
        let reactor = Reactor::new(socket, limits, senders)?;
        let edge = Self {
            shared: reactor.shared(),
            queues: [health.1, agent.1, person.1, stranger.1],
        };
        Ok((edge, reactor))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Waits for the next request of one of these classes, the first of them
    /// first. `None` once the edge is closed and its queues are empty.
    #[must_use]
    pub fn next(&self, classes: &[Class]) -> Option<Exchange> {
        let queues: Vec<_> = classes
            .iter()
            .filter_map(|class| self.queues.get(*class as usize))
            .collect();
        loop {
            let mut ended = 0;
            for queue in &queues {
                match queue.try_recv() {
                    Ok(exchange) => return Some(exchange),
                    Err(error) => ended += usize::from(error.is_disconnected()),
                }
            }
            if ended == queues.len() {
                return None;
            }
            let mut select = Select::new();
            for queue in &queues {
                select.recv(queue);
            }
            progress::waits();
            select.ready();
            progress::moves();
        }
    }

    /// How many requests of a class wait for a worker.
    #[must_use]
    pub fn waiting(&self, class: Class) -> usize {
        self.queues.get(class as usize).map_or(0, Receiver::len)
    }

    /// Accepts nothing any more. Requests that have come are answered, and
    /// their connections end.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.returned.wake();
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> EdgeCounts {
        EdgeCounts {
            connections: self.shared.open.load(Ordering::Relaxed),
            closed: self.shared.counts(),
        }
    }
}
