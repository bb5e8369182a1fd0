//! Times, here and in PostgreSQL.

use std::time::SystemTime;

use jiff::Timestamp;

/// PostgreSQL's time as ours. Its range is wider than ours at both ends,
/// where nothing was observed.
pub(super) fn from_sql(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Our time as PostgreSQL takes it.
pub(super) fn to_sql(time: Timestamp) -> SystemTime {
    SystemTime::try_from(time).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_went() {
        for text in ["2026-11-24T10:00:00.123456Z", "1969-12-31T23:59:59Z"] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(from_sql(to_sql(time)), time);
        }
    }
}
