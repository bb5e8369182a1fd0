//! The head of a request (RFC 9112, sections 2 to 6).

use std::net::SocketAddr;
use std::ops::Range;

use tiny_http::Method;

use super::frame::{self, FrameError, Framing};
use super::limits::{FIELDS_MAX, HEAD_MAX};

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It has more bytes or fields than are taken.
    #[error("the head of the request is larger than {} KiB or has more than {FIELDS_MAX} fields", HEAD_MAX >> 10)]
    TooLong,
    /// It is of another version.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// It is no head of a request.
    #[error("the head of the request is malformed")]
    Malformed,
    /// It does not say where the request ends.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

impl HeadError {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooLong => 431,
            Self::Version => 505,
            Self::Malformed | Self::Frame(_) => 400,
        }
    }
}

/// A part of a head.
type Part = Range<usize>;

/// The head of a request, and from where it came.
#[derive(Debug, Clone)]
pub struct Request {
    text: String,
    method: Method,
    target: Part,
    fields: Vec<(Part, Part)>,
    version: Version,
    peer: SocketAddr,
    framing: Framing,
}

impl Request {
    /// Reads a head, which ends with an empty line.
    ///
    /// # Errors
    /// [`HeadError`]: nothing that follows on the connection can be believed.
    pub fn parse(head: &[u8], peer: SocketAddr) -> Result<Self, HeadError> {
        let mut found = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut found);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(end)) if end == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            Err(httparse::Error::Version) => return Err(HeadError::Version),
            _ => return Err(HeadError::Malformed),
        }
        let text = std::str::from_utf8(head).map_err(|_| HeadError::Malformed)?;
        let version = match parsed.version {
            Some(1) => Version::Http11,
            _ => Version::Http10,
        };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(HeadError::Malformed);
        };
        let fields: Vec<_> = parsed
            .headers
            .iter()
            .map(|field| {
                (
                    part_of(head, field.name.as_bytes()),
                    part_of(head, field.value),
                )
            })
            .collect();
        let mut request = Self {
            method: method.parse().map_err(|()| HeadError::Malformed)?,
            target: part_of(head, target.as_bytes()),
            text: text.to_owned(),
            fields,
            version,
            peer,
            framing: Framing::Length(0),
        };
        request.framing = frame::check(&request)?;
        Ok(request)
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path and the query. Those of a target that has a scheme and an
    /// authority too (RFC 9112, section 3.2.2).
    #[must_use]
    pub fn url(&self) -> &str {
        match self.absolute() {
            Some((_, "")) => "/",
            Some((_, path)) => path,
            None => self.target(),
        }
    }

    /// The authority that is asked: that of the target, or else the field
    /// `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self.absolute() {
            Some((authority, _)) => Some(authority),
            None => self.field("Host"),
        }
    }

    fn absolute(&self) -> Option<(&str, &str)> {
        let target = self.target();
        let (scheme, rest) = target.split_once("://")?;
        let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        known.then(|| rest.split_at(end))
    }

    /// The target as it was sent.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.text[self.target.clone()]
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// The first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Every field of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.fields()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// From where the connection comes.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The version that the peer speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where the body ends.
    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// The length of the body; `None` where it comes in chunks.
    #[must_use]
    pub fn body_length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    /// Whether the peer waits for word before it sends the body (RFC 9110,
    /// section 10.1.1).
    pub(super) fn expects(&self) -> bool {
        self.version >= Version::Http11
            && self
                .all("Expect")
                .any(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Whether the connection can have another request (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.has_option("close"),
            Version::Http10 => self.has_option("keep-alive") && !self.has_option("close"),
        }
    }

    /// Whether `Connection` lists an option, whatever its case.
    pub(super) fn has_option(&self, option: &str) -> bool {
        self.all("Connection")
            .flat_map(|value| value.split(','))
            .any(|listed| listed.trim().eq_ignore_ascii_case(option))
    }
}

