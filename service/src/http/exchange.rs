//! A request with a worker: its body is read here, and its answer written.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Class;
use super::answer::{Answer, Content, Outgoing, Prepared};
use super::chunks::Chunks;
use super::connection::{Connection, Received};
use super::frame::Framing;
use super::limits::{Limits, Reason};
use super::request::Request;
use super::shared::Shared;

/// What is read at once.
const BLOCK: usize = 16 << 10;
/// The most memory that is reserved for a body before it has come.
const RESERVED_MAX: u64 = 64 << 10;
/// A stream is given up after this time, however its peer gets on.
const STREAM_LIMIT: Duration = Duration::from_secs(600);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than are taken.
    #[error("the body is larger than what is taken")]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// It ended too early, or its chunks are malformed.
    #[error("the body is cut short or its chunks are malformed")]
    Broken,
}

/// What becomes of a connection that comes back from a worker.
#[derive(Debug)]
pub(super) enum Then {
    /// It has another request.
    Next,
    /// This is still to be sent.
    Send(Outgoing),
    /// It ends, once its peer has read the answer.
    Linger,
    /// It is closed.
    Close,
}

/// A connection that comes back from a worker.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) token: usize,
    pub(super) connection: Option<Connection>,
    pub(super) then: Then,
}

/// A request that is to be answered. Dropped without an answer, its connection
/// is closed.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    token: usize,
    connection: Option<Connection>,
    class: Class,
    shared: Arc<Shared>,
    limits: Limits,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Unread,
    Read,
    /// It cannot be read to its end.
    Failed,
}

impl Exchange {
    pub(super) fn new(
        request: Request,
        token: usize,
        connection: Connection,
        class: Class,
        shared: Arc<Shared>,
        limits: Limits,
    ) -> Self {
        let body = match request.framing() {
            Framing::Length(0) => Body::Read,
            _ => Body::Unread,
        };
        Self {
            request,
            token,
            connection: Some(connection),
            class,
            shared,
            limits,
            body,
        }
    }

    /// The request and its connection, where no worker takes it.
    pub(super) fn undo(mut self) -> (Request, Option<Connection>) {
        let connection = self.connection.take();
        (self.request.clone(), connection)
    }

    /// The head of the request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The queue in which it waited.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether the whole body has come already, so that reading it holds no
    /// worker up.
    #[must_use]
    pub fn body_is_here(&self) -> bool {
        match (self.request.framing(), &self.connection) {
            (Framing::Length(length), Some(connection)) => connection.input.len() as u64 >= length,
            _ => false,
        }
    }

    /// Reads the body, which can have `most` bytes, until the deadline.
    ///
    /// # Errors
    /// [`BodyError`]. The connection ends with the answer.
    pub fn read_body(&mut self, most: usize, deadline: Instant) -> Result<Vec<u8>, BodyError> {
        let Some(connection) = &mut self.connection else {
            return Err(BodyError::Broken);
        };
        let begun = !connection.input.is_empty();
        let body = match self.request.framing() {
            Framing::Length(length) if length > most as u64 => Err(BodyError::TooLarge),
            Framing::Length(0) => Ok(Vec::new()),
            framing => {
                if !begun && self.request.expects() {
                    // Where this fails, so does the read.
                    let _ = connection.write_all(
                        b"HTTP/1.1 100 Continue\r\n\r\n",
                        self.limits.send,
                        deadline,
                    );
                }
                match framing {
                    Framing::Length(length) => read_length(connection, length, deadline),
                    Framing::Chunked => read_chunks(connection, most, deadline),
                }
            }
        };
        self.body = match body {
            Ok(_) => Body::Read,
            Err(_) => Body::Failed,
        };
        if body == Err(BodyError::TooSlow) {
            self.shared.count(Reason::SlowBody);
        }
        body
    }

