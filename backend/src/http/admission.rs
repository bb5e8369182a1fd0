//! What is to be done with a request, by its head: monitoring comes before
//! people, and people before strangers.

use av_service::http::{Admission, Admit, Class, Method, Request};

use super::site_token::{announce, presented};
use super::target::{Target, none_match};
use super::{App, live};
use crate::admin::{Asked, file};
use crate::answer::Answer;
use crate::store::sites::TokenDigest;

/// Requests for health and metrics that wait, from which on others get what was
/// found a moment ago.
const CROWD: usize = 4;

impl Admit for App {
    fn admit(&self, request: &Request) -> Admission {
        let target = Target::parse(request.url());
        match self.at_once(request, &target) {
            Some(answer) => {
                self.note_answer(request, &target, &answer);
                Admission::Answer(answer.into_http())
            }
            None => Admission::Queue(self.class(request, &target)),
        }
    }
}

impl App {
    /// The answer, where it is in memory.
    fn at_once(&self, request: &Request, target: &Target) -> Option<Answer> {
        let known = match target {
            // What opens something here is a secret, which no foreign page has.
            Target::Config(_)
            | Target::ConfigByHeader
            | Target::BelowConfig(_)
            | Target::Ingest
            | Target::Suggestions
            | Target::RenewToken => return self.unchanged(request, target),
            Target::Admin(path, _) if path == &["enroll"] => true,
            _ => self.hosts.knows(request.host()) || self.shows_token(request),
        };
        if !known {
            return Some(Answer::error(
                421,
                "this server does not answer to that name: set AV_PUBLIC_URL to the address that people use, or name it in AV_HOSTS",
            ));
        }
        if !matches!(request.method(), Method::Get | Method::Head) {
            return None;
        }
        match target {
            Target::Live => Some(live()),
            Target::Health if self.is_crowded() => self.looks.recent_health(),
            Target::Metrics if self.is_crowded() && presented(request).is_none() => {
                let page = self.metrics_page(self.looks.recent_counts()?.as_ref());
                Some(Answer::text(av_proto::exposition::CONTENT_TYPE, page))
            }
            Target::Admin(path, query) => match path.as_slice() {
                [first, name] if first == "static" => {
                    let asked = Asked {
                        mark: query.get("v"),
                        known: request.field("If-None-Match"),
                        accepts: request.field("Accept-Encoding"),
                    };
                    file(name, asked)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether more ask for health and metrics than look for them.
    fn is_crowded(&self) -> bool {
        self.edge.waiting(Class::Health) >= CROWD
    }

    /// Whether a request shows a token that is known, which no foreign page
    /// has. A cookie is not one: a browser sends it by itself.
    fn shows_token(&self, request: &Request) -> bool {
        let Some(token) = presented(request).map(TokenDigest::of) else {
            return false;
        };
        let known = &self.people.known;
        known.is_person(&token)
            || known.is_agent(&token)
            || self.people.settings.metrics_token.as_ref() == Some(&token)
    }

    /// The answer to a poll for which nothing changed.
    fn unchanged(&self, request: &Request, target: &Target) -> Option<Answer> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return None;
        }
        let token = match target {
            Target::Config(token) => token.as_str(),
            Target::ConfigByHeader => presented(request)?,
            _ => return None,
        };
        let given = request.field("If-None-Match")?;
        let config = self.configs.leased(&TokenDigest::of(token))?;
        let hash = config.hash.as_str();
        if !none_match(given, hash) || self.certificates.are_compared() {
            return None;
        }
        // A token that was set by hand may be one that is being guessed.
        if !self.people.guesses.may_look_up(self.sender(request), token) {
            return None;
        }
        self.configs.note_hit(&config);
        Some(announce(
            Answer::unchanged().with("ETag", format!("\"{hash}\"")),
        ))
    }

    fn class(&self, request: &Request, target: &Target) -> Class {
        let agent = |token: &str| match self.people.known.is_agent(&TokenDigest::of(token)) {
            true => Class::Agent,
            false => Class::Stranger,
        };
        match target {
            Target::Health | Target::Live => Class::Health,
            Target::Metrics => match presented(request).map(TokenDigest::of) {
                None => Class::Health,
                // A series of each device takes its time.
                shown if shown == self.people.settings.metrics_token => Class::Person,
                Some(_) => Class::Stranger,
            },
            Target::Config(token) | Target::BelowConfig(token) => agent(token),
            Target::ConfigByHeader | Target::Ingest | Target::Suggestions | Target::RenewToken => {
                presented(request).map_or(Class::Stranger, agent)
            }
            Target::Devices(_) | Target::Admin(..) | Target::Unknown => {
                let known = &self.people.known;
                let shown = self.people.shown(request);
                let person = shown.is_some_and(|token| known.is_person(&token));
                // A listing takes its time, and no worker of agents.
                let lists = matches!(target, Target::Devices(_))
                    && presented(request)
                        .is_some_and(|token| known.is_agent(&TokenDigest::of(token)));
                match person || lists {
                    true => Class::Person,
                    false => Class::Stranger,
                }
            }
        }
    }
}
