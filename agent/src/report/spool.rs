//! Reports on disk until the backend has taken them.
//!
//! The spool is a log in segments. A report is appended with one write and one
//! sync, and nothing else is ever written for it (the
//! reports of one sweep share both): how far the backend has come
//! stands in the header of the next record. After a crash the newest reports
//! may so be sent again, and the backend knows them by their sequence number.
//!
//! A segment is named by the sequence number of its first record, and within
//! one the numbers rise by one. A tail that a power cut tore is cut off, and
//! the next record opens a segment with numbers far beyond: a number that was
//! ever given out never comes again, so nothing new can be taken for a
//! repetition.
//!
//! ```text
//! segment:  "AVSPOOL1"  record*
//! record:   length u32 | crc32 u32 | seq u64 | acked u64 | dropped u64 | payload
//! ```
//!
//! Numbers are little-endian; the CRC covers everything after itself; the
//! payload is the devices' JSON, deflated, and after it the JSON of the clock's
//! [`Stamp`]. An empty payload carries `acked`
//! alone and has the number of the record before it.

mod segment;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use av_proto::report::ReportedDevice;
use av_proto::sort::sort_by;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use jiff::Timestamp;

use super::stamp::Stamp;
use crate::durable::write_atomic;
use segment::{Header, Next, Reader, Segment};

/// How far sequence numbers jump over a torn tail.
const GAP: u64 = 1 << 20;
/// A segment whose records are all acknowledged is left behind at this size.
const IDLE_SEGMENT_BYTES: u64 = 256 * 1024;
const SEGMENT_MAX_BYTES: u64 = 1 << 20;
/// Refused reports that are kept for a person to look at.
const REFUSED_KEPT: usize = 20;
/// The most that one report can inflate to.
const PAYLOAD_MAX_BYTES: u64 = 64 << 20;

/// What a spool may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk.
    pub max_bytes: u64,
    /// The age of the oldest segment.
    pub max_age: Duration,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A report could not be encoded.
    #[error("a report could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    /// It failed before and was not opened again yet.
    #[error("the spool is closed")]
    Closed,
}

/// A report that the backend has not taken.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its sequence number.
    pub seq: u64,
    /// What it says.
    pub devices: Vec<ReportedDevice>,
    /// By which clock; `None` where an older agent wrote it.
    pub stamp: Option<Stamp>,
    /// The devices' times, while a try goes without them because nobody
    /// believes the clock ([`super::stamp::settle`]).
    pub(super) withheld: Vec<Option<Timestamp>>,
}

/// The time, to tell how old a segment is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By the clock that does not jump.
    pub at: Instant,
    /// By the machine's, which file times are by; `None` while it is not
    /// right.
    pub machine: Option<Timestamp>,
}

/// The open spool.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: Limits,
    stream: String,
    /// Oldest first; the last one is written to. Its file is opened for each
    /// write: one that was removed, or a disk that became read-only, is then
    /// an error at once.
    segments: VecDeque<Segment>,
    /// The number with which a new segment begins before anything is written;
    /// `None` while the last segment can be written to.
    begins: Option<u64>,
    /// The newest number given out.
    newest: u64,
    acked: u64,
    /// Whether `acked` is newer than what the disk knows.
    ack_unwritten: bool,
    dropped: u64,
    lost: u64,
    reader: Option<Reader>,
    current: Option<Pending>,
}

impl Spool {
    /// Opens the spool in `dir`, making it where there is none. Where the disk
    /// takes nothing, what is there can be read all the same.
    ///
    /// # Errors
    /// When the directory or a segment cannot be read, or a new spool cannot
    /// be made.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, SpoolError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let stream = stream_id(dir).map_err(at(dir))?;
        let mut segments = VecDeque::new();
        for path in segment::list(dir).map_err(at(dir))? {
            segments.push_back(Segment::index(&path).map_err(at(&path))?);
        }

