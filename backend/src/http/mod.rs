//! The HTTP server: routing, authorization and limits, and nothing else.

mod admission;
mod body;
mod client_certificate;
mod devices;
mod looks;
mod metrics;
mod pages;
mod series;
mod server;
mod site_token;
mod suggestions;
mod target;
mod token;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use av_proto::text::{excerpt, one_line};
use av_service::http::{Class, Edge, Exchange, Hosts, Method, Request};
use jiff::Timestamp;
use serde_json::json;

pub use client_certificate::ClientCertificates;
pub use server::{ListenError, Listener, Server};

use crate::admin::{Admin, Headers, Request as AdminRequest, Settings, TOKEN_PREFIX};
use crate::answer::Answer;
use crate::config::{ConfigError, Configs};
use crate::guesses::Guess;
use crate::ingest::{Ingest, IngestError};
use crate::known::Known;
use crate::store::devices::Counts;
use crate::store::reports::Outcome;
use crate::store::sites::{Site, TokenDigest};
use crate::store::{Store, StoreError};
use crate::url::Query;
use body::{AGENTS, BODY_LIMIT, BODY_MAX, BodyTurns, PEOPLE, STRANGER_LIMIT, STRANGERS};
use devices::Wanted;
use looks::Looks;
use metrics::Counters;
use pages::Pages;
use series::Series;
use site_token::{CHALLENGE, presented};
use target::{Target, none_match};

/// Connections to the database for those who are logged in.
const PEOPLE_CONNECTIONS: usize = 4;
/// And for those who are not known.
const STRANGER_CONNECTIONS: usize = 2;
/// And for what anybody may ask.
const LOOK_CONNECTIONS: usize = 2;

/// What the routes work with.
pub struct App {
    store: Arc<Store>,
    configs: Arc<Configs>,
    ingest: Ingest,
    /// For those who are logged in.
    people: Admin,
    /// For those who are not known: over connections of its own to the database.
    strangers: Admin,
    counters: Counters,
    agent_turns: BodyTurns,
    person_turns: BodyTurns,
    /// For those who are not known: they hold few threads, and not for long.
    stranger_turns: BodyTurns,
    hosts: Hosts,
    edge: Edge,
    certificates: ClientCertificates,
    looks: Looks,
}

