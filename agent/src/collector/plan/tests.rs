use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use av_proto::config::{SiteConfig, SiteParts};

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn devices(documents: impl IntoIterator<Item = serde_json::Value>) -> Vec<Arc<Device>> {
    let documents: Vec<_> = documents
        .into_iter()
        .map(|mut document| {
            document["name"] = document["ip"].clone();
            serde_json::value::to_raw_value(&document).unwrap()
        })
        .collect();
    let parts = SiteParts {
        site_name: "S",
        ..SiteParts::default()
    };
    let site = SiteConfig::validate(&parts, &documents).unwrap();
    assert!(site.rejected.is_empty(), "{:?}", site.rejected);
    site.devices
}

/// `count` SNMP devices: 2 s of time-out, one retry, a budget of 4 s.
fn snmp(count: usize) -> Vec<Arc<Device>> {
    devices((0..count).map(|i| {
        let ip = format!("10.0.{}.{}", i / 250, i % 250 + 1);
        serde_json::json!({"ip": ip, "driver": "snmp"})
    }))
}

fn pings(intervals: &[Option<u32>]) -> Vec<Arc<Device>> {
    devices(intervals.iter().enumerate().map(|(i, interval)| {
        serde_json::json!({
            "ip": format!("10.0.0.{}", i + 1), "driver": "ping",
            "driver_config": {"interval_s": interval},
        })
    }))
}

/// A site in virtual time: the dead cost their whole budget, the slow all that
/// a probe may cost, the others answer after some milliseconds, and any number
/// is on the way at once, as with engines.
struct Site {
    plan: Plan,
    began: Instant,
    now: Instant,
    devices: Vec<Arc<Device>>,
    dead: HashSet<usize>,
    never: HashSet<usize>,
    slow: HashSet<usize>,
    /// What is on its way: when it answers.
    on_the_way: BinaryHeap<Reverse<(Instant, usize)>>,
    busy: HashSet<usize>,
    flights: BTreeMap<usize, usize>,
    offline_since: BTreeMap<usize, Instant>,
    /// Every start: when, since the beginning, and which device.
    starts: Vec<(Duration, usize)>,
    sweeps: Vec<(Duration, Over)>,
    interval: Duration,
    alert_after: Duration,
}

impl Site {
    fn new(devices: Vec<Arc<Device>>) -> Self {
        let now = Instant::now();
        let mut plan = Plan::new(now);
        plan.configure(&devices, now);
        Self {
            plan,
            began: now,
            now,
            devices,
            dead: HashSet::new(),
            never: HashSet::new(),
            slow: HashSet::new(),
            on_the_way: BinaryHeap::new(),
            busy: HashSet::new(),
            flights: BTreeMap::new(),
            offline_since: BTreeMap::new(),
            starts: Vec::new(),
            sweeps: Vec::new(),
            interval: 300 * S,
            alert_after: 300 * S,
        }
    }

    fn step(&mut self) {
        let now = self.now;
        if self.plan.sweep_is_due(now) {
            let offline = &self.offline_since;
            self.plan
                .begin_sweep(now, |index| offline.contains_key(&index));
        }
        for start in self.plan.starts(now) {
            assert!(
                self.busy.insert(start.index),
                "device {} is probed twice at the same time",
                start.index
            );
            self.flights.insert(start.ticket, start.index);
            self.starts.push((now - self.began, start.index));
            if self.never.contains(&start.index) {
                continue;
            }
            let settings = &self.devices[start.index].settings;
            let takes = if self.dead.contains(&start.index) {
                settings.budget()
            } else if self.slow.contains(&start.index) {
                settings.limit()
            } else {
                MS * (5 + u32::try_from(start.index % 40).unwrap())
            };
            self.on_the_way.push(Reverse((now + takes, start.ticket)));
        }
        if let Some(over) = self.plan.end_sweep(now, self.interval) {
            self.sweeps.push((now - self.began, over));
        }
    }

    fn answer(&mut self, ticket: usize) {
        let index = self.flights.remove(&ticket).unwrap();
        self.busy.remove(&index);
        let Answer::Counts { index, .. } = self.plan.answered(ticket, self.now) else {
            return;
        };
        let now = self.now;
        if !self.dead.contains(&index) {
            self.offline_since.remove(&index);
            return self.plan.judged(index, now, None);
        }
        let since = *self.offline_since.entry(index).or_insert(now);
        let left = self.alert_after.checked_sub(now - since);
        self.plan
            .judged(index, now, left.filter(|left| !left.is_zero()));
    }

