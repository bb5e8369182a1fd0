use std::fs::OpenOptions;

use av_proto::verdict::{Status, Verdict};
use serde_json::value::RawValue;

use super::*;

const LIMITS: Limits = Limits {
    max_bytes: 64 << 20,
    max_age: Duration::from_secs(30 * 86_400),
};

fn report(text: &str) -> Vec<ReportedDevice> {
    vec![ReportedDevice {
        ip: "10.0.0.1".to_owned(),
        name: text.to_owned(),
        building: None,
        floor: None,
        room: None,
        device_type: "projector".to_owned(),
        driver: "ping".to_owned(),
        status: Status::Online,
        detail: None,
        metrics: RawValue::from_string("{\"x\":1.50}".to_owned()).unwrap(),
        verdict: Verdict::Ok,
        observed_at: Some(Timestamp::UNIX_EPOCH),
        expectations: None,
        clock_unsynced: false,
    }]
}

/// A report that deflate cannot make small.
fn bulky(seed: u64, bytes: usize) -> Vec<ReportedDevice> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let text: String = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 64) as u8)
        })
        .collect();
    report(&text)
}

fn open(dir: &Path) -> Spool {
    Spool::open(dir, LIMITS).unwrap()
}

fn append(spool: &mut Spool, text: &str) {
    assert_eq!(spool.append(&[&report(text)], &stamp(), &now()).unwrap(), 0);
}

fn stamp() -> Stamp {
    Stamp {
        run: "test".to_owned(),
        wall_of_zero: Timestamp::UNIX_EPOCH,
        is_true: true,
    }
}

fn now() -> Now {
    Now {
        at: Instant::now(),
        machine: Some(Timestamp::now()),
    }
}

/// Takes everything that is pending, as a backend would.
fn drain(spool: &mut Spool) -> Vec<(u64, String)> {
    let mut taken = Vec::new();
    while let Some(pending) = spool.take().unwrap() {
        taken.push((pending.seq, pending.devices[0].name.clone()));
        spool.ack(pending.seq);
    }
    taken
}

fn names(taken: &[(u64, String)]) -> Vec<&str> {
    taken.iter().map(|(_, name)| name.as_str()).collect()
}

fn only_segment(dir: &Path) -> PathBuf {
    let paths = segment::list(dir).unwrap();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths[0].clone()
}

#[test]
fn the_reports_of_a_sweep_come_out_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let reports = [report("a"), report("b"), report("c")];
    let reports: Vec<&[ReportedDevice]> = reports.iter().map(Vec::as_slice).collect();
    spool.append(&reports, &stamp(), &now()).unwrap();
    append(&mut spool, "d");
    assert_eq!(spool.pending(), 4);
    assert_eq!(spool.take().unwrap().unwrap().stamp, Some(stamp()));
    spool.ack(1);
    drop(spool);
    let mut spool = open(dir.path());
    assert_eq!(names(&drain(&mut spool)), ["a", "b", "c", "d"]);
}

#[test]
fn reports_of_an_older_agent_are_read_and_it_reads_ours() {
    let ours = encode(&report("x"), &stamp()).unwrap();
    let mut json = Vec::new();
    DeflateDecoder::new(ours.as_slice())
        .read_to_end(&mut json)
        .unwrap();
    let read: Vec<ReportedDevice> = serde_json::from_slice(&json).unwrap();
    assert_eq!(read[0].name, "x");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&json).unwrap();
    let (devices, stamp) = decode(&encoder.finish().unwrap()).unwrap();
    assert_eq!((devices[0].name.as_str(), stamp), ("x", None));
}

#[test]
fn a_clock_that_jumps_drops_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for i in 0..3 {
        spool
            .append(&[&bulky(i, 1_400_000)], &stamp(), &now())
            .unwrap();
    }
    let at = |seconds: i64| Now {
        at: Instant::now(),
        machine: Timestamp::from_second(seconds).ok(),
    };
    // Decades ahead and back in 1970, in the run that wrote them.
    for seconds in [4_000_000_000, 10] {
        assert_eq!(
            spool
                .append(&[&report("x")], &stamp(), &at(seconds))
                .unwrap(),
            0
        );
    }
    drop(spool);
    // The next run finds files of 1970: their age is what it has seen itself.
    for path in segment::list(dir.path()).unwrap() {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(100))
            .unwrap();
    }
    let mut spool = open(dir.path());
    assert_eq!(spool.append(&[&report("y")], &stamp(), &now()).unwrap(), 0);
    // And where the clock is not right, the files' times say nothing.
    drop(spool);
    let old = std::time::SystemTime::now() - Duration::from_secs(40 * 86_400);
    for path in segment::list(dir.path()).unwrap() {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(old).unwrap();
    }
    let mut spool = open(dir.path());
    let unset = Now {
        at: Instant::now(),
        machine: None,
    };
    assert_eq!(spool.append(&[&report("z")], &stamp(), &unset).unwrap(), 0);
    let dropped = spool.append(&[&report("z")], &stamp(), &now()).unwrap();
    assert_eq!(dropped, 3, "40 days old, by a clock that is right");
}