        let mut acked = 0;
        let mut dropped = 0;
        let mut newest = 0;
        let mut begins = Some(1);
        if let Some(last) = segments.back_mut() {
            let repaired = last.repair().map_err(at(&last.path))?;
            newest = last.last().unwrap_or(last.first.saturating_sub(1));
            begins = None;
            if repaired.cut > 0 {
                log::warn!(
                    "⚠️ {}: {} bytes that were not written whole are cut off",
                    last.path.display(),
                    repaired.cut
                );
            }
            if let Some(error) = &repaired.unwritten {
                log::warn!("⚠️ {}: not mended: {error}", last.path.display());
            }
            if repaired.cut > 0 || repaired.unwritten.is_some() {
                begins = Some(newest.saturating_add(GAP));
            }
            if let Some(header) = repaired.last {
                acked = header.acked;
                dropped = header.dropped;
            }
        }
        // A segment is removed only when all before it was acknowledged.
        if let Some(first) = segments.front() {
            acked = acked.max(first.first.saturating_sub(1));
        }
        acked = acked.min(newest);
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            stream,
            segments,
            begins,
            newest,
            acked,
            ack_unwritten: false,
            dropped,
            lost: 0,
            reader: None,
            current: None,
        })
    }

    /// The spool's name, which reports carry beside their number.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Reports that the backend has not taken.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.records_after(self.acked))
            .sum()
    }

    /// What the segments take on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Reports dropped by the limits since the spool began.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts reports that were dropped before they came here; the next record
    /// says so on the disk.
    pub fn count_dropped(&mut self, reports: u64) {
        self.dropped += reports;
    }

    /// Reports found damaged since it was opened.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends reports, with one write and one sync; they are on the disk when
    /// this returns. Where a limit is reached the oldest are dropped, and their
    /// number returned.
    ///
    /// # Errors
    /// When the disk does not take it; the spool is then as before.
    pub fn append(
        &mut self,
        reports: &[&[ReportedDevice]],
        stamp: &Stamp,
        now: &Now,
    ) -> Result<u64, SpoolError> {
        let payloads = reports
            .iter()
            .map(|devices| encode(devices, stamp))
            .collect::<Result<Vec<_>, _>>()?;
        let size = self.segments.back().map_or(0, |segment| segment.bytes);
        let idle = self.pending() == 0 && size > IDLE_SEGMENT_BYTES;
        if idle || size > SEGMENT_MAX_BYTES.min(self.limits.max_bytes / 4) {
            self.begins.get_or_insert(self.newest + 1);
        }
        self.begin_segment()?;
        let records: Vec<(u64, &[u8])> = (self.newest + 1..)
            .zip(payloads.iter().map(Vec::as_slice))
            .collect();
        self.write(&records)?;
        self.newest += records.len() as u64;
        self.remove_acked();
        Ok(self.enforce_limits(now))
    }

    /// The oldest report that the backend has not taken; whoever takes it
    /// gives it back ([`Spool::give_back`]) or acknowledges it. A damaged one
    /// is skipped and counted.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn take(&mut self) -> Result<Option<Pending>, SpoolError> {
        while self.current.is_none() {
            let Some((header, payload)) = self.read_next()? else {
                return Ok(None);
            };
            if header.seq <= self.acked || payload.is_empty() {
                continue;
            }
            match decode(&payload) {
                Ok((devices, stamp)) => {
                    self.current = Some(Pending {
                        seq: header.seq,
                        devices,
                        stamp,
                        withheld: Vec::new(),
                    });
                }
                Err(error) => {
                    log::error!("❌ Report {} cannot be read: {error}", header.seq);
                    self.lost += 1;
                    self.ack(header.seq);
                }
            }
        }
        Ok(self.current.take())
    }

    /// A report that was not taken by the backend comes first again.
    pub fn give_back(&mut self, pending: Pending) {
        if pending.seq > self.acked {
            self.current = Some(pending);
        }
    }

    /// Notes that the backend has taken `seq` and all before it.
    pub fn ack(&mut self, seq: u64) {
        self.acked = self.acked.max(seq.min(self.newest));
        self.ack_unwritten = true;
        self.current = None;
        self.remove_acked();
    }

    /// Writes down what was acknowledged, so that an orderly end repeats
    /// nothing.
    ///
    /// # Errors
    /// When the disk does not take it: the newest reports are then sent again.
    pub fn close(&mut self) -> Result<(), SpoolError> {
        if self.ack_unwritten && self.newest > 0 {
            self.begin_segment()?;
            self.write(&[(self.newest, &[])])?;
            self.ack_unwritten = false;
        }
        Ok(())
    }

    /// Keeps a report that the backend refuses for a person to look at.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_refused_aside(&self, pending: &Pending) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("refused-{:020}.json", pending.seq));
        write_atomic(&path, &serde_json::to_vec(&pending.devices)?)?;
        let mut kept: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with("refused-") && name.ends_with(".json"))
            })
            .collect();
        sort_by(&mut kept, Ord::cmp);
        for old in kept.iter().rev().skip(REFUSED_KEPT) {
            fs::remove_file(old)?;
        }
        Ok(path)
    }

    /// Begins a new segment, where one is due.
    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        let Some(first) = self.begins else {
            return Ok(());
        };
        let segment = Segment::create(&self.dir, first).map_err(at(&self.dir))?;
        self.segments.push_back(segment);
        self.newest = first - 1;
        self.begins = None;
        Ok(())
    }

    /// Records, each a number and a payload, whole and synced, or nothing.
    fn write(&mut self, records: &[(u64, &[u8])]) -> Result<(), SpoolError> {
        let encoded: Vec<Vec<u8>> = records
            .iter()
            .map(|(seq, payload)| {
                let header = Header {
                    seq: *seq,
                    acked: self.acked,
                    dropped: self.dropped,
                };
                segment::encode_record(&header, payload)
            })
            .collect();
        let Some(segment) = self.segments.back_mut() else {
            return Err(SpoolError::Closed);
        };
        let mut file = segment.open_for_append().map_err(at(&segment.path))?;
        let written = file
            .write_all(&encoded.concat())
            .and_then(|()| segment.sync(&file));
        if let Err(source) = written {
            // Half of it must not stand before the next record.
            if file.set_len(segment.bytes).is_err() {
                self.begins = Some(self.newest.saturating_add(GAP));
            }
            return Err(SpoolError::Io {
                path: segment.path.clone(),
                source,
            });
        }
        for (record, (_, payload)) in encoded.iter().zip(records) {
            segment.grew(record.len() as u64, !payload.is_empty());
        }
        self.ack_unwritten = false;
        Ok(())
    }

    fn read_next(&mut self) -> Result<Option<(Header, Vec<u8>)>, SpoolError> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                slot @ None => {
                    // Everything before the oldest segment is acknowledged.
                    let Some(oldest) = self.segments.front() else {
                        return Ok(None);
                    };
                    slot.insert(Reader::open(oldest).map_err(at(&oldest.path))?)
                }
            };
            let first = reader.first;
            let next = reader.next().map_err(at(&self.dir))?;
            let following = self.segments.iter().find(|segment| segment.first > first);
            match (next, following) {
                (Next::Record(header, payload), _) => return Ok(Some((header, payload))),
                (Next::End, None) => return Ok(None),
                (Next::End, Some(segment)) => {
                    self.reader = Some(Reader::open(segment).map_err(at(&segment.path))?);
                }
                (Next::Damaged { read }, following) => {
                    let damaged = self
                        .segments
                        .iter()
                        .find(|segment| segment.first == first)
                        .map_or(0, |segment| segment.records_after(self.acked.max(read)));
                    if damaged > 0 {
                        log::error!(
                            "❌ Spool segment {first} is damaged: {damaged} reports cannot be read"
                        );
                    }
                    self.lost += damaged;
                    let Some(segment) = following else {
                        // The one that is written to: go on in a new one.
                        self.begins.get_or_insert(self.newest + 1);
                        self.acked = self.newest;
                        self.reader = None;
                        return Ok(None);
                    };
                    self.acked = self.acked.max(segment.first - 1);
                    self.reader = Some(Reader::open(segment).map_err(at(&segment.path))?);
                }
            }
        }
    }

    /// Removes the segments that hold nothing unacknowledged, the last
    /// excepted.
    fn remove_acked(&mut self) {
        while self.segments.len() > 1
            && self
                .segments
                .front()
                .is_some_and(|segment| segment.records_after(self.acked) == 0)
        {
            if !self.remove_oldest() {
                return;
            }
        }
    }

    fn enforce_limits(&mut self, now: &Now) -> u64 {
        let mut dropped = 0;
        while self.segments.len() > 1 {
            let Some(oldest) = self.segments.front() else {
                break;
            };
            let too_old = oldest.age(now) > self.limits.max_age;
            if self.bytes() <= self.limits.max_bytes && !too_old {
                break;
            }
            let unsent = oldest.records_after(self.acked);
            let last = oldest.last();
            if !self.remove_oldest() {
                break;
            }
            dropped += unsent;
            self.acked = self.acked.max(last.unwrap_or(0));
            self.current = None;
        }
        self.dropped += dropped;
        dropped
    }

    /// Whether the oldest segment could be removed.
    fn remove_oldest(&mut self) -> bool {
        let Some(oldest) = self.segments.front() else {
            return false;
        };
        if let Err(error) = fs::remove_file(&oldest.path) {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("⚠️ {}: {error}", oldest.path.display());
                return false;
            }
        }
        if self
            .reader
            .as_ref()
            .is_some_and(|reader| reader.first == oldest.first)
        {
            self.reader = None;
        }
        self.segments.pop_front();
        true
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> SpoolError + use<> {
    let path = path.to_owned();
    move |source| SpoolError::Io {
        path: path.clone(),
        source,
    }
}

