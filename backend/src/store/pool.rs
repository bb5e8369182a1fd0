//! A small, bounded pool of connections that says at once when the database
//! is gone.
//!
//! The usual pools wait their whole time-out for a connection while the
//! database is down, and with them every worker of the HTTP server. Here one
//! caller at a time tries to connect to a database that is known to be down,
//! at most every [`RETRY_EVERY`], and everybody else is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use postgres::Client;

use super::connector::{ConnectError, Connection, Connector, Purpose};
use super::error::{StoreError, is_connection_loss};
use super::statements::Statements;

/// How long a database that is down is left alone between two tries.
const RETRY_EVERY: Duration = Duration::from_millis(300);
/// How long a caller waits for a connection while all are in use.
const CHECKOUT_LIMIT: Duration = Duration::from_secs(2);
/// A connection that was used before is tried before it is used again. How
/// long such a try may take: longer, and the database hangs.
const TRY_LIMIT: Duration = Duration::from_millis(1500);
/// How long a caller waits for a new connection. The library bounds only the
/// first step, the TCP connection; a database that hangs accepts that.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// The pool.
pub(super) struct Pool(Arc<Shared>);

/// What the callers share with the threads that connect.
struct Shared {
    connector: Connector,
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
    /// Counts the database's signs of life, to this pool and those beside it: a
    /// connection that was made, or that still answered.
    signs: Arc<AtomicU64>,
}

struct State {
    idle: Vec<Connection>,
    /// Connections that exist or are being made.
    total: usize,
    /// Threads that are making one.
    connecting: usize,
    down: Option<Down>,
}

/// The database is known to be down.
struct Down {
    why: String,
    retry_at: Instant,
    /// The signs of life until then: where there were more, it is up again.
    signs: u64,
}

/// A connection taken from the pool; it goes back when it is dropped.
pub(super) struct Pooled<'a> {
    pool: &'a Shared,
    connection: Option<Connection>,
    /// It was used before, so that its other end may be gone.
    pub(super) reused: bool,
}

/// Drops a connection that may still owe an answer: also an idle one may have
/// a statement to close. Its own end waits for that answer, which a database
/// that hangs never gives, so a thread of its own waits.
pub(super) fn bury(client: Client) {
    if client.is_closed() {
        return;
    }
    let spawned = std::thread::Builder::new()
        .name("bury".to_owned())
        .spawn(move || drop(client));
    if let Err(error) = spawned {
        log::warn!("no thread for a connection that hangs: {error}");
    }
}

fn bury_connection(connection: Connection) {
    bury(connection.client);
}

impl Pool {
    pub(super) fn new(connector: Connector, max: usize) -> Self {
        Self::counting(connector, max, Arc::default())
    }

    /// A pool of its own for the same database. A sign of life to one of them has
    /// the other try at once.
    pub(super) fn beside(&self, max: usize) -> Self {
        Self::counting(self.0.connector.clone(), max, self.0.signs.clone())
    }

    fn counting(connector: Connector, max: usize, signs: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Shared {
            connector,
            max,
            state: Mutex::new(State {
                idle: Vec::new(),
                total: 0,
                connecting: 0,
                down: None,
            }),
            freed: Condvar::new(),
            signs,
        }))
    }

    /// Takes a connection, a fresh one where `fresh` is set.
    pub(super) fn take(&self, fresh: bool) -> Result<Pooled<'_>, StoreError> {
        let deadline = Instant::now() + CHECKOUT_LIMIT;
        loop {
            let Some(mut connection) = self.0.next(fresh, deadline)? else {
                return Ok(self.0.pooled(self.connect()?, false));
            };
            if !self.0.connector.is_current(&connection) {
                // Another host was promoted since.
                bury(connection.client);
                self.0.lost();
                continue;
            }
            let Err(error) = connection.client.is_valid(TRY_LIMIT) else {
                self.0.has_sign();
                return Ok(self.0.pooled(connection, true));
            };
            bury(connection.client);
            self.0.lost();
            // A connection that was closed says nothing of the database, which
            // may have restarted; one that gives no answer says that it hangs.
            if !is_connection_loss(&error) {
                let why = "it does not answer".to_owned();
                self.0.mark_down(why.clone());
                return Err(StoreError::Unavailable(why));
            }
        }
    }

    /// Notes that the database is down, and wakes those who wait for a
    /// connection: they are told so.
    pub(super) fn mark_down(&self, why: String) {
        self.0.mark_down(why);
    }

    /// Why the database is known to be down, where it is.
    pub(super) fn why_down(&self) -> Option<String> {
        self.0.lock().down.as_ref().map(|down| down.why.clone())
    }

    /// Makes a connection on a thread of its own. Where that takes too long,
    /// the caller is told that the database is down, and the thread goes on:
    /// nobody else tries before it has an outcome.
    fn connect(&self) -> Result<Connection, StoreError> {
        let shared = self.0.clone();
        let (sender, receiver) = bounded(0);
        let spawned = std::thread::Builder::new()
            .name("connect".to_owned())
            .spawn(move || {
                let outcome = shared.connector.connect(Purpose::Requests);
                shared.connected(outcome.as_ref().err());
                // The caller may have given up: then it is anybody's.
                if let Err(unsent) = sender.send(outcome) {
                    if let Ok(connection) = unsent.into_inner() {
                        shared.give_back(connection);
                        shared.mark_up();
                    }
                }
            });
        if let Err(error) = spawned {
            self.0.connected(None);
            self.0.lost();
            let why = format!("no thread to connect with: {error}");
            self.0.mark_down(why.clone());
            return Err(StoreError::Unavailable(why));
        }
        match receiver.recv_timeout(CONNECT_LIMIT) {
            Ok(outcome) => outcome.map_err(|error| StoreError::Unavailable(error.to_string())),
            Err(_) => {
                let why = "it does not answer".to_owned();
                self.0.mark_down(why.clone());
                Err(StoreError::Unavailable(why))
            }
        }
    }
}