    /// Lets time pass until `until` after the beginning.
    fn run(&mut self, until: Duration) {
        let end = self.began + until;
        self.step();
        loop {
            let answer = self.on_the_way.peek().map(|Reverse((at, _))| *at);
            let next = [answer, self.plan.wake(self.now)]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while let Some(Reverse((at, ticket))) = self.on_the_way.peek().copied() {
                if at > self.now {
                    break;
                }
                self.on_the_way.pop();
                self.answer(ticket);
            }
            self.step();
        }
    }

    /// When the device was probed, in whole seconds.
    fn probed(&self, index: usize) -> Vec<u64> {
        self.starts
            .iter()
            .filter(|(_, started)| *started == index)
            .map(|(at, _)| at.as_secs())
            .collect()
    }
}

#[test]
fn a_thousand_devices_with_a_fifth_dead_end_within_a_budget_and_a_fifth() {
    for dead in [0, 200, 1000] {
        let mut site = Site::new(snmp(1000));
        site.dead = (0..1000).filter(|i| i % 1000 < dead).collect();
        // The first sweep knows nothing of who is dead, the second does.
        site.run(600 * S + 50 * S);
        assert_eq!(site.sweeps.len(), 3, "{dead} dead: one every 300 s");
        let budget = 4 * S;
        for (at, over) in &site.sweeps {
            assert_eq!(
                (&over.missing[..], over.deadline),
                (&[][..], budget * 6 / 5)
            );
            assert!(
                over.took <= over.deadline,
                "{dead} dead, at {at:?}: {over:?}"
            );
        }
    }
}

#[test]
fn a_sweep_is_a_stream_and_no_burst_and_neighbours_do_not_follow_each_other() {
    let mut site = Site::new(snmp(1000));
    site.run(S);
    assert_eq!(site.starts.len(), 1000);
    let mut at_once: BTreeMap<Duration, usize> = BTreeMap::new();
    for (at, _) in &site.starts {
        *at_once.entry(*at).or_default() += 1;
    }
    // 400 ms in steps of 10 ms.
    assert_eq!(at_once.len(), 40);
    assert!(at_once.values().all(|count| *count <= 26), "{at_once:?}");
    let neighbours = site
        .starts
        .windows(2)
        .filter(|pair| pair[0].1.abs_diff(pair[1].1) == 1)
        .count();
    assert!(neighbours < 20, "{neighbours} neighbours follow each other");
}

#[test]
fn what_was_offline_comes_first() {
    let mut site = Site::new(snmp(10));
    site.dead = HashSet::from([0, 3, 6]);
    site.alert_after = S;
    site.run(310 * S);
    let second = site.starts.iter().filter(|(at, _)| *at >= 300 * S);
    let second: Vec<usize> = second.take(3).map(|(_, index)| *index).collect();
    assert_eq!(second.into_iter().collect::<HashSet<_>>(), site.dead);
}

#[test]
fn a_device_has_its_own_interval_where_it_has_one() {
    let mut site = Site::new(pings(&[None, Some(30), Some(1000)]));
    site.run(910 * S);
    assert_eq!(site.probed(0), [0, 300, 600, 900]);
    let own: Vec<u64> = (0..31).map(|i| i * 30).collect();
    assert_eq!(site.probed(1), own);
    assert_eq!(site.probed(2), [0]);
    site.run(1010 * S);
    assert_eq!(site.probed(2), [0, 1000]);
}

#[test]
fn a_device_that_failed_is_looked_at_again_until_it_is_decided() {
    // Budget 1.5 s; it fails between the first sweep and the second.
    let mut site = Site::new(pings(&[None, None]));
    site.interval = 1000 * S;
    site.run(999 * S);
    site.dead.insert(0);
    site.run(1900 * S);
    // Known offline at 1001.5; looked at again after 5, 10, 20, ... s, each
    // from the answer on, and when alert_after_s is over; then no more.
    assert_eq!(
        site.probed(0),
        [0, 1000, 1006, 1018, 1039, 1081, 1162, 1301]
    );
    assert_eq!(site.probed(1), [0, 1000], "nobody else is troubled");
    assert_eq!(site.plan.rechecks(), 6);

    // One that comes back is left alone.
    site.dead.insert(1);
    site.run(2010 * S);
    site.dead.remove(&1);
    site.run(2900 * S);
    assert_eq!(site.probed(1)[2..], [2000, 2006, 2018]);
}

#[test]
fn a_short_alert_after_is_decided_in_time() {
    let mut site = Site::new(pings(&[None]));
    site.alert_after = 15 * S;
    site.dead.insert(0);
    site.run(100 * S);
    // Offline at 1.5 s, decided by the probe that begins at 16.5 s.
    assert_eq!(site.probed(0), [0, 6, 16]);
}

