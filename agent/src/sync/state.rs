//! The sync state that the status page shows (`contract.md`, "Sync state
//! shown by the agent").

use av_proto::hash::ConfigHash;
use av_proto::text::excerpt;
use jiff::Timestamp;
use serde::Serialize;

use super::PullError;

/// How the last poll went and what is running.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SyncState {
    /// When the backend was last polled.
    pub last_sync_at: Option<Timestamp>,
    /// Whether that worked.
    pub last_sync_ok: Option<bool>,
    /// Why it did not.
    pub last_sync_error: Option<String>,
    /// The hash of the running configuration.
    pub current_hash: Option<ConfigHash>,
    /// The hash that the backend last gave.
    pub backend_hash: Option<ConfigHash>,
    /// When the running configuration was applied.
    pub config_updated_at: Option<Timestamp>,
    /// When a poll last worked.
    pub last_success_at: Option<Timestamp>,
    /// Why the backend's configuration was refused, where it was.
    pub refused: Option<String>,
    /// Why the running configuration is not on disk, where it is not.
    pub save_error: Option<String>,
}

impl SyncState {
    pub(super) fn polled(&mut self, now: Timestamp) {
        self.last_sync_at = Some(now);
    }

    /// The backend has what runs here.
    pub(super) fn succeeded(&mut self, hash: ConfigHash) {
        self.last_sync_ok = Some(true);
        self.last_sync_error = None;
        self.last_success_at = self.last_sync_at;
        self.current_hash = Some(hash.clone());
        self.backend_hash = Some(hash);
        self.refused = None;
        self.save_error = None;
    }

    /// A new configuration runs.
    pub(super) fn applied(&mut self, hash: ConfigHash, now: Timestamp) {
        self.succeeded(hash);
        self.config_updated_at = Some(now);
    }

    /// The poll did not lead to the backend's configuration running.
    pub(super) fn failed(&mut self, error: &PullError) {
        let text = excerpt(&error.to_string(), 500);
        self.last_sync_ok = Some(false);
        match error {
            PullError::Refused(_) => self.refused = Some(text.clone()),
            PullError::NotSaved(error) => self.save_error = Some(excerpt(error, 300)),
            _ => {}
        }
        self.last_sync_error = Some(text);
    }
}
