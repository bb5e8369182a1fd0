//! Which echoes are in flight on one socket, and whose each answer is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::packet::{Echo, Heard, Mark};

/// The echoes in flight on one socket, shared by the probes that send them
/// and the thread that receives.
#[derive(Debug)]
pub(super) struct Exchange {
    identifier: u16,
    /// The socket's own random word.
    socket: u64,
    flying: Mutex<Flying>,
    duplicates: AtomicU64,
    late: AtomicU64,
    unrelated: AtomicU64,
}

#[derive(Debug, Default)]
struct Flying {
    next: u16,
    /// By sequence number.
    echoes: HashMap<u16, InFlight>,
}

#[derive(Debug)]
struct InFlight {
    target: IpAddr,
    cookie: u64,
    events: Sender<Event>,
    answered: bool,
}

/// What a probe hears of one of its echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The target answered.
    Answered { sequence: u16, at: Instant },
    /// Somebody on the way, or the target itself, said that it cannot be had.
    Failed {
        sequence: u16,
        from: IpAddr,
        reason: &'static str,
    },
}

/// The echoes of one probe; they leave the exchange with it.
#[derive(Debug)]
pub(super) struct Passage {
    exchange: Arc<Exchange>,
    target: IpAddr,
    cookie: u64,
    sequences: Vec<u16>,
}

impl Exchange {
    pub(super) fn new(identifier: u16, socket: u64) -> Self {
        Self {
            identifier,
            socket,
            flying: Mutex::default(),
            duplicates: AtomicU64::new(0),
            late: AtomicU64::new(0),
            unrelated: AtomicU64::new(0),
        }
    }

    /// Further answers to an echo that had been answered.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Answers to our echoes that came after their probe had ended.
    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Answers that were not to our echoes.
    pub(super) fn unrelated(&self) -> u64 {
        self.unrelated.load(Ordering::Relaxed)
    }

    /// Passes a packet on to the probe that waits for it, if any does.
    pub(super) fn dispatch(&self, heard: Heard, from: IpAddr, at: Instant) {
        match heard {
            Heard::Reply(echo) => {
                if echo.identifier != self.identifier || echo.mark.socket != self.socket {
                    count(&self.unrelated);
                    return;
                }
                let sequence = echo.sequence;
                match self.lock().echoes.get_mut(&sequence) {
                    Some(sent) if sent.cookie != echo.mark.cookie => count(&self.late),
                    Some(sent) if sent.target != from => count(&self.unrelated),
                    Some(sent) if sent.answered => count(&self.duplicates),
                    Some(sent) => {
                        sent.answered = true;
                        // A full channel means that the probe has heard more
                        // than it can use.
                        let _ = sent.events.try_send(Event::Answered { sequence, at });
                    }
                    None => count(&self.late),
                }
            }
            Heard::Failed {
                destination,
                identifier,
                sequence,
                mark,
                reason,
            } => {
                let flying = self.lock();
                let Some(echo) = flying.echoes.get(&sequence) else {
                    return;
                };
                let ours = Mark {
                    socket: self.socket,
                    cookie: echo.cookie,
                };
                if identifier == self.identifier
                    && destination == echo.target
                    && mark.is_none_or(|mark| mark == ours)
                {
                    let _ = echo.events.try_send(Event::Failed {
                        sequence,
                        from,
                        reason,
                    });
                }
            }
        }
    }

