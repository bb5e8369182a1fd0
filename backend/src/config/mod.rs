//! `GET /config/{site_token}`: the configuration, its hash, and a cache that
//! never shows a change late (`contract.md`, "GET /config" and "The hash").

mod cache;
mod render;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use av_proto::text::one_line;

pub use cache::SiteConfig;
pub use render::{RenderError, Rendered, hash, render};
pub use watch::watch;

use crate::store::sites::TokenDigest;
use crate::store::tokens::TokenState;
use crate::store::{Store, StoreError};
use cache::Cache;
use watch::Polls;

/// Why there is no configuration to answer with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No site has this token.
    #[error("no site has this token")]
    UnknownToken,
    /// The database did not say.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it said cannot be sent.
    #[error(transparent)]
    Render(#[from] RenderError),
}

/// The configurations of all sites.
pub struct Configs {
    store: Arc<Store>,
    cache: Cache,
    polls: Polls,
    hits: AtomicU64,
    revalidations: AtomicU64,
    misses: AtomicU64,
}

/// How polls were answered, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheCounts {
    /// Without asking the database.
    pub hits: u64,
    /// After asking the database for the revision.
    pub revalidations: u64,
    /// By reading the whole configuration.
    pub misses: u64,
}

impl Configs {
    /// The configurations in this store. They are cached while [`watch`] runs.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            cache: Cache::new(),
            polls: Polls::new(),
            hits: AtomicU64::new(0),
            revalidations: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The configuration of the site with this token, as it stands in the
    /// database now or stood there less than 100 ms ago.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn get(&self, token: &str) -> Result<Arc<SiteConfig>, ConfigError> {
        let token = TokenDigest::of(token);
        self.polls.note();
        let config = match self.cache.leased(&token) {
            Some(config) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                config
            }
            None => self.ask(token)?,
        };
        say_polled(&config);
        Ok(config)
    }

    /// Notes a poll that was answered with what [`Configs::leased`] gave.
    pub(crate) fn note_hit(&self, config: &SiteConfig) {
        self.polls.note();
        self.hits.fetch_add(1, Ordering::Relaxed);
        say_polled(config);
    }

    /// The configuration of a token that may be served without asking the
    /// database; nothing is counted and nothing noted.
    pub(crate) fn leased(&self, token: &TokenDigest) -> Option<Arc<SiteConfig>> {
        self.cache.leased(token)
    }

    /// How polls were answered.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            revalidations: self.revalidations.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn ask(&self, token: TokenDigest) -> Result<Arc<SiteConfig>, ConfigError> {
        let before = self.cache.generation();
        let Some((revision, state)) = self.store.config_revision(&token)? else {
            self.cache.forget(&token);
            return Err(ConfigError::UnknownToken);
        };
        // Until its first use is noted, each poll of this token asks again.
        let noted = state != TokenState::Fetched || self.note_token_used(&token);
        let renew_token = state == TokenState::Renewed;
        let kept = self.cache.confirm(&token, revision, before);
        if let Some((config, stored)) = kept.filter(|(kept, _)| kept.renew_token == renew_token) {
            self.revalidations.fetch_add(1, Ordering::Relaxed);
            if !stored && noted && self.store_version(&config) {
                self.cache.mark_stored(&token, config.revision);
            }
            return Ok(config);
        }

        self.misses.fetch_add(1, Ordering::Relaxed);
        let Some(snapshot) = self.store.config_snapshot(&token)? else {
            self.cache.forget(&token);
            return Err(ConfigError::UnknownToken);
        };
        let Rendered { hash, body } = render(&snapshot)?;
        let stored = snapshot.stored_version.as_deref() == Some(hash.as_str());
        let config = Arc::new(SiteConfig {
            revision: snapshot.revision,
            name: snapshot.name,
            hash,
            body: body.into(),
            renew_token,
        });
        let stored = stored || self.store_version(&config);
        // Where the site changed in between, the token may have, too.
        let noted = noted && config.revision == revision;
        self.cache
            .keep(token, config.clone(), stored && noted, before);
        Ok(config)
    }

    /// Notes that an agent uses the token that it fetched; where that fails
    /// the one before lives on, and the next poll tries again.
    fn note_token_used(&self, token: &TokenDigest) -> bool {
        match self.store.note_token_used(token) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("the first use of a new token was not noted: {error}");
                false
            }
        }
    }

    /// Stores the hash; the agent gets its answer even where that fails, and
    /// a later poll tries again.
    fn store_version(&self, config: &SiteConfig) -> bool {
        match self
            .store
            .store_config_version(config.revision, config.hash.as_str())
        {
            Ok(stored) => stored,
            Err(error) => {
                log::warn!(
                    "the configuration hash of site {} was not stored: {error}",
                    one_line(&config.name)
                );
                false
            }
        }
    }
}
fn say_polled(config: &SiteConfig) {
    log::info!(
        "✅ Config sync endpoint called by site {} (hash: {})",
        one_line(&config.name),
        config.hash.short()
    );
}
