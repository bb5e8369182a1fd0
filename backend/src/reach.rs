//! Under which addresses people reach this server, for links on a terminal.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The most addresses of this machine that are named.
const ADDRESSES_MAX: usize = 4;

/// Addresses that begin a link, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The address to try first.
    pub first: String,
    /// Others of this machine.
    pub others: Vec<String>,
    /// It is not reached from another machine.
    pub here_only: bool,
}

impl Reach {
    /// Where a server that listens there is reached. Behind a public address
    /// it is that one. One that listens on every address is reached at those of
    /// this machine, and by its name where the network knows it.
    #[must_use]
    pub fn of(public_url: Option<&str>, listening: SocketAddr) -> Self {
        let (addresses, name) = match listening.ip().is_unspecified() && public_url.is_none() {
            true => (own_addresses(listening.is_ipv6()), own_name()),
            false => (Vec::new(), None),
        };
        Self::from(public_url, listening, &addresses, name.as_deref())
    }

    fn from(
        public_url: Option<&str>,
        listening: SocketAddr,
        addresses: &[IpAddr],
        name: Option<&str>,
    ) -> Self {
        let port = listening.port();
        let at = |ip: IpAddr| format!("http://{}", SocketAddr::new(ip, port));
        let mut found: Vec<String> = match public_url {
            Some(url) => vec![url.trim_end_matches('/').to_owned()],
            None if !listening.ip().is_unspecified() => vec![at(listening.ip())],
            None => addresses
                .iter()
                .map(|ip| at(*ip))
                .chain(name.map(|name| format!("http://{name}:{port}")))
                .collect(),
        };
        let alone = found.is_empty();
        if alone {
            found.push(format!("http://localhost:{port}"));
        }
        let first = found.remove(0);
        Self {
            first,
            others: found,
            here_only: public_url.is_none() && (alone || listening.ip().is_loopback()),
        }
    }

    /// The lines that show a link to `path`, which begins with a slash.
    #[must_use]
    pub fn link(&self, path: &str) -> String {
        let mut said = format!("{}{path}\n", self.first);
        for other in &self.others {
            said.push_str(&format!("  or {other}{path}\n"));
        }
        if self.here_only {
            said.push_str(
                "  from this machine alone, on whose loopback address it listens: AV_PUBLIC_URL says how people reach it\n",
            );
        }
        said
    }
}

/// The addresses of this machine that others may reach, IPv4 first.
fn own_addresses(with_ipv6: bool) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return Vec::new();
    };
    let mut found: Vec<IpAddr> = interfaces
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|interface| {
            let address = interface.address?;
            match address.as_sockaddr_in() {
                Some(v4) => Some(IpAddr::V4(v4.ip())),
                None => Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())),
            }
        })
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            // Such an address is of use with the name of an interface alone.
            IpAddr::V6(ip) => with_ipv6 && ip.segments()[0] & 0xffc0 != 0xfe80,
        })
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

/// The machine's name, where it is one that can be in a URL.
fn own_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-.".contains(letter);
    (!name.is_empty() && name != "localhost" && name.chars().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_an_address_that_can_be_reached() {
        let own = ["10.1.2.3".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for (public, listening, addresses, name, said) in [
            (
                Some("https://av.example.org/"),
                "0.0.0.0:8000",
                &own[..],
                Some("rack"),
                "https://av.example.org/x\n",
            ),
            (
                None,
                "0.0.0.0:8000",
                &own[..1],
                Some("rack"),
                "http://10.1.2.3:8000/x\n  or http://rack:8000/x\n",
            ),
            (
                None,
                "[::]:8000",
                &own[..],
                None,
                "http://10.1.2.3:8000/x\n  or http://[2001:db8::1]:8000/x\n",
            ),
            (
                None,
                "10.9.9.9:80",
                &own[..],
                Some("rack"),
                "http://10.9.9.9:80/x\n",
            ),
        ] {
            let reach = Reach::from(public, listening.parse().unwrap(), addresses, name);
            assert_eq!(reach.link("/x"), said, "{listening}");
        }
        for listening in ["127.0.0.1:8000", "[::1]:8000", "0.0.0.0:8000"] {
            let reach = Reach::from(None, listening.parse().unwrap(), &[], None);
            assert!(reach.here_only, "{listening}");
            assert!(reach.link("/x").contains("from this machine alone"));
        }
    }
}
