//! One poll of the backend, from request to document.

use av_proto::FieldError;
use av_proto::config::SiteDocument;
use av_proto::hash::ConfigHash;
use av_proto::secret::Secret;
use jiff::Timestamp;

use crate::config::Identity;
use crate::config_source::ConfigSource;
use crate::http_client::{Answer, ExchangeError, error_of};

/// What a poll brought.
#[derive(Debug)]
pub(super) enum Pulled {
    /// The backend has what is stored here.
    Unchanged(ConfigHash),
    /// The backend has something else.
    Document(Box<SiteDocument>),
}

/// A poll that worked.
#[derive(Debug)]
pub(super) struct Poll {
    /// What it brought.
    pub(super) pulled: Pulled,
    /// The token that the backend knew.
    pub(super) opened_by: OpenedBy,
    /// The backend asks for that token to be renewed.
    pub(super) renew_token: bool,
    /// When the backend says that it answered.
    pub(super) date: Option<Timestamp>,
}

/// Which of an agent's tokens the backend knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenedBy {
    /// `site_token`.
    Current,
    /// The one before it: the backend does not know the new one any more.
    Previous,
}

/// Why the backend's configuration does not run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// No answer, or not a whole one.
    #[error("backend not reachable: {0}")]
    Unreachable(#[from] ExchangeError),
    /// The backend does not know the token.
    #[error("the backend does not know this site's token (404)")]
    UnknownToken,
    /// Another answer than the contract's.
    #[error("the backend answered {status}{}", .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Status {
        /// The HTTP status.
        status: u16,
        /// The backend's own words.
        message: Option<String>,
    },
    /// The body is not a configuration.
    #[error("the backend's answer is not a configuration: {0}")]
    Body(#[from] FieldError),
    /// It is one, and it cannot be run.
    #[error("configuration refused: {0}")]
    Refused(String),
    /// It runs, and it could not be kept.
    #[error("the configuration runs but could not be saved: {0}")]
    NotSaved(String),
}

/// Polls once; with the token before, where there is one and the backend does
/// not know the newer. `stored` is the hash of what is on disk, where it is
/// known.
pub(super) fn pull(
    source: &ConfigSource,
    identity: &Identity,
    stored: Option<&ConfigHash>,
) -> Result<Poll, PullError> {
    let with = |token: &Secret, opened_by| {
        let etag = stored.map(|hash| format!("\"{hash}\""));
        let answer = source.get(&identity.backend_url, token, etag.as_deref())?;
        Ok(Poll {
            pulled: read(&answer, stored)?,
            opened_by,
            renew_token: answer.renew_token,
            date: answer.date,
        })
    };
    let outcome = with(&identity.site_token, OpenedBy::Current);
    match (&outcome, &identity.previous_token) {
        (Err(PullError::UnknownToken), Some(previous)) => with(previous, OpenedBy::Previous),
        _ => outcome,
    }
}

fn read(answer: &Answer, stored: Option<&ConfigHash>) -> Result<Pulled, PullError> {
    match (answer.status, stored) {
        (200, _) => {
            let document = SiteDocument::parse(&answer.body)?;
            // A backend without ETags answers whole; equal is equal.
            Ok(match stored {
                Some(hash) if *hash == document.config_hash => Pulled::Unchanged(hash.clone()),
                _ => Pulled::Document(Box::new(document)),
            })
        }
        (304, Some(hash)) => Ok(Pulled::Unchanged(hash.clone())),
        (404, _) => Err(PullError::UnknownToken),
        (status, _) => Err(PullError::Status {
            status,
            message: error_of(&answer.body),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"config_hash":"0123456789abcdef0123456789abcdef","site_name":"Paris",
        "timezone":"UTC","doubt_after_days":2,
        "reporting":{"ok_interval_s":300,"ko_interval_s":60},"devices":[]}"#;

    fn hash(digit: char) -> ConfigHash {
        ConfigHash::try_from(digit.to_string().repeat(32)).unwrap()
    }

    #[test]
    fn answers_are_told_apart() {
        let same = ConfigHash::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap();
        let other = hash('a');
        let table: &[(u16, &str, Option<&ConfigHash>, &str)] = &[
            (200, BODY, None, "document"),
            (200, BODY, Some(&other), "document"),
            (200, BODY, Some(&same), "unchanged"),
            (304, "", Some(&other), "unchanged"),
            (304, "", None, "the backend answered 304"),
            (
                404,
                r#"{"error":"unknown"}"#,
                None,
                "the backend does not know this site's token (404)",
            ),
            (
                500,
                r#"{"error":"on fire"}"#,
                None,
                "the backend answered 500: on fire",
            ),
            (302, "<html>", None, "the backend answered 302"),
            (
                200,
                &BODY[..60],
                None,
                "the backend's answer is not a configuration: document: is not JSON",
            ),
            (
                200,
                "<html>",
                None,
                "the backend's answer is not a configuration: document: is not JSON",
            ),
        ];
        for (status, body, stored, expected) in table {
            let answer = Answer {
                status: *status,
                body: body.as_bytes().to_vec(),
                renew_token: false,
                date: None,
                takes_bearer: false,
            };
            let said = match read(&answer, *stored) {
                Ok(Pulled::Document(_)) => "document".to_owned(),
                Ok(Pulled::Unchanged(_)) => "unchanged".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.starts_with(expected), "{status} {body}: {said}");
        }
    }
}
