//! What the tests across real processes need: the equipment and servers that
//! they run against.

pub mod authority;
pub mod fake_backend;
pub mod faults;
pub mod impair;
pub mod namespace;
pub mod pg;
pub mod pjlink_sim;
pub mod process;
pub mod random;
pub mod smtp_sink;
pub mod snmp_sim;
