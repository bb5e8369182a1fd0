//! What the environment says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use av_proto::FieldError;

use crate::tls::TlsFiles;

/// The agent's settings, each from an environment variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `AGENT_CONFIG`: the configuration file.
    pub config_path: PathBuf,
    /// `AV_STATE_DIR`: where the spool and the devices' memory live; by
    /// default `state` beside the configuration file.
    pub state_dir: PathBuf,
    /// `CONFIG_SYNC_INTERVAL_MIN`: time between polls, in minutes; fractions
    /// are taken.
    pub sync_interval_min: f64,
    /// `AV_FIRST_SYNC_S`: time until the first poll, in seconds.
    pub first_sync: Duration,
    /// `AV_PAGE_LISTEN`: where the status page listens.
    pub page_listen: SocketAddr,
    /// `AV_PAGE_HOSTS`: names under which the status page is opened, beside the
    /// machine's own; with commas between them.
    pub page_hosts: Vec<String>,
    /// `AV_PAGE_PAUSE_S`: the least time between two sweeps, and between two
    /// polls, that are asked for on the status page.
    pub page_pause: Duration,
    /// `AV_PJLINK_NOTICES`: where notices of projectors are heard, by the
    /// standard port 4352; by default they are not.
    pub pjlink_notices: Option<SocketAddr>,
    /// `AV_CA_FILE`, `AV_CLIENT_CERT`, `AV_CLIENT_KEY`: TLS to the backend.
    pub tls: TlsFiles,
    /// `AV_SPOOL_MAX_MB`: what unsent reports may take on disk, in MiB.
    pub spool_max_bytes: u64,
    /// `AV_SPOOL_MAX_DAYS`: how long unsent reports are kept.
    pub spool_max_age: Duration,
    /// `AV_HANG_S`: a thread that is at work for so long without getting on
    /// with it hangs, and systemd's watchdog is no longer fed.
    pub hang_limit: Duration,
}

impl Settings {
    /// Where the configuration is, where nothing else is said.
    pub const DEFAULT_CONFIG_PATH: &str = "/agent/config/config.json";

    /// Reads the settings; an empty variable counts as absent.
    ///
    /// # Errors
    /// The variable that is not valid, and why.
    pub fn from_env() -> Result<Self, FieldError> {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads the settings from where `lookup` finds variables.
    ///
    /// # Errors
    /// The variable that is not valid, and why.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, FieldError> {
        let number = |name: &str, default: f64, least: f64, most: f64| match lookup(name) {
            None => Ok(default),
            Some(text) => match text.trim().parse::<f64>() {
                Ok(value) if value >= least && value <= most => Ok(value),
                _ => Err(FieldError::new(
                    name,
                    format!("{text:?} is not a number from {least} to {most}"),
                )),
            },
        };
        let config_path: PathBuf = lookup("AGENT_CONFIG")
            .unwrap_or_else(|| Self::DEFAULT_CONFIG_PATH.to_owned())
            .into();
        let state_dir = match lookup("AV_STATE_DIR") {
            Some(dir) => dir.into(),
            None => config_path.with_file_name("state"),
        };
        let address = |name: &str, text: &str, example: &str| {
            text.trim().parse::<SocketAddr>().map_err(|_| {
                FieldError::new(
                    name,
                    format!("{text:?} is not an address and port such as {example}"),
                )
            })
        };
        let listen = lookup("AV_PAGE_LISTEN").unwrap_or_else(|| "0.0.0.0:8080".to_owned());
        let page_listen = address("AV_PAGE_LISTEN", &listen, "0.0.0.0:8080")?;
        let pjlink_notices = lookup("AV_PJLINK_NOTICES")
            .map(|text| address("AV_PJLINK_NOTICES", &text, "0.0.0.0:4352"))
            .transpose()?;
        Ok(Self {
            config_path,
            state_dir,
            sync_interval_min: number("CONFIG_SYNC_INTERVAL_MIN", 5.0, 0.01, 1440.0)?,
            first_sync: Duration::from_secs_f64(number("AV_FIRST_SYNC_S", 10.0, 0.0, 3600.0)?),
            page_listen,
            page_hosts: lookup("AV_PAGE_HOSTS")
                .unwrap_or_default()
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            page_pause: Duration::from_secs_f64(number("AV_PAGE_PAUSE_S", 15.0, 0.0, 3600.0)?),
            pjlink_notices,
            tls: TlsFiles::from_lookup(&lookup)?,
            spool_max_bytes: (number("AV_SPOOL_MAX_MB", 256.0, 1.0, 65_536.0)? * 1_048_576.0)
                as u64,
            spool_max_age: Duration::from_secs_f64(
                number("AV_SPOOL_MAX_DAYS", 30.0, 0.01, 3650.0)? * 86_400.0,
            ),
            hang_limit: Duration::from_secs_f64(number("AV_HANG_S", 300.0, 1.0, 86_400.0)?),
        })
    }

    /// Time between polls.
    #[must_use]
    pub fn sync_interval(&self) -> Duration {
        Duration::from_secs_f64(self.sync_interval_min * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_lookup(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_contracts() {
        let settings = settings(&[]).unwrap();
        assert_eq!(
            settings.config_path,
            PathBuf::from("/agent/config/config.json")
        );
        assert_eq!(settings.state_dir, PathBuf::from("/agent/config/state"));
        assert_eq!(settings.sync_interval(), Duration::from_secs(300));
        assert_eq!(settings.first_sync, Duration::from_secs(10));
        assert_eq!(settings.page_listen.to_string(), "0.0.0.0:8080");
        assert_eq!(settings.pjlink_notices, None);
    }

    #[test]
    fn a_bad_variable_is_named() {
        for (variable, said) in [
            (
                ("CONFIG_SYNC_INTERVAL_MIN", "0"),
                "CONFIG_SYNC_INTERVAL_MIN: \"0\" is not a number from 0.01 to 1440",
            ),
            (
                ("CONFIG_SYNC_INTERVAL_MIN", "NaN"),
                "CONFIG_SYNC_INTERVAL_MIN: \"NaN\" is not a number from 0.01 to 1440",
            ),
            (
                ("AV_FIRST_SYNC_S", "soon"),
                "AV_FIRST_SYNC_S: \"soon\" is not a number from 0 to 3600",
            ),
            (
                ("AV_PAGE_LISTEN", "8080"),
                "AV_PAGE_LISTEN: \"8080\" is not an address and port such as 0.0.0.0:8080",
            ),
            (
                ("AV_PJLINK_NOTICES", "on"),
                "AV_PJLINK_NOTICES: \"on\" is not an address and port such as 0.0.0.0:4352",
            ),
        ] {
            assert_eq!(settings(&[variable]).unwrap_err(), said);
        }
    }
}
