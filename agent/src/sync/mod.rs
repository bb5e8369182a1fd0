//! The `sync` thread: pull, compare, validate, save, swap. It also takes a new
//! token over, where the backend asks for that.

mod pull;
mod state;
mod token;

use std::time::{Duration, Instant};

use av_proto::config::{SiteConfig, SiteDocument};
use av_proto::text::excerpt;
use av_service::progress;
use crossbeam_channel::{Receiver, Sender, select};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::config::{ActiveConfig, ConfigHandle, ConfigStore, Identity};
use crate::config_source::ConfigSource;
use crate::http_client::HttpClient;
use crate::snapshot::Snapshots;
use crate::supervisor::Stop;

pub use pull::PullError;
use pull::{Poll, Pulled, pull};
pub use state::SyncState;
pub use token::is_token;

/// The `sync` thread's parts.
#[derive(Debug)]
pub struct Sync {
    /// The configuration on disk.
    pub store: ConfigStore,
    /// The running configuration.
    pub handle: ConfigHandle,
    /// Where its state is shown.
    pub snapshots: Snapshots,
    /// The way to the backend.
    pub client: HttpClient,
    /// The same, for configurations.
    pub source: ConfigSource,
    /// The time.
    pub clock: Clock,
    /// Time until the first poll.
    pub first_sync: Duration,
    /// Time between polls.
    pub interval: Duration,
    /// The interval as it was given, in minutes, for the log.
    pub interval_min: f64,
    /// Asks for a poll at once.
    pub sync_now: Receiver<()>,
    /// Tells the collector that the handle holds a new configuration.
    pub config_changed: Sender<()>,
    /// The stop signal.
    pub stop: Stop,
}

impl Sync {
    /// Polls until the stop signal.
    pub fn run(&mut self) {
        log::info!(
            "🚀 Config sync loop started (interval: {} min)",
            self.interval_min
        );
        let mut next = Instant::now() + self.first_sync;
        loop {
            progress::waits();
            select! {
                recv(self.stop) -> _ => return,
                recv(self.sync_now) -> asked => if asked.is_err() { return },
                default(next.saturating_duration_since(Instant::now())) => {}
            }
            progress::moves();
            self.poll();
            next = Instant::now() + self.interval;
        }
    }

    /// One poll, with its outcome logged and shown.
    fn poll(&self) {
        let active = self.handle.load_full();
        log::info!(
            "🔄 Fetching config from {}",
            active.identity.backend_url.config_shown()
        );
        let mut state = SyncState::clone(&self.snapshots.sync.load());
        // The file's hash, and not the running one's: a file edited by hand
        // must be brought back to the backend's.
        let stored = self.store.stored_hash();
        let outcome = pull(&self.source, &active.identity, stored.as_ref());
        if let Ok(poll) = &outcome {
            self.clock.heard(poll.date);
        }
        state.polled(self.clock.now());
        match outcome {
            Ok(poll) => self.take(poll, &mut state),
            Err(error) => {
                log::warn!("❌ Config sync failed: {error}; going on with the local configuration");
                state.failed(&error);
            }
        }
        self.snapshots.sync.store(state.into());
    }

    /// Takes what a poll brought.
    fn take(&self, poll: Poll, state: &mut SyncState) {
        self.settle_token(poll.opened_by);
        match poll.pulled {
            Pulled::Unchanged(hash) => {
                log::info!("✅ Config is up-to-date (hash: {})", hash.short());
                state.succeeded(hash);
            }
            Pulled::Document(document) => {
                self.apply(&self.handle.load_full(), &document, state);
            }
        }
        // After the configuration: what is saved is the newest.
        if poll.renew_token {
            self.renew_token();
        }
    }

    /// Applies a configuration that was received whole and differs from the
    /// stored one.
    fn apply(&self, active: &ActiveConfig, document: &SiteDocument, state: &mut SyncState) {
        state.backend_hash = Some(document.config_hash.clone());
        let site = match check(document) {
            Ok(site) => site,
            Err(error) => {
                log::error!("❌ Config refused: {error}; going on with the local configuration");
                state.failed(&error);
                return;
            }
        };
        if active.hash.as_ref() == Some(&document.config_hash) {
            self.save_again(active, document, state);
            return;
        }
        log::info!("📥 Config changed! Updating from backend...");
        log::info!(
            "   Old hash: {}",
            active
                .hash
                .as_ref()
                .map_or_else(|| "none".to_owned(), |hash| hash.short())
        );
        log::info!("   New hash: {}", document.config_hash.short());
        for warning in &site.warnings {
            log::warn!("⚠️ Config: {}", shown(warning));
        }
        for device in &site.devices {
            for unknown in &device.unknown {
                log::warn!(
                    "⚠️ Device {}: {}",
                    device.ip_text,
                    excerpt(&unknown.to_string(), 300)
                );
            }
        }
        for rejected in &site.rejected {
            for error in &rejected.errors {
                log::warn!(
                    "⚠️ Device {} is not watched: {}",
                    rejected.index,
                    shown(error)
                );
            }
        }

        let now = self.clock.now();
        let saved = self.store.save(&active.identity, document, now);
        let devices = site.devices.len();
        self.swap(active.identity.clone(), site, document, now);
        match saved {
            Ok(()) => {
                log::info!("✅ Config updated successfully! {devices} devices configured.");
                state.applied(document.config_hash.clone(), now);
            }
            Err(error) => {
                // What the backend wants is watched all the same; the next
                // poll tries to save it again.
                log::error!("❌ Config applied but not saved: {error}");
                state.applied(document.config_hash.clone(), now);
                state.failed(&PullError::NotSaved(error.to_string()));
            }
        }
        log::info!("📢 Config updated, collector will reload on next cycle");
    }

    /// The configuration runs already, and is not what is on disk: the file was
    /// edited, or the disk did not take it.
    fn save_again(&self, active: &ActiveConfig, document: &SiteDocument, state: &mut SyncState) {
        let applied_at = active.applied_at.unwrap_or_else(|| self.clock.now());
        let before = state.save_error.take();
        state.succeeded(document.config_hash.clone());
        match self.store.save(&active.identity, document, applied_at) {
            Ok(()) => log::info!("✅ The running configuration is saved again"),
            Err(error) => {
                state.failed(&PullError::NotSaved(error.to_string()));
                if before != state.save_error {
                    log::error!("❌ Config runs but is not saved: {error}");
                }
            }
        }
    }

    fn swap(&self, identity: Identity, site: SiteConfig, document: &SiteDocument, now: Timestamp) {
        self.handle.store(
            ActiveConfig {
                identity,
                site,
                hash: Some(document.config_hash.clone()),
                applied_at: Some(now),
            }
            .into(),
        );
        // A full channel holds a notice that the collector has not taken yet:
        // it will find the newest configuration.
        let _ = self.config_changed.try_send(());
    }
}

/// Whether a received configuration can be run at all.
fn check(document: &SiteDocument) -> Result<SiteConfig, PullError> {
    document
        .verify_hash()
        .map_err(|error| PullError::Refused(error.to_string()))?;
    SiteConfig::validate(&document.parts(), &document.devices).map_err(|errors| {
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        PullError::Refused(said.join("; "))
    })
}

fn shown(error: &av_proto::FieldError) -> String {
    excerpt(&error.to_string(), 300)
}
