//! SNMP agents of version 1 and 2c, simulated: written from RFC 1157 and RFC
//! 3416, not from the driver that they test.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

const GET: u8 = 0xa0;
const GET_NEXT: u8 = 0xa1;
const RESPONSE: u8 = 0xa2;
const GET_BULK: u8 = 0xa5;
const NO_SUCH_NAME: u8 = 2;
const TOO_BIG: u8 = 1;

/// A value with its tag, encoded.
pub type Encoded = Vec<u8>;

/// What an agent has.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    variables: BTreeMap<Vec<u32>, Encoded>,
    /// The longest answer that it sends; a longer one is `tooBig`.
    pub longest: Option<usize>,
}

impl Agent {
    /// An agent with `sysDescr`, `sysUpTime`, `sysName` and two interfaces.
    #[must_use]
    pub fn typical(name: &str) -> Self {
        let mut agent = Self::default();
        agent
            .set("1.3.6.1.2.1.1.1.0", text("Simulated display, version 1"))
            .set("1.3.6.1.2.1.1.3.0", unsigned(0x43, 12_345))
            .set("1.3.6.1.2.1.1.5.0", text(name))
            .set("1.3.6.1.2.1.2.1.0", integer(2));
        for (row, descr) in [("1", "lo"), ("2", "eth0")] {
            let cell = |column: &str| format!("1.3.6.1.2.1.2.2.1.{column}.{row}");
            agent
                .set(&cell("2"), text(descr))
                .set(&cell("5"), unsigned(0x42, 100_000_000))
                .set(&cell("8"), integer(1))
                .set(&cell("10"), unsigned(0x41, 4_000_000_000))
                .set(&cell("14"), unsigned(0x41, 0))
                .set(&cell("16"), unsigned(0x41, 77))
                .set(&cell("20"), unsigned(0x41, 1));
        }
        agent
    }

    /// Gives a variable a value; a name that is none is left out.
    pub fn set(&mut self, oid: &str, value: Encoded) -> &mut Self {
        let arcs: Option<Vec<u32>> = oid.split('.').map(|arc| arc.parse().ok()).collect();
        if let Some(arcs) = arcs {
            self.variables.insert(arcs, value);
        }
        self
    }

    /// The answer to a request with this community; `None` where an agent
    /// says nothing.
    #[must_use]
    pub fn answer(&self, request: &[u8], community: &[u8]) -> Option<Vec<u8>> {
        let (message, _) = expect(request, 0x30)?;
        let (version, rest) = expect(message, 2)?;
        let (theirs, pdu) = expect(rest, 4)?;
        if theirs != community {
            return None;
        }
        let is_v1 = version == [0];
        let (kind, pdu, _) = element(pdu)?;
        let (id, rest) = expect(pdu, 2)?;
        let (non_repeaters, rest) = expect(rest, 2)?;
        let (repetitions, rest) = expect(rest, 2)?;
        let (mut list, _) = expect(rest, 0x30)?;
        let mut names = Vec::new();
        while !list.is_empty() {
            let (pair, rest) = expect(list, 0x30)?;
            let (name, _) = expect(pair, 6)?;
            names.push(arcs(name));
            list = rest;
        }
        let answered = match kind {
            GET => self.get(&names, is_v1),
            GET_NEXT => self.next(&names, is_v1),
            GET_BULK if !is_v1 && number(non_repeaters) == 0 => {
                Ok(self.bulk(&names, number(repetitions)))
            }
            _ => return None,
        };
        let (error, index, variables) = match answered {
            Ok(variables) => (0, 0, variables),
            Err((error, index)) => {
                let null = || vec![5, 0];
                let same = names.into_iter().map(|name| (name, null())).collect();
                (error, index, same)
            }
        };
        let answer = response(version, community, id, (error, index), &variables);
        match self.longest {
            Some(longest) if answer.len() > longest => {
                Some(response(version, community, id, (TOO_BIG, 0), &[]))
            }
            _ => Some(answer),
        }
    }

    fn get(&self, names: &[Vec<u32>], is_v1: bool) -> Result<Variables, (u8, u8)> {
        let each = names
            .iter()
            .zip(1..)
            .map(|(name, index)| match self.variables.get(name) {
                Some(value) => Ok((name.clone(), value.clone())),
                None if is_v1 => Err((NO_SUCH_NAME, index)),
                None => Ok((name.clone(), vec![0x81, 0])),
            });
        each.collect()
    }

    fn next(&self, names: &[Vec<u32>], is_v1: bool) -> Result<Variables, (u8, u8)> {
        let each = names
            .iter()
            .zip(1..)
            .map(|(name, index)| match self.after(name) {
                Some(found) => Ok(found),
                None if is_v1 => Err((NO_SUCH_NAME, index)),
                None => Ok((name.clone(), vec![0x82, 0])),
            });
        each.collect()
    }

