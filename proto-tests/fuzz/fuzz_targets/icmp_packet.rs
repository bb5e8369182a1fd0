//! What an ICMP socket receives, read as each kind of socket would read it.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use av_agent::icmp::packet::{Framing, parse_queued, parse_v4, parse_v6};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for heard in [
        parse_v4(bytes, Framing::Ipv4Header),
        parse_v4(bytes, Framing::Bare),
        parse_v6(bytes),
    ]
    .into_iter()
    .flatten()
    {
        // What `-v` shows of it.
        assert!(heard.to_string().is_ascii());
    }
    if let [kind, code, quoted @ ..] = bytes {
        for destination in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let _ = parse_queued(quoted, destination, *kind, *code);
        }
    }
});
