//! Echo packets to bytes and back: pure functions.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::Packet;
use pnet::packet::icmp::echo_reply::EchoReplyPacket;
use pnet::packet::icmp::echo_request::{EchoRequestPacket, MutableEchoRequestPacket};
use pnet::packet::icmp::{self, IcmpPacket, IcmpTypes};
use pnet::packet::icmpv6::echo_reply::EchoReplyPacket as EchoReplyV6Packet;
use pnet::packet::icmpv6::echo_request::{
    EchoRequestPacket as EchoRequestV6Packet, MutableEchoRequestPacket as MutableEchoRequestV6,
};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;

use super::socket::Family;

/// Type, code, checksum, identifier and sequence number.
const HEADER: usize = 8;
/// As large as the payload of the ping that technicians know, so that what
/// lets the one through lets the other through.
const PAYLOAD: usize = 56;
/// Type, code, checksum and the unused word before a quoted packet.
const ERROR_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

/// What makes an echo ours.
///
/// Identifier and sequence number are 16 bits each and guessable: another
/// process can use the same. The random words in the payload cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// One for each socket.
    pub identifier: u16,
    /// One for each echo in flight on a socket.
    pub sequence: u16,
    /// What the payload begins with.
    pub mark: Mark,
}

/// The start of an echo's payload, returned unchanged by whoever answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Random, one for each socket: tells our echoes from a stranger's.
    pub socket: u64,
    /// Random, one for each probe: tells a live probe from a finished one.
    pub cookie: u64,
}

/// How the kernel hands over what a socket received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// An IPv4 raw socket: the IP header comes first.
    Ipv4Header,
    /// An ICMP datagram socket, and every ICMPv6 socket: no IP header.
    Bare,
}

/// A packet that may concern an echo of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// An echo reply (RFC 792; RFC 4443, 4.2).
    Reply(Echo),
    /// An ICMP error that quotes an echo request.
    Failed {
        /// Where the quoted request was going.
        destination: IpAddr,
        /// The quoted request's.
        identifier: u16,
        /// The quoted request's.
        sequence: u16,
        /// Routers may quote as little as the first 8 bytes, which is too
        /// little for the payload.
        mark: Option<Mark>,
        /// What is said of it.
        error: IcmpError,
    },
}

impl fmt::Display for Heard {
    /// Without the words that make an echo ours.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(echo) => write!(out, "echo reply {}", echo.sequence),
            Self::Failed {
                destination,
                sequence,
                error,
                ..
            } => write!(
                out,
                "{} ({error}) of echo request {sequence} to {destination}",
                error.reason()
            ),
        }
    }
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Whether the numbers are ICMP's or ICMPv6's.
    pub family: Family,
    /// The message's type.
    pub kind: u8,
    /// The message's code.
    pub code: u8,
}

impl IcmpError {
    /// `None` for what says nothing of the target, such as a redirect.
    fn new(family: Family, kind: u8, code: u8) -> Option<Self> {
        let counts = match family {
            Family::V4 => matches!(kind, 3 | 11 | 12),
            Family::V6 => matches!(kind, 1 | 3 | 4),
        };
        counts.then_some(Self { family, kind, code })
    }

    /// In a technician's words. Codes: RFC 792, RFC 1122 (3.2.2.1), RFC 1812
    /// (5.2.7.1) and RFC 4443 (3.1).
    #[must_use]
    pub fn reason(self) -> &'static str {
        match (self.family, self.kind, self.code) {
            (Family::V4, 3, 0 | 6 | 11) => "destination network unreachable",
            (Family::V4, 3, 1 | 7 | 12) => "destination host unreachable",
            (Family::V4, 3, 2) => "destination knows no ICMP",
            (Family::V4, 3, 9 | 10 | 13) | (Family::V6, 1, 1 | 5) => "ping forbidden by a firewall",
            (Family::V4, 11, _) => "time to live exceeded on the way",
            (Family::V6, 1, 0) => "no route to the destination",
            (Family::V6, 1, 3) => "destination host unreachable",
            (Family::V6, 1, 6) => "route to the destination is refused",
            (Family::V6, 3, _) => "hop limit exceeded on the way",
            (Family::V4, 12, _) | (Family::V6, 4, _) => "refused as malformed",
            _ => "destination unreachable",
        }
    }
}

