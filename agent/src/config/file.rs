//! `config.json`: what is written there, and the valid values in it.

use av_proto::FieldError;
use av_proto::config::{ReportingDocument, SiteConfig, SiteDocument, SiteParts};
use av_proto::field::from_json;
use av_proto::members::Members;
use av_proto::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{BackendUrl, Identity};

/// Why the content of a configuration file cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{}", join(.0))]
pub struct FileError(pub Vec<FieldError>);

fn join(errors: &[FieldError]) -> String {
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    said.join("; ")
}

#[derive(Deserialize)]
struct FileDocument {
    site_name: String,
    site_token: Secret,
    previous_site_token: Option<Secret>,
    backend_url: Option<String>,
    /// The older name of `backend_url`.
    api_url: Option<String>,
    timezone: Option<String>,
    doubt_after_days: Option<i64>,
    /// The older place of the two above.
    policy: Option<PolicyDocument>,
    reporting: Option<ReportingDocument>,
    devices: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
struct PolicyDocument {
    timezone: Option<String>,
    doubt_after_days: Option<i64>,
}

/// Reads the content of a configuration file.
///
/// # Errors
/// Each field that is not valid. A bad device is no error: it is set aside in
/// the [`SiteConfig`].
pub fn parse(content: &[u8]) -> Result<(Identity, SiteConfig), FileError> {
    let document: FileDocument = from_json(content).map_err(|e| FileError(vec![e]))?;
    let mut errors = Vec::new();

    let (url_field, url) = match (&document.backend_url, &document.api_url) {
        (Some(url), _) => ("backend_url", Some(url)),
        (None, url) => ("api_url", url.as_ref()),
    };
    let backend_url = match url {
        None => Err(FieldError::new("backend_url", "is missing")),
        Some(url) => BackendUrl::parse(url).map_err(|problem| FieldError::new(url_field, problem)),
    };
    if document.site_token.expose().trim().is_empty() {
        errors.push(FieldError::new("site_token", "is empty"));
    }
    let policy = document.policy.as_ref();
    let parts = SiteParts {
        site_name: &document.site_name,
        timezone: document
            .timezone
            .as_deref()
            .or_else(|| policy?.timezone.as_deref()),
        doubt_after_days: document
            .doubt_after_days
            .or_else(|| policy?.doubt_after_days),
        reporting: document.reporting,
    };
    let devices = document.devices.as_deref().unwrap_or_default();
    match (backend_url, SiteConfig::validate(&parts, devices)) {
        (Ok(backend_url), Ok(site)) if errors.is_empty() => Ok((
            Identity {
                site_token: document.site_token,
                previous_token: document
                    .previous_site_token
                    .filter(|token| !token.expose().trim().is_empty()),
                backend_url,
            },
            site,
        )),
        (url, site) => {
            errors.extend(url.err());
            errors.extend(site.err().into_iter().flatten());
            Err(FileError(errors))
        }
    }
}

/// Reads only what is watched from the content of a configuration file or
/// from what a backend answers, token and backend present or not.
///
/// # Errors
/// As [`parse`].
pub fn parse_site(content: &[u8]) -> Result<SiteConfig, FileError> {
    #[derive(Deserialize)]
    struct WatchedDocument {
        site_name: Option<String>,
        timezone: Option<String>,
        doubt_after_days: Option<i64>,
        policy: Option<PolicyDocument>,
        reporting: Option<ReportingDocument>,
        devices: Option<Vec<Box<RawValue>>>,
    }
    let document: WatchedDocument = from_json(content).map_err(|e| FileError(vec![e]))?;
    let policy = document.policy.as_ref();
    let parts = SiteParts {
        site_name: document.site_name.as_deref().unwrap_or("(no name)"),
        timezone: document
            .timezone
            .as_deref()
            .or_else(|| policy?.timezone.as_deref()),
        doubt_after_days: document
            .doubt_after_days
            .or_else(|| policy?.doubt_after_days),
        reporting: document.reporting,
    };
    let devices = document.devices.as_deref().unwrap_or_default();
    SiteConfig::validate(&parts, devices).map_err(FileError)
}

/// The content of a configuration file: what the backend sent, and the
/// identity that it never replaces.
///
/// # Errors
/// None that valid values can cause.
pub fn render(identity: &Identity, site: &SiteDocument) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Rendered<'a> {
        site_name: &'a str,
        site_token: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        previous_site_token: Option<&'a str>,
        backend_url: &'a str,
        timezone: &'a str,
        doubt_after_days: i64,
        reporting: &'a ReportingDocument,
        devices: &'a [Box<RawValue>],
    }
    let mut content = serde_json::to_vec_pretty(&Rendered {
        site_name: &site.site_name,
        site_token: identity.site_token.expose(),
        previous_site_token: identity.previous_token.as_ref().map(Secret::expose),
        backend_url: identity.backend_url.as_str(),
        timezone: &site.timezone,
        doubt_after_days: site.doubt_after_days,
        reporting: &site.reporting,
        devices: &site.devices,
    })?;
    content.push(b'\n');
    Ok(content)
}

