//! A TCP connection that carries lines.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// More than any line of the standard, which has at most 136 bytes.
pub(super) const LINE_MAX: usize = 256;

/// A connection to a projector. Every call ends at its deadline, however
/// slowly the bytes drip.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Received and not yet part of a line that was read.
    pending: Vec<u8>,
}

/// Why there is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineError {
    /// Nothing, or not the whole line, came in time.
    TimedOut,
    /// The projector closed the connection, or it broke.
    Closed,
    /// More than [`LINE_MAX`] bytes came without an end.
    TooLong,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// As the system has them; `TimedOut` at the deadline.
    pub(super) fn open(address: SocketAddr, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        // A command is one small packet; nothing follows it to wait for.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            pending: Vec::new(),
        })
    }

    /// Sends a line.
    ///
    /// # Errors
    /// `Closed` where it cannot be sent, `TimedOut` at the deadline.
    pub(super) fn send(&mut self, line: &str, deadline: Instant) -> Result<(), LineError> {
        self.stream
            .set_write_timeout(Some(left(deadline).map_err(|_| LineError::TimedOut)?))
            .map_err(|_| LineError::Closed)?;
        self.stream
            .write_all(line.as_bytes())
            .map_err(|error| LineError::of(&error))
    }

    /// The next line that is not empty, without its end: a carriage return by
    /// the standard, a line feed or both by some projectors. Bytes that are
    /// not UTF-8 are replaced.
    ///
    /// # Errors
    /// Why none came. Of a connection that was closed within a line, that
    /// part is the last line.
    pub(super) fn line(&mut self, deadline: Instant) -> Result<String, LineError> {
        loop {
            while let Some(end) = self.pending.iter().position(|b| matches!(b, b'\r' | b'\n')) {
                let line: Vec<u8> = self.pending.drain(..=end).take(end).collect();
                if let Some(text) = text(&line) {
                    return Ok(text);
                }
            }
            if self.pending.len() > LINE_MAX {
                return Err(LineError::TooLong);
            }
            self.stream
                .set_read_timeout(Some(left(deadline).map_err(|_| LineError::TimedOut)?))
                .map_err(|_| LineError::Closed)?;
            let mut buffer = [0; LINE_MAX];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let rest = std::mem::take(&mut self.pending);
                    return text(&rest).ok_or(LineError::Closed);
                }
                Ok(length) => self
                    .pending
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LineError::of(&error)),
            }
        }
    }
}

impl LineError {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Closed,
        }
    }
}

/// A line as text; `None` where there is nothing in it.
fn text(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The time left, which is not zero: that would mean "for ever" to a socket.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// A connection whose other end sends `pieces`, then closes.
    fn receiving(pieces: &'static [&'static [u8]]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in pieces {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        Connection::open(address, far()).unwrap()
    }

    #[test]
    fn lines_end_in_every_way_and_come_in_pieces() {
        let mut connection = receiving(&[
            b"a\rb\nc\r",
            b"\n\r\r  \r\0d",
            b"d",
            b"d\xff\r\ne e\n",
            b"last",
        ]);
        for line in ["a", "b", "c", "ddd\u{fffd}", "e e", "last"] {
            assert_eq!(connection.line(far()).as_deref(), Ok(line));
        }
        assert_eq!(connection.line(far()), Err(LineError::Closed));
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let mut connection = receiving(&[&[b'x'; 4000]]);
        assert_eq!(connection.line(far()), Err(LineError::TooLong));
        assert!(connection.pending.len() <= 2 * LINE_MAX);
    }

    #[test]
    fn dripping_bytes_do_not_move_the_deadline() {
        let mut connection = receiving(&[b"x" as &[u8]; 200]);
        let start = Instant::now();
        let deadline = start + Duration::from_millis(200);
        assert_eq!(connection.line(deadline), Err(LineError::TimedOut));
        assert!(Instant::now() >= deadline);
        // All of it would take four seconds.
        assert!(connection.pending.len() < 200);
    }

    #[test]
    fn a_deadline_in_the_past_is_no_endless_wait() {
        let mut connection = receiving(&[b"a\r"]);
        let past = Instant::now();
        assert_eq!(connection.send("x\r", past), Err(LineError::TimedOut));
        assert_eq!(connection.line(past), Err(LineError::TimedOut));
        assert_eq!(connection.line(far()).as_deref(), Ok("a"));
    }
}
