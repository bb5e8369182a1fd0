//! The agent in the rack: pulls its site's configuration, probes each device,
//! judges what it finds and reports it.
//!
//! Four threads, which know each other only by channels and the handle of the
//! configuration:
//!
//! | module | thread | what it does |
//! |---|---|---|
//! | [`sync`] | `sync` | pulls, compares, validates, saves and swaps the configuration |
//! | [`collector`] | `collector` | sweeps: has every device probed, judges what was found |
//! | [`report`] | `report` | keeps reports on disk and sends them in order |
//! | [`page`] | `page` | status page, JSON and metrics, from snapshots |
//!
//! [`clock`] knows what time it is; [`driver`] says what a driver is, and
//! [`icmp`], [`snmp`], [`pjlink`] and [`tcp`] are some; [`supervisor`] notices a
//! thread that panics; [`run`] puts all of it together. [`cli`] has the commands for
//! a technician, [`discover`] what looks for equipment; [`config_source`] asks
//! for a configuration over HTTP, [`tls`] says whom it trusts on the way.

pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod config_source;
pub mod discover;
pub mod driver;
pub mod durable;
pub mod finding;
pub mod http;
pub mod http_client;
pub mod icmp;
pub mod page;
pub mod pjlink;
pub mod report;
pub mod run;
pub mod settings;
pub mod snapshot;
pub mod snmp;
pub mod supervisor;
pub mod sync;
pub mod tcp;
pub mod tls;

/// The agent's version, as reports and the status page give it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The example in `docs/writing-a-driver.md`, which is to compile and work.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-a-driver.md")]
struct WritingADriver;
