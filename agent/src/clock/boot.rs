//! The monotonic clock that every program of one boot shares. What an agent
//! stamped before it was killed, the next one can put right by it.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::SignedDuration;
use rustix::time::{ClockId, clock_gettime};

/// Names the boot, and with it the clock; `None` where the system does not
/// say. Containers with a clock of their own (`time_namespaces(7)`) get names
/// of their own.
#[must_use]
pub fn id() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    if boot.is_empty() || boot.len() > 64 {
        return None;
    }
    let clock = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{boot} {}", clock.display()))
}

/// A moment, and what the machine's monotonic clock (`CLOCK_MONOTONIC`) showed
/// then. The same moment at each call: both clocks are one, and a thread that
/// was held up between two readings must not make them seem to differ.
#[must_use]
pub(crate) fn reading() -> (Instant, SignedDuration) {
    static READING: OnceLock<(Instant, SignedDuration)> = OnceLock::new();
    *READING.get_or_init(|| {
        let readings = (0..5).map(|_| {
            let before = Instant::now();
            let shown = clock_gettime(ClockId::Monotonic);
            let took = before.elapsed();
            // Nanoseconds are below 10^9.
            let nanoseconds = i32::try_from(shown.tv_nsec).unwrap_or_default();
            (took, before, SignedDuration::new(shown.tv_sec, nanoseconds))
        });
        let nearest = readings.min_by_key(|(took, ..)| *took);
        nearest.map_or_else(
            || (Instant::now(), SignedDuration::ZERO),
            |(_, at, shown)| (at, shown),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_a_name_and_one_clock() {
        assert_eq!(id(), id());
        assert!(id().is_some_and(|id| id.len() > 30), "{:?}", id());
        let (at, shown) = reading();
        assert_eq!(reading(), (at, shown));
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let ours = shown.as_secs_f64() + at.elapsed().as_secs_f64();
        // The other one counts while the machine is suspended.
        assert!(ours <= uptime + 5.0, "{ours} s, the system says {uptime}");
    }
}
