//! The SNMP driver: asks a device's agent over version 2c (RFC 1901, 3416)
//! for `sysDescr.0` and `sysUpTime.0` (RFC 3418).
//!
//! `message` holds the messages; here are the socket and the tries.

mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, SnmpSettings};
use av_proto::verdict::Status;
use serde_json::Value;

use crate::driver::workers::Workers;
use crate::driver::{Driver, Reply, Rim};
use crate::finding::Finding;
use message::{Answer, Field, Stray};

/// More than an agent may send unasked (RFC 3417, 3.2.1: 484 bytes), and than
/// an answer with the longest description.
const RECEIVE_SIZE: usize = 4096;
/// Datagrams that are no answer to us, before the probe gives up: somebody is
/// flooding it.
const STRAYS_MAX: u32 = 64;

/// The driver `snmp`.
#[derive(Debug)]
pub struct Snmp {
    workers: Workers,
}

impl Snmp {
    /// Starts nothing yet.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            workers: rim.workers.clone(),
        }
    }
}

impl Driver for Snmp {
    fn name(&self) -> &'static str {
        "snmp"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Snmp(settings) = &device.settings {
            let (ip, settings) = (device.ip, settings.clone());
            self.workers.run(reply, move || probe(ip, &settings));
        }
    }
}

/// Asks the agent at `ip`. Blocks for at most `timeout` × (1 + `retries`).
///
/// Online: a valid response came, be it an error. Offline: none, or ICMP says
/// that the port is closed. Unknown: this machine cannot send there.
#[must_use]
pub fn probe(ip: IpAddr, settings: &SnmpSettings) -> Finding {
    let outcome = ask(ip, settings);
    finding(&outcome, settings)
}

/// How it ended.
#[derive(Debug)]
enum Outcome {
    Answered(Answer),
    /// Nothing but silence, and perhaps something that was no answer.
    Silent(Option<Stray>),
    /// ICMP: port unreachable.
    Closed,
    /// ICMP, or the routing table: the host cannot be had.
    Unreachable,
    /// This machine cannot send.
    Here(String),
}

fn ask(ip: IpAddr, settings: &SnmpSettings) -> Outcome {
    // One request id for all tries: a late answer to the first is as good as
    // one to the last.
    let request_id = match getrandom::u32() {
        Ok(random) => i32::try_from(random >> 1).unwrap_or_default(),
        Err(error) => return Outcome::Here(format!("no random numbers: {error}")),
    };
    let community = settings.community.expose().as_bytes();
    let request = message::request(community, request_id);
    let socket = match open(SocketAddr::new(ip, settings.port)) {
        Ok(socket) => socket,
        Err(error) => return Outcome::of(&error),
    };
    let mut buffer = vec![0; RECEIVE_SIZE];
    let mut strays = 0;
    let mut stray = None;
    for _ in 0..=settings.retries {
        let deadline = Instant::now() + settings.timeout;
        if let Err(error) = socket.send(&request) {
            return Outcome::of(&error);
        }
        loop {
            match receive(&socket, &mut buffer, deadline) {
                Ok(None) => break,
                Ok(Some(bytes)) => match message::parse(bytes, community, request_id) {
                    Ok(answer) => return Outcome::Answered(answer),
                    Err(why) => {
                        stray = Some(why);
                        strays += 1;
                        if strays >= STRAYS_MAX {
                            return Outcome::Silent(stray);
                        }
                    }
                },
                Err(error) => return Outcome::of(&error),
            }
        }
    }
    Outcome::Silent(stray)
}

/// A socket that hears nobody but `address`, and of ICMP errors from there.
fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

/// The next datagram; `None` at the deadline.
fn receive<'a>(
    socket: &UdpSocket,
    buffer: &'a mut [u8],
    deadline: Instant,
) -> io::Result<Option<&'a [u8]>> {
    let length = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean "for ever" to a socket.
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(buffer) {
            Ok(length) => break length,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    };
    Ok(buffer.get(..length))
}

impl Outcome {
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Closed,
            Kind::HostUnreachable => Self::Unreachable,
            Kind::NetworkUnreachable => {
                Self::Here("this machine has no route to the network".to_owned())
            }
            Kind::NetworkDown => Self::Here("the network is down here".to_owned()),
            Kind::PermissionDenied => {
                Self::Here("forbidden by a local firewall, or a broadcast address".to_owned())
            }
            _ => Self::Here(error.to_string()),
        }
    }
}

