//! The names under which a program answers.
//!
//! A page of a stranger can give its own name this program's address, and a
//! browser then takes both for one origin (DNS rebinding). The name in `Host`
//! tells them apart.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where Linux says the machine's name.
const OWN_NAME: &str = "/proc/sys/kernel/hostname";

/// The names under which a program answers.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// `localhost`, this machine's name, also below `.local`, and those that
    /// are configured. An IP address is never a stranger's name.
    #[must_use]
    pub fn new(configured: impl IntoIterator<Item = String>) -> Self {
        let own = std::fs::read_to_string(OWN_NAME).unwrap_or_default();
        Self::with_own(own.trim(), configured)
    }

    fn with_own(own: &str, configured: impl IntoIterator<Item = String>) -> Self {
        let mut names = vec!["localhost".to_owned()];
        let first = own.split('.').next().unwrap_or_default();
        if !first.is_empty() {
            names.extend([own.to_owned(), first.to_owned(), format!("{first}.local")]);
        }
        names.extend(configured);
        for name in &mut names {
            *name = name_of(name).to_ascii_lowercase();
        }
        names.retain(|name| !name.is_empty());
        Self(names)
    }

    /// Whether a request for this authority (`NAME` or `NAME:PORT`) is meant
    /// for this program. Without one it comes from no browser.
    #[must_use]
    pub fn knows(&self, authority: Option<&str>) -> bool {
        let Some(authority) = authority else {
            return true;
        };
        let name = name_of(authority);
        let address = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .map_or_else(
                || name.parse::<Ipv4Addr>().is_ok(),
                |inner| inner.parse::<Ipv6Addr>().is_ok(),
            );
        address || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The name of an authority, without its port and the dot of the root.
fn name_of(authority: &str) -> &str {
    let authority = authority.trim();
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_strange() {
        let hosts = Hosts::with_own("rack-7.example.org", ["av.example.org:8443".to_owned()]);
        for (host, known) in [
            ("127.0.0.1", true),
            ("192.0.2.7:8080", true),
            ("[::1]:8080", true),
            ("[2001:db8::5]", true),
            ("localhost", true),
            ("LOCALHOST:80", true),
            ("rack-7", true),
            ("rack-7:8080", true),
            ("rack-7.local", true),
            ("rack-7.example.org.", true),
            ("av.example.org", true),
            ("av.example.org:443", true),
            ("evil.example", false),
            ("rack-7.evil.example", false),
            ("av.example.org.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("2130706433", false),
            ("[evil.example]", false),
            ("", false),
            (":80", false),
        ] {
            assert_eq!(hosts.knows(Some(host)), known, "{host}");
        }
        assert!(hosts.knows(None));
        assert!(!Hosts::with_own("", [String::new()]).knows(Some("")));
    }
}
