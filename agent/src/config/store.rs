//! The configuration on disk.
//!
//! Three files: `config.json`, `config.json.bak` (the previous good one) and
//! `config.json.applied`, which says from which hash `config.json` was made.
//! The last one has the MD5 of the file's bytes too, so that a file edited by
//! hand is known for one: its hash then counts as unknown, and the next sync
//! brings it back to the backend's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use av_proto::config::{SiteConfig, SiteDocument};
use av_proto::hash::ConfigHash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::file::{self, FileError};
use super::{ActiveConfig, Identity};
use crate::durable::{keep_as, sibling, write_atomic};

/// The most that a configuration file is read of: far more than the largest
/// site needs.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// The files of the configuration.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    path: PathBuf,
    backup: PathBuf,
    applied: PathBuf,
}

/// A configuration that was loaded, and what happened on the way.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub active: ActiveConfig,
    /// Why it is the backup that serves, where it does.
    pub fallback: Option<String>,
}

/// Why no configuration can be loaded.
#[derive(Debug, thiserror::Error)]
#[error(
    "no usable configuration: {path}: {problem}; {backup}: {backup_problem}. Write a {path} \
     with at least site_name, site_token and backend_url"
)]
pub struct LoadError {
    path: String,
    problem: ReadError,
    backup: String,
    backup_problem: ReadError,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Content(#[from] FileError),
}

/// Content of `config.json.applied`.
#[derive(Debug, Serialize, Deserialize)]
struct Applied {
    config_hash: ConfigHash,
    file_md5: String,
    applied_at: Timestamp,
}

impl ConfigStore {
    /// The store whose main file is `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            backup: sibling(path, ".bak"),
            applied: sibling(path, ".applied"),
        }
    }

    /// Loads `config.json`, or the backup where that is missing or does not
    /// parse. A file that does not parse is set aside, and nothing is lost.
    ///
    /// # Errors
    /// [`LoadError`] when neither can serve.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let problem = match read(&self.path) {
            Ok((content, identity, site)) => {
                let applied = self.applied_from(&content);
                return Ok(Loaded {
                    active: active(identity, site, applied),
                    fallback: None,
                });
            }
            Err(problem) => problem,
        };
        match read(&self.backup) {
            Ok((_, identity, site)) => {
                let mut fallback = format!("{}: {problem}; the backup serves", self.path.display());
                if matches!(problem, ReadError::Content(_)) {
                    match self.set_aside() {
                        Ok(kept) => fallback += &format!(", the bad file is {}", kept.display()),
                        Err(error) => fallback += &format!(", the bad file stays: {error}"),
                    }
                }
                Ok(Loaded {
                    active: active(identity, site, None),
                    fallback: Some(fallback),
                })
            }
            Err(backup_problem) => Err(LoadError {
                path: self.path.display().to_string(),
                problem,
                backup: self.backup.display().to_string(),
                backup_problem,
            }),
        }
    }

    /// Moves a file that does not parse out of the way. One is kept: the
    /// newest, so that a fault that repeats cannot fill the disk.
    fn set_aside(&self) -> io::Result<PathBuf> {
        let kept = sibling(&self.path, ".broken");
        fs::rename(&self.path, &kept)?;
        Ok(kept)
    }

    /// The backend's hash of what is in `config.json` now; `None` where the
    /// file is missing, unreadable, edited by hand or never applied.
    #[must_use]
    pub fn stored_hash(&self) -> Option<ConfigHash> {
        let content = read_bounded(&self.path).ok()?;
        Some(self.applied_from(&content)?.config_hash)
    }

    fn applied_from(&self, content: &[u8]) -> Option<Applied> {
        let applied: Applied = serde_json::from_slice(&read_bounded(&self.applied).ok()?).ok()?;
        (applied.file_md5 == file_md5(content)).then_some(applied)
    }

    /// Saves what the backend sent: `config.json` atomically, its previous
    /// good content as the backup, and the hash beside it.
    ///
    /// A power cut between the files leaves a `config.json` of unknown hash,
    /// which the next sync writes again: never a wrong one.
    ///
    /// # Errors
    /// When a file cannot be written; the old `config.json` then stands.
    pub fn save(
        &self,
        identity: &Identity,
        document: &SiteDocument,
        applied_at: Timestamp,
    ) -> io::Result<()> {
        let content = file::render(identity, document)?;
        if read(&self.path).is_ok() {
            keep_as(&self.path, &self.backup)?;
        }
        write_atomic(&self.path, &content)?;
        let applied = Applied {
            config_hash: document.config_hash.clone(),
            file_md5: file_md5(&content),
            applied_at,
        };
        write_atomic(&self.applied, &serde_json::to_vec(&applied)?)
    }

    /// Saves the tokens of `identity` into `config.json` and into its backup,
    /// each atomically: whichever serves at the next start has them.
    ///
    /// # Errors
    /// When `config.json` cannot be read, or a file cannot be written. Each
    /// file then has the old tokens or the new ones.
    pub fn save_tokens(&self, identity: &Identity) -> io::Result<()> {
        let content = read_bounded(&self.path)?;
        let applied = self.applied_from(&content);
        let content = file::with_tokens(&content, identity)?;
        let backup = match read(&self.backup) {
            Ok((backup, whose, _)) if whose.backend_url == identity.backend_url => {
                file::with_tokens(&backup, identity)?
            }
            // There is none, or it is one of another backend.
            _ => content.clone(),
        };
        // The backup first: whenever the file has a new token, so has it.
        write_atomic(&self.backup, &backup)?;
        write_atomic(&self.path, &content)?;
        match applied {
            None => Ok(()),
            Some(applied) => {
                let applied = Applied {
                    file_md5: file_md5(&content),
                    ..applied
                };
                write_atomic(&self.applied, &serde_json::to_vec(&applied)?)
            }
        }
    }
}

