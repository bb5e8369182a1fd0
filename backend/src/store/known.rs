//! The digests of every token that opens something.

use super::sites::TokenDigest;
use super::{Store, StoreError};

/// The digests of every token that opens something now.
#[derive(Debug)]
pub struct KnownTokens {
    /// Those of sites.
    pub agents: Vec<TokenDigest>,
    /// Sessions and personal API tokens.
    pub people: Vec<TokenDigest>,
}

impl Store {
    /// The digests of every token that opens something now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn known_tokens(&self) -> Result<KnownTokens, StoreError> {
        let rows = self.attempt(|client, statements| {
            let statement = statements.get(
                client,
                "SELECT digest, TRUE FROM site_tokens
                     WHERE valid_until IS NULL OR valid_until > now()
                 UNION ALL SELECT digest, FALSE FROM sessions WHERE expires_at > now()
                 UNION ALL SELECT digest, FALSE FROM api_tokens
                     WHERE expires_at IS NULL OR expires_at > now()",
            )?;
            Ok(client.query(&statement, &[])?)
        })?;
        let mut known = KnownTokens {
            agents: Vec::new(),
            people: Vec::new(),
        };
        for row in rows {
            let digest = TokenDigest::stored(row.get(0));
            match row.get(1) {
                true => known.agents.push(digest),
                false => known.people.push(digest),
            }
        }
        Ok(known)
    }
}
