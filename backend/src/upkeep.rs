//! What nobody asks for and must happen all the same: agents that fall silent
//! become alerts, days become availability, old months are dropped.

use std::time::Duration;

use crate::notify;
use crate::stop::Stop;
use crate::store::{Store, StoreError};

/// How often and how much.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two looks at silent agents and ended maintenance.
    pub alerts_every: Duration,
    /// Between two looks at finished days and old months.
    pub history_every: Duration,
    /// So many whole months of history are kept beside the current one.
    pub history_months: i32,
    /// How people are told.
    pub notify: notify::Settings,
}

/// Looks after the alerts that no report opens or closes, until `stop` is set.
pub fn alerts(store: &Store, settings: &Settings, stop: &Stop) {
    let mut complaint = Complaint::default();
    while !stop.wait(settings.alerts_every) {
        if !store.is_ready() {
            continue;
        }
        match store.alert_round() {
            Ok(round) => {
                complaint.over();
                store.note_round();
                if let Some(round) = round.filter(|round| *round != Default::default()) {
                    log::info!(
                        "alerts: {} agent(s) silent, {} heard again, {} fault(s) that outlast maintenance",
                        round.silent,
                        round.heard_again,
                        round.standing
                    );
                }
            }
            Err(error) => complaint.say("the alerts are not looked after", &error),
        }
        // What it says of the disk is said once by the store.
        if let Err(error) = store.try_to_write() {
            log::debug!("a write is not taken: {error}");
        }
    }
}

/// Computes finished days, drops old months and forgets old messages, until
/// `stop` is set.
pub fn history(store: &Store, settings: &Settings, stop: &Stop) {
    let mut complaint = Complaint::default();
    loop {
        if store.is_ready() {
            match history_round(store, settings, stop) {
                Ok(()) => complaint.over(),
                Err(error) => complaint.say("the history is not looked after", &error),
            }
        }
        let wait = if store.is_ready() {
            settings.history_every
        } else {
            settings.history_every.min(Duration::from_secs(1))
        };
        if stop.wait(wait) {
            return;
        }
    }
}

fn history_round(store: &Store, settings: &Settings, stop: &Stop) -> Result<(), StoreError> {
    let mut computed = 0;
    while !stop.is_set() {
        let days = store.compute_days(|| stop.is_set())?;
        computed += days;
        if days == 0 {
            break;
        }
    }
    if computed > 0 {
        log::info!("computed the availability of {computed} day(s)");
    }
    for month in store.drop_old_months(settings.history_months)? {
        log::info!("dropped the history of {month}");
    }
    store.forget_old_messages()?;
    Ok(())
}

/// Says an error once while it lasts. A database that is not available is said
/// by the pool of connections.
#[derive(Default)]
pub(crate) struct Complaint(String);

impl Complaint {
    pub(crate) fn say(&mut self, what: &str, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_)) {
            return;
        }
        let error = error.to_string();
        if error != self.0 {
            log::warn!("{what}: {error}");
            self.0 = error;
        }
    }

    pub(crate) fn over(&mut self) {
        self.0.clear();
    }
}
