//! Passwords: argon2id (RFC 9106), and what one must be like.

use std::sync::OnceLock;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use av_proto::FieldError;

use crate::answer::Answer;
use crate::turns::{self, Turns};

/// The least number of characters of a password.
pub const LEAST_CHARS: usize = 10;
/// The most bytes of a password; more is only work for the server.
const MOST_BYTES: usize = 512;
/// Passwords that are hashed at a time: each takes 19 MiB and a processor.
const AT_A_TIME: usize = 2;
/// The most that wait for that: of the workers for strangers, a quarter of all,
/// some are left to other requests.
const WAITING_MAX: usize = 3;
/// How long one waits.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// No password could be hashed.
#[derive(Debug, thiserror::Error)]
#[error("a password could not be hashed: {0}")]
pub struct HashError(String);

/// Hashes a password with a fresh salt, as a PHC string.
///
/// # Errors
/// [`HashError`] where there is no memory or no random number.
pub fn hash(password: &str) -> Result<String, HashError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash: PasswordHash| hash.to_string())
        .map_err(|error| HashError(error.to_string()))
}

/// Says what is wrong with a password that somebody chooses.
///
/// # Errors
/// The field `password`.
pub fn check(name: &str, password: &str) -> Result<(), FieldError> {
    let problem = if password.chars().count() < LEAST_CHARS {
        format!("has less than {LEAST_CHARS} characters")
    } else if password.len() > MOST_BYTES {
        format!("has more than {MOST_BYTES} bytes")
    } else if password.to_lowercase() == name.to_lowercase() {
        "is the user's name".to_owned()
    } else {
        return Ok(());
    };
    Err(FieldError::new("password", problem))
}

/// Hashes and verifies passwords, a few at a time: who tries many holds few
/// threads and little memory.
pub(super) struct Passwords {
    turns: Turns,
    /// The hash of no password, for users who do not exist.
    nobody: OnceLock<String>,
}

/// The right to hash one password.
pub(super) struct Turn<'a> {
    passwords: &'a Passwords,
    _turn: turns::Turn<'a>,
}

/// Too many passwords wait for their turn.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many passwords are looked at just now; try again in {} s",
    Busy::RETRY_AFTER_S
)]
pub(super) struct Busy;

impl Busy {
    /// When to try again.
    pub(super) const RETRY_AFTER_S: u32 = 2;
}

impl From<Busy> for Answer {
    fn from(busy: Busy) -> Self {
        Self::error(503, &busy.to_string()).with("Retry-After", Busy::RETRY_AFTER_S.to_string())
    }
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            turns: Turns::new(AT_A_TIME, WAITING_MAX, TURN_LIMIT),
            nobody: OnceLock::new(),
        }
    }

    /// Waits for a turn, where not too many wait already.
    pub(super) fn turn(&self) -> Result<Turn<'_>, Busy> {
        let turn = self.turns.take().ok_or(Busy)?;
        Ok(Turn {
            passwords: self,
            _turn: turn,
        })
    }
}

impl Turn<'_> {
    /// Whether this is the password. Without a user it is not, and takes as
    /// long: nobody learns who exists.
    pub(super) fn verify(&self, password: &str, stored: Option<&str>) -> bool {
        if password.len() > MOST_BYTES {
            return false;
        }
        let hashed = match stored {
            Some(stored) => stored,
            None => self
                .passwords
                .nobody
                .get_or_init(|| hash("nobody has this password").unwrap_or_default()),
        };
        let right = PasswordHash::new(hashed).is_ok_and(|parsed| {
            Argon2::default()
                .verify_password(password.as_bytes(), &parsed)
                .is_ok()
        });
        right && stored.is_some()
    }

    /// [`hash`], in turn.
    pub(super) fn hash(&self, password: &str) -> Result<String, HashError> {
        hash(password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let waiting = Passwords::new();
        let passwords = waiting.turn().unwrap();
        let stored = passwords.hash("correct horse").unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert_ne!(stored, passwords.hash("correct horse").unwrap());
        assert!(passwords.verify("correct horse", Some(&stored)));
        assert!(!passwords.verify("correct horsf", Some(&stored)));
        assert!(!passwords.verify("nobody has this password", None));
        assert!(!passwords.verify("", Some("not a hash")));
    }

    #[test]
    fn what_a_password_must_be_like() {
        for (password, said) in [
            ("123456789", Some("has less than 10 characters")),
            ("ééééééééé", Some("has less than 10 characters")),
            ("Administrator", Some("is the user's name")),
            ("1234567890", None),
        ] {
            let problem = check("administrator", password).err().map(|e| e.problem);
            assert_eq!(problem.as_deref(), said, "{password}");
        }
        assert!(check("a", &"x".repeat(513)).is_err());
    }
}
