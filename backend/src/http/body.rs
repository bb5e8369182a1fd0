//! Bodies of requests: read with a bound on size, time and number.

use std::time::{Duration, Instant};

use av_service::http::{BodyError, Exchange};

use crate::answer::Answer;
use crate::turns::Turns;

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
/// The most that wait: each holds a thread meanwhile.
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

/// Bounds how many bodies are read at a time: a sender that stalls holds its
/// thread, and some must stay free for others.
pub(super) struct BodyTurns {
    /// How long a body may take.
    limit: Duration,
    turns: Turns,
}

impl BodyTurns {
    pub(super) fn new(turns: usize, limit: Duration) -> Self {
        Self {
            limit,
            turns: Turns::new(turns, WAITING_MAX, TURN_LIMIT),
        }
    }

    /// Reads the body of a request, which can have `most` bytes.
    pub(super) fn read(&self, exchange: &mut Exchange, most: usize) -> Result<Vec<u8>, Refusal> {
        let too_large = |length: u64| length > most as u64;
        if exchange.request().body_length().is_some_and(too_large) {
            let error = BodyError::TooLarge;
            return Err(Refusal::Body { error, most });
        }
        // One that has come holds no worker up.
        let _turn = match exchange.body_is_here() {
            true => None,
            false => Some(self.turns.take().ok_or(Refusal::Busy)?),
        };
        exchange
            .read_body(most, Instant::now() + self.limit)
            .map_err(|error| Refusal::Body { error, most })
    }
}
