//! The collector and the PJLink driver with a projector that lives, but needs
//! longer than it is asked again.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test are outside what clippy takes for one"
)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use av_agent::clock::{Clock, SystemSource};
use av_agent::collector::Collector;
use av_agent::config::{ActiveConfig, BackendUrl, Identity};
use av_agent::driver::{Drivers, Prober, Reply};
use av_agent::snapshot::Snapshots;
use av_agent::supervisor::Health;
use av_proto::config::{Device, SiteConfig, SiteParts};
use av_proto::secret::Secret;
use av_proto::verdict::Status;
use av_proto_tests::pjlink_sim::{Class2, Config, Projector};
use crossbeam_channel::bounded;
use serde_json::json;

/// Longer than any machine is slow.
const PATIENT: Duration = Duration::from_secs(60);

/// The drivers, and how often each device was being probed at a time.
struct Watched {
    drivers: Arc<Drivers>,
    seen: Arc<Mutex<HashMap<IpAddr, Seen>>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    begun: u64,
    now: u32,
    most: u32,
}

impl Prober for Watched {
    fn begin(&self, device: &Device, reply: Reply) {
        {
            let mut seen = self.seen.lock().unwrap();
            let seen = seen.entry(device.ip).or_default();
            seen.begun += 1;
            seen.now += 1;
            seen.most = seen.most.max(seen.now);
        }
        let (drivers, seen) = (Arc::clone(&self.drivers), Arc::clone(&self.seen));
        let device = device.clone();
        thread::spawn(move || {
            let finding = Reply::wait(|reply| drivers.begin(&device, reply));
            seen.lock().unwrap().entry(device.ip).or_default().now -= 1;
            reply.send(finding);
        });
    }
}

fn projector(ip: &str, port: u16, answer_delay: Duration) -> Projector {
    let mut config = Config::new(SocketAddr::new(ip.parse().unwrap(), port));
    config.state.class2 = Some(Class2::default());
    config.state.lamp_hours = vec![1234];
    config.faults.answer_delay = answer_delay;
    Projector::start(config).unwrap()
}

#[test]
fn a_slow_projector_is_read_as_far_as_its_time_goes_and_never_probed_twice_at_once() {
    // Twenty answers would take 10 s; a probe may take 3 x 0.5 s and 5 s.
    let slow = projector("127.0.63.1", 0, Duration::from_millis(500));
    let port = slow.addr().port();
    let _quick = projector("127.0.63.2", port, Duration::ZERO);
    let slow_ip = slow.addr().ip();
    let devices: Vec<_> = ["127.0.63.1", "127.0.63.2"]
        .map(|ip| {
            let pjlink = json!({"port": port, "timeout_s": 0.5});
            let device = json!({"ip": ip, "name": ip, "driver": "pjlink",
                "driver_config": {"pjlink": pjlink}});
            serde_json::value::to_raw_value(&device).unwrap()
        })
        .into();
    let parts = SiteParts {
        site_name: "S",
        ..SiteParts::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<HashMap<IpAddr, Seen>>> = Arc::default();
    let snapshots = Snapshots::default();
    let (wishes, probe_now) = bounded(4);
    let (changes, config_changed) = bounded(1);
    let (batches, came) = bounded(2);
    let (running, stop) = bounded(0);
    let mut collector = Collector {
        handle: Arc::new(ArcSwap::from_pointee(ActiveConfig {
            identity: Identity {
                site_token: Secret::new("t"),
                previous_token: None,
                backend_url: BackendUrl::parse("http://backend").unwrap(),
            },
            site: SiteConfig::validate(&parts, &devices).unwrap(),
            hash: None,
            applied_at: None,
        })),
        snapshots: snapshots.clone(),
        clock: Clock::new(Arc::new(SystemSource), None),
        prober: Arc::new(Watched {
            drivers: Arc::new(Drivers::start(&Health::default())),
            seen: Arc::clone(&seen),
        }),
        memory_path: folder.path().join("devices.json"),
        config_changed,
        probe_now,
        batches,
        stop,
    };
    thread::scope(|scope| {
        let thread = scope.spawn(move || collector.run());
        let whole = came.recv_timeout(PATIENT).unwrap();
        assert_eq!(whole.devices.len(), 2, "the slow one is reported too");
        let last = snapshots.sweep.load().last;
        let last = last.or_else(|| {
            // The page is brought up to date a moment after the batch.
            let end = Instant::now() + PATIENT;
            while Instant::now() < end {
                if let Some(last) = snapshots.sweep.load().last {
                    return Some(last);
                }
                thread::sleep(Duration::from_millis(20));
            }
            None
        });
        let last = last.unwrap();
        assert_eq!((last.missing, last.is_in_time()), (0, false), "{last:?}");
        assert_eq!(last.deadline, Duration::from_millis(600));

        let state = snapshots.sweep.load();
        let found = state.observations.iter().find(|o| o.device.ip == slow_ip);
        let finding = &found.unwrap().finding;
        assert_eq!(finding.status, Status::Online, "{finding:?}");
        assert_eq!(finding.metrics()["pjlink_ok"], true);
        assert_eq!(finding.metrics()["pjlink_power_label"], "on");
        assert_eq!(finding.metrics()["pjlink_lamp_hours"], 1234);
        assert!(!finding.metrics().contains_key("pjlink_filter_models"));

        // Everything that can ask for a probe asks all the time.
        let begun = || seen.lock().unwrap()[&slow_ip].begun;
        let end = Instant::now() + PATIENT;
        while begun() < 4 {
            assert!(Instant::now() < end, "{:?}", seen.lock());
            let _ = wishes.try_send(slow_ip);
            let _ = changes.try_send(());
            while came.try_recv().is_ok() {}
            thread::sleep(Duration::from_millis(20));
        }
        drop(running);
        thread.join().unwrap();
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen[&slow_ip].most, 1, "{seen:?}");
    // Each probe took one connection: it was not the projector that refused.
    let counters = slow.counters();
    assert!(counters.connections <= seen[&slow_ip].begun, "{counters:?}");
    assert_eq!(counters.turned_away, 0);
}
