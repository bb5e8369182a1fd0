//! Which projectors a network has: the search of class 2.
//!
//! By the standard a projector waits up to 10 s before it answers, at random,
//! and answers to port 4352 of whoever asked, from whatever port that was. The
//! answers are therefore heard by a thread, while the caller asks and does
//! something else.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pnet::util::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};

use super::udp::{MESSAGE_MAX, Message, PORT, SEARCH};
use crate::driver::wire;

/// After the last question: the 10 s that the standard gives a projector for
/// its answer, and a second for the network.
pub const WAIT: Duration = Duration::from_secs(11);

/// How often the thread that hears looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// It holds one datagram.
const STACK_BYTES: usize = 128 * 1024;
/// The longest header of IPv4 (RFC 791), and that of UDP (RFC 768).
const HEADERS_MAX: usize = 60 + UDP_HEADER;
const UDP_HEADER: usize = 8;

/// A projector that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its address.
    pub ip: IpAddr,
    /// That of its network interface, as it says.
    pub mac: MacAddr,
}

/// How answers to the standard's port are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// The port is this search's.
    Port,
    /// Another program has the port, as an agent that hears notices; the
    /// kernel gives copies of what comes for it (`CAP_NET_RAW`).
    Copies,
    /// Another program has the port, and this one may have no copies: only a
    /// projector that answers to where the question came from is heard.
    Partly,
}

/// A search that is under way: answers are heard from its start on. IPv4 only,
/// as the standard has it.
#[derive(Debug)]
pub struct Search {
    socket: UdpSocket,
    hearing: Hearing,
    ears: Vec<JoinHandle<BTreeMap<IpAddr, MacAddr>>>,
    over: Arc<AtomicBool>,
    last_asked: Option<Instant>,
}

impl Search {
    /// Begins to hear answers.
    ///
    /// # Errors
    /// When no socket or no thread can be had.
    pub fn start() -> io::Result<Self> {
        Self::at(PORT)
    }

    /// The same where answers come to another port than the standard's.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn at(port: u16) -> io::Result<Self> {
        Self::with(port, copies)
    }

    fn with(port: u16, copies: impl FnOnce() -> io::Result<UdpSocket>) -> io::Result<Self> {
        let any = Ipv4Addr::UNSPECIFIED;
        let (socket, copies, hearing) = match UdpSocket::bind((any, port)) {
            Ok(socket) => (socket, None, Hearing::Port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let socket = UdpSocket::bind((any, 0))?;
                match copies() {
                    Ok(copies) => (socket, Some(copies), Hearing::Copies),
                    Err(_) => (socket, None, Hearing::Partly),
                }
            }
            Err(error) => return Err(error),
        };
        socket.set_broadcast(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let own = (socket.try_clone()?, None);
        let ears = std::iter::once(own)
            .chain(copies.map(|copies| (copies, Some(port))))
            .map(|(socket, copied)| {
                socket.set_read_timeout(Some(LOOK_EVERY))?;
                let over = Arc::clone(&over);
                thread::Builder::new()
                    .name("pj-search".to_owned())
                    .stack_size(STACK_BYTES)
                    .spawn(move || hear(&socket, copied, &over))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            socket,
            hearing,
            ears,
            over,
            last_asked: None,
        })
    }

    /// How answers to the standard's port are heard.
    #[must_use]
    pub fn hearing(&self) -> Hearing {
        self.hearing
    }

    /// Asks `target`, the broadcast address of a network or the address of one
    /// projector. Only projectors of class 2 answer.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn ask(&mut self, target: SocketAddr) -> io::Result<()> {
        wire::sent(target.ip(), "%2SRCH");
        self.socket.send_to(SEARCH, target)?;
        self.last_asked = Some(Instant::now());
        Ok(())
    }

    /// How long it is until `wait` after the last question; nothing where none
    /// was asked.
    #[must_use]
    pub fn left(&self, wait: Duration) -> Duration {
        self.last_asked
            .map_or(Duration::ZERO, |asked| wait.saturating_sub(asked.elapsed()))
    }

    /// Waits until `wait` after the last question: who answered, each once, by
    /// address.
    #[must_use]
    pub fn finish(self, wait: Duration) -> Vec<Found> {
        thread::sleep(self.left(wait));
        self.over.store(true, Ordering::Release);
        let mut found = BTreeMap::new();
        for ear in self.ears {
            found.extend(ear.join().unwrap_or_default());
        }
        found
            .into_iter()
            .map(|(ip, mac)| Found { ip, mac })
            .collect()
    }
}

/// A socket that gets copies of all UDP packets that come to this machine,
/// whoever has the port that they are for.
fn copies() -> io::Result<UdpSocket> {
    Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?.into())
}

