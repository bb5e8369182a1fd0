//! Bodies of requests: read with a bound on size, time and number, and left
//! alone safely where they are not read.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tiny_http::{Request, Response};

use crate::answer::Answer;

/// The most bytes that a body can have.
pub(super) const BODY_MAX: usize = 8 << 20;
/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How long a request waits for its turn to read a body.
const TURN_LIMIT: Duration = Duration::from_secs(2);

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
/// worker thread, and some must stay free for everybody else.
pub(super) struct BodyTurns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl BodyTurns {
    pub(super) fn new(turns: usize) -> Self {
        Self {
            free: Mutex::new(turns.max(1)),
            freed: Condvar::new(),
        }
    }

    /// Reads the body of a request, which can have `most` bytes.
    pub(super) fn read(&self, request: &mut Request, most: usize) -> Result<Vec<u8>, BodyError> {
        let length = request.body_length();
        if length.is_some_and(|length| length > most) {
            return Err(BodyError::TooLarge { most });
        }
        let _turn = self.take()?;
        read_bounded(
            request.as_reader(),
            length,
            most,
            Instant::now() + BODY_LIMIT,
        )
    }

    fn take(&self) -> Result<Turn<'_>, BodyError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, TURN_LIMIT, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Err(BodyError::Busy);
        }
        *free -= 1;
        Ok(Turn(self))
    }
}

struct Turn<'a>(&'a BodyTurns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
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

/// tiny_http reads a body as short as this before it hands out the request.
const READ_AHEAD: usize = 1024;
/// When a request is dropped, tiny_http reads the rest of its body into one
/// buffer of that size. Up to here that is harmless.
const DRAIN_MAX: usize = 64 << 20;
/// So many requests with a larger body are answered before the program must
/// start anew.
const STUCK_MAX: usize = 64;

/// Answers a request whose body may not have been read.
pub(super) struct Sender {
    stuck: AtomicUsize,
}

/// Too many requests claimed bodies that no memory can hold.
#[derive(Debug)]
pub(super) struct TooManyStuck;

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            stuck: AtomicUsize::new(0),
        }
    }

    /// Sends the answer. `read` tells whether the body was read to its end.
    ///
    /// Dropping a request makes tiny_http wait for the rest of its body. A
    /// thread of its own waits, so that no worker does. And it allocates as
    /// many bytes as `Content-Length` claims, which for a claim past the
    /// machine's memory would end the program: such a request is answered and
    /// never dropped.
    pub(super) fn send(
        &self,
        request: Request,
        answer: Answer,
        read: bool,
    ) -> Result<(), TooManyStuck> {
        let claimed = request.body_length().unwrap_or_default();
        let expects = request
            .headers()
            .iter()
            .any(|header| header.field.equiv("Expect"));
        if read || claimed == 0 || (claimed <= READ_AHEAD && !expects) {
            if let Err(error) = request.respond(answer.into_response()) {
                log::debug!("an answer was not sent: {error}");
            }
            return Ok(());
        }
        if claimed <= DRAIN_MAX {
            detach(move || {
                let _ = request.respond(answer.into_response());
            });
            return Ok(());
        }
        if self.stuck.fetch_add(1, Ordering::Relaxed) >= STUCK_MAX {
            std::mem::forget(request);
            return Err(TooManyStuck);
        }
        // More than tiny_http's buffer of 1 KiB, so that all of it is sent
        // before the reader that never ends is read again.
        let response = answer.padded(4096).into_response();
        detach(move || {
            let _ = request.respond(never_ending(response));
        });
        Ok(())
    }
}

fn detach(work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name("refuse".to_owned())
        .stack_size(128 * 1024)
        .spawn(work);
    if let Err(error) = spawned {
        log::warn!("no thread to refuse a request: {error}");
    }
}

/// The same response, after whose body the reader blocks for good.
fn never_ending(response: Response<Box<dyn Read + Send>>) -> Response<impl Read> {
    struct Blocked;
    impl Read for Blocked {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
    }
    let length = response.data_length();
    let status = response.status_code();
    let headers = response.headers().to_vec();
    Response::new(
        status,
        headers,
        response.into_reader().chain(Blocked),
        length,
        None,
    )
    .with_chunked_threshold(usize::MAX)
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
        let turns = BodyTurns::new(1);
        drop(turns.take().ok().unwrap());
        let turn = turns.take().ok().unwrap();
        assert!(matches!(turns.take(), Err(BodyError::Busy)));
        drop(turn);
        assert!(turns.take().is_ok());
    }
}
