//! Passwords: argon2id (RFC 9106), and what one must be like.

use std::sync::{Condvar, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use av_proto::FieldError;

/// The least number of characters of a password.
pub const LEAST_CHARS: usize = 10;
/// The most bytes of a password; more is only work for the server.
const MOST_BYTES: usize = 512;
/// So many passwords are hashed at a time: each takes 19 MiB and a processor.
const AT_A_TIME: usize = 2;

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

/// Verifies passwords, a few at a time.
pub(super) struct Passwords {
    free: Mutex<usize>,
    freed: Condvar,
    /// The hash of no password, for users who do not exist.
    nobody: std::sync::OnceLock<String>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            free: Mutex::new(AT_A_TIME),
            freed: Condvar::new(),
            nobody: std::sync::OnceLock::new(),
        }
    }

    /// Whether this is the password. Without a user it is not, and takes as
    /// long: nobody learns who exists.
    pub(super) fn verify(&self, password: &str, stored: Option<&str>) -> bool {
        if password.len() > MOST_BYTES {
            return false;
        }
        self.in_turn(|| {
            let stored = match stored {
                Some(stored) => stored,
                None => self
                    .nobody
                    .get_or_init(|| hash("nobody has this password").unwrap_or_default()),
            };
            PasswordHash::new(stored).is_ok_and(|parsed| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &parsed)
                    .is_ok()
            })
        }) && stored.is_some()
    }

    /// [`hash`], in turn.
    pub(super) fn hash(&self, password: &str) -> Result<String, HashError> {
        self.in_turn(|| hash(password))
    }

    fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Turn<'a>(&'a Passwords);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                self.0.freed.notify_one();
            }
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        let _turn = Turn(self);
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let passwords = Passwords::new();
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
        assert_eq!(*passwords.free.lock().unwrap(), AT_A_TIME);
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
