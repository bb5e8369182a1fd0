//! How the agent speaks HTTP to its backend: bounded in time and size, and
//! without a word of the token in an error.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use av_proto::secret::Secret;
use av_proto::text::excerpt;
use jiff::Timestamp;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::TlsConfig;
use ureq::typestate::WithBody;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, RequestBuilder};

use crate::tls::{self, Stamp, TlsFiles};

/// The most that an exchange may take, from name look-up to the last byte.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);
/// The most that a name look-up may take. The system's asks a server that does
/// not answer twice, for 5 s each (resolv.conf(5)), and then the next.
const RESOLVE_MAX: Duration = Duration::from_secs(15);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
    /// The backend asks for the token to be renewed
    /// (`X-Token-Renewal: requested`).
    pub renew_token: bool,
    /// When the other side says that it answered (`Date`, RFC 9110, 6.6.1).
    pub date: Option<Timestamp>,
    /// The backend takes the token of a poll in a header
    /// (`X-Site-Auth: bearer`).
    pub takes_bearer: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ExchangeError {
    text: String,
    is_unsent: bool,
}

impl ExchangeError {
    /// Whether it is certain that nothing of the request reached anybody: there
    /// was no connection.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.is_unsent
    }
}

/// A client that keeps its connections open between exchanges.
#[derive(Debug, Clone)]
pub struct HttpClient {
    /// For addresses without TLS.
    plain: Agent,
    tls: Arc<Tls>,
}

/// What TLS needs, read when it is first needed and when it changed.
#[derive(Debug)]
struct Tls {
    files: TlsFiles,
    loaded: Mutex<Option<(Stamp, Agent)>>,
}

impl Tls {
    fn agent(&self) -> Result<Agent, ExchangeError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if let Some((_, agent)) = loaded.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(agent.clone());
        }
        let config = self.files.load();
        let config = config.map_err(|error| ExchangeError {
            text: error.to_string(),
            is_unsent: true,
        })?;
        let agent = agent(config);
        *loaded = Some((stamp, agent.clone()));
        Ok(agent)
    }
}

fn agent(tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(EXCHANGE_MAX))
        .timeout_resolve(Some(RESOLVE_MAX))
        .timeout_connect(Some(CONNECT_MAX))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(format!("av-agent/{}", crate::VERSION))
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Names::default())
}

/// The system's look-up of names, whose failures say that it was one, and of
/// which name.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| {
            let why = match error {
                ureq::Error::BadUri(_) => return error,
                ureq::Error::Timeout(_) => "the name server does not answer in time".to_owned(),
                ureq::Error::HostNotFound => "it has no address".to_owned(),
                ureq::Error::Io(error) => error.to_string(),
                other => other.to_string(),
            };
            ureq::Error::Other(Box::new(NotResolved {
                name: uri.host().unwrap_or_default().to_owned(),
                why,
            }))
        })
    }
}

/// A name that was not resolved.
#[derive(Debug, thiserror::Error)]
#[error("{name}: name not resolved: {why}")]
struct NotResolved {
    name: String,
    why: String,
}

impl HttpClient {
    /// A client with the agent's limits, which trusts the system's
    /// authorities. It follows no redirect: the token belongs to the
    /// configured backend and to no other.
    #[must_use]
    pub fn new() -> Self {
        Self::with_tls(TlsFiles::default())
    }

    /// The same with these files. They are read when an address with TLS is
    /// asked for, and again when they changed; where they cannot serve, that
    /// exchange fails and says so.
    #[must_use]
    pub fn with_tls(files: TlsFiles) -> Self {
        Self {
            plain: agent(TlsConfig::default()),
            tls: Arc::new(Tls {
                files,
                loaded: Mutex::new(None),
            }),
        }
    }

