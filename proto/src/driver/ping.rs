//! `driver_config.ping`.

use std::time::Duration;

use serde::Deserialize;

use super::{count, settled, timeout};
use crate::FieldError;

/// How a device is pinged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingSettings {
    /// Echo requests a probe; one answer is enough to be online.
    pub count: u8,
    /// How long the last request is waited for.
    pub timeout: Duration,
}

impl PingSettings {
    /// What a device that does not answer costs. The later requests of a probe
    /// are sent before the first has timed out, a quarter of a second apart.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.timeout + Duration::from_millis(250) * u32::from(self.count.saturating_sub(1))
    }

    /// What a probe takes at the most, from its first request on: the same.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.budget()
    }
}

#[derive(Deserialize)]
pub(super) struct Document {
    count: Option<i64>,
    timeout_s: Option<f64>,
}

impl Document {
    pub(super) fn validate(self) -> Result<PingSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let settings = PingSettings {
            count: count("count", self.count, 3, (1, 20), &mut errors),
            timeout: timeout(
                "timeout_s",
                self.timeout_s,
                Duration::from_secs(1),
                &mut errors,
            ),
        };
        settled(settings, errors)
    }
}
