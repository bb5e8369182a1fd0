//! What the reactor, the workers and the program share of an edge.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::exchange::Returned;
use super::limits::Reason;
use crate::engine::Inbox;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) address: SocketAddr,
    /// Connections that come back from workers.
    pub(super) returned: Inbox<Returned>,
    pub(super) closed: AtomicBool,
    pub(super) open: AtomicUsize,
    /// In the order of [`Reason::ALL`].
    reasons: [AtomicU64; Reason::ALL.len()],
}

impl Shared {
    pub(super) fn new(address: SocketAddr, returned: Inbox<Returned>) -> Self {
        Self {
            address,
            returned,
            closed: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            reasons: Default::default(),
        }
    }

    /// Counts a connection that is closed by this end.
    pub(super) fn count(&self, reason: Reason) {
        if let Some(count) = self.reasons.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        log::debug!("a connection is closed: {reason}");
    }

    pub(super) fn counts(&self) -> Vec<(Reason, u64)> {
        Reason::ALL
            .into_iter()
            .zip(&self.reasons)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
            .collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}
