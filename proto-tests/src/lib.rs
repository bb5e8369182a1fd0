//! What the tests across real processes need: the equipment and servers that
//! they run against.

pub mod pjlink_sim;
