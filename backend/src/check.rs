//! `check-config`: what is wrong with a configuration.
//!
//! It takes the body of `GET /config/{site_token}` and an agent's
//! `config.json`, and tells them apart by `config_hash`.

use av_proto::FieldError;
use av_proto::config::{ReportingDocument, SiteConfig, SiteDocument, SiteParts};
use av_proto::field::from_json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a configuration has and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// Devices that an agent would watch.
    pub devices: usize,
    /// Each field that is not valid, or that an agent puts right by itself.
    pub problems: Vec<FieldError>,
    /// Each setting that is kept and has no effect.
    pub warnings: Vec<FieldError>,
}

/// An agent's `config.json` (`contract.md`, "Agent's config.json").
#[derive(Deserialize)]
struct AgentFile {
    site_name: Option<String>,
    site_token: Option<String>,
    backend_url: Option<String>,
    api_url: Option<String>,
    timezone: Option<String>,
    doubt_after_days: Option<i64>,
    policy: Option<Policy>,
    reporting: Option<ReportingDocument>,
    #[serde(default)]
    devices: Vec<Box<RawValue>>,
}

/// Where older files have the site's policy.
#[derive(Default, Deserialize)]
struct Policy {
    timezone: Option<String>,
    doubt_after_days: Option<i64>,
}

#[derive(Deserialize)]
struct Kind {
    config_hash: Option<Box<RawValue>>,
}

/// Checks a document.
///
/// # Errors
/// Where it is not JSON, or not an object of one of the two kinds.
pub fn check(document: &[u8]) -> Result<Checked, FieldError> {
    // serde would read an array as the fields in their order.
    if document.trim_ascii_start().first() == Some(&b'[') {
        return Err(FieldError::new("document", "is an array, not an object"));
    }
    let kind: Kind = from_json(document)?;
    if kind.config_hash.is_some() {
        check_answer(document)
    } else {
        check_agent_file(document)
    }
}

fn check_answer(document: &[u8]) -> Result<Checked, FieldError> {
    let answer = SiteDocument::parse(document)?;
    let mut problems = Vec::new();
    if let Err(error) = answer.verify_hash() {
        problems.push(match error {
            av_proto::config::HashError::Field(error) => error,
            mismatch => {
                let text = mismatch.to_string();
                let (field, problem) = text.split_once(": ").unwrap_or(("config_hash", &text));
                FieldError::new(field, problem)
            }
        });
    }
    Ok(validate(&answer.parts(), &answer.devices, problems))
}

fn check_agent_file(document: &[u8]) -> Result<Checked, FieldError> {
    let file: AgentFile = from_json(document)?;
    let mut problems = Vec::new();
    if file.site_token.as_deref().is_none_or(str::is_empty) {
        problems.push(FieldError::new(
            "site_token",
            "is missing; `av-backend site add` prints one",
        ));
    }
    match file.backend_url.as_ref().or(file.api_url.as_ref()) {
        None => problems.push(FieldError::new(
            "backend_url",
            "is missing; the agent has nobody to ask for its configuration",
        )),
        Some(url) if !(url.starts_with("http://") || url.starts_with("https://")) => {
            problems.push(FieldError::new(
                "backend_url",
                "does not start with http:// or https://",
            ));
        }
        Some(_) => {}
    }
    let policy = file.policy.unwrap_or_default();
    let parts = SiteParts {
        site_name: file.site_name.as_deref().unwrap_or_default(),
        timezone: file.timezone.as_deref().or(policy.timezone.as_deref()),
        doubt_after_days: file.doubt_after_days.or(policy.doubt_after_days),
        reporting: file.reporting,
    };
    Ok(validate(&parts, &file.devices, problems))
}

