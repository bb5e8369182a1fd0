use std::fs;
use std::time::Duration;

use av_proto::config::SiteParts;
use jiff::SignedDuration;

use super::*;
use crate::clock::Trust;

const DAY: i64 = 86_400;
const BASE: i64 = 1_800_000_000;

fn site(devices: &str) -> SiteConfig {
    let parts = SiteParts {
        site_name: "S",
        doubt_after_days: Some(2),
        ..SiteParts::default()
    };
    SiteConfig::validate(&parts, &serde_json::from_str::<Vec<_>>(devices).unwrap()).unwrap()
}

fn always_on() -> SiteConfig {
    site(
        r#"[{"ip":"10.0.0.1","name":"P","driver":"ping",
             "expectations":{"always_on":true,"alert_after_s":300}}]"#,
    )
}

/// A run of the agent that began `wall` seconds after 2027, by a clock that is
/// trusted like this.
struct Run {
    memory: MemoryStore,
    zero: Instant,
    line: Line,
    site: SiteConfig,
}

impl Run {
    fn start(path: &Path, wall: i64, trust: Trust) -> Self {
        let zero = Instant::now();
        Self {
            memory: MemoryStore::load(path, zero),
            zero,
            line: Line::of(zero, Timestamp::from_second(BASE + wall).unwrap(), trust),
            site: always_on(),
        }
    }

    fn believe(&mut self, wall: i64, trust: Trust) {
        let wall = Timestamp::from_second(BASE + wall).unwrap();
        self.line = Line::of(self.zero, wall, trust);
    }

    fn observe(&mut self, status: Status, second: u64) -> Observation {
        let device = Arc::clone(&self.site.devices[0]);
        let at = self.zero + Duration::from_secs(second);
        let finding = Finding::new(status);
        self.memory
            .observe(&device, finding, at, &self.line, &self.site)
    }

    fn verdict(&mut self, status: Status, second: u64) -> Verdict {
        self.observe(status, second).verdict
    }

    fn save(&mut self, second: u64) {
        let now = self.zero + Duration::from_secs(second);
        self.memory.save(now, &self.line).unwrap();
    }
}

#[test]
fn verdicts_follow_the_run_of_observations() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::start(&dir.path().join("devices.json"), 0, Trust::Known);
    let days = u64::try_from(2 * DAY).unwrap();
    for (second, status, verdict, changed) in [
        (0, Status::Online, Verdict::Ok, true),
        (60, Status::Offline, Verdict::Unknown, true),
        (120, Status::Unknown, Verdict::Unknown, false),
        (359, Status::Offline, Verdict::Unknown, false),
        (360, Status::Offline, Verdict::Fault, true),
        (420, Status::Online, Verdict::Ok, true),
        (480, Status::Offline, Verdict::Unknown, true),
        (420 + days, Status::Offline, Verdict::Doubt, true),
        (421 + days, Status::Online, Verdict::Ok, true),
    ] {
        let observation = run.observe(status, second);
        assert_eq!(observation.verdict, verdict, "at {second}");
        assert_eq!(observation.verdict_changed, changed, "at {second}");
    }
}

#[test]
fn what_is_undecided_says_when_it_will_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::start(&dir.path().join("devices.json"), 0, Trust::Known);
    for (second, status, decides_in) in [
        (0, Status::Online, None),
        (10, Status::Offline, Some(300)),
        (60, Status::Offline, Some(250)),
        (70, Status::Unknown, None),
        (310, Status::Offline, None),
    ] {
        let observation = run.observe(status, second);
        let expected = decides_in.map(Duration::from_secs);
        assert_eq!(observation.decides_in, expected, "at {second}");
    }
}

#[test]
fn a_jump_of_the_clock_makes_no_doubt_and_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    // 1970, decades ahead, years back: none of it changes an age.
    for wall in [-BASE, 60 * 365 * DAY, -5 * 365 * DAY, 3 * DAY] {
        let mut run = Run::start(&dir.path().join("devices.json"), 0, Trust::Known);
        assert_eq!(run.verdict(Status::Online, 0), Verdict::Ok);
        assert_eq!(run.verdict(Status::Offline, 60), Verdict::Unknown);
        for trust in [Trust::Known, Trust::Unset, Trust::Backend] {
            run.believe(wall, trust);
            assert_eq!(run.verdict(Status::Offline, 100), Verdict::Unknown);
            assert_eq!(run.verdict(Status::Offline, 359), Verdict::Unknown);
        }
        // And a fault comes in its time all the same.
        assert_eq!(run.verdict(Status::Offline, 360), Verdict::Fault);
        let doubt = run.observe(Status::Offline, 2 * 86_400);
        assert_eq!(doubt.verdict, Verdict::Doubt, "two days by any clock");
    }
}

