use std::fs;
use std::path::Path;

use av_proto::verdict::{Status, Verdict};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::*;

const LIMITS: Limits = Limits {
    max_bytes: 64 << 20,
    max_age: Duration::from_secs(30 * 86_400),
};

fn device(name: &str) -> ReportedDevice {
    ReportedDevice {
        ip: "10.0.0.1".to_owned(),
        name: name.to_owned(),
        building: None,
        floor: None,
        room: None,
        device_type: "projector".to_owned(),
        driver: "ping".to_owned(),
        status: Status::Online,
        detail: None,
        metrics: RawValue::from_string("{}".to_owned()).unwrap(),
        verdict: Verdict::Ok,
        observed_at: Some(Timestamp::UNIX_EPOCH),
        expectations: None,
        clock_unsynced: false,
    }
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

fn keep(queue: &mut Queue, name: &str) {
    queue.keep(&stamp(), vec![device(name)], &now());
}

fn name(turn: &Turn) -> String {
    turn.pending.devices[0].name.clone()
}

/// Takes everything, as a backend would: what it was, and whether from disk.
fn drain(queue: &mut Queue) -> Vec<(String, bool)> {
    let mut taken = Vec::new();
    while let Some(turn) = queue.take() {
        queue.done(&turn);
        taken.push((name(&turn), turn.is_on_disk));
    }
    taken
}

fn segment(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap().flatten();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "spool");
    files
        .find_map(|file| Some(file.path()).filter(is_segment))
        .unwrap()
}

/// A disk that takes nothing: a folder stands where the segment is.
fn block(dir: &Path) -> PathBuf {
    let segment = segment(dir);
    fs::rename(&segment, dir.join("away")).unwrap();
    fs::create_dir(&segment).unwrap();
    segment
}

fn release(dir: &Path, segment: &Path) {
    fs::remove_dir(segment).unwrap();
    fs::rename(dir.join("away"), segment).unwrap();
}

fn of(names: &[(&str, bool)]) -> Vec<(String, bool)> {
    let owned = names.iter().map(|(name, disk)| ((*name).to_owned(), *disk));
    owned.collect()
}

#[test]
fn what_the_disk_does_not_take_is_sent_after_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = Queue::new(dir.path().to_owned(), LIMITS);
    queue.tend(&now());
    keep(&mut queue, "a");
    // Read already: it is sent whatever the disk does then.
    let a = queue.take().unwrap();
    let blocked = block(dir.path());
    keep(&mut queue, "b");
    keep(&mut queue, "c");
    queue.give_back(a, true);
    let mut state = ReportState::default();
    queue.show(&mut state);
    assert_eq!((state.pending, state.in_memory), (1, 2));
    let said = state.disk_error.clone().unwrap();
    assert!(said.contains(".spool"), "{said}");
    assert_eq!(name(&queue.take().unwrap()), "a");

    let b = queue.take().unwrap();
    let stream = b.id.clone().unwrap().stream;
    assert_ne!(stream, queue.spool.as_ref().unwrap().stream());
    // The backend may have it: it stays what it is, and before what came later.
    queue.give_back(b, true);
    release(dir.path(), &blocked);
    keep(&mut queue, "d");
    queue.show(&mut state);
    assert_eq!(state.disk_error, None);
    assert_eq!(state.in_memory, 1);
    let b = queue.take().unwrap();
    assert_eq!(b.id, Some(ReportId { stream, seq: 1 }));
    queue.done(&b);
    assert_eq!(drain(&mut queue), of(&[("c", true), ("d", true)]));
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn what_never_left_goes_to_disk_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = Queue::new(dir.path().to_owned(), LIMITS);
    keep(&mut queue, "a");
    assert_eq!(drain(&mut queue), of(&[("a", true)]));
    let blocked = block(dir.path());
    keep(&mut queue, "b");
    let b = queue.take().unwrap();
    queue.give_back(b, false);
    release(dir.path(), &blocked);
    queue.close(&now());
    let mut queue = Queue::new(dir.path().to_owned(), LIMITS);
    queue.tend(&now());
    assert_eq!(drain(&mut queue), of(&[("b", true)]));
}

#[test]
fn without_any_spool_it_sends_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    // A file stands where the folder belongs.
    let folder = dir.path().join("spool");
    fs::write(&folder, "").unwrap();
    let mut queue = Queue::new(folder.clone(), LIMITS);
    queue.tend(&now());
    for number in 0..60 {
        let devices = vec![device(&number.to_string()); 1200];
        queue.keep(&stamp(), devices, &now());
    }
    let mut state = ReportState::default();
    queue.show(&mut state);
    assert_eq!(state.in_memory + state.dropped, 180);
    let kept: usize = queue.memory.iter().map(|(_, devices)| devices.len()).sum();
    assert!(kept <= DEVICES_IN_MEMORY && kept > DEVICES_IN_MEMORY - 1200);
    let turn = queue.take().unwrap();
    assert_eq!(turn.pending.seq, 1);
    queue.done(&turn);
    let dropped = queue.dropped();
    fs::remove_file(&folder).unwrap();
    keep(&mut queue, "last");
    assert_eq!(queue.dropped(), dropped, "the spool counts them now");
    drop(queue);
    let mut queue = Queue::new(folder, LIMITS);
    queue.tend(&now());
    assert_eq!(queue.dropped(), dropped);
    assert_eq!(drain(&mut queue).last().unwrap().0, "last");
}

#[test]
fn a_spool_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("spool");
    let mut queue = Queue::new(folder.clone(), LIMITS);
    keep(&mut queue, "a");
    assert_eq!(drain(&mut queue), of(&[("a", true)]));
    fs::remove_dir_all(&folder).unwrap();
    keep(&mut queue, "b");
    keep(&mut queue, "c");
    assert_eq!(drain(&mut queue), of(&[("b", true), ("c", true)]));
}