    fn bulk(&self, names: &[Vec<u32>], repetitions: u64) -> Variables {
        let mut cursors = names.to_vec();
        let mut variables = Vec::new();
        for _ in 0..repetitions.min(100) {
            for cursor in &mut cursors {
                let found = self.after(cursor);
                let found = found.unwrap_or_else(|| (cursor.clone(), vec![0x82, 0]));
                cursor.clone_from(&found.0);
                variables.push(found);
            }
        }
        variables
    }

    fn after(&self, name: &[u32]) -> Option<(Vec<u32>, Encoded)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = (Excluded(name), Unbounded);
        let mut after = self.variables.range::<[u32], _>(after);
        let (name, value) = after.next()?;
        Some((name.clone(), value.clone()))
    }
}

type Variables = Vec<(Vec<u32>, Encoded)>;

/// A text's value.
#[must_use]
pub fn text(text: &str) -> Encoded {
    tlv(4, text.as_bytes())
}

/// An INTEGER.
#[must_use]
pub fn integer(number: i32) -> Encoded {
    tlv(2, &number.to_be_bytes())
}

/// A Counter32 (0x41), Gauge32 (0x42) or TimeTicks (0x43).
#[must_use]
pub fn unsigned(tag: u8, number: u32) -> Encoded {
    let bytes = [&[0][..], &number.to_be_bytes()].concat();
    tlv(tag, &bytes)
}

fn response(
    version: &[u8],
    community: &[u8],
    id: &[u8],
    (error, index): (u8, u8),
    variables: &[(Vec<u32>, Encoded)],
) -> Vec<u8> {
    let mut list = Vec::new();
    for (name, value) in variables {
        let pair = [tlv(6, &encoded(name)), value.clone()].concat();
        list.extend(tlv(0x30, &pair));
    }
    let pdu = [
        tlv(2, id),
        tlv(2, &[error]),
        tlv(2, &[index]),
        tlv(0x30, &list),
    ];
    let message = [
        tlv(2, version),
        tlv(4, community),
        tlv(RESPONSE, &pdu.concat()),
    ];
    tlv(0x30, &message.concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let head = match length {
        [0, 0, 0, short @ 0..=0x7f] => vec![tag, short],
        [_, _, high, low] => vec![tag, 0x82, high, low],
    };
    [head.as_slice(), content].concat()
}

fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let sum = |sum: usize, digit: &u8| (sum << 8) | usize::from(*digit);
            (digits.iter().take(4).fold(0, sum), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn number(bytes: &[u8]) -> u64 {
    let sum = |sum: u64, digit: &u8| (sum << 8) | u64::from(*digit);
    bytes.iter().fold(0, sum)
}

fn arcs(bytes: &[u8]) -> Vec<u32> {
    let mut arcs = Vec::new();
    let mut number = 0_u32;
    for byte in bytes {
        number = (number << 7) | u32::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                // Every identifier here begins with 1.
                arcs.extend([number / 40, number % 40]);
            } else {
                arcs.push(number);
            }
            number = 0;
        }
    }
    arcs
}

fn encoded(arcs: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let [first, second, rest @ ..] = arcs else {
        return bytes;
    };
    bytes.push(u8::try_from(first * 40 + second).unwrap_or(u8::MAX));
    for arc in rest {
        let mut groups = vec![arc & 0x7f];
        let mut left = arc >> 7;
        while left > 0 {
            groups.push(0x80 | (left & 0x7f));
            left >>= 7;
        }
        let groups = groups.into_iter().rev();
        bytes.extend(groups.map(|group| u8::try_from(group).unwrap_or_default()));
    }
    bytes
}

/// Serves an agent on each of these addresses, for ever.
///
/// # Errors
/// When an address cannot be had, or the system fails.
pub fn serve(agents: Vec<(SocketAddr, Agent)>, community: &[u8]) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut served = Vec::new();
    for (i, (address, agent)) in agents.into_iter().enumerate() {
        let mut socket = UdpSocket::bind(address)?;
        poll.registry()
            .register(&mut socket, Token(i), Interest::READABLE)?;
        served.push((socket, agent));
    }
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 65_535];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let Some((socket, agent)) = served.get(event.token().0) else {
                continue;
            };
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let request = buffer.get(..length).unwrap_or_default();
                if let Some(answer) = agent.answer(request, community) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        }
    }
}

/// `count` addresses from `first` on, with 250 in each network of 256.
#[must_use]
pub fn addresses(first: [u8; 4], count: usize, port: u16) -> Vec<SocketAddr> {
    let [a, b, c, _] = first;
    (0..count)
        .map(|i| {
            let host = u8::try_from(i % 250 + 1).unwrap_or(1);
            let network = u8::try_from(usize::from(c) + i / 250).unwrap_or(u8::MAX);
            SocketAddr::new(IpAddr::from([a, b, network, host]), port)
        })
        .collect()
}