fn finding(outcome: &Outcome, settings: &SnmpSettings) -> Finding {
    let port = settings.port;
    let (status, detail) = match outcome {
        Outcome::Answered(answer) => (Status::Online, remark(answer)),
        Outcome::Silent(stray) => (Status::Offline, Some(silence(*stray, port))),
        Outcome::Closed => (
            Status::Offline,
            Some(format!("port {port} closed: no SNMP agent there")),
        ),
        Outcome::Unreachable => (Status::Offline, Some("host unreachable".to_owned())),
        Outcome::Here(reason) => (
            Status::Unknown,
            Some(format!("SNMP request not sent: {reason}")),
        ),
    };
    let (descr, uptime) = match outcome {
        Outcome::Answered(Answer::Values { descr, uptime }) => (descr.value(), uptime.value()),
        _ => (Value::Null, Value::Null),
    };
    let ok = matches!(outcome, Outcome::Answered(Answer::Values { .. }));
    let found = Finding::new(status);
    let found = match detail {
        Some(detail) => found.with_detail(detail),
        None => found,
    };
    found
        .with("snmp_ok", ok)
        .with("snmp_port", port)
        .with("sys_descr", descr)
        .with("sys_uptime", uptime)
        .with("snmp_timeout_s", settings.timeout.as_secs_f64())
        .with("snmp_retries", settings.retries)
}

impl<T: Clone + Into<Value>> Field<T> {
    fn value(&self) -> Value {
        match self {
            Self::Known(value) => value.clone().into(),
            Self::Absent | Self::Hidden(_) => Value::Null,
        }
    }
}

/// What is notable of an answer.
fn remark(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Refused(status @ 16) => Some(format!(
            "agent refuses: {} ({status}): check the community's rights",
            message::error_name(*status)
        )),
        Answer::Refused(status) => Some(format!(
            "agent answers with an error: {} ({status})",
            message::error_name(*status)
        )),
        Answer::Values {
            descr: Field::Hidden(why),
            ..
        } => Some(format!(
            "agent answers, but has no sysDescr for this community ({why})"
        )),
        Answer::Values {
            descr: Field::Absent,
            ..
        } => Some("agent answers, but without sysDescr".to_owned()),
        Answer::Values { .. } => None,
    }
}

/// An agent of version 2c stays silent on a wrong community (RFC 1901, RFC
/// 3584, 5.2.1), so the two cannot be told apart.
fn silence(stray: Option<Stray>, port: u16) -> String {
    match stray {
        None => format!("no answer from port {port}, or wrong community"),
        Some(Stray::Malformed) => format!("answers from port {port} are not valid SNMP"),
        Some(Stray::OtherKind) => {
            format!("answers from port {port} are not SNMP v2c responses")
        }
        Some(Stray::OtherRequest) => {
            format!("answers from port {port} are not to our request (wrong request id)")
        }
        Some(Stray::OtherCommunity) => {
            format!("answers from port {port} carry another community")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use av_proto::secret::Secret;

    use super::*;

    fn values(descr: Field<String>) -> Outcome {
        Outcome::Answered(Answer::Values {
            descr,
            uptime: Field::Known(4_294_967_295),
        })
    }

    #[test]
    fn findings_name_what_happened() {
        let known = || Field::Known("Switch X".to_owned());
        for (outcome, status, detail) in [
            (values(known()), Status::Online, None),
            (
                values(Field::Hidden("noSuchObject")),
                Status::Online,
                Some("agent answers, but has no sysDescr for this community (noSuchObject)"),
            ),
            (
                values(Field::Absent),
                Status::Online,
                Some("agent answers, but without sysDescr"),
            ),
            (
                Outcome::Answered(Answer::Refused(16)),
                Status::Online,
                Some("agent refuses: authorizationError (16): check the community's rights"),
            ),
            (
                Outcome::Answered(Answer::Refused(5)),
                Status::Online,
                Some("agent answers with an error: genErr (5)"),
            ),
            (
                Outcome::Silent(None),
                Status::Offline,
                Some("no answer from port 161, or wrong community"),
            ),
            (
                Outcome::Silent(Some(Stray::Malformed)),
                Status::Offline,
                Some("answers from port 161 are not valid SNMP"),
            ),
            (
                Outcome::Closed,
                Status::Offline,
                Some("port 161 closed: no SNMP agent there"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(113)),
                Status::Offline,
                Some("host unreachable"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(101)),
                Status::Unknown,
                Some("SNMP request not sent: this machine has no route to the network"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(24)),
                Status::Unknown,
                Some("SNMP request not sent: Too many open files (os error 24)"),
            ),
        ] {
            let found = finding(
                &outcome,
                &SnmpSettings {
                    community: Secret::new("public"),
                    port: 161,
                    timeout: Duration::from_millis(500),
                    retries: 2,
                },
            );
            assert_eq!(found.status, status);
            assert_eq!(found.detail.as_deref(), detail);
            let answered = matches!(outcome, Outcome::Answered(Answer::Values { .. }));
            assert_eq!(
                Value::Object(found.metrics),
                serde_json::json!({
                    "snmp_ok": answered,
                    "snmp_port": 161,
                    "sys_descr": if detail.is_none() { Some("Switch X") } else { None },
                    "sys_uptime": if answered { Some(4_294_967_295_u32) } else { None },
                    "snmp_timeout_s": 0.5,
                    "snmp_retries": 2,
                })
            );
        }
    }
}
