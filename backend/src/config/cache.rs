//! Rendered configurations, and whether they may be served unasked.
//!
//! A rendered configuration may be served without asking the database while
//! both hold:
//!
//! - the *lease*: the last successful round trip on the notification
//!   connection was started at most [`LEASE`] ago, so that every change
//!   committed before that was notified;
//! - no notification for the site came since its configuration was read.
//!
//! Otherwise the poll asks the database for the revision, and a configuration
//! of that revision is served as it is. A change is therefore seen by every
//! poll that comes [`LEASE`] after its commit, also while the notification
//! connection is cut: then there is no lease.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use av_proto::hash::ConfigHash;

use crate::store::config::Revision;
use crate::store::listen::Changed;
use crate::store::sites::TokenDigest;

/// How long a round trip vouches for the cache. Under the 100 ms after which
/// a poll must see a change.
pub(super) const LEASE: Duration = Duration::from_millis(75);

/// A site's rendered configuration.
#[derive(Debug)]
pub struct SiteConfig {
    /// Which one it is.
    pub revision: Revision,
    /// The site's name.
    pub name: String,
    /// Its hash.
    pub hash: ConfigHash,
    /// The body of the answer.
    pub body: Arc<[u8]>,
    /// The token was renewed, and whoever comes with it is to fetch another.
    /// It ends with time and no notification says so: each poll must ask the
    /// database.
    pub renew_token: bool,
}

/// The notifications seen before something was read from the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// The rendered configurations of the sites that poll.
pub(super) struct Cache {
    started: Instant,
    /// When the round trip of the lease was started, in nanoseconds after
    /// `started`; 0 where there is none.
    lease: AtomicU64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    generation: u64,
    by_token: HashMap<TokenDigest, Entry>,
}

