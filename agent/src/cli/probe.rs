//! `av-agent probe`: one device, once, with everything on the wire where
//! `-v` asks for it.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use av_proto::FieldError;
use av_proto::config::Device;
use av_proto::nearest::is_slip;
use av_proto::unknown::UnknownSetting;
use av_proto::verdict::Status;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::{ArgsError, Given};
use super::installed::{Environment, explained};
use super::output::{self, BAD, FAINT, HEADING, status_style};
use super::table::{Cell, Table};
use super::{Exit, Outcome};
use crate::driver::{Drivers, probe_once};
use crate::finding::Finding;
use crate::pjlink::refusal::Refusal;
use crate::supervisor::Health;

/// The most that a file with a secret may hold.
const SECRET_MAX_BYTES: u64 = 4096;

/// What `av-agent probe` is told.
#[derive(Debug)]
pub struct Arguments {
    ip: IpAddr,
    driver: Option<String>,
    /// Whether a configuration is begun with, and which where it is named.
    from_config: Option<Option<PathBuf>>,
    port: Option<u16>,
    /// Seconds.
    timeout: Option<f64>,
    /// `NAME=VALUE`.
    settings: Vec<String>,
    /// `NAME=VARIABLE`.
    secret_env: Vec<String>,
    /// `NAME=FILE`.
    secret_file: Vec<String>,
    /// `NAME`.
    ask: Vec<String>,
    password_env: Option<String>,
    password_file: Option<String>,
    community_env: Option<String>,
    community_file: Option<String>,
    json: bool,
    verbose: bool,
}

impl Arguments {
    /// What `av-agent probe --help` prints.
    pub(super) const HELP: &str = "\
Probe one device once.

The exit code is 0 for online, 1 for offline or where the device refuses the
password, 2 for unknown or where the command itself is wrong.

Usage: av-agent probe [OPTIONS] <IP>

Arguments:
  <IP>
          The device's address

Options:
  -d, --driver <DRIVER>
          How to probe: ping, pjlink, snmp, ...
      --from-config [<CONFIG.json>]
          Begin with the settings that a configuration has for this address; the
          running agent's where no file is named. Other options are laid over
          them
      --port <PORT>
          The port
      --timeout <SECONDS>
          How long each answer is waited for, in seconds
      --set <NAME=VALUE>...
          Any setting of driver_config: --set retries=0. The value is JSON, or a
          text where it is none; a dot goes one level down
      --secret-env <NAME=VARIABLE>...
          A setting that is a secret, from an environment variable:
          --secret-env auth_password=SNMP_AUTH
      --secret-file <NAME=FILE>...
          A setting that is a secret, from a file (its first line)
      --ask <NAME>...
          A setting that is a secret, asked for at the terminal
      --password-env <VARIABLE>
          The password, from an environment variable
      --password-file <FILE>
          The password, from a file (its first line)
      --community-env <VARIABLE>
          The SNMP community, from an environment variable
      --community-file <FILE>
          The SNMP community, from a file (its first line)
      --json
          Print one JSON document
  -v, --verbose
          Show what goes over the wire, secrets hidden
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Result<Self, ArgsError> {
        let from_config = given.has("from-config").then(|| given.path("from-config"));
        let driver = given.option("driver")?;
        let ip = given.required(0)?;
        if driver.is_none() && from_config.is_none() {
            return Err(ArgsError::Required("--driver <DRIVER>".to_owned()));
        }
        Ok(Self {
            ip,
            driver,
            from_config,
            port: given.option("port")?,
            timeout: given.option("timeout")?,
            settings: given.options("set")?,
            secret_env: given.options("secret-env")?,
            secret_file: given.options("secret-file")?,
            ask: given.options("ask")?,
            password_env: given.option("password-env")?,
            password_file: given.option("password-file")?,
            community_env: given.option("community-env")?,
            community_file: given.option("community-file")?,
            json: given.has("json"),
            verbose: given.has("verbose"),
        })
    }

