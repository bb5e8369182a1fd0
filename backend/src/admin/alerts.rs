//! Alerts, maintenance windows and channels:
//!
//! | route | what it does |
//! |---|---|
//! | `GET /admin/alerts` | `?state=open|closed&site_id=&device_id=&acknowledged=true|false&limit=&offset=` |
//! | `GET /admin/alerts/{id}` | one, with its comments |
//! | `POST /admin/alerts/{id}/acknowledge` | `{"comment": "..."}`, or nothing |
//! | `POST /admin/alerts/{id}/comments` | `{"body": "..."}` |
//! | `GET, POST /admin/maintenance`, `GET, PUT, DELETE /admin/maintenance/{id}` | windows |
//! | `GET, POST /admin/channels`, `GET, PUT, DELETE /admin/channels/{id}` | channels |
//! | `POST /admin/channels/{id}/test` | sends a message that tells of nothing |
//! | `GET /admin/channels/{id}/messages` | what was sent and what waits |
//! | `GET /admin/devices/{id}/days` | `?limit=`: how long the device was what, by the day |
//! | `GET, PUT /admin/devices/{id}/severity` | `{"severity": "warning"}`: of its alerts to come |

use av_proto::FieldError;
use av_proto::schedule::zone;
use av_proto::secret::Secret;
use av_service::http::Method;
use jiff::Timestamp;
use jiff::civil::Time;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Admin;
use super::context::{Call, Role};
use super::input;
use crate::answer::Answer;
use crate::notify::is_mail_address;
use crate::notify::message::Body;
use crate::store::StoreError;
use crate::store::alerts::{AlertFilter, NewWindow, Scope, WindowError};
use crate::store::channels::{Channel, ChannelError, ChannelSettings, Destination};

/// The most characters of a comment or a reason.
const TEXT_MAX: usize = 2000;
/// The longest maintenance window, in days.
const WINDOW_MAX_DAYS: i64 = 366;
/// A key of fewer bytes can be guessed.
const SECRET_MIN: usize = 16;
/// What stands in place of what is not shown.
pub(super) const HIDDEN: &str = "***";

/// Answers where the path is one of these; `None` where it is not.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match call.path {
        ["alerts"] => match call.method {
            Method::Get => list(admin, call),
            _ => Ok(call.only("GET, HEAD")),
        },
        ["alerts", id] => match (&call.method, input::id(id)) {
            (Method::Get, Some(id)) => show(admin, id),
            (Method::Get, None) => Err(nothing("alert")),
            _ => Ok(call.only("GET, HEAD")),
        },
        ["alerts", id, "acknowledge"] => match (&call.method, input::id(id)) {
            (Method::Post, Some(id)) => acknowledge(admin, call, id),
            (Method::Post, None) => Err(nothing("alert")),
            _ => Ok(call.only("POST")),
        },
        ["alerts", id, "comments"] => match (&call.method, input::id(id)) {
            (Method::Post, Some(id)) => comment(admin, call, id),
            (Method::Post, None) => Err(nothing("alert")),
            _ => Ok(call.only("POST")),
        },
        ["maintenance"] => match call.method {
            Method::Get => list_windows(admin, call),
            Method::Post => put_window(admin, call, None),
            _ => Ok(call.only("GET, HEAD, POST")),
        },
        ["maintenance", id] => match (&call.method, input::id(id)) {
            (Method::Get | Method::Put | Method::Delete, None) => {
                Err(nothing("maintenance window"))
            }
            (Method::Get, Some(id)) => show_window(admin, id),
            (Method::Put, Some(id)) => put_window(admin, call, Some(id)),
            (Method::Delete, Some(id)) => delete_window(admin, call, id),
            _ => Ok(call.only("GET, HEAD, PUT, DELETE")),
        },
        ["channels"] => match call.method {
            Method::Get => list_channels(admin),
            Method::Post => put_channel(admin, call, None),
            _ => Ok(call.only("GET, HEAD, POST")),
        },
        ["channels", id] => match (&call.method, input::id(id)) {
            (Method::Get | Method::Put | Method::Delete, None) => Err(nothing("channel")),
            (Method::Get, Some(id)) => show_channel(admin, id),
            (Method::Put, Some(id)) => put_channel(admin, call, Some(id)),
            (Method::Delete, Some(id)) => delete_channel(admin, call, id),
            _ => Ok(call.only("GET, HEAD, PUT, DELETE")),
        },
        ["channels", id, "test"] => match (&call.method, input::id(id)) {
            (Method::Post, Some(id)) => test_channel(admin, call, id),
            (Method::Post, None) => Err(nothing("channel")),
            _ => Ok(call.only("POST")),
        },
        ["channels", id, "messages"] => match (&call.method, input::id(id)) {
            (Method::Get, Some(id)) => messages(admin, call, id),
            (Method::Get, None) => Err(nothing("channel")),
            _ => Ok(call.only("GET, HEAD")),
        },
        ["devices", id, "days"] => match (&call.method, input::id(id)) {
            (Method::Get, Some(id)) => days(admin, call, id),
            (Method::Get, None) => Err(nothing("device")),
            _ => Ok(call.only("GET, HEAD")),
        },
        ["devices", id, "severity"] => match (&call.method, input::id(id)) {
            (Method::Get | Method::Put, None) => Err(nothing("device")),
            (Method::Get, Some(id)) => severity(admin, id),
            (Method::Put, Some(id)) => put_severity(admin, call, id),
            _ => Ok(call.only("GET, HEAD, PUT")),
        },
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn nothing(what: &str) -> Answer {
    Answer::error(404, &format!("there is no such {what}"))
}

