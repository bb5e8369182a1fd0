//! `GET /config`: the configuration as the backend has it.
//!
//! The token goes in a header, which no proxy on the way writes into its log.
//! A backend that is older has the configuration only at `/config/{token}`.
//! Both answer 404 to what they do not know, so a newer one says in each of
//! its answers that it takes the token in a header. Where that word is missing
//! the path is asked within the same poll, and from then on first, until the
//! word is there: a backend may be upgraded, and rolled back, at any time, and
//! no poll is lost by either.

use std::sync::atomic::{AtomicBool, Ordering};

use av_proto::secret::Secret;

use crate::config::BackendUrl;
use crate::http_client::{Answer, ExchangeError, HttpClient};

/// The largest configuration that is read: 20,000 devices need a third of it.
const BODY_MAX_BYTES: u64 = 32 << 20;

/// Where configurations come from.
#[derive(Debug)]
pub struct ConfigSource {
    client: HttpClient,
    /// The backend was last seen not to take the token in a header.
    by_path: AtomicBool,
}

impl ConfigSource {
    /// One that has seen no backend yet.
    #[must_use]
    pub fn new(client: HttpClient) -> Self {
        Self {
            client,
            by_path: AtomicBool::new(false),
        }
    }

    /// Asks a backend for the configuration of the site with this token, with
    /// `If-None-Match` where an ETag is known.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub fn get(
        &self,
        backend: &BackendUrl,
        token: &Secret,
        if_none_match: Option<&str>,
    ) -> Result<Answer, ExchangeError> {
        // Others cannot stand in a header: nobody's log is worse than a poll
        // that never works.
        let fits = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if fits && !self.by_path.load(Ordering::Relaxed) {
            let answer =
                self.client
                    .get_as(&backend.config(), token, if_none_match, BODY_MAX_BYTES)?;
            if !is_foreign(&answer) {
                return Ok(answer);
            }
        }
        let url = backend.config_with(token);
        let answer = self.client.get(&url, if_none_match, BODY_MAX_BYTES)?;
        self.by_path.store(!answer.takes_bearer, Ordering::Relaxed);
        Ok(answer)
    }
}

/// Whether an answer to `GET /config` is not of a backend that knows this path:
/// an older one answers 404, and a proxy that was set up for the older path
/// alone may send elsewhere or refuse.
fn is_foreign(answer: &Answer) -> bool {
    !answer.takes_bearer
        && (300..500).contains(&answer.status)
        && !matches!(answer.status, 304 | 408 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_backend_is_known_by_what_it_does_not_say() {
        for (status, takes_bearer, foreign) in [
            (200, true, false),
            (304, true, false),
            // Its token is not known there.
            (404, true, false),
            (404, false, true),
            (405, false, true),
            // nginx with a `location /config/`.
            (301, false, true),
            (403, false, true),
            // A proxy whose backend is away says nothing about the path.
            (502, false, false),
            (503, false, false),
            (429, false, false),
            (200, false, false),
        ] {
            let answer = Answer {
                status,
                body: Vec::new(),
                renew_token: false,
                date: None,
                takes_bearer,
            };
            assert_eq!(is_foreign(&answer), foreign, "{status} {takes_bearer}");
        }
    }
}