#[test]
fn a_notice_is_served_soon_and_not_too_often() {
    let mut site = Site::new(pings(&[None, None]));
    site.run(10 * S);
    assert!(!site.plan.notice(IpAddr::from([10, 9, 9, 9]), site.now));
    for tenth in 0..50 {
        assert!(site.plan.notice(site.devices[0].ip, site.now));
        site.run(10 * S + 100 * MS * tenth);
    }
    site.run(30 * S);
    assert_eq!(site.probed(0), [0, 10, 12, 14, 16]);
    assert_eq!(site.probed(1), [0]);
    // One that comes while the device is being probed is served after that.
    site.dead.insert(0);
    site.plan.notice(site.devices[0].ip, site.now);
    site.run(30 * S + 500 * MS);
    site.plan.notice(site.devices[0].ip, site.now);
    site.run(34 * S);
    assert_eq!(site.probed(0)[5..], [30, 32]);
}

#[test]
fn a_sweep_ends_without_what_does_not_answer_and_never_probes_it_twice() {
    let mut site = Site::new(pings(&[None, None, None]));
    site.never.insert(1);
    site.interval = 60 * S;
    site.run(400 * S);
    let (at, over) = &site.sweeps[0];
    assert_eq!((&over.missing[..], over.deadline), (&[1][..], 1800 * MS));
    assert_eq!(*at, 1800 * MS + CLOSE_SLACK);
    assert_eq!(site.probed(1), [0], "it is still on its way");
    assert_eq!(site.probed(2).len(), 7);
    // Given up after its time, it is probed again, and an answer to the old
    // probe is nobody's.
    assert_eq!(site.plan.stuck(site.now), [1]);
    let (&old, _) = site.flights.iter().next().unwrap();
    assert_eq!(site.plan.answered(old, site.now), Answer::Nobodys);
    site.busy.clear();
    site.never.clear();
    site.run(500 * S);
    assert!(site.probed(1).len() > 1);
}

#[test]
fn a_sweep_says_who_answered_after_its_deadline() {
    let mut site = Site::new(devices((1..=4).map(|last| {
        let driver = if last == 2 { "pjlink" } else { "ping" };
        serde_json::json!({"ip": format!("10.0.0.{last}"), "driver": driver})
    })));
    // It lives and is slow: a probe takes all that the driver grants it.
    site.slow.insert(1);
    site.interval = 60 * S;
    site.run(70 * S);
    let (_, over) = &site.sweeps[0];
    assert_eq!(over.deadline, 2400 * MS, "what the dead cost, and a fifth");
    let late: Vec<usize> = over.late.iter().map(|(index, _)| *index).collect();
    assert_eq!((late, over.missing.len()), (vec![1], 0));
    assert!(over.late[0].1 >= 10 * S && over.took >= 10 * S, "{over:?}");
}

#[test]
fn a_changed_configuration_is_swept_at_once_and_old_answers_do_not_count() {
    let mut site = Site::new(pings(&[None, None]));
    site.dead.insert(0);
    site.run(500 * MS);
    // Device 0 is on its way, as it was configured before.
    let changed = pings(&[Some(60), None, None]);
    site.plan.configure(&changed, site.now);
    site.devices = changed;
    site.dead.clear();
    site.run(20 * S);
    // The answer of the old probe is dropped, and the new one begins then.
    assert_eq!(site.probed(0), [0, 1]);
    assert_eq!(site.probed(1), [0, 0]);
    assert_eq!(site.probed(2), [0]);
    let (_, over) = site.sweeps.last().unwrap();
    assert!(over.missing.is_empty(), "{over:?}");

    // One that left and came back in between is not probed twice either.
    site.run(320 * S);
    site.dead.insert(1);
    site.plan.notice(site.devices[1].ip, site.now);
    site.run(320 * S + 100 * MS);
    let (with, without) = (site.devices.clone(), vec![site.devices[0].clone()]);
    site.plan.configure(&without, site.now);
    site.step();
    site.plan.configure(&with, site.now);
    site.run(400 * S);
}

#[test]
fn a_fault_found_between_sweeps_brings_the_next_one_forward() {
    let mut site = Site::new(pings(&[None]));
    site.run(100 * S);
    site.plan.hurry(site.now, 60 * S);
    site.run(200 * S);
    assert_eq!(site.probed(0), [0, 160]);
    // Never back: the next is due at 460 anyway.
    site.run(450 * S);
    site.plan.hurry(site.now, 60 * S);
    site.run(470 * S);
    assert_eq!(site.probed(0), [0, 160, 460]);
}
