//! What was believed of the clock when a report was written, kept beside it:
//! when it is sent, more may be known.

use av_proto::report::ReportedDevice;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use super::spool::Pending;
use crate::clock::{Line, plus};

/// Smaller corrections are not worth one: the clock is never that exact.
const NOTABLE: SignedDuration = SignedDuration::from_secs(1);

/// The clock of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// By which monotonic clock: a boot of the machine
    /// ([`crate::clock::boot`]). An agent that is killed and started again
    /// counts by the same one. Earlier agents have a random word here.
    pub run: String,
    /// The wall time, as it was believed, of the moment at which that clock
    /// was 0.
    pub wall_of_zero: Timestamp,
    /// Whether the clock was believed at all.
    pub is_true: bool,
}

impl Stamp {
    /// The stamp of a report whose times are by `line`.
    #[must_use]
    pub fn of(line: &Line, run: &str) -> Self {
        Self {
            run: run.to_owned(),
            wall_of_zero: line.wall_of_boot(),
            is_true: line.trust.is_true(),
        }
    }
}

/// Puts the times of a report right, as far as that can be done: moves them to
/// what is believed now where they are by the same monotonic clock, and
/// withholds those of a clock that was never set. It is done afresh for each
/// try, by what is known then. A report of which an earlier try arrived is
/// known to the backend by its number, and the first stands; where none
/// arrived, the later one knows better.
pub(super) fn settle(report: &mut Pending, run: &str, line: &Line) {
    report.restore_times();
    let Some(stamp) = &mut report.stamp else {
        return;
    };
    let devices = &mut report.devices;
    if stamp.run == run && line.trust.is_true() {
        let by = line.wall_of_boot().duration_since(stamp.wall_of_zero);
        if by.abs() >= NOTABLE {
            for device in devices.iter_mut() {
                shift(device, by);
            }
            stamp.wall_of_zero = line.wall_of_boot();
        }
        stamp.is_true = true;
    }
    if !stamp.is_true {
        // Without a time of its own an observation gets the time at which it
        // arrives.
        report.withhold_times();
    }
}

impl Pending {
    fn withhold_times(&mut self) {
        let devices = self.devices.iter_mut();
        self.withheld = devices
            .map(|device| {
                device.clock_unsynced = true;
                device.observed_at.take()
            })
            .collect();
    }

    /// Undoes what the last try left out.
    pub(super) fn restore_times(&mut self) {
        for (device, at) in self.devices.iter_mut().zip(self.withheld.drain(..)) {
            device.observed_at = at;
            device.clock_unsynced = false;
        }
    }
}

fn shift(device: &mut ReportedDevice, by: SignedDuration) {
    let Some(observed_at) = &mut device.observed_at else {
        return;
    };
    *observed_at = plus(*observed_at, by);
    // `ts` says the same inside the metrics.
    let metrics: Result<Map<String, Value>, _> = serde_json::from_str(device.metrics.get());
    if let Ok(mut metrics) = metrics {
        metrics.insert("ts".to_owned(), observed_at.to_string().into());
        if let Ok(raw) = to_raw_value(&metrics) {
            device.metrics = raw;
        }
    }
}

#[cfg(test)]
mod tests {
    use av_proto::verdict::{Status, Verdict};

    use super::*;
    use crate::clock::{Trust, boot};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The line by which the machine's monotonic clock was 0 at `wall_of_boot`.
    fn line(wall_of_boot: Timestamp, trust: Trust) -> Line {
        let (zero, shown) = boot::reading();
        Line::of(zero, plus(wall_of_boot, shown), trust)
    }

    fn device(observed_at: &str) -> ReportedDevice {
        let metrics = serde_json::json!({ "ping_ok": true, "ts": observed_at });
        ReportedDevice {
            ip: "10.0.0.1".to_owned(),
            name: "P".to_owned(),
            building: None,
            floor: None,
            room: None,
            device_type: "projector".to_owned(),
            driver: "ping".to_owned(),
            status: Status::Online,
            detail: None,
            metrics: to_raw_value(&metrics).unwrap(),
            verdict: Verdict::Ok,
            observed_at: Some(at(observed_at)),
            expectations: None,
            clock_unsynced: false,
        }
    }