// ---------------------------------------------------------------- alerts

fn list(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let open = match call.query.get("state") {
        None | Some("" | "all") => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(input::invalid_field("state", "is not open, closed or all")),
    };
    let acknowledged = match call.query.get("acknowledged") {
        None | Some("") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(input::invalid_field("acknowledged", "is not true or false")),
    };
    let filter = AlertFilter {
        open,
        site_id: input::optional_id(call.query, "site_id")?,
        device_id: input::optional_id(call.query, "device_id")?,
        acknowledged,
    };
    let limit = input::number(call.query, "limit", 50, (1, 500))?;
    let offset = input::number(call.query, "offset", 0, (0, 1_000_000_000))?;
    let (alerts, total) = admin.store.alerts(&filter, limit, offset)?;
    Ok(Answer::json(
        200,
        &json!({"alerts": alerts, "total": total, "limit": limit, "offset": offset}),
    ))
}

fn show(admin: &Admin, id: i64) -> Result<Answer, Answer> {
    let (alert, comments) = admin.store.alert(id)?.ok_or_else(|| nothing("alert"))?;
    let mut shown = serde_json::to_value(alert).unwrap_or_default();
    shown["comments"] = json!(comments);
    Ok(Answer::json(200, &shown))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    #[serde(default)]
    comment: Option<String>,
}

fn acknowledge(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let given = if call.body.is_empty() {
        Acknowledgement::default()
    } else {
        input::read_json(call.body)?
    };
    let comment = match given.comment {
        Some(comment) if !comment.trim().is_empty() => Some(said("comment", &comment)?),
        _ => None,
    };
    let actor = call.caller.actor();
    if !admin
        .store
        .acknowledge_alert(&actor, id, comment.as_deref())?
    {
        return Err(nothing("alert"));
    }
    show(admin, id)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewComment {
    body: String,
}

fn comment(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let given: NewComment = input::read_json(call.body)?;
    let body = said("body", &given.body)?;
    if !admin.store.comment_alert(&call.caller.actor(), id, &body)? {
        return Err(nothing("alert"));
    }
    show(admin, id)
}

/// What a person wrote: lines may be many, other control characters none.
fn said(field: &str, text: &str) -> Result<String, Answer> {
    let text = text.trim().replace("\r\n", "\n");
    if text.is_empty() {
        Err(input::invalid_field(field, "is empty"))
    } else if text.chars().count() > TEXT_MAX {
        Err(input::invalid_field(
            field,
            format!("has more than {TEXT_MAX} characters"),
        ))
    } else if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        Err(input::invalid_field(field, "has a control character"))
    } else {
        Ok(text)
    }
}

