//! ICMP sockets: opening them, sending, receiving, and what their errors
//! mean.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::packet::{self, Framing, Heard};

/// Answers of a whole sweep may come while the receiver waits for its turn.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Ours are 64 bytes, an error that quotes one well below this.
const RECEIVE_SIZE: usize = 2048;
/// A time stamp, and an error with who sent it.
const CONTROL_SIZE: usize = 256;
/// A time stamp further from now than this is of a clock that was set.
const STAMP_MAX: Duration = Duration::from_secs(1);
/// `ee_origin` of what came as an ICMP or ICMPv6 error.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Which IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// An address's.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Which kind of socket the kernel granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A raw socket; needs `CAP_NET_RAW`. ICMP errors come as packets.
    Raw,
    /// An ICMP datagram socket; needs a group of the process to be within
    /// `net.ipv4.ping_group_range`, which rules IPv6 too. The kernel chooses
    /// the identifier, and ICMP errors come by the socket's error queue.
    Datagram,
}

/// An open ICMP socket; it never blocks.
#[derive(Debug)]
pub(super) struct IcmpSocket {
    socket: Socket,
    family: Family,
    framing: Framing,
    pub mode: Mode,
    /// The identifier that the kernel gives to what this socket sends; a raw
    /// socket leaves the choice to the sender.
    pub identifier: Option<u16>,
}

/// Where packets are received into.
#[derive(Debug)]
pub(super) struct Buffers {
    data: Vec<u8>,
    control: Vec<u8>,
    clock: Clock,
}

/// Something was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub from: IpAddr,
    /// When it reached this machine.
    pub at: Instant,
    /// `None`: nothing that concerns an echo, or not well formed.
    pub heard: Option<Heard>,
}

/// One moment on both clocks: the kernel stamps packets with the wall clock,
/// which can be set, and round trips are measured with one that cannot.
#[derive(Debug, Clone, Copy)]
struct Clock {
    steady: Instant,
    wall: Duration,
}

impl Clock {
    fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// A stamp of the wall clock on the steady one; `None` where it cannot be
    /// true.
    fn steady(&self, stamp: Duration) -> Option<Instant> {
        match stamp.checked_sub(self.wall) {
            Some(after) if after <= STAMP_MAX => self.steady.checked_add(after),
            Some(_) => None,
            None => {
                let before = self.wall.saturating_sub(stamp);
                (before <= STAMP_MAX)
                    .then(|| self.steady.checked_sub(before))
                    .flatten()
            }
        }
    }
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            data: vec![0; RECEIVE_SIZE],
            control: vec![0; CONTROL_SIZE],
            clock: Clock::now(),
        }
    }

    /// To be called before a run of [`IcmpSocket::receive`].
    pub(super) fn set_clock(&mut self) {
        self.clock = Clock::now();
    }
}

/// Opens a raw socket or, where that is refused, a datagram socket.
///
/// # Errors
/// Why neither can be had, and what to do about it.
pub(super) fn open(family: Family) -> Result<IcmpSocket, String> {
    open_as(family, Mode::Raw).or_else(|raw| {
        open_as(family, Mode::Datagram).map_err(|datagram| refusal(family, &raw, &datagram))
    })
}