/// The content of a configuration file with these tokens in it and all else
/// as it was.
///
/// # Errors
/// Where the content is not a JSON object.
pub fn with_tokens(content: &[u8], identity: &Identity) -> Result<Vec<u8>, serde_json::Error> {
    let Members(members) = serde_json::from_slice(content)?;
    let mut lines = Vec::with_capacity(members.len() + 1);
    for (name, value) in &members {
        let name = serde_json::to_string(name)?;
        match name.as_str() {
            "\"previous_site_token\"" => {}
            "\"site_token\"" => {
                let token = serde_json::to_string(identity.site_token.expose())?;
                lines.push(format!("  {name}: {token}"));
                if let Some(previous) = &identity.previous_token {
                    let previous = serde_json::to_string(previous.expose())?;
                    lines.push(format!("  \"previous_site_token\": {previous}"));
                }
            }
            _ => lines.push(format!("  {name}: {}", value.get())),
        }
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_spellings_are_accepted() {
        let (identity, site) = parse(
            br#"{"site_name":"Paris","site_token":"t","api_url":"http://b:8000/ingest",
                 "policy":{"timezone":"Europe/Paris","doubt_after_days":7}}"#,
        )
        .unwrap();
        assert_eq!(identity.backend_url.as_str(), "http://b:8000");
        assert_eq!(site.timezone.iana_name(), Some("Europe/Paris"));
        assert_eq!(site.doubt_after_days, 7);
        assert_eq!(site.devices, []);
        // The newer fields win.
        let (_, site) = parse(
            br#"{"site_name":"Paris","site_token":"t","backend_url":"http://b","api_url":"x",
                 "timezone":"UTC","doubt_after_days":1,"policy":{"timezone":"Europe/Paris"}}"#,
        )
        .unwrap();
        assert_eq!(site.doubt_after_days, 1);
        assert_eq!(site.timezone, jiff::tz::TimeZone::UTC);
    }

    #[test]
    fn what_is_watched_is_read_without_an_identity() {
        let device = r#"{"ip":"10.0.0.1","name":"P","driver":"ping"}"#;
        for (content, name) in [
            (format!(r#"{{"devices":[{device}]}}"#), "(no name)"),
            (
                format!(r#"{{"site_name":"Paris","site_token":"t","devices":[{device}]}}"#),
                "Paris",
            ),
        ] {
            let site = parse_site(content.as_bytes()).unwrap();
            assert_eq!((site.site_name.as_str(), site.devices.len()), (name, 1));
        }
        assert!(parse_site(b"[").is_err());
    }

    #[test]
    fn tokens_change_and_nothing_else_does() {
        let identity = |token: &str, previous: Option<&str>| Identity {
            site_token: Secret::new(token),
            previous_token: previous.map(Secret::new),
            backend_url: BackendUrl::parse("http://b").unwrap(),
        };
        let document = SiteDocument::parse(
            r#"{"config_hash":"0123456789abcdef0123456789abcdef","site_name":"É \"x\"",
                "timezone":"UTC","doubt_after_days":2,
                "reporting":{"ok_interval_s":300,"ko_interval_s":60},
                "devices":[{"ip":"10.0.0.1","name":"P","driver":"ping","x":[1.50, {"y": {}}]}]}"#
                .as_bytes(),
        )
        .unwrap();
        let old = render(&identity("old", None), &document).unwrap();
        let both = identity("ne\"w", Some("old"));
        let pending = with_tokens(&old, &both).unwrap();
        assert_eq!(pending, render(&both, &document).unwrap());
        assert_eq!(parse(&pending).unwrap().0, both);
        let settled = with_tokens(&pending, &identity("new", None)).unwrap();
        assert_eq!(settled, render(&identity("new", None), &document).unwrap());

        // A file of an earlier agent, written by hand.
        let by_hand = br#"{"site_token":"old","api_url":"http://b/ingest","site_name":"P","policy":{"doubt_after_days":7}}"#;
        let (identity, site) = parse(&with_tokens(by_hand, &both).unwrap()).unwrap();
        assert_eq!(identity, both);
        assert_eq!(site.doubt_after_days, 7);
        assert!(with_tokens(b"[]", &both).is_err());
    }

    #[test]
    fn every_bad_field_is_named_and_no_secret_is() {
        for (content, said) in [
            (
                r#"{"site_name":"","site_token":" ","backend_url":"b"}"#,
                "site_token: is empty; backend_url: does not start with http:// or https://; site_name: is empty",
            ),
            (
                r#"{"site_name":"a","site_token":"t"}"#,
                "backend_url: is missing",
            ),
            (
                r#"{"site_name":"a","site_token":"t","api_url":"http://u:p@b"}"#,
                "api_url: must not have a user name or password",
            ),
            (
                r#"{"site_name":"a"}"#,
                "document: missing field `site_token`",
            ),
            (
                r#"{"site_name":"a","site_token":"hunter2""#,
                "document: is not JSON: EOF while parsing an object at line 1 column 39",
            ),
        ] {
            assert_eq!(parse(content.as_bytes()).unwrap_err().to_string(), said);
        }
    }
}
