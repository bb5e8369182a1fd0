//! How often the fault tests make a fault.
//!
//! A plain run of the tests makes each fault a few times. `./test.sh --faults`
//! sets the variables that make them as often as `docs/reliability.md` says.

#![allow(clippy::panic, reason = "a test harness fails loudly")]

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
