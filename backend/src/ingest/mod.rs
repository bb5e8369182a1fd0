//! `POST /ingest`: from a body to observations, history and alerts
//! (`contract.md`, "POST /ingest").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use av_proto::FieldError;
use av_proto::report::{AgentInfo, RejectedInfo, Report};
use av_proto::text::excerpt;
use jiff::{SignedDuration, Timestamp};

use crate::store::reports::{AgentState, Arrival, Observed, Outcome};
use crate::store::sites::{Site, TokenDigest};
use crate::store::tokens::TokenState;
use crate::store::{Store, StoreError};

/// An observation from further in the future was stamped by a wrong clock.
const FUTURE: SignedDuration = SignedDuration::from_hours(24);
/// 2020-01-01, before which nobody reported anything: a rack computer without
/// a clock of its own starts in 1970.
const PAST_S: i64 = 1_577_836_800;
/// How many rejected devices of an agent are kept.
const REJECTED_MAX: usize = 1000;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// There is no token, or no site has it.
    #[error("X-Site-Token is missing or wrong")]
    Unauthorized,
    /// The token is one site's, `site_name` another's.
    #[error("X-Site-Token is not that of the site in site_name")]
    OtherSite,
    /// No site has the name.
    #[error("site_name: there is no such site")]
    UnknownSite,
    /// The body has not the contract's shape.
    #[error(transparent)]
    Shape(#[from] FieldError),
    /// The database did not take it.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        match error {
            // Every other value was checked when it was read.
            StoreError::BadValue(why) => Self::Shape(FieldError::new(
                "devices[].metrics",
                format!("cannot be stored: {why}"),
            )),
            other => Self::Store(other),
        }
    }
}

/// Takes reports.
pub struct Ingest {
    store: Arc<Store>,
    reports: AtomicU64,
    repetitions: AtomicU64,
    observations: AtomicU64,
    unknown_devices: AtomicU64,
}

/// What was taken since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestCounts {
    /// Reports that were new.
    pub reports: u64,
    /// Reports that had been taken before.
    pub repetitions: u64,
    /// Observations in the new reports.
    pub observations: u64,
    /// Devices in the new reports that are not configured.
    pub unknown_devices: u64,
}

