//! What the pages of the web interface show: reads alone.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use postgres::Row;
use postgres::types::Type;

use super::time::{from_sql, to_sql};
use super::{Store, StoreError};

/// How many devices of a site have each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// In fault.
    pub fault: i64,
    /// In doubt.
    pub doubt: i64,
    /// Not known.
    pub unknown: i64,
    /// Off as expected.
    pub expected_off: i64,
    /// As they should be.
    pub ok: i64,
    /// Configured, and no report yet.
    pub waiting: i64,
}

impl Tally {
    /// Each verdict with its count, the worst first.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, i64); 6] {
        [
            ("fault", self.fault),
            ("doubt", self.doubt),
            ("unknown", self.unknown),
            ("waiting", self.waiting),
            ("expected_off", self.expected_off),
            ("ok", self.ok),
        ]
    }

    /// All devices.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.parts().iter().map(|(_, count)| count).sum()
    }

    /// Counts one device.
    pub fn add(&mut self, verdict: &str, count: i64) {
        match verdict {
            "fault" => self.fault += count,
            "doubt" => self.doubt += count,
            "expected_off" => self.expected_off += count,
            "ok" => self.ok += count,
            "waiting" => self.waiting += count,
            _ => self.unknown += count,
        }
    }
}

/// What is known of a site's agent.
#[derive(Debug, Clone, Default)]
pub struct AgentState {
    /// Its newest report; `None` before the first.
    pub last_report_at: Option<Timestamp>,
    /// It did not report for longer than three of its intervals.
    pub silent: bool,
    /// Its version.
    pub version: Option<String>,
    /// The hash of the configuration that it runs.
    pub running_hash: Option<String>,
    /// Why it refused the newest configuration.
    pub config_error: Option<String>,
    /// How many devices it set aside.
    pub rejected: i64,
}

/// A site as the pages show it.
#[derive(Debug, Clone)]
pub struct SitePage {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its time zone, as it is stored.
    pub timezone: String,
    /// Counts the changes of its configuration.
    pub revision: i64,
    /// The hash last computed of its configuration.
    pub wanted_hash: Option<String>,
    /// Since when its agent runs another one.
    pub behind_since: Option<Timestamp>,
    /// Its devices by verdict.
    pub tally: Tally,
    /// Its open alerts.
    pub open_alerts: i64,
    /// Its agent.
    pub agent: AgentState,
}

impl SitePage {
    /// The worst verdict of its devices; `none` where it has no device.
    #[must_use]
    pub fn worst(&self) -> &'static str {
        self.tally
            .parts()
            .iter()
            .find(|(_, count)| *count > 0)
            .map_or("none", |(verdict, _)| verdict)
    }
}

/// A device as the pages show it.
#[derive(Debug, Clone)]
pub struct DevicePage {
    /// Its id.
    pub id: i64,
    /// Its site's id.
    pub site_id: i64,
    /// Its site's name.
    pub site: String,
    /// Its site's time zone.
    pub site_timezone: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// What it is.
    pub device_type: String,
    /// How it is probed.
    pub driver: String,
    /// Where it stands; `""` where unknown.
    pub building: String,
    /// Where it stands; `""` where unknown.
    pub floor: String,
    /// Where it stands; `""` where unknown.
    pub room: String,
    /// `online`, `offline` or `unknown`; `None` before the first report.
    pub status: Option<String>,
    /// What that means; `None` before the first report.
    pub verdict: Option<String>,
    /// For a person; `""` where there is nothing to say.
    pub detail: String,
    /// Since when the verdict is what it is.
    pub since: Option<Timestamp>,
    /// When the backend last heard of it.
    pub last_seen: Option<Timestamp>,
    /// The newest observation that found it online.
    pub last_ok_at: Option<Timestamp>,
    /// The verdict of the last report, where none came for so long that
    /// nothing is known any more.
    pub was: Option<String>,
}

impl DevicePage {
    /// The verdict, or `waiting`: the class of its row.
    #[must_use]
    pub fn class(&self) -> &'static str {
        class(self.verdict.as_deref())
    }
}

