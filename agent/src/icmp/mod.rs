//! The ping driver: ICMP echo over IPv4 (RFC 792) and IPv6 (RFC 4443).
//!
//! One socket for each family serves every probe: the probes send, one thread
//! receives and hands each answer to the probe that waits for it.
//!
//! | module | what it holds |
//! |---|---|
//! | `socket` | opening the sockets, and what their errors mean |
//! | `packet` | echoes to bytes and back |
//! | `exchange` | which echoes are in flight, and whose an answer is |
//! | `round` | the course of one probe |

mod exchange;
mod packet;
mod round;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, PingSettings};
use av_proto::verdict::Status;
use crossbeam_channel::{Sender, bounded};
use serde_json::Value;
use socket2::SockRef;

use crate::driver::workers::Workers;
use crate::driver::{Driver, Reply, Rim};
use crate::finding::Finding;
use exchange::{Event, Exchange, Passage};
use round::{Round, Step};
use socket::{Family, IcmpSocket, SendFault};

pub use socket::Mode;

const RECEIVER_STACK: usize = 256 * 1024;
/// Ours are 64 bytes, an error that quotes one well below this.
const RECEIVE_SIZE: usize = 2048;
/// How often an echo is sent again that found no room to leave.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// After an error of the receiving socket: no spinning on one that lasts.
const ERROR_PAUSE: Duration = Duration::from_millis(200);

/// The driver `ping`.
#[derive(Debug)]
pub struct Ping {
    pinger: Pinger,
    workers: Workers,
}

impl Ping {
    /// Opens the sockets.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            pinger: Pinger::start(),
            workers: rim.workers.clone(),
        }
    }
}

impl Driver for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Ping(settings) = &device.settings {
            let (pinger, ip, settings) = (self.pinger.clone(), device.ip, settings.clone());
            self.workers.run(reply, move || pinger.probe(ip, &settings));
        }
    }
}

/// Pings devices. Clones share the sockets; the receiving threads end with
/// the last clone.
#[derive(Debug, Clone)]
pub struct Pinger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    v4: Result<Link, String>,
    v6: Result<Link, String>,
}

/// One open socket and the thread that receives from it.
#[derive(Debug)]
struct Link {
    wire: Arc<Wire>,
    receiver: Option<JoinHandle<()>>,
}

/// What the probes share with the receiving thread.
#[derive(Debug)]
struct Wire {
    family: Family,
    socket: IcmpSocket,
    exchange: Arc<Exchange>,
    stop: AtomicBool,
}

/// Answers that no probe counted, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PingStats {
    /// Further answers to an echo that had been answered.
    pub duplicates: u64,
    /// Answers that came after their probe had ended.
    pub late: u64,
    /// Echo replies to another process, or in another device's name.
    pub unrelated: u64,
}

impl Pinger {
    /// Opens a socket for each family and starts its receiver. A family
    /// whose socket cannot be had is no error here: its probes say so.
    #[must_use]
    pub fn start() -> Self {
        let open = |family: Family| {
            let link = Link::start(family);
            match &link {
                Ok(link) => log::info!(
                    "{} ping over a {} socket",
                    family.name(),
                    match link.wire.socket.mode {
                        Mode::Raw => "raw",
                        Mode::Datagram => "datagram",
                    }
                ),
                Err(reason) => log::warn!("no {} ping: {reason}", family.name()),
            }
            link
        };
        Self {
            shared: Arc::new(Shared {
                v4: open(Family::V4),
                v6: open(Family::V6),
            }),
        }
    }

    /// The kind of socket that echoes to `ip` leave by; `None` where there is
    /// none.
    #[must_use]
    pub fn mode(&self, ip: IpAddr) -> Option<Mode> {
        let link = self.link(ip.to_canonical()).ok()?;
        Some(link.wire.socket.mode)
    }

    /// Answers that no probe counted.
    #[must_use]
    pub fn stats(&self) -> PingStats {
        let sum = |count: fn(&Exchange) -> u64| {
            [&self.shared.v4, &self.shared.v6]
                .into_iter()
                .flatten()
                .map(|link| count(&link.wire.exchange))
                .sum()
        };
        PingStats {
            duplicates: sum(Exchange::duplicates),
            late: sum(Exchange::late),
            unrelated: sum(Exchange::unrelated),
        }
    }

