//! The driver `tcp`: whether a port is open, and whether the service behind it
//! is the one that is meant.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, TcpSettings};
use av_proto::text::{excerpt, one_line};
use av_proto::verdict::Status;

use crate::driver::tcp_engine::{Conversation, Event, Next, TcpEngine, unreached};
use crate::driver::{Driver, Reply, Rim, wire};
use crate::finding::Finding;

/// What is kept of what a service says, in bytes; a banner stands at the
/// beginning.
const HEARD_MAX: usize = 4096;
/// What is shown of it, in characters.
const SHOWN_MAX: usize = 120;

/// The driver `tcp`.
///
/// Online: the port is open, and said what is expected where something is.
/// Offline: it is closed, silent, or says something else. Unknown: this
/// machine cannot connect to any. A probe takes at most two time-outs.
#[derive(Debug)]
pub struct Tcp {
    engine: TcpEngine,
}

impl Tcp {
    /// The driver; its conversations run on the rim's TCP engine.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            engine: rim.tcp.clone(),
        }
    }
}

impl Driver for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Tcp(settings) = &device.settings {
            let address = SocketAddr::new(device.ip, settings.port);
            let visit = Visit {
                address,
                settings: settings.clone(),
                began: None,
                connect: None,
                until: None,
                heard: Vec::new(),
            };
            self.engine.begin(address, visit, reply);
        }
    }
}

/// A probe of one service.
struct Visit {
    address: SocketAddr,
    settings: TcpSettings,
    began: Option<Instant>,
    /// How long the connection took.
    connect: Option<Duration>,
    /// When what it says is not waited for any more.
    until: Option<Instant>,
    heard: Vec<u8>,
}

impl Conversation for Visit {
    fn limit(&self) -> Duration {
        self.settings.limit()
    }

    fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next {
        match event {
            Event::Begin => {
                self.began = Some(now);
                Next::Connect {
                    at: now,
                    by: now + self.settings.timeout,
                }
            }
            Event::Unreached(error) => {
                let (status, reason) = unreached(&error, self.settings.port, self.settings.timeout);
                self.done(status, Some(reason))
            }
            Event::Connected => {
                self.connect = self.began.map(|began| now.saturating_duration_since(began));
                wire::event(self.address.ip(), "connected");
                if let Some(text) = &self.settings.send {
                    wire::sent(self.address.ip(), one_line(text));
                    out.extend_from_slice(text.as_bytes());
                }
                let until = now + self.settings.timeout;
                self.until = Some(until);
                self.judge(until, false)
            }
            Event::Received(bytes) => {
                wire::received(self.address.ip(), String::from_utf8_lossy(bytes));
                let room = HEARD_MAX.saturating_sub(self.heard.len());
                self.heard.extend(bytes.iter().take(room));
                let full = self.heard.len() == HEARD_MAX;
                self.judge(self.until.unwrap_or(now), full)
            }
            Event::Closed | Event::Due => self.judge(now, true),
        }
    }
}

impl Visit {
    /// Over, or waiting for more until then. `last`: no more can come.
    fn judge(&self, until: Instant, last: bool) -> Next {
        let port = self.settings.port;
        match &self.settings.banner {
            Some(banner) if banner.is_in(&self.said()) => self.done(Status::Online, None),
            Some(_) if !last => Next::Wait(until),
            Some(_) if self.heard.is_empty() => self.done(
                Status::Offline,
                Some(format!("port {port} open, but silent")),
            ),
            Some(_) => {
                let said = excerpt(self.said().trim(), SHOWN_MAX);
                let reason = format!("port {port} open, but not what is expected: {said}");
                self.done(Status::Offline, Some(reason))
            }
            // Nothing is expected of it. An answer to what was sent is shown.
            None if self.settings.send.is_some() && self.heard.is_empty() && !last => {
                Next::Wait(until)
            }
            None => self.done(Status::Online, None),
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    fn done(&self, status: Status, reason: Option<String>) -> Next {
        let said = self.said();
        let banner = Some(excerpt(said.trim(), SHOWN_MAX)).filter(|text| !text.is_empty());
        // Hundredths of a millisecond.
        let connect_ms = self
            .connect
            .map(|took| (took.as_secs_f64() * 1e5).round() / 100.0);
        let found = Finding::new(status);
        let found = match &reason {
            Some(reason) => found.with_detail(reason),
            None => found.with_detail(format!("port {} open", self.settings.port)),
        };
        Next::Done(
            found
                .with("tcp_ok", status == Status::Online)
                .with("tcp_port", self.settings.port)
                .with("tcp_connect_ms", connect_ms)
                .with("tcp_banner", banner),
        )
    }
}
