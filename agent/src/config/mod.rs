//! The configuration: its file, its last known good, and the handle through
//! which every thread reads it.

mod backend_url;
mod file;
mod store;

use std::sync::Arc;

use arc_swap::ArcSwap;
use av_proto::config::SiteConfig;
use av_proto::hash::ConfigHash;
use av_proto::secret::Secret;
use jiff::Timestamp;

pub use backend_url::{BackendUrl, BackendUrlError};
pub use file::{FileError, parse, parse_site};
pub use store::{ConfigStore, LoadError, Loaded};

/// What the agent runs: who it is and what it watches.
#[derive(Debug, Clone)]
pub struct ActiveConfig {
    /// Who the agent is to which backend.
    pub identity: Identity,
    /// What it watches, valid.
    pub site: SiteConfig,
    /// The backend's hash of it; `None` where the file was never applied from
    /// a backend or was edited since.
    pub hash: Option<ConfigHash>,
    /// When it was applied.
    pub applied_at: Option<Timestamp>,
}

/// Who the agent is, and to whom: the part of the configuration that the
/// backend never replaces. A new token is fetched, where the backend asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The site's token.
    pub site_token: Secret,
    /// The token before it, until the backend was seen to know the new one.
    pub previous_token: Option<Secret>,
    /// The backend.
    pub backend_url: BackendUrl,
}

/// The one handle of the running configuration. Readers never block; only
/// `sync` stores.
pub type ConfigHandle = Arc<ArcSwap<ActiveConfig>>;