impl fmt::Display for IcmpError {
    /// Type and code, by which the standards and other tools know it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.family {
            Family::V4 => "ICMP",
            Family::V6 => "ICMPv6",
        };
        write!(out, "{name} {}/{}", self.kind, self.code)
    }
}

/// An ICMP echo request (RFC 792).
#[must_use]
pub fn request_v4(echo: Echo) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + PAYLOAD];
    if let Some(mut packet) = MutableEchoRequestPacket::new(&mut bytes) {
        packet.set_icmp_type(IcmpTypes::EchoRequest);
        packet.set_identifier(echo.identifier);
        packet.set_sequence_number(echo.sequence);
        packet.set_payload(&payload(echo.mark));
    }
    let checksum = IcmpPacket::new(&bytes).map_or(0, |packet| icmp::checksum(&packet));
    if let Some(mut packet) = MutableEchoRequestPacket::new(&mut bytes) {
        packet.set_checksum(checksum);
    }
    bytes
}

/// An ICMPv6 echo request (RFC 4443, 4.1). The checksum, which covers the
/// source address, is the kernel's to fill in.
#[must_use]
pub fn request_v6(echo: Echo) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + PAYLOAD];
    if let Some(mut packet) = MutableEchoRequestV6::new(&mut bytes) {
        packet.set_icmpv6_type(Icmpv6Types::EchoRequest);
        packet.set_identifier(echo.identifier);
        packet.set_sequence_number(echo.sequence);
        packet.set_payload(&payload(echo.mark));
    }
    bytes
}

fn payload(mark: Mark) -> [u8; PAYLOAD] {
    let mut payload = [0x20; PAYLOAD];
    payload[..8].copy_from_slice(&mark.socket.to_be_bytes());
    payload[8..16].copy_from_slice(&mark.cookie.to_be_bytes());
    payload
}

/// Reads what an IPv4 ICMP socket received. `None`: nothing that concerns
/// an echo, or not well formed.
#[must_use]
pub fn parse_v4(bytes: &[u8], framing: Framing) -> Option<Heard> {
    let message = match framing {
        Framing::Bare => bytes,
        Framing::Ipv4Header => ipv4_payload(bytes)?.1,
    };
    let packet = IcmpPacket::new(message)?;
    // A raw socket gets its copy before the kernel checks the sum.
    if packet.get_checksum() != icmp::checksum(&packet) {
        return None;
    }
    match packet.get_icmp_type() {
        IcmpTypes::EchoReply => {
            let reply = EchoReplyPacket::new(message)?;
            Some(Heard::Reply(Echo {
                identifier: reply.get_identifier(),
                sequence: reply.get_sequence_number(),
                mark: mark(reply.payload())?,
            }))
        }
        kind => {
            let error = IcmpError::new(Family::V4, kind.0, packet.get_icmp_code().0)?;
            let (destination, quoted) = ipv4_payload(message.get(ERROR_HEADER..)?)?;
            failed_v4(error, destination, quoted)
        }
    }
}

/// Reads what an ICMPv6 socket received. `None` as for [`parse_v4`].
#[must_use]
pub fn parse_v6(bytes: &[u8]) -> Option<Heard> {
    let packet = Icmpv6Packet::new(bytes)?;
    match packet.get_icmpv6_type() {
        Icmpv6Types::EchoReply => {
            let reply = EchoReplyV6Packet::new(bytes)?;
            Some(Heard::Reply(Echo {
                identifier: reply.get_identifier(),
                sequence: reply.get_sequence_number(),
                mark: mark(reply.payload())?,
            }))
        }
        kind => {
            let error = IcmpError::new(Family::V6, kind.0, packet.get_icmpv6_code().0)?;
            let quoted = bytes.get(ERROR_HEADER..)?;
            let header = Ipv6Packet::new(quoted)?;
            // Our requests have no extension headers.
            if header.get_version() != 6
                || header.get_next_header() != IpNextHeaderProtocols::Icmpv6
            {
                return None;
            }
            failed_v6(error, header.get_destination(), quoted.get(IPV6_HEADER..)?)
        }
    }
}