/// Hears answers until it is `over`. A socket of copies gives whole packets,
/// of which those to the port `copied` count.
fn hear(socket: &UdpSocket, copied: Option<u16>, over: &AtomicBool) -> BTreeMap<IpAddr, MacAddr> {
    let mut found = BTreeMap::new();
    let mut bytes = [0; HEADERS_MAX + MESSAGE_MAX];
    while !over.load(Ordering::Acquire) {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                let bytes = bytes.get(..length).unwrap_or_default();
                let datagram = match copied {
                    None => bytes,
                    Some(port) => match payload_to(port, bytes) {
                        Some(payload) => payload,
                        None => continue,
                    },
                };
                wire::received(from.ip(), String::from_utf8_lossy(datagram));
                if let Some(Message::Found(mac)) = Message::parse(datagram) {
                    found.insert(from.ip(), mac);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => {}
                // What was sent earlier found a closed port or nobody. Of any
                // other kind there must not be one after the other.
                _ => thread::sleep(Duration::from_millis(1)),
            },
        }
    }
    found
}

/// What an IPv4 packet (RFC 791) with a UDP datagram (RFC 768) to `port`
/// carries.
fn payload_to(port: u16, packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let words = usize::from(first & 0x0f);
    if first >> 4 != 4 || words < 5 {
        return None;
    }
    let udp = packet.get(words * 4..)?;
    let to = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    if to != port {
        return None;
    }
    udp.get(UDP_HEADER..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Duration = Duration::from_secs(30);
    const MAC: MacAddr = MacAddr(0, 0x11, 0x22, 0x33, 0x44, 0x55);
    const ANSWER: &[u8] = b"%2ACKN=00:11:22:33:44:55\r";

    /// Answers each search from its address as `says` has it, to `port` or to
    /// where it came from.
    fn answering(says: &'static [u8], port: Option<u16>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut datagram = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                assert_eq!(&datagram[..length], SEARCH);
                let to = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                let _ = socket.send_to(says, to);
            }
        });
        address
    }

    fn somebodys_port() -> (UdpSocket, u16) {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    fn free_port() -> u16 {
        somebodys_port().1
    }

    fn refused() -> io::Result<UdpSocket> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn who_answers_is_found_once() {
        let port = free_port();
        let mut search = Search::at(port).unwrap();
        assert_eq!(search.hearing(), Hearing::Port);
        for says in [ANSWER, b"%2ACKN=nonsense\r", b"\xff\x00"] {
            for port in [None, Some(port)] {
                search.ask(answering(says, port)).unwrap();
            }
        }
        let wait = Duration::from_millis(600);
        assert!(search.left(PATIENT) > wait);
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(search.finish(wait), [Found { ip, mac: MAC }]);
    }

    #[test]
    fn beside_a_program_that_has_the_port_it_says_what_it_hears() {
        let (taken, port) = somebodys_port();
        let to_the_port = answering(ANSWER, Some(port));
        let back = answering(ANSWER, None);
        for (target, found) in [(to_the_port, 0), (back, 1)] {
            let mut search = Search::with(port, refused).unwrap();
            assert_eq!(search.hearing(), Hearing::Partly);
            search.ask(target).unwrap();
            let answers = search.finish(Duration::from_millis(600));
            assert_eq!(answers.len(), found);
        }
        // Where this process may have copies, the program still has its own.
        let Ok(copies) = copies() else { return };
        let mut search = Search::with(port, || Ok(copies)).unwrap();
        assert_eq!(search.hearing(), Hearing::Copies);
        search.ask(to_the_port).unwrap();
        assert_eq!(search.finish(Duration::from_millis(600)).len(), 1);
        taken.set_read_timeout(Some(PATIENT)).unwrap();
        for _ in 0..2 {
            let mut datagram = [0; 64];
            let (length, _) = taken.recv_from(&mut datagram).unwrap();
            assert_eq!(&datagram[..length], ANSWER);
        }
    }

    #[test]
    fn nobody_asked_is_not_waited_for_and_nothing_sent_is_an_error() {
        let mut search = Search::at(free_port()).unwrap();
        assert!(search.ask("[::1]:4352".parse().unwrap()).is_err());
        let began = Instant::now();
        assert_eq!(search.finish(PATIENT), []);
        assert!(began.elapsed() < PATIENT);
    }

    #[test]
    fn packets_to_the_port_are_read_and_no_others() {
        let packet = |options: usize, port: u16, payload: &[u8]| {
            let mut packet = vec![0x45 + options as u8];
            packet.resize(20 + options * 4, 0);
            packet.extend_from_slice(&[0x11, 0x22]);
            packet.extend_from_slice(&port.to_be_bytes());
            packet.extend_from_slice(&[0; 4]);
            packet.extend_from_slice(payload);
            packet
        };
        for (packet, payload) in [
            (packet(0, 4352, ANSWER), Some(ANSWER)),
            (packet(10, 4352, ANSWER), Some(ANSWER)),
            (packet(0, 4352, b""), Some(&b""[..])),
            (packet(0, 4353, ANSWER), None),
            (packet(0, 4352, b"")[..27].to_vec(), None),
            (packet(0, 4352, b"")[..21].to_vec(), None),
            (vec![], None),
            (vec![0x44; 60], None),
            (vec![0x65; 60], None),
        ] {
            assert_eq!(payload_to(4352, &packet), payload, "{packet:?}");
        }
    }
}
