//! What the threads show of themselves: whole snapshots, swapped in, that the
//! status page reads without holding anybody up.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::collector::SweepState;
use crate::report::ReportState;
use crate::sync::SyncState;

/// The newest snapshot of each thread.
#[derive(Debug, Clone, Default)]
pub struct Snapshots {
    /// Of `sync`.
    pub sync: Arc<ArcSwap<SyncState>>,
    /// Of `collector`.
    pub sweep: Arc<ArcSwap<SweepState>>,
    /// Of `report`.
    pub report: Arc<ArcSwap<ReportState>>,
}
