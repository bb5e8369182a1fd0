//! Channels, and the messages that wait in the database until they are sent.

use std::time::{Duration, SystemTime};

use av_proto::secret::Secret;
use jiff::Timestamp;
use postgres::types::{ToSql, Type};
use postgres::{Row, Transaction};
use serde::Serialize;
use serde_json::json;

use super::actor::Actor;
use super::audit::{self, Deed};
use super::locks::Lock;
use super::time::from_sql;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// So many events are looked at in one go.
const EVENTS_MAX: i64 = 20_000;

/// Where the messages of a channel go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To these mail addresses.
    Mail(Vec<String>),
    /// To this URL, signed with this secret. Many a URL is a secret too.
    Webhook {
        /// Where it is posted.
        url: Secret,
        /// The key of the signature.
        secret: Secret,
    },
}

/// A channel as a person sets it up.
#[derive(Debug, Clone)]
pub struct ChannelSettings {
    /// Its name, unique.
    pub name: String,
    /// Whether it gets anything.
    pub enabled: bool,
    /// Only this site's alerts.
    pub site_id: Option<i64>,
    /// `warning` or `critical`.
    pub min_severity: String,
    /// Whether it is told that an alert is closed.
    pub notify_closed: bool,
    /// Where its messages go.
    pub destination: Destination,
    /// For how many seconds events of one room are collected.
    pub collect_s: i32,
    /// Above 0: everything of so many minutes is one message.
    pub digest_minutes: i32,
    /// The IANA zone of the quiet hours.
    pub timezone: String,
    /// From and to, as `HH:MM`.
    pub quiet: Option<(String, String)>,
    /// Whether critical alerts pass in quiet hours.
    pub critical_passes: bool,
}

/// Why a channel was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelError {
    /// There is no such site.
    NoSite,
    /// There is no such channel.
    NoChannel,
}

/// A channel and how it fares.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its id.
    pub id: i64,
    /// As it is set up.
    pub settings: ChannelSettings,
    /// The newest message that arrived.
    pub last_sent_at: Option<Timestamp>,
    /// Why the newest try failed; `None` once one succeeds.
    pub last_error: Option<String>,
    /// When it failed.
    pub last_error_at: Option<Timestamp>,
    /// Messages that wait.
    pub waiting: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last set up.
    pub updated_at: Timestamp,
}

/// A message of a channel, as its list shows it.
#[derive(Debug, Clone, Serialize)]
pub struct MessageSummary {
    /// Its id.
    pub id: i64,
    /// `waiting`, `sent` or `given_up`.
    pub state: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it arrived.
    pub sent_at: Option<Timestamp>,
    /// How often it was tried.
    pub tries: i32,
    /// When it is tried next, while it waits.
    pub next_try_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// An event that no message tells of yet.
#[derive(Debug, Clone)]
pub struct PendingEvent {
    /// Its id.
    pub id: i64,
    /// The channel that is to hear of it.
    pub channel_id: i64,
    /// `opened` or `closed`.
    pub what: String,
    /// When.
    pub at: Timestamp,
    /// The alert as it is now.
    pub alert: EventAlert,
}

/// An alert, as far as a message tells.
#[derive(Debug, Clone)]
pub struct EventAlert {
    /// Its id.
    pub id: i64,
    /// `fault` or `agent_silent`.
    pub kind: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// The site's id.
    pub site_id: i64,
    /// The site's name.
    pub site: String,
    /// The device.
    pub device_id: Option<i64>,
    /// The device's address.
    pub device_ip: Option<String>,
    /// The device's name.
    pub device_name: Option<String>,
    /// Where it stands.
    pub building: String,
    /// Where it stands.
    pub floor: String,
    /// Where it stands.
    pub room: String,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when.
    pub closed_at: Option<Timestamp>,
    /// For a person.
    pub detail: Option<String>,
}

/// A message to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its channel.
    pub channel_id: i64,
    /// Messages of one subject go in order.
    pub subject_key: String,
    /// JSON.
    pub body: String,
    /// The events of which it tells.
    pub events: Vec<i64>,
}

