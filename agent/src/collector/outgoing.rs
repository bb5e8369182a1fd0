//! What is reported when: everything at the end of a sweep, and what changed
//! between two as soon as it is known, in as few batches as can be, because
//! each is a write to the disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_proto::verdict::Verdict;

use super::plan::Reason;
use super::state::Observation;

/// How long a change waits for others while probes are on their way.
const TOGETHER: Duration = Duration::from_secs(2);
/// The same during a sweep: most end before that, and need one batch only.
const TOGETHER_IN_SWEEP: Duration = Duration::from_secs(10);

/// What a batch is made from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The newest observation of every device.
    Whole,
    /// Those of these, by their place in the configuration.
    Some(BTreeSet<usize>),
}

/// What was not handed over yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    whole: bool,
    changes: BTreeSet<usize>,
    /// When the first of the changes was found.
    since: Option<Instant>,
}

impl Outgoing {
    /// A probe that was begun for `reason` found this; `before` is what stood
    /// there.
    pub(super) fn observed(
        &mut self,
        index: usize,
        reason: Reason,
        before: Option<&Observation>,
        observation: &Observation,
        now: Instant,
    ) {
        let means_something_else = observation.verdict_changed
            || before.is_none_or(|before| before.finding.status != observation.finding.status);
        let is_worth_a_batch = match reason {
            Reason::Sweep | Reason::Recheck => means_something_else,
            Reason::Own => {
                means_something_else
                    || before
                        .is_none_or(|before| before.finding.detail != observation.finding.detail)
            }
            // Its driver says that something changed, if only a number.
            Reason::Notice => true,
        };
        if is_worth_a_batch {
            self.changes.insert(index);
            self.since.get_or_insert(now);
        }
    }

    /// A sweep is over.
    pub(super) fn sweep_ended(&mut self) {
        self.whole = true;
    }

    /// What is due now. `is_quiet`: no probe is on its way.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        is_sweeping: bool,
        is_quiet: bool,
    ) -> Option<Due> {
        if std::mem::take(&mut self.whole) {
            self.changes.clear();
            self.since = None;
            return Some(Due::Whole);
        }
        let due = self.due_at(is_sweeping).is_some_and(|due| due <= now);
        let nothing_to_wait_for = is_quiet && !is_sweeping;
        if due || nothing_to_wait_for {
            self.take_changes()
        } else {
            None
        }
    }

    /// The changes, whether they are due or not.
    pub(super) fn take_changes(&mut self) -> Option<Due> {
        self.since = None;
        let changes = std::mem::take(&mut self.changes);
        (!changes.is_empty()).then_some(Due::Some(changes))
    }

    /// When the changes are due, where nothing else comes before.
    pub(super) fn due_at(&self, is_sweeping: bool) -> Option<Instant> {
        let wait = match is_sweeping {
            true => TOGETHER_IN_SWEEP,
            false => TOGETHER,
        };
        self.since.map(|since| since + wait)
    }
}

/// The verdicts in a few words: `10 ok, 1 fault`.
pub(super) fn summary<'a>(observations: impl Iterator<Item = &'a Arc<Observation>>) -> String {
    const WORDS: [Verdict; 5] = [
        Verdict::Ok,
        Verdict::Fault,
        Verdict::ExpectedOff,
        Verdict::Doubt,
        Verdict::Unknown,
    ];
    let mut counts = [0usize; WORDS.len()];
    for observation in observations {
        if let Some(place) = WORDS.iter().position(|word| *word == observation.verdict) {
            counts[place] += 1;
        }
    }
    let parts: Vec<String> = WORDS
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{count} {}", word.as_str()))
        .collect();
    if parts.is_empty() {
        "nothing to watch".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The first of `names` and how many more there are, for a line of a log.
pub(super) fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use av_proto::config::{SiteConfig, SiteParts};
    use av_proto::verdict::Status;

    use super::*;
    use crate::finding::Finding;

    fn observation(status: Status, verdict: Verdict, changed: bool, detail: &str) -> Observation {
        let devices: Vec<_> =
            serde_json::from_str(r#"[{"ip":"10.0.0.1","name":"P","driver":"ping"}]"#).unwrap();
        let parts = SiteParts {
            site_name: "S",
            ..SiteParts::default()
        };
        let site = SiteConfig::validate(&parts, &devices).unwrap();
        Observation {
            device: Arc::clone(&site.devices[0]),
            finding: Finding::new(status).with_detail(detail).into(),
            at: Instant::now(),
            verdict,
            verdict_changed: changed,
            last_ok: None,
            offline_since: None,
            decides_in: None,
        }
    }

    #[test]
    fn a_line_names_five_at_the_most() {
        let names: Vec<String> = (1..=7).map(|n| format!("d{n}")).collect();
        assert_eq!(few(&names[..1]), "d1");
        assert_eq!(few(&names[..5]), "d1, d2, d3, d4, d5");
        assert_eq!(few(&names), "d1, d2, d3, d4, d5 and 2 more");
    }

    #[test]
    fn what_is_worth_a_batch() {
        let online = |detail| observation(Status::Online, Verdict::Ok, false, detail);
        let offline = observation(Status::Offline, Verdict::Unknown, true, "");
        let decided = observation(Status::Offline, Verdict::Fault, true, "");
        let undecided = observation(Status::Offline, Verdict::Unknown, false, "");
        for (i, (reason, before, found, expected)) in [
            (Reason::Sweep, online("a"), online("b"), false),
            (Reason::Sweep, online("a"), offline.clone(), true),
            (Reason::Recheck, offline.clone(), undecided, false),
            (Reason::Recheck, offline, decided, true),
            (Reason::Own, online("a"), online("a"), false),
            (Reason::Own, online("a"), online("b"), true),
            (Reason::Notice, online("a"), online("a"), true),
        ]
        .into_iter()
        .enumerate()
        {
            let mut outgoing = Outgoing::default();
            let now = Instant::now();
            outgoing.observed(7, reason, Some(&before), &found, now);
            let due = outgoing.take_due(now, false, true);
            let taken = expected.then(|| Due::Some(BTreeSet::from([7])));
            assert_eq!(due, taken, "row {i}");
        }
    }

    #[test]
    fn changes_wait_for_each_other_and_for_the_end_of_a_sweep() {
        let t = Instant::now();
        let found = observation(Status::Offline, Verdict::Fault, true, "");
        let some = |indexes: &[usize]| Some(Due::Some(indexes.iter().copied().collect()));
        let mut outgoing = Outgoing::default();
        outgoing.observed(1, Reason::Recheck, None, &found, t);
        outgoing.observed(2, Reason::Recheck, None, &found, t + TOGETHER / 2);
        assert_eq!(outgoing.take_due(t + TOGETHER / 2, false, false), None);
        assert_eq!(outgoing.take_due(t + TOGETHER, false, false), some(&[1, 2]));
        assert_eq!(outgoing.take_due(t + TOGETHER, false, true), None);

        // In a sweep that is soon over there is one batch, the whole.
        outgoing.observed(3, Reason::Sweep, None, &found, t);
        assert_eq!(outgoing.take_due(t + TOGETHER, true, true), None);
        outgoing.sweep_ended();
        assert_eq!(outgoing.take_due(t, false, true), Some(Due::Whole));
        assert_eq!(outgoing.take_due(t + TOGETHER, false, true), None);

        // One that waits for slow devices does not hold up the others.
        outgoing.observed(4, Reason::Sweep, None, &found, t);
        let later = t + TOGETHER_IN_SWEEP;
        assert_eq!(outgoing.take_due(later, true, false), some(&[4]));
    }
}
