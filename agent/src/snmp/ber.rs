//! The Basic Encoding Rules (X.690) as far as SNMP uses them (RFC 3417, 8).

use av_proto::driver::Oid;
use snmp2::{asn1, snmp};

/// A response to us is nested four deep.
const DEPTH_MAX: u8 = 8;

/// Tag, length and content.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 6);
    bytes.push(tag);
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

/// A sequence of `parts`.
pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(asn1::TYPE_SEQUENCE, &parts.concat())
}

/// An octet string.
pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(asn1::TYPE_OCTETSTRING, content)
}

/// An integer in four bytes, or in one where it is small: agents are known
/// that take no other length for a zero.
pub(super) fn integer(number: i32) -> Vec<u8> {
    match u8::try_from(number) {
        Ok(small) if small < 0x80 => tlv(asn1::TYPE_INTEGER, &[small]),
        _ => tlv(asn1::TYPE_INTEGER, &number.to_be_bytes()),
    }
}

/// An object identifier (X.690, 8.19).
pub(super) fn object_identifier(oid: &Oid) -> Vec<u8> {
    let mut content = Vec::with_capacity(oid.arcs().len() + 4);
    if let [first, second, rest @ ..] = oid.arcs() {
        // It fits: `Oid` has checked it.
        push_base128(&mut content, first.wrapping_mul(40).wrapping_add(*second));
        for arc in rest {
            push_base128(&mut content, *arc);
        }
    }
    tlv(asn1::TYPE_OBJECTIDENTIFIER, &content)
}

fn push_base128(bytes: &mut Vec<u8>, number: u32) {
    let group = |shift: u32| u8::try_from((number >> shift) & 0x7f).unwrap_or_default();
    for shift in [28, 21, 14, 7] {
        if number >> shift != 0 {
            bytes.push(0x80 | group(shift));
        }
    }
    bytes.push(group(0));
}

/// Reads an object identifier's content; `None` where it is none.
pub(super) fn parse_object_identifier(content: &[u8]) -> Option<Oid> {
    if content.last()? & 0x80 != 0 {
        return None;
    }
    let mut arcs = Vec::with_capacity(content.len() + 1);
    let mut number: u32 = 0;
    for byte in content {
        number = number.checked_mul(128)? | u32::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (number / 40).min(2);
                arcs.extend([first, number - 40 * first]);
            } else {
                arcs.push(number);
            }
            number = 0;
        }
    }
    Oid::new(&arcs)
}

/// The first element: its tag, its content, and what follows.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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

/// The content of the first element, which must have this tag, and what
/// follows.
pub(super) fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(bytes)
        .filter(|(found, _, _)| *found == tag)
        .map(|(_, content, rest)| (content, rest))
}

/// The first element as a number from 0 to 2^31 - 1, and what follows.
pub(super) fn expect_number(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (content, rest) = expect(bytes, asn1::TYPE_INTEGER)?;
    if content.is_empty() || content.len() > 4 {
        return None;
    }
    let negative = content.first()? & 0x80 != 0;
    let number = content
        .iter()
        .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    let number = i32::try_from(number).ok().filter(|_| !negative)?;
    Some((number, rest))
}

/// Whether `bytes` begin with a sequence in which lengths and nesting agree,
/// and every number has a digit. snmp2 overflows on a number of no bytes,
/// which must not reach it. What follows the sequence is padding.
pub(super) fn is_well_formed(bytes: &[u8]) -> bool {
    expect(bytes, asn1::TYPE_SEQUENCE)
        .is_some_and(|(content, _)| is_well_formed_within(content, DEPTH_MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_there_and_back() {
        for (text, bytes) in [
            (
                "1.3.6.1.2.1.1.1.0",
                &b"\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0"[..],
            ),
            ("0.0", b"\x06\x01\0"),
            ("1.3.127.128", b"\x06\x04\x2b\x7f\x81\0"),
            ("2.999", b"\x06\x02\x88\x37"),
            ("1.3.4294967295", b"\x06\x06\x2b\x8f\xff\xff\xff\x7f"),
            ("2.4294967215", b"\x06\x05\x8f\xff\xff\xff\x7f"),
        ] {
            let oid: Oid = text.parse().unwrap();
            assert_eq!(object_identifier(&oid), bytes, "{text}");
            assert_eq!(parse_object_identifier(&bytes[2..]), Some(oid), "{text}");
        }
        for content in [
            &b""[..],
            b"\x2b\x81",
            b"\x2b\x90\x80\x80\x80\0",
            &[0x2b; 200],
        ] {
            assert_eq!(parse_object_identifier(content), None);
        }
    }

    #[test]
    fn lengths() {
        for (length, head) in [
            (127, &[4, 127][..]),
            (128, &[4, 0x81, 128]),
            (255, &[4, 0x81, 255]),
            (256, &[4, 0x82, 1, 0]),
        ] {
            let content = vec![7; length];
            let bytes = octets(&content);
            assert!(bytes.starts_with(head));
            assert_eq!(element(&bytes), Some((4, &content[..], &[][..])));
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(127), [2, 1, 127]);
        assert_eq!(integer(128), [2, 4, 0, 0, 0, 128]);
        for (bytes, number) in [
            (&[2, 1, 7][..], Some(7)),
            (&[2, 4, 0x7f, 0xff, 0xff, 0xff], Some(i32::MAX)),
            (&[2, 2, 0, 0x80], Some(128)),
            (&[2, 1, 0x80], None),
            (&[2, 0], None),
            (&[2, 5, 0, 0, 0, 0, 1], None),
            (&[4, 1, 7], None),
            (&[], None),
        ] {
            assert_eq!(expect_number(bytes).map(|(number, _)| number), number);
        }
    }
}
