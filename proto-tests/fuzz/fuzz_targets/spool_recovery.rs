//! The spool after damage. Whatever the bytes of its file: it opens, gives what
//! it can read and takes new reports. Where the damage is in a file that it
//! wrote itself: each report that stands whole before it comes, in order.
//!
//! The first byte says what the rest is: a segment's bytes, a segment's
//! payloads under right checksums, or damage: two bytes say where, and what
//! follows stands there instead of what stood there; nothing cuts the file.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use av_agent::report::{Limits, Now, Spool, Stamp};
use av_proto::report::ReportedDevice;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_age: Duration::from_secs(3600),
};
const REPORTS: usize = 6;
const STREAM: &str = "0123456789abcdef0123456789abcdef";
const FIRST: &str = "00000000000000000001.spool";

fn reports() -> Vec<Vec<ReportedDevice>> {
    (1..=REPORTS)
        .map(|n| {
            let text = format!(
                r#"[{{"ip":"10.0.0.{n}","name":"P{n}","type":"projector","driver":"ping",
                    "status":"online","detail":null,"metrics":{{"n":{n}}},"verdict":"ok"}}]"#
            );
            serde_json::from_str(&text).expect("a report")
        })
        .collect()
}

fn stamp() -> Stamp {
    serde_json::from_str(r#"{"run":"r","wall_of_zero":"2026-01-01T00:00:00Z","is_true":true}"#)
        .expect("a stamp")
}

fn append(spool: &mut Spool, report: &[ReportedDevice]) {
    let now = Now {
        at: Instant::now(),
        machine: None,
    };
    spool.append(&[report], &stamp(), &now).expect("appended");
}

/// A whole segment, and where each of its records ends.
fn whole() -> &'static (Vec<u8>, Vec<usize>) {
    static WHOLE: OnceLock<(Vec<u8>, Vec<usize>)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("stream"), STREAM).expect("written");
        let mut spool = Spool::open(dir.path(), LIMITS).expect("opened");
        let mut ends = Vec::new();
        for report in reports() {
            append(&mut spool, &report);
            ends.push(usize::try_from(spool.bytes()).expect("small"));
        }
        (fs::read(segment(dir.path())).expect("read"), ends)
    })
}

fn segment(dir: &Path) -> PathBuf {
    dir.join(FIRST)
}

/// Every report that the spool gives, acknowledged as a backend would.
fn drain(spool: &mut Spool) -> Vec<(u64, String)> {
    let mut taken = Vec::new();
    while let Some(pending) = spool.take().expect("readable") {
        assert!(taken.last().is_none_or(|(seq, _)| *seq < pending.seq));
        let name = pending.devices.first().map(|device| device.name.clone());
        taken.push((pending.seq, name.unwrap_or_default()));
        spool.ack(pending.seq);
    }
    taken
}

/// The segment's bytes, and how many of its reports must come.
fn damaged(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let Some((kind, rest)) = bytes.split_first() else {
        return (Vec::new(), Some(0));
    };
    match kind % 3 {
        0 => (rest.to_vec(), None),
        1 => {
            let mut file = b"AVSPOOL1".to_vec();
            for (seq, payload) in (1u64..).zip(rest.split(|byte| *byte == b'|')) {
                let mut record = vec![0; 8];
                for number in [seq, 0, 0] {
                    record.extend(number.to_le_bytes());
                }
                record.extend(payload);
                let crc = crc32fast::hash(&record[8..]);
                record[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
                record[4..8].copy_from_slice(&crc.to_le_bytes());
                file.extend(record);
            }
            (file, None)
        }
        _ => {
            let (file, ends) = whole();
            let (at, new) = rest.split_at(rest.len().min(2));
            let at = at
                .iter()
                .fold(0, |sum, byte| sum * 256 + usize::from(*byte))
                % file.len();
            let mut file = file.clone();
            if new.is_empty() {
                file.truncate(at);
            } else {
                let end = (at + new.len()).min(file.len());
                file[at..end].copy_from_slice(&new[..end - at]);
            }
            let before = ends.iter().filter(|end| **end <= at).count();
            (file, Some(if at < 8 { 0 } else { before }))
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (file, expected) = damaged(bytes);
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("stream"), STREAM).expect("written");
    fs::write(segment(dir.path()), file).expect("written");

    let mut spool = Spool::open(dir.path(), LIMITS).expect("opened");
    let taken = drain(&mut spool);
    if let Some(expected) = expected {
        let must: Vec<(u64, String)> = (1..=expected)
            .map(|n| (n as u64, format!("P{n}")))
            .collect();
        assert!(taken.starts_with(&must), "{taken:?} for {must:?}");
    }
    // It goes on, with a number that was never given, and keeps that.
    let last = taken.last().map_or(0, |(seq, _)| *seq);
    append(&mut spool, &reports()[0]);
    drop(spool);
    let mut spool = Spool::open(dir.path(), LIMITS).expect("opened again");
    let again = drain(&mut spool);
    let (seq, name) = again.last().expect("the new report");
    assert!(*seq > last && name == "P1", "{again:?} after {taken:?}");
});