/// Destination and payload of an IPv4 packet that carries ICMP.
fn ipv4_payload(bytes: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = Ipv4Packet::new(bytes)?;
    let length = usize::from(header.get_header_length()) * 4;
    if header.get_version() != 4
        || length < Ipv4Packet::minimum_packet_size()
        || header.get_next_level_protocol() != IpNextHeaderProtocols::Icmp
        // A later fragment has no ICMP header.
        || header.get_fragment_offset() != 0
    {
        return None;
    }
    Some((header.get_destination(), bytes.get(length..)?))
}

/// Reads an entry of a datagram socket's error queue (`IP_RECVERR`,
/// `IPV6_RECVERR`): the request as far as it was quoted, where it was going,
/// and the type and code of the error.
#[must_use]
pub fn parse_queued(quoted: &[u8], destination: IpAddr, kind: u8, code: u8) -> Option<Heard> {
    let error = IcmpError::new(Family::of(destination), kind, code)?;
    match destination {
        IpAddr::V4(destination) => failed_v4(error, destination, quoted),
        IpAddr::V6(destination) => failed_v6(error, destination, quoted),
    }
}

fn failed_v4(error: IcmpError, destination: Ipv4Addr, quoted: &[u8]) -> Option<Heard> {
    let request = EchoRequestPacket::new(quoted)?;
    (request.get_icmp_type() == IcmpTypes::EchoRequest).then(|| Heard::Failed {
        destination: destination.into(),
        identifier: request.get_identifier(),
        sequence: request.get_sequence_number(),
        mark: mark(request.payload()),
        error,
    })
}

fn failed_v6(error: IcmpError, destination: Ipv6Addr, quoted: &[u8]) -> Option<Heard> {
    let request = EchoRequestV6Packet::new(quoted)?;
    (request.get_icmpv6_type() == Icmpv6Types::EchoRequest).then(|| Heard::Failed {
        destination: destination.into(),
        identifier: request.get_identifier(),
        sequence: request.get_sequence_number(),
        mark: mark(request.payload()),
        error,
    })
}

