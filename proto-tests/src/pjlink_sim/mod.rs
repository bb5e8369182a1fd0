//! A projector that speaks PJLink class 1 or 2, for tests, benchmarks and the
//! demonstration.
//!
//! Written from the JBMIA's "PJLink Specifications" 1.04, not from the
//! agent's driver, so that the two can disagree. Section numbers in this
//! module are that document's.
//!
//! | module | what it holds |
//! |---|---|
//! | [`state`] | what a projector knows of itself |
//! | [`command`] | one command line, and the answer to it: pure functions |
//! | [`session`] | what one connection may do: the greeting and the password |
//! | [`fault`] | the ways in which it can misbehave |
//! | [`server`] | sockets and threads |
//! | [`udp`] | searches and notices of class 2 |

pub mod command;
pub mod fault;
pub mod server;
pub mod session;
pub mod state;
pub mod udp;

pub use fault::{Faults, Garbage, Pieces};
pub use server::{Config, Counters, PORT, Projector};
pub use state::{Class2, ErrorStatus, Level, Power, State, Timing};
