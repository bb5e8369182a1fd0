//! Parts of a driver that has many devices in flight on one thread: what it
//! is asked to do reaches it through an [`Inbox`], which wakes its
//! `mio::Poll`; what it waits for stands in [`Deadlines`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use av_service::progress;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};

use crate::supervisor::Health;

/// The token under which the inbox wakes the poll.
pub const INBOX: Token = Token(usize::MAX);
const STACK_BYTES: usize = 256 * 1024;
const RESTART_DELAY: Duration = Duration::from_millis(200);

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

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("❌ A driver's thread could not be woken: {error}");
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

/// Starts an engine's thread. `body` runs until its inbox is closed; when it
/// panics it is told to `health` and started again, with whatever it owns.
///
/// # Errors
/// When the system refuses the thread.
pub fn spawn(
    name: &'static str,
    health: &Health,
    mut body: impl FnMut() + Send + 'static,
) -> io::Result<()> {
    let health = health.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let _watched = health.progress().watch(name);
            // What the body kept across runs is an inbox's end and sockets;
            // what was in flight is dropped, and its replies say so.
            while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut body)) {
                health.record(name, &*payload);
                progress::moves();
                thread::sleep(RESTART_DELAY);
                log::warn!("🔁 Thread {name} starts again");
            }
        })?;
    Ok(())
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
    use mio::Events;

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

    #[test]
    fn an_idle_engine_ends_with_its_inbox() {
        // Many, because what would hinder it is a race.
        for _ in 0..50 {
            let mut poll = Poll::new().unwrap();
            let (inbox, work) = Inbox::<()>::new(&poll).unwrap();
            let (out, ended) = unbounded::<()>();
            spawn("engine-test", &Health::default(), move || {
                let _out = &out;
                let mut events = Events::with_capacity(8);
                while !matches!(work.try_recv(), Err(error) if error.is_disconnected()) {
                    poll.poll(&mut events, None).unwrap();
                }
            })
            .unwrap();
            thread::sleep(Duration::from_millis(5));
            drop(inbox);
            assert!(ended.recv().is_err(), "the thread has ended");
        }
    }

    #[test]
    fn an_engine_survives_a_panic_and_ends_with_its_inbox() {
        let mut poll = Poll::new().unwrap();
        let (inbox, work) = Inbox::new(&poll).unwrap();
        let health = Health::default();
        let (out, seen) = unbounded();
        spawn("engine-test", &health, move || {
            let mut events = Events::with_capacity(8);
            loop {
                match work.try_recv() {
                    Ok(13) => panic!("to order"),
                    Ok(item) => out.send(item).unwrap(),
                    Err(error) if error.is_disconnected() => return,
                    Err(_) => poll.poll(&mut events, None).unwrap(),
                }
            }
        })
        .unwrap();
        for item in [1, 13, 2] {
            inbox.put(item);
        }
        assert_eq!((seen.recv().unwrap(), seen.recv().unwrap()), (1, 2));
        assert_eq!(health.panics().len(), 1);
        drop(inbox);
        assert!(seen.recv().is_err(), "the thread has ended");
    }
}
