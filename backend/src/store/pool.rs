//! A small, bounded pool of connections that says at once when the database
//! is gone.
//!
//! The usual pools wait their whole time-out for a connection while the
//! database is down, and with them every worker of the HTTP server. Here one
//! caller at a time tries to connect to a database that is known to be down,
//! at most every [`RETRY_EVERY`], and everybody else is told.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::Client;

use super::connector::{Connector, Purpose};
use super::error::{StoreError, describe};

/// How long a database that is down is left alone between two tries.
const RETRY_EVERY: Duration = Duration::from_millis(300);
/// How long a caller waits for a connection while all are in use.
const CHECKOUT_LIMIT: Duration = Duration::from_secs(2);
/// A connection that lay idle longer is tried before it is used.
const TRUST_IDLE: Duration = Duration::from_secs(1);
/// How long such a try may take: longer, and the database hangs.
const TRY_LIMIT: Duration = Duration::from_millis(1500);

/// The pool.
pub(super) struct Pool {
    connector: Connector,
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    idle: Vec<Idle>,
    /// Connections that exist or are being made.
    total: usize,
    down: Option<Down>,
}

struct Idle {
    client: Client,
    since: Instant,
}

/// The database is known to be down.
struct Down {
    why: String,
    retry_at: Instant,
    /// Somebody is trying to connect just now.
    trying: bool,
}

/// A connection taken from the pool; it goes back when it is dropped.
pub(super) struct Pooled<'a> {
    pool: &'a Pool,
    client: Option<Client>,
    /// It was used before, so that its other end may be gone.
    pub(super) reused: bool,
}

/// Drops a connection that may still owe an answer. Its own end waits for
/// that answer, which a database that hangs never gives: a thread of its own
/// waits.
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

impl Pool {
    pub(super) fn new(connector: Connector, max: usize) -> Self {
        Self {
            connector,
            max,
            state: Mutex::new(State {
                idle: Vec::new(),
                total: 0,
                down: None,
            }),
            freed: Condvar::new(),
        }
    }

    /// Takes a connection, a fresh one where `fresh` is set.
    pub(super) fn take(&self, fresh: bool) -> Result<Pooled<'_>, StoreError> {
        let deadline = Instant::now() + CHECKOUT_LIMIT;
        loop {
            match self.next(fresh, deadline)? {
                Some(mut idle) => {
                    let works = idle.since.elapsed() < TRUST_IDLE
                        || idle.client.is_valid(TRY_LIMIT).is_ok();
                    // A connection that is closed says nothing of the
                    // database, which may have restarted; one that gives no
                    // answer says that it hangs.
                    if works && !idle.client.is_closed() {
                        return Ok(self.pooled(idle.client, true));
                    }
                    let hangs = !idle.client.is_closed();
                    bury(idle.client);
                    self.lost();
                    if hangs {
                        let why = "it does not answer".to_owned();
                        self.mark_down(why.clone());
                        return Err(StoreError::Unavailable(why));
                    }
                }
                None => {
                    return match self.connector.connect(Purpose::Requests) {
                        Ok(client) => {
                            self.mark_up();
                            Ok(self.pooled(client, false))
                        }
                        Err(error) => {
                            self.lost();
                            let why = describe(&error);
                            self.mark_down(why.clone());
                            Err(StoreError::Unavailable(why))
                        }
                    };
                }
            }
        }
    }

    /// An idle connection, or the right to make one.
    fn next(&self, fresh: bool, deadline: Instant) -> Result<Option<Idle>, StoreError> {
        let mut state = self.lock();
        loop {
            if let Some(down) = &mut state.down {
                if down.trying || Instant::now() < down.retry_at {
                    return Err(StoreError::Unavailable(down.why.clone()));
                }
                down.trying = true;
                state.total += 1;
                return Ok(None);
            }
            if fresh {
                // What lies idle is as old as the connection that just failed.
                state.total -= state.idle.len();
                state.idle.clear();
            } else if let Some(idle) = state.idle.pop() {
                return Ok(Some(idle));
            }
            if state.total < self.max {
                state.total += 1;
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

    fn pooled(&self, client: Client, reused: bool) -> Pooled<'_> {
        Pooled {
            pool: self,
            client: Some(client),
            reused,
        }
    }

    fn lost(&self) {
        let mut state = self.lock();
        state.total = state.total.saturating_sub(1);
        drop(state);
        self.freed.notify_one();
    }

    /// Notes that the database is down, and wakes those who wait for a
    /// connection: they are told so.
    pub(super) fn mark_down(&self, why: String) {
        let mut state = self.lock();
        if state.down.is_none() {
            log::warn!("the database is not available: {why}");
        }
        let idle = std::mem::take(&mut state.idle);
        state.total -= idle.len();
        state.down = Some(Down {
            why,
            retry_at: Instant::now() + RETRY_EVERY,
            trying: false,
        });
        drop(state);
        drop(idle);
        self.freed.notify_all();
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

impl Pooled<'_> {
    pub(super) fn client(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// Throws the connection away instead of giving it back.
    pub(super) fn discard(mut self) {
        if self.client.take().is_some() {
            self.pool.lost();
        }
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        // After a panic the connection may be in the middle of anything.
        if client.is_closed() || std::thread::panicking() {
            drop(client);
            self.pool.lost();
            return;
        }
        self.pool.lock().idle.push(Idle {
            client,
            since: Instant::now(),
        });
        self.pool.freed.notify_one();
    }
}
