//! Why a projector that answers does not let itself be asked.

use serde::Serialize;

use crate::finding::Finding;

/// What `pjlink_error` says of a refused password, whether it was tried now or
/// not: an observation that stays the same is not news.
pub(super) const REFUSED: &str = "authentication failed (ERRA): check the password";
/// What it says where there is no password to try.
pub(super) const WANTED: &str = "projector wants a password, and none is configured";
/// What it says where the connection ended at the password.
pub(super) const CLOSED: &str = "projector closed the connection: check the password";

/// A projector that is reachable and of which nothing is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It wants a password, and none is configured.
    PasswordWanted,
    /// It does not take the password that is configured.
    WrongPassword,
}

impl Refusal {
    /// What a probe of the driver `pjlink` found of it.
    #[must_use]
    pub fn of(finding: &Finding) -> Option<Self> {
        match finding.metrics.get("pjlink_error")?.as_str()? {
            WANTED => Some(Self::PasswordWanted),
            REFUSED | CLOSED => Some(Self::WrongPassword),
            _ => None,
        }
    }

    /// In two words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::PasswordWanted => "password wanted",
            Self::WrongPassword => "wrong password",
        }
    }
}

#[cfg(test)]
mod tests {
    use av_proto::verdict::Status;

    use super::*;

    #[test]
    fn a_refusal_is_known_by_what_the_driver_says() {
        let finding = |error: Option<&str>| {
            Finding::new(Status::Online).with("pjlink_error", error.map(str::to_owned))
        };
        for (error, refusal) in [
            (Some(WANTED), Some(Refusal::PasswordWanted)),
            (Some(REFUSED), Some(Refusal::WrongPassword)),
            (Some(CLOSED), Some(Refusal::WrongPassword)),
            (Some("port 4352 closed"), None),
            (None, None),
        ] {
            assert_eq!(Refusal::of(&finding(error)), refusal, "{error:?}");
        }
        assert_eq!(Refusal::of(&Finding::new(Status::Online)), None);
    }
}
