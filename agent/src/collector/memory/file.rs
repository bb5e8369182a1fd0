//! The memory on disk: a file that is whole after a power cut, and beside it a
//! log of what changed since.
//!
//! The file is replaced once an hour, with all that makes that safe. A change
//! is appended to the log and left to the system to write out, which it does
//! within half a minute and together with what else there is: a memory card
//! wears, and a sweep is to cost one write. What a kill of the agent leaves
//! behind is everything; a power cut may take the last changes, and the next
//! sweep sees the devices again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use av_proto::verdict::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable::{sibling, write_atomic};

/// A device's line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) last_ok: Option<Timestamp>,
    pub(super) offline_since: Option<Timestamp>,
    pub(super) verdict: Option<Verdict>,
    /// `last_ok` was stamped by a clock that nobody believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) last_ok_unsynced: bool,
    /// The same of `offline_since`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) offline_since_unsynced: bool,
}

/// The file.
#[derive(Debug, Serialize)]
struct Written<'a> {
    id: u64,
    last_good_time: Option<Timestamp>,
    devices: &'a BTreeMap<&'a str, Stored>,
}

/// The file as it is now, or as it was before it knew of the clock.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Now {
        #[serde(default)]
        id: u64,
        last_good_time: Option<Timestamp>,
        devices: BTreeMap<String, Stored>,
    },
    Before(BTreeMap<String, Stored>),
}

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line<Text> {
    /// The first: which file it goes on from.
    After { after: u64 },
    /// A device as it is now.
    Device { ip: Text, now: Stored },
}

/// What was on the disk.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) last_good: Option<Timestamp>,
    pub(super) devices: BTreeMap<String, Stored>,
    id: u64,
}

/// The file and its log.
#[derive(Debug)]
pub(super) struct MemoryFile {
    path: PathBuf,
    id: u64,
    /// The log goes on from this file.
    has_log: bool,
}

impl MemoryFile {
    /// Reads the file and its log; a file that is missing or does not parse
    /// is an empty memory, and said.
    pub(super) fn load(path: &Path) -> (Self, Loaded) {
        let mut loaded = match read(path) {
            Ok(loaded) => loaded,
            Err(error) => {
                log::warn!(
                    "⚠️ {}: {error}; last seen times start afresh",
                    path.display()
                );
                Loaded::default()
            }
        };
        if let Ok(log) = fs::read(log_path(path)) {
            replay(&log, &mut loaded);
        }
        let file = Self {
            path: path.to_owned(),
            id: loaded.id,
            has_log: false,
        };
        (file, loaded)
    }

    /// Replaces the file, and begins a new log with the next change.
    ///
    /// # Errors
    /// When it cannot be written; what was there stands.
    pub(super) fn replace(
        &mut self,
        last_good: Option<Timestamp>,
        devices: &BTreeMap<&str, Stored>,
    ) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        self.has_log = false;
        let id = self.id.wrapping_add(1);
        let written = Written {
            id,
            last_good_time: last_good,
            devices,
        };
        write_atomic(&self.path, &serde_json::to_vec(&written)?)?;
        self.id = id;
        Ok(())
    }

    /// Appends what changed to the log.
    ///
    /// # Errors
    /// When it cannot be written. The file is then to be replaced.
    pub(super) fn append(&mut self, devices: &BTreeMap<&str, Stored>) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut line = |line: &Line<&str>| -> io::Result<()> {
            serde_json::to_writer(&mut lines, line)?;
            lines.push(b'\n');
            Ok(())
        };
        let mut options = OpenOptions::new();
        if self.has_log {
            options.append(true);
        } else {
            line(&Line::After { after: self.id })?;
            options.write(true).create(true).truncate(true).mode(0o600);
        }
        // Opened for each write: no file of ours is in the way of a disk that
        // is made read-only.
        let mut log = options.open(log_path(&self.path))?;
        self.has_log = false;
        for (ip, now) in devices {
            line(&Line::Device {
                ip,
                now: now.clone(),
            })?;
        }
        log.write_all(&lines)?;
        self.has_log = true;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Loaded> {
    let content = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        content => content?,
    };
    Ok(match serde_json::from_slice(&content)? {
        Document::Now {
            id,
            last_good_time,
            devices,
        } => Loaded {
            last_good: last_good_time,
            devices,
            id,
        },
        Document::Before(devices) => Loaded {
            devices,
            ..Loaded::default()
        },
    })
}

