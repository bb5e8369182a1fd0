//! Answers of the HTTP server: JSON, errors as `{"error": "..."}`, and the
//! pages of the web interface.

use std::io::Read;
use std::sync::Arc;

use av_service::http::{self, Bytes, Content};
use serde::Serialize;

use crate::gzip;
use crate::store::StoreError;

/// An answer, before it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Content,
}

fn own_bytes(bytes: Vec<u8>) -> Content {
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
                body: own_bytes(body),
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
            body: own_bytes(body),
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
            body: own_bytes(body.into_bytes()),
        }
    }

    /// A page of HTML.
    pub(crate) fn html(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/html; charset=utf-8",
            headers: Vec::new(),
            body: own_bytes(body.into_bytes()),
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

    /// The same, packed with gzip.
    pub(crate) fn packed(content_type: &'static str, body: Arc<[u8]>) -> Self {
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: shared(body),
        }
        .with("Content-Encoding", "gzip")
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
            body: own_bytes(
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

    /// Packed, where its request takes that and it gets shorter. Not for a
    /// request that another site's page made the browser send: the length of a
    /// packed page tells of secrets beside what the page was made to say.
    pub(crate) fn packed_for(mut self, request: &http::Request) -> Self {
        // Not a configuration, which a cache keeps: its tag is its hash.
        let Content::Bytes(bytes @ Bytes::Own(_)) = &self.body else {
            return self;
        };
        let own = |name: &str| self.headers.iter().any(|(set, _)| *set == name);
        let foreign = request
            .field("Sec-Fetch-Site")
            .is_some_and(|site| site != "same-origin" && site != "none");
        let text = bytes.as_ref();
        if self.status != 200
            || text.len() <= gzip::LEAST
            || foreign
            || own("Content-Encoding")
            || !gzip::is_worth_it(self.content_type)
            || !gzip::is_accepted(request.field("Accept-Encoding"))
        {
            return self;
        }
        self.body = own_bytes(gzip::packed(text, gzip::Level::fast()));
        // The bytes are others than those that the tag is of.
        for (name, value) in &mut self.headers {
            if *name == "ETag" && !value.starts_with("W/") {
                value.insert_str(0, "W/");
            }
        }
        self.with("Content-Encoding", "gzip")
            .with("Vary", "Accept-Encoding")
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

#[cfg(test)]
mod tests {
    use av_service::http::Request;

    use super::*;

    #[test]
    fn long_texts_are_packed_for_those_who_take_it() {
        let long = "projector ".repeat(1000);
        let html = || Answer::html(200, long.clone()).with("ETag", "\"a\"");
        let short = || Answer::html(200, "short".to_owned());
        let kept = || Answer::shared_json(200, long.as_bytes().into());
        for (answer, fields, packed) in [
            (html(), "Accept-Encoding: br, gzip\r\n", true),
            (
                html(),
                "Accept-Encoding: gzip\r\nSec-Fetch-Site: none\r\n",
                true,
            ),
            (
                html(),
                "Accept-Encoding: gzip\r\nSec-Fetch-Site: cross-site\r\n",
                false,
            ),
            (html(), "Accept-Encoding: gzip;q=0\r\n", false),
            (html(), "", false),
            (short(), "Accept-Encoding: gzip\r\n", false),
            (kept(), "Accept-Encoding: gzip\r\n", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            let peer = "192.0.2.7:4711".parse().unwrap();
            let request = Request::parse(head.as_bytes(), peer).unwrap();
            let answer = answer.packed_for(&request);
            let field = |name: &str| {
                let found = answer.headers.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| value.as_str())
            };
            let coding = packed.then_some("gzip");
            assert_eq!(field("Content-Encoding"), coding, "{fields}");
            if packed {
                assert_eq!(field("ETag"), Some("W/\"a\""));
                assert_eq!(field("Vary"), Some("Accept-Encoding"));
            }
        }
    }
}
