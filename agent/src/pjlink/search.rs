//! Which projectors a network has: the search of class 2.
//!
//! By the standard a projector waits up to 10 s before it answers, at random,
//! and answers to port 4352 of whoever asked, from whatever port that was. So a
//! search goes on while the caller does something else: [`Search::hear`] takes
//! the answers that are there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use pnet::util::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::udp::{MESSAGE_MAX, Message, PORT, SEARCH};
use crate::driver::wire;

/// After the last question: the 10 s that the standard gives a projector for
/// its answer, and a second for the network.
pub const WAIT: Duration = Duration::from_secs(11);

/// Between two looks at the end of a search.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Datagrams of one look: the kernel holds no more of them.
const LOOK_MAX: usize = 1000;
/// Anybody can send answers, in anybody's name.
const FOUND_MAX: usize = 65_536;
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

/// A search that is under way. IPv4 only, as the standard has it.
#[derive(Debug)]
pub struct Search {
    /// Questions leave it; answers come to it where there are no `copies`.
    socket: UdpSocket,
    /// Whole packets, of which those to one of the two ports count.
    copies: Option<(UdpSocket, [u16; 2])>,
    hearing: Hearing,
    found: Vec<Found>,
    last_asked: Option<Instant>,
    /// What was wrong with the first question that could not be sent.
    problem: Option<io::Error>,
}

impl Search {
    /// Begins; nothing is asked yet.
    ///
    /// # Errors
    /// When no socket can be had.
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

    fn with(port: u16, copies: fn([u16; 2]) -> io::Result<UdpSocket>) -> io::Result<Self> {
        let any = Ipv4Addr::UNSPECIFIED;
        let mut search = match UdpSocket::bind((any, port)) {
            Ok(socket) => Self::new(socket, Hearing::Port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Self::new(UdpSocket::bind((any, 0))?, Hearing::Partly)
            }
            Err(error) => return Err(error),
        };
        search.socket.set_broadcast(true)?;
        search.socket.set_nonblocking(true)?;
        if search.hearing == Hearing::Partly {
            let ports = [port, search.socket.local_addr()?.port()];
            if let Ok(copies) = copies(ports) {
                copies.set_nonblocking(true)?;
                search.copies = Some((copies, ports));
                search.hearing = Hearing::Copies;
            }
        }
        Ok(search)
    }

    fn new(socket: UdpSocket, hearing: Hearing) -> Self {
        Self {
            socket,
            copies: None,
            hearing,
            found: Vec::new(),
            last_asked: None,
            problem: None,
        }
    }

    /// How answers to the standard's port are heard.
    #[must_use]
    pub fn hearing(&self) -> Hearing {
        self.hearing
    }

    /// Asks `target`, the broadcast address of a network or the address of one
    /// projector. Only projectors of class 2 answer.
    pub fn ask(&mut self, target: SocketAddr) {
        wire::sent(target.ip(), "%2SRCH");
        match self.socket.send_to(SEARCH, target) {
            Ok(_) => self.last_asked = Some(Instant::now()),
            Err(error) => {
                self.problem.get_or_insert(error);
            }
        }
    }

