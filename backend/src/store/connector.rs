//! How a connection to PostgreSQL is made.

use std::time::Duration;

use postgres::config::{Config, Host, SslMode, TargetSessionAttrs};
use postgres::{Client, NoTls};

/// A `DATABASE_URL` that cannot be used. The text itself stays out of the
/// message: it holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is not a connection string.
    #[error(
        "DATABASE_URL is not a PostgreSQL connection string: write it as postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters in the password"
    )]
    Syntax,
    /// It demands TLS, which this program does not speak to PostgreSQL.
    #[error(
        "DATABASE_URL demands TLS (sslmode), which av-backend does not speak to PostgreSQL: use a local socket, a private network or a tunnel, and sslmode=disable"
    )]
    Tls,
}

/// Makes connections to one database.
#[derive(Clone)]
pub struct Connector {
    config: Config,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests: statements that take long are cancelled.
    Requests,
    /// Notifications of changes.
    Listen,
    /// Migrations, which take the time that they need.
    Migrate,
}

impl Connector {
    /// Reads a connection string, `postgres://...` or `host=... user=...`,
    /// with one host or several.
    ///
    /// # Errors
    /// [`UrlError`], without the string.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let mut config: Config = url.parse().map_err(|_| UrlError::Syntax)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError::Syntax);
        }
        match config.get_ssl_mode() {
            SslMode::Disable | SslMode::Prefer => {}
            _ => return Err(UrlError::Tls),
        }
        // What the string says stands; the library's own defaults are hours.
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(3));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        if config.get_keepalives_idle() >= Duration::from_secs(3600) {
            config.keepalives_idle(Duration::from_secs(10));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(Duration::from_secs(5));
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(3);
        }
        // Of several hosts only the one that can be written to will do.
        if config.get_hosts().len() > 1
            && config.get_target_session_attrs() == TargetSessionAttrs::Any
        {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self { config })
    }

    /// The database's place for a log line, without user or password.
    #[must_use]
    pub fn place(&self) -> String {
        let ports = self.config.get_ports();
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(i, host)| {
                let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        format!(
            "{} on {}",
            self.config.get_dbname().unwrap_or("the default database"),
            hosts.join(", ")
        )
    }

    /// Opens a connection.
    pub(super) fn connect(&self, purpose: Purpose) -> Result<Client, postgres::Error> {
        let mut config = self.config.clone();
        config.application_name(match purpose {
            Purpose::Requests => "av-backend",
            Purpose::Listen => "av-backend listen",
            Purpose::Migrate => "av-backend migrate",
        });
        let mut client = config.connect(NoTls)?;
        client.batch_execute(match purpose {
            Purpose::Requests => {
                "SET TIME ZONE 'UTC'; SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
                 SET idle_in_transaction_session_timeout = '30s'"
            }
            Purpose::Listen => "SET TIME ZONE 'UTC'; SET statement_timeout = '10s'",
            Purpose::Migrate => "SET TIME ZONE 'UTC'; SET lock_timeout = '60s'",
        })?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_cannot_be_used_is_not_repeated() {
        for (url, error) in [
            ("postgres://av:hunter2@/x?sslmode=", UrlError::Syntax),
            ("password=hunter 2", UrlError::Syntax),
            ("password=hunter2", UrlError::Syntax),
            ("", UrlError::Syntax),
            ("http://av:hunter2@db/x", UrlError::Syntax),
            ("postgres://av:hunter2@db/x?sslmode=require", UrlError::Tls),
        ] {
            let found = Connector::parse(url).err().unwrap();
            assert_eq!(found, error, "{url}");
            assert!(!found.to_string().contains("hunter"));
        }
    }

    #[test]
    fn the_place_has_every_host_and_no_password() {
        let connector =
            Connector::parse("postgres://av:hunter2@db1:5433,db2:5434/monitoring").unwrap();
        assert_eq!(connector.place(), "monitoring on db1:5433, db2:5434");
        assert_eq!(
            connector.config.get_target_session_attrs(),
            TargetSessionAttrs::ReadWrite
        );
        let connector = Connector::parse("host=/run/postgresql user=av dbname=av").unwrap();
        assert_eq!(connector.place(), "av on /run/postgresql:5432");
        assert_eq!(
            connector.config.get_target_session_attrs(),
            TargetSessionAttrs::Any
        );
    }

    #[test]
    fn a_time_out_in_the_string_stands() {
        let connector = Connector::parse("postgres://db/x?connect_timeout=1").unwrap();
        assert_eq!(
            connector.config.get_connect_timeout(),
            Some(&Duration::from_secs(1))
        );
    }
}
