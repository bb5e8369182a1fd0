//! The `page` thread: status page, JSON and metrics, from snapshots alone.

mod api;
mod assets;
mod html;
mod metrics;
mod order;
mod origin;
mod times;

pub(crate) use order::natural;
pub(crate) use times::{span, with_age};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_service::progress;
use crossbeam_channel::Sender;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::clock::Clock;
use crate::config::ConfigHandle;
use crate::driver::Drivers;
use crate::snapshot::Snapshots;
use crate::supervisor::{Health, Stop, stopped};

/// How often a page thread looks whether it must end.
const STOP_CHECK: Duration = Duration::from_millis(250);

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
    /// Why the configuration's backup serves, where it does.
    pub fallback: Option<String>,
}

/// The page's parts. Clones answer from the same listener, so that one slow
/// reader does not hold up the rest.
#[derive(Clone)]
pub struct Page {
    /// The listener.
    pub server: Arc<Server>,
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
pub fn listen(address: SocketAddr) -> io::Result<Arc<Server>> {
    Server::http(address)
        .map(Arc::new)
        .map_err(|error| io::Error::other(format!("{address}: {error}")))
}

impl Page {
    /// Answers until the stop signal.
    pub fn run(&mut self) {
        let mut quiet_since = Instant::now();
        loop {
            progress::moves();
            match self.server.recv_timeout(STOP_CHECK) {
                Ok(Some(request)) => self.answer(request),
                Ok(None) => {}
                Err(error) => {
                    // The listener itself failed; the next try may work.
                    if quiet_since.elapsed() > Duration::from_secs(60) {
                        log::warn!("⚠️ Status page: {error}");
                        quiet_since = Instant::now();
                    }
                    if stopped(&self.stop, STOP_CHECK) {
                        return;
                    }
                }
            }
            if stopped(&self.stop, Duration::ZERO) {
                return;
            }
        }
    }

    fn answer(&self, request: Request) {
        let path = request
            .url()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        let response = match (request.method(), path.as_str()) {
            (Method::Get | Method::Head, path) => self.get(path),
            (Method::Post, "/sync") => self.ask(&request, &self.sync_now),
            (Method::Post, "/sweep") => self.ask(&request, &self.sweep_now),
            (_, "/" | "/style.css" | "/api/status" | "/metrics" | "/health") => {
                with(error(405, "only GET is allowed here"), "Allow", "GET, HEAD")
            }
            (_, "/sync" | "/sweep") => {
                with(error(405, "only POST is allowed here"), "Allow", "POST")
            }
            _ => error(404, "there is no such page"),
        };
        // The reader may be gone; there is nobody to tell.
        let _ = request.respond(secured(response));
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