#[test]
fn reports_come_out_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    assert!(spool.take().unwrap().is_none());
    append(&mut spool, "a");
    append(&mut spool, "b");
    assert_eq!(spool.pending(), 2);
    let first = spool.take().unwrap().unwrap();
    let seq = first.seq;
    spool.give_back(first);
    let first = spool.take().unwrap().unwrap();
    assert_eq!(first.seq, seq);
    assert_eq!(first.devices[0].metrics.get(), "{\"x\":1.50}");
    spool.ack(first.seq);
    append(&mut spool, "c");
    assert_eq!(
        drain(&mut spool),
        [(2, "b".to_owned()), (3, "c".to_owned())]
    );
    assert_eq!(spool.pending(), 0);
}

#[test]
fn an_orderly_end_repeats_nothing_and_a_crash_at_most_what_no_record_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    let stream = spool.stream().to_owned();
    append(&mut spool, "a");
    append(&mut spool, "b");
    spool.ack(1);
    spool.ack(2);
    spool.close().unwrap();
    drop(spool);

    let mut spool = open(dir.path());
    assert_eq!(spool.stream(), stream);
    assert_eq!(spool.pending(), 0);
    append(&mut spool, "c");
    append(&mut spool, "d");
    assert_eq!(drain(&mut spool).len(), 2);
    drop(spool); // no close: a crash

    let mut spool = open(dir.path());
    assert_eq!(
        drain(&mut spool),
        [(3, "c".to_owned()), (4, "d".to_owned())],
        "sent again under their old numbers"
    );
}

#[test]
fn a_tail_torn_at_any_byte_costs_only_the_report_that_was_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    append(&mut spool, "a");
    append(&mut spool, "b");
    let before = spool.bytes();
    append(&mut spool, "c");
    drop(spool);
    let path = only_segment(dir.path());
    let content = fs::read(&path).unwrap();

    for length in before as usize..content.len() {
        for old in segment::list(dir.path()).unwrap() {
            fs::remove_file(old).unwrap();
        }
        fs::write(&path, &content[..length]).unwrap();
        let mut spool = open(dir.path());
        append(&mut spool, "new");
        let taken = drain(&mut spool);
        assert_eq!(names(&taken), ["a", "b", "new"], "cut at {length}");
        let torn = length > before as usize;
        assert_eq!(taken[2].0 > 3, torn, "number 3 comes again only if unused");
    }
}

#[test]
fn a_segment_torn_in_its_first_bytes_is_begun_again() {
    for length in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        append(&mut spool, "a");
        drop(spool);
        let path = only_segment(dir.path());
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..length]).unwrap();
        let mut spool = open(dir.path());
        append(&mut spool, "b");
        assert_eq!(names(&drain(&mut spool)), ["b"], "cut at {length}");
    }
}

#[test]
fn damage_inside_never_gives_wrong_reports_and_never_blocks_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for i in 0..3 {
        spool
            .append(&[&bulky(i, 600_000)], &stamp(), &now())
            .unwrap();
    }
    append(&mut spool, "after");
    drop(spool);
    let paths = segment::list(dir.path()).unwrap();
    assert!(paths.len() > 1, "{paths:?}");
    // A bit of the second record of the first segment.
    let mut content = fs::read(&paths[0]).unwrap();
    let at = content.len() - 100;
    content[at] ^= 1;
    fs::write(&paths[0], content).unwrap();

    let mut spool = open(dir.path());
    let taken = drain(&mut spool);
    assert_eq!(taken.last().unwrap().1, "after");
    assert_eq!(taken.len() as u64 + spool.lost(), 4);
    assert_eq!(spool.lost(), 1);
    assert_eq!(spool.pending(), 0);
}