/// A verdict as a word of ours.
#[must_use]
pub fn class(verdict: Option<&str>) -> &'static str {
    match verdict {
        Some("ok") => "ok",
        Some("fault") => "fault",
        Some("doubt") => "doubt",
        Some("expected_off") => "expected_off",
        Some(_) => "unknown",
        None => "waiting",
    }
}

/// What the page of one device shows beside its state.
#[derive(Debug, Clone)]
pub struct DeviceDetail {
    /// The text of its expectations' JSON object.
    pub expectations: String,
    /// What was last measured: the text of a JSON object.
    pub metrics: Option<String>,
    /// How long an observation holds where no other follows, in seconds.
    pub holds_s: i64,
    /// The text of its settings' JSON object, with its secrets.
    pub driver_config: String,
}

/// A line of a device's history.
#[derive(Debug, Clone)]
pub struct Past {
    /// When the agent observed it.
    pub at: Timestamp,
    /// What it meant.
    pub verdict: String,
    /// For a person.
    pub detail: String,
    /// Round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Hours of the first lamp.
    pub lamp_hours: Option<f64>,
    /// Hundredths of a second since it started.
    pub uptime: Option<f64>,
}

/// An alert as the pages show it.
#[derive(Debug, Clone)]
pub struct AlertPage {
    /// Its id.
    pub id: i64,
    /// Its site's id.
    pub site_id: i64,
    /// Its site's name.
    pub site: String,
    /// The device, while there is one.
    pub device_id: Option<i64>,
    /// The device's name when it opened; `None` for an alert of the site.
    pub device: Option<String>,
    /// The device's address.
    pub ip: Option<String>,
    /// Building, floor and room.
    pub place: String,
    /// `fault` or `agent_silent`.
    pub kind: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it closed.
    pub closed_at: Option<Timestamp>,
    /// For a person.
    pub detail: String,
    /// When somebody took it.
    pub acknowledged_at: Option<Timestamp>,
    /// Who took it.
    pub acknowledged_by: Option<String>,
    /// What people said of it.
    pub comments: Vec<CommentLine>,
}

impl AlertPage {
    /// How it looks.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match (self.closed_at, self.severity.as_str()) {
            (Some(_), _) => "closed",
            (None, "warning") => "warning",
            (None, _) => "fault",
        }
    }
}

/// What somebody said of an alert.
#[derive(Debug, Clone)]
pub struct CommentLine {
    /// Who.
    pub author: String,
    /// What.
    pub body: String,
    /// When.
    pub at: Timestamp,
}

/// Which alerts a page shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlertFilter {
    /// Closed ones, newest first; otherwise open ones, the worst first.
    pub closed: bool,
    /// Of this site alone.
    pub site: Option<i64>,
    /// Of this device alone.
    pub device: Option<i64>,
    /// Those after so many.
    pub offset: i64,
    /// At most so many.
    pub limit: i64,
}

const SITES: &str = "
    SELECT s.id, s.name, s.timezone, s.config_revision, s.config_version, s.config_updated_at,
           coalesce(t.fault, 0), coalesce(t.doubt, 0), coalesce(t.unknown, 0),
           coalesce(t.expected_off, 0), coalesce(t.ok, 0), coalesce(t.waiting, 0),
           coalesce(o.open, 0), a.last_report_at,
           coalesce(now() > a.last_report_at + av_silence_limit(greatest(a.report_interval_s,
                        av_report_interval_s(s.ok_interval_s, s.ko_interval_s))), false),
           a.version, a.running_hash, a.config_error,
           coalesce(jsonb_array_length(a.rejected_devices), 0)::bigint
      FROM sites s
      LEFT JOIN site_agents a ON a.site_id = s.id
      LEFT JOIN (SELECT site_id,
                        count(*) FILTER (WHERE verdict = 'fault') AS fault,
                        count(*) FILTER (WHERE verdict = 'doubt') AS doubt,
                        count(*) FILTER (WHERE verdict = 'unknown') AS unknown,
                        count(*) FILTER (WHERE verdict = 'expected_off') AS expected_off,
                        count(*) FILTER (WHERE verdict = 'ok') AS ok,
                        count(*) FILTER (WHERE verdict IS NULL) AS waiting
                   FROM device_current
                  WHERE $1::bigint IS NULL OR site_id = $1
                  GROUP BY site_id) t ON t.site_id = s.id
      LEFT JOIN (SELECT site_id, count(*) AS open FROM alerts
                  WHERE closed_at IS NULL GROUP BY site_id) o ON o.site_id = s.id
     WHERE $1::bigint IS NULL OR s.id = $1
     ORDER BY s.name, s.id";

