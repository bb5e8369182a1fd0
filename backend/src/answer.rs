//! Answers of the HTTP server: JSON, errors as `{"error": "..."}`, and the
//! pages of the web interface.

use std::fmt;
use std::io::{Cursor, Read};
use std::sync::Arc;

use serde::Serialize;
use tiny_http::{Header, Response, StatusCode};

use crate::store::StoreError;

/// An answer, before it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    Own(Vec<u8>),
    /// Embedded in the program.
    Static(&'static [u8]),
    /// Kept by a cache.
    Shared(Arc<[u8]>),
    /// Made while it is sent.
    Stream(Box<dyn Read + Send>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length() {
            Some(length) => write!(f, "{length} bytes"),
            None => f.write_str("a stream"),
        }
    }
}

impl Body {
    fn length(&self) -> Option<usize> {
        match self {
            Self::Own(bytes) => Some(bytes.len()),
            Self::Static(bytes) => Some(bytes.len()),
            Self::Shared(bytes) => Some(bytes.len()),
            Self::Stream(_) => None,
        }
    }

    fn reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Own(bytes) => Box::new(Cursor::new(bytes)),
            Self::Static(bytes) => Box::new(Cursor::new(bytes)),
            Self::Shared(bytes) => Box::new(Cursor::new(bytes)),
            Self::Stream(reader) => reader,
        }
    }
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
                body: Body::Own(body),
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
            body: Body::Shared(body),
        }
    }

    /// A text that is JSON.
    pub(crate) fn json_text(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: JSON,
            headers: Vec::new(),
            body: Body::Own(body),
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
            body: Body::Stream(Box::new(body)),
        }
    }

    /// Plain text of some type.
    pub(crate) fn text(content_type: &'static str, body: String) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: Body::Own(body.into_bytes()),
        }
    }

    /// A page of HTML.
    pub(crate) fn html(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            headers: Vec::new(),
            body: Body::Own(body.into_bytes()),
        }
    }

    /// A file that is embedded in the program.
    pub(crate) fn embedded(content_type: &'static str, body: &'static [u8]) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: Body::Static(body),
        }
    }

    /// 204: done, and nothing to say.
    pub(crate) fn done() -> Self {
        Self {
            status: 204,
            content_type: JSON,
            headers: Vec::new(),
            body: Body::Static(b""),
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
            body: Body::Own(
                serde_json::json!({ "error": error })
                    .to_string()
                    .into_bytes(),
            ),
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

    /// As tiny_http sends it.
    pub(crate) fn into_response(self) -> Response<Box<dyn Read + Send>> {
        let length = self.body.length();
        let mut headers = Vec::with_capacity(self.headers.len() + 4);
        // What the answer sets itself stands in place of these.
        let usual = [
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Server", "av-backend"),
        ]
        .into_iter()
        .filter(|(name, _)| !self.headers.iter().any(|(own, _)| own == name))
        .map(|(name, value)| (name, value.to_owned()))
        .collect::<Vec<_>>();
        for (name, value) in usual.into_iter().chain(self.headers) {
            // Only a value that is not ASCII fails, and all are ours.
            if let Ok(header) = Header::from_bytes(name.as_bytes(), value.as_bytes()) {
                headers.push(header);
            }
        }
        let body = self.body.reader();
        Response::new(StatusCode(self.status), headers, body, length, None)
            // No chunks where the length is known.
            .with_chunked_threshold(usize::MAX)
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