#[test]
fn damage_in_the_segment_that_is_written_to_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    append(&mut spool, "a");
    append(&mut spool, "b");
    let path = only_segment(dir.path());
    let mut content = fs::read(&path).unwrap();
    let at = content.len() - 5;
    content[at] ^= 1;
    fs::write(&path, content).unwrap();
    assert_eq!(names(&drain(&mut spool)), ["a"]);
    assert_eq!(spool.lost(), 1);
    append(&mut spool, "c");
    assert_eq!(names(&drain(&mut spool)), ["c"]);
}

#[test]
fn the_oldest_are_dropped_at_the_limit_and_counted_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_bytes: 1 << 20,
        ..LIMITS
    };
    let mut spool = Spool::open(dir.path(), limits).unwrap();
    let mut dropped = 0;
    for i in 0..40 {
        dropped += spool
            .append(&[&bulky(i, 100_000)], &stamp(), &now())
            .unwrap();
        assert!(
            spool.bytes() <= (1 << 20) + (400 << 10),
            "{}",
            spool.bytes()
        );
    }
    assert!(dropped > 0);
    assert_eq!(spool.dropped(), dropped);
    let newest = spool.pending();
    assert_eq!(newest + dropped, 40);
    // The record after the last drop carries the count.
    append(&mut spool, "last");
    let counted = spool.dropped();
    drop(spool);
    let mut spool = Spool::open(dir.path(), limits).unwrap();
    assert_eq!(spool.dropped(), counted);
    let taken = drain(&mut spool);
    assert_eq!(taken.last().unwrap().1, "last");
    assert_eq!(taken.len() as u64 + counted, 41);
}

#[test]
fn the_old_are_dropped_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for i in 0..3 {
        spool
            .append(&[&bulky(i, 1_400_000)], &stamp(), &now())
            .unwrap();
    }
    let later = Now {
        at: Instant::now() + Duration::from_secs(31 * 86_400),
        machine: None,
    };
    let dropped = spool.append(&[&report("new")], &stamp(), &later).unwrap();
    assert_eq!(dropped, 3);
    assert_eq!(names(&drain(&mut spool)), ["new"]);
}

#[test]
fn acknowledged_segments_leave_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    for i in 0..8 {
        spool
            .append(&[&bulky(i, 400_000)], &stamp(), &now())
            .unwrap();
    }
    assert!(segment::list(dir.path()).unwrap().len() > 1);
    drain(&mut spool);
    append(&mut spool, "small");
    drain(&mut spool);
    only_segment(dir.path());
    assert!(spool.bytes() < 1000);
}

#[test]
fn a_disk_that_says_no_is_an_error_and_loses_nothing_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    append(&mut spool, "a");
    // A link to nowhere stands for a full or read-only disk.
    let (path, away) = (only_segment(dir.path()), dir.path().join("away"));
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink("/nonexistent/file", &path).unwrap();
    for _ in 0..2 {
        assert!(spool.append(&[&report("b")], &stamp(), &now()).is_err());
    }
    fs::rename(&away, &path).unwrap();
    append(&mut spool, "c");
    drop(spool);
    let mut spool = open(dir.path());
    assert_eq!(
        drain(&mut spool),
        [(1, "a".to_owned()), (2, "c".to_owned())]
    );
}

#[test]
fn refused_reports_are_kept_for_a_person_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for seq in 1..=25 {
        let pending = Pending {
            seq,
            stamp: None,
            devices: report("bad"),
            withheld: Vec::new(),
        };
        assert!(spool.set_refused_aside(&pending).unwrap().exists());
    }
    let kept = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("refused-")
        })
        .count();
    assert_eq!(kept, REFUSED_KEPT);
}

/// Found by fuzzing: a record whole in itself, with a number that no spool
/// would have given it there, came before one with a smaller number.
#[test]
fn a_number_out_of_order_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let payload = encode(&report("a"), &stamp()).unwrap();
    let record = |seq| {
        let header = Header {
            seq,
            acked: 0,
            dropped: 0,
        };
        segment::encode_record(&header, &payload)
    };
    let bytes = [b"AVSPOOL1".to_vec(), record(1), record(u64::MAX), record(7)];
    fs::write(
        dir.path().join("00000000000000000001.spool"),
        bytes.concat(),
    )
    .unwrap();
    let mut spool = open(dir.path());
    assert_eq!(drain(&mut spool), [(1, "a".to_owned())]);
    append(&mut spool, "b");
    let taken = drain(&mut spool);
    assert_eq!(taken.len(), 1);
    assert!(taken[0].0 > 1 && taken[0].1 == "b", "{taken:?}");
}
