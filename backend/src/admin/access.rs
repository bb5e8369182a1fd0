//! Who sent a request, and whether a foreign page made the browser send it.

use std::net::{IpAddr, SocketAddr};

use av_service::http::Method;

use av_service::http;

use super::Admin;
use super::context::{Caller, Headers, Origin, Request};
use crate::answer::Answer;
use crate::store::sessions::Identity;
use crate::store::sites::TokenDigest;
use crate::url::{Query, encode};

/// The most bytes of a body of somebody who is not known.
const ANONYMOUS_BODY_MAX: usize = 16 << 10;
/// The most bytes of a user's body.
const USER_BODY_MAX: usize = 8 << 20;
/// What every personal API token begins with, so that scanners find one that
/// leaked.
pub(crate) const TOKEN_PREFIX: &str = "avt_";

/// A cookie in the field `Cookie`.
fn cookie_in<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    field
        .split(';')
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// Who sent a request.
pub struct Access {
    caller: Option<Caller>,
}

impl Access {
    /// The user, where it is one.
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Whether it is somebody who was let in.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.caller.is_some()
    }

    /// The most bytes that the body can have.
    #[must_use]
    pub fn body_max(&self) -> usize {
        if self.caller.is_some() {
            USER_BODY_MAX
        } else {
            ANONYMOUS_BODY_MAX
        }
    }
}

impl Admin {
    /// Looks at the head of a request: lets it in, or answers at once.
    pub(crate) fn admit(&self, request: &Request<'_>) -> Result<Access, Answer> {
        let ip = self.address(request);
        if let Some(value) = request.headers.get("authorization") {
            let token = value
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .filter(|token| token.starts_with(TOKEN_PREFIX));
            let guess = self
                .guesses
                .begin(self.sender(request), token.unwrap_or(value))?;
            let identity = match token {
                Some(token) => self.store.token_user(&TokenDigest::of(token))?,
                None => None,
            };
            let Some(identity) = identity else {
                return Err(guess.wrong(unauthorized("this API token is not known, or has ended")));
            };
            guess.right();
            if let Some(token) = token {
                self.known.add_person(&TokenDigest::of(token));
            }
            return Ok(Access {
                caller: Some(caller(identity, Origin::Api, ip, String::new())),
            });
        }
        if let Some(cookie) = self.cookie(&request.headers) {
            let digest = TokenDigest::of(cookie);
            if let Some(identity) = self.store.session_user(&digest)? {
                self.known.add_person(&digest);
                let csrf = csrf_token(cookie);
                return Ok(Access {
                    caller: Some(caller(identity, Origin::Web, ip, csrf)),
                });
            }
        }
        // Only these say something to somebody who is not known.
        let open = request.method == Method::Get
            || matches!(
                request.path.as_slice(),
                ["login" | "logout" | "enroll"] | ["setup", _]
            );
        if open && !request.is_api() {
            Ok(Access { caller: None })
        } else {
            Err(ask_to_log_in(request))
        }
    }

    /// Where a request comes from.
    pub(super) fn address(&self, request: &Request<'_>) -> String {
        self.sender(request)
            .map_or_else(String::new, |ip| ip.to_string())
    }

    fn sender(&self, request: &Request<'_>) -> Option<IpAddr> {
        self.sender_of(request.headers.last("x-forwarded-for"), request.peer)
    }

    /// Where a request comes from: what the proxy says in the last
    /// `X-Forwarded-For` where there is one, or else the other end of the
    /// connection.
    pub(crate) fn sender_of(
        &self,
        forwarded_for: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Option<IpAddr> {
        forwarded_for
            .filter(|_| self.settings.behind_tls)
            .and_then(|list| list.rsplit(',').next())
            .and_then(|last| node(last.trim()))
            .or(peer)
            .map(|ip| ip.to_canonical())
    }

    /// The digest of the API token or the session's cookie that a request
    /// shows.
    pub(crate) fn shown(&self, request: &http::Request) -> Option<TokenDigest> {
        if let Some(value) = request.field("Authorization") {
            let (scheme, token) = value.split_once(' ')?;
            return scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| TokenDigest::of(token.trim()));
        }
        let cookie = cookie_in(request.field("Cookie")?, self.cookie_name())?;
        Some(TokenDigest::of(cookie))
    }

