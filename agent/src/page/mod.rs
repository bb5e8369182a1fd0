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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_service::http::{
    Admission, Admit, Answer, Class, Edge, Hosts, Limits, Method, Queues, Reactor, Request,
};
use crossbeam_channel::Sender;

use crate::clock::Clock;
use crate::config::ConfigHandle;
use crate::driver::Drivers;
use crate::snapshot::Snapshots;
use crate::supervisor::Health;

/// Maximum open connections.
const CONNECTIONS: usize = 32;
/// Requests that wait for one of the page's threads.
const WAITING: usize = 32;

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

/// What "Sync now" and "Sweep now" ask for. Clones share when it was asked for
/// last.
#[derive(Debug, Clone)]
pub struct Wish {
    now: Sender<()>,
    /// The least time between two.
    pause: Duration,
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Wish {
    /// A wish that is told here, and not again before the pause is over.
    #[must_use]
    pub fn new(now: Sender<()>, pause: Duration) -> Self {
        Self {
            now,
            pause,
            asked: Arc::default(),
        }
    }

    /// Asks for it.
    ///
    /// # Errors
    /// How long to wait where it was asked for a moment ago.
    fn ask(&self, now: Instant) -> Result<(), Duration> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = *asked {
            let left = self.pause.saturating_sub(now.saturating_duration_since(at));
            if !left.is_zero() {
                return Err(left);
            }
        }
        *asked = Some(now);
        // A full channel: one is asked for already.
        let _ = self.now.try_send(());
        Ok(())
    }
}

/// The page's parts. Clones answer requests of the same edge.
#[derive(Clone)]
pub struct Page {
    /// Where requests come from.
    pub edge: Edge,
    /// What the pages are made from.
    pub sources: Sources,
    /// Asks `sync` for a poll.
    pub sync_now: Wish,
    /// Asks the collector for a sweep.
    pub sweep_now: Wish,
}

/// Opens the page's listener. The reactor is to run on a thread.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<(Edge, Reactor)> {
    let limits = Limits {
        connections: CONNECTIONS,
        ..Limits::default()
    };
    let queues = Queues {
        health: 0,
        agent: 0,
        person: 0,
        stranger: WAITING,
    };
    TcpListener::bind(address)
        .and_then(|socket| Edge::open(socket, limits, queues))
        .map_err(|error| io::Error::other(format!("{address}: {error}")))
}

/// Answers at once what costs nothing, and refuses names that are a stranger's.
#[derive(Debug)]
pub struct Gate {
    /// The names under which the page answers.
    pub hosts: Hosts,
}

impl Admit for Gate {
    fn admit(&self, request: &Request) -> Admission {
        if !self.hosts.knows(request.host()) {
            let text = "this page does not answer to that name: open it by the agent's address, or \
                        name it in AV_PAGE_HOSTS";
            return Admission::Answer(secured(error(421, text)));
        }
        match (request.method(), path_of(request)) {
            (Method::Get | Method::Head, "/style.css") => Admission::Answer(secured(style())),
            (Method::Get | Method::Head, "/health") => Admission::Answer(secured(health())),
            _ => Admission::Queue(Class::Stranger),
        }
    }
}

impl Page {
    /// Answers until the edge is closed.
    pub fn run(&mut self) {
        while let Some(exchange) = self.edge.next(&[Class::Stranger]) {
            let answer = self.answer(exchange.request());
            exchange.respond(secured(answer));
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        match (request.method(), path_of(request)) {
            (Method::Get | Method::Head, path) => self.get(path),
            (Method::Post, "/sync") => ask(request, &self.sync_now, "a poll of the backend"),
            (Method::Post, "/sweep") => ask(request, &self.sweep_now, "a sweep"),
            (_, "/" | "/style.css" | "/api/status" | "/metrics" | "/health") => {
                error(405, "only GET is allowed here").with("Allow", "GET, HEAD")
            }
            (_, "/sync" | "/sweep") => post_only(),
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
            "/style.css" => style(),
            "/api/status" => json(200, &api::status(&self.sources)),
            "/metrics" => content(
                metrics::render(&self.sources),
                av_proto::exposition::CONTENT_TYPE,
            ),
            "/health" => health(),
            "/sync" | "/sweep" => post_only(),
            _ => error(404, "there is no such page"),
        }
    }
}

/// "Sync now" and "Sweep now": for this page and for tools without a browser,
/// and for no other site's page.
fn ask(request: &Request, wish: &Wish, what: &str) -> Answer {
    let field = |name| request.field(name);
    if !origin::is_same(field("Origin"), field("Sec-Fetch-Site"), field("Host")) {
        return error(403, "this can be asked for from this page only");
    }
    let browser = field("Accept").is_some_and(|accept| accept.contains("text/html"));
    if let Err(left) = wish.ask(Instant::now()) {
        let seconds = left.as_secs_f64().ceil();
        let text = format!("{what} was asked for a moment ago; ask again in {seconds} s");
        let answer = match browser {
            true => Answer::text(429, "text/plain; charset=utf-8", text),
            false => error(429, &text),
        };
        return answer.with("Retry-After", seconds.to_string());
    }
    let done = serde_json::json!({ "ok": true });
    match browser {
        true => json(303, &done).with("Location", "/"),
        false => json(202, &done),
    }
}

/// The path of a request, without its query.
fn path_of(request: &Request) -> &str {
    request.url().split('?').next().unwrap_or_default()
}

fn style() -> Answer {
    content(assets::STYLE, "text/css; charset=utf-8")
}

fn health() -> Answer {
    json(200, &serde_json::json!({ "status": "ok" }))
}

fn post_only() -> Answer {
    error(405, "only POST is allowed here").with("Allow", "POST")
}

fn content(body: impl Into<Vec<u8>>, kind: &str) -> Answer {
    Answer::text(200, kind, body)
}

fn json(status: u16, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    Answer::text(status, "application/json", body)
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
        ("Server", "av-agent"),
    ]
    .into_iter()
    .fold(answer, |answer, (name, value)| answer.with(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_taken_once_in_a_while() {
        let (now, asked) = crossbeam_channel::bounded(1);
        let wish = Wish::new(now, Duration::from_secs(15));
        let start = Instant::now();
        assert_eq!(wish.ask(start), Ok(()));
        assert!(asked.try_recv().is_ok());
        let later = start + Duration::from_secs(5);
        assert_eq!(wish.clone().ask(later), Err(Duration::from_secs(10)));
        assert!(asked.try_recv().is_err());
        assert_eq!(wish.ask(start + Duration::from_secs(15)), Ok(()));
        assert!(asked.try_recv().is_ok());
    }
}
