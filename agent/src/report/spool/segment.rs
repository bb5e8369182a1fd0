//! One file of the spool: its records, read and written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use av_proto::sort::sort_by;
use jiff::Timestamp;

use super::Now;
use crate::clock::WRITTEN;
use crate::durable::sync_parent;

const MAGIC: &[u8; 8] = b"AVSPOOL1";
const MAGIC_BYTES: u64 = MAGIC.len() as u64;
const HEADER_BYTES: usize = 32;
/// No record that was written is larger; a length beyond is damage.
const RECORD_MAX_BYTES: usize = 32 << 20;
const SUFFIX: &str = ".spool";

/// What stands before each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) seq: u64,
    pub(super) acked: u64,
    pub(super) dropped: u64,
}

/// A record's bytes.
pub(super) fn encode_record(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    for number in [header.seq, header.acked, header.dropped] {
        record.extend_from_slice(&number.to_le_bytes());
    }
    record.extend_from_slice(payload);
    let crc = crc32fast::hash(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The numbers of a record's first 32 bytes: length, CRC and header.
fn decode_header(bytes: &[u8; HEADER_BYTES]) -> (usize, u32, Header) {
    let u32_at = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let u64_at = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let header = Header {
        seq: u64_at(8),
        acked: u64_at(16),
        dropped: u64_at(24),
    };
    (u32_at(0) as usize, u32_at(4), header)
}

/// What was found when a segment was looked through.
#[derive(Debug)]
pub(super) struct Repaired {
    /// The header of the last whole record.
    pub(super) last: Option<Header>,
    /// The bytes behind it.
    pub(super) cut: u64,
    /// Why they could not be cut off.
    pub(super) unwritten: Option<io::Error>,
}

/// A segment's file and what it holds.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Its name may not be on the disk yet.
    is_new: bool,
    /// The number of its first record, there or to come.
    pub(super) first: u64,
    /// Its records.
    count: u64,
    pub(super) bytes: u64,
    /// When it was last written to or, where an earlier run did that, found.
    touched: Instant,
    /// When an earlier run last wrote to it, by the machine's clock of then.
    written_before: Option<Timestamp>,
}

impl Segment {
    /// A new segment with nothing in it. The sync of its first record makes it
    /// and its name in the directory durable.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(format!("{first:020}{SUFFIX}"));
        let begun = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.set_len(0)?;
                file.write_all(MAGIC)
            });
        if let Err(error) = begun {
            // A full disk takes the name and not the first bytes.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            path,
            is_new: true,
            first,
            count: 0,
            bytes: MAGIC_BYTES,
            touched: Instant::now(),
            written_before: None,
        })
    }

    /// Waits until what was written to `file`, which is its own, is on the disk,
    /// and its name too.
    pub(super) fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        // After the data: with them ext4 wrote its journal, in which the name
        // stands, and this writes nothing more. Not `syncfs`, which is one call
        // and waits for what everybody else wrote.
        if self.is_new {
            sync_parent(&self.path)?;
            self.is_new = false;
        }
        Ok(())
    }

    /// Looks a segment through by its headers, without reading the payloads.
    pub(super) fn index(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mut segment = Self {
            path: path.to_owned(),
            is_new: false,
            first: first_of(path).ok_or_else(|| io::Error::other("is not a segment's name"))?,
            count: 0,
            bytes: metadata.len(),
            touched: Instant::now(),
            written_before: metadata
                .modified()
                .ok()
                .and_then(|at| Timestamp::try_from(at).ok()),
        };
        let mut reader = Reader::open(&segment)?;
        while let Some((header, length)) = reader.header()? {
            let payload = length as u64;
            if reader.offset + payload > segment.bytes {
                break;
            }
            segment.count += u64::from(payload > 0 && header.seq == segment.first + segment.count);
            reader.skip(payload)?;
        }
        Ok(segment)
    }

    /// Checks every record and cuts off what is not whole. Where the disk does
    /// not take that, the segment is as if it were: its tail is not counted.
    pub(super) fn repair(&mut self) -> io::Result<Repaired> {
        let mut reader = Reader::open(self)?;
        let mut whole = if reader.offset == MAGIC_BYTES {
            MAGIC_BYTES
        } else {
            0
        };
        let mut last = None;
        self.count = 0;
        while let Next::Record(header, payload) = reader.next()? {
            whole = reader.offset;
            last = Some(header);
            self.count += u64::from(!payload.is_empty());
        }
        let cut = self.bytes - whole.min(self.bytes);
        let mut unwritten = None;
        if cut > 0 || whole == 0 {
            unwritten = self.cut_to(whole).err();
            self.bytes = whole.max(MAGIC_BYTES);
        }
        Ok(Repaired {
            last,
            cut,
            unwritten,
        })
    }

    fn cut_to(&self, whole: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(whole)?;
        if whole == 0 {
            file.write_all(MAGIC)?;
        }
        file.sync_all()
    }

    pub(super) fn open_for_append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.path)
    }

    /// The number of its last record.
    pub(super) fn last(&self) -> Option<u64> {
        (self.count > 0).then(|| self.first + self.count - 1)
    }

    /// How many of its records come after `seq`.
    pub(super) fn records_after(&self, seq: u64) -> u64 {
        self.last()
            .map_or(0, |last| last.saturating_sub(seq.max(self.first - 1)))
    }

    /// How long ago it was last written to; never more than is certain.
    pub(super) fn age(&self, now: &Now) -> Duration {
        let certain = now.at.saturating_duration_since(self.touched);
        match (self.written_before, now.machine) {
            (Some(before), Some(now)) if before >= WRITTEN => {
                Duration::try_from(now.duration_since(before))
                    .map_or(certain, |age| age.max(certain))
            }
            _ => certain,
        }
    }

    /// Notes that a record was appended.
    pub(super) fn grew(&mut self, bytes: u64, is_report: bool) {
        self.bytes += bytes;
        self.count += u64::from(is_report);
        self.touched = Instant::now();
        self.written_before = None;
    }
}