    /// Whether the wire is to be shown.
    #[must_use]
    pub(super) fn verbose(&self) -> bool {
        self.verbose
    }
}

/// Why there is nothing to probe.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("--{option} {given:?}: {problem}")]
    Option {
        option: &'static str,
        given: String,
        problem: String,
    },
    #[error("{0}")]
    File(String),
    #[error("{path} has no device {ip}")]
    NotConfigured { path: String, ip: IpAddr },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<FieldError>),
}

/// Probes once and prints what was found.
///
/// # Errors
/// When the settings are not valid, or a secret cannot be had.
pub fn run(arguments: &Arguments) -> Outcome {
    let device = device(arguments)?;
    let drivers = Drivers::start(&Health::default());
    let began = Instant::now();
    let finding = probe_once(&drivers, &device);
    let took = began.elapsed();
    let refusal = Refusal::of(&finding);
    if arguments.json {
        output::print_json(&FindingDocument {
            ip: &device.ip_text,
            driver: device.settings.name(),
            status: finding.status,
            detail: finding.detail.as_deref(),
            metrics: &finding.metrics,
            seconds: took.as_secs_f64(),
            refusal,
            unknown_settings: &device.unknown,
        })?;
    } else {
        output::print(&text(&device, &finding, refusal, took))?;
    }
    Ok(match finding.status {
        Status::Online if refusal.is_some() => Exit::Bad,
        Status::Online => Exit::Good,
        Status::Offline => Exit::Bad,
        Status::Unknown => Exit::Unknown,
    })
}

#[derive(Debug, Serialize)]
struct FindingDocument<'a> {
    ip: &'a str,
    driver: &'a str,
    status: Status,
    detail: Option<&'a str>,
    metrics: &'a Map<String, Value>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unknown_settings: &'a [UnknownSetting],
}

fn text(device: &Device, finding: &Finding, refusal: Option<Refusal>, took: Duration) -> String {
    let style = status_style(finding.status);
    let mut head = format!(
        "{HEADING}{}{HEADING:#} ({}): {style}{}{style:#}",
        device.ip_text,
        device.settings.name(),
        finding.status.as_str()
    );
    if let Some(detail) = &finding.detail {
        head += &format!(", {detail}");
    }
    if let Some(refusal) = refusal {
        head += &format!(
            "\n{BAD}✗ {}{BAD:#}: {}",
            refusal.words(),
            what_to_do(refusal)
        );
    }
    let mut table = Table::new(&["", ""]);
    for (name, value) in &finding.metrics {
        let value = match value {
            // Not measured.
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row([Cell::styled(format!("  {name}"), FAINT), value.into()]);
    }
    format!(
        "{head}\n{}{}{FAINT}in {:.3} s{FAINT:#}\n",
        super::unknown_lines(device),
        table.render(output::width()),
        took.as_secs_f64()
    )
}

/// A projector that is reached and not read.
fn what_to_do(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PasswordWanted => {
            "the projector is reachable, and nothing is read without its password: give it \
             with --ask password, or in driver_config.pjlink.password"
        }
        Refusal::WrongPassword => {
            "the projector is reachable and refuses this password, so that nothing is read: \
             compare it with the one in the projector's network menu"
        }
    }
}

/// The device to probe: from the configuration where that is asked for, and
/// with what the options say laid over it.
fn device(arguments: &Arguments) -> Result<Device, ProbeError> {
    let mut document = match &arguments.from_config {
        Some(path) => configured(path.clone(), arguments.ip)?,
        None => json!({"ip": arguments.ip.to_string(), "name": arguments.ip.to_string()}),
    };
    if let Some(driver) = &arguments.driver {
        document["driver"] = driver.trim().to_ascii_lowercase().into();
    }
    let given = given(arguments)?;
    if !given.is_empty() {
        lay_over(&mut document, &given);
    }
    Device::parse(&document.to_string(), &TimeZone::UTC, &mut Vec::new())
        .map_err(ProbeError::Settings)
}