    #[test]
    fn times_are_moved_or_marked() {
        let true_zero = "2026-11-24T10:00:00Z";
        let stamped = |run: &str, zero: &str, is_true| Stamp {
            run: run.to_owned(),
            wall_of_zero: at(zero),
            is_true,
        };
        let first = "1970-01-01T00:00:10Z";
        for (i, (stamp, trust, observed_at, unsynced)) in [
            // this boot, before the clock was set
            (
                stamped("here", "1970-01-01T00:00:00Z", false),
                Trust::Known,
                Some("2026-11-24T10:00:10Z"),
                false,
            ),
            // believed, and wrong
            (
                stamped("here", "2026-11-24T11:00:00Z", true),
                Trust::Backend,
                Some("1969-12-31T23:00:10Z"),
                false,
            ),
            // nothing notable to move
            (
                stamped("here", "2026-11-24T10:00:00.9Z", true),
                Trust::Known,
                Some(first),
                false,
            ),
            // still not set
            (stamped("here", true_zero, false), Trust::Unset, None, true),
            // an earlier run of this boot knew it, and this one does not yet
            (
                stamped("here", "2026-11-20T00:00:00Z", true),
                Trust::Settling,
                Some(first),
                false,
            ),
            // another boot, which never knew the time
            (
                stamped("before", "1970-01-01T00:00:00Z", false),
                Trust::Known,
                None,
                true,
            ),
            // another boot that did
            (
                stamped("before", "2026-11-20T00:00:00Z", true),
                Trust::Unset,
                Some(first),
                false,
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let line = line(at(true_zero), trust);
            let mut report = Pending {
                seq: 1,
                devices: vec![device(first)],
                stamp: Some(stamp),
                withheld: Vec::new(),
            };
            // The second time, after a try that failed, changes nothing more.
            settle(&mut report, "here", &line);
            settle(&mut report, "here", &line);
            let devices = report.devices;
            assert_eq!(devices[0].observed_at, observed_at.map(at), "row {i}");
            assert_eq!(devices[0].clock_unsynced, unsynced, "row {i}");
            if let Some(observed_at) = observed_at {
                let metrics: Value = serde_json::from_str(devices[0].metrics.get()).unwrap();
                assert_eq!(metrics["ts"], observed_at, "row {i}");
                assert_eq!(metrics["ping_ok"], true, "row {i}");
            }
        }
        let mut report = Pending {
            seq: 1,
            devices: vec![device(first)],
            stamp: None,
            withheld: Vec::new(),
        };
        let line = line(at(true_zero), Trust::Known);
        settle(&mut report, "here", &line);
        let observed_at = report.devices[0].observed_at;
        assert_eq!(observed_at, Some(at(first)), "an older agent's");
    }

    #[test]
    fn a_try_without_a_time_does_not_take_it_from_the_next() {
        let stamp = Stamp {
            run: "here".to_owned(),
            wall_of_zero: at("1970-01-01T00:00:00Z"),
            is_true: false,
        };
        let mut report = Pending {
            seq: 1,
            devices: vec![device("1970-01-01T00:00:10Z")],
            stamp: Some(stamp),
            withheld: Vec::new(),
        };
        let unset = line(at("1970-01-01T00:00:00Z"), Trust::Unset);
        for _ in 0..2 {
            settle(&mut report, "here", &unset);
            assert_eq!(report.devices[0].observed_at, None);
            assert!(report.devices[0].clock_unsynced);
        }
        let known = line(at("2026-11-24T10:00:00Z"), Trust::Known);
        for _ in 0..2 {
            settle(&mut report, "here", &known);
            let observed_at = report.devices[0].observed_at;
            assert_eq!(observed_at, Some(at("2026-11-24T10:00:10Z")));
            assert!(!report.devices[0].clock_unsynced);
        }
    }
}
