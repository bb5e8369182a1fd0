//! The command line: arguments in, exit code out.

mod account;
mod chosen;

use std::fmt;
use std::io::{Read, Write, stdin, stdout};
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use av_proto::hash::hash_document;
use av_proto::schedule::zone;
use av_proto::text::one_line;
use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::Timestamp;

use self::account::{EnvFile, Prepared, Work};
use self::chosen::PasswordSource;
use crate::admin::{self, Settings, password};
use crate::backup::{self, Account};
use crate::check;
use crate::http::ClientCertificates;
use crate::import_python::{self, Surroundings};
use crate::notify::{self, Mail};
use crate::serve::{Listening, serve, set_up_link};
use crate::store::actor::Actor;
use crate::store::inventory::SiteFields;
use crate::store::sites::TokenDigest;
use crate::store::users::Role;
use crate::store::{Connector, Store, StoreError};
use crate::upkeep;

/// The source of truth for the audio-visual equipment of many sites.
#[derive(Debug, Parser)]
#[command(name = "av-backend", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    env_file: EnvFile,
}

#[derive(Debug, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "a process has one, and for a moment"
)]
enum Command {
    /// Answers agents and people over HTTP; brings the schema up to date first
    Serve {
        #[command(flatten)]
        database: Database,
        /// Where to listen
        #[arg(
            long,
            env = "AV_LISTEN",
            default_value = "0.0.0.0:8000",
            value_name = "IP:PORT"
        )]
        listen: String,
        /// How many requests are answered at a time
        #[arg(long, env = "AV_WORKERS", default_value_t = 8,
              value_parser = clap::value_parser!(u16).range(1..=256))]
        workers: u16,
        /// How many connections may be open at a time; with more, those idle for the longest are closed
        #[arg(long, env = "AV_CONNECTIONS", default_value_t = 4096,
              value_parser = clap::value_parser!(u16).range(16..))]
        connections: u16,
        /// A proxy that speaks TLS stands before this server: cookies go over TLS alone, and X-Forwarded-For is believed
        #[arg(long, env = "AV_BEHIND_TLS", value_parser = clap::builder::FalseyValueParser::new())]
        behind_tls: bool,
        /// The address under which people reach this server, for links
        #[arg(long, env = "AV_PUBLIC_URL", value_name = "URL")]
        public_url: Option<String>,
        /// Further names under which this server is asked, beside its addresses, its machine's name and that of AV_PUBLIC_URL; with commas between them
        #[arg(long, env = "AV_HOSTS", value_name = "NAMES", value_delimiter = ',')]
        hosts: Vec<String>,
        /// The header field in which the proxy gives the subject of an agent's client certificate, whose CN must then be the name of the token's site
        #[arg(long, env = "AV_CLIENT_CERT_HEADER", value_name = "NAME")]
        client_cert_header: Option<String>,
        /// The token with which Prometheus gets a series of each device from GET /metrics; without, counts alone
        #[arg(
            long,
            env = "AV_METRICS_TOKEN",
            hide_env_values = true,
            value_name = "TOKEN"
        )]
        metrics_token: Option<String>,
        #[command(flatten)]
        upkeep: Upkeep,
    },
    /// Brings the database's schema up to date
    Migrate {
        #[command(flatten)]
        database: Database,
    },
    /// Writes a backup of the database, and beside it FILE.manifest.json, which says what it holds
    Backup {
        /// The dump, in pg_dump's custom format; it must not be there yet
        file: PathBuf,
        #[command(flatten)]
        database: Database,
    },
    /// Puts a backup back, and checks that everything of its manifest is there
    Restore {
        /// The dump, with FILE.manifest.json beside it
        file: PathBuf,
        /// Remove what the database holds; it does so in the transaction that puts the backup back
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Takes the data of the Python system over, into a database without sites; its own is only read
    #[command(after_help = IMPORT_PYTHON_HELP)]
    ImportPython {
        /// The Python system's database, as its own DATABASE_URL names it
        #[arg(
            env = PYTHON_DATABASE,
            hide_env_values = true,
            value_name = "PYTHON_DATABASE_URL"
        )]
        // The variable may be in the unit's file alone, which is read later.
        from: Option<String>,
        /// Say what would be taken over, and write nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Adds and lists sites
    #[command(subcommand)]
    Site(SiteCommand),
    /// Adds and lists the people who get in
    #[command(subcommand)]
    User(UserCommand),
    /// Prints another link with which the first user is made, while there is none
    SetupLink {
        /// Where the server listens
        #[arg(
            long,
            env = "AV_LISTEN",
            default_value = "0.0.0.0:8000",
            value_name = "IP:PORT"
        )]
        listen: String,
        /// The address under which people reach the server
        #[arg(long, env = "AV_PUBLIC_URL", value_name = "URL")]
        public_url: Option<String>,
        #[command(flatten)]
        database: Database,
    },
    /// Prints the configuration hash of a document of the contract's hash section
    Hash {
        /// A file, or - for standard input
        file: PathBuf,
    },
    /// Says what is wrong with a configuration: an answer of GET /config, or an agent's config.json
    #[command(
        after_help = "A setting that is not known is a warning: it is kept and has no effect.\nEnds with 0 where nothing is wrong, 1 where something is, 2 where the file cannot be read."
    )]
    CheckConfig {
        /// A file, or - for standard input
        file: PathBuf,
    },
}

