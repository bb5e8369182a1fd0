//! Where a request ends, which must be beyond doubt.

use super::request::{Request, Version};

/// Where the body of a request ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this number of bytes.
    Length(u64),
    /// After the chunk of length 0 and its trailers.
    Chunked,
}

/// Why a request does not say where it ends (RFC 9112, sections 6.1 to 6.3). A
/// proxy in front of this program may read a doubtful head otherwise, and take
/// for the next request what this program takes for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length that is no number, or several that differ.
    #[error("Content-Length: it is to be one number")]
    Length,
    /// A coding that is not `chunked`, or not that alone; or any with an
    /// upgrade, after which no body follows.
    #[error("Transfer-Encoding: only chunked is understood, and no upgrade with it")]
    Coding,
    /// Both, or a coding in HTTP/1.0.
    #[error("Transfer-Encoding and Content-Length say different things")]
    Both,
    /// Several hosts, of which a proxy may take another (RFC 9112, section 3.2).
    #[error("Host: it is to be one")]
    Host,
    /// A method, a target or a field that is none (RFC 9110, section 5.5).
    #[error("the request line or a header field has what none can have")]
    Field,
}

/// Where the body of a request ends.
///
/// # Errors
/// [`FrameError`], after which nothing more of the connection is to be read.
pub(super) fn check(request: &Request) -> Result<Framing, FrameError> {
    check_line(request.method().as_str(), request.target())?;
    for (name, value) in request.fields() {
        check_field(name, value)?;
    }
    if request.all("Host").count() > 1 {
        return Err(FrameError::Host);
    }
    let old = request.version() < Version::Http11;
    if request.has_option("upgrade") && request.field("Transfer-Encoding").is_some() {
        return Err(FrameError::Coding);
    }
    check_body(
        request.all("Content-Length"),
        request.all("Transfer-Encoding"),
        old,
    )
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

fn check_line(method: &str, target: &str) -> Result<(), FrameError> {
    let good = is_token(method)
        && !target.is_empty()
        && target.bytes().all(|byte| byte.is_ascii_graphic());
    good.then_some(()).ok_or(FrameError::Field)
}

fn check_field(name: &str, value: &str) -> Result<(), FrameError> {
    let good = is_token(name)
        && value
            .bytes()
            .all(|byte| byte == b'\t' || !byte.is_ascii_control());
    good.then_some(()).ok_or(FrameError::Field)
}

fn check_body<'a>(
    mut lengths: impl Iterator<Item = &'a str>,
    mut codings: impl Iterator<Item = &'a str>,
    old: bool,
) -> Result<Framing, FrameError> {
    let given = lengths.next();
    if lengths.any(|other| Some(other) != given) {
        return Err(FrameError::Length);
    }
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = match given {
        Some(text) if plain(text) => text.parse().map_err(|_| FrameError::Length)?,
        Some(_) => return Err(FrameError::Length),
        None => 0,
    };
    let Some(coding) = codings.next() else {
        return Ok(Framing::Length(length));
    };
    if !coding.eq_ignore_ascii_case("chunked") || codings.next().is_some() {
        return Err(FrameError::Coding);
    }
    match given.is_some() || old {
        true => Err(FrameError::Both),
        false => Ok(Framing::Chunked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_line() {
        for (name, value, good) in [
            ("Host", "x", true),
            ("X-a_b~", "", true),
            ("X", "a\tb", true),
            ("X", "b\nContent-Length: 5", false),
            ("X", "b\rContent-Length: 5", false),
            ("X", "\0", false),
            ("X", "\u{7f}", false),
            ("", "x", false),
            ("GET / HTTP/1.1", "x", false),
            ("Content-Length\0", "5", false),
            ("(X)", "5", false),
        ] {
            assert_eq!(check_field(name, value).is_ok(), good, "{name:?} {value:?}");
        }
    }

    #[test]
    fn a_method_and_a_target_are_one_word_each() {
        for (method, target, good) in [
            ("GET", "/", true),
            ("M-SEARCH", "*", true),
            ("GET", "/a?b=%20|\"~", true),
            ("GET\n\nPOST", "/", false),
            ("", "/", false),
            ("GET", "", false),
            ("GET", "/\nContent-Length:5", false),
            ("GET", "/\r", false),
            ("GET", "/\t", false),
            ("GET", "/\0", false),
        ] {
            let checked = check_line(method, target).is_ok();
            assert_eq!(checked, good, "{method:?} {target:?}");
        }
    }

    #[test]
    fn a_request_says_once_where_it_ends() {
        type Case = (
            &'static [&'static str],
            &'static [&'static str],
            bool,
            Result<Framing, FrameError>,
        );
        let cases: [Case; 16] = [
            (&[], &[], false, Ok(Framing::Length(0))),
            (&["0"], &[], true, Ok(Framing::Length(0))),
            (&["12"], &[], false, Ok(Framing::Length(12))),
            (&["12", "12"], &[], false, Ok(Framing::Length(12))),
            (&["12", "13"], &[], false, Err(FrameError::Length)),
            (&["+12"], &[], false, Err(FrameError::Length)),
            (&["-1"], &[], false, Err(FrameError::Length)),
            (&["12, 12"], &[], false, Err(FrameError::Length)),
            (&[""], &[], false, Err(FrameError::Length)),
            (
                &["99999999999999999999999"],
                &[],
                false,
                Err(FrameError::Length),
            ),
            (&[], &["chunked"], false, Ok(Framing::Chunked)),
            (&[], &["Chunked"], false, Ok(Framing::Chunked)),
            (&[], &["gzip, chunked"], false, Err(FrameError::Coding)),
            (
                &[],
                &["chunked", "identity"],
                false,
                Err(FrameError::Coding),
            ),
            (&[], &["chunked"], true, Err(FrameError::Both)),
            (&["5"], &["chunked"], false, Err(FrameError::Both)),
        ];
        for (lengths, codings, old, expected) in cases {
            let checked = check_body(lengths.iter().copied(), codings.iter().copied(), old);
            assert_eq!(checked, expected, "{lengths:?} {codings:?} {old}");
        }
    }
}
