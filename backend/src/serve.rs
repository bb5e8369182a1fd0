//! `av-backend serve`: the threads, wired together.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_service::Watchdog;
use av_service::progress::{self, Progress};
use crossbeam_channel::RecvTimeoutError;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::{Settings, random_hex};
use crate::config::{Configs, watch};
use crate::http::{App, ClientCertificates, ListenError, Listener, Server};
use crate::known::Known;
use crate::notify;
use crate::reach::Reach;
use crate::stop::Stop;
use crate::store::sites::TokenDigest;
use crate::store::{Condition, Connector, Store, StoreError};
use crate::threads::{self, End, Ended};
use crate::upkeep;

/// How long threads may take to end.
const END_LIMIT: Duration = Duration::from_millis(1500);
/// Between two looks at a schema that is not there.
const MIGRATE_EVERY: Duration = Duration::from_millis(500);
/// One for each thread of the upkeep.
const UPKEEP_CONNECTIONS: usize = 3;
/// Between two reads of the tokens that are known.
const KNOWN_EVERY: Duration = Duration::from_secs(60);
/// Between two tries of a migration that waiting does not mend.
const BLOCKED_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at what the service manager is to be told.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// The same until it has been told that the program is ready.
const READY_CHECK: Duration = Duration::from_millis(50);
/// How long a database that may be there is waited for before the service
/// manager is told: who starts the unit and then asks for a page gets one.
const READY_GRACE: Duration = Duration::from_secs(2);
/// Between two times at which old tries that failed are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Between two rounds of housekeeping.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(3600);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The operating system refuses.
    #[error("the operating system refuses a thread or signal: {0}")]
    System(#[from] std::io::Error),
    /// It ran, and could not go on.
    #[error("{0}")]
    Failed(String),
}

/// Who is answered.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Where to listen: `IP:PORT` or `NAME:PORT`.
    pub address: String,
    /// How many requests are answered at a time.
    pub workers: usize,
    /// How many connections may be open at a time.
    pub connections: usize,
    /// Whose certificates are compared with their tokens.
    pub certificates: ClientCertificates,
}

/// What a thread of upkeep does until the stop signal.
type Work = fn(&Store, &upkeep::Settings, &Stop);