const IMPORT_PYTHON_HELP: &str = "\
Takes over sites with their tokens, devices, history, states and alerts, all of
it or nothing. Says at the end what it took otherwise, and what has no place
here. An argument shows in the list of processes: put a URL with a password
into AV_PYTHON_DATABASE_URL.";

/// The least characters of the token for metrics.
const LEAST_METRICS_TOKEN: usize = 16;
/// The variable that names the Python system's database.
const PYTHON_DATABASE: &str = "AV_PYTHON_DATABASE_URL";

#[derive(Debug, Subcommand)]
enum SiteCommand {
    /// Adds a site and prints its token, which cannot be shown again
    Add {
        /// The site's name, as its agent reports it
        name: String,
        /// The site's IANA time zone
        #[arg(long, default_value = "UTC")]
        timezone: String,
        #[command(flatten)]
        database: Database,
    },
    /// Lists the sites
    List {
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Adds a user; asks for the password at a terminal, or else reads one line
    Add {
        /// The name with which the user logs in
        name: String,
        /// What the user may do
        #[arg(long, value_enum, default_value_t = RoleName::Viewer)]
        role: RoleName,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        database: Database,
    },
    /// Gives a user a new password and ends the user's sessions
    Password {
        /// The user's name
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        database: Database,
    },
    /// Lists the users
    List {
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleName {
    /// Looks at everything but secrets
    Viewer,
    /// Changes sites, devices and alerts
    Editor,
    /// Manages users too
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Editor => Self::Editor,
            RoleName::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Args)]
struct Database {
    /// The database: postgres://USER:PASSWORD@HOST:5432/DATABASE, or "host=/run/postgresql user=av-backend dbname=av"
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Debug, Args)]
struct Upkeep {
    /// The mail server: smtp://HOST:25, smtp://USER:PASSWORD@HOST:587?tls=required or smtps://USER:PASSWORD@HOST:465
    #[arg(long, env = "AV_SMTP_URL", hide_env_values = true, value_name = "URL")]
    smtp_url: Option<String>,
    /// The sender of mails, such as "AV monitoring <av@example.org>"
    #[arg(long, env = "AV_MAIL_FROM", value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// A PEM file of authorities that the mail server's certificate may be of, beside those of the system
    #[arg(long, env = "AV_SMTP_CA", value_name = "FILE")]
    smtp_ca: Option<String>,
    /// So many whole months of history are kept beside the current one
    #[arg(long, env = "AV_HISTORY_MONTHS", default_value_t = 13,
          value_parser = clap::value_parser!(i32).range(1..=1200))]
    history_months: i32,
    /// Milliseconds between two looks at silent agents and maintenance
    #[arg(long, env = "AV_ALERTS_EVERY_MS", default_value_t = 5000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(10..))]
    alerts_every_ms: u64,
    /// Milliseconds between two looks at finished days and old months
    #[arg(long, env = "AV_HISTORY_EVERY_MS", default_value_t = 3_600_000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(10..))]
    history_every_ms: u64,
    /// Milliseconds between two looks at messages to be sent
    #[arg(long, env = "AV_NOTIFY_EVERY_MS", default_value_t = 1000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(10..))]
    notify_every_ms: u64,
    /// Milliseconds that sending a message may take
    #[arg(long, env = "AV_NOTIFY_TIMEOUT_MS", default_value_t = 10_000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(10..))]
    notify_timeout_ms: u64,
    /// Milliseconds until a message is tried again; doubled with each failure, up to an hour
    #[arg(long, env = "AV_NOTIFY_RETRY_MS", default_value_t = 10_000, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(10..))]
    notify_retry_ms: u64,
    /// Hours after which a message that does not arrive is given up
    #[arg(long, env = "AV_NOTIFY_GIVE_UP_H", default_value_t = 72, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(1..=8760))]
    notify_give_up_h: u64,
    /// Seconds without progress after which a thread hangs, and systemd's watchdog is no longer fed
    #[arg(long, env = "AV_HANG_S", default_value_t = 600, hide_short_help = true,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    hang_s: u64,
}

