//! Addresses of interfaces (ARP, RFC 826).
//!
//! The system's table knows every neighbour that was lately sent something.
//! With the rights for a packet socket, those that answer nothing else are
//! asked too.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pnet::datalink::{self, Channel, MacAddr, NetworkInterface};
use pnet::ipnetwork::IpNetwork;
use pnet::packet::Packet;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};

use super::look::Pace;
use super::maker::Mac;

/// An Ethernet header and an ARP packet over IPv4.
const REQUEST_BYTES: usize = 14 + 28;
/// How long the last request is waited for.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// How often the receiver looks whether there is something to send.
const READ_TIMEOUT: Duration = Duration::from_millis(10);

/// The neighbours that the system knows, from `/proc/net/arp`.
#[must_use]
pub fn known() -> HashMap<Ipv4Addr, Mac> {
    parse(&fs::read_to_string("/proc/net/arp").unwrap_or_default())
}

/// Reads the system's table: columns of address, type, flags, hardware
/// address, mask, device; 0x2 in the flags means that the entry is complete.
fn parse(table: &str) -> HashMap<Ipv4Addr, Mac> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [ip, _, flags, mac, ..] = columns.as_slice() else {
                return None;
            };
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
            let mac = Mac::parse(mac)?;
            (flags & 2 != 0 && mac != Mac([0; 6])).then_some((ip.parse().ok()?, mac))
        })
        .collect()
}

/// Asks for those of `targets` that are in a network of one of this
/// machine's interfaces, until `is_over`.
///
/// # Errors
/// Why no interface could be asked: the rights for a packet socket
/// (`CAP_NET_RAW`) are missing, say. What one interface could not do is no
/// error.
pub fn ask(
    targets: &[IpAddr],
    pace: &mut Pace,
    is_over: &dyn Fn() -> bool,
) -> Result<HashMap<Ipv4Addr, Mac>, String> {
    let mut found = HashMap::new();
    let mut problem = None;
    for interface in datalink::interfaces() {
        if interface.is_loopback() || !interface.is_up() {
            continue;
        }
        let Some(own_mac) = interface.mac.filter(|mac| *mac != MacAddr::zero()) else {
            continue;
        };
        for network in &interface.ips {
            let IpNetwork::V4(network) = network else {
                continue;
            };
            let near: Vec<Ipv4Addr> = targets
                .iter()
                .filter_map(|ip| match ip {
                    IpAddr::V4(ip) if network.contains(*ip) && *ip != network.ip() => Some(*ip),
                    _ => None,
                })
                .collect();
            if near.is_empty() {
                continue;
            }
            if let Err(error) = ask_on(
                &interface,
                own_mac,
                network.ip(),
                &near,
                pace,
                is_over,
                &mut found,
            ) {
                problem = Some(format!("{}: {error}", interface.name));
            }
        }
    }
    match problem {
        Some(problem) if found.is_empty() => Err(problem),
        _ => Ok(found),
    }
}

fn ask_on(
    interface: &NetworkInterface,
    own_mac: MacAddr,
    own_ip: Ipv4Addr,
    targets: &[Ipv4Addr],
    pace: &mut Pace,
    is_over: &dyn Fn() -> bool,
    found: &mut HashMap<Ipv4Addr, Mac>,
) -> Result<(), String> {
    let config = datalink::Config {
        read_timeout: Some(READ_TIMEOUT),
        ..datalink::Config::default()
    };
    let Channel::Ethernet(mut to, mut from) =
        datalink::channel(interface, config).map_err(|error| error.to_string())?
    else {
        return Err("is no Ethernet".to_owned());
    };
    let mut open = targets.iter();
    let mut until = None;
    while !is_over() {
        if pace.is_due() {
            match open.next() {
                Some(target) => {
                    let frame =
                        request(own_mac, own_ip, *target).ok_or("a request could not be made")?;
                    if let Some(Err(error)) = to.send_to(&frame, None) {
                        return Err(error.to_string());
                    }
                    pace.spend();
                }
                None => {
                    let until = *until.get_or_insert_with(|| Instant::now() + LAST_WAIT);
                    if Instant::now() >= until {
                        return Ok(());
                    }
                }
            }
        }
        // An error is the time-out, or an interface that went away: the next
        // request says so.
        if let Ok(frame) = from.next() {
            if let Some((ip, mac)) = answer(frame) {
                if targets.binary_search(&ip).is_ok() {
                    found.insert(ip, mac);
                }
            }
        }
    }
    Ok(())
}

/// "Who has `target`? Tell `own_ip`."
fn request(own_mac: MacAddr, own_ip: Ipv4Addr, target: Ipv4Addr) -> Option<[u8; REQUEST_BYTES]> {
    let mut frame = [0; REQUEST_BYTES];
    let (head, body) = frame.split_at_mut(14);
    let mut ethernet = MutableEthernetPacket::new(head)?;
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(own_mac);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(body)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(ArpOperations::Request);
    arp.set_sender_hw_addr(own_mac);
    arp.set_sender_proto_addr(own_ip);
    arp.set_target_hw_addr(MacAddr::zero());
    arp.set_target_proto_addr(target);
    Some(frame)
}

/// Who answers, where the frame is an answer.
fn answer(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let ethernet = EthernetPacket::new(frame)?;
    if ethernet.get_ethertype() != EtherTypes::Arp {
        return None;
    }
    let arp = ArpPacket::new(ethernet.payload())?;
    if arp.get_operation() != ArpOperations::Reply
        || arp.get_protocol_type() != EtherTypes::Ipv4
        || (arp.get_hw_addr_len(), arp.get_proto_addr_len()) != (6, 4)
    {
        return None;
    }
    let MacAddr(a, b, c, d, e, f) = arp.get_sender_hw_addr();
    Some((arp.get_sender_proto_addr(), Mac([a, b, c, d, e, f])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_table_is_read() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
             192.168.1.1      0x1         0x2         00:10:7f:aa:bb:cc     *        eth0\n\
             192.168.1.2      0x1         0x0         00:00:00:00:00:00     *        eth0\n\
             192.168.1.3      0x1         0x6         00:05:a6:00:00:01     *        eth0\n\
             nonsense\n";
        let known = parse(table);
        assert_eq!(known.len(), 2);
        let ip: Ipv4Addr = "192.168.1.1".parse().unwrap();
        assert_eq!(known[&ip].to_string(), "00:10:7f:aa:bb:cc");
        assert!(parse("").is_empty());
    }

    #[test]
    fn an_answer_is_told_from_a_request_and_from_rubbish() {
        let (own, ip) = (MacAddr::new(2, 0, 0, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 1));
        let target = Ipv4Addr::new(10, 0, 0, 2);
        let mut frame = request(own, ip, target).unwrap();
        assert_eq!(answer(&frame), None, "a request");
        // The same frame as an answer of the asker itself.
        frame[21] = 2;
        assert_eq!(answer(&frame), Some((ip, Mac([2, 0, 0, 0, 0, 1]))));
        for length in 0..frame.len() {
            assert_eq!(answer(&frame[..length]), None, "{length}");
        }
        frame[12] = 0x86;
        assert_eq!(answer(&frame), None, "another protocol");
    }
}
