//! The networks that a user names, as addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use av_proto::sort::sort_by;

/// The most addresses that are looked at in one go: a network of /16.
pub const ADDRESSES_MAX: u32 = 1 << 16;

/// A run of IPv4 addresses, or one address of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// From the first to the last, both included.
    V4(Ipv4Addr, Ipv4Addr),
    /// The same of a whole network, which has a broadcast address.
    Whole(Ipv4Addr, Ipv4Addr, Ipv4Addr),
    /// One address. An IPv6 network has too many to ask each.
    One(IpAddr),
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct NetworkError {
    text: String,
    problem: &'static str,
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `192.168.1.0/24`, `192.168.1.10-192.168.1.20`,
    /// `192.168.1.10-20` or one address. A network's own address and its
    /// broadcast address are no devices'.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let fail = |problem| NetworkError {
            text: text.to_owned(),
            problem,
        };
        let v4 = |text: &str| text.trim().parse::<Ipv4Addr>().ok();
        let network = if let Some((address, length)) = text.split_once('/') {
            let address =
                v4(address).ok_or_else(|| fail("is not an IPv4 network such as 192.168.1.0/24"))?;
            let length: u32 = length
                .trim()
                .parse()
                .ok()
                .filter(|length| *length <= 32)
                .ok_or_else(|| fail("has no prefix length of 0 to 32"))?;
            if length < 16 {
                return Err(fail("is larger than a /16: name its parts"));
            }
            // 32 - 0 would overflow; the length is 16 at least.
            let mask = u32::MAX << (32 - length);
            let first = u32::from(address) & mask;
            let last = first | !mask;
            if length < 31 {
                Self::Whole((first + 1).into(), (last - 1).into(), last.into())
            } else {
                Self::V4(first.into(), last.into())
            }
        } else if let Some((first, last)) = text.split_once('-') {
            let first = v4(first).ok_or_else(|| fail("is not a range such as 192.168.1.10-20"))?;
            let last = match last.trim().parse::<u8>() {
                Ok(last) => {
                    let [a, b, c, _] = first.octets();
                    Ipv4Addr::new(a, b, c, last)
                }
                Err(_) => v4(last).ok_or_else(|| fail("is not a range such as 192.168.1.10-20"))?,
            };
            if last < first {
                return Err(fail("ends before it begins"));
            }
            Self::V4(first, last)
        } else {
            let one: IpAddr = text
                .trim()
                .parse()
                .map_err(|_| fail("is not an address, a network or a range"))?;
            Self::One(one)
        };
        if network.len() > u64::from(ADDRESSES_MAX) {
            return Err(fail("is larger than a /16: name its parts"));
        }
        Ok(network)
    }
}

impl Network {
    /// How many addresses it has.
    #[must_use]
    pub fn len(self) -> u64 {
        match self {
            Self::V4(first, last) | Self::Whole(first, last, _) => {
                u64::from(u32::from(last) - u32::from(first)) + 1
            }
            Self::One(_) => 1,
        }
    }

    /// Never: a network has an address at least.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where all of a whole network hear.
    #[must_use]
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self {
            Self::Whole(_, _, broadcast) => Some(broadcast),
            Self::V4(..) | Self::One(_) => None,
        }
    }

    /// Its addresses, in order.
    pub fn addresses(self) -> Box<dyn Iterator<Item = IpAddr>> {
        match self {
            Self::V4(first, last) | Self::Whole(first, last, _) => Box::new(
                (u32::from(first)..=u32::from(last)).map(|bits| Ipv4Addr::from(bits).into()),
            ),
            Self::One(one) => Box::new(std::iter::once(one)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(first, last) | Self::Whole(first, last, _) => write!(f, "{first}-{last}"),
            Self::One(one) => one.fmt(f),
        }
    }
}

/// Every address of these networks once, in order.
///
/// # Errors
/// Where they are more than [`ADDRESSES_MAX`] together; how many they are.
pub fn addresses(networks: &[Network]) -> Result<Vec<IpAddr>, u64> {
    let count: u64 = networks.iter().map(|network| network.len()).sum();
    if count > u64::from(ADDRESSES_MAX) {
        return Err(count);
    }
    let mut all: Vec<IpAddr> = networks
        .iter()
        .flat_map(|network| network.addresses())
        .collect();
    sort_by(&mut all, Ord::cmp);
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        for (text, shown, count) in [
            ("192.168.1.0/24", "192.168.1.1-192.168.1.254", 254),
            ("192.168.1.77/24", "192.168.1.1-192.168.1.254", 254),
            ("10.1.0.0/16", "10.1.0.1-10.1.255.254", 65_534),
            ("10.0.0.4/31", "10.0.0.4-10.0.0.5", 2),
            ("10.0.0.4/32", "10.0.0.4-10.0.0.4", 1),
            ("10.0.0.0/30", "10.0.0.1-10.0.0.2", 2),
            ("127.0.3.1-20", "127.0.3.1-127.0.3.20", 20),
            ("10.0.0.250-10.0.1.5", "10.0.0.250-10.0.1.5", 12),
            ("10.0.0.1", "10.0.0.1", 1),
            ("fe80::1", "fe80::1", 1),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert_eq!(network.len(), count);
            let hears_all = text.contains('/') && count > 2 || text == "10.0.0.0/30";
            assert_eq!(network.broadcast().is_some(), hears_all, "{text}");
            assert_eq!(network.addresses().count() as u64, count);
        }
    }

    #[test]
    fn what_is_no_network_or_too_large_is_refused() {
        for (text, said) in [
            ("10.0.0.0/8", "larger than a /16"),
            ("0.0.0.0/0", "larger than a /16"),
            ("10.0.0.0-10.1.0.0", "larger than a /16"),
            ("10.0.0.0/33", "no prefix length"),
            ("10.0.0.0/", "no prefix length"),
            ("10.0.0.9-3", "ends before it begins"),
            ("10.0.0-3", "is not a range"),
            ("10.0.0.1-x", "is not a range"),
            ("2001:db8::/120", "is not an IPv4 network"),
            ("projector", "is not an address"),
            ("", "is not an address"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn networks_together_are_bounded_and_each_address_comes_once() {
        let parse = |texts: &[&str]| -> Vec<Network> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let together = addresses(&parse(&["10.0.0.2-4", "10.0.0.0/29"])).unwrap();
        assert_eq!(together.len(), 6);
        assert!(together.is_sorted());
        assert_eq!(
            addresses(&parse(&["10.0.0.0/16", "10.1.0.0/16"])),
            Err(131_068)
        );
    }
}
