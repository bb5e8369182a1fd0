//! The driver `http`: whether a device's web server answers as it should
//! (HTTP, RFC 9110 and 9112), and how long its certificate lasts.
//!
//! | module | what it holds |
//! |---|---|
//! | `talk` | what is said to a server, and when |
//! | `response` | what its answer says |
//! | `tls` | the TLS session and its certificate |
//!
//! Nothing secret is sent, so whose certificate it is is not looked at: racks
//! are full of devices that sign their own.

mod response;
mod talk;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, HttpSettings};
use av_proto::verdict::Status;

use crate::driver::tcp_engine::{Conversation, Event, Next, TcpEngine};
use crate::driver::{Driver, Reply, Rim};
use crate::finding::Finding;
use talk::Talk;
use tls::TlsClient;

/// The driver `http`.
///
/// Online: the server gave a status that is expected, and the text that is
/// expected. Offline: it did not, or gave no answer of HTTP at all, in the
/// time-out. Unknown: this machine cannot connect to any.
#[derive(Debug)]
pub struct Http {
    engine: TcpEngine,
    tls: Result<TlsClient, String>,
}

impl Http {
    /// The driver; its conversations run on the rim's TCP engine.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            engine: rim.tcp.clone(),
            tls: TlsClient::new().map_err(|error| error.to_string()),
        }
    }
}

/// What a probe without TLS would find of a server that sends `pieces`, one
/// after the other, and then closes. For tests and fuzzing: nothing is sent.
#[must_use]
pub fn replay(settings: &HttpSettings, pieces: &[&[u8]]) -> Finding {
    let mut talk = Talk::new(Ipv4Addr::LOCALHOST.into(), settings.clone(), None);
    let (now, mut out) = (Instant::now(), Vec::new());
    let events = [Event::Begin, Event::Connected]
        .into_iter()
        .chain(pieces.iter().map(|piece| Event::Received(piece)))
        .chain([Event::Closed]);
    for event in events {
        if let Next::Done(finding) = talk.step(event, now, &mut out) {
            return finding;
        }
    }
    // A closed connection ends a talk; the time-out does where it does not.
    match talk.step(Event::Due, now, &mut out) {
        Next::Done(finding) => finding,
        _ => Finding::new(Status::Unknown).with_detail("the conversation does not end"),
    }
}

impl Driver for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        let DriverSettings::Http(settings) = &device.settings else {
            return;
        };
        let address = SocketAddr::new(device.ip, settings.port);
        let tls = match (settings.tls, &self.tls) {
            (false, _) => None,
            (true, Ok(client)) => Some(client.clone()),
            (true, Err(reason)) => {
                let detail = format!("this agent has no TLS: {reason}");
                return reply.send(Finding::new(Status::Unknown).with_detail(detail));
            }
        };
        let talk = Talk::new(device.ip, settings.clone(), tls);
        self.engine.begin(address, talk, reply);
    }
}

#[cfg(test)]
mod tests {
    use av_proto::driver::Sections;

    use super::*;

    #[test]
    fn an_answer_says_the_same_in_pieces_and_whole() {
        let sections: Sections =
            serde_json::from_str(r#"{"http":{"body_match":"ready"}}"#).unwrap();
        let Ok(DriverSettings::Http(settings)) = DriverSettings::parse("http", &sections) else {
            panic!("no settings");
        };
        for (answer, status) in [
            ("HTTP/1.0 200 OK\r\n\r\nall ready", Status::Online),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nready",
                Status::Online,
            ),
            // Beyond its length nothing is the answer's.
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nready",
                Status::Offline,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\nready",
                Status::Offline,
            ),
            ("HTTP/1.0 500 No\r\n\r\nready", Status::Offline),
            ("HTTP/1.0 200 OK\r\n", Status::Offline),
            ("SSH-2.0-x\r\n", Status::Offline),
            ("", Status::Offline),
        ] {
            for at in 0..=answer.len() {
                let (first, second) = answer.as_bytes().split_at(at);
                let found = replay(&settings, &[first, second]);
                assert_eq!(found.status, status, "{answer:?} cut at {at}: {found:?}");
            }
        }
    }
}