fn validate(
    parts: &SiteParts<'_>,
    devices: &[Box<RawValue>],
    mut problems: Vec<FieldError>,
) -> Checked {
    let mut watched = 0;
    let mut warnings = Vec::new();
    match SiteConfig::validate(parts, devices) {
        Err(errors) => problems.extend(errors),
        Ok(config) => {
            watched = config.devices.len();
            problems.extend(config.warnings);
            let is_watched = |nth: &usize| {
                let mut rejected = config.rejected.iter();
                !rejected.any(|rejected| rejected.index == *nth)
            };
            let places = (0..devices.len()).filter(is_watched);
            for (nth, device) in places.zip(&config.devices) {
                let place = format!("devices[{nth}]");
                let unknown = device.unknown.iter();
                warnings.extend(unknown.map(|it| FieldError::from(it).under(&place)));
            }
            for rejected in config.rejected {
                let place = format!("devices[{}]", rejected.index);
                problems.extend(rejected.errors.into_iter().map(|error| error.under(&place)));
            }
        }
    }
    Checked {
        devices: watched,
        problems,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(document: &str) -> Vec<String> {
        check(document.as_bytes())
            .unwrap()
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_good_agent_file_has_no_problems() {
        for document in [
            r#"{"site_name":"Paris","site_token":"t","backend_url":"http://b:8000",
                "timezone":"Europe/Paris","doubt_after_days":2,
                "reporting":{"ok_interval_s":300,"ko_interval_s":60},
                "devices":[{"ip":"10.0.0.1","name":"P","driver":"ping"}]}"#,
            r#"{"site_name":"Paris","site_token":"t","api_url":"https://b/ingest",
                "policy":{"timezone":"UTC","doubt_after_days":1},
                "devices":[{"ip":"10.0.0.1","name":"P","driver":"ping"}]}"#,
        ] {
            assert_eq!(
                check(document.as_bytes()).unwrap(),
                Checked {
                    devices: 1,
                    problems: vec![],
                    warnings: vec![],
                }
            );
        }
    }

    #[test]
    fn every_problem_is_named() {
        assert_eq!(
            problems(
                r#"{"site_name":"Paris","site_token":"","backend_url":"backend:8000",
                    "policy":{"timezone":"Mars/Base"},
                    "devices":[{"ip":"x","name":"P","driver":"ping"},
                               {"ip":"10.0.0.1","name":"P","driver":"pjlink","driver_config":{"pjlink":{"port":0}}},
                               17]}"#
            ),
            [
                "site_token: is missing; `av-backend site add` prints one",
                "backend_url: does not start with http:// or https://",
                "timezone: \"Mars/Base\" is not an IANA time zone, UTC is used",
                "devices[0].ip: \"x\" is not an IP address",
                "devices[1].driver_config.pjlink.port: 0 is not a port (1 to 65535)",
                "devices[2]: is a number, not an object",
            ]
        );
        assert_eq!(
            problems(r#"{"site_token":"t","doubt_after_days":-1}"#),
            [
                "backend_url: is missing; the agent has nobody to ask for its configuration",
                "site_name: is empty",
                "doubt_after_days: -1 is not between 0 and 36500",
            ]
        );
    }

    #[test]
    fn a_setting_that_is_not_known_is_a_warning() {
        let checked = check(
            br#"{"site_name":"Paris","site_token":"t","backend_url":"http://b:8000",
                "devices":[{"ip":"x","name":"P","driver":"ping"},
                           {"ip":"10.0.0.1","name":"P","driver":"pjlink",
                            "driver_config":{"pjlink":{"pasword":"a"}},
                            "expectations":{"allways_on":true}}]}"#,
        )
        .unwrap();
        let said: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(checked.problems.len(), 1);
        assert_eq!(
            said,
            [
                "devices[1].driver_config.pjlink.pasword: is not a known setting; the nearest is \"password\"",
                "devices[1].expectations.allways_on: is not a known setting; the nearest is \"always_on\"",
            ]
        );
    }

    #[test]
    fn an_answer_whose_hash_does_not_match_is_told() {
        let document = r#"{"config_hash":"00000000000000000000000000000000","site_name":"Paris",
            "timezone":"UTC","doubt_after_days":2,
            "reporting":{"ok_interval_s":300,"ko_interval_s":60},
            "devices":[{"ip":"10.0.0.1","name":"P","building":"","floor":"","room":"",
                "type":"projector","driver":"ping","driver_config":{},"expectations":{}}]}"#;
        let found = problems(document);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("config_hash: is 00000000000000000000000000000000, but"),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        for (document, said) in [
            ("{", "document: is not JSON: "),
            ("[]", "document: is an array"),
            (" [null, 1]", "document: is an array"),
            (r#"{"config_hash":"x"}"#, "config_hash: "),
        ] {
            let error = check(document.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