    fn agent(&self, url: &str) -> Result<Agent, ExchangeError> {
        let scheme = url.get(.."https:".len());
        if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
            self.tls.agent()
        } else {
            Ok(self.plain.clone())
        }
    }

    /// `GET url`, with `If-None-Match` where an ETag is known.
    ///
    /// # Errors
    /// When no whole answer of at most `limit` bytes came in time.
    pub fn get(
        &self,
        url: &Secret,
        if_none_match: Option<&str>,
        limit: u64,
    ) -> Result<Answer, ExchangeError> {
        let mut request = self.agent(url.expose())?.get(url.expose());
        if let Some(etag) = if_none_match {
            request = request.header("If-None-Match", etag);
        }
        answer(request.call(), limit).map_err(|error| describe(&error, url))
    }

    /// `GET url` under a site token in `Authorization: Bearer` (RFC 6750,
    /// section 2.1), with `If-None-Match` where an ETag is known.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub fn get_as(
        &self,
        url: &str,
        token: &Secret,
        if_none_match: Option<&str>,
        limit: u64,
    ) -> Result<Answer, ExchangeError> {
        let mut request = self
            .agent(url)?
            .get(url)
            .header("Authorization", format!("Bearer {}", token.expose()));
        if let Some(etag) = if_none_match {
            request = request.header("If-None-Match", etag);
        }
        answer(request.call(), limit).map_err(|error| describe(&error, token))
    }

    /// `POST url` of a JSON body under a site token.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub fn post_json(
        &self,
        url: &str,
        token: &Secret,
        body: &[u8],
        limit: u64,
    ) -> Result<Answer, ExchangeError> {
        let request = self.json_post(url)?.header("X-Site-Token", token.expose());
        answer(request.send(body), limit).map_err(|error| describe(&error, token))
    }

    /// `POST url` of a JSON body under no token; `secret` is what no error may
    /// quote of it.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub fn post_openly(
        &self,
        url: &str,
        secret: &Secret,
        body: &[u8],
        limit: u64,
    ) -> Result<Answer, ExchangeError> {
        let request = self.json_post(url)?;
        answer(request.send(body), limit).map_err(|error| describe(&error, secret))
    }

    fn json_post(&self, url: &str) -> Result<RequestBuilder<WithBody>, ExchangeError> {
        let request = self.agent(url)?.post(url);
        Ok(request.header("Content-Type", "application/json"))
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    limit: u64,
) -> Result<Answer, ureq::Error> {
    let mut response = response?;
    let body = response
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_vec()?;
    let says = |name, word| {
        let value = response.headers().get(name);
        value.is_some_and(|value| value == word)
    };
    let renew_token = says("X-Token-Renewal", "requested");
    let takes_bearer = says("X-Site-Auth", "bearer");
    let date = response
        .headers()
        .get("Date")
        .and_then(|value| http_date(value.to_str().ok()?));
    Ok(Answer {
        date,
        status: response.status().as_u16(),
        body,
        renew_token,
        takes_bearer,
    })
}

/// An HTTP date, which has the form of an e-mail's: RFC 9110, 5.6.7, without
/// the two obsolete forms.
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
}

/// ureq's errors may quote the address that was asked, and it holds a secret.
fn describe(error: &ureq::Error, secret: &Secret) -> ExchangeError {
    let text = match error {
        ureq::Error::Timeout(what) => format!("no whole answer in time ({what})"),
        ureq::Error::Other(other) => other.to_string(),
        ureq::Error::BodyExceedsLimit(limit) => {
            format!("the answer is larger than {limit} bytes")
        }
        ureq::Error::BadUri(_) => "the backend's address is not valid".to_owned(),
        other => other.to_string(),
    };
    let text = match tls::explain(&text) {
        Some(words) => format!("{words} ({text})"),
        None => text,
    };
    let text = text.replace(secret.expose(), "...");
    ExchangeError {
        text: excerpt(&text, 300),
        is_unsent: is_before_connection(error),
    }
}

/// Whether an error is one of name look-up or of connecting. Where it could be
/// of a connection that was there, it is not.
fn is_before_connection(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::BadUri(_) => true,
        ureq::Error::Other(other) => other.is::<NotResolved>(),
        ureq::Error::Timeout(what) => {
            matches!(what, ureq::Timeout::Resolve | ureq::Timeout::Connect)
        }
        // A connection that is there ends with others.
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

/// The `error` of a JSON error body, or nothing.
#[must_use]
pub fn error_of(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(excerpt(value.get("error")?.as_str()?, 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        for (text, at) in [
            (
                "Tue, 24 Nov 2026 10:00:00 GMT",
                Some("2026-11-24T10:00:00Z"),
            ),
            (
                "Thu, 01 Jan 1970 00:00:00 GMT",
                Some("1970-01-01T00:00:00Z"),
            ),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), at.map(|at| at.parse().unwrap()), "{text}");
        }
    }
}
