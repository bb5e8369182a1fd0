//! How a driver asks for a probe that was not due: a device has just said by
//! itself that something changed.

use std::net::IpAddr;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Devices that can wait to be probed. A notice beyond is dropped: the next
/// sweep sees what it was about.
const WAITING_MAX: usize = 256;

/// Asks the collector to probe a device at once. The default one asks nobody:
/// for a program that sweeps once and ends.
#[derive(Debug, Clone, Default)]
pub struct ProbeNow(Option<Sender<IpAddr>>);

impl ProbeNow {
    /// One whose wishes come out of the receiver, which is the collector's.
    #[must_use]
    pub fn channel() -> (Self, Receiver<IpAddr>) {
        let (sender, receiver) = bounded(WAITING_MAX);
        (Self(Some(sender)), receiver)
    }

    /// Asks for a probe of the device with this address and returns at once.
    /// The collector ignores what is not configured, and does not let anybody
    /// ask too often.
    pub fn ask(&self, ip: IpAddr) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_notices_neither_blocks_nor_grows() {
        let (probe_now, wishes) = ProbeNow::channel();
        let ip = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..3 * WAITING_MAX {
            probe_now.ask(ip);
        }
        assert_eq!(wishes.try_iter().count(), WAITING_MAX);
        ProbeNow::default().ask(ip);
    }
}