    /// Pings `ip`. Blocks until it is known to be online, at most
    /// (`count` - 1) × 250 ms + `timeout`, and a second where this machine
    /// has no room to send.
    ///
    /// Online: one answer at least. Offline: none, or an ICMP error. Unknown:
    /// this machine cannot ping.
    #[must_use]
    pub fn probe(&self, ip: IpAddr, settings: &PingSettings) -> Finding {
        let target = ip.to_canonical();
        let mut round = Round::new(settings.count, settings.timeout);
        let fault = match self.link(target) {
            Ok(link) => link.wire.run(target, &mut round).err(),
            Err(reason) => Some(SendFault::Here(reason.clone())),
        };
        finding(&round, fault, settings)
    }

    fn link(&self, ip: IpAddr) -> Result<&Link, &String> {
        match Family::of(ip) {
            Family::V4 => self.shared.v4.as_ref(),
            Family::V6 => self.shared.v6.as_ref(),
        }
    }
}

impl Link {
    fn start(family: Family) -> Result<Self, String> {
        let socket = socket::open(family)?;
        let random = random()?;
        let identifier = socket
            .identifier
            .unwrap_or_else(|| u16::try_from(random & 0xffff).unwrap_or_default());
        let wire = Arc::new(Wire {
            family,
            socket,
            exchange: Arc::new(Exchange::new(identifier, random)),
            stop: AtomicBool::new(false),
        });
        let receiver = thread::Builder::new()
            .name(format!("ping-{}", family.name().to_ascii_lowercase()))
            .stack_size(RECEIVER_STACK)
            .spawn({
                let wire = Arc::clone(&wire);
                move || wire.receive()
            })
            .map_err(|error| format!("ping not possible: no thread to receive: {error}"))?;
        Ok(Self {
            wire,
            receiver: Some(receiver),
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.wire.stop.store(true, Ordering::Release);
        // It says "not connected", and yet wakes the receiver; were it not
        // to, the receiver's time-out would.
        let _ = SockRef::from(&self.wire.socket.socket).shutdown(std::net::Shutdown::Both);
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

impl Wire {
    /// Receives until told to stop.
    fn receive(&self) {
        let mut buffer = vec![0; RECEIVE_SIZE];
        let mut failing = false;
        while !self.stop.load(Ordering::Acquire) {
            match self.socket.socket.recv_from(&mut buffer) {
                // A shut-down socket is always ready and has nothing.
                Ok((0, _)) => thread::sleep(Duration::from_millis(10)),
                Ok((length, from)) => {
                    failing = false;
                    let at = Instant::now();
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let heard = match self.family {
                        Family::V4 => packet::parse_v4(bytes, self.socket.framing),
                        Family::V6 => packet::parse_v6(bytes),
                    };
                    if let Some(heard) = heard {
                        self.exchange.dispatch(heard, from.ip(), at);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => {
                        if !failing {
                            log::warn!(
                                "the {} ping socket does not receive: {error}",
                                self.family.name()
                            );
                        }
                        failing = true;
                        thread::sleep(ERROR_PAUSE);
                    }
                },
            }
        }
    }

    /// Sends and waits until `round` has nothing more to learn.
    fn run(&self, target: IpAddr, round: &mut Round) -> Result<(), SendFault> {
        let cookie = random().map_err(SendFault::Here)?;
        let mut passage = Passage::new(Arc::clone(&self.exchange), target, cookie);
        // Room for an answer and some errors of each echo.
        let (sender, events) = bounded(128);
        loop {
            match round.step(Instant::now()) {
                Step::Send => self.send(target, &mut passage, &sender, round)?,
                Step::Wait(until) => {
                    if let Ok(event) = events.recv_deadline(until) {
                        round.heard(event);
                    }
                }
                Step::Done => {
                    for event in events.try_iter() {
                        round.heard(event);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn send(
        &self,
        target: IpAddr,
        passage: &mut Passage,
        events: &Sender<Event>,
        round: &mut Round,
    ) -> Result<(), SendFault> {
        let echo = passage
            .next_echo(events)
            .ok_or_else(|| SendFault::Here("ping not sent: too many in flight".to_owned()))?;
        let bytes = match self.family {
            Family::V4 => packet::request_v4(echo),
            Family::V6 => packet::request_v6(echo),
        };
        let mut tries = 0;
        loop {
            let at = Instant::now();
            // The port has no meaning for ICMP.
            let sent = self
                .socket
                .socket
                .send_to(&bytes, SocketAddr::new(target, 0));
            let Err(error) = sent else {
                round.sent(echo.sequence, at);
                return Ok(());
            };
            match SendFault::of(&error) {
                SendFault::Busy if tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                fault => return Err(fault),
            }
        }
    }
}

fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|error| format!("ping not possible: no random numbers: {error}"))
}

fn finding(round: &Round, fault: Option<SendFault>, settings: &PingSettings) -> Finding {
    let (answered, attempts) = (round.answered(), round.attempts());
    let found = if answered > 0 {
        let online = Finding::new(Status::Online);
        if answered < attempts {
            online.with_detail(format!("{answered} of {attempts} pings answered"))
        } else {
            online
        }
    } else {
        match (fault, round.failure()) {
            (Some(SendFault::Here(reason)), _) => Finding::new(Status::Unknown).with_detail(reason),
            (Some(SendFault::Busy), _) => Finding::new(Status::Unknown)
                .with_detail("ping not sent: no room in the send queue"),
            (_, Some((reason, from))) => {
                Finding::new(Status::Offline).with_detail(format!("{reason} (from {from})"))
            }
            (Some(SendFault::Unreachable(reason)), None) => {
                Finding::new(Status::Offline).with_detail(reason)
            }
            (None, None) => Finding::new(Status::Offline).with_detail(format!(
                "no answer to {attempts} ping{}",
                if attempts == 1 { "" } else { "s" }
            )),
        }
    };
    found
        .with("ping_ok", answered > 0)
        .with(
            "ping_rtt_avg_ms",
            round.average_ms().map_or(Value::Null, Value::from),
        )
        .with("ping_timeout_s", settings.timeout.as_secs_f64())
        .with("ping_count", settings.count)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SETTINGS: PingSettings = PingSettings {
        count: 2,
        timeout: Duration::from_millis(1500),
    };
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// A round of two echoes: `answers` of them answered in 1.5 ms.
    fn round(answers: u16) -> Round {
        let t = Instant::now();
        let mut round = Round::new(2, SETTINGS.timeout);
        for sequence in 0..2 {
            round.sent(sequence, t);
            if sequence < answers {
                round.heard(Event::Answered {
                    sequence,
                    at: t + Duration::from_micros(1500),
                });
            }
        }
        round
    }

    #[test]
    fn findings_name_what_happened() {
        let unreachable = || SendFault::Unreachable("host unreachable by this machine's routes");
        let mut refused = round(0);
        refused.heard(Event::Failed {
            sequence: 1,
            from: ROUTER,
            reason: "destination host unreachable",
        });
        for (round, fault, status, detail, average) in [
            (round(2), None, Status::Online, None, Some(1.5)),
            (
                round(1),
                None,
                Status::Online,
                Some("1 of 2 pings answered"),
                Some(1.5),
            ),
            // Answered, then the cable was pulled: it was online.
            (
                round(2),
                Some(SendFault::Busy),
                Status::Online,
                None,
                Some(1.5),
            ),
            (
                round(0),
                None,
                Status::Offline,
                Some("no answer to 2 pings"),
                None,
            ),
            (
                refused,
                None,
                Status::Offline,
                Some("destination host unreachable (from 10.0.0.1)"),
                None,
            ),
            (
                Round::new(2, SETTINGS.timeout),
                Some(unreachable()),
                Status::Offline,
                Some("host unreachable by this machine's routes"),
                None,
            ),
            (
                Round::new(2, SETTINGS.timeout),
                Some(SendFault::Busy),
                Status::Unknown,
                Some("ping not sent: no room in the send queue"),
                None,
            ),
            (
                round(0),
                Some(SendFault::Here("ping not possible".to_owned())),
                Status::Unknown,
                Some("ping not possible"),
                None,
            ),
        ] {
            let found = finding(&round, fault, &SETTINGS);
            assert_eq!(found.status, status);
            assert_eq!(found.detail.as_deref(), detail);
            assert_eq!(
                Value::Object(found.metrics),
                serde_json::json!({
                    "ping_ok": status == Status::Online,
                    "ping_rtt_avg_ms": average,
                    "ping_timeout_s": 1.5,
                    "ping_count": 2,
                })
            );
        }
    }
}
