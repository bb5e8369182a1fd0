//! `av-agent enroll`: a new agent gets its token and its configuration file
//! for a code, and nobody edits a file in the rack.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use av_proto::secret::Secret;
use av_proto::text::one_line;
use serde::Deserialize;

use super::args::{ArgsError, Given};
use super::check::unreachable_advice;
use super::installed::{Environment, explained};
use super::output::{self, DOUBTFUL, GOOD, HEADING};
use super::{Exit, Outcome};
use crate::config::{BackendUrl, parse};
use crate::durable::{sibling, write_atomic};
use crate::http_client::{Answer, error_of};
use crate::sync::is_token;

/// The answer is a name and a token.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// What `av-agent enroll` is told.
#[derive(Debug)]
pub struct Arguments {
    backend: String,
    code: Secret,
    /// The file to write, where it is named.
    config: Option<PathBuf>,
    force: bool,
}

impl Arguments {
    /// What `av-agent enroll --help` prints.
    pub(super) const HELP: &str = "\
Get a new agent its token for a code, and write its configuration file.

The exit code is 2 where there is no configuration file then.

Usage: av-agent enroll [OPTIONS] <BACKEND> <CODE>

Arguments:
  <BACKEND>
          The backend, such as https://av.example.org
  <CODE>
          The code, as the site's page in the backend shows it

Options:
      --config <FILE>
          The configuration file to write; otherwise AGENT_CONFIG, or the
          installed service's
      --force
          Replace a configuration file that is valid
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Result<Self, ArgsError> {
        Ok(Self {
            backend: given.required(0)?,
            code: Secret::new(given.required::<String>(1)?),
            config: given.path("config"),
            force: given.has("force"),
        })
    }
}

/// Why an agent did not enrol.
#[derive(Debug, thiserror::Error)]
enum EnrollError {
    #[error("the backend's address {0}")]
    Backend(#[from] crate::config::BackendUrlError),
    #[error(
        "{path} is the configuration of {site} already; --force replaces it. The code is not used"
    )]
    There { path: String, site: String },
    #[error("{0}. The code is not used")]
    Folder(String),
    #[error("backend not reachable: {url}: {error}; {advice}")]
    Unreachable {
        url: String,
        error: crate::http_client::ExchangeError,
        advice: &'static str,
    },
    #[error("{0}")]
    Refused(String),
    #[error(
        "what answers there is no backend that can enrol (200, without site_name and site_token): \
         look at the address"
    )]
    Answer,
    #[error("{path}: {error}. The code is used up: ask for another one")]
    Write { path: String, error: io::Error },
}

/// Enrols, writes the configuration file and says what comes next.
///
/// # Errors
/// Why there is no configuration file now, and whether the code is used up.
pub fn run(arguments: &Arguments) -> Outcome {
    let backend = BackendUrl::parse(&arguments.backend).map_err(EnrollError::Backend)?;
    let environment = Environment::here();
    let path = match &arguments.config {
        Some(path) => path.clone(),
        None => environment.config_path(),
    };
    // Everything that can be known before is: a code is good for one try.
    prepare(&path, arguments.force)?;
    let client = environment.client()?;
    let body = serde_json::json!({"code": arguments.code.expose()}).to_string();
    let answer = client
        .post_openly(
            &backend.enrolment(),
            &arguments.code,
            body.as_bytes(),
            ANSWER_MAX_BYTES,
        )
        .map_err(|error| EnrollError::Unreachable {
            url: backend.as_str().to_owned(),
            advice: unreachable_advice(&error.to_string()),
            error,
        })?;
    let enrolled = read(&answer)?;
    write(&path, &backend, &enrolled).map_err(|error| EnrollError::Write {
        path: path.display().to_string(),
        error,
    })?;
    let is_service = environment
        .service()
        .is_some_and(|service| service.config_path() == path);
    output::print(&text(&path, &backend, &enrolled.site_name, is_service))?;
    Ok(Exit::Good)
}

