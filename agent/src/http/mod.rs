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

use std::net::SocketAddr;

use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::verdict::Status;

use crate::driver::tcp_engine::TcpEngine;
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