impl Upkeep {
    fn settings(self, public_url: Option<String>) -> Result<upkeep::Settings, Failure> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let mail = match (given(self.smtp_url), given(self.mail_from)) {
            (None, None) => None,
            (Some(url), Some(from)) => {
                let authorities = given(self.smtp_ca);
                let timeout = Duration::from_millis(self.notify_timeout_ms);
                Some(
                    Mail::new(&url, &from, authorities.as_deref().map(Path::new), timeout)
                        .map_err(Failure::new)?,
                )
            }
            (Some(_), None) => {
                return Err(Failure::new(
                    "AV_MAIL_FROM is not set: who sends the mails?",
                ));
            }
            (None, Some(_)) => {
                return Err(Failure::new(
                    "AV_SMTP_URL is not set: which mail server takes the mails?",
                ));
            }
        };
        Ok(upkeep::Settings {
            alerts_every: Duration::from_millis(self.alerts_every_ms),
            history_every: Duration::from_millis(self.history_every_ms),
            history_months: self.history_months,
            notify: notify::Settings {
                mail,
                public_url,
                every: Duration::from_millis(self.notify_every_ms),
                retry: Duration::from_millis(self.notify_retry_ms),
                give_up: Duration::from_secs(self.notify_give_up_h * 3600),
                timeout: Duration::from_millis(self.notify_timeout_ms),
            },
        })
    }
}

impl Command {
    /// What it does as whom, where root types it.
    fn work(&self) -> Work {
        match self {
            Self::Hash { .. } | Self::CheckConfig { .. } => Work::Alone,
            Self::Serve { .. }
            | Self::Migrate { .. }
            | Self::ImportPython { .. }
            | Self::SetupLink { .. }
            | Self::Site(_)
            | Self::User(_) => Work::AsUser,
            Self::Backup { .. } | Self::Restore { .. } => Work::WithFiles,
        }
    }

    /// The address of the database, where the command has one.
    fn database_url(&self) -> Option<&str> {
        let database = match self {
            Self::Hash { .. } | Self::CheckConfig { .. } => return None,
            Self::Serve { database, .. }
            | Self::Migrate { database }
            | Self::SetupLink { database, .. }
            | Self::Backup { database, .. }
            | Self::Restore { database, .. }
            | Self::ImportPython { database, .. }
            | Self::Site(SiteCommand::Add { database, .. } | SiteCommand::List { database })
            | Self::User(
                UserCommand::Add { database, .. }
                | UserCommand::Password { database, .. }
                | UserCommand::List { database },
            ) => database,
        };
        database.database_url.as_deref()
    }
}

/// An error for the person at the terminal, with the exit code.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: 1,
        }
    }

    fn unreadable(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            code: 2,
        }
    }
}