/// Takes the changes of a log that goes on from this file; it ends at the
/// first line that is not whole.
fn replay(log: &[u8], loaded: &mut Loaded) {
    let mut lines = log
        .split_inclusive(|byte| *byte == b'\n')
        .map_while(|line| serde_json::from_slice(line.strip_suffix(b"\n")?).ok());
    match lines.next() {
        Some(Line::After { after }) if after == loaded.id => {}
        _ => return,
    }
    for line in lines {
        if let Line::Device { ip, now } = line {
            loaded.devices.insert(ip, now);
        }
    }
}

/// The newest time in the file that was known to be right; `None` where there
/// is none or the file cannot be read.
pub(super) fn last_good_time(path: &Path) -> Option<Timestamp> {
    read(path).ok()?.last_good
}

fn log_path(path: &Path) -> PathBuf {
    sibling(path, ".log")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(second: i64) -> Stored {
        Stored {
            last_ok: Timestamp::from_second(second).ok(),
            ..Stored::default()
        }
    }

    fn devices(list: &[(&'static str, i64)]) -> BTreeMap<&'static str, Stored> {
        list.iter()
            .map(|(ip, second)| (*ip, stored(*second)))
            .collect()
    }

    fn seconds(path: &Path) -> Vec<(String, i64)> {
        let (_, loaded) = MemoryFile::load(path);
        loaded
            .devices
            .into_iter()
            .map(|(ip, stored)| (ip, stored.last_ok.unwrap().as_second()))
            .collect()
    }

    fn expected(list: &[(&str, i64)]) -> Vec<(String, i64)> {
        list.iter()
            .map(|(ip, second)| ((*ip).to_owned(), *second))
            .collect()
    }

    #[test]
    fn the_log_goes_on_from_its_file_and_from_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.json");
        let (mut file, _) = MemoryFile::load(&path);
        file.replace(None, &devices(&[("a", 1), ("b", 1)])).unwrap();
        file.append(&devices(&[("b", 2)])).unwrap();
        file.append(&devices(&[("b", 3), ("c", 3)])).unwrap();
        drop(file);
        assert_eq!(seconds(&path), expected(&[("a", 1), ("b", 3), ("c", 3)]));

        // The next run goes on, and its log is of its file.
        let (mut file, _) = MemoryFile::load(&path);
        let old_log = fs::read(log_path(&path)).unwrap();
        file.replace(None, &devices(&[("a", 4)])).unwrap();
        assert_eq!(
            seconds(&path),
            expected(&[("a", 4)]),
            "the log is an old one"
        );
        file.append(&devices(&[("d", 5)])).unwrap();
        assert_eq!(seconds(&path), expected(&[("a", 4), ("d", 5)]));
        fs::write(log_path(&path), old_log).unwrap();
        assert_eq!(seconds(&path), expected(&[("a", 4)]));
    }

    #[test]
    fn a_log_that_was_not_written_whole_counts_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("devices.json");
        let (mut file, _) = MemoryFile::load(&path);
        file.replace(None, &devices(&[("a", 1)])).unwrap();
        file.append(&devices(&[("a", 2)])).unwrap();
        file.append(&devices(&[("a", 3)])).unwrap();
        let log = fs::read(log_path(&path)).unwrap();
        let line_ends: Vec<usize> = (0..log.len()).filter(|i| log[*i] == b'\n').collect();
        for length in 0..log.len() {
            fs::write(log_path(&path), &log[..length]).unwrap();
            let whole = line_ends.iter().filter(|end| **end < length).count();
            let second = [1, 1, 2, 3][whole];
            assert_eq!(
                seconds(&path),
                expected(&[("a", second)]),
                "cut at {length}"
            );
        }
    }
}
