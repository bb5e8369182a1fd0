//! SNMP v2c messages: pure functions.
//!
//! Answers are decoded by the `snmp2` crate. Requests are written here, as
//! its encoder is reached only through its session, which takes the first
//! datagram for the answer, whichever request that belongs to, and holds
//! 128 KiB of buffers on the stack.

use av_proto::text::excerpt;
use snmp2::{MessageType, Pdu, Value, Version, asn1, snmp};

/// `sysDescr.0` (RFC 3418), 1.3.6.1.2.1.1.1.0 in BER.
const SYS_DESCR: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 1, 0];
/// `sysUpTime.0`, 1.3.6.1.2.1.1.3.0.
const SYS_UPTIME: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 3, 0];
/// As long as a `DisplayString` can be.
const DESCR_MAX: usize = 255;
/// A response to us is nested four deep.
const DEPTH_MAX: u8 = 8;

/// A response to our request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// What the agent has.
    Values {
        /// On one line, at most 255 characters.
        descr: Field<String>,
        /// In hundredths of a second.
        uptime: Field<u32>,
    },
    /// The agent cannot or will not say: RFC 3416's `error-status`.
    Refused(u32),
}

/// One variable of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field<T> {
    Known(T),
    /// Not in the response, or with a value of another type.
    Absent,
    /// Not there for this community (RFC 3416, 4.2.1).
    Hidden(&'static str),
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
}

/// A GetRequest for both variables (RFC 3416, 4.2.1, in RFC 1901's wrapper).
pub(super) fn request(community: &[u8], request_id: i32) -> Vec<u8> {
    let variable = |oid| {
        tlv(
            asn1::TYPE_SEQUENCE,
            &[
                tlv(asn1::TYPE_OBJECTIDENTIFIER, oid),
                tlv(asn1::TYPE_NULL, &[]),
            ]
            .concat(),
        )
    };
    let zero = tlv(asn1::TYPE_INTEGER, &[0]);
    let pdu = [
        tlv(asn1::TYPE_INTEGER, &request_id.to_be_bytes()),
        zero.clone(),
        zero,
        tlv(
            asn1::TYPE_SEQUENCE,
            &[variable(SYS_DESCR), variable(SYS_UPTIME)].concat(),
        ),
    ];
    let message = [
        tlv(asn1::TYPE_INTEGER, &[1]),
        tlv(asn1::TYPE_OCTETSTRING, community),
        tlv(snmp::MSG_GET, &pdu.concat()),
    ];
    tlv(asn1::TYPE_SEQUENCE, &message.concat())
}

