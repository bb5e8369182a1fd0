//! Which of the workers listens.
//!
//! One worker at a time waits for the next request, and what it says of its
//! connection is noted before another is handed out. To wake a second worker
//! for each request costs more than to answer a poll from memory: whoever has
//! the lead keeps it for such a request, and passes it on before anything that
//! may take its time. Where a peer takes nothing, so that even a short answer
//! does not go out, the lead is taken away.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So long whoever has the lead may serve a request with it.
const PATIENCE: Duration = Duration::from_millis(50);

/// The lead of a group of workers.
#[derive(Default)]
pub(super) struct Leads {
    state: Mutex<State>,
    free: Condvar,
    /// Held by the one who comes next. The others wait for it, without a clock.
    next: Mutex<()>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Tells the present lead from one that was taken away.
    number: u64,
}

#[derive(Default, Clone, Copy)]
enum Stage {
    #[default]
    Free,
    Listens,
    Serves(Instant),
}

impl Leads {
    /// Waits for the lead, and listens.
    pub(super) fn take(&self) -> Lead<'_> {
        let _next = lock(&self.next);
        let mut state = lock(&self.state);
        loop {
            let wait = match state.stage {
                Stage::Free => break,
                Stage::Listens => PATIENCE,
                Stage::Serves(since) => PATIENCE.saturating_sub(since.elapsed()),
            };
            if wait.is_zero() {
                break;
            }
            let woken = self.free.wait_timeout(state, wait);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.stage = Stage::Listens;
        state.number += 1;
        Lead {
            leads: self,
            number: state.number,
        }
    }
}

/// The lead, until it is passed on, dropped or taken away.
pub(super) struct Lead<'a> {
    leads: &'a Leads,
    number: u64,
}

impl Lead<'_> {
    /// A request has come, and is served.
    pub(super) fn serves(&self) {
        self.goes_to(Stage::Serves(Instant::now()));
    }

    /// Listens again; answers whether it still has the lead.
    pub(super) fn listens(&self) -> bool {
        self.goes_to(Stage::Listens)
    }

    /// Lets another listen.
    pub(super) fn pass(&self) {
        if self.goes_to(Stage::Free) {
            self.leads.free.notify_one();
        }
    }

    fn goes_to(&self, stage: Stage) -> bool {
        let mut state = lock(&self.leads.state);
        let own = state.number == self.number && !matches!(state.stage, Stage::Free);
        if own {
            state.stage = stage;
        }
        own
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.pass();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    use super::*;

    #[test]
    fn who_keeps_the_lead_listens_again_and_nobody_beside() {
        let leads = Leads::default();
        let lead = leads.take();
        thread::scope(|scope| {
            let (took, taken) = channel();
            let others = &leads;
            scope.spawn(move || {
                let lead = others.take();
                took.send(()).unwrap();
                drop(lead);
            });
            for _ in 0..10 {
                lead.serves();
                assert!(lead.listens());
            }
            // Listening may last, whatever the patience.
            let waited = taken.recv_timeout(4 * PATIENCE);
            assert_eq!(waited, Err(RecvTimeoutError::Timeout));
            lead.serves();
            lead.pass();
            taken.recv().unwrap();
            assert!(!lead.listens());
        });
    }

    #[test]
    fn the_lead_of_one_who_is_stuck_is_taken_away() {
        let leads = Leads::default();
        let stuck = leads.take();
        stuck.serves();
        let second = leads.take();
        assert!(!stuck.listens());
        stuck.pass();
        drop(stuck);
        assert!(second.listens());
    }

    #[test]
    fn a_worker_that_fails_leaves_the_lead() {
        let leads = Leads::default();
        thread::scope(|scope| {
            let failing = scope.spawn(|| {
                let _lead = leads.take();
                panic!("as it is meant to");
            });
            assert!(failing.join().is_err());
        });
        assert!(leads.take().listens());
    }
}
