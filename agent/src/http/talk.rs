//! What is said to a server, and when.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use av_proto::driver::HttpSettings;
use av_proto::text::excerpt;
use av_proto::verdict::Status;
use jiff::Timestamp;
use serde_json::Value;

use super::response::{Head, head, holds};
use super::tls::{Session, TlsClient};
use crate::driver::tcp_engine::{Conversation, Event, Next, unreached};
use crate::driver::wire;
use crate::finding::Finding;

/// How much of an answer is read: a status page, not a film.
const ANSWER_MAX: usize = 64 * 1024;
/// How much of what is not HTTP is shown.
const EXCERPT: usize = 40;
const DAY_S: f64 = 86_400.0;

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Talk {
    ip: IpAddr,
    settings: HttpSettings,
    client: Option<TlsClient>,
    session: Option<Session>,
    /// The answer, decrypted.
    answer: Vec<u8>,
    began: Option<Instant>,
}

/// How it ended.
#[derive(Debug)]
enum End {
    /// An answer, and how long it took in milliseconds.
    Answered(Head, f64),
    /// None: what that says of the device, and why.
    Nothing(Status, String),
}

impl Talk {
    pub(super) fn new(ip: IpAddr, settings: HttpSettings, client: Option<TlsClient>) -> Self {
        Self {
            ip,
            settings,
            client,
            session: None,
            answer: Vec::new(),
            began: None,
        }
    }

    /// HTTP/1.0, to which a server answers without chunks (RFC 9112, section
    /// 6.1) and closes after it.
    fn request(&self) -> String {
        let host = self.settings.host.clone().unwrap_or_else(|| {
            let host = match self.ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            match (self.settings.tls, self.settings.port) {
                (false, 80) | (true, 443) => host,
                (_, port) => format!("{host}:{port}"),
            }
        });
        format!(
            "GET {} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: av-agent/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.settings.path,
            crate::VERSION
        )
    }

    fn connected(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let request = self.request();
        wire::sent(self.ip, &request);
        match &self.client {
            None => out.extend_from_slice(request.as_bytes()),
            Some(client) => {
                let host = self.settings.host.as_deref();
                let mut session = client.session(self.ip, host).map_err(tls_failed)?;
                session.say(request.as_bytes()).map_err(tls_failed)?;
                session.flush(out);
                self.session = Some(session);
            }
        }
        Ok(())
    }

    fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let before = self.answer.len();
        match &mut self.session {
            None => self.answer.extend_from_slice(bytes),
            Some(session) => {
                let taken = session.take(bytes, &mut self.answer);
                // An alert of ours is part of the protocol, also at an error.
                session.flush(out);
                taken.map_err(tls_failed)?;
            }
        }
        let new = self.answer.get(before..).unwrap_or_default();
        if !new.is_empty() {
            wire::received(self.ip, String::from_utf8_lossy(new));
        }
        Ok(())
    }

    /// The answer's head, if what came is enough to judge it; `over` says that
    /// no more will come.
    fn enough(&self, over: bool) -> Result<Option<Head>, String> {
        let full = over || self.answer.len() >= ANSWER_MAX;
        let head = head(&self.answer).map_err(|error| {
            format!(
                "not HTTP: {:?} ({error})",
                excerpt(String::from_utf8_lossy(&self.answer).trim_end(), EXCERPT)
            )
        })?;
        let Some(head) = head else {
            return match (full, self.answer.is_empty()) {
                (false, _) => Ok(None),
                (true, true) => Err("closed without an answer".to_owned()),
                (true, false) => Err("the answer ends in its head".to_owned()),
            };
        };
        let body = self.body(&head);
        let done = match &self.settings.body_match {
            None => true,
            Some(text) => full || holds(body, text) || head.length == Some(body.len()),
        };
        Ok(done.then_some(head))
    }

    /// What came of the body. What a server sends beyond the length that it
    /// said is no part of it, however the bytes were cut on the way.
    fn body(&self, head: &Head) -> &[u8] {
        let body = self.answer.get(head.body..).unwrap_or_default();
        let length = head.length.unwrap_or(usize::MAX).min(body.len());
        body.get(..length).unwrap_or_default()
    }

    fn finding(&self, end: End) -> Finding {
        let settings = &self.settings;
        let (status, detail, code, took) = match end {
            End::Answered(head, took) => {
                let problem = self.problem(&head);
                let status = match problem {
                    None => Status::Online,
                    Some(_) => Status::Offline,
                };
                (status, problem, Some(head.status), Some(took))
            }
            End::Nothing(status, reason) => (status, Some(reason), None, None),
        };
        let days = self
            .session
            .as_ref()
            .and_then(Session::expires)
            .map(|end| days_left(end, Timestamp::now()));
        let detail = detail.or_else(|| {
            let days = days.filter(|days| *days < f64::from(settings.expiry_warn_days))?;
            Some(expiry(days))
        });
        let mut finding = Finding::new(status);
        if let Some(detail) = detail {
            finding = finding.with_detail(detail);
        }
        finding = finding
            .with("http_ok", status == Status::Online)
            .with("http_port", settings.port)
            .with("http_status", code.map_or(Value::Null, Value::from))
            .with("http_response_ms", took.map_or(Value::Null, Value::from))
            .with("http_timeout_s", settings.timeout.as_secs_f64());
        if settings.tls {
            let days = days.map_or(Value::Null, |days| Value::from(days.floor()));
            finding = finding.with("http_tls_days_left", days);
        }
        finding
    }

    /// What of an answer is not as expected.
    fn problem(&self, head: &Head) -> Option<String> {
        let expected = &self.settings.expect_status;
        if !expected.iter().any(|range| range.contains(&head.status)) {
            return Some(format!("answers with HTTP status {}", head.status));
        }
        let text = self.settings.body_match.as_ref()?;
        (!holds(self.body(head), text)).then(|| format!("the answer does not hold {text:?}"))
    }
}

impl Conversation for Talk {
    fn limit(&self) -> Duration {
        self.settings.limit()
    }

    fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next {
        let began = *self.began.get_or_insert(now);
        let by = began + self.settings.limit();
        let over = matches!(event, Event::Closed);
        let went = match event {
            Event::Begin => return Next::Connect { at: now, by },
            Event::Connected => self.connected(out),
            Event::Received(bytes) => self.received(bytes, out),
            Event::Closed => Ok(()),
            Event::Unreached(error) => {
                let (status, reason) = unreached(&error, self.settings.port, self.settings.timeout);
                return Next::Done(self.finding(End::Nothing(status, reason)));
            }
            Event::Due => Err(self.silence()),
        };
        match went.and_then(|()| self.enough(over)) {
            Ok(None) if now < by => Next::Wait(by),
            Ok(None) => Next::Done(self.finding(End::Nothing(Status::Offline, self.silence()))),
            Ok(Some(head)) => {
                let took = now.duration_since(began).as_secs_f64() * 1000.0;
                let took = (took * 100.0).round() / 100.0;
                Next::Done(self.finding(End::Answered(head, took)))
            }
            Err(reason) => Next::Done(self.finding(End::Nothing(Status::Offline, reason))),
        }
    }
}

impl Talk {
    fn silence(&self) -> String {
        let port = self.settings.port;
        let handshaking = self
            .session
            .as_ref()
            .is_some_and(|session| !session.established());
        if handshaking {
            format!("port {port} open, but no TLS handshake in time")
        } else if self.answer.is_empty() {
            format!("port {port} open, but no answer in time")
        } else {
            "the answer did not end in time".to_owned()
        }
    }
}

fn tls_failed(error: impl std::fmt::Display) -> String {
    format!("TLS: {error}")
}

fn days_left(end: Timestamp, now: Timestamp) -> f64 {
    end.duration_since(now).as_secs_f64() / DAY_S
}

/// In whole days, so that it is the same at each sweep of a day.
fn expiry(days: f64) -> String {
    if days < 0.0 {
        "the certificate has expired".to_owned()
    } else if days < 1.0 {
        "the certificate expires within a day".to_owned()
    } else {
        format!("the certificate expires in {} days", days.floor())
    }
}
