//! Whether a site's agent runs the newest configuration.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ensure_hash, unknown_site};
use crate::admin::Admin;
use crate::answer::Answer;
use crate::store::versions::AgentRow;
use crate::store::{Store, StoreError};

/// How many versions are looked through for the one that an agent runs.
const LOOK_BACK: i64 = 20;

/// How an agent stands to the configuration that it should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum SyncState {
    /// It runs the newest.
    InSync,
    /// It runs another.
    Behind,
    /// It was offered the newest and refused it.
    Refused,
    /// It never reported, or does not say what it runs.
    Unknown,
}

/// An agent as an administrator sees it.
#[derive(Debug, Serialize)]
pub(in crate::admin) struct AgentSync {
    /// The site.
    pub(in crate::admin) site_id: i64,
    /// How it stands.
    pub(in crate::admin) state: SyncState,
    /// Since when it is not in sync: since there is the first version that
    /// it does not have.
    pub(in crate::admin) since: Option<Timestamp>,
    /// Why it refused.
    pub(in crate::admin) why: Option<String>,
    /// The newest version.
    pub(in crate::admin) wanted_revision: Option<i64>,
    /// Its hash.
    pub(in crate::admin) wanted_hash: Option<String>,
    /// The hash of what the agent runs.
    pub(in crate::admin) running_hash: Option<String>,
    /// When it last reported.
    pub(in crate::admin) last_report_at: Option<Timestamp>,
    /// Its version.
    pub(in crate::admin) version: Option<String>,
    /// When it started.
    pub(in crate::admin) started_at: Option<Timestamp>,
    /// The devices that it cannot watch, each with its problem.
    pub(in crate::admin) rejected_devices: Box<RawValue>,
    /// Reports that it had to drop.
    pub(in crate::admin) dropped_reports: i64,
}

/// The agent of one site, or of each. A site without one is among them.
pub(in crate::admin) fn agents(
    store: &Store,
    site: Option<i64>,
) -> Result<Vec<AgentSync>, StoreError> {
    let mut rows = store.agent_rows(site)?;
    let mut looked = false;
    for row in &mut rows {
        if let (None, Some(revision)) = (&row.wanted_hash, row.wanted_revision) {
            row.wanted_hash = ensure_hash(store, row.site_id, revision)?;
        }
        // It runs a version whose hash nobody needed so far.
        let lost = row.running_hash.is_some()
            && row.running_hash != row.wanted_hash
            && row.left_behind_at.is_none();
        if site.is_some() && lost {
            for revision in store.versions_without_hash(row.site_id, LOOK_BACK)? {
                ensure_hash(store, row.site_id, revision)?;
                looked = true;
            }
        }
    }
    if looked {
        rows = store.agent_rows(site)?;
    }
    Ok(rows.into_iter().map(judge).collect())
}

/// `GET /admin/sites/{id}/agent`.
pub(super) fn show(admin: &Admin, site: i64) -> Result<Answer, Answer> {
    let agent = agents(&admin.store, Some(site))?
        .pop()
        .ok_or_else(unknown_site)?;
    Ok(Answer::json(200, &agent))
}

fn judge(row: AgentRow) -> AgentSync {
    let (state, since) = match (&row.running_hash, row.last_report_at) {
        (Some(running), Some(_)) if Some(running) == row.wanted_hash.as_ref() => {
            (SyncState::InSync, None)
        }
        (running, Some(reported_at)) => {
            let since = row.left_behind_at.or(row.wanted_since);
            // What it refused before there was the newest version says
            // nothing of that one.
            let of_the_newest = row.wanted_since.is_none_or(|wanted| reported_at >= wanted);
            match (&row.config_error, running) {
                (Some(_), _) if of_the_newest => (SyncState::Refused, since),
                (_, Some(_)) => (SyncState::Behind, since),
                (_, None) => (SyncState::Unknown, None),
            }
        }
        (_, None) => (SyncState::Unknown, None),
    };
    AgentSync {
        site_id: row.site_id,
        why: row.config_error.filter(|_| state == SyncState::Refused),
        state,
        since,
        wanted_revision: row.wanted_revision,
        wanted_hash: row.wanted_hash,
        running_hash: row.running_hash,
        last_report_at: row.last_report_at,
        version: row.version,
        started_at: row.started_at,
        rejected_devices: RawValue::from_string(row.rejected_devices).unwrap_or_default(),
        dropped_reports: row.dropped_reports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn states() {
        let row = |running: Option<&str>, reported, error: Option<&str>, left| AgentRow {
            site_id: 1,
            wanted_revision: Some(9),
            wanted_since: at(100),
            wanted_hash: Some("new".to_owned()),
            last_report_at: reported,
            version: None,
            started_at: None,
            running_hash: running.map(str::to_owned),
            config_error: error.map(str::to_owned),
            rejected_devices: "[]".to_owned(),
            dropped_reports: 0,
            left_behind_at: left,
        };
        for (row, state, since, why) in [
            (row(None, None, None, None), SyncState::Unknown, None, None),
            (
                row(None, at(200), None, None),
                SyncState::Unknown,
                None,
                None,
            ),
            (
                row(Some("new"), at(50), None, None),
                SyncState::InSync,
                None,
                None,
            ),
            // An error of an earlier version.
            (
                row(Some("new"), at(50), Some("bad"), None),
                SyncState::InSync,
                None,
                None,
            ),
            (
                row(Some("old"), at(150), None, at(90)),
                SyncState::Behind,
                at(90),
                None,
            ),
            (
                row(Some("odd"), at(150), None, None),
                SyncState::Behind,
                at(100),
                None,
            ),
            (
                row(Some("old"), at(150), Some("bad"), at(90)),
                SyncState::Refused,
                at(90),
                Some("bad"),
            ),
            (
                row(Some("old"), at(99), Some("bad"), at(90)),
                SyncState::Behind,
                at(90),
                None,
            ),
            (
                row(None, at(150), Some("bad"), None),
                SyncState::Refused,
                at(100),
                Some("bad"),
            ),
        ] {
            let sync = judge(row.clone());
            assert_eq!((sync.state, sync.since), (state, since), "{row:?}");
            assert_eq!(sync.why.as_deref(), why, "{row:?}");
        }
    }
}