/// A message that this program is to send now.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its id.
    pub id: i64,
    /// Which try this is, from 1; only that try may say how it ended.
    pub tries: i32,
    /// Its age.
    pub age: Duration,
    /// JSON.
    pub body: String,
    /// Its channel.
    pub channel_id: i64,
    /// The channel's name.
    pub channel: String,
    /// Where it goes.
    pub destination: Destination,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It arrived.
    Arrived,
    /// It is tried again after so long. `channel` says that no message gets
    /// through, so that the others of the channel wait too.
    Again {
        /// How long.
        after: Duration,
        /// Why it failed.
        why: String,
        /// Whether the channel is left alone for that time.
        channel: bool,
    },
    /// It is not tried again.
    GivenUp {
        /// Why it failed.
        why: String,
        /// With it all of the channel that are as old as this, where no
        /// message of the channel gets through.
        older_than: Option<Duration>,
    },
}

const COLUMNS: &str = "c.id, c.name, c.enabled, c.site_id, c.min_severity, c.notify_closed, c.kind,
    c.recipients, c.url, c.secret, c.collect_s, c.digest_minutes, c.timezone,
    to_char(c.quiet_from, 'HH24:MI'), to_char(c.quiet_to, 'HH24:MI'), c.critical_passes,
    c.last_sent_at, c.last_error, c.last_error_at,
    (SELECT count(*) FROM messages m WHERE m.channel_id = c.id AND m.state = 'waiting'),
    c.created_at, c.updated_at
    FROM channels c";

fn destination(
    recipients: Option<Vec<String>>,
    url: Option<String>,
    secret: Option<String>,
) -> Destination {
    match recipients {
        Some(recipients) => Destination::Mail(recipients),
        None => Destination::Webhook {
            url: Secret::new(url.unwrap_or_default()),
            secret: Secret::new(secret.unwrap_or_default()),
        },
    }
}

fn channel(row: &Row) -> Channel {
    let quiet: (Option<String>, Option<String>) = (row.get(13), row.get(14));
    Channel {
        id: row.get(0),
        settings: ChannelSettings {
            name: row.get(1),
            enabled: row.get(2),
            site_id: row.get(3),
            min_severity: row.get(4),
            notify_closed: row.get(5),
            destination: destination(row.get(7), row.get(8), row.get(9)),
            collect_s: row.get(10),
            digest_minutes: row.get(11),
            timezone: row.get(12),
            quiet: quiet.0.zip(quiet.1),
            critical_passes: row.get(15),
        },
        last_sent_at: row.get::<_, Option<SystemTime>>(16).map(from_sql),
        last_error: row.get(17),
        last_error_at: row.get::<_, Option<SystemTime>>(18).map(from_sql),
        waiting: row.get(19),
        created_at: from_sql(row.get(20)),
        updated_at: from_sql(row.get(21)),
    }
}