/// Whether the file may be written, and can be.
fn prepare(path: &Path, force: bool) -> Result<(), EnrollError> {
    let shown = || path.display().to_string();
    match fs::read(path) {
        Ok(content) => {
            if let (Ok((_, site)), false) = (parse(&content), force) {
                return Err(EnrollError::There {
                    path: shown(),
                    site: one_line(&site.site_name),
                });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(EnrollError::Folder(explained(path, &error))),
    }
    let probe = sibling(path, ".tmp");
    write_atomic(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|error| EnrollError::Folder(explained(path, &error)))
}

#[derive(Deserialize)]
struct Enrolled {
    site_name: String,
    site_token: Secret,
}

fn read(answer: &Answer) -> Result<Enrolled, EnrollError> {
    let said = error_of(&answer.body);
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            // The error would quote the body.
            .map_err(|_| EnrollError::Answer)
            .and_then(|enrolled: Enrolled| {
                if is_token(&enrolled.site_token) && !enrolled.site_name.trim().is_empty() {
                    Ok(enrolled)
                } else {
                    Err(EnrollError::Answer)
                }
            }),
        404 | 429 if said.is_some() => Err(EnrollError::Refused(said.unwrap_or_default())),
        // A backend of an earlier version asks everybody to log in there.
        400 | 401 | 403 | 404 | 405 | 422 => Err(EnrollError::Refused(format!(
            "no backend that can enrol answers there ({}{}): look at the address; an earlier \
             backend has to be upgraded first",
            answer.status,
            said.map_or_else(String::new, |said| format!(": {said}"))
        ))),
        301..=308 => Err(EnrollError::Refused(format!(
            "the backend sends elsewhere ({}): give the address that it sends to",
            answer.status
        ))),
        status => Err(EnrollError::Refused(format!(
            "the backend answered {status}{}",
            said.map_or_else(String::new, |said| format!(": {said}"))
        ))),
    }
}

/// Writes the file, for the agent's user only. What is there already and does
/// not parse is kept beside it.
fn write(path: &Path, backend: &BackendUrl, enrolled: &Enrolled) -> io::Result<()> {
    let mut content = serde_json::to_vec_pretty(&serde_json::json!({
        "site_name": enrolled.site_name,
        "site_token": enrolled.site_token.expose(),
        "backend_url": backend.as_str(),
    }))?;
    content.push(b'\n');
    let before = fs::read(path).ok();
    let backup = sibling(path, ".bak");
    if before.is_some_and(|content| parse(&content).is_err()) {
        fs::rename(path, sibling(path, ".broken"))?;
    }
    // A backup of who the agent was before must not serve again.
    if backup.exists() {
        write_atomic(&backup, &content)?;
        give_away(&backup)?;
    }
    write_atomic(path, &content)?;
    give_away(path)
}

/// What root writes belongs to whoever has the folder: the agent's user.
fn give_away(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let owner = fs::metadata(folder)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

fn text(path: &Path, backend: &BackendUrl, site: &str, is_service: bool) -> String {
    let mut text = format!(
        "{GOOD}✓{GOOD:#} enrolled as {HEADING}{}{HEADING:#}; written: {}\n",
        one_line(site),
        path.display()
    );
    let clear = backend
        .as_str()
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    if clear {
        text += &format!(
            "{DOUBTFUL}⚠{DOUBTFUL:#} no TLS: the token travels in clear; use https:// where the \
             backend has a certificate\n"
        );
    }
    text += "next:\n";
    if is_service {
        text += "  sudo systemctl enable av-agent; sudo systemctl restart av-agent\n  \
                 sudo av-agent check\n";
    } else {
        let shown = path.display();
        text += &format!(
            "  start the agent, or start it again: AGENT_CONFIG={shown} av-agent\n  \
             av-agent check {shown}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const VALID: &str = r#"{"site_name":"Paris","site_token":"t","backend_url":"http://b"}"#;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            body: body.as_bytes().to_vec(),
            renew_token: false,
            date: None,
            takes_bearer: false,
        }
    }

    #[test]
    fn answers_say_what_to_do() {
        for (status, body, said) in [
            (
                404,
                r#"{"error":"this code is wrong"}"#,
                "this code is wrong",
            ),
            (429, r#"{"error":"try again in 9 s"}"#, "try again in 9 s"),
            (
                401,
                r#"{"error":"log in"}"#,
                "an earlier backend has to be upgraded",
            ),
            (404, "<html>", "look at the address"),
            (301, "", "sends elsewhere (301)"),
            (
                503,
                r#"{"error":"no database"}"#,
                "the backend answered 503: no database",
            ),
            (
                405,
                r#"{"detail":"Method Not Allowed"}"#,
                "no backend that can enrol",
            ),
            (
                404,
                r#"{"detail":"Not Found"}"#,
                "no backend that can enrol",
            ),
            (400, "plain HTTP to an HTTPS port", "look at the address"),
            (422, r#"{"detail":[]}"#, "no backend that can enrol"),
            (200, "<html>", "without site_name and site_token"),
            (
                200,
                r#"{"site_name":"P","site_token":"a b"}"#,
                "without site_name and site_token",
            ),
        ] {
            let error = read(&answer(status, body)).err().unwrap().to_string();
            assert!(error.contains(said), "{status} {body}: {error}");
        }
        let body = r#"{"site_name":"Paris","site_token":"abc","more":1}"#;
        assert_eq!(read(&answer(200, body)).unwrap().site_name, "Paris");
    }

    #[test]
    fn a_valid_file_is_not_replaced_and_another_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        prepare(&path, false).unwrap();
        assert_eq!(names(), [""; 0], "a try leaves nothing");
        fs::write(&path, VALID).unwrap();
        let said = prepare(&path, false).unwrap_err().to_string();
        assert!(
            said.contains("of Paris already") && said.contains("--force"),
            "{said}"
        );
        prepare(&path, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), VALID);

        let backend = BackendUrl::parse("https://b/").unwrap();
        let enrolled = Enrolled {
            site_name: "Lyon \"2\"".to_owned(),
            site_token: Secret::new("new"),
        };
        fs::write(&path, "{").unwrap();
        prepare(&path, false).unwrap();
        fs::write(sibling(&path, ".bak"), VALID).unwrap();
        write(&path, &backend, &enrolled).unwrap();
        assert_eq!(
            names(),
            ["config.json", "config.json.bak", "config.json.broken"]
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for path in [&path, &sibling(&path, ".bak")] {
            let (identity, site) = parse(&fs::read(path).unwrap()).unwrap();
            assert_eq!(identity.site_token.expose(), "new");
            assert_eq!(identity.backend_url.as_str(), "https://b");
            assert_eq!(site.site_name, "Lyon \"2\"");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_costs_no_code() {
        let dir = tempfile::tempdir().unwrap();
        let said = prepare(&dir.path().join("not/there.json"), false)
            .unwrap_err()
            .to_string();
        assert!(said.contains("The code is not used"), "{said}");
    }
}
