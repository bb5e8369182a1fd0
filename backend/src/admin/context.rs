//! What a route of the administrator knows of a request and its sender.

use std::net::IpAddr;

use av_service::http::Method;

use crate::answer::Answer;
use crate::store::actor::Actor;
pub use crate::store::users::Role;
use crate::url::Query;

/// How a user came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// With a session's cookie, from a browser.
    Web,
    /// With a personal API token.
    Api,
}

impl Origin {
    /// The word for versions and the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Api => "api",
        }
    }
}

/// A user who came in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's id.
    pub user_id: i64,
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// How the user came in.
    pub origin: Origin,
    /// From where.
    pub ip: String,
    /// What a form of this session sends back as its field `_csrf`, or a
    /// script as the header `X-CSRF-Token`; empty with an API token.
    pub csrf: String,
}

impl Caller {
    /// Who the database is told that it was.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor_as(self.origin.as_str())
    }

    /// The same with another origin: `import`, `rollback`.
    #[must_use]
    pub fn actor_as(&self, origin: &'static str) -> Actor {
        Actor {
            name: self.name.clone(),
            origin,
            ip: self.ip.clone(),
        }
    }
}

/// The header fields of a request, their names in lower case.
#[derive(Debug, Clone, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The fields as they arrived.
    pub fn new<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            fields
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
        )
    }

    /// The first field of this name, which is given in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.trim())
    }

    /// The last field of this name: the one that the nearest proxy added.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.trim())
    }

    /// The media type of the body, in lower case and without parameters; `""`
    /// where there is none.
    #[must_use]
    pub fn media_type(&self) -> String {
        self.get("content-type")
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }
}

/// A request before anybody knows who sent it.
pub struct Request<'a> {
    /// GET for HEAD: the answer is the same, and the server leaves the body out.
    pub(crate) method: Method,
    /// The segments of the path, decoded.
    pub(crate) path: Vec<&'a str>,
    /// The query.
    pub(crate) query: &'a Query,
    /// The header fields.
    pub(crate) headers: Headers,
    /// The other end of the connection.
    pub(crate) peer: Option<IpAddr>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        method: &Method,
        path: &'a [String],
        query: &'a Query,
        headers: Headers,
        peer: Option<IpAddr>,
    ) -> Self {
        Self {
            method: match method {
                Method::Head => Method::Get,
                other => other.clone(),
            },
            path: path.iter().map(String::as_str).collect(),
            query,
            headers,
            peer,
        }
    }

    /// Whether it is one of the API, and not of the pages.
    pub(crate) fn is_api(&self) -> bool {
        self.path.first() == Some(&"admin")
    }
}

/// A request of a user who came in.
pub struct Call<'a> {
    /// GET, POST, PUT, PATCH or DELETE; GET for HEAD.
    pub(crate) method: Method,
    /// The segments of the path, decoded: of the API those after `/admin`, of
    /// the pages all.
    pub(crate) path: &'a [&'a str],
    /// The query.
    pub(crate) query: &'a Query,
    /// The header fields.
    pub(crate) headers: &'a Headers,
    /// The body, empty where there is none.
    pub(crate) body: &'a [u8],
    /// Who it is.
    pub(crate) caller: &'a Caller,
}

impl Call<'_> {
    /// Refuses with 403 whoever has less than this role.
    pub(crate) fn require(&self, role: Role) -> Result<(), Answer> {
        if self.caller.role >= role {
            return Ok(());
        }
        Err(Answer::error(
            403,
            &format!(
                "this takes the role {}, and yours is {}",
                role.as_str(),
                self.caller.role.as_str()
            ),
        ))
    }

    /// 405 with the methods that there are.
    pub(crate) fn only(&self, allow: &'static str) -> Answer {
        Answer::error(405, &format!("only {allow} is allowed here")).with("Allow", allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        let headers = Headers::new(
            [
                ("Content-Type", "Application/JSON; charset=utf-8"),
                ("X-Forwarded-For", "1.1.1.1"),
                ("x-forwarded-for", " 2.2.2.2 "),
            ]
            .into_iter(),
        );
        assert_eq!(headers.media_type(), "application/json");
        assert_eq!(headers.get("x-forwarded-for"), Some("1.1.1.1"));
        assert_eq!(headers.last("x-forwarded-for"), Some("2.2.2.2"));
    }
}