impl Store {
    /// Every channel, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn channels(&self) -> Result<Vec<Channel>, StoreError> {
        self.run(|client| {
            let rows = client.query(&format!("SELECT {COLUMNS} ORDER BY c.name"), &[])?;
            Ok(rows.iter().map(channel).collect())
        })
    }

    /// One channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn channel(&self, id: i64) -> Result<Option<Channel>, StoreError> {
        self.run(|client| {
            let row = client.query_typed_opt(
                &format!("SELECT {COLUMNS} WHERE c.id = $1"),
                &[(&id, Type::INT8)],
            )?;
            Ok(row.as_ref().map(channel))
        })
    }

    /// Stores a channel: a new one where `id` is `None`. Answers its id.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the name is another's; what does not exist
    /// stands in the inner result.
    pub fn put_channel(
        &self,
        actor: &Actor,
        id: Option<i64>,
        new: &ChannelSettings,
    ) -> Result<Result<i64, ChannelError>, StoreError> {
        let (kind, recipients, url, secret) = match &new.destination {
            Destination::Mail(recipients) => ("mail", Some(recipients), None, None),
            Destination::Webhook { url, secret } => {
                ("webhook", None, Some(url.expose()), Some(secret.expose()))
            }
        };
        let (from, to) = new
            .quiet
            .as_ref()
            .map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let values: [&(dyn ToSql + Sync); 15] = [
            &new.name,
            &new.enabled,
            &new.site_id,
            &new.min_severity,
            &new.notify_closed,
            &kind,
            &recipients,
            &url,
            &secret,
            &new.collect_s,
            &new.digest_minutes,
            &new.timezone,
            &from,
            &to,
            &new.critical_passes,
        ];
        self.act(actor, |transaction| {
            if let Some(site) = new.site_id {
                let found = transaction
                    .query_opt("SELECT FROM sites WHERE id = $1 FOR KEY SHARE", &[&site])?;
                if found.is_none() {
                    return Ok(Err(ChannelError::NoSite));
                }
            }
            let row = match id {
                None => transaction.query_opt(
                    "INSERT INTO channels
                            (name, enabled, site_id, min_severity, notify_closed, kind, recipients,
                             url, secret, collect_s, digest_minutes, timezone, quiet_from, quiet_to,
                             critical_passes)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                             ($13::text)::time, ($14::text)::time, $15)
                     RETURNING id",
                    &values,
                )?,
                // What was set up anew is tried at once.
                Some(id) => transaction.query_opt(
                    "UPDATE channels
                        SET name = $1, enabled = $2, site_id = $3, min_severity = $4,
                            notify_closed = $5, kind = $6, recipients = $7, url = $8, secret = $9,
                            collect_s = $10, digest_minutes = $11, timezone = $12,
                            quiet_from = ($13::text)::time, quiet_to = ($14::text)::time,
                            critical_passes = $15, updated_at = now(), retry_at = NULL
                      WHERE id = $16
                     RETURNING id",
                    &[&values[..], &[&id]].concat(),
                )?,
            };
            let Some(row) = row else {
                return Ok(Err(ChannelError::NoChannel));
            };
            let stored: i64 = row.get(0);
            let action = if id.is_none() {
                "channel.create"
            } else {
                "channel.update"
            };
            record(transaction, actor, action, stored, new.site_id, &new.name)?;
            Ok(Ok(stored))
        })
    }

    /// Deletes a channel and what waits for it. Answers `false` where there
    /// is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_channel(&self, actor: &Actor, id: i64) -> Result<bool, StoreError> {
        let done = self.act(actor, |transaction| {
            let Some(row) = transaction.query_opt(
                "DELETE FROM channels WHERE id = $1 RETURNING site_id, name",
                &[&id],
            )?
            else {
                return Ok(Err(()));
            };
            record(
                transaction,
                actor,
                "channel.delete",
                id,
                row.get(0),
                row.get(1),
            )?;
            Ok(Ok(()))
        })?;
        Ok(done.is_ok())
    }

    /// Writes down a message that tells of no event, to be sent at once.
    /// Answers its id, or `None` where there is no such channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_test_message(
        &self,
        actor: &Actor,
        channel_id: i64,
        body: &str,
    ) -> Result<Option<i64>, StoreError> {
        let done = self.act(actor, |transaction| {
            // Somebody waits for it: the channel is tried whatever happened before.
            let Some(row) = transaction.query_opt(
                "UPDATE channels SET retry_at = NULL WHERE id = $1 RETURNING site_id, name",
                &[&channel_id],
            )?
            else {
                return Ok(Err(()));
            };
            let message = transaction.query_one(
                "INSERT INTO messages (channel_id, subject_key, body) VALUES ($1, 'test', $2)
                 RETURNING id",
                &[&channel_id, &body],
            )?;
            record(
                transaction,
                actor,
                "channel.test",
                channel_id,
                row.get(0),
                row.get(1),
            )?;
            Ok(Ok(message.get(0)))
        })?;
        Ok(done.ok())
    }

    /// The newest messages of a channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn channel_messages(
        &self,
        channel_id: i64,
        limit: i64,
    ) -> Result<Vec<MessageSummary>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT id, state, created_at, sent_at, tries,
                        CASE WHEN state = 'waiting' THEN next_try_at END, last_error
                   FROM messages WHERE channel_id = $1 ORDER BY id DESC LIMIT $2",
                &[(&channel_id, Type::INT8), (&limit, Type::INT8)],
            )?;
            Ok(rows
                .iter()
                .map(|row| MessageSummary {
                    id: row.get(0),
                    state: row.get(1),
                    created_at: from_sql(row.get(2)),
                    sent_at: row.get::<_, Option<SystemTime>>(3).map(from_sql),
                    tries: row.get(4),
                    next_try_at: row.get::<_, Option<SystemTime>>(5).map(from_sql),
                    last_error: row.get(6),
                })
                .collect())
        })
    }

    /// Turns collected events into messages as `plan` decides, each event into
    /// one. `plan` gets the database's time. Answers how many messages were
    /// written; 0 also where another backend is at it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn plan_messages(
        &self,
        plan: impl Fn(Timestamp, &[Channel], Vec<PendingEvent>) -> Vec<NewMessage>,
    ) -> Result<usize, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            if !Lock::Messages.take(transaction)? {
                return Ok(End::Undo(0));
            }
            let rows = transaction.query(PENDING, &[&EVENTS_MAX])?;
            if rows.is_empty() {
                return Ok(End::Undo(0));
            }
            let now = from_sql(transaction.query_one("SELECT now()", &[])?.get(0));
            let channels: Vec<Channel> = transaction
                .query(&format!("SELECT {COLUMNS}"), &[])?
                .iter()
                .map(channel)
                .collect();
            let messages = plan(now, &channels, rows.iter().map(pending).collect());
            for message in &messages {
                write_message(transaction, message)?;
            }
            Ok(End::Commit(messages.len()))
        })
    }

    /// Takes the next message that is due and lets nobody else have it for
    /// the time of `lease`. Where this program dies, it is free again then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn claim_message(&self, lease: Duration) -> Result<Option<Claimed>, StoreError> {
        self.run(|client| {
            let row = client.query_opt(
                "UPDATE messages m
                    SET claimed_until = now() + make_interval(secs => $1), tries = m.tries + 1
                   FROM channels c
                  WHERE c.id = m.channel_id
                    AND m.id = (
                        SELECT w.id FROM messages w JOIN channels k ON k.id = w.channel_id
                         WHERE w.state = 'waiting' AND w.next_try_at <= now()
                           AND (w.claimed_until IS NULL OR w.claimed_until <= now())
                           AND k.enabled AND (k.retry_at IS NULL OR k.retry_at <= now())
                           AND NOT EXISTS (
                               SELECT 1 FROM messages before
                                WHERE before.channel_id = w.channel_id
                                  AND before.subject_key = w.subject_key
                                  AND before.state = 'waiting' AND before.id < w.id)
                         ORDER BY w.next_try_at, w.id LIMIT 1
                           FOR UPDATE OF w SKIP LOCKED)
                 RETURNING m.id, m.tries, extract(epoch FROM now() - m.created_at)::float8, m.body,
                           c.id, c.name, c.recipients, c.url, c.secret",
                &[&lease.as_secs_f64()],
            )?;
            Ok(row.map(|row| Claimed {
                id: row.get(0),
                tries: row.get(1),
                age: Duration::try_from_secs_f64(row.get(2)).unwrap_or_default(),
                body: row.get(3),
                channel_id: row.get(4),
                channel: row.get(5),
                destination: destination(row.get(6), row.get(7), row.get(8)),
            }))
        })
    }

    /// Notes how a try ended. Where the lease ran out and somebody else tries
    /// by now, only an arrival counts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn message_tried(&self, message: &Claimed, sent: &Sent) -> Result<(), StoreError> {
        self.transact(Twice::Ask, |transaction| {
            match sent {
                Sent::Arrived => {
                    transaction.execute(
                        "UPDATE messages SET state = 'sent', sent_at = now(), claimed_until = NULL,
                                last_error = NULL WHERE id = $1",
                        &[&message.id],
                    )?;
                    transaction.execute(
                        "UPDATE channels SET last_sent_at = now(), last_error = NULL,
                                last_error_at = NULL, retry_at = NULL WHERE id = $1",
                        &[&message.channel_id],
                    )?;
                }
                Sent::Again { after, why, channel } => {
                    transaction.execute(
                        "UPDATE messages SET next_try_at = now() + make_interval(secs => $3),
                                claimed_until = NULL, last_error = $4
                          WHERE id = $1 AND tries = $2 AND state = 'waiting'",
                        &[&message.id, &message.tries, &after.as_secs_f64(), why],
                    )?;
                    let hold = channel.then_some(after.as_secs_f64());
                    transaction.execute(
                        "UPDATE channels SET last_error = $2, last_error_at = now(),
                                retry_at = CASE WHEN $3::float8 IS NULL THEN retry_at
                                                ELSE now() + make_interval(secs => $3) END
                          WHERE id = $1",
                        &[&message.channel_id, why, &hold],
                    )?;
                }
                Sent::GivenUp { why, older_than } => {
                    transaction.execute(
                        "UPDATE messages SET state = 'given_up', claimed_until = NULL, last_error = $3
                          WHERE id = $1 AND tries = $2 AND state = 'waiting'",
                        &[&message.id, &message.tries, why],
                    )?;
                    if let Some(age) = older_than {
                        transaction.execute(
                            "UPDATE messages SET state = 'given_up', last_error = $3
                              WHERE channel_id = $1 AND state = 'waiting'
                                AND created_at <= now() - make_interval(secs => $2)
                                AND (claimed_until IS NULL OR claimed_until <= now())",
                            &[&message.channel_id, &age.as_secs_f64(), why],
                        )?;
                    }
                    transaction.execute(
                        "UPDATE channels SET last_error = $2, last_error_at = now() WHERE id = $1",
                        &[&message.channel_id, why],
                    )?;
                }
            }
            Ok(End::Commit(()))
        })
    }

    /// Forgets messages that were sent or given up more than 90 days ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_old_messages(&self) -> Result<u64, StoreError> {
        self.run(|client| {
            client.execute(
                "DELETE FROM messages
                  WHERE state <> 'waiting' AND created_at < now() - interval '90 days'",
                &[],
            )
        })
    }
}

