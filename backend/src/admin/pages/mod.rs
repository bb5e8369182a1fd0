//! The pages of the web interface.
//!
//! The server makes whole pages. Scripts bring them up to date, and send what
//! people change to the JSON API: there is one place where it is checked.
//!
//! | module | what it holds |
//! |---|---|
//! | `door` | log-in and the first user |
//! | `dashboard`, `site`, `device`, `versions`, `alerts`, `users`, `account` | a page each, with its forms |
//! | `maintenance`, `channels`, `audit` | the same |
//! | `suggestions` | equipment that was found |
//! | `availability` | finished days, of a site and of a device |
//! | `chart` | a device's history as SVG |
//! | `html` | what pages have around them, and pieces that they share |
//! | `i18n`, `catalogue` | English and French |
//! | `assets` | style sheet and scripts |

mod account;
mod alerts;
mod assets;
mod audit;
mod availability;
mod catalogue;
mod channels;
mod chart;
mod dashboard;
mod device;
mod door;
mod html;
mod i18n;
mod maintenance;
mod problems;
mod site;
mod suggestions;
mod users;
mod versions;

use std::collections::HashMap;

use askama::Template;
use av_service::http::Method;
use jiff::Timestamp;

use super::Admin;
use super::context::{Call, Request};
use super::versions::agent::{AgentSync, agents};
use crate::answer::Answer;
use crate::store::pages::SitePage;
use crate::store::{Condition, StoreError};
pub(crate) use assets::{Asked, link};
use html::Frame;
use i18n::Lang;

/// What a browser may load and run: this server's own files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; \
    frame-ancestors 'none'; base-uri 'none'";

/// A page for anybody: `GET /login`, `GET /setup/{code}`. `None` where the path
/// is none of these.
pub(super) fn public(admin: &Admin, request: &Request<'_>) -> Option<Answer> {
    match request.path.as_slice() {
        ["login"] => Some(door::log_in(request)),
        ["setup", code] => Some(door::set_up(admin, request, code)),
        _ => None,
    }
}

/// What is shown in place of a page while the database cannot be used.
pub(super) fn waiting(request: &Request<'_>, condition: &Condition) -> Answer {
    door::waiting(request, condition).with("Retry-After", "2")
}

/// Why a page is not shown.
enum Problem {
    /// There is no such page.
    None,
    /// The user's role does not allow it.
    Role,
    /// The database does not answer.
    Store(StoreError),
    /// The API says why.
    Answered(Answer),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A file in the program, by its name.
pub(super) fn file(name: &str, asked: Asked<'_>) -> Option<Answer> {
    assets::serve(name, asked)
}

/// A page for a user who is logged in; `None` where there is none at the path.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    if call.method != Method::Get {
        return None;
    }
    let id = |text: &str| text.parse::<i64>().map_err(|_| Problem::None);
    let page = match *call.path {
        [] => dashboard::page(admin, call),
        ["sites", "new"] => site::new(call),
        ["sites", site] => id(site).and_then(|id| site::page(admin, call, id)),
        ["sites", site, "live"] => id(site).and_then(|id| site::live(admin, call, id)),
        ["sites", site, "edit"] => id(site).and_then(|id| site::edit(admin, call, id)),
        ["sites", site, "devices", "new"] => id(site).and_then(|id| device::new(admin, call, id)),
        ["sites", site, "import"] => id(site).and_then(|id| site::import(admin, call, id)),
        ["sites", site, "versions"] => id(site).and_then(|id| versions::page(admin, call, id)),
        ["sites", site, "versions", revision] => {
            id(site).and_then(|id| versions::one(admin, call, id, revision))
        }
        ["sites", site, "availability"] => {
            id(site).and_then(|id| availability::page(admin, call, id))
        }
        ["sites", site, "suggestions"] => {
            id(site).and_then(|id| suggestions::page(admin, call, id))
        }
        ["devices", device] => id(device).and_then(|id| device::page(admin, call, id)),
        ["devices", device, "edit"] => id(device).and_then(|id| device::edit(admin, call, id)),
        ["alerts"] => alerts::page(admin, call),
        ["maintenance"] => maintenance::page(admin, call),
        ["maintenance", "new"] => maintenance::new(admin, call),
        ["channels"] => channels::page(admin, call),
        ["channels", "new"] => channels::new(admin, call),
        ["channels", channel] => id(channel).and_then(|id| channels::one(admin, call, id)),
        ["channels", channel, "edit"] => id(channel).and_then(|id| channels::edit(admin, call, id)),
        ["audit"] => audit::page(admin, call),
        ["account"] => account::page(admin, call),
        ["users"] => users::page(admin, call),
        _ => Err(Problem::None),
    };
    Some(page.unwrap_or_else(|problem| refuse(call, &problem)))
}