impl App {
    /// The routes over this store, for requests of this edge.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        configs: Arc<Configs>,
        settings: Settings,
        edge: Edge,
        certificates: ClientCertificates,
    ) -> Self {
        let people = Arc::new(store.beside(PEOPLE_CONNECTIONS));
        let strangers = Arc::new(store.beside(STRANGER_CONNECTIONS));
        let looks = Looks::new(store.beside(LOOK_CONNECTIONS));
        let public = settings.public_url.as_deref().and_then(authority);
        let hosts = Hosts::new(settings.hosts.iter().cloned().chain(public));
        let people = Admin::new(people, settings);
        Self {
            ingest: Ingest::new(store.clone()),
            store,
            configs,
            strangers: people.beside(strangers),
            people,
            hosts,
            counters: Counters::default(),
            agent_turns: BodyTurns::new(AGENTS, BODY_LIMIT),
            person_turns: BodyTurns::new(PEOPLE, BODY_LIMIT),
            stranger_turns: BodyTurns::new(STRANGERS, STRANGER_LIMIT),
            edge,
            certificates,
            looks,
        }
    }

    /// The tokens that were right.
    #[must_use]
    pub(crate) fn known(&self) -> Arc<Known> {
        self.people.known.clone()
    }

    /// Notes that a thread failed and was started again.
    pub fn note_panic(&self) {
        self.counters.panicked();
    }

    /// Answers one request. A panic on the way is logged by the panic hook,
    /// counted, and answered with 500.
    fn serve(&self, mut exchange: Exchange) {
        let target = Target::parse(exchange.request().url());
        let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&target, &mut exchange)))
            .unwrap_or_else(|_| {
                self.note_panic();
                Answer::error(500, "an error in this program; the log says what")
            });
        self.note_answer(exchange.request(), &target, &answer);
        let answer = answer.packed_for(exchange.request());
        exchange.respond(answer.into_http());
    }

    fn note_answer(&self, request: &Request, target: &Target, answer: &Answer) {
        let route = target.route();
        self.counters.answered(route, answer.status);
        log::debug!("{} {route}: {}", request.method(), answer.status);
    }

    /// The turns in which a class reads bodies.
    fn turns_of(&self, class: Class) -> &BodyTurns {
        match class {
            Class::Agent => &self.agent_turns,
            Class::Person => &self.person_turns,
            Class::Health | Class::Stranger => &self.stranger_turns,
        }
    }

    /// The administrator's routes for a class.
    fn admin_of(&self, class: Class) -> &Admin {
        match class {
            Class::Stranger => &self.strangers,
            Class::Health | Class::Agent | Class::Person => &self.people,
        }
    }

    fn answer(&self, target: &Target, exchange: &mut Exchange) -> Answer {
        let request = exchange.request();
        // Whatever the path: no agent changes anything.
        let by_agent = is_change(request.method())
            && (matches!(target, Target::BelowConfig(_))
                || request.field("X-Site-Token").is_some());
        if by_agent && !target.is_api() {
            return self.not_allowed(request, target, target.allow().unwrap_or("GET, HEAD"));
        }
        let Some(allow) = target.allow() else {
            return Answer::error(404, "there is nothing here");
        };
        if !target.allows(request.method()) {
            return self.not_allowed(request, target, allow);
        }
        match target {
            Target::Config(token) => site_token::announce(self.config(request, token)),
            Target::ConfigByHeader => site_token::announce(match presented(request) {
                Some(token) => self.config(request, token),
                None => {
                    Answer::error(401, "there is no site token").with("WWW-Authenticate", CHALLENGE)
                }
            }),
            Target::Ingest => self.ingest(exchange),
            Target::Suggestions => self.suggestions(exchange),
            Target::RenewToken => self.renew_token(request),
            Target::Devices(query) => self
                .devices(request, query, self.admin_of(exchange.class()))
                .unwrap_or_else(|refusal| refusal),
            Target::Health => self.looks.health(),
            Target::Live => live(),
            Target::Metrics => self.metrics(request),
            Target::Admin(path, query) => self.admin(path, query, exchange),
            Target::BelowConfig(_) | Target::Unknown => Answer::error(404, "there is nothing here"),
        }
    }

    /// 405, with a word for an agent that wants to change what it is given: a
    /// person who looks for the reason finds it in both logs.
    fn not_allowed(&self, request: &Request, target: &Target, allow: &'static str) -> Answer {
        let said = format!("only {allow} is allowed here");
        let answer = |said: &str| Answer::error(405, said).with("Allow", allow);
        // Not of any other word: a client makes up as many methods as it likes,
        // and each line that is logged is kept for a while.
        if !is_change(request.method()) {
            return answer(&said);
        }
        let answer = answer(&format!(
            "{said}: an agent's configuration comes from this server and never goes to it; \
             an administrator changes it in the pages or with /admin"
        ));
        let token = match target {
            Target::Config(token) | Target::BelowConfig(token) => Some(token.as_str()),
            _ => presented(request),
        };
        let Some(token) = token else {
            return answer;
        };
        let guess = match self.guess(request, token) {
            Ok(guess) => guess,
            Err(blocked) => return blocked,
        };
        let (who, answer) = match self.strangers.store.site_by_token(&TokenDigest::of(token)) {
            Ok(Some((site, _))) => {
                guess.right();
                (
                    format!("the agent of site {}", one_line(&site.name)),
                    answer,
                )
            }
            Ok(None) => (
                "an agent whose token is not known".to_owned(),
                guess.wrong(answer),
            ),
            Err(_) => return answer,
        };
        // An agent tries again and again.
        let line = format!(
            "{who} wants to change its configuration ({} {}): refused",
            request.method(),
            target.route(),
        );
        if self.people.news.is_news(&line) {
            log::warn!("{line}; an administrator changes it here");
        }
        answer
    }

    /// A token with which this request may try to open a site.
    fn guess<'a>(&'a self, request: &Request, token: &'a str) -> Result<Guess<'a>, Answer> {
        self.people.guesses.begin(self.sender(request), token)
    }

    /// The address from which a request comes.
    fn sender(&self, request: &Request) -> Option<IpAddr> {
        let forwarded_for = request.all("X-Forwarded-For").next_back();
        self.people
            .sender_of(forwarded_for, Some(request.peer().ip()))
    }

    /// Whether a token may be looked up over the connections of agents: it is
    /// known, or a look over those of strangers finds its site.
    fn opens(&self, token: &str) -> Result<bool, StoreError> {
        let digest = TokenDigest::of(token);
        let known = &self.people.known;
        if known.is_agent(&digest) {
            return Ok(true);
        }
        let opens = self.strangers.store.site_by_token(&digest)?.is_some();
        if opens {
            known.add_agent(&digest);
        }
        Ok(opens)
    }

    /// The site that the token of a request opens.
    fn authorize(&self, request: &Request) -> Result<Site, Answer> {
        let Some(token) = presented(request) else {
            return Err(refused(&IngestError::Unauthorized));
        };
        let guess = self.guess(request, token)?;
        if !self.opens(token)? {
            return Err(guess.wrong(refused(&IngestError::Unauthorized)));
        }
        match self.ingest.site(token) {
            Ok((site, state)) => {
                if let Some(refusal) = self.certificates.refusal(&site.name, request) {
                    return Err(refusal);
                }
                self.ingest.note_use(token, state);
                guess.right();
                Ok(site)
            }
            Err(error @ IngestError::Unauthorized) => Err(guess.wrong(refused(&error))),
            Err(error) => Err(refused(&error)),
        }
    }

    fn renew_token(&self, request: &Request) -> Answer {
        let Some(token) = presented(request) else {
            return refused(&IngestError::Unauthorized);
        };
        let guess = match self.guess(request, token) {
            Ok(guess) => guess,
            Err(blocked) => return blocked,
        };
        match self.opens(token) {
            Ok(true) => {}
            Ok(false) => return guess.wrong(refused(&IngestError::Unauthorized)),
            Err(error) => return error.into(),
        }
        match self.certificate_refusal(request, token) {
            Some(refusal) => refusal,
            None => token::renew(&self.store, guess),
        }
    }

    /// The refusal of a request whose certificate is another site's. A token
    /// that opens no site is refused by its route.
    fn certificate_refusal(&self, request: &Request, token: &str) -> Option<Answer> {
        if !self.certificates.are_compared() {
            return None;
        }
        let digest = TokenDigest::of(token);
        if let Some(config) = self.configs.leased(&digest) {
            return self.certificates.refusal(&config.name, request);
        }
        match self.store.site_by_token(&digest) {
            Ok(found) => self.certificates.refusal(&found?.0.name, request),
            Err(error) => Some(error.into()),
        }
    }

    fn config(&self, request: &Request, token: &str) -> Answer {
        let guess = match self.guess(request, token) {
            Ok(guess) => guess,
            Err(blocked) => return blocked,
        };
        let unknown = || Answer::error(404, "no site has this token");
        match self.opens(token) {
            Ok(true) => {}
            Ok(false) => return guess.wrong(unknown()),
            Err(error) => return error.into(),
        }
        if let Some(refusal) = self.certificate_refusal(request, token) {
            return refusal;
        }
        let config = match self.configs.get(token) {
            Ok(config) => config,
            Err(ConfigError::UnknownToken) => return guess.wrong(unknown()),
            Err(ConfigError::Store(error)) => return error.into(),
            Err(ConfigError::Render(error)) => {
                log::error!("a configuration cannot be served: {error}");
                return Answer::error(500, &error.to_string());
            }
        };
        guess.right();
        let hash = config.hash.as_str();
        let unchanged = request
            .field("If-None-Match")
            .is_some_and(|known| none_match(known, hash));
        let answer = match unchanged {
            true => Answer::unchanged(),
            false => Answer::shared_json(200, config.body.clone()),
        }
        .with("ETag", format!("\"{hash}\""));
        if config.renew_token {
            answer.with("X-Token-Renewal", "requested")
        } else {
            answer
        }
    }

    fn ingest(&self, exchange: &mut Exchange) -> Answer {
        let site = match self.authorize(exchange.request()) {
            Ok(site) => site,
            Err(refusal) => return refusal,
        };
        let body = match self.turns_of(exchange.class()).read(exchange, BODY_MAX) {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        match self.ingest.take(&site, &body, Timestamp::now()) {
            Ok(Outcome::Repetition) => {
                Answer::json(200, &json!({"ok": true, "upserted": 0, "duplicate": true}))
            }
            Ok(Outcome::Taken { known, unknown: 0 }) => {
                Answer::json(200, &json!({"ok": true, "upserted": known}))
            }
            Ok(Outcome::Taken { known, unknown }) => {
                log::warn!(
                    "site {} reports {unknown} device(s) that are not configured",
                    one_line(&site.name)
                );
                Answer::json(
                    200,
                    &json!({"ok": true, "upserted": known, "unknown": unknown}),
                )
            }
            Err(error) => {
                log::warn!(
                    "a report of site {} was refused: {}",
                    one_line(&site.name),
                    excerpt(&error.to_string(), 300)
                );
                refused(&error)
            }
        }
    }

    fn suggestions(&self, exchange: &mut Exchange) -> Answer {
        let site = match self.authorize(exchange.request()) {
            Ok(site) => site,
            Err(refusal) => return refusal,
        };
        let body = match self.turns_of(exchange.class()).read(exchange, BODY_MAX) {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        suggestions::take(&self.store, &site, &body, Timestamp::now()).unwrap_or_else(|error| {
            log::warn!(
                "suggestions of site {} were refused: {}",
                one_line(&site.name),
                excerpt(&error.to_string(), 300)
            );
            refused(&error)
        })
    }

    fn admin(&self, path: &[String], query: &Query, exchange: &mut Exchange) -> Answer {
        let admin = self.admin_of(exchange.class());
        let wanted = admin_request(exchange.request(), path, query);
        // Authorize before reading the body.
        let access = match admin.admit(&wanted) {
            Ok(access) => access,
            Err(refusal) => return admin.as_page(&wanted, refusal),
        };
        let turns = self.turns_of(exchange.class());
        let body = match turns.read(exchange, access.body_max()) {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        let answer = admin.answer(&wanted, &access, &body);
        admin.as_page(&wanted, answer)
    }

    /// To a site's token its own site, to a user all of them.
    fn devices(&self, request: &Request, query: &Query, admin: &Admin) -> Result<Answer, Answer> {
        let own = match presented(request) {
            Some(token) if !token.starts_with(TOKEN_PREFIX) => Some(self.authorize(request)?),
            _ => {
                let path = ["devices".to_owned()];
                let wanted = admin_request(request, &path, query);
                if !admin.admit(&wanted)?.is_known() {
                    return Err(Answer::error(
                        401,
                        "log in, or send an API token or the site's own token",
                    )
                    .with("WWW-Authenticate", CHALLENGE));
                }
                None
            }
        };
        let wanted = Wanted::read(query)?;
        let site = match (&own, &wanted.site) {
            (None, None) => None,
            (Some(own), None) => Some(own.id),
            (None, Some(text)) => match admin.store.site_by_name_or_id(text)? {
                Some(site) => Some(site.id),
                None => return Err(Answer::error(404, "site: there is no such site")),
            },
            (Some(own), Some(text)) if *text == own.name || *text == own.id.to_string() => {
                Some(own.id)
            }
            // Not whether there is such a site.
            (Some(_), Some(_)) => {
                return Err(Answer::error(403, "site: this token is another site's"));
            }
        };
        Ok(devices::answer(&admin.store, site, &wanted))
    }

    fn metrics_page(&self, counts: Option<&Counts>) -> String {
        metrics::page(
            &self.counters,
            self.configs.counts(),
            self.ingest.counts(),
            &self.edge.counts(),
            counts,
        )
    }

    /// Counts to everybody; to who shows the token a series of each device too.
    fn metrics(&self, request: &Request) -> Answer {
        let with_series = match presented(request) {
            None => false,
            Some(token) => {
                let guess = match self.guess(request, token) {
                    Ok(guess) => guess,
                    Err(blocked) => return blocked,
                };
                let known = self.people.settings.metrics_token.as_ref();
                if known != Some(&TokenDigest::of(token)) {
                    let said = match known {
                        Some(_) => "this is not the token of AV_METRICS_TOKEN",
                        None => "AV_METRICS_TOKEN is not set: ask without a token",
                    };
                    return guess
                        .wrong(Answer::error(401, said).with("WWW-Authenticate", CHALLENGE));
                }
                guess.right();
                true
            }
        };
        let counts = self.looks.counts();
        let page = self.metrics_page(counts.as_ref());
        let content_type = av_proto::exposition::CONTENT_TYPE;
        if !with_series || counts.is_none() {
            return Answer::text(content_type, page);
        }
        let mut series = Series::new(self.people.store.clone());
        Answer::stream(
            content_type,
            Pages::new(page.into_bytes(), move |text: &mut Vec<u8>| {
                series.next(text)
            }),
        )
    }
}

/// A request as the administrator's part knows it.
fn admin_request<'a>(request: &Request, path: &'a [String], query: &'a Query) -> AdminRequest<'a> {
    let headers = Headers::new(request.fields());
    let peer = Some(request.peer().ip());
    AdminRequest::new(request.method(), path, query, headers, peer)
}

fn refused(error: &IngestError) -> Answer {
    let status = match error {
        IngestError::Unauthorized | IngestError::OtherSite => 401,
        IngestError::UnknownSite => 404,
        IngestError::Shape(_) => 400,
        IngestError::Store(error) => return error.clone().into(),
    };
    let answer = Answer::error(status, &excerpt(&error.to_string(), 500));
    if status == 401 {
        answer.with("WWW-Authenticate", CHALLENGE)
    } else {
        answer
    }
}

/// The program runs; nothing else is looked at.
fn live() -> Answer {
    Answer::json(
        200,
        &json!({"status": "alive", "version": env!("CARGO_PKG_VERSION")}),
    )
}

/// The host, and the port where it has one, of a public address.
fn authority(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next().map(str::to_owned)
}

/// Whether a method is one that changes what is at a path.
fn is_change(method: &Method) -> bool {
    matches!(method, Method::Put | Method::Patch | Method::Delete)
}
