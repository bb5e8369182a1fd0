//! What one probe asks for, from a device's settings.

use std::collections::BTreeSet;

use av_proto::driver::{Oid, Reading};

/// `sysDescr.0` (RFC 3418).
const SYS_DESCR: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 1, 0];
/// `sysUpTime.0`.
const SYS_UPTIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];

/// `sysDescr.0`.
pub(super) fn sys_descr() -> Option<Oid> {
    Oid::new(&SYS_DESCR)
}

/// `sysUpTime.0`.
pub(super) fn sys_uptime() -> Option<Oid> {
    Oid::new(&SYS_UPTIME)
}

/// The variables and columns of a probe, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What every device is asked for.
    pub base: Vec<Oid>,
    pub scalars: Vec<Oid>,
    pub columns: Vec<Oid>,
}

impl Plan {
    pub(super) fn of(readings: &[Reading]) -> Self {
        let base: Vec<Oid> = [sys_descr(), sys_uptime()].into_iter().flatten().collect();
        let mut seen: BTreeSet<&Oid> = BTreeSet::new();
        seen.extend(&base);
        let mut scalars = Vec::new();
        let mut columns = Vec::new();
        for reading in readings {
            let oids = [
                Some(&reading.oid),
                reading.percent_of.as_ref(),
                reading.label.as_ref(),
            ];
            for oid in oids.into_iter().flatten() {
                if seen.insert(oid) {
                    match reading.is_column {
                        true => columns.push(oid.clone()),
                        false => scalars.push(oid.clone()),
                    }
                }
            }
        }
        Self {
            base,
            scalars,
            columns,
        }
    }
}