fn active(identity: Identity, site: SiteConfig, applied: Option<Applied>) -> ActiveConfig {
    let (hash, applied_at) = match applied {
        Some(applied) => (Some(applied.config_hash), Some(applied.applied_at)),
        None => (None, None),
    };
    ActiveConfig {
        identity,
        site,
        hash,
        applied_at,
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Identity, SiteConfig), ReadError> {
    let content = read_bounded(path)?;
    let (identity, site) = file::parse(&content)?;
    Ok((content, identity, site))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > FILE_MAX_BYTES {
        return Err(io::Error::other(format!(
            "has {size} bytes, more than {FILE_MAX_BYTES}"
        )));
    }
    fs::read(path)
}

fn file_md5(content: &[u8]) -> String {
    format!("{:x}", md5::compute(content))
}

#[cfg(test)]
mod tests {
    use av_proto::secret::Secret;

    use super::*;

    const FIRST: &str = r#"{"site_name":"Paris","site_token":"t","api_url":"http://b/ingest"}"#;

    fn document(name: &str) -> SiteDocument {
        SiteDocument::parse(
            format!(
                r#"{{"config_hash":"0123456789abcdef0123456789abcdef","site_name":"{name}",
                    "timezone":"UTC","doubt_after_days":2,
                    "reporting":{{"ok_interval_s":300,"ko_interval_s":60}},
                    "devices":[{{"ip":"10.0.0.1","name":"P","driver":"ping","x":1.50}}]}}"#
            )
            .as_bytes(),
        )
        .unwrap()
    }

    fn store() -> (tempfile::TempDir, ConfigStore) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, FIRST).unwrap();
        (dir, ConfigStore::new(&path))
    }

    #[test]
    fn a_saved_configuration_is_known_by_its_hash_until_it_is_edited() {
        let (_dir, store) = store();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.active.hash, None);
        assert_eq!(store.stored_hash(), None);

        store
            .save(
                &loaded.active.identity,
                &document("Lyon"),
                Timestamp::UNIX_EPOCH,
            )
            .unwrap();
        let again = store.load().unwrap().active;
        assert_eq!(again.site.site_name, "Lyon");
        assert_eq!(again.identity, loaded.active.identity);
        assert_eq!(again.hash, Some(document("Lyon").config_hash));
        assert_eq!(again.applied_at, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(store.stored_hash(), again.hash);

        let mut content = fs::read_to_string(&store.path).unwrap();
        assert!(content.contains("1.50"), "numerals stay as sent: {content}");
        content = content.replace("10.0.0.1", "10.0.0.2");
        fs::write(&store.path, content).unwrap();
        assert_eq!(store.stored_hash(), None);
        assert_eq!(store.load().unwrap().active.hash, None);
    }

    #[test]
    fn a_file_that_does_not_parse_is_set_aside_and_the_backup_serves() {
        let (_dir, store) = store();
        let identity = store.load().unwrap().active.identity;
        store
            .save(&identity, &document("Lyon"), Timestamp::UNIX_EPOCH)
            .unwrap();
        fs::write(&store.path, "{\"site_name\": \"Ly").unwrap();

        let loaded = store.load().unwrap();
        assert_eq!(loaded.active.site.site_name, "Paris");
        let said = loaded.fallback.unwrap();
        assert!(said.contains("is not JSON"), "{said}");
        assert_eq!(
            fs::read(sibling(&store.path, ".broken")).unwrap(),
            b"{\"site_name\": \"Ly"
        );
        // The next start finds no main file and still has the backup.
        assert_eq!(store.load().unwrap().active.site.site_name, "Paris");
        // Saving over a missing file leaves the good backup alone.
        store
            .save(&identity, &document("Nice"), Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(store.load().unwrap().active.site.site_name, "Nice");
        assert_eq!(fs::read_to_string(&store.backup).unwrap(), FIRST);
    }

    #[test]
    fn a_bad_file_never_becomes_the_backup() {
        let (_dir, store) = store();
        let identity = store.load().unwrap().active.identity;
        store
            .save(&identity, &document("Lyon"), Timestamp::UNIX_EPOCH)
            .unwrap();
        fs::write(&store.path, "garbage").unwrap();
        store
            .save(&identity, &document("Nice"), Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(fs::read_to_string(&store.backup).unwrap(), FIRST);
    }

    #[test]
    fn new_tokens_stand_in_the_file_and_its_backup_and_are_no_edit_by_hand() {
        let (_dir, store) = store();
        let old = store.load().unwrap().active.identity;
        store
            .save(&old, &document("Lyon"), Timestamp::UNIX_EPOCH)
            .unwrap();
        let hash = store.stored_hash();
        assert!(hash.is_some());
        let new = Identity {
            site_token: Secret::new("new"),
            previous_token: Some(old.site_token.clone()),
            ..old
        };
        store.save_tokens(&new).unwrap();
        let loaded = store.load().unwrap().active;
        assert_eq!(loaded.identity, new);
        assert_eq!(loaded.site.site_name, "Lyon");
        assert_eq!(store.stored_hash(), hash);

        fs::write(&store.path, "{").unwrap();
        let loaded = store.load().unwrap().active;
        assert_eq!(loaded.identity, new);
        assert_eq!(loaded.site.site_name, "Paris", "the backup's own content");

        // A file that was edited stays one.
        store
            .save(&new, &document("Lyon"), Timestamp::UNIX_EPOCH)
            .unwrap();
        let content = fs::read_to_string(&store.path).unwrap();
        fs::write(&store.path, content.replace("10.0.0.1", "10.0.0.2")).unwrap();
        store.save_tokens(&new).unwrap();
        assert_eq!(store.stored_hash(), None);
    }

    #[test]
    fn a_backup_of_another_backend_is_replaced() {
        let (_dir, store) = store();
        let identity = store.load().unwrap().active.identity;
        fs::write(&store.backup, FIRST.replace("http://b/", "http://other/")).unwrap();
        store.save_tokens(&identity).unwrap();
        assert_eq!(
            fs::read(&store.backup).unwrap(),
            fs::read(&store.path).unwrap()
        );
    }

    #[test]
    fn nothing_usable_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let said = ConfigStore::new(&path).load().unwrap_err().to_string();
        assert!(said.contains("site_token and backend_url"), "{said}");
        fs::write(&path, "[]").unwrap();
        assert!(ConfigStore::new(&path).load().is_err());
        assert!(path.exists(), "without a backup the bad file stays");
    }

    #[test]
    fn every_truncation_of_the_file_leaves_a_whole_configuration() {
        let (_dir, store) = store();
        let identity = store.load().unwrap().active.identity;
        store
            .save(&identity, &document("Lyon"), Timestamp::UNIX_EPOCH)
            .unwrap();
        let content = fs::read(&store.path).unwrap();
        for length in 0..content.len() {
            fs::write(&store.path, &content[..length]).unwrap();
            let name = store.load().unwrap().active.site.site_name;
            // Without its last line feed the file still is whole.
            let whole = length + 1 == content.len();
            assert_eq!(name, if whole { "Lyon" } else { "Paris" }, "at {length}");
        }
    }
}
