//! What goes over the wire, for a technician who wants to see it.
//!
//! Written to the log under the target [`TARGET`] at the level `debug`, which
//! `RUST_LOG=wire=debug` and `av-agent probe -v` switch on. The text must not
//! hold a secret: each driver hides its own.

use std::fmt::Display;
use std::net::IpAddr;

use av_proto::text::excerpt;

/// The log target.
pub const TARGET: &str = "wire";
/// How much of one message is shown, in characters.
const SHOWN: usize = 400;

/// Something was sent to `peer`.
pub fn sent(peer: IpAddr, what: impl Display) {
    show(peer, '→', what);
}

/// Something came from `peer`.
pub fn received(peer: IpAddr, what: impl Display) {
    show(peer, '←', what);
}

/// Something happened to the exchange with `peer`: connected, closed, timed
/// out.
pub fn event(peer: IpAddr, what: impl Display) {
    show(peer, '·', what);
}

fn show(peer: IpAddr, arrow: char, what: impl Display) {
    // Formatting costs more than a probe: only for who looks.
    if log::log_enabled!(target: TARGET, log::Level::Debug) {
        log::debug!(target: TARGET, "{arrow} {peer} {}", excerpt(&what.to_string(), SHOWN));
    }
}