/// The command line as it is declared: what the man pages and completions are
/// made of.
#[must_use]
pub fn declared() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    // The schema says at each start what is there already: no news.
    av_service::journal::logger("info,postgres=warn").init();
    let Cli { command, env_file } = Cli::parse();
    let done = env_file
        .prepare(command.work())
        .and_then(|prepared| match prepared {
            Prepared::Go(account) => execute(command, account.as_ref()),
            // Where it is said by hand, the file is not missed.
            Prepared::Unreadable(_) if command.database_url().is_some() => execute(command, None),
            Prepared::Unreadable(file) => Err(Failure::unreadable(format!(
                "DATABASE_URL is not set, and this user may not read {}: type the command with sudo",
                file.display()
            ))),
        });
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("av-backend: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn execute(command: Command, account: Option<&Account>) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve {
            database,
            listen,
            workers,
            connections,
            behind_tls,
            public_url,
            hosts,
            client_cert_header,
            metrics_token,
            upkeep,
        } => {
            let metrics_token = metrics_token.filter(|token| !token.is_empty());
            if metrics_token
                .as_ref()
                .is_some_and(|token| token.chars().count() < LEAST_METRICS_TOKEN)
            {
                return Err(Failure::new(format!(
                    "AV_METRICS_TOKEN has less than {LEAST_METRICS_TOKEN} characters: openssl rand -hex 32 makes one"
                )));
            }
            let settings = Settings {
                metrics_token: metrics_token.as_deref().map(TokenDigest::of),
                behind_tls,
                public_url: public_url
                    .map(|url| url.trim_end_matches('/').to_owned())
                    .filter(|url| !url.is_empty()),
                hosts,
            };
            let certificates =
                ClientCertificates::by_header(client_cert_header).map_err(Failure::new)?;
            let hang_limit = Duration::from_secs(upkeep.hang_s);
            let upkeep = upkeep.settings(settings.public_url.clone())?;
            let connector = database.connector()?;
            serve(
                connector,
                &Listening {
                    address: listen,
                    workers: workers.into(),
                    connections: connections.into(),
                    certificates,
                },
                settings,
                upkeep,
                hang_limit,
            )
            .map_err(Failure::new)?;
        }
        Command::Migrate { database } => migrate(database)?,
        Command::Backup { file, database } => print(
            &backup::backup(&database.connector()?, account, &file, Timestamp::now())
                .map_err(Failure::new)?,
        )?,
        Command::Restore {
            file,
            force,
            database,
        } => print(
            &backup::restore(&database.connector()?, account, &file, force)
                .map_err(Failure::new)?,
        )?,
        Command::ImportPython {
            from,
            dry_run,
            database,
        } => {
            let from = from.filter(|url| !url.is_empty()).ok_or_else(|| {
                Failure::new(format!(
                    "the Python system's database is not named: put its URL into {PYTHON_DATABASE}"
                ))
            })?;
            import_python(&from, dry_run, database)?;
        }
        Command::Site(SiteCommand::Add {
            name,
            timezone,
            database,
        }) => add_site(&name, &timezone, database)?,
        Command::Site(SiteCommand::List { database }) => list_sites(database)?,
        Command::User(UserCommand::Add {
            name,
            role,
            password,
            database,
        }) => add_user(&name, role.into(), password, database)?,
        Command::User(UserCommand::Password {
            name,
            password,
            database,
        }) => change_password(&name, password, database)?,
        Command::User(UserCommand::List { database }) => list_users(database)?,
        Command::SetupLink {
            listen,
            public_url,
            database,
        } => setup_link(&listen, public_url.as_deref(), database)?,
        Command::Hash { file } => hash(&file)?,
        Command::CheckConfig { file } => return check_config(&file),
    }
    Ok(ExitCode::SUCCESS)
}

impl Database {
    fn connector(self) -> Result<Connector, Failure> {
        let url = self.database_url.filter(|url| !url.is_empty()).ok_or_else(|| {
            Failure::new(
                "DATABASE_URL is not set: set it, in /etc/av-monitoring/backend.env, to postgres://USER:PASSWORD@HOST:5432/DATABASE or, for the socket, to \"host=/run/postgresql user=av-backend dbname=av\"",
            )
        })?;
        Connector::parse(&url).map_err(Failure::new)
    }

    /// The store, its schema up to date, with the migrations just applied.
    fn open(self) -> Result<(Store, Vec<&'static str>), Failure> {
        let connector = self.connector()?;
        let place = connector.place();
        let store = Store::new(connector, 1);
        let applied = store
            .migrate()
            .map_err(|error| Failure::new(format!("{error} ({place})")))?;
        Ok((store, applied))
    }
}

