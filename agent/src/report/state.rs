//! What the status page shows of the reports.

use jiff::Timestamp;
use serde::Serialize;

/// How the reports fare.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReportState {
    /// Reports on disk that the backend has not taken.
    pub pending: u64,
    /// Reports in memory, because the disk takes none.
    pub in_memory: u64,
    /// What the spool takes on disk.
    pub spool_bytes: u64,
    /// Reports that the backend took since the agent started.
    pub sent: u64,
    /// Of these, the ones that it had already.
    pub duplicates: u64,
    /// Reports that the backend will never take, since the agent started.
    pub refused: u64,
    /// Reports dropped because the spool, or what memory holds while the disk
    /// takes none, was full, since the spool was made.
    pub dropped: u64,
    /// Reports found damaged on disk, since the agent started.
    pub damaged: u64,
    /// When the backend last took one.
    pub last_sent_at: Option<Timestamp>,
    /// Why it did not take the last one.
    pub last_error: Option<String>,
    /// Why the disk takes none.
    pub disk_error: Option<String>,
}
