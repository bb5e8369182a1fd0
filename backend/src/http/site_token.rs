//! The token that a site's agent presents in a header, where no proxy writes it
//! into a log as it does with a path.

use av_service::http::Request;

use crate::answer::Answer;

/// What `WWW-Authenticate` asks for (RFC 6750, section 3).
pub(super) const CHALLENGE: &str = "Bearer realm=\"site\"";

/// The site token of a request: `X-Site-Token`, as the contract has it, or
/// else `Authorization: Bearer`.
pub(super) fn presented(request: &Request) -> Option<&str> {
    request
        .field("X-Site-Token")
        .or_else(|| bearer(request.field("Authorization")?))
}

/// The token of an `Authorization` of the scheme Bearer (RFC 6750, section
/// 2.1). The scheme's case does not matter; a token that somebody set by hand
/// may have spaces in it.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Says in an answer to a poll that `GET /config` takes the token in a header.
/// An agent tells by it a backend that does not know its token from one that
/// does not know the path, which both answer 404.
pub(super) fn announce(answer: Answer) -> Answer {
    answer.with("X-Site-Auth", "bearer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER a b", Some("a b")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(value), token, "{value:?}");
        }
    }
}
