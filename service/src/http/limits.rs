//! What connections may take, and why one is closed.

use std::fmt;
use std::time::Duration;

/// The most bytes of a request's head: the request line and all fields.
pub(super) const HEAD_MAX: usize = 16 << 10;
/// The most fields of a head.
pub(super) const FIELDS_MAX: usize = 100;
/// A body of at most this length is awaited by the reactor, so that a sender
/// that stalls holds no worker.
pub(super) const READ_AHEAD: usize = 16 << 10;
/// The most bytes that wait in memory for the rest of a head or a body, over
/// all connections. Beyond it, the one that has waited longest is closed.
pub(super) const WAITING_MAX: usize = 16 << 20;
/// The slowest peer that is sent an answer, in bytes a second.
pub(super) const SLOWEST: u64 = 8 << 10;
/// How long what still comes is discarded after the last answer of a
/// connection, so that its peer reads the answer (RFC 9112, section 9.6): a
/// proxy that is cut off while it sends tells of an error instead.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// How long nothing may come meanwhile.
pub(super) const LINGER_SILENT: Duration = Duration::from_secs(2);
/// How much is discarded, in bytes.
pub(super) const LINGER_MAX: usize = 64 << 20;
/// How long answers may take to be sent once the edge is closed.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum open connections. With more, the one that has been idle for the
    /// longest is closed. Bounded by the process's descriptors.
    pub connections: usize,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// From the end of a head to the end of a short body.
    pub body: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Without the peer taking a byte of an answer.
    pub send: Duration,
}

impl Default for Limits {
    /// Idle connections are kept somewhat longer than proxies keep theirs
    /// (nginx: 60 s).
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(20),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            send: Duration::from_secs(10),
        }
    }
}

/// Why a connection was closed by this end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The head of a request did not end in time.
    SlowHead,
    /// Its body did not.
    SlowBody,
    /// The peer did not take its answer in time.
    SlowReader,
    /// No request came for long.
    Idle,
    /// The head is too long, or more came than is answered.
    Flood,
    /// There were too many connections, or too few descriptors.
    TooMany,
    /// The head is malformed or does not say where the request ends.
    Refused,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::SlowHead,
        Self::SlowBody,
        Self::SlowReader,
        Self::Idle,
        Self::Flood,
        Self::TooMany,
        Self::Refused,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Flood => "flood",
            Self::TooMany => "too_many",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
