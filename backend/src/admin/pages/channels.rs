//! Channels: where messages of alerts go, how they fare, and their form.

use askama::Template;
use jiff::Timestamp;

use super::super::alerts::{HIDDEN, shown_url};
use super::html::{Frame, escape};
use super::{Admin, Call, Fact, Problem, admins_frame, frame, show, zones};
use crate::answer::Answer;
use crate::store::channels::{Channel, Destination, MessageSummary};

/// How many messages a channel's page lists.
const MESSAGES: i64 = 50;

/// A channel as a page shows it: never its key, and of its URL the host alone.
struct Line {
    id: i64,
    name: String,
    enabled: bool,
    kind: &'static str,
    to: String,
    site: Option<String>,
    severity: String,
    waiting: i64,
    last_sent_at: Option<Timestamp>,
    last_error: Option<String>,
}

fn line(f: &Frame, sites: &[(i64, String)], channel: &Channel) -> Line {
    let settings = &channel.settings;
    let (kind, to) = match &settings.destination {
        Destination::Mail(recipients) => ("channel.mail", recipients.join(", ")),
        Destination::Webhook { url, .. } => ("channel.webhook", shown_url(url.expose())),
    };
    Line {
        id: channel.id,
        name: settings.name.clone(),
        enabled: settings.enabled,
        kind: f.lang.t(kind),
        to,
        site: settings.site_id.and_then(|id| {
            let site = sites.iter().find(|(known, _)| *known == id);
            site.map(|(_, name)| name.clone())
        }),
        severity: settings.min_severity.clone(),
        waiting: channel.waiting,
        last_sent_at: channel.last_sent_at,
        last_error: channel.last_error.clone(),
    }
}

fn sites(admin: &Admin) -> Result<Vec<(i64, String)>, Problem> {
    let sites = admin.store.sites()?;
    Ok(sites.into_iter().map(|site| (site.id, site.name)).collect())
}

#[derive(Template)]
#[template(path = "channels.html")]
struct Page {
    f: Frame,
    channels: Vec<Line>,
}

/// `GET /channels`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = frame(call, "channels");
    let sites = sites(admin)?;
    let channels = admin.store.channels()?;
    let channels = channels
        .iter()
        .map(|channel| line(&f, &sites, channel))
        .collect();
    Ok(show(200, &Page { f, channels }))
}

#[derive(Template)]
#[template(path = "channel.html")]
struct One {
    f: Frame,
    channel: Line,
    facts: Vec<Fact>,
    messages: Vec<Message>,
}

struct Message {
    summary: MessageSummary,
    words: &'static str,
    class: &'static str,
}

/// `GET /channels/{id}`.
pub(super) fn one(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = frame(call, "channels");
    let channel = admin.store.channel(id)?.ok_or(Problem::None)?;
    let messages = admin
        .store
        .channel_messages(id, MESSAGES)?
        .into_iter()
        .map(|summary| {
            let (words, class) = match summary.state.as_str() {
                "sent" => ("message.sent", "ok"),
                "waiting" => ("message.waiting", "waiting"),
                _ => ("message.given_up", "fault"),
            };
            Message {
                summary,
                words: f.lang.t(words),
                class,
            }
        })
        .collect();
    let line = line(&f, &sites(admin)?, &channel);
    let facts = facts(&f, &line, &channel);
    Ok(show(
        200,
        &One {
            f,
            channel: line,
            facts,
            messages,
        },
    ))
}

fn facts(f: &Frame, line: &Line, channel: &Channel) -> Vec<Fact> {
    let (lang, settings) = (f.lang, &channel.settings);
    let yes = |given: bool| lang.t(if given { "yes" } else { "no" }).to_owned();
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        facts.push(Fact {
            name: name.to_owned(),
            value,
        });
    };
    add(lang.t("channel.kind"), line.kind.to_owned());
    add(lang.t("channel.to"), escape(&line.to));
    let site = line.site.as_deref();
    let site = site.map_or(lang.t("channel.sites.all").to_owned(), escape);
    add(lang.t("channel.sites"), site);
    let severity = lang.severity(&line.severity).to_owned();
    add(lang.t("channel.severity"), severity);
    add(lang.t("channel.closed"), yes(settings.notify_closed));
    if let Some((from, to)) = &settings.quiet {
        let hours = format!("{from}–{to} ({})", settings.timezone);
        add(lang.t("channel.quiet"), escape(&hours));
        add(lang.t("channel.critical"), yes(settings.critical_passes));
    }
    let sent = line.last_sent_at;
    let sent = sent.map_or_else(|| lang.t("never").to_owned(), |at| f.ago(at));
    add(lang.t("channel.sent"), sent);
    add(lang.t("channel.waiting"), line.waiting.to_string());
    facts
}

/// What the form is filled with.
struct Values {
    name: String,
    enabled: bool,
    webhook: bool,
    recipients: String,
    url: String,
    secret: &'static str,
    site: i64,
    severity: String,
    notify_closed: bool,
    collect_s: i32,
    digest_minutes: i32,
    timezone: String,
    quiet_from: String,
    quiet_to: String,
    critical_passes: bool,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            name: String::new(),
            enabled: true,
            webhook: false,
            recipients: String::new(),
            url: String::new(),
            secret: "",
            site: 0,
            severity: "warning".to_owned(),
            notify_closed: true,
            collect_s: 30,
            digest_minutes: 0,
            timezone: "Europe/Paris".to_owned(),
            quiet_from: String::new(),
            quiet_to: String::new(),
            critical_passes: true,
        }
    }
}

impl From<Channel> for Values {
    fn from(channel: Channel) -> Self {
        let settings = channel.settings;
        let mut values = Self {
            name: settings.name,
            enabled: settings.enabled,
            site: settings.site_id.unwrap_or(0),
            severity: settings.min_severity,
            notify_closed: settings.notify_closed,
            collect_s: settings.collect_s,
            digest_minutes: settings.digest_minutes,
            timezone: settings.timezone,
            critical_passes: settings.critical_passes,
            ..Self::default()
        };
        match settings.destination {
            Destination::Mail(recipients) => values.recipients = recipients.join("\n"),
            Destination::Webhook { url, .. } => {
                values.webhook = true;
                values.url = shown_url(url.expose());
                values.secret = HIDDEN;
            }
        }
        if let Some((from, to)) = settings.quiet {
            values.quiet_from = from;
            values.quiet_to = to;
        }
        values
    }
}

#[derive(Template)]
#[template(path = "channel_form.html")]
struct Form {
    f: Frame,
    title: String,
    id: Option<i64>,
    v: Values,
    sites: Vec<(i64, String)>,
    zones: Vec<String>,
}

/// `GET /channels/new`.
pub(super) fn new(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = admins_frame(call, "channels")?;
    let title = f.lang.t("channel.new").to_owned();
    form(admin, f, title, None, Values::default())
}

/// `GET /channels/{id}/edit`.
pub(super) fn edit(admin: &Admin, call: &Call<'_>, id: i64) -> Result<Answer, Problem> {
    let f = admins_frame(call, "channels")?;
    let channel = admin.store.channel(id)?.ok_or(Problem::None)?;
    let title = f.lang.with("device.edit", &channel.settings.name);
    form(admin, f, title, Some(id), channel.into())
}

fn form(
    admin: &Admin,
    f: Frame,
    title: String,
    id: Option<i64>,
    v: Values,
) -> Result<Answer, Problem> {
    let sites = sites(admin)?;
    Ok(show(
        200,
        &Form {
            f,
            title,
            id,
            v,
            sites,
            zones: zones(),
        },
    ))
}
