//! `driver_config.pjlink`.

use std::time::Duration;

use serde::Deserialize;

use super::{port, settled, timeout};
use crate::FieldError;
use crate::secret::Secret;

/// How a projector is asked over PJLink (JBMIA, classes 1 and 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PjlinkSettings {
    /// The password, where the projector wants one.
    pub password: Option<Secret>,
    /// TCP port.
    pub port: u16,
    /// How long the connection and the greeting are waited for, each.
    /// [`Self::answer_timeout`] is for what follows.
    pub timeout: Duration,
}

/// What the network and a busy projector add to the 2 s that the standard
/// gives it for an answer: one that takes all of them is none that is missing.
const ANSWER_ROOM: Duration = Duration::from_secs(1);
/// What a probe may take beyond a time-out each for connection, greeting and
/// first answer: the room of that, and two more answers as slow as the standard
/// allows, so that power, errors and lamps are read.
const SLACK: Duration = Duration::from_secs(5);

impl PjlinkSettings {
    /// How long an answer is waited for. A projector that has greeted lives, so
    /// a sweep's deadline does not hang on this. A refusal of the password is
    /// an answer too, and some projectors give it late on purpose.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        self.timeout + ANSWER_ROOM
    }

    /// What a projector that cannot be reached, or that does not greet, costs.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.timeout
    }

    /// What a probe takes at the most. What has not been asked by then, the
    /// less important last, is not read.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.timeout * 3 + SLACK
    }
}

#[derive(Deserialize)]
pub(super) struct Document {
    password: Option<Secret>,
    port: Option<i64>,
    timeout_s: Option<f64>,
}

impl Document {
    pub(super) fn validate(self) -> Result<PjlinkSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let settings = PjlinkSettings {
            password: self.password.filter(|secret| !secret.expose().is_empty()),
            port: port("port", self.port, 4352, &mut errors),
            timeout: timeout(
                "timeout_s",
                self.timeout_s,
                Duration::from_secs(2),
                &mut errors,
            ),
        };
        // The standard has at most 32 characters; some projectors take
        // punctuation beyond its letters and digits.
        if let Some(password) = &settings.password {
            let text = password.expose();
            if text.len() > 32 || !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                errors.push(FieldError::new(
                    "password",
                    "is not 1 to 32 printable ASCII characters",
                ));
            }
        }
        settled(settings, errors)
    }
}