    /// The name of the session's cookie. With the prefix, a browser takes it
    /// over TLS only, and from this very host.
    fn cookie_name(&self) -> &'static str {
        if self.settings.behind_tls {
            "__Host-av_session"
        } else {
            "av_session"
        }
    }

    /// The session's cookie of a request.
    pub(super) fn cookie<'a>(&self, headers: &'a Headers) -> Option<&'a str> {
        cookie_in(headers.get("cookie")?, self.cookie_name())
    }

    /// The `Set-Cookie` that starts a session; `""` ends it. `Lax`: a link in
    /// a mail of an alert opens the page of whoever is logged in, while no
    /// other site's form or script gets the cookie sent along. Reading changes
    /// nothing, and [`check_forgery`] stands before everything else.
    pub(super) fn set_cookie(&self, value: &str) -> String {
        format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Lax{}{}",
            self.cookie_name(),
            if self.settings.behind_tls {
                "; Secure"
            } else {
                ""
            },
            if value.is_empty() { "; Max-Age=0" } else { "" },
        )
    }
}

/// The address of an entry of `X-Forwarded-For`; some proxies add the port, and
/// write an IPv6 address in brackets then.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().ok().or_else(|| {
        text.parse()
            .ok()
            .map(|with_port: SocketAddr| with_port.ip())
    })
}

fn caller(identity: Identity, origin: Origin, ip: String, csrf: String) -> Caller {
    Caller {
        user_id: identity.user_id,
        name: identity.name,
        role: identity.role,
        origin,
        ip,
        csrf,
    }
}

/// The token that a page of this session puts into its forms. It says nothing
/// of the cookie, and no page of another site can read it.
pub(super) fn csrf_token(cookie: &str) -> String {
    TokenDigest::of(&format!("csrf:{cookie}")).hex().to_owned()
}

/// 401 for the API, the log-in page for a browser.
pub(super) fn ask_to_log_in(request: &Request<'_>) -> Answer {
    if request.is_api() || request.method != Method::Get {
        return unauthorized("log in, or send an API token as Authorization: Bearer avt_...");
    }
    let path: String = request
        .path
        .iter()
        .map(|part| format!("/{}", encode(part)))
        .collect();
    if path.is_empty() {
        Answer::see_other("/login")
    } else {
        Answer::see_other(format!("/login?next={}", encode(&path)))
    }
}

fn unauthorized(why: &str) -> Answer {
    Answer::error(401, why).with("WWW-Authenticate", "Bearer realm=\"av-backend\"")
}

/// What a browser says of the page that made it send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    /// One of ours.
    Own,
    /// Somebody else's.
    Foreign,
    /// It does not say.
    Unknown,
}

fn page(admin: &Admin, request: &Request<'_>) -> Page {
    let headers = &request.headers;
    if let Some(site) = headers.get("sec-fetch-site") {
        return match site {
            "same-origin" | "none" => Page::Own,
            _ => Page::Foreign,
        };
    }
    let Some(origin) = headers.get("origin") else {
        return Page::Unknown;
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    // A proxy may have put its own name into Host.
    let forwarded = headers
        .last("x-forwarded-host")
        .filter(|_| admin.settings.behind_tls);
    if host.is_some() && (host == headers.get("host") || host == forwarded) {
        Page::Own
    } else {
        Page::Foreign
    }
}

/// Refuses a log-in that a foreign page made the browser send.
pub(super) fn check_page(admin: &Admin, request: &Request<'_>) -> Result<(), Answer> {
    match page(admin, request) {
        Page::Foreign => Err(Answer::error(403, "this comes from a page of another site")),
        Page::Own | Page::Unknown => Ok(()),
    }
}

/// Refuses a change without the session's CSRF token, or that a foreign page
/// made the browser send. `SameSite` keeps the cookie out of such requests
/// already; this holds where a browser does not know it, or a neighbouring
/// host is hostile.
pub(super) fn check_forgery(
    admin: &Admin,
    request: &Request<'_>,
    caller: &Caller,
    body: &[u8],
) -> Result<(), Answer> {
    if request.method == Method::Get || caller.origin == Origin::Api {
        return Ok(());
    }
    check_page(admin, request)?;
    let right = |token: &str| TokenDigest::of(token) == TokenDigest::of(&caller.csrf);
    let media = request.headers.media_type();
    let in_form = || {
        let form = Query::parse(std::str::from_utf8(body).ok()?)?;
        Some(right(form.get("_csrf")?))
    };
    let proven = request.headers.get("x-csrf-token").is_some_and(right)
        || (media == "application/x-www-form-urlencoded" && in_form() == Some(true));
    if proven {
        Ok(())
    } else {
        Err(Answer::error(
            403,
            "the CSRF token is missing or wrong: send it as X-CSRF-Token or as the field _csrf",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_proxy_may_have_a_port() {
        for (text, address) in [
            ("203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9:51234", Some("203.0.113.9")),
            ("2001:db8::5", Some("2001:db8::5")),
            ("[2001:db8::5]", Some("2001:db8::5")),
            ("[2001:db8::5]:443", Some("2001:db8::5")),
            ("203.0.113.9:", None),
            ("203.0.113.9:99999", None),
            ("[2001:db8::5", None),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ] {
            let expected = address.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(node(text), expected, "{text}");
        }
    }
}
