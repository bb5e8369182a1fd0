//! What is remembered of each projector's door: in which letters it wants the
//! digest, and how long a password that it refused is not tried again. Some
//! projectors lock themselves after a few wrong ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_proto::secret::Secret;

use super::protocol::Letters;

/// After the first refusal; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_secs(5 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// A refusal that is older than this says nothing any more, and a projector
/// that is not configured any more is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Shared by the probes of all projectors.
#[derive(Debug, Clone, Default)]
pub struct Admissions(Arc<Mutex<HashMap<SocketAddr, Door>>>);

#[derive(Debug)]
struct Door {
    password: Secret,
    letters: Letters,
    /// Refusals in a row of that password.
    refusals: u32,
    /// Not before.
    closed_until: Instant,
    touched: Instant,
}

/// What a refusal means for the probe that got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Once more at once, with [`Admissions::letters`].
    TryOnce,
    /// Not for a while.
    Wait,
}

impl Admissions {
    /// In which letters the projector at `address` may be told `password` at
    /// `now`; `None`: not yet again.
    #[must_use]
    pub fn letters(&self, address: SocketAddr, password: &Secret, now: Instant) -> Option<Letters> {
        match self.lock().get(&address) {
            Some(door) if door.password == *password => {
                (now >= door.closed_until).then_some(door.letters)
            }
            // Another password has not been refused.
            _ => Some(Letters::Small),
        }
    }

    /// The projector took it.
    pub fn accepted(&self, address: SocketAddr, password: &Secret, letters: Letters, now: Instant) {
        let mut doors = self.lock();
        match letters {
            // Nothing that would have to be remembered.
            Letters::Small => drop(doors.remove(&address)),
            Letters::Capital => drop(doors.insert(
                address,
                Door {
                    password: password.clone(),
                    letters,
                    refusals: 0,
                    closed_until: now,
                    touched: now,
                },
            )),
        }
    }

    /// The projector refused it. The first time the other letters are worth a
    /// try at once; then each try waits longer, in one kind of letters and
    /// the other.
    pub fn refused(
        &self,
        address: SocketAddr,
        password: &Secret,
        letters: Letters,
        now: Instant,
    ) -> Refused {
        let mut doors = self.lock();
        doors.retain(|_, door| now.saturating_duration_since(door.touched) < FORGOTTEN_AFTER);
        let before = doors
            .get(&address)
            .filter(|door| door.password == *password)
            .map_or(0, |door| door.refusals);
        let (refused, pause) = if before == 0 {
            (Refused::TryOnce, Duration::ZERO)
        } else {
            let doublings = (before - 1).min(16);
            (Refused::Wait, (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX))
        };
        doors.insert(
            address,
            Door {
                password: password.clone(),
                letters: letters.other(),
                refusals: before.saturating_add(1),
                closed_until: now + pause,
                touched: now,
            },
        );
        refused
    }

    /// The projector refused to hear any: it has locked itself.
    pub fn locked(&self, address: SocketAddr, password: &Secret, now: Instant) {
        let letters = self
            .letters(address, password, now + PAUSE_MAX)
            .unwrap_or(Letters::Small);
        // Never a second try at once.
        if self.refused(address, password, letters.other(), now) == Refused::TryOnce {
            self.refused(address, password, letters.other(), now);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "10.0.0.1:4352".parse().unwrap()
    }

    #[test]
    fn a_refused_password_waits_longer_each_time() {
        let doors = Admissions::default();
        let (address, password) = (address(), Secret::new("one"));
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let letters = |now| doors.letters(address, &password, now);
        let refuse = |letters, now| doors.refused(address, &password, letters, now);

        assert_eq!(letters(start), Some(Letters::Small));
        assert_eq!(refuse(Letters::Small, start), Refused::TryOnce);
        assert_eq!(letters(start), Some(Letters::Capital));
        assert_eq!(refuse(Letters::Capital, start), Refused::Wait);
        assert_eq!(
            (letters(at(4)), letters(at(5))),
            (None, Some(Letters::Small))
        );
        assert_eq!(refuse(Letters::Small, at(5)), Refused::Wait);
        assert_eq!(
            (letters(at(14)), letters(at(15))),
            (None, Some(Letters::Capital))
        );
        let mut now = at(15);
        for _ in 0..60 {
            assert_eq!(refuse(Letters::Small, now), Refused::Wait);
            now += PAUSE_MAX;
            assert!(letters(now).is_some(), "an hour at most");
        }

        // Another password, and another projector, are not concerned.
        let other = Secret::new("two");
        assert_eq!(doors.letters(address, &other, start), Some(Letters::Small));
        let elsewhere = "10.0.0.2:4352".parse().unwrap();
        assert_eq!(
            doors.letters(elsewhere, &password, start),
            Some(Letters::Small)
        );
    }

    #[test]
    fn what_was_accepted_is_remembered_in_its_letters() {
        let doors = Admissions::default();
        let (address, password) = (address(), Secret::new("one"));
        let now = Instant::now();
        doors.refused(address, &password, Letters::Small, now);
        doors.accepted(address, &password, Letters::Capital, now);
        assert_eq!(
            doors.letters(address, &password, now),
            Some(Letters::Capital)
        );
        // One refusal then is no reason to wait.
        assert_eq!(
            doors.refused(address, &password, Letters::Capital, now),
            Refused::TryOnce
        );
        doors.accepted(address, &password, Letters::Small, now);
        assert!(doors.lock().is_empty());
    }

    #[test]
    fn a_projector_that_locked_itself_is_left_alone() {
        let doors = Admissions::default();
        let (address, password) = (address(), Secret::new("one"));
        let now = Instant::now();
        doors.locked(address, &password, now);
        assert_eq!(doors.letters(address, &password, now), None);
        assert_eq!(
            doors.letters(address, &password, now + PAUSE_MIN),
            Some(Letters::Small)
        );
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let doors = Admissions::default();
        let password = Secret::new("one");
        let now = Instant::now();
        doors.refused(address(), &password, Letters::Small, now);
        let elsewhere = "10.0.0.2:4352".parse().unwrap();
        let later = now + FORGOTTEN_AFTER;
        doors.refused(elsewhere, &password, Letters::Small, later);
        assert_eq!(doors.lock().len(), 1);
    }
}
