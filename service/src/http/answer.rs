//! An answer, and how it is written.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tiny_http::{Method, StatusCode};

use super::limits::SLOWEST;
use super::request::{Request, Version};

/// The bytes of a body.
#[derive(Debug)]
pub enum Bytes {
    /// Made for this answer.
    Own(Vec<u8>),
    /// Embedded in the program.
    Static(&'static [u8]),
    /// Kept by a cache.
    Shared(Arc<[u8]>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The body of an answer.
pub enum Content {
    /// In memory: written without a worker where the peer is slow.
    Bytes(Bytes),
    /// Made while it is sent, in chunks. Holds its worker until then.
    Stream(Box<dyn Read + Send>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.as_ref().len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    fields: Vec<(&'static str, String)>,
    content: Content,
}

impl Answer {
    /// An answer of this status (RFC 9110, section 15) with this body. Where
    /// the status allows no body (204, 304), it is not sent.
    #[must_use]
    pub fn new(status: u16, content: Content) -> Self {
        Self {
            status,
            fields: Vec::new(),
            content,
        }
    }

    /// A text in the answer's own memory.
    #[must_use]
    pub fn text(status: u16, content_type: &str, text: impl Into<Vec<u8>>) -> Self {
        Self::new(status, Content::Bytes(Bytes::Own(text.into())))
            .with("Content-Type", content_type)
    }

    /// `{"error": "..."}`. `text` needs no escaping in JSON.
    pub(super) fn plain_error(status: u16, text: &str) -> Self {
        Self::text(
            status,
            "application/json",
            format!("{{\"error\":\"{text}\"}}"),
        )
    }

    /// The same with one more field. The connection's own fields
    /// (`Content-Length`, `Connection`, `Transfer-Encoding`) and `Date` are
    /// added when it is sent.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its fields, without those of the connection.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// Its body.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Makes it ready to be sent. `keep`: the connection has another request.
    pub(super) fn prepare(self, to: Option<&Request>, keep: bool) -> Prepared {
        let version = to.map_or(Version::Http11, Request::version);
        let without = matches!(self.status, 100..=199 | 204 | 304);
        let number = match version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        };
        let reason = StatusCode(self.status).default_reason_phrase();
        let mut head = Vec::with_capacity(256);
        let mut line = |parts: &[&str]| {
            for part in parts {
                head.extend_from_slice(part.as_bytes());
            }
            head.extend_from_slice(b"\r\n");
        };
        line(&["HTTP/", number, " ", &self.status.to_string(), " ", reason]);
        with_date(|date| line(&["Date: ", date]));
        for (name, value) in &self.fields {
            let possible = value
                .bytes()
                .all(|byte| byte == b'\t' || !byte.is_ascii_control());
            match possible {
                true if without && *name == "Content-Type" => {}
                true => line(&[name, ": ", value]),
                false => log::error!("an answer's field {name} has a line end: it is left out"),
            }
        }
        let streamed = match &self.content {
            // A length with these would be that of a body that is not sent:
            // some clients wait for it (RFC 9110, section 8.6).
            _ if without => false,
            Content::Bytes(bytes) => {
                line(&["Content-Length: ", &bytes.as_ref().len().to_string()]);
                false
            }
            Content::Stream(_) => true,
        };
        let chunked = streamed && version == Version::Http11;
        if chunked {
            line(&["Transfer-Encoding: chunked"]);
        }
        // Its end is the connection's where there are no chunks.
        let keep = keep && (chunked || !streamed);
        match (keep, version) {
            (false, _) => line(&["Connection: close"]),
            (true, Version::Http10) => line(&["Connection: keep-alive"]),
            (true, Version::Http11) => {}
        }
        line(&[]);
        let silent = without || to.is_some_and(|request| *request.method() == Method::Head);
        Prepared {
            head,
            content: match silent {
                true => Content::Bytes(Bytes::Static(b"")),
                false => self.content,
            },
            chunked,
            keep,
        }
    }
}

/// An answer as it is sent.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) head: Vec<u8>,
    pub(super) content: Content,
    pub(super) chunked: bool,
    /// Whether the connection has another request.
    pub(super) keep: bool,
}

/// Bytes on their way to a peer.
#[derive(Debug)]
pub(super) struct Outgoing {
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
    /// Whether the connection has another request.
    pub(super) keep: bool,
    /// When the peer took some of them last.
    taken: Instant,
    /// When the last of them must have been taken, but for the patience.
    until: Instant,
}

impl Outgoing {
    pub(super) fn new(head: Vec<u8>, body: Bytes, keep: bool, now: Instant) -> Self {
        let length = (head.len() + body.as_ref().len()) as u64;
        Self {
            head,
            body,
            sent: 0,
            keep,
            taken: now,
            until: now + Duration::from_secs(length / SLOWEST),
        }
    }

    /// When it is given up, with a peer that may take nothing for this time.
    pub(super) fn due(&self, patience: Duration) -> Instant {
        self.taken.min(self.until) + patience
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.head.len() + self.body.as_ref().len() - self.sent
    }

    /// Writes until all are taken, or the socket takes no more.
    ///
    /// # Errors
    /// When the peer has gone.
    pub(super) fn write(&mut self, mut socket: impl Write, now: Instant) -> io::Result<()> {
        while self.left() > 0 {
            let body = self.body.as_ref();
            let head = self.head.get(self.sent..).unwrap_or_default();
            let body = &body[self.sent.saturating_sub(self.head.len())..];
            match socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent += written;
                    self.taken = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The value of `Date` (RFC 9110, section 6.6.1), made once a second.
fn with_date(write: impl FnOnce(&str)) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let second = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second || text.is_empty() {
            let now = Timestamp::from_second(i64::try_from(second).unwrap_or_default());
            // Every time from year 0 to 9999 can be printed.
            *text = now
                .ok()
                .and_then(|now| {
                    DateTimePrinter::new()
                        .timestamp_to_rfc9110_string(&now)
                        .ok()
                })
                .unwrap_or_default();
            *last = second;
        }
        write(text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, fields: &str) -> Request {
        let head = format!("{line}\r\n{fields}\r\n");
        Request::parse(head.as_bytes(), "192.0.2.7:4711".parse().unwrap()).unwrap()
    }

    fn sent(answer: Answer, to: &Request, keep: bool) -> String {
        let prepared = answer.prepare(Some(to), keep);
        let mut text = String::from_utf8(prepared.head).unwrap();
        let date = text.find("Date: ").unwrap();
        let end = date + text[date..].find("\r\n").unwrap();
        assert!(text[date..end].ends_with(" GMT"), "{text}");
        text.replace_range(date..end + 2, "");
        if let Content::Bytes(bytes) = prepared.content {
            text.push_str(std::str::from_utf8(bytes.as_ref()).unwrap());
        }
        text.replace("\r\n", "|")
    }

    #[test]
    fn answers_are_written() {
        let get = request("GET / HTTP/1.1", "");
        let old = request("GET / HTTP/1.0", "");
        let head = request("HEAD / HTTP/1.1", "");
        let hello = |status| Answer::text(status, "text/plain", "hello").with("ETag", "\"a\"");
        for (answer, to, keep, expected) in [
            (
                hello(200),
                &get,
                true,
                "HTTP/1.1 200 OK|Content-Type: text/plain|ETag: \"a\"|Content-Length: 5||hello",
            ),
            (
                hello(404),
                &get,
                false,
                "HTTP/1.1 404 Not Found|Content-Type: text/plain|ETag: \"a\"|Content-Length: 5|Connection: close||hello",
            ),
            (
                hello(200),
                &old,
                true,
                "HTTP/1.0 200 OK|Content-Type: text/plain|ETag: \"a\"|Content-Length: 5|Connection: keep-alive||hello",
            ),
            (
                hello(200),
                &head,
                true,
                "HTTP/1.1 200 OK|Content-Type: text/plain|ETag: \"a\"|Content-Length: 5||",
            ),
            (
                hello(304),
                &get,
                true,
                "HTTP/1.1 304 Not Modified|ETag: \"a\"||",
            ),
            (
                Answer::new(204, Content::Bytes(Bytes::Static(b""))).with("X", "a\r\nY: b"),
                &get,
                true,
                "HTTP/1.1 204 No Content||",
            ),
        ] {
            assert_eq!(sent(answer, to, keep), expected);
        }
    }

    #[test]
    fn a_stream_ends_with_a_chunk_or_with_the_connection() {
        let stream = || Answer::new(200, Content::Stream(Box::new(io::empty())));
        let new = request("GET / HTTP/1.1", "");
        let old = request("GET / HTTP/1.0", "Connection: keep-alive\r\n");
        assert_eq!(
            sent(stream(), &new, true),
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked||"
        );
        assert_eq!(
            sent(stream(), &old, true),
            "HTTP/1.0 200 OK|Connection: close||"
        );
    }

    #[test]
    fn bytes_go_out_in_pieces() {
        struct Slow(Vec<u8>, usize);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    self.1 = 3;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let take = bytes.len().min(2);
                self.1 -= 1;
                self.0.extend_from_slice(&bytes[..take]);
                Ok(take)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), 2);
        let start = Instant::now();
        let patience = Duration::from_secs(10);
        let body = Bytes::Static(b"body of it");
        let mut outgoing = Outgoing::new(b"head:".to_vec(), body, true, start);
        let mut rounds = 0;
        while outgoing.left() > 0 {
            outgoing.write(&mut slow, start + patience).unwrap();
            rounds += 1;
        }
        assert_eq!(slow.0, b"head:body of it");
        assert!(rounds > 1);
        // However it gets on, there is an end.
        assert_eq!(outgoing.due(patience), start + patience);
    }
}
