//! The PJLink driver: asks a projector over TCP (JBMIA, "PJLink
//! Specifications" class 1, and class 2 where the projector speaks it; which
//! versions: [`protocol`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`protocol`] | questions, answers, the password |
//! | [`value`] | what the answers say |
//! | [`lines`] | bytes put together to lines |
//! | `talk` | what is said to a projector, and when |
//! | `admission` | how often a refused password is tried |
//! | [`refusal`] | a password that is wanted, or refused |
//! | `reading` | what was learnt, and how it is told |
//! | [`udp`] | what class 2 says over UDP |
//! | [`notices`] | the thread that hears it |
//! | [`search`] | which projectors a network has |

mod admission;
pub mod lines;
pub mod notices;
pub mod protocol;
mod reading;
pub mod refusal;
pub mod search;
mod talk;
pub mod udp;
pub mod value;

use std::net::SocketAddr;

use av_proto::config::Device;
use av_proto::driver::DriverSettings;

use crate::driver::tcp_engine::TcpEngine;
use crate::driver::{Driver, Reply, Rim};
use admission::Admissions;
use talk::Talk;

/// The driver `pjlink`.
///
/// Asks for power, errors, lamps and what else the projector's class has, in
/// at most three times the time-out and 5 s. Online: it greeted as PJLink
/// does, be it in standby or to refuse the password, which `pjlink_error` then
/// says. Offline: the port is closed, silent, or speaks something else.
/// Unknown: this machine cannot connect to any.
#[derive(Debug)]
pub struct Pjlink {
    engine: TcpEngine,
    admissions: Admissions,
}

impl Pjlink {
    /// The driver; its conversations run on the rim's TCP engine.
    #[must_use]
    pub fn start(rim: &Rim) -> Self {
        Self {
            engine: rim.tcp.clone(),
            admissions: Admissions::default(),
        }
    }
}

impl Driver for Pjlink {
    fn name(&self) -> &'static str {
        "pjlink"
    }

    fn probe(&self, device: &Device, reply: Reply) {
        if let DriverSettings::Pjlink(settings) = &device.settings {
            let address = SocketAddr::new(device.ip, settings.port);
            let talk = Talk::new(address, settings.clone(), self.admissions.clone());
            self.engine.begin(address, talk, reply);
        }
    }
}
