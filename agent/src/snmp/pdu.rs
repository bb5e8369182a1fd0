//! Requests and responses (RFC 3416; RFC 1157 for version 1), and the messages
//! of the versions with a community around them: pure functions.
//!
//! Answers are decoded by the `snmp2` crate. Requests are written here, as
//! its encoder is reached only through its session, which takes the first
//! datagram for the answer, whichever request that belongs to, and holds
//! 128 KiB of buffers on the stack.

use std::fmt;

use av_proto::driver::Oid;
use av_proto::text::one_line;
use snmp2::{AsnReader, MessageType, asn1, snmp};

use super::ber::{
    element, expect, integer, is_well_formed, object_identifier, octets, parse_object_identifier,
    sequence, tlv,
};

/// More variables than any request of ours has answers.
const VARIABLES_MAX: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// The variables themselves.
    Get,
    /// Those that follow them.
    Next,
    /// Those that follow them, this many of each (RFC 3416, 4.2.3).
    Bulk(u8),
}

/// A request's PDU.
pub(super) fn request(ask: Ask, request_id: i32, oids: &[&Oid]) -> Vec<u8> {
    let null = [asn1::TYPE_NULL, 0].to_vec();
    let variables: Vec<Vec<u8>> = oids
        .iter()
        .map(|oid| sequence(&[object_identifier(oid), null.clone()]))
        .collect();
    let (tag, repetitions) = match ask {
        Ask::Get => (snmp::MSG_GET, 0),
        Ask::Next => (snmp::MSG_GET_NEXT, 0),
        Ask::Bulk(repetitions) => (snmp::MSG_GET_BULK, i32::from(repetitions)),
    };
    // Always four bytes, so that a request is as long as any other.
    let request_id = tlv(asn1::TYPE_INTEGER, &request_id.to_be_bytes());
    tlv(
        tag,
        &[
            request_id,
            integer(0),
            integer(repetitions),
            sequence(&variables),
        ]
        .concat(),
    )
}

/// The versions that carry a community.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2c,
}

impl Version {
    fn number(self) -> i32 {
        match self {
            Self::V1 => 0,
            Self::V2c => 1,
        }
    }
}

/// A message of version 1 or 2c (RFC 1157, 4; RFC 1901, 3).
pub(super) fn message(version: Version, community: &[u8], pdu: &[u8]) -> Vec<u8> {
    sequence(&[integer(version.number()), octets(community), pdu.to_vec()])
}

/// Why a datagram is not the response to our request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stray {
    /// Not SNMP, or damaged.
    Malformed,
    /// Another version, or not a response.
    OtherKind,
    /// Another request's.
    OtherRequest,
    /// It carries another community.
    OtherCommunity,
    /// Version 3: it is not as protected as it must be, or its digest is
    /// wrong.
    NotAuthentic,
}

/// A PDU from an agent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pdu {
    pub is_report: bool,
    pub request_id: i32,
    pub error_status: u32,
    pub error_index: u32,
    pub variables: Vec<(Oid, Value)>,
}

/// A variable's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    /// Counter32, Gauge32, Counter64, TimeTicks.
    Unsigned(u64),
    Octets(Vec<u8>),
    Oid(Oid),
    Ip([u8; 4]),
    /// A floating point number, which net-snmp wraps in an `Opaque`.
    Float(f64),
    /// Not there for this community or user (RFC 3416, 4.2.1), or an error of
    /// this variable alone.
    Absent(&'static str),
    /// Of a type that no variable of a MIB has.
    Odd,
}

/// Reads a datagram as a message with a community; the second value says
/// whether it is this one.
///
/// # Errors
/// Why it is no response of this version.
pub(super) fn parse_message(
    bytes: &[u8],
    version: Version,
    community: &[u8],
) -> Result<(Pdu, bool), Stray> {
    if !is_well_formed(bytes) {
        return Err(Stray::Malformed);
    }
    let message = snmp2::Pdu::from_bytes(bytes).map_err(|error| match error {
        snmp2::Error::UnsupportedVersion => Stray::OtherKind,
        _ => Stray::Malformed,
    })?;
    let expected = match version {
        Version::V1 => snmp2::Version::V1,
        Version::V2c => snmp2::Version::V2C,
    };
    if message.version() != Ok(expected) || message.message_type != MessageType::Response {
        return Err(Stray::OtherKind);
    }
    let is_ours = message.community == community;
    Ok((Pdu::of(&message, bytes)?, is_ours))
}

/// Reads the PDU of a message of version 3. It is the same as one of version
/// 2c, for which the decoder is made.
///
/// # Errors
/// Why it is none.
pub(super) fn parse_pdu(pdu: &[u8]) -> Result<Pdu, Stray> {
    let bytes = message(Version::V2c, &[], pdu);
    if !is_well_formed(&bytes) {
        return Err(Stray::Malformed);
    }
    let message = snmp2::Pdu::from_bytes(&bytes).map_err(|_| Stray::Malformed)?;
    match message.message_type {
        MessageType::Response | MessageType::Report => Pdu::of(&message, &bytes),
        _ => Err(Stray::OtherKind),
    }
}

