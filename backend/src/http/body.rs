//! Bodies of requests: read with a bound on size, time and number.

use std::io::{self, Read};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_service::http::{Arrival, came_with_head};

use crate::answer::Answer;

/// The most bytes that a body can have.
pub(super) const BODY_MAX: usize = 8 << 20;
/// How long a body may take to arrive.
pub(super) const BODY_LIMIT: Duration = Duration::from_secs(30);
/// So many bodies of people who are not known are read at a time.
pub(super) const STRANGERS: usize = 4;
/// How long such a body may take.
pub(super) const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// How long a request waits for its turn to read a body.
const TURN_LIMIT: Duration = Duration::from_secs(2);
/// So many may wait: each holds a thread meanwhile.
const WAITING_MAX: usize = 4;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum BodyError {
    /// More than is taken here.
    TooLarge {
        /// The most bytes that are taken.
        most: usize,
    },
    /// It did not arrive in time.
    TooSlow,
    /// It ended too early, or its chunks are malformed.
    Broken,
    /// Too many others are being read.
    Busy,
}

impl From<BodyError> for Answer {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { most } => {
                Self::error(413, &format!("the body is larger than {} KiB", most >> 10))
            }
            BodyError::TooSlow => Self::error(408, "the body did not arrive in time"),
            BodyError::Broken => {
                Self::error(400, "the body is cut short or its chunks are malformed")
            }
            BodyError::Busy => {
                Self::error(503, "too many reports are arriving").with("Retry-After", "1")
            }
        }
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
    pub(super) fn read(&self, arrival: &mut Arrival, most: usize) -> Result<Vec<u8>, BodyError> {
        let length = arrival.body_length();
        if length.is_some_and(|length| length > most) {
            return Err(BodyError::TooLarge { most });
        }
        // One that came with its head holds nobody up.
        let _turn = match came_with_head(&arrival.request) {
            true => None,
            false => Some(self.take()?),
        };
        let deadline = Instant::now() + self.limit;
        arrival.read_body(deadline, |request| {
            read_bounded(request.as_reader(), length, most, deadline)
        })
    }

    fn take(&self) -> Result<Turn<'_>, BodyError> {
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
            return Err(BodyError::Busy);
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

fn read_bounded(
    reader: &mut dyn Read,
    length: Option<usize>,
    allowed: usize,
    deadline: Instant,
) -> Result<Vec<u8>, BodyError> {
    // One byte more than allowed tells "too large" from "just fits".
    let most = length.unwrap_or(allowed + 1);
    let mut body = Vec::with_capacity(length.unwrap_or_default());
    let mut block = [0; 16 * 1024];
    while body.len() < most {
        if Instant::now() > deadline {
            return Err(BodyError::TooSlow);
        }
        let want = block.len().min(most - body.len());
        match reader.read(&mut block[..want]) {
            // Cut off by the edge, or by its sender.
            Ok(0) if Instant::now() > deadline => return Err(BodyError::TooSlow),
            Ok(0) => break,
            Ok(read) => body.extend_from_slice(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(BodyError::Broken),
        }
    }
    match length {
        None if body.len() > allowed => Err(BodyError::TooLarge { most: allowed }),
        Some(length) if body.len() < length => Err(BodyError::Broken),
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    #[test]
    fn bodies_are_read_to_their_length() {
        let text = b"0123456789".repeat(5000);
        let mut reader = &text[..];
        let body = read_bounded(&mut reader, Some(20_000), BODY_MAX, later()).unwrap();
        assert_eq!(body, text[..20_000]);
        assert_eq!(reader.len(), 30_000, "nothing past the length is read");
        let body = read_bounded(&mut &text[..], None, BODY_MAX, later()).unwrap();
        assert_eq!(body, text);
    }

    #[test]
    fn what_is_cut_short_too_large_or_too_slow_is_told_apart() {
        assert!(matches!(
            read_bounded(&mut &b"abc"[..], Some(4), BODY_MAX, later()),
            Err(BodyError::Broken)
        ));
        assert!(matches!(
            read_bounded(&mut io::repeat(b' '), None, BODY_MAX, later()),
            Err(BodyError::TooLarge { .. })
        ));
        let exact = vec![b' '; BODY_MAX];
        assert!(read_bounded(&mut &exact[..], None, BODY_MAX, later()).is_ok());
        assert!(matches!(
            read_bounded(
                &mut io::repeat(b' '),
                Some(10),
                BODY_MAX,
                Instant::now() - Duration::from_millis(1)
            ),
            Err(BodyError::TooSlow)
        ));
    }

    #[test]
    fn a_turn_comes_back() {
        let turns = BodyTurns::new(1, BODY_LIMIT);
        drop(turns.take().ok().unwrap());
        let turn = turns.take().ok().unwrap();
        assert!(matches!(turns.take(), Err(BodyError::Busy)));
        drop(turn);
        assert!(turns.take().is_ok());
    }
}
