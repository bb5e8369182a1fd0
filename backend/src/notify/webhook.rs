//! Webhooks: a JSON body by POST, signed so that the receiver knows the sender.

use std::time::Duration;

use av_proto::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;
use ureq::Agent;

use super::Failure;

/// Posts messages.
pub(super) struct Webhooks {
    agent: Agent,
}

impl Webhooks {
    /// Each try may take so long. Redirections are not followed: a signed
    /// message goes where it was told to.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            agent: Agent::config_builder()
                .timeout_global(Some(timeout))
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("av-backend/", env!("CARGO_PKG_VERSION")))
                .build()
                .into(),
        }
    }

    /// Posts a message. It has arrived where the answer is 2xx. `key` is the
    /// same at every try of it, and no other message's.
    pub(super) fn post(
        &self,
        url: &Secret,
        secret: &Secret,
        id: i64,
        key: &str,
        body: &str,
    ) -> Result<(), Failure> {
        let timestamp = Timestamp::now().as_second().to_string();
        let response = self
            .agent
            .post(url.expose())
            .header("Content-Type", "application/json")
            .header("X-AV-Message", id.to_string())
            .header("Idempotency-Key", format!("\"{key}\""))
            .header("X-AV-Signature", signature(secret, &timestamp, body))
            .header("X-AV-Timestamp", timestamp)
            .send(body.as_bytes())
            .map_err(|error| Failure {
                why: describe(&error, url),
                channel: true,
            })?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(Failure {
                why: format!("the receiver answered {status}"),
                // Others may be taken where this one is not.
                channel: !(400..=499).contains(&status) || matches!(status, 401 | 403 | 404 | 429),
            }),
        }
    }
}

/// `sha256=` and the HMAC-SHA-256 (RFC 2104) of the timestamp, a point and
/// the body, in hex. The timestamp is inside, so that what was recorded
/// cannot be replayed later.
fn signature(secret: &Secret, timestamp: &str, body: &str) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256=".to_owned();
    // HMAC takes keys of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) {
        mac.update(timestamp.as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// ureq's errors may quote the address, and it may hold a secret.
fn describe(error: &ureq::Error, url: &Secret) -> String {
    let text = match error {
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "the host name is not known".to_owned(),
        ureq::Error::BadUri(_) => "the address is not valid".to_owned(),
        other => other.to_string(),
    };
    text.replace(url.expose(), "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_openssl() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a key of some length'
        assert_eq!(
            signature(
                &Secret::new("a key of some length"),
                "1700000000",
                "{\"a\":1}"
            ),
            "sha256=5addd6e1974497a6f13107dc1d36ff9e93009bb7a7af041559bc7d90f1aaf271"
        );
    }
}
