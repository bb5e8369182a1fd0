//! Tokens that were right, so that the head of a request tells whose it is.
//!
//! What is remembered here grants no access: each request is authorized as if it
//! were the first. It decides in which queue a request waits.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use crate::store::StoreError;
use crate::store::sites::TokenDigest;
use crate::store::{KnownTokens, Store};

/// The most tokens that are remembered between two loads.
const MORE_MAX: usize = 20_000;

/// Tokens that were right.
#[derive(Default)]
pub(crate) struct Known(RwLock<Sets>);

#[derive(Default)]
struct Sets {
    agents: HashSet<TokenDigest>,
    /// Sessions and personal API tokens.
    people: HashSet<TokenDigest>,
    /// Those that came since they were loaded.
    more: usize,
}

impl Known {
    /// Whether a site's agent has this token.
    pub(crate) fn is_agent(&self, token: &TokenDigest) -> bool {
        self.read(|sets| sets.agents.contains(token))
    }

    /// Whether somebody who is logged in has this token or session.
    pub(crate) fn is_person(&self, token: &TokenDigest) -> bool {
        self.read(|sets| sets.people.contains(token))
    }

    /// A site's agent has this token.
    pub(crate) fn add_agent(&self, token: &TokenDigest) {
        if !self.is_agent(token) {
            self.add(token, |sets| &mut sets.agents);
        }
    }

    /// Somebody who is logged in has this token or session.
    pub(crate) fn add_person(&self, token: &TokenDigest) {
        if !self.is_person(token) {
            self.add(token, |sets| &mut sets.people);
        }
    }

    /// Reads all of them from the database, and forgets those that ended.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn load(&self, store: &Store) -> Result<(), StoreError> {
        let KnownTokens { agents, people } = store.known_tokens()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Sets {
            agents: agents.into_iter().collect(),
            people: people.into_iter().collect(),
            more: 0,
        };
        Ok(())
    }

    fn read(&self, look: impl FnOnce(&Sets) -> bool) -> bool {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, token: &TokenDigest, to: impl FnOnce(&mut Sets) -> &mut HashSet<TokenDigest>) {
        let mut sets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if sets.more < MORE_MAX {
            sets.more += 1;
            to(&mut sets).insert(token.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_remembered_by_whose_they_are() {
        let known = Known::default();
        let (agent, person) = (TokenDigest::of("a"), TokenDigest::of("p"));
        known.add_agent(&agent);
        known.add_person(&person);
        assert!(known.is_agent(&agent) && !known.is_agent(&person));
        assert!(known.is_person(&person) && !known.is_person(&agent));
        for number in 0..MORE_MAX + 10 {
            known.add_person(&TokenDigest::of(&number.to_string()));
        }
        assert!(!known.is_person(&TokenDigest::of(&(MORE_MAX + 9).to_string())));
        assert!(known.is_agent(&agent));
    }
}