impl Pdu {
    fn of(message: &snmp2::Pdu<'_>, bytes: &[u8]) -> Result<Self, Stray> {
        // The decoder's own iterator ends silently at what it cannot read.
        let mut list = variables(bytes).ok_or(Stray::Malformed)?;
        let mut variables = Vec::new();
        while !list.is_empty() {
            // Inside anything else nobody has looked at the numbers.
            let (pair, rest) = expect(list, asn1::TYPE_SEQUENCE).ok_or(Stray::Malformed)?;
            let (name, value) = variable(pair).ok_or(Stray::Malformed)?;
            variables.push((name, value));
            if variables.len() > VARIABLES_MAX {
                return Err(Stray::Malformed);
            }
            list = rest;
        }
        Ok(Self {
            is_report: message.message_type == MessageType::Report,
            request_id: message.req_id,
            error_status: message.error_status,
            error_index: message.error_index,
            variables,
        })
    }
}

/// The list of variables in a message: the last part of its PDU.
fn variables(message: &[u8]) -> Option<&[u8]> {
    let (content, _) = expect(message, asn1::TYPE_SEQUENCE)?;
    let (_, rest) = expect(content, asn1::TYPE_INTEGER)?;
    let (_, rest) = expect(rest, asn1::TYPE_OCTETSTRING)?;
    let (_, mut pdu, _) = element(rest)?;
    for _ in 0..3 {
        (_, pdu) = expect(pdu, asn1::TYPE_INTEGER)?;
    }
    expect(pdu, asn1::TYPE_SEQUENCE).map(|(list, _)| list)
}

fn variable(pair: &[u8]) -> Option<(Oid, Value)> {
    let mut reader = AsnReader::from_bytes(pair);
    let name = reader.read_asn_objectidentifier().ok()?;
    let name = parse_object_identifier(name.as_bytes())?;
    let (_, _, rest) = element(pair)?;
    let (tag, content, _) = element(rest)?;
    // The decoder takes 8 bytes at most; a large one has a zero before them
    // (X.690, 8.3.3).
    if tag == snmp::TYPE_COUNTER64 {
        if let [0, digits @ ..] = content {
            let digits = <[u8; 8]>::try_from(digits);
            if let Ok(digits) = digits {
                return Some((name, Value::Unsigned(u64::from_be_bytes(digits))));
            }
        }
    }
    let value = match reader.next()? {
        snmp2::Value::Integer(number) => Value::Integer(number),
        snmp2::Value::Counter32(number)
        | snmp2::Value::Unsigned32(number)
        | snmp2::Value::Timeticks(number) => Value::Unsigned(number.into()),
        snmp2::Value::Counter64(number) => Value::Unsigned(number),
        snmp2::Value::OctetString(bytes) => Value::Octets(bytes.to_vec()),
        snmp2::Value::ObjectIdentifier(oid) => Value::Oid(parse_object_identifier(oid.as_bytes())?),
        snmp2::Value::IpAddress(address) => Value::Ip(address),
        snmp2::Value::Opaque(bytes) => float(bytes).map_or(Value::Odd, Value::Float),
        snmp2::Value::NoSuchObject => Value::Absent("noSuchObject"),
        snmp2::Value::NoSuchInstance => Value::Absent("noSuchInstance"),
        snmp2::Value::EndOfMibView => Value::Absent("endOfMibView"),
        _ => Value::Odd,
    };
    Some((name, value))
}

/// net-snmp's NET-SNMP-TC `Float` and `Double`: an extended tag, a length, an
/// IEEE 754 number.
fn float(opaque: &[u8]) -> Option<f64> {
    match opaque {
        [0x9f, 0x78, 4, digits @ ..] => Some(f32::from_be_bytes(digits.try_into().ok()?).into()),
        [0x9f, 0x79, 8, digits @ ..] => Some(f64::from_be_bytes(digits.try_into().ok()?)),
        _ => None,
    }
}

/// RFC 3416, 3: the names of `error-status`.
pub(super) fn error_name(status: u32) -> &'static str {
    match status {
        1 => "tooBig",
        2 => "noSuchName",
        3 => "badValue",
        4 => "readOnly",
        5 => "genErr",
        6 => "noAccess",
        13 => "resourceUnavailable",
        16 => "authorizationError",
        _ => "unexpected error",
    }
}

impl fmt::Display for Pdu {
    /// For the wire's log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_report { "Report" } else { "Response" })?;
        if self.error_status != 0 {
            let (status, index) = (self.error_status, self.error_index);
            write!(f, " {} ({status}) at {index}", error_name(status))?;
        }
        for (name, value) in &self.variables {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Octets(bytes) => f.write_str(&text(bytes)),
            Self::Oid(oid) => oid.fmt(f),
            Self::Ip([a, b, c, d]) => write!(f, "{a}.{b}.{c}.{d}"),
            Self::Absent(why) => f.write_str(why),
            Self::Odd => f.write_str("?"),
        }
    }
}

/// An octet string as text on one line: many have several, or a C string's
/// end. What is no text is shown as hexadecimal pairs.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    if is_binary(bytes) {
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return pairs.join(":");
    }
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    one_line(&words.join(" "))
}

/// A text may have odd bytes, of an older character set or hostile ones; a
/// hardware address has six, of which some are no letters.
fn is_binary(bytes: &[u8]) -> bool {
    let is_odd = |byte: &&u8| !(0x20..0x7f).contains(*byte) && !byte.is_ascii_whitespace();
    let odd = match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .filter(|c| c.is_control() && !c.is_whitespace())
            .count(),
        Err(_) => bytes.iter().filter(is_odd).count(),
    };
    bytes.contains(&0) || 2 * odd > bytes.len() || (bytes.len() == 6 && odd > 0)
}