fn time(row: &Row, index: usize) -> Option<Timestamp> {
    row.get::<_, Option<SystemTime>>(index).map(from_sql)
}

fn site(row: &Row) -> SitePage {
    SitePage {
        id: row.get(0),
        name: row.get(1),
        timezone: row.get(2),
        revision: row.get(3),
        wanted_hash: row.get(4),
        behind_since: time(row, 5),
        tally: Tally {
            fault: row.get(6),
            doubt: row.get(7),
            unknown: row.get(8),
            expected_off: row.get(9),
            ok: row.get(10),
            waiting: row.get(11),
        },
        open_alerts: row.get(12),
        agent: AgentState {
            last_report_at: time(row, 13),
            silent: row.get(14),
            version: row.get(15),
            running_hash: row.get(16),
            config_error: row.get(17),
            rejected: row.get(18),
        },
    }
}

const DEVICES: &str = "
    SELECT d.id, d.site_id, s.name, s.timezone, d.name, d.ip, d.device_type, d.driver,
           coalesce(d.building, ''), coalesce(d.floor, ''), coalesce(d.room, ''),
           c.status, c.verdict, coalesce(c.detail, ''), c.verdict_since, c.last_seen, c.last_ok_at,
           CASE WHEN c.stale THEN c.reported_verdict END";

fn device(row: &Row) -> DevicePage {
    DevicePage {
        id: row.get(0),
        site_id: row.get(1),
        site: row.get(2),
        site_timezone: row.get(3),
        name: row.get(4),
        ip: row.get(5),
        device_type: row.get(6),
        driver: row.get(7),
        building: row.get(8),
        floor: row.get(9),
        room: row.get(10),
        status: row.get(11),
        verdict: row.get(12),
        detail: row.get(13),
        since: time(row, 14),
        last_seen: time(row, 15),
        last_ok_at: time(row, 16),
        was: row.get(17),
    }
}

