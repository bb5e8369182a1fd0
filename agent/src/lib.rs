//! The agent in the rack: pulls its site's configuration, probes each device,
//! judges what it finds and reports it.

pub mod finding;
pub mod icmp;
pub mod pjlink;
pub mod snmp;