// ----------------------------------------------------------- maintenance

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowDocument {
    site_id: i64,
    #[serde(default)]
    device_id: Option<i64>,
    #[serde(default)]
    building: Option<String>,
    #[serde(default)]
    floor: Option<String>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    starts_at: Option<Timestamp>,
    ends_at: Timestamp,
    #[serde(default)]
    reason: String,
}

impl WindowDocument {
    /// A device where one is named, a room where one of its three parts is,
    /// else the whole site. Without a start it starts now.
    fn check(self, now: Timestamp) -> Result<NewWindow, Vec<FieldError>> {
        let mut errors = Vec::new();
        let starts_at = self.starts_at.unwrap_or(now);
        if self.ends_at <= starts_at {
            errors.push(FieldError::new("ends_at", "is not after starts_at"));
        } else if self.ends_at.duration_since(starts_at).as_hours() > WINDOW_MAX_DAYS * 24 {
            errors.push(FieldError::new(
                "ends_at",
                format!("is more than {WINDOW_MAX_DAYS} days after starts_at"),
            ));
        }
        for (field, at) in [("starts_at", starts_at), ("ends_at", self.ends_at)] {
            if at.as_second() < 0 {
                errors.push(FieldError::new(field, "is before 1970"));
            }
        }
        let place = [&self.building, &self.floor, &self.room];
        for (field, value) in ["building", "floor", "room"].into_iter().zip(place) {
            input::check_text(
                &mut errors,
                field,
                value.as_deref().unwrap_or_default(),
                200,
            );
        }
        input::check_text(&mut errors, "reason", &self.reason, TEXT_MAX);
        let in_room = place.iter().any(|part| part.is_some());
        let scope = match self.device_id {
            Some(_) if in_room => {
                errors.push(FieldError::new(
                    "device_id",
                    "cannot be given together with a room",
                ));
                Scope::Site
            }
            Some(device) => Scope::Device(device),
            None if in_room => Scope::Room {
                building: self.building.unwrap_or_default(),
                floor: self.floor.unwrap_or_default(),
                room: self.room.unwrap_or_default(),
            },
            None => Scope::Site,
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(NewWindow {
            site_id: self.site_id,
            scope,
            starts_at,
            ends_at: self.ends_at,
            reason: self.reason,
        })
    }
}

fn list_windows(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let site = input::optional_id(call.query, "site_id")?;
    let windows = admin
        .store
        .windows(site, input::flag(call.query, "past")?)?;
    Ok(Answer::json(200, &json!({"windows": windows})))
}

fn show_window(admin: &Admin, id: i64) -> Result<Answer, Answer> {
    let window = admin
        .store
        .window(id)?
        .ok_or_else(|| nothing("maintenance window"))?;
    Ok(Answer::json(200, &window))
}

fn put_window(admin: &Admin, call: &Call<'_>, id: Option<i64>) -> Result<Answer, Answer> {
    let document: WindowDocument = input::read_json(call.body)?;
    let new = document
        .check(Timestamp::now())
        .map_err(|errors| input::invalid(&errors))?;
    let stored = admin.store.put_window(&call.caller.actor(), id, &new)?;
    let stored = stored.map_err(|error| match error {
        WindowError::NoSite => input::invalid_field("site_id", "there is no such site"),
        WindowError::NoDevice => input::invalid_field("device_id", "the site has no such device"),
        WindowError::NoWindow => nothing("maintenance window"),
    })?;
    created(id, "maintenance", stored, show_window(admin, stored)?)
}

fn delete_window(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    if admin.store.delete_window(&call.caller.actor(), id)? {
        Ok(Answer::done())
    } else {
        Err(nothing("maintenance window"))
    }
}

/// 201 with the place of what is new; what was changed stays as it is.
fn created(id: Option<i64>, what: &str, stored: i64, shown: Answer) -> Result<Answer, Answer> {
    Ok(match id {
        Some(_) => shown,
        None => {
            let mut shown = shown.with("Location", format!("/admin/{what}/{stored}"));
            shown.status = 201;
            shown
        }
    })
}

// -------------------------------------------------------------- channels

/// A channel as it is sent in. What is left out keeps its value on PUT.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelDocument {
    name: String,
    kind: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    site_id: Option<i64>,
    #[serde(default)]
    min_severity: Option<String>,
    #[serde(default = "yes")]
    notify_closed: bool,
    #[serde(default)]
    recipients: Option<Vec<String>>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    collect_s: Option<i32>,
    #[serde(default)]
    digest_minutes: Option<i32>,
    #[serde(default)]
    timezone: Option<String>,
    #[serde(default)]
    quiet_from: Option<String>,
    #[serde(default)]
    quiet_to: Option<String>,
    #[serde(default = "yes")]
    critical_passes: bool,
}