fn migrate(database: Database) -> Result<(), Failure> {
    let (_, applied) = database.open()?;
    if applied.is_empty() {
        print("The schema is up to date.\n")
    } else {
        applied
            .iter()
            .try_for_each(|name| print(&format!("applied {name}\n")))
    }
}

fn import_python(from_text: &str, dry_run: bool, database: Database) -> Result<(), Failure> {
    let url = plain_scheme(from_text);
    let from = Connector::parse(&url).map_err(|error| {
        let said = error.to_string();
        Failure::new(said.replace("DATABASE_URL", "the Python system's database"))
    })?;
    let by_environment = std::env::var(PYTHON_DATABASE).is_ok_and(|url| url == from_text);
    if !by_environment && from.has_password() {
        eprintln!(
            "av-backend: the password is in the list of processes: give the URL by {PYTHON_DATABASE}"
        );
    }
    let mut progress = |text: &str| eprintln!("{text}");
    let mut token = || new_token().map_err(|failure| failure.message);
    let around = Surroundings {
        progress: &mut progress,
        token: &mut token,
    };
    let told = if dry_run {
        let given = database.database_url.as_deref().unwrap_or_default();
        let to = match given.is_empty() {
            true => None,
            false => Some(database.connector()?),
        };
        import_python::dry_run(&from, to.as_ref(), around)
    } else {
        import_python::import(&from, &database.connector()?, around)
    };
    print(&told.map_err(Failure::new)?)
}

/// The URL without the name of SQLAlchemy's driver: `postgresql+psycopg2://`.
fn plain_scheme(url: &str) -> String {
    let driver = url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme.split_once('+')?.0, rest)));
    match driver {
        // In any other text these signs are a password's.
        Some((scheme @ ("postgresql" | "postgres"), rest)) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

fn add_site(name: &str, timezone: &str, database: Database) -> Result<(), Failure> {
    if name.trim().is_empty() {
        return Err(Failure::new("the site's name is empty"));
    }
    if zone(timezone).is_none() {
        return Err(Failure::new(format!(
            "{timezone:?} is not an IANA time zone, such as Europe/Paris"
        )));
    }
    let (store, _) = database.open()?;
    let token = new_token()?;
    store
        .create_site(
            &at_the_terminal(),
            &SiteFields::new(name, timezone),
            &TokenDigest::of(&token),
        )
        .map_err(|error| match error {
            StoreError::Taken(_) => Failure::new(format!("there is a site {name:?} already")),
            error => Failure::new(error),
        })?;
    eprintln!(
        "Site {name:?} is added. Its token follows: put it as site_token into the agent's\n\
         config.json. It is not kept here and cannot be shown again."
    );
    print(&format!("{token}\n"))
}

/// 256 random bits, in hex.
fn new_token() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list_sites(database: Database) -> Result<(), Failure> {
    let (store, _) = database.open()?;
    let rows: Vec<[String; 6]> = store
        .sites()
        .map_err(Failure::new)?
        .into_iter()
        .map(|site| {
            [
                site.id.to_string(),
                one_line(&site.name),
                one_line(&site.timezone),
                site.devices.to_string(),
                site.config_version.unwrap_or_else(|| "-".to_owned()),
                site.last_report_at
                    .map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
            ]
        })
        .collect();
    print(&table(
        [
            "ID",
            "NAME",
            "TIMEZONE",
            "DEVICES",
            "CONFIG HASH",
            "LAST REPORT",
        ],
        &rows,
    ))
}

/// Who acts where somebody at a terminal does.
fn at_the_terminal() -> Actor {
    Actor {
        name: "command line".to_owned(),
        origin: "cli",
        ip: String::new(),
    }
}

fn add_user(
    name: &str,
    role: Role,
    source: PasswordSource,
    database: Database,
) -> Result<(), Failure> {
    admin::check_user_name(name).map_err(Failure::new)?;
    let chosen = source.choose(name)?;
    let hash = password::hash(&chosen.text).map_err(Failure::new)?;
    let (store, _) = database.open()?;
    store
        .add_user(&at_the_terminal(), name, role, &hash)
        .map_err(|error| match error {
            StoreError::Taken(_) => Failure::new(format!("there is a user {name:?} already")),
            error => Failure::new(error),
        })?;
    chosen.tell(&format!("User {name:?} is added."))
}

fn change_password(name: &str, source: PasswordSource, database: Database) -> Result<(), Failure> {
    let (store, _) = database.open()?;
    let (id, _) = store
        .password_hash(name)
        .map_err(Failure::new)?
        .ok_or_else(|| Failure::new(format!("there is no user {name:?}")))?;
    let chosen = source.choose(name)?;
    let hash = password::hash(&chosen.text).map_err(Failure::new)?;
    store
        .change_user(&at_the_terminal(), id, None, Some(&hash), None)
        .map_err(Failure::new)?
        .map_err(|_| Failure::new(format!("there is no user {name:?}")))?;
    chosen.tell(&format!("User {name:?} has a new password."))
}

fn list_users(database: Database) -> Result<(), Failure> {
    let (store, _) = database.open()?;
    let rows: Vec<[String; 4]> = store
        .users()
        .map_err(Failure::new)?
        .into_iter()
        .map(|user| {
            [
                user.id.to_string(),
                one_line(&user.name),
                user.role.as_str().to_owned(),
                user.last_login_at
                    .map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
            ]
        })
        .collect();
    print(&table(["ID", "NAME", "ROLE", "LAST LOG-IN"], &rows))
}

fn setup_link(listen: &str, public_url: Option<&str>, database: Database) -> Result<(), Failure> {
    let listening = listen
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| Failure::new(format!("{listen:?} is not IP:PORT or NAME:PORT")))?;
    let public_url = public_url.filter(|url| !url.is_empty());
    let (store, _) = database.open()?;
    match set_up_link(&store, public_url, listening).map_err(Failure::new)? {
        Some(link) => print(&link),
        None => Err(Failure::new(
            "there is a user already: `av-backend user list` names them, and `av-backend user password NAME` gives one another password",
        )),
    }
}

