//! ICMP sockets: opening them, and what their errors mean.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::packet::Framing;

/// How often the receiver looks whether it shall end, should the shutdown of
/// its socket not have woken it.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// A full queue of the network card must not hold a worker for long.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Answers of a whole sweep may come while the receiver waits for its turn.
const RECEIVE_BUFFER: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Which kind of socket the kernel granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A raw socket; needs `CAP_NET_RAW`. ICMP errors are heard.
    Raw,
    /// An ICMP datagram socket; needs a group of the process to be within
    /// `net.ipv4.ping_group_range`, which rules IPv6 too. The kernel chooses
    /// the identifier, and ICMP errors are not heard.
    Datagram,
}

/// An open ICMP socket.
///
/// It is a [`UdpSocket`] only in type: the standard library's way to receive
/// into initialised memory and to learn the sender.
#[derive(Debug)]
pub(super) struct IcmpSocket {
    pub socket: UdpSocket,
    pub mode: Mode,
    pub framing: Framing,
    /// The identifier that the kernel gives to what this socket sends; a raw
    /// socket leaves the choice to the sender.
    pub identifier: Option<u16>,
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
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    // The kernel grants what its limit allows; less is no reason to fail.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let identifier = match mode {
        Mode::Raw => None,
        Mode::Datagram => {
            socket.bind(&SockAddr::from(SocketAddr::new(any, 0)))?;
            socket.local_addr()?.as_socket().map(|bound| bound.port())
        }
    };
    Ok(IcmpSocket {
        socket: socket.into(),
        mode,
        framing: match (family, mode) {
            (Family::V4, Mode::Raw) => Framing::Ipv4Header,
            _ => Framing::Bare,
        },
        identifier,
    })
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
