//! What the fault tests share: how often a fault is made, and chance that can
//! be had again.
//!
//! A plain run of the tests makes each fault a few times. `./test.sh --faults`
//! sets the variables that make them as often as `docs/reliability.md` says.

#![allow(clippy::panic, reason = "a test harness fails loudly")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a fault is made: what the variable says, or `few`.
///
/// # Panics
/// When the variable has something else than a number.
#[must_use]
pub fn count(variable: &str, few: usize) -> usize {
    match std::env::var(variable) {
        Err(_) => few,
        Ok(text) => match text.trim().parse() {
            Ok(count) => count,
            Err(_) => panic!("{variable}: {text:?} is not a number"),
        },
    }
}

/// Whether the backend's faults are made as often as `docs/reliability.md`
/// says: `AV_FAULTS_FULL=1`.
#[must_use]
pub fn full() -> bool {
    std::env::var_os("AV_FAULTS_FULL").is_some_and(|value| value == "1")
}

/// xorshift64*: even, and the same everywhere for one seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // A state of 0 would stay there.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Of the seed in `AV_FAULT_SEED`, or of another at each run. It is
    /// printed: what failed can be tried again.
    #[must_use]
    pub fn of_run(test: &str) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_secs());
        let seed = count("AV_FAULT_SEED", usize::try_from(now).unwrap_or(1)) as u64;
        println!("{test}: AV_FAULT_SEED={seed}");
        Self::new(seed)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    /// Whether something that happens once in `times` happens now.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A length of time up to `most`, to the microsecond.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.max(1)))
    }
}