impl Ingest {
    /// Takes reports into this store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            reports: AtomicU64::new(0),
            repetitions: AtomicU64::new(0),
            observations: AtomicU64::new(0),
            unknown_devices: AtomicU64::new(0),
        }
    }

    /// The site that may report with this token, and how the token stands.
    ///
    /// # Errors
    /// [`IngestError::Unauthorized`], [`IngestError::Store`].
    pub fn site(&self, token: &str) -> Result<(Site, TokenState), IngestError> {
        self.store
            .site_by_token(&TokenDigest::of(token))?
            .ok_or(IngestError::Unauthorized)
    }

    /// Notes the first use of a token that an agent fetched.
    pub fn note_use(&self, token: &str, state: TokenState) {
        if state != TokenState::Fetched {
            return;
        }
        // A report must not fail for this: the next use notes it.
        if let Err(error) = self.store.note_token_used(&TokenDigest::of(token)) {
            log::warn!("the first use of a new token was not noted: {error}");
        }
    }

    /// Takes a report of this site.
    ///
    /// # Errors
    /// [`IngestError`]; nothing of the report is taken then.
    pub fn take(
        &self,
        site: &Site,
        body: &[u8],
        received_at: Timestamp,
    ) -> Result<Outcome, IngestError> {
        let report = Report::parse(body)?;
        if report.site_name != site.name {
            return Err(if self.store.site_exists(&report.site_name)? {
                IngestError::OtherSite
            } else {
                IngestError::UnknownSite
            });
        }
        let observations: Vec<Observed<'_>> = report
            .devices
            .iter()
            .map(|device| Observed {
                ip: &device.ip,
                status: device.status,
                verdict: device.verdict,
                detail: device.detail.as_deref(),
                metrics: device.metrics.get(),
                observed_at: observed_at(device.observed_at, received_at),
            })
            .collect();
        let count = observations.len();
        let outcome = self.store.take_report(&Arrival {
            site_id: site.id,
            received_at,
            id: report.report.as_ref(),
            agent: report.agent.as_ref().map(agent_state),
            observations,
        })?;
        match outcome {
            Outcome::Repetition => {
                self.repetitions.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Taken { unknown, .. } => {
                self.reports.fetch_add(1, Ordering::Relaxed);
                add(&self.observations, count);
                add(&self.unknown_devices, unknown);
            }
        }
        Ok(outcome)
    }

    /// What was taken.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        IngestCounts {
            reports: self.reports.load(Ordering::Relaxed),
            repetitions: self.repetitions.load(Ordering::Relaxed),
            observations: self.observations.load(Ordering::Relaxed),
            unknown_devices: self.unknown_devices.load(Ordering::Relaxed),
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// When an observation was made: what the agent says, unless it does not say
/// or its clock is plainly wrong; then when it was received.
fn observed_at(said: Option<Timestamp>, received_at: Timestamp) -> Timestamp {
    match said {
        Some(at) if at.as_second() >= PAST_S && at.duration_since(received_at) <= FUTURE => at,
        _ => received_at,
    }
}

/// An agent's own state, its texts on one line and of a bounded length. They
/// are shown to people and must not stop a report.
fn agent_state(agent: &AgentInfo) -> AgentState {
    let rejected: Vec<RejectedInfo> = agent
        .rejected_devices
        .iter()
        .take(REJECTED_MAX)
        .map(|device| RejectedInfo {
            ip: device.ip.as_deref().map(|ip| excerpt(ip, 100)),
            problem: excerpt(&device.problem, 500),
        })
        .collect();
    AgentState {
        version: excerpt(&agent.version, 64),
        running_hash: agent.config_hash.as_deref().map(|hash| excerpt(hash, 64)),
        started_at: agent.started_at.filter(|at| at.as_second() >= 0),
        config_error: agent
            .config_error
            .as_deref()
            .map(|error| excerpt(error, 500)),
        // Plain strings: this cannot fail.
        rejected_devices: serde_json::to_string(&rejected).unwrap_or_else(|_| "[]".to_owned()),
        dropped_reports: i64::try_from(agent.dropped_reports).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_observation() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let received = at("2026-11-24T10:00:00Z");
        for (said, expected) in [
            (None, received),
            // a replay after an outage
            (Some("2026-11-20T00:00:00Z"), at("2026-11-20T00:00:00Z")),
            // a clock that is a little fast
            (Some("2026-11-25T10:00:00Z"), at("2026-11-25T10:00:00Z")),
            (Some("2026-11-25T10:00:01Z"), received),
            (Some("9999-01-01T00:00:00Z"), received),
            // no clock at all
            (Some("1970-01-01T00:01:00Z"), received),
            (Some("-009999-01-04T00:00:00Z"), received),
        ] {
            assert_eq!(observed_at(said.map(at), received), expected, "{said:?}");
        }
    }

    #[test]
    fn an_agents_texts_are_made_safe() {
        let state = agent_state(&AgentInfo {
            version: "1.0\0\n".to_owned(),
            config_hash: Some("x".repeat(1000)),
            started_at: Some("-000001-01-01T00:00:00Z".parse().unwrap()),
            config_error: Some("a\u{202e}b".to_owned()),
            rejected_devices: vec![
                RejectedInfo {
                    ip: Some("\0".to_owned()),
                    problem: "p".to_owned(),
                };
                REJECTED_MAX + 5
            ],
            dropped_reports: u64::MAX,
        });
        assert_eq!(state.version, "1.0\u{fffd}\u{fffd}");
        assert_eq!(state.running_hash.unwrap().chars().count(), 64);
        assert_eq!(state.started_at, None);
        assert_eq!(state.config_error.as_deref(), Some("a\u{fffd}b"));
        let rejected: Vec<RejectedInfo> = serde_json::from_str(&state.rejected_devices).unwrap();
        assert_eq!(rejected.len(), REJECTED_MAX);
        assert_eq!(rejected[0].ip.as_deref(), Some("\u{fffd}"));
        assert_eq!(state.dropped_reports, i64::MAX);
    }
}
