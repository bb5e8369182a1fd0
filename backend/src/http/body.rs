//! Bodies of requests: read with a bound on size, time and number.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_service::http::{BodyError, Exchange};

use crate::answer::Answer;

/// The most bytes that a body can have.
pub(super) const BODY_MAX: usize = 8 << 20;
/// How long a body may take to arrive.
pub(super) const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Bodies of agents that are read at a time.
pub(super) const AGENTS: usize = 11;
/// Bodies of those who are logged in.
pub(super) const PEOPLE: usize = 5;
/// Bodies of those who are not known.
pub(super) const STRANGERS: usize = 4;
// Of each class some workers are free.
const _: () = assert!(AGENTS + PEOPLE + STRANGERS <= super::server::UPLOADS);
/// How long such a body may take.
pub(super) const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// How long a request waits for its turn to read a body.
const TURN_LIMIT: Duration = Duration::from_secs(2);
/// So many may wait: each holds a thread meanwhile.
const WAITING_MAX: usize = 4;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It did not come as it must.
    Body {
        error: BodyError,
        /// The most bytes that are taken.
        most: usize,
    },
    /// Too many others are being read.
    Busy,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let error = match refusal {
            Refusal::Busy => {
                return Self::error(503, "too many reports are arriving").with("Retry-After", "1");
            }
            Refusal::Body {
                error: BodyError::TooLarge,
                most,
            } => {
                return Self::error(413, &format!("the body is larger than {} KiB", most >> 10));
            }
            Refusal::Body { error, .. } => error,
        };
        let status = match error {
            BodyError::TooSlow => 408,
            _ => 400,
        };
        Self::error(status, &error.to_string())
    }
}

/// Lets so many bodies be read at a time: a sender that stalls holds its
/// thread, and some must stay free for everybody else.
pub(super) struct BodyTurns {
    /// How long a body may take.
    limit: Duration,
    turns: Mutex<Turns>,
    freed: Condvar,
}

struct Turns {
    free: usize,
    waiting: usize,
}

impl BodyTurns {
    pub(super) fn new(turns: usize, limit: Duration) -> Self {
        Self {
            limit,
            turns: Mutex::new(Turns {
                free: turns.max(1),
                waiting: 0,
            }),
            freed: Condvar::new(),
        }
    }

    /// Reads the body of a request, which can have `most` bytes.
    pub(super) fn read(&self, exchange: &mut Exchange, most: usize) -> Result<Vec<u8>, Refusal> {
        let too_large = |length: u64| length > most as u64;
        if exchange.request().body_length().is_some_and(too_large) {
            let error = BodyError::TooLarge;
            return Err(Refusal::Body { error, most });
        }
        // One that has come holds nobody up.
        let _turn = match exchange.body_is_here() {
            true => None,
            false => Some(self.take()?),
        };
        exchange
            .read_body(most, Instant::now() + self.limit)
            .map_err(|error| Refusal::Body { error, most })
    }

    fn take(&self) -> Result<Turn<'_>, Refusal> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.free == 0 && turns.waiting < WAITING_MAX {
            turns.waiting += 1;
            (turns, _) = self
                .freed
                .wait_timeout_while(turns, TURN_LIMIT, |turns| turns.free == 0)
                .unwrap_or_else(PoisonError::into_inner);
            turns.waiting -= 1;
        }
        if turns.free == 0 {
            return Err(Refusal::Busy);
        }
        turns.free -= 1;
        Ok(Turn(self))
    }
}

struct Turn<'a>(&'a BodyTurns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_comes_back() {
        let turns = BodyTurns::new(1, BODY_LIMIT);
        drop(turns.take().ok().unwrap());
        let turn = turns.take().ok().unwrap();
        assert!(matches!(turns.take(), Err(Refusal::Busy)));
        drop(turn);
        assert!(turns.take().is_ok());
    }
}