const PENDING: &str = "
SELECT e.id, e.channel_id, e.what, e.at, a.id, a.kind, a.severity, a.site_id, s.name, a.device_id,
       a.device_ip, a.device_name, a.building, a.floor, a.room, a.opened_at, a.closed_at, a.detail
  FROM alert_events e JOIN alerts a ON a.id = e.alert_id JOIN sites s ON s.id = a.site_id
 WHERE NOT e.planned
 ORDER BY e.id LIMIT $1";

fn pending(row: &Row) -> PendingEvent {
    PendingEvent {
        id: row.get(0),
        channel_id: row.get(1),
        what: row.get(2),
        at: from_sql(row.get(3)),
        alert: EventAlert {
            id: row.get(4),
            kind: row.get(5),
            severity: row.get(6),
            site_id: row.get(7),
            site: row.get(8),
            device_id: row.get(9),
            device_ip: row.get(10),
            device_name: row.get(11),
            building: row.get(12),
            floor: row.get(13),
            room: row.get(14),
            opened_at: from_sql(row.get(15)),
            closed_at: row.get::<_, Option<SystemTime>>(16).map(from_sql),
            detail: row.get(17),
        },
    }
}

fn write_message(
    transaction: &mut Transaction<'_>,
    message: &NewMessage,
) -> Result<(), postgres::Error> {
    let id: i64 = transaction
        .query_one(
            "INSERT INTO messages (channel_id, subject_key, body) VALUES ($1, $2, $3) RETURNING id",
            &[&message.channel_id, &message.subject_key, &message.body],
        )?
        .get(0);
    transaction.execute(
        "UPDATE alert_events SET planned = true, message_id = $2 WHERE id = ANY ($1)",
        &[&message.events, &id],
    )?;
    Ok(())
}

fn record(
    transaction: &mut Transaction<'_>,
    actor: &Actor,
    action: &'static str,
    id: i64,
    site_id: Option<i64>,
    name: &str,
) -> Result<(), postgres::Error> {
    let deed = Deed {
        action,
        target: format!("channel {id} ({name})"),
        site_id,
        detail: json!({}),
    };
    audit::record(transaction, actor, &deed)
}
