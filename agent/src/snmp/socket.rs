//! A UDP socket that serves every device of a family, and hears which of them
//! ICMP says are not there.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, recvmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Answers that may wait for us; the system grants less where it must.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often a send is tried again that found another device's error.
const SEND_TRIES: u32 = 8;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Wire {
    family: Family,
    socket: UdpSocket,
}

/// Something that came.
#[derive(Debug)]
pub(super) enum Event {
    /// A datagram of this length is in the buffer.
    Datagram(usize, SocketAddr),
    /// Nothing that was sent to this address can arrive.
    Error(SocketAddr, io::Error),
}

impl Wire {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let (domain, any): (Domain, IpAddr) = match family {
            Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
            Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            Family::V6 => {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            }
        }
        // Less room is no error.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(Self {
            family,
            socket: UdpSocket::from_std(socket.into()),
        })
    }

    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Sends to `to`. An error that belongs to another device, which a shared
    /// socket reports to whoever asks next, goes to `errors`.
    pub(super) fn send(
        &self,
        bytes: &[u8],
        to: SocketAddr,
        errors: &mut Vec<(SocketAddr, io::Error)>,
    ) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match self.socket.send_to(bytes, to) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let before = errors.len();
                    while let Some(queued) = self.queued_error() {
                        errors.push(queued);
                    }
                    tries += 1;
                    let is_others = errors.len() > before
                        && errors.iter().skip(before).all(|(from, _)| *from != to);
                    if !is_others || tries >= SEND_TRIES {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What came next; `None` where nothing waits.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Option<Event> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok((length, from)) => return Some(Event::Datagram(length, from)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self
                        .queued_error()
                        .map(|(from, error)| Event::Error(from, error));
                }
                // Whose error it is says the queue.
                Err(_) => {
                    if let Some((from, error)) = self.queued_error() {
                        return Some(Event::Error(from, error));
                    }
                }
            }
        }
    }

    /// The next of the socket's error queue (ip(7), `IP_RECVERR`).
    fn queued_error(&self) -> Option<(SocketAddr, io::Error)> {
        match self.family {
            Family::V4 => self.queued::<SockaddrIn>(|address| SocketAddr::V4(address.into())),
            Family::V6 => self.queued::<SockaddrIn6>(|address| SocketAddr::V6(address.into())),
        }
    }

    fn queued<A: SockaddrLike + Copy>(
        &self,
        to: impl Fn(A) -> SocketAddr,
    ) -> Option<(SocketAddr, io::Error)> {
        // What was sent comes back with the error: it is not needed.
        let mut sent = [0; 64];
        let mut sent = [IoSliceMut::new(&mut sent)];
        let mut control = vec![0; 512];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        loop {
            let fd = self.socket.as_raw_fd();
            let message = match recvmsg::<A>(fd, &mut sent, Some(&mut control), flags) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(_) => return None,
            };
            let number = message.cmsgs().ok().and_then(|mut messages| {
                messages.find_map(|message| match message {
                    ControlMessageOwned::Ipv4RecvErr(error, _)
                    | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno),
                    _ => None,
                })
            });
            let number = number.and_then(|number| i32::try_from(number).ok());
            if let (Some(address), Some(number)) = (message.address, number) {
                return Some((to(address), io::Error::from_raw_os_error(number)));
            }
        }
    }
}
