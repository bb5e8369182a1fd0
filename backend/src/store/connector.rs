//! How a connection to PostgreSQL is made.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use postgres::config::{Config, Host, TargetSessionAttrs};
use postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{StoreError, describe};
use super::place::{self, one_host};
use super::statements::Statements;
use super::tls::{Demand, Proof};

/// How long one of several hosts may take: a server that hangs accepts a
/// connection and says nothing more.
const HOST_LIMIT: Duration = Duration::from_millis(3500);

/// A `DATABASE_URL` that cannot be used. The text itself stays out of the
/// message: it holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is not a connection string.
    #[error(
        "DATABASE_URL is not a PostgreSQL connection string: write it as postgres://USER:PASSWORD@HOST:5432/DATABASE, with %XX for special characters in the password"
    )]
    Syntax,
    /// Its `sslmode` is none.
    #[error(
        "DATABASE_URL: sslmode is disable, require, verify-ca or verify-full (prefer and allow count as disable)"
    )]
    SslMode,
    /// The authorities that it names cannot be had.
    #[error("DATABASE_URL: {0}")]
    Tls(String),
}

/// Makes connections to one database, which may stand on several hosts of
/// which one can be written to.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    demand: Option<Demand>,
    hosts: Arc<Hosts>,
}

/// What is known of several hosts.
struct Hosts {
    /// Where the last connection was made; beyond the last host before that.
    preferred: AtomicUsize,
    /// The newest timeline that was seen (PostgreSQL's manual, 26.3.6): each
    /// promotion begins another. 0 where none was.
    timeline: AtomicU32,
    /// A connection to this host is being made for longer than [`HOST_LIMIT`].
    hangs: Vec<AtomicBool>,
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
    /// The Python system's data on its way over, at either end.
    Takeover,
}

/// A connection, and in which life of the database it was made.
pub(super) struct Connection {
    pub(super) client: Client,
    /// What it has prepared.
    pub(super) statements: Statements,
    /// The server's timeline; 0 where it does not say.
    pub(super) timeline: u32,
}

impl Connection {
    fn new(mut client: Client) -> Result<Self, postgres::Error> {
        let timeline = timeline(&mut client)?;
        Ok(Self {
            client,
            statements: Statements::default(),
            timeline,
        })
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// PostgreSQL, or the way there.
    Postgres(postgres::Error),
    /// None of several hosts will do.
    Hosts(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(error) => f.write_str(&describe(error)),
            Self::Hosts(why) => f.write_str(why),
        }
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Postgres(error) => error.into(),
            ConnectError::Hosts(why) => Self::Unavailable(why),
        }
    }
}