fn frame(call: &Call<'_>, here: &'static str) -> Frame {
    Frame {
        lang: Lang::accepted(call.headers.get("accept-language")),
        user: call.caller.name.clone(),
        user_id: call.caller.user_id,
        role: call.caller.role,
        csrf: call.caller.csrf.clone(),
        here,
        now: Timestamp::now(),
        bare: false,
    }
}

/// The frame of a page that only an editor sees.
fn editors_frame(call: &Call<'_>, here: &'static str) -> Result<Frame, Problem> {
    let frame = frame(call, here);
    if frame.can_edit() {
        Ok(frame)
    } else {
        Err(Problem::Role)
    }
}

/// The frame of a page that only an administrator sees.
fn admins_frame(call: &Call<'_>, here: &'static str) -> Result<Frame, Problem> {
    let frame = frame(call, here);
    if frame.is_admin() {
        Ok(frame)
    } else {
        Err(Problem::Role)
    }
}

fn show(status: u16, template: &impl Template) -> Answer {
    match template.render() {
        Ok(body) => with_policy(Answer::html(status, body)),
        Err(error) => {
            log::error!("a page could not be made: {error}");
            Answer::error(500, "the page could not be made")
        }
    }
}

fn with_policy(answer: Answer) -> Answer {
    answer
        .with("Content-Security-Policy", POLICY)
        .with("Referrer-Policy", "same-origin")
        .with("Vary", "Accept-Language, Cookie")
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    f: Frame,
    title: &'static str,
    text: &'static str,
}

fn refuse(call: &Call<'_>, problem: &Problem) -> Answer {
    let f = frame(call, "");
    let (status, title, text) = match problem {
        Problem::Answered(answer) if answer.status >= 500 => (
            answer.status,
            f.lang.t("error.store.title"),
            f.lang.t("error.store"),
        ),
        Problem::None | Problem::Answered(_) => {
            (404, f.lang.t("error.none.title"), f.lang.t("error.none"))
        }
        Problem::Role => (403, f.lang.t("error.role.title"), f.lang.t("error.role")),
        Problem::Store(error) => {
            log::warn!("a page could not be read: {error}");
            (503, f.lang.t("error.store.title"), f.lang.t("error.store"))
        }
    };
    show(status, &ErrorPage { f, title, text })
}

/// The sites, or one, with whether their agents run what they should.
fn all_sites(admin: &Admin, only: Option<i64>) -> Result<Vec<SitePage>, Problem> {
    let mut sites = admin.store.site_pages(only)?;
    let mut agents: HashMap<i64, AgentSync> = agents(&admin.store, only)?
        .into_iter()
        .map(|agent| (agent.site_id, agent))
        .collect();
    for site in &mut sites {
        if let Some(agent) = agents.remove(&site.id) {
            site.wanted_hash = agent.wanted_hash;
            site.behind_since = agent.since;
            site.agent.config_error = agent.why;
        }
    }
    Ok(sites)
}

fn one_site(admin: &Admin, id: i64) -> Result<SitePage, Problem> {
    all_sites(admin, Some(id))?.pop().ok_or(Problem::None)
}

/// A verdict's count, as chips and counters show it.
struct Count {
    class: &'static str,
    words: &'static str,
    count: i64,
}

/// A name with its value, which is HTML.
struct Fact {
    name: String,
    value: String,
}

/// Building, floor and room in one line; `""` where nothing is known.
fn place(building: &str, floor: &str, room: &str) -> String {
    [building, floor, room]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" · ")
}

/// The names of the time zones that the pages suggest.
fn zones() -> Vec<String> {
    av_proto::zones::names()
        .filter(|name| name.contains('/') || *name == "UTC")
        .filter(|name| !name.starts_with("Etc/") && !name.starts_with("posix"))
        .map(str::to_owned)
        .collect()
}
