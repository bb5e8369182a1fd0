//! The thread of a driver that has many devices in flight. What it is asked to
//! do and what it waits for are `av_service::engine`'s.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

pub use av_service::engine::{Deadlines, INBOX, Inbox, Work};
use av_service::progress;

use crate::supervisor::Health;

const STACK_BYTES: usize = 256 * 1024;
const RESTART_DELAY: Duration = Duration::from_millis(200);

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

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;
    use mio::{Events, Poll};

    use super::*;

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
