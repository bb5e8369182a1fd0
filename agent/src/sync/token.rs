//! A new token, taken over without a visit to the rack.
//!
//! The backend asks for it with a header in its answers to polls. The agent
//! then fetches a token of its own with the one that it has, saves both, and
//! polls with the new one. The backend ends the old one at the first use of
//! the new one; until then both work. A power cut at any point leaves a
//! configuration file, and a backup, with a token that opens:
//!
//! - before the new token is saved, the old one still opens: the next poll
//!   fetches another;
//! - once it is saved, the new one opens, and the old one stands beside it;
//! - the old one is forgotten after the backend was seen to know the new one.

use av_proto::secret::Secret;
use serde::Deserialize;

use super::Sync;
use super::pull::{OpenedBy, Poll, pull};
use crate::config::{ActiveConfig, Identity};
use crate::http_client::error_of;

/// The answer is a token and a time.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
/// The most characters of a token.
const TOKEN_MAX: usize = 512;

/// Whether a text that a backend gave can be a token.
#[must_use]
pub fn is_token(text: &Secret) -> bool {
    let text = text.expose();
    !text.is_empty() && text.len() <= TOKEN_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Sync {
    /// Forgets the token that is of no more use, where two stand side by side
    /// and the backend was seen to know one.
    pub(super) fn settle_token(&self, opened_by: OpenedBy) {
        let identity = &self.handle.load().identity;
        let Some(previous) = &identity.previous_token else {
            return;
        };
        let site_token = match opened_by {
            OpenedBy::Current => {
                log::info!("🔑 The new token works, the old one is forgotten");
                identity.site_token.clone()
            }
            OpenedBy::Previous => {
                log::warn!("🔑 The backend does not know the new token: back to the one before");
                previous.clone()
            }
        };
        let settled = Identity {
            site_token,
            previous_token: None,
            backend_url: identity.backend_url.clone(),
        };
        self.save_tokens(&settled);
        self.swap_identity(settled);
    }

    /// Fetches a new token, saves it beside the old one, and polls with it.
    pub(super) fn renew_token(&self) {
        let old = self.handle.load().identity.clone();
        log::info!("🔑 The backend asks for a new token");
        let new = match self.fetch_token(&old) {
            Ok(token) => Identity {
                site_token: token,
                previous_token: Some(old.site_token),
                backend_url: old.backend_url,
            },
            Err(problem) => {
                log::warn!("🔑 No new token: {problem}; the next poll tries again");
                return;
            }
        };
        // A token that is not safe on disk must not be used: its first use
        // ends the old one.
        if !self.save_tokens(&new) {
            return;
        }
        self.swap_identity(new.clone());
        match pull(&self.source, &new, self.store.stored_hash().as_ref()) {
            // Whatever it brought, the next poll brings again.
            Ok(Poll { opened_by, .. }) => self.settle_token(opened_by),
            Err(error) => {
                log::warn!("🔑 The new token is saved and not used yet: {error}");
            }
        }
    }

    fn fetch_token(&self, identity: &Identity) -> Result<Secret, String> {
        #[derive(Deserialize)]
        struct Fetched {
            site_token: Secret,
        }
        let answer = self
            .client
            .post_json(
                &identity.backend_url.token_renewal(),
                &identity.site_token,
                b"{}",
                ANSWER_MAX_BYTES,
            )
            .map_err(|error| format!("backend not reachable: {error}"))?;
        if answer.status != 200 {
            let said = error_of(&answer.body).map_or_else(String::new, |said| format!(": {said}"));
            return Err(format!("the backend answered {}{said}", answer.status));
        }
        // The error would quote the body.
        let fetched: Fetched = serde_json::from_slice(&answer.body)
            .map_err(|_| "the answer has no site_token".to_owned())?;
        if !is_token(&fetched.site_token) {
            return Err("the answer's site_token is not a token".to_owned());
        }
        Ok(fetched.site_token)
    }

    fn save_tokens(&self, identity: &Identity) -> bool {
        match self.store.save_tokens(identity) {
            Ok(()) => true,
            Err(error) => {
                log::error!("❌ The token could not be saved: {error}");
                false
            }
        }
    }

    fn swap_identity(&self, identity: Identity) {
        let active = ActiveConfig {
            identity,
            ..ActiveConfig::clone(&self.handle.load())
        };
        self.handle.store(active.into());
    }
}