fn yes() -> bool {
    true
}

/// A channel as it is shown: never its secret, and of its URL the host alone.
#[derive(Serialize)]
struct ShownChannel<'a> {
    id: i64,
    name: &'a str,
    kind: &'static str,
    enabled: bool,
    site_id: Option<i64>,
    min_severity: &'a str,
    notify_closed: bool,
    recipients: Option<&'a [String]>,
    url: Option<String>,
    secret: Option<&'static str>,
    collect_s: i32,
    digest_minutes: i32,
    timezone: &'a str,
    quiet_from: Option<&'a str>,
    quiet_to: Option<&'a str>,
    critical_passes: bool,
    waiting: i64,
    last_sent_at: Option<Timestamp>,
    last_error: Option<&'a str>,
    last_error_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

fn shown(channel: &Channel) -> ShownChannel<'_> {
    let settings = &channel.settings;
    let (kind, recipients, url, secret) = match &settings.destination {
        Destination::Mail(recipients) => ("mail", Some(recipients.as_slice()), None, None),
        Destination::Webhook { url, .. } => {
            ("webhook", None, Some(shown_url(url.expose())), Some(HIDDEN))
        }
    };
    ShownChannel {
        id: channel.id,
        name: &settings.name,
        kind,
        enabled: settings.enabled,
        site_id: settings.site_id,
        min_severity: &settings.min_severity,
        notify_closed: settings.notify_closed,
        recipients,
        url,
        secret,
        collect_s: settings.collect_s,
        digest_minutes: settings.digest_minutes,
        timezone: &settings.timezone,
        quiet_from: settings.quiet.as_ref().map(|(from, _)| from.as_str()),
        quiet_to: settings.quiet.as_ref().map(|(_, to)| to.as_str()),
        critical_passes: settings.critical_passes,
        waiting: channel.waiting,
        last_sent_at: channel.last_sent_at,
        last_error: channel.last_error.as_deref(),
        last_error_at: channel.last_error_at,
        created_at: channel.created_at,
        updated_at: channel.updated_at,
    }
}

/// `https://hooks.example.org/***`: with many receivers the path is the key.
pub(super) fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = if path.len() > 1 { "/***" } else { path };
    format!("{scheme}://{host}{path}")
}

fn check_url(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("does not start with http:// or https://");
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme != "http" && scheme != "https" {
        Some("does not start with http:// or https://")
    } else if host.is_empty() {
        Some("has no host")
    } else if host.contains('@') {
        Some("has a user name: the signature says who sends")
    } else if url.len() > 2000 || url.parse::<ureq::http::Uri>().is_err() {
        Some("is not a URL")
    } else {
        None
    }
}

