//! A request's target: which route it takes, and what stands in it.

use av_service::http::Method;

use crate::url::{Query, decode, segments};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// `/config/{site_token}`, decoded.
    Config(String),
    /// Below `/config/{site_token}`, decoded: where the agent of the Python
    /// system sends a password that was changed on its page.
    BelowConfig(String),
    /// `/config`, the token in a header.
    ConfigByHeader,
    /// `/ingest`.
    Ingest,
    /// `/suggestions`.
    Suggestions,
    /// `/token/renew`.
    RenewToken,
    /// `/devices`, and its query.
    Devices(Query),
    /// `/health`.
    Health,
    /// `/health/live`.
    Live,
    /// `/metrics`.
    Metrics,
    /// Anything else: the administrator's API and pages. The segments of the
    /// path, decoded, and the query.
    Admin(Vec<String>, Query),
    /// What cannot be decoded, or is below a path that is not the administrator's.
    Unknown,
}

impl Target {
    /// Reads the target of a request line. What cannot be decoded is unknown.
    pub(super) fn parse(url: &str) -> Self {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        match path {
            "/ingest" => Self::Ingest,
            "/suggestions" => Self::Suggestions,
            "/token/renew" => Self::RenewToken,
            "/health" => Self::Health,
            "/health/live" => Self::Live,
            "/metrics" => Self::Metrics,
            "/devices" => match Query::parse(query) {
                Some(query) => Self::Devices(query),
                None => Self::Unknown,
            },
            "/config" => Self::ConfigByHeader,
            _ => match path.strip_prefix("/config/") {
                Some(token) if !token.is_empty() && !token.contains('/') => {
                    decode(token, false).map_or(Self::Unknown, Self::Config)
                }
                Some(below) => match below.split_once('/') {
                    Some((token, _)) if !token.is_empty() => {
                        decode(token, false).map_or(Self::Unknown, Self::BelowConfig)
                    }
                    _ => Self::Unknown,
                },
                None => segments(path)
                    .zip(Query::parse(query))
                    .map_or(Self::Unknown, |(path, query)| Self::Admin(path, query)),
            },
        }
    }

    /// The route for logs and metrics: never with what stands in it.
    pub(super) fn route(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::BelowConfig(_) => "/config/...",
            Self::ConfigByHeader => "/config",
            Self::Ingest => "/ingest",
            Self::Suggestions => "/suggestions",
            Self::RenewToken => "/token/renew",
            Self::Devices(_) => "/devices",
            Self::Health => "/health",
            Self::Live => "/health/live",
            Self::Metrics => "/metrics",
            Self::Admin(path, _) if path.first().is_some_and(|first| first == "admin") => {
                "/admin/..."
            }
            Self::Admin(..) => "pages",
            Self::Unknown => "other",
        }
    }

    /// The methods that it allows, as the `Allow` header lists them; `None`
    /// where there is nothing.
    pub(super) fn allow(&self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::BelowConfig(_) => None,
            Self::Ingest | Self::Suggestions | Self::RenewToken => Some("POST"),
            Self::Admin(path, _) => Some(match kind(path) {
                Kind::Form => "GET, HEAD, POST",
                Kind::Action => "POST",
                Kind::Page | Kind::Own => "GET, HEAD",
            }),
            _ => Some("GET, HEAD"),
        }
    }

    /// Whether it is the administrator's API.
    pub(super) fn is_api(&self) -> bool {
        matches!(self, Self::Admin(path, _) if path.first().is_some_and(|first| first == "admin"))
    }

    /// Whether it allows this method.
    pub(super) fn allows(&self, method: &Method) -> bool {
        match self {
            Self::Unknown | Self::BelowConfig(_) => false,
            Self::Ingest | Self::Suggestions | Self::RenewToken => *method == Method::Post,
            // The methods of a form and of an action are told by their routes.
            Self::Admin(path, _) => match kind(path) {
                Kind::Page => matches!(method, Method::Get | Method::Head),
                Kind::Form | Kind::Action | Kind::Own => true,
            },
            _ => matches!(method, Method::Get | Method::Head),
        }
    }
}

/// What is at a path of the administrator.
enum Kind {
    /// A page or a file, which is looked at alone.
    Page,
    /// A page and what its form sends.
    Form,
    /// What a form or a program sends.
    Action,
    /// The API, whose routes say themselves what they allow; or nothing.
    Own,
}

fn kind(path: &[String]) -> Kind {
    let mut segments = path.iter().map(String::as_str);
    match (segments.next(), segments.next()) {
        (Some("login"), None) | (Some("setup"), Some(_)) => Kind::Form,
        (Some("logout" | "enroll"), None) => Kind::Action,
        (None, _)
        | (
            Some(
                "sites" | "devices" | "alerts" | "maintenance" | "channels" | "audit" | "account"
                | "users" | "static" | "openapi.json",
            ),
            _,
        ) => Kind::Page,
        _ => Kind::Own,
    }
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
        let admin = |path: &[&str]| {
            Target::Admin(
                path.iter().map(|s| (*s).to_owned()).collect(),
                Query::default(),
            )
        };
        let devices = |query: &str| Target::Devices(Query::parse(query).unwrap());
        for (url, target) in [
            ("/config/abc", config("abc")),
            ("/config/abc?x=1", config("abc")),
            ("/config/a%2Fb%20c+d", config("a/b c+d")),
            ("/config/50%", config("50%")),
            ("/config/%C3%A9", config("é")),
            ("/config/%FF", Target::Unknown),
            ("/config/", Target::Unknown),
            ("/config", Target::ConfigByHeader),
            ("/config?x=1", Target::ConfigByHeader),
            (
                "/config/a%2F/device/10.0.0.1",
                Target::BelowConfig("a/".to_owned()),
            ),
            ("/config//b", Target::Unknown),
            ("/ingest", Target::Ingest),
            ("/suggestions", Target::Suggestions),
            ("/token/renew", Target::RenewToken),
            ("/health", Target::Health),
            ("/health/live", Target::Live),
            ("/metrics", Target::Metrics),
            ("/devices", devices("")),
            ("/devices?site=", devices("site=")),
            ("/devices?site=Site+Paris", devices("site=Site%20Paris")),
            (
                "/devices?a=1&s%69te=Site%20%C3%89",
                devices("a=1&site=Site%20%C3%89"),
            ),
            ("/devices?site=A%2BB", devices("site=A%2BB")),
            ("/devices?site=%FF", Target::Unknown),
            ("/", admin(&[])),
            ("", Target::Unknown),
            ("/ingest/", admin(&["ingest", ""])),
            ("/admin/sites/3", admin(&["admin", "sites", "3"])),
            ("/%FF", Target::Unknown),
            ("/x?a=%FF", Target::Unknown),
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
            ("/token/renew", Method::Post, true),
            ("/token/renew", Method::Get, false),
            ("/health", Method::Delete, false),
            ("/", Method::Get, true),
            ("/", Method::Trace, false),
            ("/devices/3", Method::Patch, false),
            ("/devices/3/edit", Method::Get, true),
            ("/login", Method::Post, true),
            ("/setup/x", Method::Post, true),
            ("/admin/devices/3", Method::Patch, true),
            ("/config", Method::Get, true),
            ("/config", Method::Post, false),
        ] {
            assert_eq!(Target::parse(url).allows(&method), allowed, "{url}");
        }
    }
}
