//! Projectors of class 2 that say by themselves what changed, over UDP.
//!
//! A notice is a reason to look, never an observation: anybody on the network
//! can send one in any projector's name.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use av_proto::driver::DriverSettings;
use av_proto::text::excerpt;
use av_service::progress;
use crossbeam_channel::TryRecvError;

use super::udp::{MESSAGE_MAX, Message};
use crate::config::ConfigHandle;
use crate::driver::{ProbeNow, wire};
use crate::supervisor::Stop;

/// How often the stop signal is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A projector that notifies again within this time has no log line of its
/// own for it.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// After an error of the socket that is none of a single datagram.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The `notices` thread's parts.
#[derive(Debug)]
pub struct Notices {
    socket: UdpSocket,
    handle: ConfigHandle,
    probe_now: ProbeNow,
    stop: Stop,
    /// When each projector's last line was logged.
    logged: HashMap<IpAddr, Instant>,
}

impl Notices {
    /// Listens on `address`, by the standard port 4352.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(
        address: SocketAddr,
        handle: ConfigHandle,
        probe_now: ProbeNow,
        stop: Stop,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        Ok(Self {
            socket,
            handle,
            probe_now,
            stop,
            logged: HashMap::new(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system has them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Heeds notices until the stop signal.
    pub fn run(&mut self) {
        let mut datagram = [0; MESSAGE_MAX];
        while self.stop.try_recv() != Err(TryRecvError::Disconnected) {
            progress::moves();
            match self.socket.recv_from(&mut datagram) {
                Ok((length, from)) => {
                    let ip = from.ip().to_canonical();
                    self.heed(ip, datagram.get(..length).unwrap_or_default());
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => {
                        log::warn!("⚠️ Notices of projectors: {error}");
                        std::thread::sleep(ERROR_PAUSE);
                    }
                },
            }
        }
    }

    /// Has the device probed that sent `datagram`, where it is a projector of
    /// this site and the datagram a notice.
    fn heed(&mut self, ip: IpAddr, datagram: &[u8]) {
        let Some(message) = Message::parse(datagram) else {
            return;
        };
        let active = self.handle.load();
        let Some(device) = active
            .site
            .devices
            .iter()
            .find(|d| d.ip == ip && matches!(d.settings, DriverSettings::Pjlink(_)))
        else {
            return;
        };
        wire::received(ip, &message);
        self.probe_now.ask(ip);
        let now = Instant::now();
        let news = self
            .logged
            .get(&ip)
            .is_none_or(|at| now.saturating_duration_since(*at) >= LOG_EVERY);
        if news {
            // Only configured projectors are in there.
            self.logged.insert(ip, now);
            log::info!(
                "📣 {} ({ip}) notifies: {}",
                excerpt(&device.name, 100),
                message.describe()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use av_proto::config::{SiteConfig, SiteParts};
    use av_proto::secret::Secret;
    use crossbeam_channel::bounded;
    use serde_json::json;

    use super::*;
    use crate::config::{ActiveConfig, BackendUrl, Identity};

    fn site(devices: &[(&str, &str)]) -> ConfigHandle {
        let devices: Vec<_> = devices
            .iter()
            .map(|(ip, driver)| {
                let device = json!({"ip": ip, "name": ip, "driver": driver});
                serde_json::value::to_raw_value(&device).unwrap()
            })
            .collect();
        let parts = SiteParts {
            site_name: "S",
            ..SiteParts::default()
        };
        Arc::new(ArcSwap::from_pointee(ActiveConfig {
            identity: Identity {
                site_token: Secret::new("t"),
                previous_token: None,
                backend_url: BackendUrl::parse("http://backend").unwrap(),
            },
            site: SiteConfig::validate(&parts, &devices).unwrap(),
            hash: None,
            applied_at: None,
        }))
    }

    #[test]
    fn a_projectors_notice_has_it_probed_and_nothing_else_does() {
        let handle = site(&[("127.0.0.41", "pjlink"), ("127.0.0.42", "ping")]);
        let (running, stop) = bounded(0);
        let (probe_now, wishes) = ProbeNow::channel();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut notices = Notices::listen(any, handle, probe_now, stop).unwrap();
        let address = notices.local_addr().unwrap();
        let thread = std::thread::spawn(move || notices.run());
        let send = |from: &str, datagram: &[u8]| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(datagram, address).unwrap();
        };
        // Not a projector, not configured, not a notice; then one.
        send("127.0.0.42", b"%2POWR=0\r");
        send("127.0.0.43", b"%2POWR=0\r");
        send("127.0.0.41", b"%2POWR=?\r");
        send("127.0.0.41", &[0xff; 2000]);
        send("127.0.0.41", b"%2LKUP=00:11:22:33:44:55\r");
        let ip = wishes.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(ip.to_string(), "127.0.0.41");
        // Datagrams on loopback come in their order.
        assert!(wishes.try_recv().is_err());
        drop(running);
        thread.join().unwrap();
    }
}