struct Entry {
    config: Arc<SiteConfig>,
    /// No notification came since it was read.
    current: bool,
    /// Its hash stands in the database.
    stored: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            // A lease is never at 0.
            started: Instant::now() - Duration::from_nanos(1),
            lease: AtomicU64::new(0),
            entries: Mutex::new(Entries::default()),
        }
    }

    /// The generation to hand to [`Cache::keep`] or [`Cache::confirm`]; to be
    /// taken before the database is read.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.lock().generation)
    }

    /// The configuration of a token, where it may be served unasked.
    pub(super) fn leased(&self, token: &TokenDigest) -> Option<Arc<SiteConfig>> {
        if !self.has_lease(Instant::now()) {
            return None;
        }
        let entries = self.lock();
        let entry = entries.by_token.get(token)?;
        // What is not stored yet goes to the database once more.
        (entry.current && entry.stored).then(|| entry.config.clone())
    }

    /// The configuration of a token if it is of this revision, which was read
    /// from the database after `before` was taken; and whether its hash is
    /// stored.
    pub(super) fn confirm(
        &self,
        token: &TokenDigest,
        revision: Revision,
        before: Generation,
    ) -> Option<(Arc<SiteConfig>, bool)> {
        let mut entries = self.lock();
        let unchanged = entries.generation == before.0;
        let entry = entries.by_token.get_mut(token)?;
        if entry.config.revision != revision {
            return None;
        }
        entry.current |= unchanged && !entry.config.renew_token;
        Some((entry.config.clone(), entry.stored))
    }

    /// Keeps a configuration that was read after `before` was taken.
    pub(super) fn keep(
        &self,
        token: TokenDigest,
        config: Arc<SiteConfig>,
        stored: bool,
        before: Generation,
    ) {
        let mut entries = self.lock();
        let current = entries.generation == before.0 && !config.renew_token;
        if let Some(entry) = entries.by_token.get(&token) {
            // A slower reader must not put an older one back.
            let (kept, new) = (entry.config.revision, config.revision);
            if kept.site_id == new.site_id && kept.number > new.number {
                return;
            }
        }
        entries.by_token.insert(
            token,
            Entry {
                config,
                current,
                stored,
            },
        );
    }

    /// Notes that the hash of a revision stands in the database.
    pub(super) fn mark_stored(&self, token: &TokenDigest, revision: Revision) {
        if let Some(entry) = self.lock().by_token.get_mut(token) {
            if entry.config.revision == revision {
                entry.stored = true;
            }
        }
    }

    /// Forgets a token that the database does not know.
    pub(super) fn forget(&self, token: &TokenDigest) {
        self.lock().by_token.remove(token);
    }

    /// Takes notifications in. Must come before the lease that vouches for
    /// them is extended.
    pub(super) fn invalidate(&self, changes: &[Changed]) {
        if changes.is_empty() {
            return;
        }
        let mut entries = self.lock();
        entries.generation += 1;
        for entry in entries.by_token.values_mut() {
            let site = Changed::Site(entry.config.revision.site_id);
            if changes.contains(&site) || changes.contains(&Changed::All) {
                entry.current = false;
            }
        }
    }

    /// Ends every entry and the lease: notifications may have been missed.
    pub(super) fn clear(&self) {
        self.lease.store(0, Ordering::Release);
        let mut entries = self.lock();
        entries.generation += 1;
        entries.by_token.clear();
    }

    /// Extends the lease by a round trip that was started then.
    pub(super) fn extend_lease(&self, round_trip_started: Instant) {
        let at = round_trip_started.duration_since(self.started).as_nanos();
        self.lease
            .store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn has_lease(&self, now: Instant) -> bool {
        let lease = self.lease.load(Ordering::Acquire);
        let at = self.started + Duration::from_nanos(lease);
        lease > 0 && now.duration_since(at) < LEASE
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(site_id: i64, number: i64) -> Arc<SiteConfig> {
        Arc::new(SiteConfig {
            revision: Revision { site_id, number },
            name: "Paris".to_owned(),
            hash: ConfigHash::of_canonical("{}"),
            body: Arc::from(&b"{}"[..]),
            renew_token: false,
        })
    }

    fn token() -> TokenDigest {
        TokenDigest::of("abc")
    }

    /// A cache with a fresh lease and site 1's revision 5, stored.
    fn cache() -> Cache {
        let cache = Cache::new();
        let before = cache.generation();
        cache.keep(token(), config(1, 5), true, before);
        cache.extend_lease(Instant::now());
        cache
    }

    #[test]
    fn a_lease_lasts_so_long_and_no_longer() {
        let cache = cache();
        let now = Instant::now();
        cache.extend_lease(now);
        assert!(cache.has_lease(now));
        assert!(cache.has_lease(now + LEASE - Duration::from_millis(1)));
        assert!(!cache.has_lease(now + LEASE));
        cache.clear();
        assert!(!cache.has_lease(now));
    }

    #[test]
    fn without_a_lease_nothing_is_served_unasked() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.keep(token(), config(1, 5), true, before);
        assert!(cache.leased(&token()).is_none());
        // The database says it is still that revision.
        let revision = config(1, 5).revision;
        assert!(
            cache
                .confirm(&token(), revision, cache.generation())
                .is_some()
        );
    }

    #[test]
    fn a_notification_ends_the_entries_of_its_site_only() {
        let cache = cache();
        cache.invalidate(&[Changed::Site(2)]);
        assert!(cache.leased(&token()).is_some());
        cache.invalidate(&[Changed::Site(2), Changed::Site(1)]);
        assert!(cache.leased(&token()).is_none());
        assert!(
            cache
                .confirm(&token(), config(1, 5).revision, cache.generation())
                .is_some()
        );
        assert!(cache.leased(&token()).is_some());
        cache.invalidate(&[Changed::All]);
        assert!(cache.leased(&token()).is_none());
    }

    #[test]
    fn what_was_read_before_a_notification_is_not_served_unasked() {
        let cache = cache();
        let before = cache.generation();
        cache.invalidate(&[Changed::Site(1)]);
        cache.keep(token(), config(1, 6), true, before);
        assert!(cache.leased(&token()).is_none());
        // Nor does an older answer of the database make it current again.
        assert!(
            cache
                .confirm(&token(), config(1, 6).revision, before)
                .is_some()
        );
        assert!(cache.leased(&token()).is_none());
    }

    #[test]
    fn another_revision_is_not_confirmed_and_a_slow_reader_puts_nothing_back() {
        let cache = cache();
        let before = cache.generation();
        assert!(
            cache
                .confirm(&token(), config(1, 6).revision, before)
                .is_none()
        );
        cache.keep(token(), config(1, 7), true, before);
        cache.keep(token(), config(1, 6), true, before);
        assert!(
            cache
                .confirm(&token(), config(1, 7).revision, before)
                .is_some()
        );
        // A site that was made anew with the same token starts from 1.
        cache.keep(token(), config(9, 1), true, before);
        assert!(
            cache
                .confirm(&token(), config(9, 1).revision, before)
                .is_some()
        );
    }

    #[test]
    fn a_renewed_token_is_never_served_unasked() {
        let cache = Cache::new();
        let before = cache.generation();
        let renewed = Arc::new(SiteConfig {
            renew_token: true,
            ..Arc::into_inner(config(1, 5)).unwrap()
        });
        cache.keep(token(), renewed, true, before);
        cache.extend_lease(Instant::now());
        assert!(cache.leased(&token()).is_none());
        let revision = config(1, 5).revision;
        assert!(cache.confirm(&token(), revision, before).is_some());
        assert!(cache.leased(&token()).is_none());
    }

    #[test]
    fn a_hash_that_is_not_stored_is_not_served_unasked() {
        let cache = Cache::new();
        let before = cache.generation();
        cache.keep(token(), config(1, 5), false, before);
        cache.extend_lease(Instant::now());
        assert!(cache.leased(&token()).is_none());
        cache.mark_stored(&token(), config(1, 5).revision);
        assert!(cache.leased(&token()).is_some());
    }
}