impl Connector {
    /// Reads a connection string, `postgres://...` or `host=... user=...`,
    /// with one host or several. The authorities' file of `sslrootcert` is
    /// read now.
    ///
    /// # Errors
    /// [`UrlError`], without the string.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (mut config, demand) = place::parse(url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError::Syntax);
        }
        let tls = demand
            .as_ref()
            .map(Demand::connect)
            .transpose()
            .map_err(|error| UrlError::Tls(error.to_string()))?;
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
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        // Of several hosts only the one that can be written to will do.
        if count > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self {
            config,
            tls,
            demand,
            hosts: Arc::new(Hosts {
                preferred: AtomicUsize::new(usize::MAX),
                timeline: AtomicU32::new(0),
                hangs: (0..count).map(|_| AtomicBool::new(false)).collect(),
            }),
        })
    }

    /// Whether the connection string has a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The database's place for a log line, without user or password.
    #[must_use]
    pub fn place(&self) -> String {
        format!(
            "{} on {}",
            self.config.get_dbname().unwrap_or("the default database"),
            self.addresses()
        )
    }

    /// The hosts and ports, for a log line.
    #[must_use]
    pub fn addresses(&self) -> String {
        let hosts: Vec<String> = (0..self.hosts.hangs.len())
            .map(|nth| self.host(nth))
            .collect();
        hosts.join(", ")
    }

    /// The same for PostgreSQL's own programs: the variables that libpq reads
    /// (PostgreSQL's manual, "Environment Variables" of its libpq chapter). Of
    /// several hosts it is the one where the last connection was made.
    pub(crate) fn libpq_environment(&self) -> Vec<(&'static str, OsString)> {
        let preferred = self.hosts.preferred.load(Ordering::Acquire);
        let nth = if preferred < self.hosts.hangs.len() {
            preferred
        } else {
            0
        };
        let config = &self.config;
        let mut found: Vec<(&'static str, OsString)> = Vec::new();
        match config.get_hosts().get(nth) {
            Some(Host::Tcp(name)) => found.push(("PGHOST", name.into())),
            Some(Host::Unix(path)) => found.push(("PGHOST", path.into())),
            None => {}
        }
        if let Some(address) = config.get_hostaddrs().get(nth) {
            found.push(("PGHOSTADDR", address.to_string().into()));
        }
        let ports = config.get_ports();
        if let Some(port) = ports.get(nth).or(ports.first()) {
            found.push(("PGPORT", port.to_string().into()));
        }
        if let Some(user) = config.get_user() {
            found.push(("PGUSER", user.into()));
        }
        if let Some(password) = config.get_password() {
            found.push(("PGPASSWORD", OsString::from_vec(password.to_vec())));
        }
        if let Some(name) = config.get_dbname() {
            found.push(("PGDATABASE", name.into()));
        }
        if let Some(options) = config.get_options() {
            found.push(("PGOPTIONS", options.into()));
        }
        let mode = match &self.demand {
            None => "disable",
            Some(demand) => {
                let authorities = match &demand.authorities {
                    Some(file) => Some(file.into()),
                    None if demand.proof == Proof::Name => Some("system".into()),
                    None => None,
                };
                found.extend(authorities.map(|authorities| ("PGSSLROOTCERT", authorities)));
                match demand.proof {
                    Proof::Nothing => "require",
                    Proof::Authority => "verify-ca",
                    Proof::Name => "verify-full",
                }
            }
        };
        found.push(("PGSSLMODE", mode.into()));
        found
    }

    fn host(&self, nth: usize) -> String {
        let ports = self.config.get_ports();
        let port = ports.get(nth).or(ports.first()).copied().unwrap_or(5432);
        match self.config.get_hosts().get(nth) {
            Some(Host::Tcp(name)) => format!("{name}:{port}"),
            Some(Host::Unix(path)) => format!("{}:{port}", path.display()),
            None => match self.config.get_hostaddrs().get(nth) {
                Some(address) => format!("{address}:{port}"),
                None => format!("?:{port}"),
            },
        }
    }

    /// Opens a connection to the host that can be written to.
    pub(super) fn connect(&self, purpose: Purpose) -> Result<Connection, ConnectError> {
        let count = self.hosts.hangs.len();
        if count <= 1 {
            let opened = open(self.config.clone(), self.tls.clone(), purpose);
            return opened
                .and_then(Connection::new)
                .map_err(ConnectError::Postgres);
        }
        let preferred = self.hosts.preferred.load(Ordering::Acquire);
        let first = if preferred < count { preferred } else { 0 };
        let mut best: Option<(usize, Connection)> = None;
        let mut problems = Vec::new();
        for nth in (0..count).map(|step| (first + step) % count) {
            match self.connect_to(nth, purpose) {
                Err(why) => problems.push(format!("{}: {why}", self.host(nth))),
                Ok(connection) => {
                    let newer = best
                        .as_ref()
                        .is_none_or(|(_, other)| connection.timeline > other.timeline);
                    if newer {
                        best = Some((nth, connection));
                    }
                    // Only a program that has just started knows of no life
                    // of the database yet, and has to ask every host.
                    if preferred < count {
                        break;
                    }
                }
            }
        }
        let (nth, connection) = best.ok_or_else(|| ConnectError::Hosts(problems.join("; ")))?;
        let newest = self
            .hosts
            .timeline
            .fetch_max(connection.timeline, Ordering::AcqRel);
        if connection.timeline < newest {
            return Err(ConnectError::Hosts(self.outdated(nth, &connection, newest)));
        }
        if self.hosts.preferred.swap(nth, Ordering::AcqRel) != nth {
            log::info!(
                "the database that can be written to is on {} (timeline {})",
                self.host(nth),
                connection.timeline
            );
        }
        Ok(connection)
    }

    /// Opens a connection to one of several hosts, on a thread of its own:
    /// where it hangs the next host is asked, and this one not again until
    /// that thread has an outcome.
    fn connect_to(&self, nth: usize, purpose: Purpose) -> Result<Connection, String> {
        let hangs = || "it does not answer".to_owned();
        let flag = |on| {
            if let Some(flag) = self.hosts.hangs.get(nth) {
                flag.store(on, Ordering::Release);
            }
        };
        if self.hosts.hangs[nth].load(Ordering::Acquire) {
            return Err(hangs());
        }
        let (config, tls) = (one_host(&self.config, nth), self.tls.clone());
        let hosts = self.hosts.clone();
        let (sender, receiver) = bounded(0);
        std::thread::Builder::new()
            .name("connect host".to_owned())
            .spawn(move || {
                let outcome = open(config, tls, purpose).and_then(Connection::new);
                let late = sender.send(outcome).is_err();
                if late {
                    hosts.hangs[nth].store(false, Ordering::Release);
                }
            })
            .map_err(|error| format!("no thread to connect with: {error}"))?;
        let connection = match receiver.recv_timeout(HOST_LIMIT) {
            Ok(outcome) => outcome.map_err(|error| describe(&error))?,
            Err(RecvTimeoutError::Timeout) => {
                flag(true);
                return Err(hangs());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(hangs()),
        };
        let newest = self.hosts.timeline.load(Ordering::Acquire);
        if connection.timeline < newest {
            return Err(self.outdated(nth, &connection, newest));
        }
        Ok(connection)
    }

    fn outdated(&self, nth: usize, connection: &Connection, newest: u32) -> String {
        format!(
            "{} is on timeline {}, and timeline {newest} was seen: it is an old primary that missed a promotion, stop it",
            self.host(nth),
            connection.timeline
        )
    }

    /// Whether a connection leads to where the database is now, as far as is
    /// known, and not to what was the primary before a promotion.
    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        connection.timeline >= self.hosts.timeline.load(Ordering::Acquire)
    }
}