/// Tag, length and content (X.690).
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => bytes.push(length),
        _ => {
            let length = content.len().to_be_bytes();
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            let digits = length.get(zeros..).unwrap_or_default();
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            bytes.extend_from_slice(digits);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// Reads a datagram as the response to our request.
///
/// # Errors
/// Why it is not.
pub(super) fn parse(bytes: &[u8], community: &[u8], request_id: i32) -> Result<Answer, Stray> {
    if !is_well_formed(bytes) {
        return Err(Stray::Malformed);
    }
    let pdu = Pdu::from_bytes(bytes).map_err(|error| match error {
        snmp2::Error::UnsupportedVersion => Stray::OtherKind,
        _ => Stray::Malformed,
    })?;
    if pdu.version() != Ok(Version::V2C) || pdu.message_type != MessageType::Response {
        return Err(Stray::OtherKind);
    }
    if pdu.req_id != request_id {
        return Err(Stray::OtherRequest);
    }
    if pdu.community != community {
        return Err(Stray::OtherCommunity);
    }
    if pdu.error_status != snmp::ERRSTATUS_NOERROR {
        return Ok(Answer::Refused(pdu.error_status));
    }
    let mut descr = Field::Absent;
    let mut uptime = Field::Absent;
    for (name, value) in pdu.varbinds {
        match (name.as_bytes(), value) {
            (SYS_DESCR, Value::OctetString(text)) => descr = Field::Known(one_line(text)),
            (SYS_DESCR, value) => descr = hidden(&value).map_or(Field::Absent, Field::Hidden),
            (SYS_UPTIME, Value::Timeticks(ticks)) => uptime = Field::Known(ticks),
            (SYS_UPTIME, value) => uptime = hidden(&value).map_or(Field::Absent, Field::Hidden),
            _ => {}
        }
    }
    Ok(Answer::Values { descr, uptime })
}

fn hidden(value: &Value<'_>) -> Option<&'static str> {
    match value {
        Value::NoSuchObject => Some("noSuchObject"),
        Value::NoSuchInstance => Some("noSuchInstance"),
        _ => None,
    }
}

/// Many a description has several lines, or a C string's end.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.trim_end_matches('\0').split_whitespace().collect();
    excerpt(&words.join(" "), DESCR_MAX)
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

/// Whether lengths and nesting agree, and every number has a digit. The
/// decoder overflows on a number of no bytes, which must not reach it.
fn is_well_formed(bytes: &[u8]) -> bool {
    // What follows the message is padding.
    matches!(element(bytes), Some((tag, content, _))
        if tag == asn1::TYPE_SEQUENCE && is_well_formed_within(content, DEPTH_MAX))
}

fn is_well_formed_within(mut bytes: &[u8], depth: u8) -> bool {
    while !bytes.is_empty() {
        let Some((tag, content, rest)) = element(bytes) else {
            return false;
        };
        let well = if tag & asn1::CONSTRUCTED != 0 {
            depth > 0 && is_well_formed_within(content, depth - 1)
        } else {
            !content.is_empty() || !is_number(tag)
        };
        if !well {
            return false;
        }
        bytes = rest;
    }
    true
}

fn is_number(tag: u8) -> bool {
    matches!(
        tag,
        asn1::TYPE_INTEGER
            | snmp::TYPE_COUNTER32
            | snmp::TYPE_UNSIGNED32
            | snmp::TYPE_TIMETICKS
            | snmp::TYPE_COUNTER64
    )
}

/// The first element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // No length of no bytes, and none that no datagram has.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0_u32, |sum, digit| (sum << 8) | u32::from(*digit));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMUNITY: &[u8] = b"public";
    const ID: i32 = 0x1234_5678;

    fn variable(oid: &[u8], value: Vec<u8>) -> Vec<u8> {
        tlv(0x30, &[tlv(6, oid), value].concat())
    }

    fn message(
        version: u8,
        community: &[u8],
        kind: u8,
        id: i32,
        error: u8,
        variables: &[u8],
    ) -> Vec<u8> {
        let pdu = [
            tlv(2, &id.to_be_bytes()),
            tlv(2, &[error]),
            tlv(2, &[0]),
            tlv(0x30, variables),
        ]
        .concat();
        tlv(
            0x30,
            &[tlv(2, &[version]), tlv(4, community), tlv(kind, &pdu)].concat(),
        )
    }

    fn response(variables: &[Vec<u8>]) -> Vec<u8> {
        message(1, COMMUNITY, 0xa2, ID, 0, &variables.concat())
    }

    fn values(descr: Field<String>, uptime: Field<u32>) -> Result<Answer, Stray> {
        Ok(Answer::Values { descr, uptime })
    }

    fn known(text: &str) -> Field<String> {
        Field::Known(text.to_owned())
    }

    #[test]
    fn the_request_byte_for_byte() {
        assert_eq!(
            request(b"public", 1),
            [
                &b"\x30\x37\x02\x01\x01\x04\x06public"[..],
                b"\xa0\x2a\x02\x04\0\0\0\x01\x02\x01\0\x02\x01\0\x30\x1c",
                b"\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0\x05\0",
                b"\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x03\0\x05\0",
            ]
            .concat()
        );
    }

    #[test]
    fn the_decoder_reads_requests_of_every_length() {
        for length in [1, 70, 90, 127, 128, 255, 256, 1000] {
            let community = vec![b'c'; length];
            let bytes = request(&community, ID);
            assert!(is_well_formed(&bytes));
            let pdu = Pdu::from_bytes(&bytes).unwrap();
            assert_eq!(pdu.version(), Ok(Version::V2C));
            assert_eq!(pdu.community, community);
            assert_eq!(pdu.message_type, MessageType::GetRequest);
            assert_eq!((pdu.req_id, pdu.error_status, pdu.error_index), (ID, 0, 0));
            let names: Vec<String> = pdu.varbinds.map(|(name, _)| name.to_string()).collect();
            assert_eq!(names, ["1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.3.0"]);
        }
    }

    #[test]
    fn answers() {
        let descr = |text: &[u8]| variable(SYS_DESCR, tlv(4, text));
        let uptime = |bytes: &[u8]| variable(SYS_UPTIME, tlv(0x43, bytes));
        for (case, bytes, answer) in [
            (
                "both",
                response(&[descr(b"Switch X"), uptime(&[1, 0])]),
                values(known("Switch X"), Field::Known(256)),
            ),
            (
                "the other way round",
                response(&[uptime(&[0, 0xff, 0xff, 0xff, 0xff]), descr(b"x")]),
                values(known("x"), Field::Known(u32::MAX)),
            ),
            (
                "several lines, a C string's end",
                response(&[descr(b" Cisco IOS\r\n\tVersion 15 \0\0")]),
                values(known("Cisco IOS Version 15"), Field::Absent),
            ),
            (
                "hostile and not UTF-8",
                response(&[descr(b"Caf\xe9 \x1b[31m\xe2\x80\xae")]),
                values(known("Caf\u{fffd} \u{fffd}[31m\u{fffd}"), Field::Absent),
            ),
            (
                "too long",
                response(&[descr(&[b'x'; 300])]),
                values(known(&format!("{}…", "x".repeat(254))), Field::Absent),
            ),
            (
                "nothing",
                response(&[]),
                values(Field::Absent, Field::Absent),
            ),
            (
                "hidden",
                response(&[
                    variable(SYS_DESCR, tlv(0x80, &[])),
                    variable(SYS_UPTIME, tlv(0x81, &[])),
                ]),
                values(
                    Field::Hidden("noSuchObject"),
                    Field::Hidden("noSuchInstance"),
                ),
            ),
            (
                "of other types",
                response(&[
                    variable(SYS_DESCR, tlv(2, &[7])),
                    variable(SYS_UPTIME, tlv(4, b"x")),
                ]),
                values(Field::Absent, Field::Absent),
            ),
            (
                "of other names",
                response(&[variable(&[0x2b, 6], tlv(4, b"x"))]),
                values(Field::Absent, Field::Absent),
            ),
            (
                "error",
                message(1, COMMUNITY, 0xa2, ID, 16, &[]),
                Ok(Answer::Refused(16)),
            ),
            (
                "padding after it",
                [response(&[descr(b"x")]), vec![0; 9]].concat(),
                values(known("x"), Field::Absent),
            ),
        ] {
            assert_eq!(parse(&bytes, COMMUNITY, ID), answer, "{case}");
        }
    }

    #[test]
    fn strays() {
        let descr = variable(SYS_DESCR, tlv(4, b"x"));
        let with_pdu = |pdu: &[u8]| {
            tlv(
                0x30,
                &[tlv(2, &[1]), tlv(4, COMMUNITY), tlv(0xa2, pdu)].concat(),
            )
        };
        let mut nested = tlv(0x30, &[]);
        for _ in 0..100 {
            nested = tlv(0x30, &nested);
        }
        for (case, bytes, stray) in [
            ("empty", vec![], Stray::Malformed),
            ("text", b"hello".to_vec(), Stray::Malformed),
            ("zeros", vec![0; 100], Stray::Malformed),
            ("only a tag", vec![0x30], Stray::Malformed),
            (
                "indefinite length",
                vec![0x30, 0x80, 0, 0],
                Stray::Malformed,
            ),
            (
                "length beyond any",
                vec![
                    0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,
                ],
                Stray::Malformed,
            ),
            (
                "length beyond the end",
                vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0],
                Stray::Malformed,
            ),
            ("nested without end", nested, Stray::Malformed),
            (
                "number of no bytes",
                with_pdu(&[tlv(2, &[]), tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &[])].concat()),
                Stray::Malformed,
            ),
            (
                "uptime of no bytes",
                response(&[variable(SYS_UPTIME, tlv(0x43, &[]))]),
                Stray::Malformed,
            ),
            (
                "number of nine bytes",
                with_pdu(&[tlv(2, &[1; 9]), tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &[])].concat()),
                Stray::Malformed,
            ),
            ("cut short", with_pdu(&tlv(2, &[1])), Stray::Malformed),
            (
                "version 1",
                message(0, COMMUNITY, 0xa2, ID, 0, &descr),
                Stray::OtherKind,
            ),
            (
                "version 3",
                message(3, COMMUNITY, 0xa2, ID, 0, &descr),
                Stray::OtherKind,
            ),
            ("our own request", request(COMMUNITY, ID), Stray::OtherKind),
            (
                "report",
                message(1, COMMUNITY, 0xa8, ID, 0, &descr),
                Stray::OtherKind,
            ),
            (
                "another request",
                message(1, COMMUNITY, 0xa2, ID - 1, 0, &descr),
                Stray::OtherRequest,
            ),
            (
                "another community",
                message(1, b"private", 0xa2, ID, 0, &descr),
                Stray::OtherCommunity,
            ),
        ] {
            assert_eq!(parse(&bytes, COMMUNITY, ID), Err(stray), "{case}");
        }
    }

    /// Every length of a good response, and two hundred thousand with changed
    /// bytes: nothing panics, the decoder's overflow included, which debug
    /// builds check.
    #[test]
    fn damaged_answers_never_panic() {
        let good = response(&[
            variable(SYS_DESCR, tlv(4, b"Switch X, version 1.2.3")),
            variable(SYS_UPTIME, tlv(0x43, &[1, 2, 3])),
            variable(&[0x2b, 6, 1], tlv(0x46, &[1, 2, 3])),
            variable(&[0x2b, 6, 2], tlv(0x40, &[127, 0, 0, 1])),
        ]);
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length], COMMUNITY, ID), Err(Stray::Malformed));
        }
        let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                // Small values are lengths and tags more often than not.
                let below = if random(2) == 0 { 8 } else { 256 };
                bytes[at] = u8::try_from(random(below)).unwrap();
            }
            accepted += usize::from(parse(&bytes, COMMUNITY, ID).is_ok());
        }
        // The damage is not so great that nothing reaches the decoder.
        assert!(accepted > 1000, "{accepted}");
    }
}
