//! One connection: its socket, which never blocks, and what has come over it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::request::{HeadError, Request, find_end};

/// An idle connection keeps a buffer up to this size.
const BUFFER_KEPT: usize = 1024;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// This number of bytes.
    Bytes(usize),
    /// The peer sends nothing any more.
    End,
    /// Nothing has come yet.
    Nothing,
}

/// Whether a socket has something to read now.
pub(super) fn can_be_read(socket: &impl AsFd) -> bool {
    let at_once = Timespec::default();
    let mut asked = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    /// What has come and belongs to no request yet.
    pub(super) input: Vec<u8>,
    /// How far it was searched for the end of a head.
    scanned: usize,
    /// The last read filled its buffer: there may be more, of which no event
    /// tells.
    pub(super) more: bool,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr) -> Self {
        Self {
            socket,
            peer,
            input: Vec::new(),
            scanned: 0,
            more: false,
        }
    }

    /// Reads what has come, once.
    pub(super) fn receive(&mut self, into: &mut [u8]) -> io::Result<Received> {
        loop {
            return match self.socket.read(into) {
                Ok(0) => Ok(Received::End),
                Ok(count) => {
                    self.more = count == into.len();
                    Ok(Received::Bytes(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more = false;
                    Ok(Received::Nothing)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Takes the next request out of what has come; `None` where its head has
    /// not come to its end.
    ///
    /// # Errors
    /// [`HeadError`].
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, HeadError> {
        // Some clients send an empty line behind a body (RFC 9112, section 2.2).
        while self.scanned == 0 && self.input.starts_with(b"\r\n") {
            self.take(2);
        }
        let Some(end) = find_end(&self.input, &mut self.scanned)? else {
            return Ok(None);
        };
        let request = Request::parse(&self.input[..end], self.peer)?;
        self.take(end);
        Ok(Some(request))
    }

    /// Takes the first bytes away.
    pub(super) fn take(&mut self, count: usize) {
        self.scanned = 0;
        match self.input.len() <= count {
            true if self.input.capacity() <= BUFFER_KEPT => self.input.clear(),
            true => self.input = Vec::new(),
            false => drop(self.input.drain(..count)),
        }
    }

    /// Waits until the socket can be read or written, at most until then;
    /// answers whether it can. For workers.
    pub(super) fn wait(&self, flags: PollFlags, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up: a wait of 0 ms would only ask.
            let left = left + Duration::from_millis(1);
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) if Instant::now() < until => {}
                Err(_) => return false,
            }
        }
    }

    /// Writes all of it. Waits as long as the peer takes some of it within
    /// `patience`, and not past `until`. For workers.
    pub(super) fn write_all(
        &mut self,
        mut bytes: &[u8],
        patience: Duration,
        until: Instant,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let by = until.min(Instant::now() + patience);
                    if !self.wait(PollFlags::OUT, by) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&self) {
        // It fails where the peer has gone.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}
