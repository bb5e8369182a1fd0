//! Sites, their tokens and what their agents say of themselves.

use std::fmt;
use std::sync::LazyLock;
use std::time::SystemTime;

use jiff::Timestamp;
use postgres::types::Type;
use sha2::{Digest as _, Sha256};

use super::time::from_sql;
use super::tokens::TokenState;
use super::{Store, StoreError};

/// What the database keeps of a site's token: its SHA-256. Looking a site up
/// by the digest leaves nothing to learn from how long a comparison takes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenDigest(String);

impl TokenDigest {
    /// The digest of a token as an agent presents it.
    #[must_use]
    pub fn of(token: &str) -> Self {
        // Of each poll: a formatter takes as long as the digest.
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
        let digest = Sha256::digest(token.as_bytes());
        let mut text = String::with_capacity("sha256:".len() + 2 * digest.len());
        text.push_str("sha256:");
        for byte in digest {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        Self(text)
    }

    /// A digest as the database keeps it.
    pub(super) fn stored(text: String) -> Self {
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the database keeps it: the name of the digest, and its hex digits.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits alone, without the name of the digest.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(***)")
    }
}

/// A site, as far as a report needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// A line of `site list`.
#[derive(Debug, Clone)]
pub struct SiteSummary {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its time zone.
    pub timezone: String,
    /// How many devices are configured.
    pub devices: i64,
    /// The hash last computed.
    pub config_version: Option<String>,
    /// When its agent last reported.
    pub last_report_at: Option<Timestamp>,
}

impl Store {
    /// The site that this token opens, and how the token stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_by_token(
        &self,
        token: &TokenDigest,
    ) -> Result<Option<(Site, TokenState)>, StoreError> {
        static TEXT: LazyLock<String> = LazyLock::new(|| {
            format!(
                "SELECT s.id, s.name, {} FROM sites s {} WHERE s.id = av_site_of_token($1)",
                TokenState::SQL,
                TokenState::JOIN
            )
        });
        let row = self.row(&TEXT, &[&token.as_str()])?;
        Ok(row.map(|row| {
            let site = Site {
                id: row.get(0),
                name: row.get(1),
            };
            (site, TokenState::from_sql(row.get(2)))
        }))
    }

    /// Whether there is a site of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_exists(&self, name: &str) -> Result<bool, StoreError> {
        self.run(|client| {
            Ok(client
                .query_typed_opt("SELECT FROM sites WHERE name = $1", &[(&name, Type::TEXT)])?
                .is_some())
        })
    }

    /// The site of this name, or else with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_by_name_or_id(&self, text: &str) -> Result<Option<Site>, StoreError> {
        let id: Option<i64> = text.parse().ok();
        self.run(|client| {
            let row = client.query_typed_opt(
                "SELECT id, name FROM sites WHERE name = $1 OR id = $2
                  ORDER BY name = $1 DESC LIMIT 1",
                &[(&text, Type::TEXT), (&id, Type::INT8)],
            )?;
            Ok(row.map(|row| Site {
                id: row.get(0),
                name: row.get(1),
            }))
        })
    }

    /// Every site, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sites(&self) -> Result<Vec<SiteSummary>, StoreError> {
        self.run(|client| {
            let rows = client.query(
                "SELECT s.id, s.name, s.timezone, s.config_version, a.last_report_at,
                        (SELECT count(*) FROM devices d WHERE d.site_id = s.id)
                   FROM sites s LEFT JOIN site_agents a ON a.site_id = s.id
                  ORDER BY s.name",
                &[],
            )?;
            Ok(rows
                .iter()
                .map(|row| SiteSummary {
                    id: row.get(0),
                    name: row.get(1),
                    timezone: row.get(2),
                    config_version: row.get(3),
                    last_report_at: row.get::<_, Option<SystemTime>>(4).map(from_sql),
                    devices: row.get(5),
                })
                .collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_postgresql() {
        // SELECT 'sha256:' || encode(sha256(convert_to('abc', 'UTF8')), 'hex');
        let digest = TokenDigest::of("abc");
        assert_eq!(
            digest.as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(!format!("{digest:?}").contains("ba78"));
    }
}
