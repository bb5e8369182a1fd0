//! What agents report: history, state, alerts, in one transaction and with a
//! number of statements that does not depend on the number of devices.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use av_proto::report::ReportId;
use av_proto::verdict::{Status, Verdict};
use jiff::{SignedDuration, Timestamp};
use postgres::types::ToSql;
use postgres::{Row, Transaction};

use super::alerts::OPEN_ALERTS;
use super::statements::Statements;
use super::time::to_sql;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// A report, checked and with its times settled.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The site that it is of.
    pub site_id: i64,
    /// When it came.
    pub received_at: Timestamp,
    /// Its place in the agent's spool; `None` from an older agent.
    pub id: Option<&'a ReportId>,
    /// What the agent says of itself; `None` from an older agent.
    pub agent: Option<AgentState>,
    /// What was observed.
    pub observations: Vec<Observed<'a>>,
}

/// One observation.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The device's address as configured.
    pub ip: &'a str,
    /// Whether it answered.
    pub status: Status,
    /// What that means.
    pub verdict: Verdict,
    /// For a person.
    pub detail: Option<&'a str>,
    /// What was measured: the text of a JSON object.
    pub metrics: &'a str,
    /// When.
    pub observed_at: Timestamp,
}

/// What an agent says of itself, its texts made safe to show.
#[derive(Debug)]
pub struct AgentState {
    /// Its version.
    pub version: String,
    /// The hash of the configuration that it runs.
    pub running_hash: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Why it refused the backend's configuration.
    pub config_error: Option<String>,
    /// The devices that it cannot watch: the text of a JSON array.
    pub rejected_devices: String,
    /// Reports that it had to drop.
    pub dropped_reports: i64,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Taken {
        /// The configured devices that it told of.
        known: usize,
        /// The addresses that it told of and that are not configured.
        unknown: usize,
    },
    /// It had been taken before; nothing of it was written again.
    Repetition,
}

/// A report of something older than this came late: less than what a day is
/// given after its midnight before it is computed.
const LATE: SignedDuration = SignedDuration::from_mins(10);

