//! The backend's base URL, from which the agent makes its addresses.

use std::fmt;

use av_proto::secret::Secret;

/// A base URL without a trailing slash.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl(String);

/// Why a text is no base URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendUrlError {
    /// Another scheme, or none.
    #[error("does not start with http:// or https://")]
    Scheme,
    /// Nothing where the host should be.
    #[error("has no host")]
    Host,
    /// `user:password@`, which would end in logs.
    #[error("must not have a user name or password")]
    UserInfo,
    /// A space, a control, a query or a fragment.
    #[error("has a character that a base URL cannot have")]
    Character,
}

impl BackendUrl {
    /// Reads a base URL; one that ends in `/ingest` is accepted, as an
    /// earlier agent had it.
    ///
    /// # Errors
    /// [`BackendUrlError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, BackendUrlError> {
        let text = text.trim();
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| {
                text.get(..scheme.len())
                    .filter(|start| start.eq_ignore_ascii_case(scheme))
                    .map(|start| &text[start.len()..])
            })
            .ok_or(BackendUrlError::Scheme)?;
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(BackendUrlError::UserInfo);
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(BackendUrlError::Host);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['?', '#', '"', '\\']) {
            return Err(BackendUrlError::Character);
        }
        let base = text.trim_end_matches('/');
        let base = base.strip_suffix("/ingest").unwrap_or(base);
        Ok(Self(base.trim_end_matches('/').to_owned()))
    }

    /// Where the configuration is pulled with the token in a header.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}/config", self.0)
    }

    /// Where an older backend has it. It holds the token: for the wire only.
    #[must_use]
    pub fn config_with(&self, token: &Secret) -> Secret {
        let mut url = format!("{}/config/", self.0);
        for byte in token.expose().bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push_str(&format!("%{byte:02X}"));
            }
        }
        Secret::new(url)
    }

    /// The same for a log, whichever it is: the token left out.
    #[must_use]
    pub fn config_shown(&self) -> String {
        format!("{}/config/...", self.0)
    }

    /// Where reports go.
    #[must_use]
    pub fn ingest(&self) -> String {
        format!("{}/ingest", self.0)
    }

    /// Where equipment that was found is suggested.
    #[must_use]
    pub fn suggestions(&self) -> String {
        format!("{}/suggestions", self.0)
    }

    /// Where a new token is fetched.
    #[must_use]
    pub fn token_renewal(&self) -> String {
        format!("{}/token/renew", self.0)
    }

    /// Where an agent enrols.
    #[must_use]
    pub fn enrolment(&self) -> String {
        format!("{}/enroll", self.0)
    }

    /// The base itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendUrl({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_read_in_every_accepted_spelling() {
        for (text, base) in [
            ("http://backend:8000", "http://backend:8000"),
            (" http://backend:8000/ ", "http://backend:8000"),
            ("http://backend:8000/ingest", "http://backend:8000"),
            ("http://backend:8000/ingest/", "http://backend:8000"),
            ("https://av.example/api//", "https://av.example/api"),
            ("HTTPS://av.example/api/ingest", "HTTPS://av.example/api"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ] {
            assert_eq!(BackendUrl::parse(text).unwrap().as_str(), base);
        }
        for (text, error) in [
            ("backend:8000", BackendUrlError::Scheme),
            ("", BackendUrlError::Scheme),
            ("ftp://backend", BackendUrlError::Scheme),
            ("http://", BackendUrlError::Host),
            ("http:///ingest", BackendUrlError::Host),
            ("http://:8000", BackendUrlError::Host),
            ("http://a:b@backend", BackendUrlError::UserInfo),
            ("http://backend/?x", BackendUrlError::Character),
            ("http://back end", BackendUrlError::Character),
        ] {
            assert_eq!(BackendUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn addresses_are_made_and_the_shown_one_has_no_token() {
        let url = BackendUrl::parse("http://backend:8000/ingest").unwrap();
        let token = Secret::new("a/b c");
        assert_eq!(
            url.config_with(&token).expose(),
            "http://backend:8000/config/a%2Fb%20c"
        );
        assert_eq!(url.config(), "http://backend:8000/config");
        assert_eq!(url.config_shown(), "http://backend:8000/config/...");
        assert_eq!(url.ingest(), "http://backend:8000/ingest");
        assert_eq!(url.token_renewal(), "http://backend:8000/token/renew");
    }
}
