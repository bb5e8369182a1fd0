//! Chance that can be had again: the same for the same seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::faults::count;

/// Marsaglia's xorshift64*: even, and the same everywhere for one seed.
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

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The higher bits are the better ones.
        (self.word() >> 16) % limit
    }

    /// A place in something that has `length` of them, which is not 0.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    /// One of these, of which there must be some.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }

    /// Between 0 and 1.
    pub fn share(&mut self) -> f64 {
        const OF: u32 = 1 << 31;
        f64::from(u32::try_from(self.below(OF.into())).unwrap_or(OF)) / f64::from(OF)
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
