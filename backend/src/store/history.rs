//! Data that grows: the history's months, and each device's days.

use postgres::Row;
use postgres::types::Type;
use serde::Serialize;

use super::locks::Lock;
use super::transaction::{End, Twice};
use super::{Store, StoreError};

/// So many days are computed before anything else has its turn.
const DAYS_AT_ONCE: i32 = 200;

/// How long a device was what on one day of its site's time zone, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceDay {
    /// The day, as `YYYY-MM-DD`.
    pub day: String,
    /// Well.
    pub ok_s: i32,
    /// Off, and expected to be on.
    pub fault_s: i32,
    /// Off, as expected.
    pub expected_off_s: i32,
    /// Not seen for days.
    pub doubt_s: i32,
    /// Nobody knows.
    pub unknown_s: i32,
}

/// For how many seconds devices were what: a sum over days, or devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Availability {
    /// Well.
    pub ok_s: i64,
    /// Off, and expected to be on.
    pub fault_s: i64,
    /// Not seen for days.
    pub doubt_s: i64,
    /// Nobody knows.
    pub unknown_s: i64,
}

impl Availability {
    /// Adds another sum.
    pub fn add(&mut self, other: Self) {
        self.ok_s += other.ok_s;
        self.fault_s += other.fault_s;
        self.doubt_s += other.doubt_s;
        self.unknown_s += other.unknown_s;
    }

    /// Hundredths of a per cent: how much of the time in which something was
    /// expected and known it was well. Rounded down: 100 % is all of it.
    /// `None` where there was no such time.
    #[must_use]
    pub fn basis_points(&self) -> Option<i64> {
        let expected = self.ok_s + self.fault_s;
        (expected > 0).then(|| self.ok_s * 10_000 / expected)
    }
}

impl From<&DeviceDay> for Availability {
    fn from(day: &DeviceDay) -> Self {
        Self {
            ok_s: day.ok_s.into(),
            fault_s: day.fault_s.into(),
            doubt_s: day.doubt_s.into(),
            unknown_s: day.unknown_s.into(),
        }
    }
}

/// The sums of a query over `device_days`.
const SUMS: &str = "sum(ok_s)::bigint, sum(fault_s)::bigint, sum(doubt_s)::bigint,
    sum(unknown_s)::bigint";

fn sums(row: &Row) -> Availability {
    Availability {
        ok_s: row.get(1),
        fault_s: row.get(2),
        doubt_s: row.get(3),
        unknown_s: row.get(4),
    }
}

impl Store {
    /// Computes finished days that are not computed yet, until `stopped` says
    /// so or a batch is done; answers how many.
    /// Each is a transaction of its own: a site whose day cannot be computed
    /// holds no other up.
    ///
    /// # Errors
    /// The first that arose; the other days are computed all the same.
    pub fn compute_days(&self, stopped: impl Fn() -> bool) -> Result<usize, StoreError> {
        let days: Vec<(i64, String)> = self.run(|client| {
            let rows = client.query_typed(
                "SELECT site_id, day::text FROM av_days_to_compute($1)",
                &[(&DAYS_AT_ONCE, Type::INT4)],
            )?;
            Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })?;
        let mut computed = 0;
        let mut first_error = None;
        for (site_id, day) in days {
            if stopped() {
                break;
            }
            match self.compute_day(site_id, &day) {
                Ok(true) => computed += 1,
                Ok(false) => break,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(computed), Err)
    }

    /// Answers `false` where another backend is at it.
    fn compute_day(&self, site_id: i64, day: &str) -> Result<bool, StoreError> {
        self.transact(Twice::Ask, |transaction| {
            transaction.batch_execute("SET LOCAL statement_timeout = '10min'")?;
            if !Lock::Days.take(transaction)? {
                return Ok(End::Undo(false));
            }
            transaction.execute(
                "SELECT av_compute_day($1, ($2::text)::date)",
                &[&site_id, &day],
            )?;
            Ok(End::Commit(true))
        })
    }

    /// Drops the months of the history that ended more than `keep_months`
    /// whole months before this one; answers their tables' names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_old_months(&self, keep_months: i32) -> Result<Vec<String>, StoreError> {
        self.run(|client| {
            let rows = client.query("SELECT av_drop_partitions($1)", &[&keep_months])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }

    /// The computed days of a site within the last `days` days, the oldest
    /// first, each the sum of the devices that are there now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn site_days(
        &self,
        site_id: i64,
        days: i32,
    ) -> Result<Vec<(String, Availability)>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "SELECT t.day::text, {SUMS}
                       FROM device_days t JOIN devices d ON d.id = t.device_id
                      WHERE d.site_id = $1 AND t.site_id = $1 AND t.day >= current_date - $2
                      GROUP BY t.day ORDER BY t.day"
                ),
                &[(&site_id, Type::INT8), (&days, Type::INT4)],
            )?;
            Ok(rows.iter().map(|row| (row.get(0), sums(row))).collect())
        })
    }

    /// Each device of a site with the sum of its computed days within the last
    /// `days` days; a device without one is not among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices_availability(
        &self,
        site_id: i64,
        days: i32,
    ) -> Result<Vec<(i64, Availability)>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                &format!(
                    "SELECT device_id, {SUMS} FROM device_days
                      WHERE site_id = $1 AND day >= current_date - $2 GROUP BY device_id"
                ),
                &[(&site_id, Type::INT8), (&days, Type::INT4)],
            )?;
            Ok(rows.iter().map(|row| (row.get(0), sums(row))).collect())
        })
    }

    /// The last `days` computed days of a device, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device_days(&self, device_id: i64, days: i64) -> Result<Vec<DeviceDay>, StoreError> {
        self.run(|client| {
            let rows = client.query_typed(
                "SELECT * FROM (
                     SELECT day::text, ok_s, fault_s, expected_off_s, doubt_s, unknown_s
                       FROM device_days WHERE device_id = $1 ORDER BY device_days.day DESC LIMIT $2) d
                  ORDER BY 1",
                &[(&device_id, Type::INT8), (&days, Type::INT8)],
            )?;
            Ok(rows
                .iter()
                .map(|row| DeviceDay {
                    day: row.get(0),
                    ok_s: row.get(1),
                    fault_s: row.get(2),
                    expected_off_s: row.get(3),
                    doubt_s: row.get(4),
                    unknown_s: row.get(5),
                })
                .collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_per_cent_is_all_of_it() {
        for (ok_s, fault_s, basis_points) in [
            (0, 0, None),
            (86_400, 0, Some(10_000)),
            (0, 86_400, Some(0)),
            (86_399, 1, Some(9999)),
            (3, 1, Some(7500)),
        ] {
            let sum = Availability {
                ok_s,
                fault_s,
                unknown_s: 5,
                doubt_s: 7,
            };
            assert_eq!(sum.basis_points(), basis_points);
        }
    }
}
