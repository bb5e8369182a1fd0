//! The workers that probe: a bounded number, so that a thousand dead devices
//! cost no more threads than one.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use av_proto::config::Device;
use av_proto::driver::DriverSettings;
use av_proto::verdict::Status;
use crossbeam_channel::{Receiver, Sender};
use jiff::Timestamp;

use crate::finding::Finding;
use crate::icmp::Pinger;
use crate::supervisor::Health;
use crate::{pjlink, snmp};

/// How many devices are probed at the same time.
const WORKERS: usize = 48;
/// A worker holds one packet and one line of text at a time.
const STACK_BYTES: usize = 256 * 1024;

/// Whatever can probe a device.
pub trait Prober: Send + Sync {
    /// Probes once; blocks for at most a few times the settings' time-out.
    fn probe(&self, ip: IpAddr, settings: &DriverSettings) -> Finding;
}

/// The real drivers.
pub struct Drivers {
    pinger: Pinger,
}

impl Drivers {
    /// Opens what the drivers share.
    #[must_use]
    pub fn start() -> Self {
        Self {
            pinger: Pinger::start(),
        }
    }
}

impl Prober for Drivers {
    fn probe(&self, ip: IpAddr, settings: &DriverSettings) -> Finding {
        match settings {
            DriverSettings::Ping(settings) => self.pinger.probe(ip, settings),
            DriverSettings::Snmp(settings) => snmp::probe(ip, settings),
            DriverSettings::Pjlink(settings) => pjlink::probe(ip, settings),
            DriverSettings::Unsupported(name) => Finding::new(Status::Unknown)
                .with_detail(format!("this agent has no driver {name:?}")),
        }
    }
}

/// A device to probe.
pub(super) struct Job {
    /// Its place in the sweep.
    pub(super) index: usize,
    /// The device.
    pub(super) device: Device,
    /// Where the finding goes.
    pub(super) done: Sender<Done>,
}

/// What a worker found.
pub(super) struct Done {
    /// The device's place in the sweep.
    pub(super) index: usize,
    /// The device.
    pub(super) device: Device,
    /// What was found.
    pub(super) finding: Finding,
    /// When.
    pub(super) at: Timestamp,
}

/// The pool; its workers end when it is dropped.
pub(super) struct Pool {
    /// Takes jobs; holds none: a worker takes one when it is free.
    pub(super) jobs: Sender<Job>,
}

impl Pool {
    /// Starts the workers; `None` where the system allows not even one.
    pub(super) fn start(prober: &Arc<dyn Prober>, health: &Health) -> Option<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(0);
        let mut started = 0;
        for _ in 0..WORKERS {
            let queue = queue.clone();
            let prober = Arc::clone(prober);
            let health = health.clone();
            let spawned = thread::Builder::new()
                .name("probe".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || work(&queue, &*prober, &health));
            match spawned {
                Ok(_) => started += 1,
                Err(error) => {
                    log::error!("❌ Only {started} probe threads could start: {error}");
                    break;
                }
            }
        }
        (started > 0).then_some(Self { jobs })
    }
}

fn work(queue: &Receiver<Job>, prober: &dyn Prober, health: &Health) {
    while let Ok(Job {
        index,
        device,
        done,
    }) = queue.recv()
    {
        let probe = AssertUnwindSafe(|| prober.probe(device.ip, &device.settings));
        let finding = catch_unwind(probe).unwrap_or_else(|payload| {
            health.record("probe", &*payload);
            Finding::new(Status::Unknown)
                .with_detail("the probe failed inside the agent: see its log")
        });
        // Nobody waits for it any more when the sweep was stopped.
        let _ = done.send(Done {
            index,
            device,
            finding,
            at: Timestamp::now(),
        });
    }
}
