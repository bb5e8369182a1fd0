//! Parts of a thread that has many peers in flight: what it is asked to do
//! reaches it through an [`Inbox`], which wakes its `mio::Poll`; what it waits
//! for is in [`Deadlines`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};

/// The token under which the inbox wakes the poll.
pub const INBOX: Token = Token(usize::MAX);

/// Hands work to an engine. The engine ends when the last clone is gone.
#[derive(Debug)]
pub struct Inbox<T> {
    // Dropped before the waker wakes: see `Drop`.
    queue: Option<Sender<T>>,
    waker: Arc<Waker>,
}

/// The end from which an engine takes.
///
/// It keeps the waker alive: closed with the last inbox, it would be gone
/// before the engine saw that it had been woken.
#[derive(Debug)]
pub struct Work<T> {
    queue: Receiver<T>,
    _waker: Arc<Waker>,
}

impl<T> Deref for Work<T> {
    type Target = Receiver<T>;

    fn deref(&self) -> &Receiver<T> {
        &self.queue
    }
}

impl<T> Inbox<T> {
    /// An inbox that wakes `poll` with [`INBOX`], and the end from which the
    /// engine takes. Its queue is not bounded: it holds at most one entry for
    /// each probe of a sweep.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(poll: &Poll) -> io::Result<(Self, Work<T>)> {
        let (sender, receiver) = unbounded();
        let waker = Arc::new(Waker::new(poll.registry(), INBOX)?);
        let work = Work {
            queue: receiver,
            _waker: Arc::clone(&waker),
        };
        let inbox = Self {
            queue: Some(sender),
            waker,
        };
        Ok((inbox, work))
    }

    /// Gives `item` to the engine.
    pub fn put(&self, item: T) {
        if let Some(queue) = &self.queue {
            // An engine that is gone dropped the receiver, and the item with
            // the reply in it says so.
            let _ = queue.send(item);
            self.wake();
        }
    }

    /// Wakes the engine without giving it anything.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("❌ A thread could not be woken: {error}");
        }
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // The engine sees that its queue is closed only when it looks.
        self.queue = None;
        self.wake();
    }
}

/// What an engine waits for, the earliest first.
#[derive(Debug)]
pub struct Deadlines<K>(BinaryHeap<Reverse<(Instant, K)>>);

impl<K: Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<K: Ord> Deadlines<K> {
    /// `key` is due at `at`. A key may be there several times: who takes one
    /// out looks whether it is still wanted.
    pub fn add(&mut self, at: Instant, key: K) {
        self.0.push(Reverse((at, key)));
    }

    /// Takes out the earliest that is due at `now`.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, key))| key)
    }

    /// How long until the next; `None` where there is none.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.0
            .peek()
            .map(|Reverse((at, _))| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order() {
        let t = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.add(t + Duration::from_secs(2), 'b');
        deadlines.add(t + Duration::from_secs(1), 'a');
        assert_eq!(deadlines.due(t), None);
        assert_eq!(deadlines.wait(t), Some(Duration::from_secs(1)));
        let late = t + Duration::from_secs(3);
        assert_eq!(deadlines.due(late), Some('a'));
        assert_eq!(deadlines.due(late), Some('b'));
        assert_eq!(deadlines.due(late), None);
        assert_eq!(deadlines.wait(late), None);
    }
}
