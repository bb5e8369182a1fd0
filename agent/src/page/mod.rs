//! The `page` thread: status page, JSON and metrics, from snapshots alone.

mod api;
mod assets;
mod html;
mod metrics;
mod order;
mod origin;
mod times;

pub(crate) use order::natural;
pub(crate) use times::{local, span, with_age};

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_service::http::{Arrival, Edge, Limits, TooManyStuck};
use av_service::progress;
use crossbeam_channel::Sender;
use tiny_http::{Header, Method, Request, Response};

use crate::clock::Clock;
use crate::config::ConfigHandle;
use crate::driver::Drivers;
use crate::snapshot::Snapshots;
use crate::supervisor::{Health, Stop, stopped};

/// Each has a thread, of which the agent has 64 in all.
const CONNECTIONS: usize = 24;
/// So many requests that claim more than memory holds are answered before the
/// page must close.
const STUCK_MAX: usize = 8;
/// An agent that has run for less does not start anew to open its page again.
const CLOSED_WITHIN: Duration = Duration::from_secs(3600);
/// How often the edge is looked after: each time costs a connection.
const GUARD_EVERY: Duration = Duration::from_secs(1);

/// What the pages are made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The running configuration.
    pub handle: ConfigHandle,
    /// What the threads show of themselves.
    pub snapshots: Snapshots,
    /// For what they count.
    pub drivers: Arc<Drivers>,
    /// The time.
    pub clock: Clock,
    /// The panics that were survived.
    pub health: Health,
    /// When the agent started.
    pub started: Instant,
    /// Between two polls of the backend.
    pub sync_interval: Duration,
    /// Why the configuration's backup serves, where it does.
    pub fallback: Option<String>,
}

/// The page's parts. Clones answer from the same listener, so that one slow
/// reader does not hold up the rest.
#[derive(Clone)]
pub struct Page {
    /// The listener.
    pub edge: Edge,
    /// What the pages are made from.
    pub sources: Sources,
    /// Asks `sync` for a poll.
    pub sync_now: Sender<()>,
    /// Asks the collector for a sweep.
    pub sweep_now: Sender<()>,
    /// The stop signal.
    pub stop: Stop,
}

/// Opens the page's listener.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<Edge> {
    let limits = Limits {
        connections: CONNECTIONS,
        stuck: STUCK_MAX,
        ..Limits::default()
    };
    TcpListener::bind(address)
        .and_then(|socket| Edge::open(socket, limits))
        .map_err(|error| io::Error::other(format!("{address}: {error}")))
}

/// Looks after the listener until the stop signal.
pub fn guard(edge: &Edge, stop: &Stop) {
    let waits = |pause| {
        progress::waits();
        stopped(stop, pause)
    };
    if let Err(error) = edge.guard(GUARD_EVERY, waits) {
        log::error!("❌ Status page: nobody looks after its connections: {error}");
    }
}

impl Page {
    /// Answers until the stop signal, or until the agent must start anew.
    pub fn run(&mut self) {
        while !stopped(&self.stop, Duration::ZERO) {
            progress::moves();
            let served = match self.edge.recv() {
                Ok(Some(arrival)) => {
                    let response = self.answer(&arrival);
                    arrival.respond(secured(response))
                }
                Ok(None) => Ok(()),
                Err(stuck) => Err(stuck),
            };
            if let Err(problem) = served {
                self.close(problem);
                return;
            }
        }
    }

    /// Stays closed. Whoever reaches the page can bring it to this, and is not
    /// to take the watching with it: only an agent that has run for long starts
    /// anew for its page.
    fn close(&self, problem: TooManyStuck) {
        let left = || CLOSED_WITHIN.saturating_sub(self.sources.started.elapsed());
        if self.edge.close() {
            log::error!(
                "❌ Status page: {problem}. It is closed; devices are watched, and the agent starts again in {} min",
                left().as_secs().div_ceil(60)
            );
        }
        while !left().is_zero() && !stopped(&self.stop, Duration::from_secs(1)) {
            progress::moves();
        }
    }

    fn answer(&self, arrival: &Arrival) -> Answer {
        if let Err(problem) = &arrival.frame {
            return error(400, &problem.to_string());
        }
        let request = &arrival.request;
        let path = request
            .url()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        match (request.method(), path.as_str()) {
            (Method::Get | Method::Head, path) => self.get(path),
            (Method::Post, "/sync") => self.ask(request, &self.sync_now),
            (Method::Post, "/sweep") => self.ask(request, &self.sweep_now),
            (_, "/" | "/style.css" | "/api/status" | "/metrics" | "/health") => {
                with(error(405, "only GET is allowed here"), "Allow", "GET, HEAD")
            }
            (_, "/sync" | "/sweep") => {
                with(error(405, "only POST is allowed here"), "Allow", "POST")
            }
            _ => error(404, "there is no such page"),
        }
    }

    fn get(&self, path: &str) -> Answer {
        match path {
            "/" => html::render(&self.sources).map_or_else(
                |problem| {
                    log::error!("❌ Status page: {problem}");
                    error(500, "the page could not be made")
                },
                |page| content(page, "text/html; charset=utf-8"),
            ),
            "/style.css" => content(assets::STYLE.to_owned(), "text/css; charset=utf-8"),
            "/api/status" => json(200, &api::status(&self.sources)),
            "/metrics" => content(
                metrics::render(&self.sources),
                av_proto::exposition::CONTENT_TYPE,
            ),
            "/health" => json(200, &serde_json::json!({ "status": "ok" })),
            "/sync" | "/sweep" => with(error(405, "only POST is allowed here"), "Allow", "POST"),
            _ => error(404, "there is no such page"),
        }
    }

    /// "Sync now" and "Sweep now": for this page and for tools without a
    /// browser, and for no other site's page.
    fn ask(&self, request: &Request, now: &Sender<()>) -> Answer {
        let field = |name: &str| {
            request
                .headers()
                .iter()
                .find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name))
                .map(|header| header.value.as_str())
        };
        if !origin::is_same(field("Origin"), field("Sec-Fetch-Site"), field("Host")) {
            return error(403, "this can be asked for from this page only");
        }
        // A full channel: one is asked for already.
        let _ = now.try_send(());
        if field("Accept").is_some_and(|accept| accept.contains("text/html")) {
            return with(
                json(303, &serde_json::json!({ "ok": true })),
                "Location",
                "/",
            );
        }
        json(202, &serde_json::json!({ "ok": true }))
    }
}

type Answer = Response<io::Cursor<Vec<u8>>>;

fn content(body: String, kind: &str) -> Answer {
    with(Response::from_data(body), "Content-Type", kind)
}

fn json(status: u16, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    content(body, "application/json").with_status_code(status)
}

fn error(status: u16, text: &str) -> Answer {
    json(status, &serde_json::json!({ "error": text }))
}

fn secured(answer: Answer) -> Answer {
    [
        (
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'",
        ),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ]
    .into_iter()
    .fold(answer, |answer, (name, value)| with(answer, name, value))
}

/// The answer with one more header.
fn with(answer: Answer, name: &str, value: &str) -> Answer {
    match Header::from_bytes(name, value) {
        Ok(header) => answer.with_header(header),
        Err(()) => answer, // not ASCII: none of ours is
    }
}
