//! What every driver is, and the list of them.
//!
//! A driver takes a device and a [`Reply`], returns at once, and answers when
//! it knows. Where its work runs is its own affair:
//!
//! | module | for drivers that |
//! |---|---|
//! | [`engine`] | have many devices in flight on one thread |
//! | [`tcp_engine`] | talk over TCP: that thread is there already |
//! | [`workers`] | block; a bounded number at a time |
//! | [`wire`] | show what went over the wire, secrets hidden |
//! | [`ProbeNow`] | hear from a device that something changed |
//!
//! To add a driver, write its file and add its line to [`Drivers::start_with`]:
//! docs/writing-a-driver.md shows it.

pub mod engine;
mod probe_now;
mod reply;
pub mod tcp_engine;
pub mod wire;
pub mod workers;

use std::fmt;

use av_proto::config::Device;
use av_proto::verdict::Status;

use crate::finding::Finding;
use crate::supervisor::Health;
use crate::{http, icmp, pjlink, snmp, tcp};

pub use probe_now::ProbeNow;
pub use reply::{Done, Reply};
use tcp_engine::TcpEngine;
use workers::Workers;

/// One way to probe a device.
pub trait Driver: Send + Sync {
    /// What a device's `driver` says to be probed by this one, in lower case.
    fn name(&self) -> &'static str;

    /// Begins a probe and returns at once; the finding goes to `reply`, at the
    /// latest the settings' `limit()` after the probe had its turn.
    fn probe(&self, device: &Device, reply: Reply);

    /// What it counts over all devices, for `/metrics`.
    fn counters(&self) -> Vec<Counter> {
        Vec::new()
    }
}

/// What a driver has counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Its name in the Prometheus text format; it ends in `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// How many so far.
    pub value: u64,
}

/// What drivers are built from.
#[derive(Debug, Clone)]
pub struct Rim {
    /// For what blocks.
    pub workers: Workers,
    /// For conversations over TCP.
    pub tcp: TcpEngine,
    /// Where panics are told.
    pub health: Health,
    /// Asks for a probe of a device that reports a change by itself.
    pub probe_now: ProbeNow,
}

impl Rim {
    /// Starts what the drivers share.
    #[must_use]
    pub fn new(health: &Health, probe_now: ProbeNow) -> Self {
        Self {
            workers: Workers::new(health),
            tcp: TcpEngine::start(health),
            health: health.clone(),
            probe_now,
        }
    }
}

/// Whoever can begin a probe of any device.
pub trait Prober: Send + Sync {
    /// Begins a probe and returns at once; see [`Driver::probe`].
    fn begin(&self, device: &Device, reply: Reply);
}

/// The drivers of this agent.
pub struct Drivers(Vec<Box<dyn Driver>>);

impl Drivers {
    /// Starts every driver, for a program that hears no notices.
    #[must_use]
    pub fn start(health: &Health) -> Self {
        Self::start_with(health, ProbeNow::default())
    }

    /// Starts every driver; a device's own notices go to `probe_now`.
    #[must_use]
    pub fn start_with(health: &Health, probe_now: ProbeNow) -> Self {
        let rim = Rim::new(health, probe_now);
        Self(vec![
            Box::new(icmp::Ping::start(&rim)),
            Box::new(snmp::Snmp::start(&rim.health)),
            Box::new(pjlink::Pjlink::start(&rim)),
            Box::new(tcp::Tcp::start(&rim)),
            Box::new(http::Http::start(&rim)),
        ])
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|driver| driver.name())
    }

    /// What they count.
    pub fn counters(&self) -> impl Iterator<Item = Counter> {
        self.0.iter().flat_map(|driver| driver.counters())
    }
}

impl fmt::Debug for Drivers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.names()).finish()
    }
}

impl Prober for Drivers {
    fn begin(&self, device: &Device, reply: Reply) {
        let name = device.settings.name();
        match self.0.iter().find(|driver| driver.name() == name) {
            Some(driver) => driver.probe(device, reply),
            None => reply.send(
                Finding::new(Status::Unknown)
                    .with_detail(format!("this agent has no driver {name:?}")),
            ),
        }
    }
}

/// Probes one device and waits for what is found.
#[must_use]
pub fn probe_once(prober: &dyn Prober, device: &Device) -> Finding {
    Reply::wait(|reply| prober.begin(device, reply))
}
