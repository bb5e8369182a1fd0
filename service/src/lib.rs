//! What both programs owe the system that runs them: they say when they are
//! ready, feed its watchdog while every thread gets on with its work, and give
//! the journal a priority with each line. They read the file of the unit's
//! variables. And the edge of their HTTP servers, which must not end or be
//! filled by those that connect.

pub mod engine;
pub mod environment_file;
pub mod http;
pub mod journal;
pub mod progress;
mod watchdog;

pub use watchdog::Watchdog;