/// The segments in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if first_of(&path).is_some() {
            paths.push(path);
        }
    }
    // Twenty digits: the order of the names is that of the numbers.
    sort_by(&mut paths, Ord::cmp);
    Ok(paths)
}

fn first_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let first = digits.parse().ok()?;
    (digits.len() == 20 && first > 0).then_some(first)
}

/// What a reader finds at its place.
#[derive(Debug)]
pub(super) enum Next {
    /// A whole record.
    Record(Header, Vec<u8>),
    /// Nothing yet.
    End,
    /// Something that is no whole record.
    Damaged {
        /// The number of the last whole one before it, or the one before the
        /// segment's first.
        read: u64,
    },
}

/// Reads a segment from its beginning.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) first: u64,
    file: BufReader<File>,
    /// Where the next record begins; 0 where the file is no segment.
    offset: u64,
    read: u64,
}

impl Reader {
    pub(super) fn open(segment: &Segment) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(&segment.path)?);
        let mut magic = [0; MAGIC.len()];
        let offset = match file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => MAGIC_BYTES,
            Ok(()) => 0,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        Ok(Self {
            first: segment.first,
            file,
            offset,
            read: segment.first - 1,
        })
    }

    /// The next record. At the end of the file the place stays, so that what
    /// is appended later is found.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let start = self.offset;
        let damaged = Next::Damaged { read: self.read };
        if start == 0 {
            return Ok(damaged);
        }
        // Also drops what the buffer holds: the file may have grown.
        self.file.seek(SeekFrom::Start(start))?;
        let mut head = [0; HEADER_BYTES];
        match read_up_to(&mut self.file, &mut head)? {
            0 => return Ok(Next::End),
            HEADER_BYTES => {}
            _ => return Ok(damaged),
        }
        let (length, crc, header) = decode_header(&head);
        if length > RECORD_MAX_BYTES {
            return Ok(damaged);
        }
        let mut payload = vec![0; length];
        if read_up_to(&mut self.file, &mut payload)? < length {
            return Ok(damaged);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[8..]);
        hasher.update(&payload);
        // One that carries `acked` alone has the number of the record before it.
        let expected = match length {
            0 => Some(self.read),
            _ => self.read.checked_add(1),
        };
        if hasher.finalize() != crc || expected != Some(header.seq) {
            return Ok(damaged);
        }
        self.offset = start + (HEADER_BYTES + length) as u64;
        self.read = header.seq;
        Ok(Next::Record(header, payload))
    }

    /// The next record's header, unchecked; `None` at the end or at damage.
    fn header(&mut self) -> io::Result<Option<(Header, usize)>> {
        if self.offset == 0 {
            return Ok(None);
        }
        let mut head = [0; HEADER_BYTES];
        if read_up_to(&mut self.file, &mut head)? < HEADER_BYTES {
            return Ok(None);
        }
        self.offset += HEADER_BYTES as u64;
        let (length, _, header) = decode_header(&head);
        Ok((length <= RECORD_MAX_BYTES).then_some((header, length)))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.offset += bytes;
        self.file
            .seek_relative(i64::try_from(bytes).unwrap_or(i64::MAX))
    }
}

/// Reads until `buffer` is full or the file ends; how much was read.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
