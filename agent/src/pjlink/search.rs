//! Which projectors a network has: the search of class 2.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use pnet::util::MacAddr;

use super::udp::{MESSAGE_MAX, Message, PORT, SEARCH};
use crate::driver::wire;

/// Between two datagrams to different targets: 500 a second.
const PACE: Duration = Duration::from_millis(2);
/// Each target is asked so many times: datagrams get lost.
const ROUNDS: u32 = 2;

/// A projector that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its address.
    pub ip: IpAddr,
    /// That of its network interface, as it says.
    pub mac: MacAddr,
}

/// Asks `targets`, the broadcast address of a network or the addresses of
/// single projectors, and collects for `wait` who answers, each once, by
/// address. Only projectors of class 2 do. IPv4 only, as the standard has it.
///
/// # Errors
/// When no socket can be had, or nothing could be sent to any of them.
pub fn search(targets: &[SocketAddr], wait: Duration) -> io::Result<Vec<Found>> {
    let socket = open()?;
    socket.set_broadcast(true)?;
    let deadline = Instant::now() + wait;
    let mut found = BTreeMap::new();
    for round in 1..=ROUNDS {
        let mut sent = Err(io::Error::from(io::ErrorKind::InvalidInput));
        for target in targets {
            wire::sent(target.ip(), "%2SRCH");
            match socket.send_to(SEARCH, target) {
                Ok(_) => sent = Ok(()),
                Err(error) if sent.is_err() => sent = Err(error),
                Err(_) => {}
            }
            thread::sleep(PACE.min(deadline.saturating_duration_since(Instant::now())));
        }
        if !targets.is_empty() {
            sent?;
        }
        // The first half of the time belongs to the first round.
        let left = deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + left / (ROUNDS - round + 1);
        collect(&socket, until, &mut found)?;
    }
    Ok(found
        .into_iter()
        .map(|(ip, mac)| Found { ip, mac })
        .collect())
}

/// Some projectors answer to the standard's port, whoever asked.
fn open() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
}

fn collect(
    socket: &UdpSocket,
    until: Instant,
    found: &mut BTreeMap<IpAddr, MacAddr>,
) -> io::Result<()> {
    let mut datagram = [0; MESSAGE_MAX];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                let datagram = datagram.get(..length).unwrap_or_default();
                wire::received(from.ip(), String::from_utf8_lossy(datagram));
                if let Some(Message::Found(mac)) = Message::parse(datagram) {
                    found.insert(from.ip(), mac);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted
                // What was sent earlier found a closed port.
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable => {}
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each search from its address as `says` has it.
    fn answering(says: &'static [u8]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                assert_eq!(&datagram[..length], SEARCH);
                let _ = socket.send_to(says, from);
            }
        });
        address
    }

    #[test]
    fn who_answers_is_found_once() {
        let targets = [
            answering(b"%2ACKN=00:11:22:33:44:55\r"),
            answering(b"%2ACKN=nonsense\r"),
            answering(b"\xff\x00"),
        ];
        let wait = Duration::from_millis(600);
        let found = search(&targets, wait).unwrap();
        assert_eq!(
            found,
            [Found {
                ip: targets[0].ip(),
                mac: MacAddr::new(0, 0x11, 0x22, 0x33, 0x44, 0x55),
            }]
        );
    }

    #[test]
    fn nobody_there_is_no_error_and_nothing_sent_is_one() {
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let wait = Duration::from_millis(50);
        assert_eq!(search(&[nobody], wait).unwrap(), []);
        assert_eq!(search(&[], wait).unwrap(), []);
        assert!(search(&["[::1]:4352".parse().unwrap()], wait).is_err());
    }
}
