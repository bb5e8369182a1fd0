//! What equipment is there: asked address by address, at a bounded rate, and
//! only in networks that a user named.
//!
//! | module | what it does |
//! |---|---|
//! | [`network`] | which addresses |
//! | [`look`] | asks each of them, paced |
//! | [`arp`] | addresses of interfaces, from the system's table or asked for |
//! | [`maker`] | who made an interface |
//! | [`proposal`] | from what was seen to what it is: pure |

pub mod arp;
pub mod look;
pub mod maker;
pub mod network;
pub mod proposal;