/// The device with this address in a configuration file, as it stands there.
fn configured(path: Option<PathBuf>, ip: IpAddr) -> Result<Value, ProbeError> {
    let path = path.unwrap_or_else(|| Environment::here().config_path());
    let shown = path.display().to_string();
    let file = |error: String| ProbeError::File(format!("{shown}: {error}"));
    let content = fs::read(&path).map_err(|error| ProbeError::File(explained(&path, &error)))?;
    let document: Value =
        serde_json::from_slice(&content).map_err(|error| file(format!("is not JSON: {error}")))?;
    document["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|device| {
            let configured = device["ip"].as_str().and_then(|text| text.parse().ok());
            configured.map(|it: IpAddr| it.to_canonical()) == Some(ip.to_canonical())
        })
        .cloned()
        .ok_or(ProbeError::NotConfigured { path: shown, ip })
}

/// The settings that the options give, by name, dots still in the names.
fn given(arguments: &Arguments) -> Result<Vec<(String, Value)>, ProbeError> {
    let mut given: Vec<(String, Value)> = Vec::new();
    if let Some(port) = arguments.port {
        given.push(("port".to_owned(), port.into()));
    }
    if let Some(timeout) = arguments.timeout {
        given.push(("timeout_s".to_owned(), timeout.into()));
    }
    for text in &arguments.settings {
        let (name, value) = pair("set", text)?;
        if is_secret(name) {
            log::warn!(
                "⚠️ {name} on the command line can be read by every user of this machine: \
                 use --secret-env, --secret-file or --ask"
            );
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        given.push((name.to_owned(), value));
    }
    let named = |option: &'static str, texts: &[String], fixed: [(&str, &Option<String>); 2]| {
        let mut pairs = Vec::new();
        for text in texts {
            let (name, source) = pair(option, text)?;
            pairs.push((name.to_owned(), source.to_owned()));
        }
        for (name, source) in fixed {
            pairs.extend(source.clone().map(|source| (name.to_owned(), source)));
        }
        Ok::<_, ProbeError>(pairs)
    };
    let fixed = [
        ("password", &arguments.password_env),
        ("community", &arguments.community_env),
    ];
    for (name, variable) in named("secret-env", &arguments.secret_env, fixed)? {
        let secret = env::var(&variable).map_err(|error| option("secret-env", &variable, error))?;
        given.push((name, secret.into()));
    }
    let fixed = [
        ("password", &arguments.password_file),
        ("community", &arguments.community_file),
    ];
    for (name, path) in named("secret-file", &arguments.secret_file, fixed)? {
        given.push((name, secret_in(&path)?.into()));
    }
    for name in &arguments.ask {
        let secret = rpassword::prompt_password(format!("{name}: "))
            .map_err(|error| option("ask", name, error))?;
        given.push((name.clone(), secret.into()));
    }
    Ok(given)
}

fn option(option: &'static str, given: &str, problem: impl ToString) -> ProbeError {
    ProbeError::Option {
        option,
        given: given.to_owned(),
        problem: problem.to_string(),
    }
}

fn pair<'a>(name: &'static str, text: &'a str) -> Result<(&'a str, &'a str), ProbeError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        // What stands there may be a secret.
        _ => Err(option(name, "...", "is not NAME=VALUE")),
    }
}