    /// Sends the answer, or leaves what its peer does not take at once to the
    /// reactor.
    pub fn respond(mut self, answer: Answer) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if let (Body::Unread, Framing::Length(length)) = (self.body, self.request.framing()) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if connection.input.len() >= length {
                connection.take(length);
                self.body = Body::Read;
            }
        }
        let keep =
            self.request.keeps_alive() && self.body == Body::Read && !self.shared.is_closed();
        let prepared = answer.prepare(Some(&self.request), keep);
        let then = match send(&mut connection, prepared, &self.limits) {
            Ok(then) => then,
            Err(error) => {
                if error.kind() == io::ErrorKind::TimedOut {
                    self.shared.count(Reason::SlowReader);
                }
                log::debug!("an answer was not sent: {error}");
                Then::Close
            }
        };
        self.give_back(Some(connection), then);
    }

    fn give_back(&self, connection: Option<Connection>, then: Then) {
        self.shared.returned.put(Returned {
            token: self.token,
            connection,
            then,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A worker that failed: half an answer may have been sent.
        if let Some(connection) = self.connection.take() {
            self.give_back(Some(connection), Then::Close);
        }
    }
}

fn send(connection: &mut Connection, answer: Prepared, limits: &Limits) -> io::Result<Then> {
    let Prepared {
        head,
        content,
        chunked,
        keep,
    } = answer;
    match content {
        Content::Bytes(body) => {
            let now = Instant::now();
            let mut outgoing = Outgoing::new(head, body, keep, now);
            outgoing.write(&mut connection.socket, now)?;
            Ok(match outgoing.left() {
                0 if keep => Then::Next,
                0 => Then::Linger,
                _ => Then::Send(outgoing),
            })
        }
        Content::Stream(mut body) => {
            let until = Instant::now() + STREAM_LIMIT;
            let mut block = head;
            let mut piece = vec![0; BLOCK];
            loop {
                connection.write_all(&block, limits.send, until)?;
                block.clear();
                let count = body.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                if chunked {
                    block.extend_from_slice(format!("{count:x}\r\n").as_bytes());
                }
                block.extend_from_slice(&piece[..count]);
                if chunked {
                    block.extend_from_slice(b"\r\n");
                }
            }
            if chunked {
                connection.write_all(b"0\r\n\r\n", limits.send, until)?;
            }
            Ok(match keep {
                true => Then::Next,
                false => Then::Linger,
            })
        }
    }
}

/// Waits for more, and appends it to the connection's input.
fn receive(connection: &mut Connection, deadline: Instant) -> Result<(), BodyError> {
    let mut block = [0; BLOCK];
    loop {
        match connection.receive(&mut block) {
            Ok(Received::Bytes(count)) => {
                connection.input.extend_from_slice(&block[..count]);
                return match Instant::now() > deadline {
                    true => Err(BodyError::TooSlow),
                    false => Ok(()),
                };
            }
            Ok(Received::End) | Err(_) => return Err(BodyError::Broken),
            Ok(Received::Nothing) => {
                if !connection.wait(PollFlags::IN, deadline) {
                    return Err(BodyError::TooSlow);
                }
            }
        }
    }
}

fn read_length(
    connection: &mut Connection,
    length: u64,
    deadline: Instant,
) -> Result<Vec<u8>, BodyError> {
    let length = usize::try_from(length).map_err(|_| BodyError::TooLarge)?;
    let mut body = Vec::with_capacity(length.min(RESERVED_MAX as usize));
    loop {
        let take = connection.input.len().min(length - body.len());
        body.extend_from_slice(&connection.input[..take]);
        connection.take(take);
        if body.len() == length {
            return Ok(body);
        }
        receive(connection, deadline)?;
    }
}

fn read_chunks(
    connection: &mut Connection,
    most: usize,
    deadline: Instant,
) -> Result<Vec<u8>, BodyError> {
    let mut chunks = Chunks::default();
    let mut body = Vec::new();
    loop {
        let used = chunks
            .read(&connection.input, &mut body, most)
            .map_err(|_| BodyError::Broken)?;
        connection.take(used);
        if body.len() > most {
            return Err(BodyError::TooLarge);
        }
        if chunks.is_done() {
            return Ok(body);
        }
        receive(connection, deadline)?;
    }
}
