//! The ping driver: ICMP echo over IPv4 (RFC 792) and IPv6 (RFC 4443).
//!
//! One socket for each family and one thread for both serve every probe,
//! however many are in flight.
//!
//! | module | what it holds |
//! |---|---|
//! | `engine` | the thread: it sends, receives and waits |
//! | `socket` | opening the sockets, and what their errors mean |
//! | `packet` | echoes to bytes and back |
//! | `flight` | the probes and echoes in flight, and whose an answer is |
//! | `pace` | how fast echoes leave |
//! | `round` | the course of one probe |
//! | `outcome` | what that says of the device |
//!
//! All but `engine` and `socket` are free of I/O.

mod engine;
mod flight;
mod outcome;
mod pace;
pub mod packet;
mod round;
mod socket;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, PingSettings};
use mio::Poll;

use crate::driver::engine::{Inbox, spawn};
use crate::driver::{Counter, Driver, Reply, Rim};
use crate::finding::Finding;
use crate::supervisor::Health;
use engine::{Engine, Link, Random};
use flight::{Counters, Job};
use round::Round;
use socket::SendFault;

pub use socket::{Family, Mode};

/// The driver `ping`.
#[derive(Debug)]
pub struct Ping(Pinger);

impl Ping {
    /// Opens the sockets.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self(Pinger::start(&rim.health))
    }
}

impl Driver for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Ping(settings) = &device.settings {
            self.0.submit(device.ip, settings, reply);
        }
    }

    fn counters(&self) -> Vec<Counter> {
        let stats = self.0.stats();
        [
            (
                "av_agent_ping_sent_total",
                "Echo requests that left.",
                stats.sent,
            ),
            (
                "av_agent_ping_answered_total",
                "Echo requests that were answered.",
                stats.answered,
            ),
            (
                "av_agent_ping_duplicates_total",
                "Further answers to an echo that had been answered.",
                stats.duplicates,
            ),
            (
                "av_agent_ping_late_total",
                "Answers that came after their probe had ended.",
                stats.late,
            ),
            (
                "av_agent_ping_unrelated_total",
                "Answers to another process or in another device's name.",
                stats.unrelated,
            ),
            (
                "av_agent_ping_no_room_total",
                "How often there was no room to send, which slows the pace.",
                stats.no_room,
            ),
        ]
        .map(|(name, help, value)| Counter { name, help, value })
        .into()
    }
}

/// Pings devices. Clones share the sockets and the thread, which ends with
/// the last clone.
#[derive(Debug, Clone)]
pub struct Pinger {
    v4: Result<Mode, String>,
    v6: Result<Mode, String>,
    inbox: Result<Inbox<Job>, String>,
    counters: Arc<Counters>,
}

/// What was counted since the start, over all probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PingStats {
    /// Echo requests that left.
    pub sent: u64,
    /// Those of them that were answered.
    pub answered: u64,
    /// Further answers to an echo that had been answered.
    pub duplicates: u64,
    /// Answers that came after their probe had ended.
    pub late: u64,
    /// Echo replies to another process, or in another device's name.
    pub unrelated: u64,
    /// How often there was no room to send, which slows the pace.
    pub no_room: u64,
}

impl Pinger {
    /// Opens a socket for each family and starts the thread, whose panics are
    /// told to `health`. A family whose socket cannot be had is no error here:
    /// its probes say so.
    #[must_use]
    pub fn start(health: &Health) -> Self {
        let (v4, v6) = (open(Family::V4), open(Family::V6));
        let mode = |link: &Result<Link, String>| match link {
            Ok(link) => Ok(link.socket.mode),
            Err(reason) => Err(reason.clone()),
        };
        let modes = (mode(&v4), mode(&v6));
        let counters = Arc::new(Counters::default());
        let links: Vec<Link> = [v4, v6].into_iter().flatten().collect();
        let start = || {
            let poll = Poll::new()?;
            let (inbox, work) = Inbox::new(&poll)?;
            let mut engine = Engine::new(poll, links, work, Arc::clone(&counters))?;
            spawn("ping", health, move || engine.run())?;
            Ok::<_, std::io::Error>(inbox)
        };
        Self {
            inbox: start().map_err(|error| {
                let reason = format!("ping not possible: {error}");
                log::error!("❌ {reason}");
                reason
            }),
            v4: modes.0,
            v6: modes.1,
            counters,
        }
    }

    /// The kind of socket that echoes to `ip` leave by; `None` where there is
    /// none.
    #[must_use]
    pub fn mode(&self, ip: IpAddr) -> Option<Mode> {
        self.socket(ip.to_canonical()).ok()
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> PingStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        PingStats {
            sent: read(&counters.sent),
            answered: read(&counters.answered),
            duplicates: read(&counters.duplicates),
            late: read(&counters.late),
            unrelated: read(&counters.unrelated),
            no_room: read(&counters.no_room),
        }
    }

    /// Begins to ping `ip` and returns at once. The finding goes to `reply`,
    /// at the latest (`count` - 1) × 250 ms + `timeout` after the first echo
    /// left. Any number of probes may be in flight: their echoes leave at a
    /// bounded rate, 64 at once and then one for each answer, or each 50 µs
    /// where no answers come.
    ///
    /// Online: one answer at least. Offline: none, or an ICMP error. Unknown:
    /// this machine cannot ping.
    pub fn submit(&self, ip: IpAddr, settings: &PingSettings, reply: Reply) {
        let target = ip.to_canonical();
        match (self.socket(target), &self.inbox) {
            (Ok(_), Ok(inbox)) => inbox.put(Job {
                target,
                settings: settings.clone(),
                reply,
            }),
            (Err(reason), _) | (Ok(_), Err(reason)) => {
                let nothing = Round::new(settings.count, settings.timeout);
                let fault = SendFault::Here(reason.clone());
                reply.send(outcome::finding(&nothing, Some(fault), settings));
            }
        }
    }

    /// Pings `ip` and waits for what is found; see [`Pinger::submit`].
    #[must_use]
    pub fn probe(&self, ip: IpAddr, settings: &PingSettings) -> Finding {
        Reply::wait(|reply| self.submit(ip, settings, reply))
    }

    fn socket(&self, ip: IpAddr) -> Result<Mode, &String> {
        match Family::of(ip) {
            Family::V4 => self.v4.as_ref().copied(),
            Family::V6 => self.v6.as_ref().copied(),
        }
    }
}

fn open(family: Family) -> Result<Link, String> {
    let link = socket::open(family).and_then(|socket| {
        let mut random = Random::default();
        let identifier = match socket.identifier {
            Some(given) => given,
            None => u16::try_from(random.word()? & 0xffff).unwrap_or_default(),
        };
        Ok(Link {
            family,
            socket,
            identifier,
            word: random.word()?,
        })
    });
    match &link {
        Ok(link) => log::info!(
            "{} ping over a {} socket",
            family.name(),
            match link.socket.mode {
                Mode::Raw => "raw",
                Mode::Datagram => "datagram",
            }
        ),
        Err(reason) => log::warn!("no {} ping: {reason}", family.name()),
    }
    link
}