fn mark(payload: &[u8]) -> Option<Mark> {
    let word = |at: usize| {
        payload
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes)
    };
    Some(Mark {
        socket: word(0)?,
        cookie: word(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo = Echo {
        identifier: 0xfffe,
        sequence: 0xffff,
        mark: Mark {
            socket: 0x0102_0304_0506_0708,
            cookie: 0xf1f2_f3f4_f5f6_f7f8,
        },
    };
    const TARGET: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

    /// The one's complement sum, written from RFC 1071 rather than taken
    /// from the library under test.
    fn summed(mut message: Vec<u8>) -> Vec<u8> {
        message[2] = 0;
        message[3] = 0;
        let mut sum: u32 = message
            .chunks(2)
            .map(|pair| {
                (u32::from(pair[0]) << 8) | u32::from(pair.get(1).copied().unwrap_or_default())
            })
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let sum = !u16::try_from(sum).unwrap();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    fn reply_v4(echo: Echo) -> Vec<u8> {
        let mut message = request_v4(echo);
        message[0] = 0;
        summed(message)
    }

    fn reply_v6(echo: Echo) -> Vec<u8> {
        let mut message = request_v6(echo);
        message[0] = 129;
        message
    }

    fn in_ipv4(options: usize, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + options).unwrap();
        let mut packet = vec![0x40 | words, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1];
        packet.extend(destination.octets());
        packet.extend(vec![1; options * 4]);
        packet.extend(message);
        packet
    }

    fn in_ipv6(destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 64, 58, 64];
        packet.extend([0; 16]);
        packet.extend(destination.octets());
        packet.extend(message);
        packet
    }

    fn error_v4(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(quoted);
        summed(message)
    }

    fn error_v6(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(quoted);
        message
    }

    #[test]
    fn requests_are_as_the_standards_have_them() {
        let request = request_v4(ECHO);
        assert_eq!(request.len(), 64);
        assert_eq!(request[..2], [8, 0]);
        assert_eq!(request[4..8], [0xff, 0xfe, 0xff, 0xff]);
        assert_eq!(request, summed(request.clone()));
        let request = request_v6(ECHO);
        assert_eq!(request[..2], [128, 0]);
        assert_eq!(request[4..8], [0xff, 0xfe, 0xff, 0xff]);
        assert_eq!(
            request[8..24],
            [
                1, 2, 3, 4, 5, 6, 7, 8, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8
            ]
        );
    }

    #[test]
    fn replies_are_read_with_and_without_ip_header() {
        let reply = reply_v4(ECHO);
        let heard = Some(Heard::Reply(ECHO));
        assert_eq!(parse_v4(&reply, Framing::Bare), heard);
        for options in [0, 1, 10] {
            let packet = in_ipv4(options, TARGET, &reply);
            assert_eq!(parse_v4(&packet, Framing::Ipv4Header), heard);
        }
        assert_eq!(parse_v6(&reply_v6(ECHO)), heard);
    }

    #[test]
    fn errors_are_read_from_what_they_quote() {
        for (kind, code, reason) in [
            (3, 0, "destination network unreachable"),
            (3, 1, "destination host unreachable"),
            (3, 2, "destination knows no ICMP"),
            (3, 13, "ping forbidden by a firewall"),
            (3, 255, "destination unreachable"),
            (11, 0, "time to live exceeded on the way"),
            (12, 0, "refused as malformed"),
        ] {
            // 8 bytes of the request, 8 with IP options, and all of it
            for (options, quoted, marked) in [(0, 8, false), (3, 8, false), (0, 64, true)] {
                let quoted = in_ipv4(options, TARGET, &request_v4(ECHO)[..quoted]);
                let packet = in_ipv4(0, TARGET, &error_v4(kind, code, &quoted));
                assert_eq!(
                    parse_v4(&packet, Framing::Ipv4Header),
                    Some(Heard::Failed {
                        destination: TARGET.into(),
                        identifier: ECHO.identifier,
                        sequence: ECHO.sequence,
                        mark: marked.then_some(ECHO.mark),
                        error: said(Family::V4, kind, code, reason),
                    })
                );
            }
        }
        for (kind, code, reason) in [
            (1, 0, "no route to the destination"),
            (1, 1, "ping forbidden by a firewall"),
            (1, 3, "destination host unreachable"),
            (1, 99, "destination unreachable"),
            (3, 0, "hop limit exceeded on the way"),
        ] {
            let quoted = in_ipv6(TARGET_V6, &request_v6(ECHO));
            assert_eq!(
                parse_v6(&error_v6(kind, code, &quoted)),
                Some(Heard::Failed {
                    destination: TARGET_V6.into(),
                    identifier: ECHO.identifier,
                    sequence: ECHO.sequence,
                    mark: Some(ECHO.mark),
                    error: said(Family::V6, kind, code, reason),
                })
            );
        }
    }

    fn said(family: Family, kind: u8, code: u8, reason: &str) -> IcmpError {
        let error = IcmpError { family, kind, code };
        assert_eq!(error.reason(), reason);
        error
    }

    #[test]
    fn the_error_queue_is_read() {
        let (v4, v6) = (request_v4(ECHO), request_v6(ECHO));
        for (quoted, destination, kind, code, mark) in [
            (&v4[..], IpAddr::from(TARGET), 3, 13, Some(ECHO.mark)),
            (&v4[..8], TARGET.into(), 3, 1, None),
            (&v6[..], TARGET_V6.into(), 1, 3, Some(ECHO.mark)),
        ] {
            assert_eq!(
                parse_queued(quoted, destination, kind, code),
                Some(Heard::Failed {
                    destination,
                    identifier: ECHO.identifier,
                    sequence: ECHO.sequence,
                    mark,
                    error: IcmpError {
                        family: Family::of(destination),
                        kind,
                        code
                    },
                })
            );
        }
        for (quoted, kind) in [(&v4[..7], 3), (&reply_v4(ECHO), 3), (&v4, 5)] {
            assert_eq!(parse_queued(quoted, TARGET.into(), kind, 1), None);
        }
    }

    #[test]
    fn what_does_not_concern_an_echo_is_nothing() {
        let reply = reply_v4(ECHO);
        let quoted = in_ipv4(0, TARGET, &request_v4(ECHO));
        let mut bad_sum = reply.clone();
        bad_sum[20] ^= 1;
        let mut fragment = in_ipv4(0, TARGET, &reply);
        fragment[7] = 1;
        let mut udp = in_ipv4(0, TARGET, &reply);
        udp[9] = 17;
        let mut version = in_ipv4(0, TARGET, &reply);
        version[0] = 0x65;
        let mut short_header = in_ipv4(0, TARGET, &reply);
        short_header[0] = 0x44;
        let mut long_header = in_ipv4(0, TARGET, &reply[..8]);
        long_header[0] = 0x4f;
        let mut quoted_reply = quoted.clone();
        quoted_reply[20] = 0;
        for (case, packet) in [
            ("empty", vec![]),
            ("only a header", in_ipv4(0, TARGET, &[])),
            ("our own request", in_ipv4(0, TARGET, &request_v4(ECHO))),
            (
                "reply without mark",
                in_ipv4(0, TARGET, &summed(reply[..23].to_vec())),
            ),
            ("wrong checksum", in_ipv4(0, TARGET, &bad_sum)),
            ("later fragment", fragment),
            ("not ICMP", udp),
            ("not IPv4", version),
            ("IP header shorter than any", short_header),
            ("IP header longer than the packet", long_header),
            (
                "error that quotes nothing",
                in_ipv4(0, TARGET, &error_v4(3, 1, &[])),
            ),
            (
                "error that quotes 7 bytes",
                in_ipv4(0, TARGET, &error_v4(3, 1, &quoted[..27])),
            ),
            (
                "error that quotes a reply",
                in_ipv4(0, TARGET, &error_v4(3, 1, &quoted_reply)),
            ),
            ("redirect", in_ipv4(0, TARGET, &error_v4(5, 1, &quoted))),
        ] {
            assert_eq!(parse_v4(&packet, Framing::Ipv4Header), None, "{case}");
        }
        let mut wrong_next = in_ipv6(TARGET_V6, &request_v6(ECHO));
        wrong_next[6] = 17;
        for (case, packet) in [
            ("empty", vec![]),
            ("our own request", request_v6(ECHO)),
            ("neighbour advertisement", vec![136; 32]),
            ("error that quotes nothing", error_v6(1, 3, &[])),
            (
                "error cut inside the echo",
                error_v6(1, 3, &in_ipv6(TARGET_V6, &request_v6(ECHO)[..7])),
            ),
            ("error that quotes UDP", error_v6(1, 3, &wrong_next)),
        ] {
            assert_eq!(parse_v6(&packet), None, "{case}");
        }
    }

    /// Every length of a valid packet, and a hundred thousand with changed
    /// bytes.
    #[test]
    fn damaged_packets_never_panic() {
        let packets = [
            in_ipv4(0, TARGET, &reply_v4(ECHO)),
            in_ipv4(
                2,
                TARGET,
                &error_v4(3, 1, &in_ipv4(1, TARGET, &request_v4(ECHO))),
            ),
            reply_v4(ECHO),
            reply_v6(ECHO),
            error_v6(1, 3, &in_ipv6(TARGET_V6, &request_v6(ECHO))),
        ];
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
        };
        for packet in &packets {
            for length in 0..packet.len() {
                let cut = &packet[..length];
                let _ = (parse_v4(cut, Framing::Ipv4Header), parse_v6(cut));
                let _ = parse_v4(cut, Framing::Bare);
            }
            for _ in 0..20_000 {
                let mut damaged = packet.clone();
                for _ in 0..=random(4) {
                    let at = random(damaged.len());
                    damaged[at] ^= u8::try_from(1 + random(255)).unwrap();
                }
                damaged.truncate(1 + random(damaged.len()));
                let _ = (parse_v4(&damaged, Framing::Ipv4Header), parse_v6(&damaged));
                let _ = parse_v4(&damaged, Framing::Bare);
            }
        }
    }
}