    // Nothing that holds the lock can leave the map half changed.
    fn lock(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Passage {
    /// A probe's way through `exchange`; `cookie` is its random word.
    pub(super) fn new(exchange: Arc<Exchange>, target: IpAddr, cookie: u64) -> Self {
        Self {
            exchange,
            target,
            cookie,
            sequences: Vec::new(),
        }
    }

    /// One more echo, expected from now on. Sequence numbers start again
    /// after 65535; one that is still in flight is passed over. `None`:
    /// every one is in flight.
    pub(super) fn next_echo(&mut self, events: &Sender<Event>) -> Option<Echo> {
        let sequence = {
            let mut flying = self.exchange.lock();
            let free = (0..=u16::MAX)
                .map(|step| flying.next.wrapping_add(step))
                .find(|sequence| !flying.echoes.contains_key(sequence))?;
            flying.next = free.wrapping_add(1);
            flying.echoes.insert(
                free,
                InFlight {
                    target: self.target,
                    cookie: self.cookie,
                    events: events.clone(),
                    answered: false,
                },
            );
            free
        };
        self.sequences.push(sequence);
        Some(Echo {
            identifier: self.exchange.identifier,
            sequence,
            mark: Mark {
                socket: self.exchange.socket,
                cookie: self.cookie,
            },
        })
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut flying = self.exchange.lock();
        for sequence in &self.sequences {
            flying.echoes.remove(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

    fn start() -> (Arc<Exchange>, Passage, Sender<Event>, Receiver<Event>) {
        let exchange = Arc::new(Exchange::new(77, 1000));
        let passage = Passage::new(Arc::clone(&exchange), TARGET, 2000);
        let (sender, receiver) = bounded(4);
        (exchange, passage, sender, receiver)
    }

    #[test]
    fn only_the_awaited_answer_reaches_the_probe() {
        let (exchange, mut passage, sender, receiver) = start();
        let echo = passage.next_echo(&sender).unwrap();
        let at = Instant::now();
        let change = |change: fn(&mut Echo)| {
            let mut other = echo;
            change(&mut other);
            Heard::Reply(other)
        };
        for (heard, from, late, unrelated) in [
            // another process with the same identifier and sequence number
            (change(|e| e.mark.socket = 1), TARGET, 0, 1),
            (change(|e| e.identifier = 78), TARGET, 0, 2),
            // an answer in another's name
            (Heard::Reply(echo), ROUTER, 0, 3),
            // a finished probe's, whose sequence number was used again
            (change(|e| e.mark.cookie = 1), TARGET, 1, 3),
            (change(|e| e.sequence = 9), TARGET, 2, 3),
        ] {
            exchange.dispatch(heard, from, at);
            assert_eq!((exchange.late(), exchange.unrelated()), (late, unrelated));
            assert!(receiver.try_recv().is_err());
        }
        exchange.dispatch(Heard::Reply(echo), TARGET, at);
        let answered = Event::Answered {
            sequence: echo.sequence,
            at,
        };
        assert_eq!(receiver.try_recv(), Ok(answered));
        exchange.dispatch(Heard::Reply(echo), TARGET, at);
        assert!(receiver.try_recv().is_err());
        assert_eq!(exchange.duplicates(), 1);
        drop(passage);
        exchange.dispatch(Heard::Reply(echo), TARGET, at);
        assert!(receiver.try_recv().is_err());
        assert_eq!(exchange.late(), 3);
    }

    #[test]
    fn an_error_must_quote_the_echo() {
        let (exchange, mut passage, sender, receiver) = start();
        let echo = passage.next_echo(&sender).unwrap();
        let failed = |destination, identifier, sequence, mark| Heard::Failed {
            destination,
            identifier,
            sequence,
            mark,
            reason: "gone",
        };
        let other = Mark {
            socket: 1000,
            cookie: 1,
        };
        for heard in [
            failed(ROUTER, 77, echo.sequence, None),
            failed(TARGET, 78, echo.sequence, None),
            failed(TARGET, 77, echo.sequence.wrapping_add(1), None),
            failed(TARGET, 77, echo.sequence, Some(other)),
        ] {
            exchange.dispatch(heard, ROUTER, Instant::now());
            assert!(receiver.try_recv().is_err(), "{heard:?}");
        }
        for mark in [None, Some(echo.mark)] {
            let heard = failed(TARGET, 77, echo.sequence, mark);
            exchange.dispatch(heard, ROUTER, Instant::now());
            assert_eq!(
                receiver.try_recv(),
                Ok(Event::Failed {
                    sequence: echo.sequence,
                    from: ROUTER,
                    reason: "gone",
                })
            );
        }
    }

    #[test]
    fn sequence_numbers_wrap_around_those_in_flight() {
        let (exchange, mut first, sender, _receiver) = start();
        let held = first.next_echo(&sender).unwrap();
        let mut seen = Vec::new();
        for cookie in 0..70_000 {
            let mut passage = Passage::new(Arc::clone(&exchange), TARGET, cookie);
            seen.push(passage.next_echo(&sender).unwrap().sequence);
        }
        assert!(!seen.contains(&held.sequence));
        assert_eq!(seen[0], seen[65_535]);
        drop(first);
        assert!(exchange.lock().echoes.is_empty());
    }

    #[test]
    fn when_all_are_in_flight_there_is_none() {
        let (exchange, mut passage, sender, _receiver) = start();
        for _ in 0..=u16::MAX {
            assert!(passage.next_echo(&sender).is_some());
        }
        assert_eq!(passage.next_echo(&sender), None);
        drop(passage);
        assert!(exchange.lock().echoes.is_empty());
    }

    #[test]
    fn a_flood_of_errors_does_not_block() {
        let (exchange, mut passage, sender, receiver) = start();
        let echo = passage.next_echo(&sender).unwrap();
        for _ in 0..1000 {
            let heard = Heard::Failed {
                destination: TARGET,
                identifier: echo.identifier,
                sequence: echo.sequence,
                mark: None,
                reason: "gone",
            };
            exchange.dispatch(heard, ROUTER, Instant::now());
        }
        assert_eq!(receiver.len(), 4);
    }
}