impl ChannelDocument {
    fn check(self, old: Option<&ChannelSettings>) -> Result<ChannelSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        input::check_name(&mut errors, "name", &self.name, 200);
        let min_severity = self.min_severity.unwrap_or_else(|| "warning".to_owned());
        if !matches!(min_severity.as_str(), "warning" | "critical") {
            errors.push(FieldError::new(
                "min_severity",
                "is not warning or critical",
            ));
        }
        let collect_s = self.collect_s.unwrap_or(30);
        if !(0..=3600).contains(&collect_s) {
            errors.push(FieldError::new("collect_s", "is not from 0 to 3600"));
        }
        let digest_minutes = self.digest_minutes.unwrap_or(0);
        if !(0..=10_080).contains(&digest_minutes) {
            errors.push(FieldError::new("digest_minutes", "is not from 0 to 10080"));
        }
        let timezone = self.timezone.unwrap_or_else(|| "UTC".to_owned());
        if zone(&timezone).is_none() {
            errors.push(FieldError::new("timezone", "is not an IANA time zone"));
        }
        for (field, value) in [
            ("quiet_from", &self.quiet_from),
            ("quiet_to", &self.quiet_to),
        ] {
            if value.as_ref().is_some_and(|text| !is_clock(text)) {
                errors.push(FieldError::new(field, "is not a time such as 22:00"));
            }
        }
        if self.quiet_from.is_some() != self.quiet_to.is_some() {
            let missing = if self.quiet_from.is_none() {
                "quiet_from"
            } else {
                "quiet_to"
            };
            errors.push(FieldError::new(
                missing,
                "is missing: quiet hours have both",
            ));
        }
        let old = old.map(|old| &old.destination);
        let destination = match self.kind.as_str() {
            "mail" => {
                for (field, given) in [
                    ("url", self.url.is_some()),
                    ("secret", self.secret.is_some()),
                ] {
                    if given {
                        errors.push(FieldError::new(field, "is not one of a mail channel"));
                    }
                }
                check_mail(&mut errors, self.recipients, old)
            }
            "webhook" => {
                if self.recipients.is_some() {
                    errors.push(FieldError::new("recipients", "are not those of a webhook"));
                }
                check_webhook(&mut errors, self.url, self.secret, old)
            }
            _ => {
                errors.push(FieldError::new("kind", "is not mail or webhook"));
                Destination::Mail(Vec::new())
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(ChannelSettings {
            name: self.name,
            enabled: self.enabled,
            site_id: self.site_id,
            min_severity,
            notify_closed: self.notify_closed,
            destination,
            collect_s,
            digest_minutes,
            timezone,
            quiet: self.quiet_from.zip(self.quiet_to),
            critical_passes: self.critical_passes,
        })
    }
}

fn is_clock(text: &str) -> bool {
    text.len() == 5 && text.parse::<Time>().is_ok()
}

fn check_mail(
    errors: &mut Vec<FieldError>,
    recipients: Option<Vec<String>>,
    old: Option<&Destination>,
) -> Destination {
    let recipients = match (recipients, old) {
        (Some(given), _) => given,
        (None, Some(Destination::Mail(old))) => old.clone(),
        (None, _) => Vec::new(),
    };
    if recipients.is_empty() || recipients.len() > 100 {
        errors.push(FieldError::new(
            "recipients",
            "are not from 1 to 100 mail addresses",
        ));
    }
    for (i, recipient) in recipients.iter().enumerate() {
        if !is_mail_address(recipient) {
            errors.push(FieldError::new(
                format!("recipients[{i}]"),
                "is not a mail address",
            ));
        }
    }
    Destination::Mail(recipients)
}

/// What is left out, or sent back as it was shown, stays what it was.
fn check_webhook(
    errors: &mut Vec<FieldError>,
    url: Option<String>,
    secret: Option<String>,
    old: Option<&Destination>,
) -> Destination {
    let old = match old {
        Some(Destination::Webhook { url, secret }) => Some((url, secret)),
        _ => None,
    };
    let kept_url = old.filter(|(old, _)| {
        url.as_ref()
            .is_none_or(|new| *new == shown_url(old.expose()))
    });
    let url = match (kept_url, url) {
        (Some((old, _)), _) => old.clone(),
        (None, Some(new)) => {
            if let Some(problem) = check_url(&new) {
                errors.push(FieldError::new("url", problem));
            }
            Secret::new(new)
        }
        (None, None) => {
            errors.push(FieldError::new("url", "is missing"));
            Secret::new("")
        }
    };
    let kept_secret = old.filter(|_| secret.as_deref().is_none_or(|new| new == HIDDEN));
    let secret = match (kept_secret, secret) {
        (Some((_, old)), _) => old.clone(),
        (None, Some(new)) => {
            if !(SECRET_MIN..=1000).contains(&new.len()) || new.contains('\0') {
                errors.push(FieldError::new(
                    "secret",
                    format!("is not from {SECRET_MIN} to 1000 bytes long"),
                ));
            }
            Secret::new(new)
        }
        (None, None) => {
            errors.push(FieldError::new(
                "secret",
                "is missing: it signs the messages",
            ));
            Secret::new("")
        }
    };
    Destination::Webhook { url, secret }
}

fn list_channels(admin: &Admin) -> Result<Answer, Answer> {
    let channels = admin.store.channels()?;
    let channels: Vec<_> = channels.iter().map(shown).collect();
    Ok(Answer::json(200, &json!({"channels": channels})))
}

fn show_channel(admin: &Admin, id: i64) -> Result<Answer, Answer> {
    let channel = admin.store.channel(id)?.ok_or_else(|| nothing("channel"))?;
    Ok(Answer::json(200, &shown(&channel)))
}

fn put_channel(admin: &Admin, call: &Call<'_>, id: Option<i64>) -> Result<Answer, Answer> {
    call.require(Role::Admin)?;
    let document: ChannelDocument = input::read_json(call.body)?;
    let old = match id {
        None => None,
        Some(id) => Some(admin.store.channel(id)?.ok_or_else(|| nothing("channel"))?),
    };
    let new = document
        .check(old.as_ref().map(|old| &old.settings))
        .map_err(|errors| input::invalid(&errors))?;
    let stored = match admin.store.put_channel(&call.caller.actor(), id, &new) {
        Ok(stored) => stored.map_err(|error| match error {
            ChannelError::NoSite => input::invalid_field("site_id", "there is no such site"),
            ChannelError::NoChannel => nothing("channel"),
        })?,
        Err(StoreError::Taken(_)) => {
            return Err(Answer::json(
                409,
                &json!({"error": "name: is another channel's",
                        "fields": [FieldError::new("name", "is another channel's")]}),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    created(id, "channels", stored, show_channel(admin, stored)?)
}

fn delete_channel(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    call.require(Role::Admin)?;
    if admin.store.delete_channel(&call.caller.actor(), id)? {
        Ok(Answer::done())
    } else {
        Err(nothing("channel"))
    }
}

fn test_channel(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let channel = admin.store.channel(id)?.ok_or_else(|| nothing("channel"))?;
    if !channel.settings.enabled {
        return Err(Answer::error(409, "the channel is not enabled"));
    }
    let body = Body::test(Timestamp::now(), &channel.settings).to_json();
    let message = admin
        .store
        .add_test_message(&call.caller.actor(), id, &body)?
        .ok_or_else(|| nothing("channel"))?;
    Ok(Answer::json(202, &json!({"message_id": message})))
}

fn messages(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    if admin.store.channel(id)?.is_none() {
        return Err(nothing("channel"));
    }
    let limit = input::number(call.query, "limit", 50, (1, 500))?;
    let messages = admin.store.channel_messages(id, limit)?;
    Ok(Answer::json(200, &json!({"messages": messages})))
}

// --------------------------------------------------------------- devices

fn days(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let limit = input::number(call.query, "limit", 400, (1, 4000))?;
    if admin.store.alert_severity(id)?.is_none() {
        return Err(nothing("device"));
    }
    let days = admin.store.device_days(id, limit)?;
    Ok(Answer::json(200, &json!({"days": days})))
}

fn severity(admin: &Admin, id: i64) -> Result<Answer, Answer> {
    let severity = admin
        .store
        .alert_severity(id)?
        .ok_or_else(|| nothing("device"))?;
    Ok(Answer::json(200, &json!({"severity": severity})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Severity {
    severity: String,
}

fn put_severity(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Answer> {
    let given: Severity = input::read_json(call.body)?;
    if !matches!(given.severity.as_str(), "warning" | "critical") {
        return Err(input::invalid_field(
            "severity",
            "is not warning or critical",
        ));
    }
    let actor = call.caller.actor();
    if !admin
        .store
        .set_alert_severity(&actor, id, &given.severity)?
    {
        return Err(nothing("device"));
    }
    severity(admin, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems<T>(result: Result<T, Vec<FieldError>>) -> Vec<String> {
        result
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn channel(document: &str) -> ChannelDocument {
        serde_json::from_str(document).unwrap()
    }

    #[test]
    fn a_url_shows_its_host_alone() {
        for (url, expected) in [
            (
                "https://hooks.example.org/services/T1/B2/key",
                "https://hooks.example.org/***",
            ),
            ("https://h:8443?key=1", "https://h:8443/***"),
            ("http://h/", "http://h/"),
            ("http://h", "http://h"),
        ] {
            assert_eq!(shown_url(url), expected);
        }
    }

    #[test]
    fn every_problem_of_a_channel_is_named() {
        for (document, expected) in [
            (
                r#"{"name":" ","kind":"mail","recipients":["a@b.org","nobody"],"url":"x",
                    "min_severity":"x","collect_s":-1,"digest_minutes":99999,"timezone":"Mars/Base",
                    "quiet_from":"25:00"}"#,
                &[
                    "name: is empty",
                    "min_severity: is not warning or critical",
                    "collect_s: is not from 0 to 3600",
                    "digest_minutes: is not from 0 to 10080",
                    "timezone: is not an IANA time zone",
                    "quiet_from: is not a time such as 22:00",
                    "quiet_to: is missing: quiet hours have both",
                    "url: is not one of a mail channel",
                    "recipients[1]: is not a mail address",
                ][..],
            ),
            (
                r#"{"name":"a","kind":"webhook"}"#,
                &[
                    "url: is missing",
                    "secret: is missing: it signs the messages",
                ],
            ),
            (
                r#"{"name":"a","kind":"webhook","url":"ftp://h","secret":"short","recipients":[]}"#,
                &[
                    "recipients: are not those of a webhook",
                    "url: does not start with http:// or https://",
                    "secret: is not from 16 to 1000 bytes long",
                ],
            ),
            (
                r#"{"name":"a","kind":"webhook","url":"http://u:p@h/","secret":"0123456789abcdef"}"#,
                &["url: has a user name: the signature says who sends"],
            ),
            (
                r#"{"name":"a","kind":"fax"}"#,
                &["kind: is not mail or webhook"],
            ),
        ] {
            assert_eq!(
                problems(channel(document).check(None)),
                expected,
                "{document}"
            );
        }
    }

    #[test]
    fn what_was_shown_and_comes_back_stays_what_it_was() {
        let old = channel(
            r#"{"name":"a","kind":"webhook","url":"https://h/key","secret":"0123456789abcdef"}"#,
        )
        .check(None)
        .unwrap();
        for document in [
            r#"{"name":"b","kind":"webhook"}"#,
            r#"{"name":"b","kind":"webhook","url":"https://h/***","secret":"***"}"#,
        ] {
            let new = channel(document).check(Some(&old)).unwrap();
            assert_eq!(new.destination, old.destination, "{document}");
            assert_eq!(new.name, "b");
        }
        let new = channel(r#"{"name":"b","kind":"webhook","url":"https://other/"}"#)
            .check(Some(&old))
            .unwrap();
        assert!(
            matches!(&new.destination, Destination::Webhook { url, secret }
            if url.expose() == "https://other/" && secret.expose() == "0123456789abcdef")
        );
    }

    #[test]
    fn what_a_window_covers() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let check = |document: &str| {
            serde_json::from_str::<WindowDocument>(document)
                .unwrap()
                .check(now)
        };
        let window = check(r#"{"site_id":1,"ends_at":"2026-11-24T11:00:00Z"}"#).unwrap();
        assert_eq!((window.scope, window.starts_at), (Scope::Site, now));
        let window =
            check(r#"{"site_id":1,"room":"101","ends_at":"2026-11-24T11:00:00Z"}"#).unwrap();
        assert_eq!(
            window.scope,
            Scope::Room {
                building: String::new(),
                floor: String::new(),
                room: "101".to_owned()
            }
        );
        assert_eq!(
            problems(check(
                r#"{"site_id":1,"device_id":2,"room":"101","ends_at":"2026-11-24T10:00:00Z"}"#
            )),
            [
                "ends_at: is not after starts_at",
                "device_id: cannot be given together with a room",
            ]
        );
        assert_eq!(
            problems(check(r#"{"site_id":1,"ends_at":"2028-01-01T00:00:00Z"}"#)),
            ["ends_at: is more than 366 days after starts_at"]
        );
    }
}