/// Where a part lies in the whole that it was cut from.
fn part_of(whole: &[u8], part: &[u8]) -> Part {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// Looks for the end of a head.
///
/// Bytes before `scanned` have been looked at. A line ends with CR LF alone:
/// where a proxy takes a lone LF for an end and this program does not, or the
/// other way round, one of them sees a request that the other does not.
///
/// # Errors
/// [`HeadError::Malformed`] at a CR or an LF without the other,
/// [`HeadError::TooLong`] where it does not end in time.
pub(super) fn find_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    for at in *scanned..bytes.len() {
        if bytes[at] == b'\n' && (at == 0 || bytes[at - 1] != b'\r') {
            return Err(HeadError::Malformed);
        }
        if bytes[at] != b'\n' && at > 0 && bytes[at - 1] == b'\r' {
            return Err(HeadError::Malformed);
        }
        if bytes[at] == b'\n' && at >= 3 && bytes[at - 3..=at] == *b"\r\n\r\n" {
            *scanned = 0;
            return match at < HEAD_MAX {
                true => Ok(Some(at + 1)),
                false => Err(HeadError::TooLong),
            };
        }
    }
    *scanned = bytes.len();
    match bytes.len() <= HEAD_MAX {
        true => Ok(None),
        false => Err(HeadError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request, HeadError> {
        Request::parse(head.as_bytes(), "192.0.2.7:4711".parse().unwrap())
    }

    #[test]
    fn a_head_is_read() {
        let request =
            parse("GET /a?b=c HTTP/1.1\r\nHost: x\r\nA:  b \r\na: c\r\nE:\r\n\r\n").unwrap();
        assert_eq!(*request.method(), Method::Get);
        assert_eq!(request.url(), "/a?b=c");
        assert_eq!(request.host(), Some("x"));
        assert_eq!(request.field("A"), Some("b"));
        assert_eq!(request.all("a").collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(request.field("e"), Some(""));
        assert_eq!(request.body_length(), Some(0));
        assert!(request.keeps_alive());
    }

    #[test]
    fn a_target_may_name_the_host() {
        for (target, url, host) in [
            ("http://a.example:80/b?c", "/b?c", "a.example:80"),
            ("HTTPS://a", "/", "a"),
            ("http://a?b", "?b", "a"),
            ("/http://a/", "/http://a/", "x"),
            ("ftp://a/b", "ftp://a/b", "x"),
        ] {
            let request = parse(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
            assert_eq!(
                (request.url(), request.host()),
                (url, Some(host)),
                "{target}"
            );
        }
    }

    #[test]
    fn connections_are_kept_by_version_and_option() {
        for (version, option, kept) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: Upgrade, Close\r\n", false),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let request = parse(&format!("GET / HTTP/{version}\r\n{option}\r\n")).unwrap();
            assert_eq!(request.keeps_alive(), kept, "{version} {option:?}");
        }
    }

    #[test]
    fn what_is_no_head_is_told_apart() {
        let many = "A: b\r\n".repeat(FIELDS_MAX + 1);
        for (head, error) in [
            ("GET /health\r\n\r\n", HeadError::Malformed),
            ("\u{1}\u{2}\r\n\r\n", HeadError::Malformed),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", HeadError::Malformed),
            ("GET / HTTP/1.1\r\nSpace : x\r\n\r\n", HeadError::Malformed),
            (
                "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
                HeadError::Malformed,
            ),
            ("PRI * HTTP/2.0\r\n\r\n", HeadError::Version),
            (&format!("GET / HTTP/1.1\r\n{many}\r\n"), HeadError::TooLong),
            (
                "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                HeadError::Frame(FrameError::Length),
            ),
            (
                "GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n",
                HeadError::Frame(FrameError::Host),
            ),
        ] {
            assert_eq!(parse(head).unwrap_err(), error, "{head:?}");
        }
    }

    #[test]
    fn the_end_is_found_however_it_comes() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\n\r\nmore";
        let end = head.len() - 4;
        for step in 1..head.len() {
            let mut scanned = 0;
            let mut length = step;
            let found = loop {
                match find_end(&head[..length.min(head.len())], &mut scanned).unwrap() {
                    Some(end) => break end,
                    None => length += step,
                }
            };
            assert_eq!(found, end, "{step}");
        }
    }

    #[test]
    fn a_line_ends_with_both_characters() {
        for (head, error) in [
            ("\nGET", HeadError::Malformed),
            ("GET /\nA", HeadError::Malformed),
            ("GET /\rA", HeadError::Malformed),
            ("GET /\r\r", HeadError::Malformed),
            (&"x".repeat(HEAD_MAX + 1), HeadError::TooLong),
            (
                &format!("{}\r\n\r\n", "x".repeat(HEAD_MAX)),
                HeadError::TooLong,
            ),
        ] {
            assert_eq!(
                find_end(head.as_bytes(), &mut 0).unwrap_err(),
                error,
                "{head:?}"
            );
        }
        assert_eq!(find_end(b"GET /\r", &mut 0), Ok(None));
        assert_eq!(find_end(&[b'x'; HEAD_MAX], &mut 0), Ok(None));
    }
}