/// Columns, each as wide as its widest cell.
fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(rows) {
        let line: String = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn hash(file: &Path) -> Result<(), Failure> {
    let document = String::from_utf8(read(file)?)
        .map_err(|_| Failure::unreadable(format!("{}: is not UTF-8", file.display())))?;
    let hash = hash_document(&document)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    print(&format!("{hash}\n"))
}

fn check_config(file: &Path) -> Result<ExitCode, Failure> {
    let document = read(file)?;
    let checked = check::check(&document)
        .map_err(|error| Failure::unreadable(format!("{}: {error}", file.display())))?;
    for problem in &checked.problems {
        print(&format!("{}\n", one_line(&problem.to_string())))?;
    }
    for warning in &checked.warnings {
        print(&format!("warning: {}\n", one_line(&warning.to_string())))?;
    }
    if checked.problems.is_empty() {
        let warnings = match checked.warnings.len() {
            0 => String::new(),
            count => format!(", {count} warning(s)"),
        };
        print(&format!(
            "{} device(s), nothing wrong{warnings}\n",
            checked.devices
        ))?;
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::from(1))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    match result {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Failure::unreadable(format!("{}: {error}", file.display()))),
    }
}

/// Prints to standard output. `println!` would panic where nobody reads it.
fn print(text: &str) -> Result<(), Failure> {
    stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(format!("standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_has_256_bits_and_is_new_each_time() {
        let token = new_token().ok().unwrap();
        assert_eq!(token.len(), 64);
        assert!(token.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(new_token().ok().unwrap(), token);
    }

    #[test]
    fn a_url_of_sqlalchemy_is_one() {
        for (given, plain) in [
            ("postgresql+psycopg2://u:p+w@h/d", "postgresql://u:p+w@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("host=h user=u", "host=h user=u"),
            ("host=h password=a+b://c", "host=h password=a+b://c"),
        ] {
            assert_eq!(plain_scheme(given), plain);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            ["1".to_owned(), "Évry".to_owned()],
            ["10".to_owned(), "-".to_owned()],
        ];
        assert_eq!(table(["ID", "NAME"], &rows), "ID  NAME\n1   Évry\n10  -\n");
    }
}