    /// Takes the answers that are there. The kernel keeps some 200 until then.
    pub fn hear(&mut self) {
        let mut bytes = [0; HEADERS_MAX + MESSAGE_MAX];
        for _ in 0..LOOK_MAX {
            let (socket, ports) = match &self.copies {
                Some((copies, ports)) => (copies, Some(ports)),
                None => (&self.socket, None),
            };
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) => {
                    let bytes = bytes.get(..length).unwrap_or_default();
                    let datagram = match ports {
                        Some(ports) => payload_to(*ports, bytes),
                        None => Some(bytes),
                    };
                    if let Some(datagram) = datagram {
                        self.take(from.ip(), datagram);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What was sent earlier found a closed port, or nobody.
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, ip: IpAddr, datagram: &[u8]) {
        wire::received(ip, String::from_utf8_lossy(datagram));
        if let Some(Message::Found(mac)) = Message::parse(datagram) {
            let is_new = self.found.iter().all(|found| found.ip != ip);
            if is_new && self.found.len() < FOUND_MAX {
                self.found.push(Found { ip, mac });
            }
        }
    }

    /// How long it is until `wait` after the last question; nothing where none
    /// was asked.
    #[must_use]
    pub fn left(&self, wait: Duration) -> Duration {
        self.last_asked
            .map_or(Duration::ZERO, |asked| wait.saturating_sub(asked.elapsed()))
    }

    /// Hears until `wait` after the last question: who answered, each once.
    ///
    /// # Errors
    /// When none of the questions could be sent.
    pub fn finish(mut self, wait: Duration) -> io::Result<Vec<Found>> {
        loop {
            self.hear();
            let left = self.left(wait);
            if left.is_zero() {
                break;
            }
            thread::sleep(LOOK_EVERY.min(left));
        }
        match (self.last_asked, self.problem) {
            (None, Some(error)) => Err(error),
            _ => Ok(self.found),
        }
    }
}

/// A socket that gets copies of the UDP packets that come to this machine for
/// `ports`, whoever has them. The kernel sorts out the others; whatever comes
/// is looked at in any case.
fn copies(ports: [u16; 2]) -> io::Result<UdpSocket> {
    // BPF_LDX|BPF_B|BPF_MSH: X = length of the IPv4 header at the start
    const HEADER_LENGTH: u16 = 0xb1;
    // BPF_LD|BPF_H|BPF_IND: two bytes at X + k
    const TWO_BYTES_AFTER_HEADER: u16 = 0x48;
    // BPF_JMP|BPF_JEQ|BPF_K
    const JUMP_IF_EQUAL: u16 = 0x15;
    // BPF_RET|BPF_K: so many bytes of the packet
    const RETURN: u16 = 0x06;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
    let [one, other] = ports.map(u32::from);
    socket.attach_filter(&[
        SockFilter::new(HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(TWO_BYTES_AFTER_HEADER, 0, 0, 2),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, one),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, other),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])?;
    Ok(socket.into())
}

/// What an IPv4 packet (RFC 791) with a UDP datagram (RFC 768) to one of
/// `ports` carries.
fn payload_to(ports: [u16; 2], packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let words = usize::from(first & 0x0f);
    if first >> 4 != 4 || words < 5 {
        return None;
    }
    let udp = packet.get(words * 4..)?;
    let to = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    if !ports.contains(&to) {
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

    fn refused(_: [u16; 2]) -> io::Result<UdpSocket> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn who_answers_is_found_once() {
        let port = free_port();
        let mut search = Search::at(port).unwrap();
        assert_eq!(search.hearing(), Hearing::Port);
        for says in [ANSWER, b"%2ACKN=nonsense\r", b"\xff\x00"] {
            for port in [None, Some(port)] {
                search.ask(answering(says, port));
            }
        }
        let wait = Duration::from_millis(600);
        assert!(search.left(PATIENT) > wait);
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(search.finish(wait).unwrap(), [Found { ip, mac: MAC }]);
    }

    #[test]
    fn beside_a_program_that_has_the_port_it_says_what_it_hears() {
        let (taken, port) = somebodys_port();
        let to_the_port = answering(ANSWER, Some(port));
        let back = answering(ANSWER, None);
        let found = |mut search: Search, target| {
            search.ask(target);
            search.finish(Duration::from_millis(600)).unwrap().len()
        };
        for (target, count) in [(to_the_port, 0), (back, 1)] {
            let search = Search::with(port, refused).unwrap();
            assert_eq!(search.hearing(), Hearing::Partly);
            assert_eq!(found(search, target), count);
        }
        // Where this process may have copies, the program still has its own.
        if copies([port, port]).is_ok() {
            for target in [to_the_port, back] {
                let search = Search::at(port).unwrap();
                assert_eq!(search.hearing(), Hearing::Copies);
                assert_eq!(found(search, target), 1);
            }
        }
        taken.set_read_timeout(Some(PATIENT)).unwrap();
        let mut datagram = [0; 64];
        let (length, _) = taken.recv_from(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], ANSWER);
    }

    #[test]
    fn nobody_asked_is_not_waited_for_and_nothing_sent_is_an_error() {
        let began = Instant::now();
        let search = Search::at(free_port()).unwrap();
        assert_eq!(search.finish(PATIENT).unwrap(), []);
        let mut search = Search::at(free_port()).unwrap();
        search.ask("[::1]:4352".parse().unwrap());
        assert!(search.finish(PATIENT).is_err());
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
            (packet(0, 7, ANSWER), Some(ANSWER)),
            (packet(0, 4353, ANSWER), None),
            (packet(0, 4352, b"")[..27].to_vec(), None),
            (packet(0, 4352, b"")[..21].to_vec(), None),
            (vec![], None),
            (vec![0x44; 60], None),
            (vec![0x65; 60], None),
        ] {
            assert_eq!(payload_to([4352, 7], &packet), payload, "{packet:?}");
        }
    }
}