fn open_as(family: Family, mode: Mode) -> io::Result<IcmpSocket> {
    let (domain, protocol, any): (_, _, IpAddr) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let kind = match mode {
        Mode::Raw => Type::RAW,
        Mode::Datagram => Type::DGRAM,
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Past the kernel's limit where this process may; else the kernel grants
    // what its limit allows, and less is no reason to fail.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    // Without it the time at which a packet is read counts.
    let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
    let identifier = match mode {
        Mode::Raw => {
            // It spares wake-ups; whatever comes is looked at in any case.
            let _ = socket.attach_filter(&wanted(family));
            None
        }
        Mode::Datagram => {
            match family {
                Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
                Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
            }
            socket.bind(&SockAddr::from(SocketAddr::new(any, 0)))?;
            socket.local_addr()?.as_socket().map(|bound| bound.port())
        }
    };
    Ok(IcmpSocket {
        socket,
        family,
        framing: match (family, mode) {
            (Family::V4, Mode::Raw) => Framing::Ipv4Header,
            _ => Framing::Bare,
        },
        mode,
        identifier,
    })
}

/// A packet filter (classic BPF) that lets echo replies and errors through: a
/// raw socket would else get every ICMP packet that reaches the machine, on
/// the loopback interface its own requests too.
fn wanted(family: Family) -> Vec<SockFilter> {
    // BPF_LDX|BPF_B|BPF_MSH: X = length of the IPv4 header at the start
    const HEADER_LENGTH: u16 = 0xb1;
    // BPF_LD|BPF_B|BPF_IND and BPF_LD|BPF_B|BPF_ABS: a byte at X + k, at k
    const BYTE_AFTER_HEADER: u16 = 0x50;
    const BYTE: u16 = 0x30;
    // BPF_JMP|BPF_JEQ|BPF_K
    const JUMP_IF_EQUAL: u16 = 0x15;
    // BPF_RET|BPF_K: so many bytes of the packet
    const RETURN: u16 = 0x06;
    let (mut program, types): (_, &[u8]) = match family {
        Family::V4 => (
            vec![
                SockFilter::new(HEADER_LENGTH, 0, 0, 0),
                SockFilter::new(BYTE_AFTER_HEADER, 0, 0, 0),
            ],
            &[0, 3, 11, 12],
        ),
        Family::V6 => (vec![SockFilter::new(BYTE, 0, 0, 0)], &[129, 1, 3, 4]),
    };
    for (to_accept, kind) in (1..=4).rev().zip(types) {
        program.push(SockFilter::new(
            JUMP_IF_EQUAL,
            to_accept,
            0,
            u32::from(*kind),
        ));
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program
}

impl IcmpSocket {
    /// For a poll.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends a packet.
    pub(super) fn send(&self, bytes: &[u8], target: IpAddr) -> io::Result<()> {
        // The port has no meaning for ICMP.
        let to = SockAddr::from(SocketAddr::new(target, 0));
        self.socket.send_to(bytes, &to).map(|_| ())
    }

    /// Forgets the error of an earlier packet, which a datagram socket tells
    /// to whoever sends next.
    pub(super) fn forget_error(&self) {
        let _ = self.socket.take_error();
    }

    /// The next packet; `None`: there is none.
    ///
    /// # Errors
    /// What is wrong with the socket.
    pub(super) fn receive(&self, buffers: &mut Buffers) -> io::Result<Option<Received>> {
        let Buffers {
            data,
            control,
            clock,
        } = buffers;
        let (length, from, stamp) = {
            let mut parts = [IoSliceMut::new(data)];
            let Some(got) = self.next(&mut parts, control, MsgFlags::empty())? else {
                return Ok(None);
            };
            let stamp = got.cmsgs().ok().and_then(|mut notes| {
                notes.find_map(|note| match note {
                    ControlMessageOwned::ScmTimestampns(at) => stamp(at),
                    _ => None,
                })
            });
            (got.bytes, got.address.and_then(address), stamp)
        };
        let bytes = data.get(..length).unwrap_or_default();
        Ok(Some(Received {
            from: from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            at: stamp
                .and_then(|stamp| clock.steady(stamp))
                .unwrap_or_else(Instant::now),
            heard: match self.family {
                Family::V4 => packet::parse_v4(bytes, self.framing),
                Family::V6 => packet::parse_v6(bytes),
            },
        }))
    }

    /// The next entry of a datagram socket's error queue; `None`: there is
    /// none.
    ///
    /// # Errors
    /// What is wrong with the socket.
    pub(super) fn receive_error(&self, buffers: &mut Buffers) -> io::Result<Option<Received>> {
        let Buffers { data, control, .. } = buffers;
        let (length, destination, said) = {
            let mut parts = [IoSliceMut::new(data)];
            let Some(got) = self.next(&mut parts, control, MsgFlags::MSG_ERRQUEUE)? else {
                return Ok(None);
            };
            let said = got.cmsgs().ok().and_then(|mut notes| {
                notes.find_map(|note| match note {
                    ControlMessageOwned::Ipv4RecvErr(error, from)
                        if error.ee_origin == ORIGIN_ICMP =>
                    {
                        let from = Ipv4Addr::from(u32::from_be(from?.sin_addr.s_addr));
                        Some((error.ee_type, error.ee_code, IpAddr::V4(from)))
                    }
                    ControlMessageOwned::Ipv6RecvErr(error, from)
                        if error.ee_origin == ORIGIN_ICMP6 =>
                    {
                        let from = Ipv6Addr::from(from?.sin6_addr.s6_addr);
                        Some((error.ee_type, error.ee_code, IpAddr::V6(from)))
                    }
                    _ => None,
                })
            });
            (got.bytes, got.address.and_then(address), said)
        };
        let quoted = data.get(..length).unwrap_or_default();
        let heard = destination
            .zip(said)
            .and_then(|(destination, (kind, code, _))| {
                packet::parse_queued(quoted, destination, kind, code)
            });
        Ok(Some(Received {
            from: said.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(_, _, from)| from),
            at: Instant::now(),
            heard,
        }))
    }

    fn next<'a, 'o, 'i: 'o>(
        &self,
        parts: &'o mut [IoSliceMut<'i>],
        control: &'a mut [u8],
        flags: MsgFlags,
    ) -> io::Result<Option<RecvMsg<'a, 'o, SockaddrStorage>>> {
        match recvmsg(self.fd(), parts, Some(control), flags) {
            Ok(got) => Ok(Some(got)),
            Err(errno) => match io::Error::from(errno) {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }
}

fn stamp(at: TimeSpec) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(at.tv_sec()).ok()?,
        u32::try_from(at.tv_nsec()).ok()?,
    ))
}