impl Shared {
    /// An idle connection, or the right to make one.
    fn next(&self, fresh: bool, deadline: Instant) -> Result<Option<Connection>, StoreError> {
        let mut state = self.lock();
        loop {
            if let Some(down) = &state.down {
                let early = Instant::now() < down.retry_at && self.signs() == down.signs;
                if state.connecting > 0 || early {
                    return Err(StoreError::Unavailable(down.why.clone()));
                }
                state.total += 1;
                state.connecting += 1;
                return Ok(None);
            }
            if fresh {
                // What lies idle is as old as the connection that just failed.
                state.total -= state.idle.len();
                state.idle.drain(..).for_each(bury_connection);
            } else if let Some(idle) = state.idle.pop() {
                return Ok(Some(idle));
            }
            if state.total < self.max {
                state.total += 1;
                state.connecting += 1;
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Busy(format!(
                    "all {} connections are in use",
                    self.max
                )));
            }
            state = self
                .freed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn pooled(&self, connection: Connection, reused: bool) -> Pooled<'_> {
        Pooled {
            pool: self,
            connection: Some(connection),
            reused,
        }
    }

    fn give_back(&self, connection: Connection) {
        self.lock().idle.push(connection);
        self.freed.notify_one();
    }

    fn lost(&self) {
        let mut state = self.lock();
        state.total = state.total.saturating_sub(1);
        drop(state);
        self.freed.notify_one();
    }

    /// Notes that a thread that was connecting has an outcome.
    fn connected(&self, error: Option<&ConnectError>) {
        self.lock().connecting -= 1;
        match error {
            None => {
                self.has_sign();
                self.mark_up();
            }
            Some(error) => {
                self.lost();
                self.mark_down(error.to_string());
            }
        }
    }

    fn mark_down(&self, why: String) {
        let mut state = self.lock();
        if state.down.is_none() {
            log::warn!("the database is not available: {why}");
        }
        let idle = std::mem::take(&mut state.idle);
        state.total -= idle.len();
        state.down = Some(Down {
            why,
            retry_at: Instant::now() + RETRY_EVERY,
            signs: self.signs(),
        });
        drop(state);
        idle.into_iter().for_each(bury_connection);
        self.freed.notify_all();
    }

    fn has_sign(&self) {
        self.signs.fetch_add(1, Ordering::SeqCst);
    }

    fn signs(&self) -> u64 {
        self.signs.load(Ordering::SeqCst)
    }

    fn mark_up(&self) {
        let was_down = self.lock().down.take().is_some();
        if was_down {
            log::info!("the database is back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.idle.drain(..).for_each(bury_connection);
    }
}

impl Pooled<'_> {
    pub(super) fn client(&mut self) -> Option<&mut Client> {
        self.parts().map(|(client, _)| client)
    }

    /// The client and what it has prepared.
    pub(super) fn parts(&mut self) -> Option<(&mut Client, &mut Statements)> {
        let held = self.connection.as_mut()?;
        Some((&mut held.client, &mut held.statements))
    }

    /// Of the server to which it leads; 0 where it is gone or not known.
    pub(super) fn timeline(&self) -> u32 {
        self.connection.as_ref().map_or(0, |held| held.timeline)
    }

    /// Throws the connection away instead of giving it back.
    pub(super) fn discard(mut self) {
        if let Some(connection) = self.connection.take() {
            bury(connection.client);
            self.pool.lost();
        }
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        // After a panic the connection may be in the middle of anything.
        if connection.client.is_closed() || std::thread::panicking() {
            bury(connection.client);
            self.pool.lost();
            return;
        }
        self.pool.give_back(connection);
    }
}
