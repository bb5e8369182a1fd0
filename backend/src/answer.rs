//! Answers of the HTTP server: JSON, errors as `{"error": "..."}`, and the
//! pages of the web interface.

use std::io::Read;
use std::sync::Arc;

use av_service::http::{self, Bytes, Content};
use serde::Serialize;

use crate::store::StoreError;

/// An answer, before it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Content,
}

fn own(bytes: Vec<u8>) -> Content {
    Content::Bytes(Bytes::Own(bytes))
}

fn shared(bytes: Arc<[u8]>) -> Content {
    Content::Bytes(Bytes::Shared(bytes))
}

fn fixed(bytes: &'static [u8]) -> Content {
    Content::Bytes(Bytes::Static(bytes))
}

const JSON: &str = "application/json";
/// What is said to everybody of a database that is another program's.
pub(crate) const FOREIGN: &str = "the database has tables of another program; the log says which";

impl Answer {
    /// A value as JSON.
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                content_type: JSON,
                headers: Vec::new(),
                body: own(body),
            },
            Err(error) => {
                log::error!("an answer could not be written: {error}");
                Self::error(500, "the answer could not be written")
            }
        }
    }

    /// A JSON text that a cache keeps.
    pub(crate) fn shared_json(status: u16, body: Arc<[u8]>) -> Self {
        Self {
            status,
            content_type: JSON,
            headers: Vec::new(),
            body: shared(body),
        }
    }

    /// A text that is JSON.
    pub(crate) fn json_text(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: JSON,
            headers: Vec::new(),
            body: own(body),
        }
    }

    /// A text that is JSON, made while it is sent.
    pub(crate) fn json_stream(body: impl Read + Send + 'static) -> Self {
        Self::stream(JSON, body)
    }

    /// Text of some type, made while it is sent.
    pub(crate) fn stream(content_type: &'static str, body: impl Read + Send + 'static) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: Content::Stream(Box::new(body)),
        }
    }

    /// Plain text of some type.
    pub(crate) fn text(content_type: &'static str, body: String) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: own(body.into_bytes()),
        }
    }

    /// A page of HTML.
    pub(crate) fn html(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            headers: Vec::new(),
            body: own(body.into_bytes()),
        }
    }

    /// A file that is embedded in the program.
    pub(crate) fn embedded(content_type: &'static str, body: &'static [u8]) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: fixed(body),
        }
    }

    /// 204: done, and nothing to say.
    pub(crate) fn done() -> Self {
        Self {
            status: 204,
            content_type: JSON,
            headers: Vec::new(),
            body: fixed(b""),
        }
    }

    /// 304: the one that is asked about stands.
    pub(crate) fn unchanged() -> Self {
        Self {
            status: 304,
            ..Self::done()
        }
    }

    /// 303: look at `location`, which must be ASCII.
    pub(crate) fn see_other(location: impl Into<String>) -> Self {
        Self {
            status: 303,
            ..Self::done()
        }
        .with("Location", location)
    }

    /// `{"error": "..."}`.
    pub(crate) fn error(status: u16, error: &str) -> Self {
        Self {
            status,
            content_type: JSON,
            headers: Vec::new(),
            body: own(serde_json::json!({ "error": error })
                .to_string()
                .into_bytes()),
        }
    }

    /// Whether it is one of those that the constructors make as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.content_type == JSON
    }

    /// The same with a header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As the edge sends it.
    pub(crate) fn into_http(self) -> http::Answer {
        let own = self.headers;
        let mut answer = http::Answer::new(self.status, self.body);
        // What the answer sets itself is in place of these.
        let usual = [
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Server", "av-backend"),
        ];
        for (name, value) in usual {
            if !own.iter().any(|(set, _)| *set == name) {
                answer = answer.with(name, value);
            }
        }
        own.into_iter()
            .fold(answer, |answer, (name, value)| answer.with(name, value))
    }
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) | StoreError::Busy(_) => {
                Self::error(503, &error.to_string()).with("Retry-After", "2")
            }
            // Waiting mends it no sooner.
            StoreError::Incomplete(_) => Self::error(503, &error.to_string()),
            // Not its names: everybody may ask for the health. The log has them.
            StoreError::Foreign { .. } => Self::error(503, FOREIGN),
            StoreError::BadValue(_) => Self::error(400, &error.to_string()),
            StoreError::Taken(_) => Self::error(409, &error.to_string()),
            StoreError::Refused(_) => {
                log::error!("{error}");
                Self::error(500, "the database refused; the log says why")
            }
        }
    }
}
