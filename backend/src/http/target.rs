//! A request's target: which route it takes, and what stands in it.

use tiny_http::Method;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// `/config/{site_token}`, decoded.
    Config(String),
    /// `/ingest`.
    Ingest,
    /// `/devices`, with `site` where it was given, decoded.
    Devices(Option<String>),
    /// `/health`.
    Health,
    /// `/metrics`.
    Metrics,
    /// Anything else.
    Unknown,
}

impl Target {
    /// Reads the target of a request line. What cannot be decoded is unknown.
    pub(super) fn parse(url: &str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        match path {
            "/ingest" => Self::Ingest,
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            "/devices" => match parameter(query, "site") {
                Ok(site) => Self::Devices(site),
                Err(NotText) => Self::Unknown,
            },
            _ => match path.strip_prefix("/config/") {
                Some(token) if !token.is_empty() && !token.contains('/') => {
                    decode(token, false).map_or(Self::Unknown, Self::Config)
                }
                _ => Self::Unknown,
            },
        }
    }

    /// The route for logs and metrics: never with what stands in it.
    pub(super) fn route(&self) -> &'static str {
        match self {
            Self::Config(_) => "/config/...",
            Self::Ingest => "/ingest",
            Self::Devices(_) => "/devices",
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::Unknown => "other",
        }
    }

    /// The methods that it allows, as the `Allow` header lists them; `None`
    /// where there is nothing.
    pub(super) fn allow(&self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Ingest => Some("POST"),
            _ => Some("GET, HEAD"),
        }
    }

    /// Whether it allows this method.
    pub(super) fn allows(&self, method: &Method) -> bool {
        match self {
            Self::Unknown => false,
            Self::Ingest => *method == Method::Post,
            _ => matches!(method, Method::Get | Method::Head),
        }
    }
}

/// Percent-encoded bytes that are not UTF-8.
#[derive(Debug, PartialEq, Eq)]
struct NotText;

/// A parameter of a query, `None` where it is absent or empty.
fn parameter(query: &str, name: &str) -> Result<Option<String>, NotText> {
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key, true)? == name {
            let value = decode(value, true)?;
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

/// Decodes `%XX` (RFC 3986 section 2.1) and, in a query, `+` as a space. A
/// percent sign without two hex digits stands for itself.
fn decode(text: &str, plus_is_space: bool) -> Result<String, NotText> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let escaped = match byte {
            b'%' => hex(bytes.get(i + 1)).zip(hex(bytes.get(i + 2))),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some((high, low))) => {
                out.push(high * 16 + low);
                i += 3;
                continue;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8(out).map_err(|_| NotText)
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Whether an `If-None-Match` names this hash (RFC 9110 section 13.1.2): a
/// list of entity tags, compared weakly, or `*`.
pub(super) fn none_match(header: &str, hash: &str) -> bool {
    header.trim() == "*"
        || header.split(',').any(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(hash)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let config = |token: &str| Target::Config(token.to_owned());
        let devices = |site: &str| Target::Devices(Some(site.to_owned()));
        for (url, target) in [
            ("/config/abc", config("abc")),
            ("/config/abc?x=1", config("abc")),
            ("/config/a%2Fb%20c+d", config("a/b c+d")),
            ("/config/50%", config("50%")),
            ("/config/%C3%A9", config("é")),
            ("/config/%FF", Target::Unknown),
            ("/config/", Target::Unknown),
            ("/config", Target::Unknown),
            ("/config/a/b", Target::Unknown),
            ("/ingest", Target::Ingest),
            ("/health", Target::Health),
            ("/metrics", Target::Metrics),
            ("/devices", Target::Devices(None)),
            ("/devices?site=", Target::Devices(None)),
            ("/devices?site=Site+Paris", devices("Site Paris")),
            ("/devices?a=1&s%69te=Site%20%C3%89", devices("Site É")),
            ("/devices?site=A%2BB", devices("A+B")),
            ("/devices?site=%FF", Target::Unknown),
            ("/", Target::Unknown),
            ("", Target::Unknown),
            ("/ingest/", Target::Unknown),
        ] {
            assert_eq!(Target::parse(url), target, "{url}");
        }
        assert_eq!(config("secret").route(), "/config/...");
    }

    #[test]
    fn entity_tags() {
        for (header, matches) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("\"x\",W/\"abc\"", true),
            ("*", true),
            (" * ", true),
            ("abc", false),
            ("\"ab\"", false),
            ("\"abcd\"", false),
            ("", false),
            ("\"", false),
        ] {
            assert_eq!(none_match(header, "abc"), matches, "{header}");
        }
    }

    #[test]
    fn methods() {
        for (url, method, allowed) in [
            ("/config/x", Method::Get, true),
            ("/config/x", Method::Head, true),
            ("/config/x", Method::Post, false),
            ("/ingest", Method::Post, true),
            ("/ingest", Method::Get, false),
            ("/health", Method::Delete, false),
            ("/", Method::Get, false),
        ] {
            assert_eq!(Target::parse(url).allows(&method), allowed, "{url}");
        }
    }
}