fn open(
    mut config: Config,
    tls: Option<MakeRustlsConnect>,
    purpose: Purpose,
) -> Result<Client, postgres::Error> {
    config.application_name(match purpose {
        Purpose::Requests => "av-backend",
        Purpose::Listen => "av-backend listen",
        Purpose::Migrate => "av-backend migrate",
        Purpose::Takeover => "av-backend import-python",
    });
    let mut client = match tls {
        Some(tls) => config.connect(tls)?,
        None => config.connect(NoTls)?,
    };
    client.batch_execute(match purpose {
        Purpose::Requests => {
            "SET TIME ZONE 'UTC'; SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
             SET idle_in_transaction_session_timeout = '30s'"
        }
        Purpose::Listen => "SET TIME ZONE 'UTC'; SET statement_timeout = '10s'",
        Purpose::Migrate => "SET TIME ZONE 'UTC'; SET lock_timeout = '60s'",
        // One end waits while the other works, and times go over as texts.
        Purpose::Takeover => {
            "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'; SET lock_timeout = '60s'; \
             SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
        }
    })?;
    Ok(client)
}

/// The timeline on which a primary writes: the first eight digits of the name
/// of its WAL file. 0 where the server does not say, as a hosted one may.
fn timeline(client: &mut Client) -> Result<u32, postgres::Error> {
    let name: String = match client.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]) {
        Ok(row) => row.get(0),
        Err(error) if error.as_db_error().is_some() => return Ok(0),
        Err(error) => return Err(error),
    };
    let digits = name.get(..8).unwrap_or_default();
    Ok(u32::from_str_radix(digits, 16).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_cannot_be_used_is_not_repeated() {
        for (url, error) in [
            ("postgres://av:hunter2@/x?sslmode=", UrlError::SslMode),
            ("password=hunter 2", UrlError::Syntax),
            ("password=hunter2", UrlError::Syntax),
            ("", UrlError::Syntax),
            ("http://av:hunter2@db/x", UrlError::Syntax),
            ("postgres://av:hunter2@db/x?sslmode=full", UrlError::SslMode),
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