/// Serves until SIGTERM or SIGINT. A database that is not there yet, or goes
/// away, is waited for; requests are answered with 503 meanwhile. A thread that
/// is at work for `hang_limit` without getting on with it ends the feeding of
/// the service manager's watchdog.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    connector: Connector,
    listening: &Listening,
    settings: Settings,
    upkeep: upkeep::Settings,
    hang_limit: Duration,
) -> Result<(), ServeError> {
    threads::log_panics();
    let workers = listening.workers;
    let (edge, reactor) = Listener::bind(&listening.address)?.open(listening.connections)?;
    let address = edge.address();

    // Fewer connections than workers: where the database hangs in the middle
    // of a statement, some workers are left to say so.
    let (place, addresses) = (connector.place(), connector.addresses());
    let told_of = addresses.clone();
    let store = Arc::new(Store::new(connector, workers.saturating_sub(2)));
    store.expect_rounds(upkeep.alerts_every);
    let configs = Arc::new(Configs::new(store.clone()));
    let public_url = settings.public_url.clone();
    let app = Arc::new(App::new(
        store.clone(),
        configs.clone(),
        settings,
        edge.clone(),
        listening.certificates.clone(),
    ));
    let stop = Arc::new(Stop::new());
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let ended = Ended::new(sender);
    let progress = Progress::default();

    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let signalled = ended.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                signalled.by_signal(signal);
            }
        })?;

    let mut running = Vec::new();
    let upkeep = Arc::new(upkeep);
    let unasked = Arc::new(store.beside(UPKEEP_CONNECTIONS));
    let works: [(&str, Work); 3] = [
        ("alerts", upkeep::alerts),
        ("history", upkeep::history),
        ("notify", |store, settings, stop| {
            notify::run(store, &settings.notify, stop);
        }),
    ];
    for (name, work) in works {
        let (panicked, work_stop) = (app.clone(), stop.clone());
        let (store, upkeep) = (unasked.clone(), upkeep.clone());
        running.push(threads::spawn(
            name,
            move || panicked.note_panic(),
            stop.clone(),
            &progress,
            move || work(&store, &upkeep, &work_stop),
        )?);
    }
    let (panicked, keep_stop, kept) = (app.clone(), stop.clone(), store.clone());
    let known = app.known();
    running.push(threads::spawn(
        "keeper",
        move || panicked.note_panic(),
        stop.clone(),
        &progress,
        move || {
            let invite = |store: &Store| invite(store, public_url.as_deref(), address);
            keep(&kept, &addresses, invite, &known, &keep_stop);
        },
    )?);
    let (panicked, watch_stop) = (app.clone(), stop.clone());
    running.push(threads::spawn(
        "watch",
        move || panicked.note_panic(),
        stop.clone(),
        &progress,
        move || watch(&configs, &watch_stop),
    )?);
    let server = Server::start(&edge, reactor, &app, workers, &stop, &ended, &progress)?;
    log::info!(
        "av-backend {} listens on {address}, database {place}",
        env!("CARGO_PKG_VERSION")
    );

    let mut watchdog = Watchdog::new(progress, hang_limit);
    let began = Instant::now();
    let mut said = String::new();
    let end = loop {
        let condition = unasked.condition();
        let status = status(&condition, &told_of);
        if !watchdog.is_ready() {
            let known = condition != Condition::unknown();
            let migrates = matches!(condition, Condition::Migrating(_));
            if (known && !migrates) || began.elapsed() >= READY_GRACE {
                watchdog.ready(&status);
                said = status;
            }
        } else {
            if status != said {
                watchdog.status(&status);
                said = status;
            }
            if watchdog.wait().is_zero() {
                watchdog.look();
            }
        }
        let wait = match watchdog.is_ready() {
            true => watchdog.wait().min(STATUS_EVERY),
            false => READY_CHECK,
        };
        match receiver.recv_timeout(wait) {
            Ok(end) => break end,
            Err(RecvTimeoutError::Disconnected) => {
                break End::Failure("every thread has ended".to_owned());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    watchdog.stopping();
    stop.set();
    running.extend(server.close());
    let deadline = Instant::now() + END_LIMIT;
    for thread in running {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    match end {
        End::Signal(signal) => {
            log::info!("ended by signal {signal}");
            Ok(())
        }
        End::Failure(why) => Err(ServeError::Failed(why)),
    }
}

/// The condition of the database in one line, for the service manager and the
/// log.
fn status(condition: &Condition, addresses: &str) -> String {
    match condition {
        Condition::Unreachable(why) => {
            // That it is about connecting is said already.
            let why = why
                .strip_prefix("error connecting to server: ")
                .unwrap_or(why);
            format!("waiting for PostgreSQL at {addresses}: {why}")
        }
        Condition::Migrating(Some(name)) => format!("migration {name} is under way"),
        Condition::Migrating(None) => "waiting for the schema to be brought up to date".to_owned(),
        Condition::Blocked(why) => format!("the schema cannot be brought up to date: {why}"),
        Condition::Incomplete(what) => StoreError::Incomplete(what.clone()).to_string(),
        Condition::Foreign { .. } => match condition.refusal() {
            Some(error) => format!("the schema is not up to date: {error}"),
            None => String::new(),
        },
        Condition::Ready { newer: None } => "serves".to_owned(),
        Condition::Ready { newer: Some(newer) } => {
            format!("serves; the schema ({newer}) is newer than this program")
        }
    }
}

/// Brings the schema up to date as soon as there is a database, and again
/// where it was made anew; keeps the history's partitions ahead of time.
fn keep(
    store: &Store,
    addresses: &str,
    invite: impl Fn(&Store) -> bool,
    known: &Known,
    stop: &Stop,
) {
    let mut said = String::new();
    let mut kept_at: Option<Instant> = None;
    let mut swept_at: Option<Instant> = None;
    let mut known_at: Option<Instant> = None;
    let mut invited = false;
    loop {
        if !store.is_ready() {
            // Takes as long as the tables are large.
            progress::waits();
            let migrated = store.migrate();
            progress::moves();
            match migrated {
                Ok(applied) if applied.is_empty() => log::info!("the schema is up to date"),
                Ok(applied) => log::info!("the schema is up to date: applied {applied:?}"),
                Err(_) => {
                    let condition = store.condition();
                    let status = status(&condition, addresses);
                    if status != said {
                        match condition.is_stuck() {
                            true => log::error!(
                                "{status}: requests are answered with 503, and it is tried again every {} s",
                                BLOCKED_EVERY.as_secs()
                            ),
                            false => log::warn!("{status}"),
                        }
                        said = status;
                    }
                }
            }
        }
        if store.is_ready() && !invited {
            invited = invite(store);
        }
        if store.is_ready() && known_at.is_none_or(|at| at.elapsed() >= KNOWN_EVERY) {
            match known.load(store) {
                Ok(()) => known_at = Some(Instant::now()),
                Err(error) => log::debug!("the known tokens are not read: {error}"),
            }
        }
        if store.is_ready() && kept_at.is_none_or(|at| at.elapsed() >= HOUSEKEEPING_EVERY) {
            said.clear();
            if let Err(error) = store.forget_old_sessions() {
                log::warn!("old sessions are not forgotten: {error}");
            }
            if let Err(error) = store.forget_old_enrolments() {
                log::warn!("old codes of enrolments are not forgotten: {error}");
            }
            match store.housekeeping() {
                Ok(made) => {
                    kept_at = Some(Instant::now());
                    if made > 0 {
                        log::info!("made {made} partition(s) of the history");
                    }
                }
                Err(error) => log::warn!("the history has no partition for new months: {error}"),
            }
        }
        // More often: strangers decide how many there are.
        if store.is_ready() && swept_at.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            swept_at = Some(Instant::now());
            if let Err(error) = store.forget_old_attempts() {
                log::warn!("old tries that failed are not forgotten: {error}");
            }
        }
        let wait = match (store.is_ready(), kept_at) {
            // A failure of the housekeeping is tried again, but not at once.
            (true, None) => Duration::from_secs(30),
            (false, _) if store.condition().is_stuck() => BLOCKED_EVERY,
            _ => MIGRATE_EVERY,
        };
        if stop.wait(wait) {
            return;
        }
    }
}

/// Where there is no user yet, prints the link with which the first one is
/// made. Not into the log: the link is a secret until it has been used.
/// Answers whether that is done with.
fn invite(store: &Store, public_url: Option<&str>, listening: SocketAddr) -> bool {
    let done = set_up_link(store, public_url, listening).and_then(|link| {
        let said = link.unwrap_or_default();
        std::io::stdout()
            .write_all(said.as_bytes())
            .map_err(|error| format!("standard output: {error}"))
    });
    if let Err(error) = &done {
        log::warn!("no set-up link: {error}");
    }
    done.is_ok()
}

/// What to tell of the link with which the first user is made; `None` where
/// there is a user.
///
/// # Errors
/// Where there are no random numbers, or what the database says.
pub fn set_up_link(
    store: &Store,
    public_url: Option<&str>,
    listening: SocketAddr,
) -> Result<Option<String>, String> {
    let code = random_hex().map_err(|error| error.to_string())?;
    let added = store
        .add_setup_link(&TokenDigest::of(&code))
        .map_err(|error| error.to_string())?;
    let link = Reach::of(public_url, listening).link(&format!("/setup/{code}"));
    Ok(added.then(|| format!("There is no user yet. Make the first one here: {link}")))
}
