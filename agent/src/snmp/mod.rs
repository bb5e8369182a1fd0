//! The SNMP driver: asks a device's agent over version 1, 2c or 3 (RFC 1157,
//! 3416, 3412) for `sysDescr.0` and `sysUpTime.0` (RFC 3418), and for the
//! readings of its configuration.
//!
//! | module | what it holds |
//! |---|---|
//! | `plan` | what a probe asks for |
//! | `session` | the course of one probe, without a socket |
//! | `pdu` | requests and responses, to bytes and back |
//! | `ber` | the encoding below them |
//! | `v3`, `usm` | messages of version 3, and their cryptography |
//! | `readings` | from values to metrics and remarks |
//! | `finding` | what a probe's end means |
//! | `engine`, `socket` | the thread on which all probes are in flight |

mod ber;
mod engine;
mod finding;
mod pdu;
mod plan;
mod readings;
mod session;
mod socket;
mod usm;
mod v3;

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use av_proto::config::Device;
use av_proto::driver::{DriverSettings, SnmpAccess, SnmpSettings};
use mio::Poll;

use crate::driver::engine::{Inbox, spawn};
use crate::driver::{Driver, Reply};
use crate::finding::Finding;
use crate::supervisor::Health;
use engine::{Engine, Job};
use finding::{Outcome, finding};
use plan::Plan;
use session::{Progress, Session};
use v3::{Dialogue, Masters};

/// The driver `snmp`.
#[derive(Debug)]
pub struct Snmp {
    inbox: Result<Inbox<Job>, String>,
}

impl Snmp {
    /// Starts the thread, whose panics are told to `health`. When the system
    /// refuses it, probes say so.
    #[must_use]
    pub fn start(health: &Health) -> Self {
        let inbox = start(health).map_err(|error| {
            log::error!("❌ The SNMP thread did not start: {error}");
            error.to_string()
        });
        Self { inbox }
    }

    /// Begins a probe of `ip` and returns at once. Where nothing answers, the
    /// finding comes after `timeout` × (1 + `retries`).
    ///
    /// Online: a valid answer came, be it an error. Offline: none, or ICMP
    /// says that the port is closed. Unknown: this machine cannot send there.
    pub fn ask(&self, ip: IpAddr, settings: &SnmpSettings, reply: Reply) {
        let settings = settings.clone();
        match &self.inbox {
            Ok(inbox) => inbox.put(Job {
                ip,
                settings,
                reply,
            }),
            Err(reason) => {
                let outcome = Outcome::Here(reason.clone());
                reply.send(finding(&outcome, &settings));
            }
        }
    }
}

fn start(health: &Health) -> io::Result<Inbox<Job>> {
    let poll = Poll::new()?;
    let (inbox, work) = Inbox::new(&poll)?;
    let mut engine = Engine::new(poll, work);
    spawn("snmp", health, move || engine.run())?;
    Ok(inbox)
}

/// What a probe would find of an agent that sends `datagrams`, one after the
/// other, and then nothing. The probe's first request has the id 1, the next
/// the id 2. For tests and fuzzing: nothing is sent.
#[must_use]
pub fn replay(settings: &SnmpSettings, datagrams: &[&[u8]]) -> Finding {
    let now = Instant::now();
    let dialogue = match &settings.access {
        SnmpAccess::V3(user) => Some(Dialogue::new(user, &Masters::default(), 0)),
        _ => None,
    };
    let plan = Plan::of(&settings.readings);
    let mut outcome = Outcome::Silent(None);
    if let Some(mut session) = Session::new(&settings.access, dialogue, plan, 1, now) {
        for bytes in datagrams {
            match session.receive(bytes, now, |_| ()) {
                Ok(Progress::Send) => {}
                Ok(Progress::Done(answer)) => {
                    return finding(&Outcome::Answered(answer), settings);
                }
                Err(stray) => outcome = Outcome::Silent(Some(stray)),
            }
        }
        if let Some(answer) = session.fall_silent() {
            outcome = Outcome::Answered(answer);
        }
    }
    finding(&outcome, settings)
}

impl Driver for Snmp {
    fn name(&self) -> &'static str {
        "snmp"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Snmp(settings) = &device.settings {
            self.ask(device.ip, settings, reply);
        }
    }
}