/// Writes what changed into the history, and an observation an hour where
/// nothing changes; then makes the newest observation of each device its
/// state. Of a report's observations of one device, each is compared with
/// the one before it, the first with the state.
///
/// An observation older than the state goes into the history at its own time
/// and leaves the state alone. A state from the future, left by an agent whose
/// clock was wrong, gives way to anything.
const RECORD: &str = "
WITH reported AS MATERIALIZED (
    SELECT r.device_id, r.ip, r.observed_at, r.status, r.verdict, r.detail,
           r.metrics::jsonb AS metrics, r.place
      FROM unnest($3::bigint[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
                  $8::text[], $9::text[]) WITH ORDINALITY
           AS r (device_id, ip, observed_at, status, verdict, detail, metrics, place)
), compared AS (
    SELECT r.*, s.observed_at AS state_at, s.recorded_at,
           row_number() OVER w AS nth,
           CASE WHEN row_number() OVER w = 1 THEN s.status ELSE lag(r.status) OVER w END AS old_status,
           CASE WHEN row_number() OVER w = 1 THEN s.verdict ELSE lag(r.verdict) OVER w END AS old_verdict,
           CASE WHEN row_number() OVER w = 1 THEN s.detail ELSE lag(r.detail) OVER w END AS old_detail
      FROM reported r LEFT JOIN device_states s ON s.device_id = r.device_id
    WINDOW w AS (PARTITION BY r.device_id ORDER BY r.observed_at, r.place)
), judged AS MATERIALIZED (
    SELECT *, state_at IS NULL AND nth = 1
              OR observed_at < state_at
              OR (status, verdict, detail) IS DISTINCT FROM (old_status, old_verdict, old_detail)
              OR observed_at >= recorded_at + interval '1 hour' AS recorded
      FROM compared
), history AS (
    INSERT INTO observations
           (site_id, device_id, ip, observed_at, received_at, status, verdict, detail, metrics)
    SELECT $1, device_id, ip, observed_at, $2, status, verdict, detail, metrics
      FROM judged WHERE recorded
    ON CONFLICT DO NOTHING
), newest AS (
    SELECT DISTINCT ON (device_id) device_id, status, verdict, detail, metrics, observed_at,
           max(observed_at) FILTER (WHERE status = 'online') OVER d AS last_ok_at,
           max(observed_at) FILTER (WHERE recorded) OVER d AS last_recorded_at
      FROM judged
    WINDOW d AS (PARTITION BY device_id)
     ORDER BY device_id, observed_at DESC, place DESC
)
INSERT INTO device_states AS s
       (device_id, status, verdict, detail, metrics, observed_at, last_seen, last_ok_at,
        status_since, verdict_since, recorded_at)
SELECT device_id, status, verdict, detail, metrics, observed_at, $2, last_ok_at,
       observed_at, observed_at, coalesce(last_recorded_at, '-infinity')
  FROM newest
    ON CONFLICT (device_id) DO UPDATE SET
       status = CASE WHEN EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2
                     THEN EXCLUDED.status ELSE s.status END,
       verdict = CASE WHEN EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2
                      THEN EXCLUDED.verdict ELSE s.verdict END,
       detail = CASE WHEN EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2
                     THEN EXCLUDED.detail ELSE s.detail END,
       metrics = CASE WHEN EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2
                      THEN EXCLUDED.metrics ELSE s.metrics END,
       observed_at = CASE WHEN EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2
                          THEN EXCLUDED.observed_at ELSE s.observed_at END,
       status_since = CASE WHEN (EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2)
                            AND EXCLUDED.status <> s.status
                           THEN EXCLUDED.observed_at ELSE s.status_since END,
       verdict_since = CASE WHEN (EXCLUDED.observed_at >= s.observed_at OR s.observed_at > $2)
                             AND EXCLUDED.verdict <> s.verdict
                            THEN EXCLUDED.observed_at ELSE s.verdict_since END,
       last_seen = greatest(s.last_seen, EXCLUDED.last_seen),
       last_ok_at = greatest(s.last_ok_at, EXCLUDED.last_ok_at),
       recorded_at = greatest(s.recorded_at, EXCLUDED.recorded_at)";

/// Closes the alerts of devices that are well, or expected to be off.
const CLOSE_ALERTS: &str = "
UPDATE alerts a
   SET closed_at = greatest(s.observed_at, a.opened_at), closed_by = s.verdict
  FROM device_states s
 WHERE a.device_id = ANY ($1) AND a.closed_at IS NULL
   AND s.device_id = a.device_id AND s.verdict IN ('ok', 'expected_off')";

impl Store {
    /// Takes a report, once: a report whose place in its spool was taken
    /// before is a [`Outcome::Repetition`]. Configuration is never touched.
    ///
    /// # Errors
    /// [`StoreError::BadValue`] where a `metrics` holds what JSONB cannot,
    /// such as `\u0000`; then nothing of the report is taken.
    pub fn take_report(&self, arrival: &Arrival<'_>) -> Result<Outcome, StoreError> {
        // By its place in the spool a report is known when it comes again.
        let twice = match arrival.id {
            Some(_) => Twice::Harmless,
            None => Twice::Ask,
        };
        self.transact_prepared(twice, |transaction, statements| {
            let mut on = Prepared {
                transaction,
                statements,
            };
            Ok(End::Commit(take(&mut on, arrival)?))
        })
    }
}

/// A transaction whose statements stay prepared.
struct Prepared<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    statements: &'a mut Statements,
}