/// The spool's random name, made once.
fn stream_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("stream");
    if let Ok(text) = fs::read_to_string(&path) {
        let text = text.trim();
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(text.to_owned());
        }
    }
    let id = random_stream()?;
    write_atomic(&path, id.as_bytes())?;
    Ok(id)
}

/// A name for a stream of reports that no other has.
///
/// # Errors
/// Where the system has no chance.
pub(super) fn random_stream() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The stamp stands after the end of the deflated data, where an older agent
/// does not look.
fn encode(devices: &[ReportedDevice], stamp: &Stamp) -> Result<Vec<u8>, SpoolError> {
    let json = serde_json::to_vec(devices)?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let mut payload = encoder
        .write_all(&json)
        .and_then(|()| encoder.finish())
        .map_err(at(Path::new("deflate")))?;
    payload.extend(serde_json::to_vec(stamp)?);
    Ok(payload)
}

fn decode(payload: &[u8]) -> Result<(Vec<ReportedDevice>, Option<Stamp>), serde_json::Error> {
    let mut json = Vec::new();
    let mut decoder = DeflateDecoder::new(payload).take(PAYLOAD_MAX_BYTES);
    decoder
        .read_to_end(&mut json)
        .map_err(serde_json::Error::io)?;
    let end = usize::try_from(decoder.get_ref().total_in()).unwrap_or(usize::MAX);
    let stamp = payload
        .get(end..)
        .and_then(|rest| serde_json::from_slice(rest).ok());
    Ok((serde_json::from_slice(&json)?, stamp))
}

#[cfg(test)]
mod tests;
