//! The administrator's API and pages, and who gets in.
//!
//! A request goes through two doors. [`Admin::admit`] looks at its head alone
//! and says who sent it, so that nobody's body is read who may not send one.
//! [`Admin::answer`] then finds the route. Each area is a file with a function
//! `route`, which answers `None` for a path that is not its own.
//!
//! | module | what it does |
//! |---|---|
//! | [`context`] | what a route knows of a request |
//! | `access` | sessions, API tokens, CSRF |
//! | `login` | log-in, log-out, the first user |
//! | `password` | argon2 |
//! | `secrets` | secrets masked, and put back |
//! | `users` | users, personal tokens, the audit log |
//! | `sites`, `devices`, `transfer` | what is watched: one by one, and in bulk |
//! | `suggestions` | equipment that agents found |
//! | `openapi` | the API described for programs |
//! | `enrolment` | codes with which agents enrol |
//! | `versions` | the history of configurations |
//! | `alerts` | alerts, maintenance, channels |
//! | `pages` | the web interface |

mod access;
mod alerts;
pub mod context;
mod csv_file;
mod devices;
mod draft;
mod enrolment;
mod input;
mod login;
mod merge_patch;
mod openapi;
mod pages;
pub mod password;
mod precondition;
pub(crate) mod secrets;
mod sites;
mod suggestions;
mod transfer;
mod users;
mod versions;

use std::sync::Arc;

use av_service::http::Method;

pub use access::Access;
pub(crate) use access::TOKEN_PREFIX;
pub use context::{Headers, Request};
pub use login::check_user_name;
pub(crate) use login::random_hex;
pub(crate) use pages::{Asked, link as asset};

use crate::answer::Answer;
use crate::guesses::Guesses;
use crate::known::Known;
use crate::news::News;
use crate::store::Store;
use crate::store::sites::TokenDigest;
use context::{Call, Role};

/// How the administrator's part is set up.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// A proxy that speaks TLS stands before this server: cookies go over TLS
    /// alone, and its `X-Forwarded-For` says where a request comes from.
    pub behind_tls: bool,
    /// The address under which people reach this server, without a slash at
    /// the end; for links in mails and on the terminal.
    pub public_url: Option<String>,
    /// Who shows the token of this digest gets a series of each device from
    /// `GET /metrics`.
    pub metrics_token: Option<TokenDigest>,
    /// Further names under which this server is asked.
    pub hosts: Vec<String>,
}

/// Connections to the database that count wrong tokens.
const GUESS_CONNECTIONS: usize = 2;

/// A file in the program, by its name.
pub(crate) fn file(name: &str, asked: Asked<'_>) -> Option<Answer> {
    pages::file(name, asked)
}

/// The administrator's routes.
pub struct Admin {
    pub(crate) store: Arc<Store>,
    pub(crate) settings: Settings,
    pub(crate) guesses: Arc<Guesses>,
    pub(crate) known: Arc<Known>,
    passwords: Arc<password::Passwords>,
    pub(crate) news: Arc<News>,
}

impl Admin {
    /// The routes over this store.
    #[must_use]
    pub fn new(store: Arc<Store>, settings: Settings) -> Self {
        Self {
            // Over connections of its own: tries take none from others.
            guesses: Arc::new(Guesses::new(Arc::new(store.beside(GUESS_CONNECTIONS)))),
            store,
            settings,
            known: Arc::default(),
            passwords: Arc::new(password::Passwords::new()),
            news: Arc::default(),
        }
    }

    /// The same routes over another store. What was counted and remembered is
    /// shared.
    pub(crate) fn beside(&self, store: Arc<Store>) -> Self {
        Self {
            store,
            settings: self.settings.clone(),
            guesses: self.guesses.clone(),
            known: self.known.clone(),
            passwords: self.passwords.clone(),
            news: self.news.clone(),
        }
    }

    /// Answers a request that [`Admin::admit`] let in.
    pub(crate) fn answer(&self, request: &Request<'_>, access: &Access, body: &[u8]) -> Answer {
        if let Some(answer) = login::route(self, request, access, body) {
            return answer;
        }
        if let Some(answer) = enrolment::enrol(self, request, body) {
            return answer;
        }
        if let Some(answer) = openapi::route(request) {
            return answer;
        }
        if request.method == Method::Get {
            if let Some(answer) = pages::public(self, request) {
                return answer;
            }
        }
        let Some(caller) = access.caller() else {
            return access::ask_to_log_in(request);
        };
        if let Err(refusal) = access::check_forgery(self, request, caller, body) {
            return refusal;
        }
        let api = request.is_api();
        let call = Call {
            method: request.method.clone(),
            path: request.path.get(usize::from(api)..).unwrap_or_default(),
            query: request.query,
            headers: &request.headers,
            body,
            caller,
        };
        let answer = if api {
            self.api(&call)
        } else {
            pages::route(self, &call)
        };
        answer.unwrap_or_else(|| Answer::error(404, "there is nothing here"))
    }

    /// A 503 for a person who looks at a page: as a page, which looks again by
    /// itself. Also the page to log in with, which is of no use without the
    /// database.
    pub(crate) fn as_page(&self, request: &Request<'_>, answer: Answer) -> Answer {
        let by_browser = request
            .headers
            .get("accept")
            .is_some_and(|accept| accept.contains("text/html"));
        let page = by_browser
            && !request.is_api()
            && !matches!(request.path.first(), Some(&"static" | &"enroll"));
        let refused = answer.status == 503 && answer.is_json();
        // What the pool knows of a database that was there may be old.
        let useless = request.path == ["login"] && !self.store.is_ready();
        if page && (refused || useless) {
            let condition = self.store.condition();
            return pages::waiting(request, &condition);
        }
        answer
    }

    fn api(&self, call: &Call<'_>) -> Option<Answer> {
        if let Err(refusal) = least_role(call) {
            return Some(refusal);
        }
        users::route(self, call)
            .or_else(|| sites::route(self, call))
            .or_else(|| devices::route(self, call))
            .or_else(|| suggestions::route(self, call))
            .or_else(|| transfer::route(self, call))
            .or_else(|| versions::route(self, call))
            .or_else(|| enrolment::route(self, call))
            .or_else(|| alerts::route(self, call))
    }
}

/// The least role for a path, before its route may ask for more: what changes
/// something takes an editor, users and the audit log an administrator, and
/// one's own account nothing.
fn least_role(call: &Call<'_>) -> Result<(), Answer> {
    match call.path.first().copied() {
        Some("users" | "audit") => call.require(Role::Admin),
        Some("me" | "tokens") => Ok(()),
        _ if call.method == Method::Get => Ok(()),
        _ => call.require(Role::Editor),
    }
}