impl Prepared<'_, '_> {
    fn execute(
        &mut self,
        text: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, postgres::Error> {
        let statement = self.statements.get(self.transaction, text)?;
        self.transaction.execute(&statement, values)
    }

    fn query(
        &mut self,
        text: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let statement = self.statements.get(self.transaction, text)?;
        self.transaction.query(&statement, values)
    }
}

fn take(on: &mut Prepared<'_, '_>, arrival: &Arrival<'_>) -> Result<Outcome, postgres::Error> {
    if let Some(id) = arrival.id {
        // Of two equal reports at the same time the second waits here for the
        // first, and then finds its place taken.
        let seq = i64::try_from(id.seq).unwrap_or(i64::MAX);
        let advanced = on.execute(
            "INSERT INTO report_cursors AS c (site_id, stream, last_seq, last_received_at)
             VALUES ($1, $2, $3, $4)
                 ON CONFLICT (site_id, stream) DO UPDATE
                SET last_seq = EXCLUDED.last_seq, last_received_at = EXCLUDED.last_received_at
              WHERE c.last_seq < EXCLUDED.last_seq",
            &[
                &arrival.site_id,
                &id.stream,
                &seq,
                &to_sql(arrival.received_at),
            ],
        )?;
        if advanced == 0 {
            // The first one's commit may stand on this server alone, where its
            // standby was away and it was restarted since: with synchronous
            // replication this commit, and with it the answer, waits until
            // the standby has both.
            on.execute(
                "UPDATE report_cursors SET last_received_at = greatest(last_received_at, $3)
                  WHERE site_id = $1 AND stream = $2",
                &[&arrival.site_id, &id.stream, &to_sql(arrival.received_at)],
            )?;
            return Ok(Outcome::Repetition);
        }
    }
    note_agent(on, arrival)?;

    // Locked in the order of their ids against a DELETE at the same time: it
    // waits for us, or we find the device gone.
    let mut ips: Vec<&str> = arrival.observations.iter().map(|seen| seen.ip).collect();
    ips.sort_unstable();
    ips.dedup();
    let devices: HashMap<String, i64> = on
        .query(
            "SELECT ip, id FROM devices WHERE site_id = $1 AND ip = ANY ($2)
              ORDER BY id FOR KEY SHARE",
            &[&arrival.site_id, &ips],
        )?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();

    let known: Vec<(i64, &Observed<'_>)> = arrival
        .observations
        .iter()
        .filter_map(|seen| Some((*devices.get(seen.ip)?, seen)))
        .collect();
    if !known.is_empty() {
        record(on, arrival, &known)?;
    }
    Ok(Outcome::Taken {
        known: devices.len(),
        unknown: ips.len() - devices.len(),
    })
}

/// Notes that the agent was heard of. Its row also lets the reports of one
/// site through one at a time.
fn note_agent(on: &mut Prepared<'_, '_>, arrival: &Arrival<'_>) -> Result<(), postgres::Error> {
    match &arrival.agent {
        None => on.execute(
            "INSERT INTO site_agents AS a (site_id, last_report_at) VALUES ($1, $2)
                 ON CONFLICT (site_id) DO UPDATE
                SET last_report_at = greatest(a.last_report_at, EXCLUDED.last_report_at)",
            &[&arrival.site_id, &to_sql(arrival.received_at)],
        )?,
        Some(agent) => on.execute(
            "INSERT INTO site_agents AS a
                    (site_id, last_report_at, version, running_hash, started_at, config_error,
                     rejected_devices, dropped_reports)
             VALUES ($1, $2, $3, $4, $5, $6, ($7::text)::jsonb, $8)
                 ON CONFLICT (site_id) DO UPDATE
                SET last_report_at = greatest(a.last_report_at, EXCLUDED.last_report_at),
                    version = EXCLUDED.version, running_hash = EXCLUDED.running_hash,
                    started_at = EXCLUDED.started_at, config_error = EXCLUDED.config_error,
                    rejected_devices = EXCLUDED.rejected_devices,
                    dropped_reports = EXCLUDED.dropped_reports",
            &[
                &arrival.site_id,
                &to_sql(arrival.received_at),
                &agent.version,
                &agent.running_hash,
                &agent.started_at.map(to_sql),
                &agent.config_error,
                &agent.rejected_devices,
                &agent.dropped_reports,
            ],
        )?,
    };
    Ok(())
}

fn record(
    on: &mut Prepared<'_, '_>,
    arrival: &Arrival<'_>,
    known: &[(i64, &Observed<'_>)],
) -> Result<(), postgres::Error> {
    let ids: Vec<i64> = known.iter().map(|(id, _)| *id).collect();
    let ips: Vec<&str> = known.iter().map(|(_, seen)| seen.ip).collect();
    let times: Vec<SystemTime> = known
        .iter()
        .map(|(_, seen)| to_sql(seen.observed_at))
        .collect();
    let statuses: Vec<&str> = known.iter().map(|(_, seen)| seen.status.as_str()).collect();
    let verdicts: Vec<&str> = known
        .iter()
        .map(|(_, seen)| seen.verdict.as_str())
        .collect();
    let details: Vec<Option<&str>> = known.iter().map(|(_, seen)| seen.detail).collect();
    let metrics: Vec<&str> = known.iter().map(|(_, seen)| seen.metrics).collect();
    on.execute(
        RECORD,
        &[
            &arrival.site_id,
            &to_sql(arrival.received_at),
            &ids,
            &ips,
            &times,
            &statuses,
            &verdicts,
            &details,
            &metrics,
        ],
    )?;

    let ids: Vec<i64> = ids
        .into_iter()
        .collect::<HashSet<i64>>()
        .into_iter()
        .collect();
    on.execute(CLOSE_ALERTS, &[&ids])?;
    on.execute(OPEN_ALERTS, &[&ids])?;

    // What comes late changes days whose availability may be computed already.
    let oldest = known.iter().map(|(_, seen)| seen.observed_at).min();
    if let Some(oldest) = oldest.filter(|at| arrival.received_at.duration_since(*at) > LATE) {
        on.execute(
            "SELECT av_days_changed($1, $2)",
            &[&arrival.site_id, &to_sql(oldest)],
        )?;
    }
    Ok(())
}