/// The first line of a file.
fn secret_in(path: &str) -> Result<String, ProbeError> {
    let length = fs::metadata(path)
        .map_err(|error| option("secret-file", path, error))?
        .len();
    if length > SECRET_MAX_BYTES {
        return Err(option("secret-file", path, "is too large for a secret"));
    }
    let text = fs::read_to_string(path).map_err(|error| option("secret-file", path, error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "community", "secret", "token", "key"]
        .into_iter()
        .any(|word| name.ends_with(word) || is_slip(&name, word))
}

/// Puts settings into the section of the device's driver.
fn lay_over(device: &mut Value, given: &[(String, Value)]) {
    let driver = device["driver"]
        .as_str()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    // An older backend sends the sections beside `driver_config`.
    let older = device[&driver].take();
    let config = &mut device["driver_config"];
    if !config.is_object() {
        *config = json!({});
    }
    let section = &mut config[&driver];
    if !section.is_object() {
        *section = if older.is_object() { older } else { json!({}) };
    }
    for (name, value) in given {
        let mut place = &mut *section;
        for step in name.split('.') {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[step];
        }
        *place = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(words: &str) -> Result<Device, String> {
        let words = words.split_whitespace().map(Into::into);
        let given = Given::read(Arguments::HELP, words).map_err(|stop| format!("{stop:?}"))?;
        let arguments = Arguments::of(&given).map_err(|error| error.to_string())?;
        device(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn options_become_settings() {
        let device = probed(
            "10.0.0.1 --driver PJLink --port 4353 --timeout 0.5 --set password=1234x --set new.a.b=[1]",
        )
        .unwrap();
        let expected = json!({"ip": "10.0.0.1", "name": "10.0.0.1", "driver": "pjlink",
            "driver_config": {"pjlink": {"port": 4353, "timeout_s": 0.5, "password": "1234x",
                "new": {"a": {"b": [1]}}}}});
        let expected =
            Device::parse(&expected.to_string(), &TimeZone::UTC, &mut Vec::new()).unwrap();
        assert_eq!(device, expected);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value_of_a_secret() {
        for (words, said) in [
            ("10.0.0.1", "required"),
            (
                "10.0.0.1 -d ping --set count",
                "--set \"...\": is not NAME=VALUE",
            ),
            (
                "10.0.0.1 -d ping --set count=0",
                "driver_config.ping.count: 0 is not between 1 and 20",
            ),
            (
                "10.0.0.1 -d pjlink --password-env AV_NO_SUCH_VARIABLE",
                "--secret-env \"AV_NO_SUCH_VARIABLE\": environment variable not found",
            ),
            (
                "10.0.0.1 -d pjlink --password-file /nowhere/at/all",
                "--secret-file \"/nowhere/at/all\": No such file",
            ),
            (
                "10.0.0.1 --from-config /nowhere.json",
                "/nowhere.json: No such file",
            ),
        ] {
            let error = probed(words).unwrap_err();
            assert!(error.contains(said), "{words}: {error}");
        }
    }

    #[test]
    fn the_configurations_settings_are_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let devices = json!([
            {"ip": "10.0.0.1", "name": "A", "driver": "pjlink",
             "driver_config": {"pjlink": {"port": 4000, "password": "p"}}},
            {"ip": "10.0.0.2", "name": "B", "driver": "snmp", "snmp": {"port": 1161}, "pjlink": {}},
        ]);
        fs::write(&path, json!({"devices": devices}).to_string()).unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "s3cret\n").unwrap();
        let same = |words: String, section: Value| {
            let device = probed(&words).unwrap();
            let driver = device.settings.name();
            let expected = json!({"ip": device.ip_text, "name": device.name, "driver": driver,
                "driver_config": {driver: section}});
            let expected =
                Device::parse(&expected.to_string(), &TimeZone::UTC, &mut Vec::new()).unwrap();
            assert_eq!(device, expected);
        };
        let from = path.display();
        same(
            format!("10.0.0.1 --from-config {from}"),
            json!({"port": 4000, "password": "p"}),
        );
        same(
            format!("10.0.0.1 --from-config {from} --timeout 1"),
            json!({"port": 4000, "password": "p", "timeout_s": 1}),
        );
        same(
            format!(
                "10.0.0.2 --from-config {from} --community-file {}",
                secret.display()
            ),
            json!({"port": 1161, "community": "s3cret"}),
        );
        assert!(probed(&format!("10.0.0.3 --from-config {from}")).is_err());
    }
}
