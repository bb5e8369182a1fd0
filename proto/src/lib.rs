//! What agent and backend of the AV monitoring system must agree on.
//!
//! Pure functions and types: no I/O, no threads, no clock of its own. Time
//! comes in as a [`jiff::Timestamp`], JSON as text.
//!
//! | module | what it holds |
//! |---|---|
//! | [`canonical`] | JSON printed as Python prints it |
//! | [`hash`] | the configuration hash |
//! | [`config`] | a site's configuration, from text to validated values |
//! | [`members`] | an object taken apart, its values as they are written |
//! | [`driver`] | the settings of each driver |
//! | [`schedule`] | when a device is expected to be on |
//! | [`zones`] | the time zones of the IANA database |
//! | [`verdict`] | what an observation means |
//! | [`report`] | the body of `POST /ingest` |
//! | [`suggestion`] | the body of `POST /suggestions` |
//! | [`secret`] | values that cannot be printed |
//! | [`exposition`] | the Prometheus text format |
//! | [`unknown`] | settings that no reader knows, and what was meant |
//! | [`nearest`] | the known word that a misspelt one was meant to be |
//! | [`sort`] | one sort for lists of every type |
//! | [`text`] | foreign text made safe for a log line |

pub mod canonical;
pub mod config;
pub mod driver;
pub mod exposition;
pub mod field;
pub mod hash;
pub mod members;
pub mod nearest;
mod object;
pub mod report;
pub mod schedule;
pub mod secret;
mod shape;
pub mod sort;
pub mod suggestion;
pub mod text;
pub mod unknown;
pub mod verdict;
pub mod zones;

pub use field::FieldError;
