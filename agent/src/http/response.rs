//! What a server's answer says.

use httparse::Status as Parsed;

/// What an answer may have of header fields.
const HEADERS_MAX: usize = 64;

/// The head of an answer (RFC 9112, sections 4 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code, from 100 on.
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) body: usize,
    /// Its length, where the server says so.
    pub(super) length: Option<usize>,
}

/// Reads the head of what was received; `None` while it is not whole.
///
/// # Errors
/// When it is no answer of HTTP, in words.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(Parsed::Partial) => Ok(None),
        Ok(Parsed::Complete(body)) => {
            let length = response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"))
                .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
            Ok(response.code.map(|status| Head {
                status,
                body,
                length,
            }))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether `needle` stands in `haystack`.
pub(super) fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len().max(1))
        .any(|window| window == needle.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello";
        let wanted = Head {
            status: 200,
            body: whole.len() - 5,
            length: Some(5),
        };
        for end in 0..whole.len() - 5 {
            assert_eq!(head(&whole[..end]), Ok(None), "{end}");
        }
        assert_eq!(head(whole), Ok(Some(wanted)));
        for (bytes, status, length) in [
            (&b"HTTP/1.0 404 Not Found\n\n"[..], 404, None),
            (b"HTTP/1.1 503\r\n\r\n", 503, None),
            (
                b"HTTP/1.1 200 \xe9\r\nContent-length: many\r\n\r\n",
                200,
                None,
            ),
        ] {
            let read = head(bytes).unwrap().unwrap();
            assert_eq!((read.status, read.length), (status, length));
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bytes in [
            &b"PJLINK 0\r"[..],
            b"SSH-2.0-x\r\n",
            b"\x15\x03\x01\x00\x02\x02\x0a",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        ] {
            assert!(head(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_text_is_found_anywhere() {
        assert!(holds(b"ready", "ready") && holds(b"all ready.", "ready"));
        assert!(!holds(b"read", "ready") && !holds(b"", "x"));
    }
}