#[test]
fn ages_across_a_restart_wait_for_a_clock_that_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/devices.json");
    let mut first = Run::start(&path, 0, Trust::Known);
    first.observe(Status::Online, 0);
    first.observe(Status::Offline, 60);
    first.save(61);

    // The same hour: what was remembered stands.
    let mut known = Run::start(&path, 300, Trust::Known);
    let device = &known.site.devices[0];
    assert!(known.memory.is_offline(device));
    let observation = known.observe(Status::Offline, 60);
    assert_eq!(observation.verdict, Verdict::Fault);
    let times = [observation.last_ok, observation.offline_since].map(|moment| {
        let at = moment.unwrap().wall(&known.line);
        at.as_second() - BASE
    });
    assert_eq!(times, [0, 60]);

    // The machine comes up decades ahead, or in 1970, and nobody believes it.
    for wall in [60 * 365 * DAY, -BASE] {
        let mut run = Run::start(&path, wall, Trust::Unset);
        assert_eq!(run.verdict(Status::Offline, 0), Verdict::Unknown);
        assert_eq!(run.verdict(Status::Offline, 299), Verdict::Unknown);
        // By its own seconds alone it is offline for long enough now.
        assert_eq!(run.verdict(Status::Offline, 300), Verdict::Fault);
        // The clock is set: three days have passed.
        run.believe(3 * DAY, Trust::Known);
        assert_eq!(run.verdict(Status::Offline, 301), Verdict::Doubt);
    }
    // Set back before what is remembered: that counts as now.
    let mut run = Run::start(&path, -100 * DAY, Trust::Known);
    assert_eq!(run.verdict(Status::Offline, 10), Verdict::Unknown);
}

#[test]
fn what_was_seen_without_a_clock_counts_from_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("devices.json");
    let mut run = Run::start(&path, -BASE, Trust::Unset);
    run.observe(Status::Online, 10);
    run.observe(Status::Offline, 20);
    run.save(30);
    assert_eq!(last_good_time(&path), None);

    let mut run = Run::start(&path, 0, Trust::Known);
    assert_eq!(run.verdict(Status::Offline, 0), Verdict::Unknown);
    assert_eq!(run.verdict(Status::Offline, 300), Verdict::Fault);
    run.save(300);
    let good = last_good_time(&path).unwrap();
    assert_eq!(good.as_second() - BASE, 300);

    // A run that does not know the time keeps the last good one.
    let mut run = Run::start(&path, -BASE, Trust::Unset);
    run.observe(Status::Online, 10);
    run.save(10);
    assert_eq!(last_good_time(&path), Some(good));
}

#[test]
fn the_file_of_an_older_agent_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("devices.json");
    let at = Timestamp::from_second(BASE).unwrap();
    let since = at - SignedDuration::from_hours(1);
    fs::write(
        &path,
        format!(
            r#"{{"10.0.0.1":{{"last_ok":"{since}","offline_since":"{since}","verdict":"fault"}}}}"#
        ),
    )
    .unwrap();
    let mut run = Run::start(&path, 0, Trust::Known);
    let observation = run.observe(Status::Offline, 0);
    assert_eq!(
        (observation.verdict, observation.verdict_changed),
        (Verdict::Fault, false)
    );
    assert_eq!(observation.offline_since, Some(Moment::Before(since)));
}

#[test]
fn the_file_is_replaced_once_an_hour_and_a_change_survives_without_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("devices.json");
    let mut run = Run::start(&path, 0, Trust::Known);
    run.observe(Status::Online, 0);
    run.save(0);
    let first = fs::read(&path).unwrap();
    let files = || fs::read_dir(dir.path()).unwrap().count();
    run.observe(Status::Online, 300);
    run.save(300);
    assert_eq!((fs::read(&path).unwrap(), files()), (first.clone(), 1));
    run.observe(Status::Offline, 600);
    run.save(600);
    assert_eq!((fs::read(&path).unwrap(), files()), (first.clone(), 2));

    let mut next = Run::start(&path, 900, Trust::Known);
    assert_eq!(next.verdict(Status::Offline, 0), Verdict::Fault);

    run.observe(Status::Online, 3600);
    run.save(3600);
    assert_ne!(fs::read(&path).unwrap(), first);
}

#[test]
fn a_device_that_left_the_configuration_is_forgotten_and_garbage_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("devices.json");
    fs::write(&path, "garbage").unwrap();
    let mut run = Run::start(&path, 0, Trust::Known);
    run.observe(Status::Offline, 0);
    run.memory.retain(&[]);
    assert!(!run.memory.is_offline(&run.site.devices[0]));
}