fn address(storage: SockaddrStorage) -> Option<IpAddr> {
    storage
        .as_sockaddr_in()
        .map(|v4| IpAddr::V4(v4.ip()))
        .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

fn refusal(family: Family, raw: &io::Error, datagram: &io::Error) -> String {
    use io::ErrorKind::PermissionDenied;
    match (raw.kind(), datagram.kind()) {
        (PermissionDenied, PermissionDenied) => "ping not possible: no CAP_NET_RAW and \
             net.ipv4.ping_group_range does not include this group"
            .to_owned(),
        (_, PermissionDenied) => format!("ping not possible: {raw}"),
        _ => format!("ping not possible over {}: {datagram}", family.name()),
    }
}

/// Why an echo did not leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendFault {
    /// For lack of room; it may leave in a moment.
    Busy,
    /// The routing table says that this target cannot be had.
    Unreachable(&'static str),
    /// This machine cannot send at all, which says nothing of the target.
    Here(String),
}

impl SendFault {
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        // Linux; the standard library has no kind for it.
        const ENOBUFS: i32 = 105;
        match error.kind() {
            _ if error.raw_os_error() == Some(ENOBUFS) => Self::Busy,
            Kind::WouldBlock | Kind::TimedOut | Kind::Interrupted | Kind::OutOfMemory => Self::Busy,
            Kind::HostUnreachable => Self::Unreachable("host unreachable by this machine's routes"),
            Kind::NetworkUnreachable => {
                Self::Here("ping not sent: this machine has no route to the network".to_owned())
            }
            Kind::NetworkDown => Self::Here("ping not sent: the network is down here".to_owned()),
            Kind::AddrNotAvailable => {
                Self::Here("ping not sent: this machine has no address to send from".to_owned())
            }
            Kind::PermissionDenied => Self::Here(
                "ping not sent: forbidden by a local firewall, or a broadcast address".to_owned(),
            ),
            _ => Self::Here(format!("ping not sent: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_a_clock_that_was_set_are_not_believed() {
        let clock = Clock::now();
        let ms = Duration::from_millis;
        for (stamp, at) in [
            (clock.wall, Some(clock.steady)),
            (clock.wall + ms(2), Some(clock.steady + ms(2))),
            (clock.wall - ms(3), Some(clock.steady - ms(3))),
            (clock.wall + ms(3_600_000), None),
            (clock.wall - ms(3_600_000), None),
            (Duration::ZERO, None),
        ] {
            assert_eq!(clock.steady(stamp), at);
        }
    }

    #[test]
    fn send_errors_are_told_apart() {
        let here = |text: &str| SendFault::Here(format!("ping not sent: {text}"));
        for (errno, fault) in [
            (105, SendFault::Busy),
            (11, SendFault::Busy),
            (4, SendFault::Busy),
            (12, SendFault::Busy),
            (
                113,
                SendFault::Unreachable("host unreachable by this machine's routes"),
            ),
            (101, here("this machine has no route to the network")),
            (100, here("the network is down here")),
            (99, here("this machine has no address to send from")),
            (
                1,
                here("forbidden by a local firewall, or a broadcast address"),
            ),
            (
                13,
                here("forbidden by a local firewall, or a broadcast address"),
            ),
            (22, here("Invalid argument (os error 22)")),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(SendFault::of(&error), fault, "{error}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let denied = || io::Error::from_raw_os_error(1);
        let no_family = || io::Error::from_raw_os_error(97);
        assert_eq!(
            refusal(Family::V4, &denied(), &io::Error::from_raw_os_error(13)),
            "ping not possible: no CAP_NET_RAW and net.ipv4.ping_group_range does not include \
             this group"
        );
        assert_eq!(
            refusal(Family::V6, &no_family(), &no_family()),
            "ping not possible over IPv6: Address family not supported by protocol (os error 97)"
        );
        assert_eq!(
            refusal(Family::V4, &io::Error::from_raw_os_error(24), &denied()),
            "ping not possible: Too many open files (os error 24)"
        );
    }
}
