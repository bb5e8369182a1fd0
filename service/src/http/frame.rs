//! Where a request ends, which must be beyond doubt.

use tiny_http::{HTTPVersion, Request};

/// Why a request does not say where it ends (RFC 9112, sections 6.1 to 6.3).
/// tiny_http takes the first of several lengths, and any coding for `chunked`;
/// a proxy before it may see it otherwise, and what one takes for a body the
/// other then takes for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length that is no number, or several that differ.
    #[error("Content-Length: it is to be one number")]
    Length,
    /// Some coding that is not `chunked`, or not that alone; or any under
    /// `Connection: upgrade`, where tiny_http does not undo it.
    #[error("Transfer-Encoding: only chunked is understood, and no upgrade with it")]
    Coding,
    /// Both, or a coding in HTTP/1.0.
    #[error("Transfer-Encoding and Content-Length say different things")]
    Both,
    /// A method, a target or a field that is none (RFC 9110, section 5.5):
    /// tiny_http ends a line at CR LF alone, and what it takes for one line may
    /// be several elsewhere.
    #[error("the request line or a header field has what none can have")]
    Field,
}

/// Whether it is clear where a request ends.
///
/// # Errors
/// [`FrameError`], after which nothing more of the connection is to be read.
pub fn check_frame(request: &Request) -> Result<(), FrameError> {
    check_line(request.method().as_str(), request.url())?;
    let values = |name: &'static str| {
        request
            .headers()
            .iter()
            .filter(move |header| header.field.equiv(name))
            .map(|header| header.value.as_str())
    };
    for header in request.headers() {
        check_field(header.field.as_str().as_str(), header.value.as_str())?;
    }
    let old = *request.http_version() < HTTPVersion(1, 1);
    if upgrades(request) && values("Transfer-Encoding").next().is_some() {
        return Err(FrameError::Coding);
    }
    check(values("Content-Length"), values("Transfer-Encoding"), old)
}

/// Whether tiny_http takes all that follows for the body, whatever its length.
pub(super) fn upgrades(request: &Request) -> bool {
    request.headers().iter().any(|header| {
        let value = header.value.as_str().as_bytes();
        header.field.equiv("Connection")
            && value
                .windows(b"upgrade".len())
                .any(|part| part.eq_ignore_ascii_case(b"upgrade"))
    })
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

fn check<'a>(
    mut lengths: impl Iterator<Item = &'a str>,
    mut codings: impl Iterator<Item = &'a str>,
    old: bool,
) -> Result<(), FrameError> {
    let length = lengths.next();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if length.is_some_and(|length| !plain(length) || length.parse::<usize>().is_err())
        || lengths.any(|other| Some(other) != length)
    {
        return Err(FrameError::Length);
    }
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if !coding.eq_ignore_ascii_case("chunked") || codings.next().is_some() {
        return Err(FrameError::Coding);
    }
    if length.is_some() || old {
        return Err(FrameError::Both);
    }
    Ok(())
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
            Result<(), FrameError>,
        );
        let cases: [Case; 16] = [
            (&[], &[], false, Ok(())),
            (&["0"], &[], true, Ok(())),
            (&["12"], &[], false, Ok(())),
            (&["12", "12"], &[], false, Ok(())),
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
            (&[], &["chunked"], false, Ok(())),
            (&[], &["Chunked"], false, Ok(())),
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
            let checked = check(lengths.iter().copied(), codings.iter().copied(), old);
            assert_eq!(checked, expected, "{lengths:?} {codings:?} {old}");
        }
    }
}
