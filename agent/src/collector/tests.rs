use std::collections::HashSet;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use av_proto::config::{SiteConfig, SiteParts};
use av_proto::secret::Secret;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::clock::Source;
use crate::clock::tests::Hands;
use crate::config::{BackendUrl, Identity};

/// Answers at once: the dead are offline.
#[derive(Default)]
struct Instantly {
    dead: Mutex<HashSet<IpAddr>>,
}

impl Prober for Instantly {
    fn begin(&self, device: &Device, reply: Reply) {
        let status = match self.dead.lock().unwrap().contains(&device.ip) {
            true => Status::Offline,
            false => Status::Online,
        };
        reply.send(Finding::new(status).with("ping_ok", status == Status::Online));
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn active(count: u8) -> ActiveConfig {
    let devices: Vec<_> = (1..=count)
        .map(|last| {
            let device = json!({
                "ip": ip(last), "name": format!("P{last}"), "driver": "ping",
                "expectations": {"always_on": true, "alert_after_s": 60},
            });
            serde_json::value::to_raw_value(&device).unwrap()
        })
        .collect();
    let parts = SiteParts {
        site_name: "S",
        ..SiteParts::default()
    };
    ActiveConfig {
        identity: Identity {
            site_token: Secret::new("t"),
            previous_token: None,
            backend_url: BackendUrl::parse("http://backend").unwrap(),
        },
        site: SiteConfig::validate(&parts, &devices).unwrap(),
        hash: None,
        applied_at: None,
    }
}

/// A collector whose time a test lets pass, second by second.
struct Rack {
    hands: Arc<Hands>,
    prober: Arc<Instantly>,
    collector: Collector,
    dir: tempfile::TempDir,
}

/// What came out: the second, and each device's last octet, verdict and time.
type Came = (u64, Vec<(u8, Verdict, Timestamp)>);

impl Rack {
    fn new(wall: &str, count: u8) -> Self {
        let hands = Hands::new(wall);
        let prober = Arc::new(Instantly::default());
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector {
            handle: Arc::new(ArcSwap::from_pointee(active(count))),
            snapshots: Snapshots::default(),
            clock: Clock::new(Arc::clone(&hands) as Arc<dyn Source>, None),
            prober: Arc::clone(&prober) as Arc<dyn Prober>,
            memory_path: dir.path().join("devices.json"),
            config_changed: never(),
            probe_now: never(),
            batches: bounded(1).0,
            stop: never(),
        };
        Self {
            hands,
            prober,
            collector,
            dir,
        }
    }

    /// Runs for so many seconds; `each` may change the world at each.
    fn run(&self, seconds: u64, mut each: impl FnMut(u64, &mut Work<'_>)) -> Vec<Came> {
        let (to, answers) = unbounded();
        let mut work = Work::new(&self.collector, to);
        let mut came = Vec::new();
        for second in 0..seconds {
            each(second, &mut work);
            // The steps of the pace come before the next second.
            for _ in 0..3 {
                work.step();
                for mut done in answers.try_iter() {
                    done.at = self.hands.monotonic();
                    work.take(done);
                }
                if let Some(batch) = work.outbox.take() {
                    let devices = batch.devices.iter().map(|device| {
                        let last = device.ip.rsplit('.').next().unwrap().parse().unwrap();
                        (last, device.verdict, device.observed_at.unwrap())
                    });
                    came.push((second, devices.collect()));
                }
            }
            self.hands.pass(1);
        }
        came
    }

    fn die(&self, last: u8) {
        self.prober.dead.lock().unwrap().insert(ip(last));
    }
}

const START: &str = "2026-11-24T10:00:00Z";

fn seconds(came: &[Came]) -> Vec<(u64, usize)> {
    came.iter()
        .map(|(second, devices)| (*second, devices.len()))
        .collect()
}

#[test]
fn one_batch_a_sweep_and_a_small_one_for_what_changed_between() {
    let rack = Rack::new(START, 20);
    let came = rack.run(700, |second, _| {
        if second == 310 {
            rack.die(7);
        }
    });
    // A second after its begin each sweep is whole. The device fails in the
    // third, is looked at again, and its fault is told alone, a minute later;
    // then a sweep comes every minute.
    assert_eq!(
        seconds(&came),
        [(1, 20), (301, 20), (601, 20), (661, 1)],
        "{came:?}"
    );
    assert_eq!(came[2].1[6].1, Verdict::Unknown);
    assert_eq!((came[3].1[0].0, came[3].1[0].1), (7, Verdict::Fault));
    let state = rack.collector.snapshots.sweep.load();
    assert_eq!(state.observations.len(), 20);
    assert!(state.rechecks >= 4, "{}", state.rechecks);
    assert_eq!((state.sweeps, state.late), (3, 0));
}

#[test]
fn a_fault_found_between_sweeps_is_known_in_its_time() {
    let rack = Rack::new(START, 3);
    let came = rack.run(500, |second, work| {
        if second == 100 {
            rack.die(2);
            work.wish(ip(2));
        }
    });
    let verdicts: Vec<(u64, Verdict)> = came
        .iter()
        .filter(|(_, devices)| devices.len() == 1)
        .map(|(second, devices)| (*second, devices[0].1))
        .collect();
    assert_eq!(verdicts, [(100, Verdict::Unknown), (160, Verdict::Fault)]);
    // ko_interval_s after that, and not ok_interval_s after the last.
    let sweeps: Vec<u64> = came
        .iter()
        .filter(|c| c.1.len() == 3)
        .map(|c| c.0)
        .collect();
    assert_eq!(sweeps[..3], [1, 221, 281], "{sweeps:?}");
}

#[test]
fn jumps_of_the_clock_make_nothing_false_and_times_are_put_right() {
    let rack = Rack::new("1970-01-01T00:00:10Z", 5);
    rack.die(1);
    let came = rack.run(400, |second, work| match second {
        100 => rack.hands.set("2026-11-24T10:01:40Z"),
        200 => rack.hands.set("2061-01-01T00:00:00Z"),
        250 => rack.hands.set("1999-01-01T00:00:00Z"),
        // Something comes back: it is told by the time that was believed.
        350 => work.wish(ip(2)),
        _ => {}
    });
    for (second, devices) in &came {
        for (last, verdict, at) in devices {
            let expected = match (*last, *second) {
                (1, 0..60) => Verdict::Unknown,
                (1, _) => Verdict::Fault,
                _ => Verdict::Ok,
            };
            assert_eq!(*verdict, expected, "device {last} at {second}");
            if *second >= 100 {
                let start: Timestamp = START.parse().unwrap();
                let age = at.duration_since(start).as_secs();
                let second = i64::try_from(*second).unwrap();
                assert!((second - 65..=second).contains(&age), "{at} at {second}");
            }
        }
    }
    assert!(came.len() > 5, "{came:?}");
    assert_eq!(rack.collector.clock.state().jumps, 3);
    // What the first run saw before it knew the time is on disk by true times.
    let kept = std::fs::read_to_string(rack.dir.path().join("devices.json")).unwrap();
    assert!(!kept.contains("1970") && !kept.contains("2061"), "{kept}");
}

#[test]
fn a_report_thread_that_takes_nothing_costs_no_memory_and_loses_nothing() {
    let rack = Rack::new(START, 4);
    let (to, answers) = unbounded();
    let mut work = Work::new(&rack.collector, to);
    for second in 0..1000 {
        if second == 400 {
            rack.die(3);
        }
        for _ in 0..3 {
            work.step();
            for mut done in answers.try_iter() {
                done.at = rack.hands.monotonic();
                work.take(done);
            }
        }
        rack.hands.pass(1);
    }
    let first = work.outbox.take().unwrap();
    assert!(
        first
            .devices
            .iter()
            .all(|device| device.verdict == Verdict::Ok)
    );
    work.step();
    let second = work.outbox.take().unwrap();
    let verdicts: Vec<Verdict> = second.devices.iter().map(|device| device.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Ok, Verdict::Ok, Verdict::Fault, Verdict::Ok]
    );
    work.step();
    assert!(work.outbox.is_none());
}

#[test]
fn the_thread_sweeps_hears_wishes_and_ends_at_the_stop_signal() {
    let mut rack = Rack::new(START, 3);
    rack.collector.clock = Clock::new(Arc::new(crate::clock::SystemSource), None);
    let (wishes, probe_now) = bounded(4);
    let (batches, came) = bounded(2);
    let (running, stop) = bounded(0);
    rack.collector.probe_now = probe_now;
    rack.collector.batches = batches;
    rack.collector.stop = stop;
    let limit = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| rack.collector.run());
        assert_eq!(came.recv_timeout(limit).unwrap().devices.len(), 3);
        wishes.send(ip(2)).unwrap();
        wishes.send(ip(99)).unwrap();
        let batch = came.recv_timeout(limit).unwrap();
        assert_eq!(batch.devices.len(), 1);
        assert_eq!(batch.devices[0].ip, "10.0.0.2");
        drop(running);
        thread.join().unwrap();
    });
}
