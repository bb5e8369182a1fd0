//! The thread that listens for changed configurations and keeps the lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Configs;
use crate::stop::Stop;
use crate::store::StoreError;
use crate::store::listen::Listener;

/// Between two round trips while polls arrive.
const ROUND_TRIP_EVERY: Duration = Duration::from_millis(40);
/// Polls arrive while the last one is not older than this.
const POLLS_ARRIVE: Duration = Duration::from_secs(1);
/// How soon the thread notices that polls arrive again, or that it must stop.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Between two signs of life of the connection while no polls arrive.
const IDLE_ROUND_TRIP_EVERY: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// When the last poll came.
pub(super) struct Polls {
    started: Instant,
    /// Milliseconds after `started`, plus one; 0 where none came.
    last: AtomicU64,
}

impl Polls {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    pub(super) fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(now + 1, Ordering::Relaxed);
    }

    fn arrive(&self) -> bool {
        match self.last.load(Ordering::Relaxed) {
            0 => false,
            last => self.started.elapsed() < Duration::from_millis(last) + POLLS_ARRIVE,
        }
    }
}

/// Listens until `stop`, connecting again as often as the connection is lost.
/// While it does not listen, every poll asks the database.
pub fn watch(configs: &Configs, stop: &Stop) {
    let mut wait = RECONNECT;
    while !stop.is_set() {
        let connected = configs.store.is_ready().then(|| configs.store.listen());
        match connected {
            // The supervisor says why the schema is not there yet.
            None => {}
            Some(Err(error)) => log::debug!("no notifications of changed configurations: {error}"),
            Some(Ok(mut listener)) => {
                log::info!("listening for changed configurations");
                // What changed while nobody listened is not known.
                configs.cache.clear();
                let connected_at = Instant::now();
                let ended = listen(configs, &mut listener, stop);
                configs.cache.clear();
                match ended {
                    Ok(()) => return,
                    Err(error) => log::warn!(
                        "notifications of changed configurations ended ({error}): until they are back, each poll asks the database"
                    ),
                }
                if connected_at.elapsed() > RECONNECT_MAX {
                    wait = RECONNECT;
                }
            }
        }
        stop.wait(wait);
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

fn listen(configs: &Configs, listener: &mut Listener, stop: &Stop) -> Result<(), StoreError> {
    let mut last_round_trip: Option<Instant> = None;
    while !stop.is_set() {
        let active = configs.polls.arrive();
        let due = active || last_round_trip.is_none_or(|at| at.elapsed() >= IDLE_ROUND_TRIP_EVERY);
        if due {
            let started = Instant::now();
            let changes = listener.round_trip()?;
            configs.cache.invalidate(&changes);
            configs.cache.extend_lease(started);
            last_round_trip = Some(started);
        }
        let wait = if active { ROUND_TRIP_EVERY } else { IDLE_WAIT };
        configs.cache.invalidate(&listener.wait(wait)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_arrive_only_after_one_came() {
        let polls = Polls::new();
        assert!(!polls.arrive());
        polls.note();
        assert!(polls.arrive());
    }
}