impl Store {
    /// Every site by name, or one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_pages(&self, only: Option<i64>) -> Result<Vec<SitePage>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(SITES, &[(&only, Type::INT8)])?;
            Ok(rows.iter().map(site).collect())
        })
    }

    /// One site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_page(&self, id: i64) -> Result<Option<SitePage>, StoreError> {
        Ok(self.site_pages(Some(id))?.pop())
    }

    /// The devices of a site.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_pages(&self, site_id: i64) -> Result<Vec<DevicePage>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "{DEVICES} FROM devices d JOIN sites s ON s.id = d.site_id
                       JOIN device_current c ON c.device_id = d.id WHERE d.site_id = $1"
                ),
                &[(&site_id, Type::INT8)],
            )?;
            Ok(rows.iter().map(device).collect())
        })
    }

    /// One device, with what its own page shows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_shown(&self, id: i64) -> Result<Option<(DevicePage, DeviceDetail)>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                &format!(
                    "{DEVICES}, coalesce(d.expectations, '{{}}')::text, c.metrics::text,
                            (greatest(3600, i.seconds)
                             + extract(epoch FROM av_silence_limit(i.seconds)))::bigint,
                            coalesce(d.driver_config, '{{}}')::text
                       FROM devices d JOIN sites s ON s.id = d.site_id
                       JOIN device_current c ON c.device_id = d.id
                      CROSS JOIN LATERAL (SELECT av_report_interval_s(s.ok_interval_s, s.ko_interval_s) AS seconds) i
                      WHERE d.id = $1"
                ),
                &[(&id, Type::INT8)],
            )?;
            Ok(row.map(|row| {
                (
                    device(&row),
                    DeviceDetail {
                        expectations: row.get(18),
                        metrics: row.get(19),
                        holds_s: row.get(20),
                        driver_config: row.get(21),
                    },
                )
            }))
        })
    }

    /// What was observed of a device since a time, oldest first, with what
    /// held when it began: the newest `most` of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_history(
        &self,
        id: i64,
        from: Timestamp,
        holds_s: i64,
        most: i64,
    ) -> Result<Vec<Past>, StoreError> {
        // The time as a value: of a computed one the planner knows too late
        // that it does not need the other months.
        let from = to_sql(from - SignedDuration::from_secs(holds_s));
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT * FROM (
                     SELECT observed_at, verdict, coalesce(detail, ''),
                            CASE WHEN jsonb_typeof(metrics->'ping_rtt_avg_ms') = 'number'
                                 THEN (metrics->>'ping_rtt_avg_ms')::float8 END,
                            CASE WHEN jsonb_typeof(metrics#>'{pjlink_lamps,0,hours}') = 'number'
                                 THEN (metrics#>>'{pjlink_lamps,0,hours}')::float8 END,
                            CASE WHEN jsonb_typeof(metrics->'sys_uptime') = 'number'
                                 THEN (metrics->>'sys_uptime')::float8 END
                       FROM observations
                      WHERE device_id = $1 AND observed_at >= $2
                      ORDER BY observed_at DESC LIMIT $3) newest
                  ORDER BY observed_at",
                &[
                    (&id, Type::INT8),
                    (&from, Type::TIMESTAMPTZ),
                    (&most, Type::INT8),
                ],
            )?;
            Ok(rows
                .iter()
                .map(|row| Past {
                    at: from_sql(row.get(0)),
                    verdict: row.get(1),
                    detail: row.get(2),
                    rtt_ms: row.get(3),
                    lamp_hours: row.get(4),
                    uptime: row.get(5),
                })
                .collect())
        })
    }

    /// Alerts with their comments.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alert_pages(&self, filter: AlertFilter) -> Result<Vec<AlertPage>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT a.id, a.site_id, s.name, a.device_id, a.device_name, a.device_ip,
                        concat_ws(' · ', nullif(a.building, ''), nullif(a.floor, ''), nullif(a.room, '')),
                        a.kind, a.severity, a.opened_at, a.closed_at, coalesce(a.detail, ''),
                        a.acknowledged_at, a.acknowledged_by
                   FROM alerts a JOIN sites s ON s.id = a.site_id
                  WHERE (a.closed_at IS NOT NULL) = $1
                    AND ($2::bigint IS NULL OR a.site_id = $2)
                    AND ($3::bigint IS NULL OR a.device_id = $3)
                  ORDER BY CASE WHEN $1 THEN NULL ELSE a.acknowledged_at IS NOT NULL END,
                           CASE WHEN $1 THEN NULL ELSE a.severity <> 'critical' END,
                           coalesce(a.closed_at, a.opened_at) DESC, a.id DESC
                 OFFSET $4 LIMIT $5",
                &[
                    (&filter.closed, Type::BOOL),
                    (&filter.site, Type::INT8),
                    (&filter.device, Type::INT8),
                    (&filter.offset, Type::INT8),
                    (&filter.limit, Type::INT8),
                ],
            )?;
            let mut alerts: Vec<AlertPage> = rows
                .iter()
                .map(|row| AlertPage {
                    id: row.get(0),
                    site_id: row.get(1),
                    site: row.get(2),
                    device_id: row.get(3),
                    device: row.get(4),
                    ip: row.get(5),
                    place: row.get(6),
                    kind: row.get(7),
                    severity: row.get(8),
                    opened_at: from_sql(row.get(9)),
                    closed_at: time(row, 10),
                    detail: row.get(11),
                    acknowledged_at: time(row, 12),
                    acknowledged_by: row.get(13),
                    comments: Vec::new(),
                })
                .collect();
            let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
            let comments = client.query_typed(
                "SELECT alert_id, author, body, created_at FROM alert_comments
                  WHERE alert_id = ANY ($1) ORDER BY id",
                &[(&ids, Type::INT8_ARRAY)],
            )?;
            for row in &comments {
                let of: i64 = row.get(0);
                if let Some(alert) = alerts.iter_mut().find(|alert| alert.id == of) {
                    alert.comments.push(CommentLine {
                        author: row.get(1),
                        body: row.get(2),
                        at: from_sql(row.get(3)),
                    });
                }
            }
            Ok(alerts)
        })
    }
}
