//! The drivers over a network that loses, delays, doubles and reorders.
//!
//! Two network namespaces, and between them a stretch of network
//! ([`av_proto_tests::impair`]) that says what it did to whom, so that what
//! the driver measured is held against what happened, and not against what is
//! likely. The far side is the kernel's own, with 256 addresses of each
//! family. It needs util-linux (`unshare`) and iproute2, and no privileges.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of a test are outside what clippy takes for one"
)]

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use av_agent::config::parse_site;
use av_agent::driver::{Done, Drivers, Prober, Reply};
use av_agent::icmp::Pinger;
use av_agent::supervisor::Health;
use av_proto::config::Device;
use av_proto::driver::PingSettings;
use av_proto::verdict::Status;
use av_proto_tests::impair::{Impairment, Passed, Stretch};
use av_proto_tests::namespace::unshare_options;
use av_proto_tests::own_program;
use crossbeam_channel::unbounded;
use serde_json::{Value, json};

const INSIDE: &str = "AV_TEST_INSIDE";
/// The hardware addresses are known: only echoes go over the stretch.
const NEAR: &str = "
    ip link set lo up
    ip link add near address 02:00:00:00:00:01 type veth peer name west
    ip link add east type veth peer name far address 02:00:00:00:00:02
    ip address add 10.9.0.1/24 dev near
    ip address add fd09::1/64 dev near nodad
    for device in near west east; do ip link set $device up; done
    ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev near
    ip neighbour add fd09::2 lladdr 02:00:00:00:00:02 dev near
    ip route add 10.9.1.0/24 via 10.9.0.2
    ip route add fd09:1::/64 via fd09::2
";
const FAR: &str = "
    echo apart
    read -r moved
    ip link set lo up
    ip link set far up
    ip address add 10.9.0.2/24 dev far
    ip address add fd09::2/64 dev far nodad
    ip neighbour add 10.9.0.1 lladdr 02:00:00:00:00:01 dev far
    ip neighbour add fd09::1 lladdr 02:00:00:00:00:01 dev far
    ip route add local 10.9.1.0/24 dev lo
    ip route add local fd09:1::/64 dev lo
    echo up
    read -r end
";

/// Whether this is the process inside the namespace. Outside, it starts that
/// one and demands that it succeeds; where namespaces are forbidden it says
/// so and goes without.
fn inside(test: &str) -> bool {
    if env::var(INSIDE).as_deref() == Ok(test) {
        return true;
    }
    let unshare = match unshare_options(&["--net"]) {
        Ok(options) => options,
        Err(said) => {
            eprintln!("SKIPPED {test}: no network namespace can be made here: {said}");
            return false;
        }
    };
    let script = format!("{NEAR}\nexec \"$0\" --exact {test} --nocapture --test-threads=1");
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-euc", &script])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, test)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in a network namespace:\n{text}"
    );
    print!("{text}");
    false
}

/// The far namespace; it ends when this end of its input closes.
struct Far(Child);

impl Far {
    fn start() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-euc", FAR])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "apart");
        let moved = Command::new("ip")
            .args(["link", "set", "far", "netns", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(moved.success());
        child.stdin.as_ref().unwrap().write_all(b"moved\n").unwrap();
        assert_eq!(said.next().unwrap().unwrap(), "up");
        Self(child)
    }
}

/// A program in the far namespace.
struct Server(Child);

impl Server {
    fn start(far: &Far, program: &str, arguments: &[&str], folder: &Path) -> Self {
        let log = File::create(folder.join("log")).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", far.0.id()))
            .arg(program)
            .args(arguments)
            .env("SNMP_PERSISTENT_DIR", folder.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Pings 128 addresses of each family at once.
fn ping_all(pinger: &Pinger, settings: &PingSettings) -> Vec<Done> {
    let (to, found) = unbounded();
    for n in 0..128_u8 {
        let last = u16::from(n) + 1;
        for (ticket, target) in [
            IpAddr::from([10, 9, 1, n + 1]),
            IpAddr::from([0xfd09, 1, 0, 0, 0, 0, 0, last]),
        ]
        .into_iter()
        .enumerate()
        {
            let ticket = usize::from(n) * 2 + ticket;
            pinger.submit(target, settings, Reply::new(ticket, to.clone()));
        }
    }
    drop(to);
    found.iter().collect()
}

fn metric(done: &Done, name: &str) -> f64 {
    done.finding.metrics[name].as_f64().unwrap()
}

fn settings(count: u8, timeout_ms: u64) -> PingSettings {
    PingSettings {
        count,
        timeout: Duration::from_millis(timeout_ms),
    }
}

#[test]
fn what_ping_measures_is_what_happened() {
    if !inside("what_ping_measures_is_what_happened") {
        return;
    }
    let _far = Far::start();
    let (count, delay) = (10_u8, Duration::from_millis(8));
    let impairment = Impairment {
        loss: 0.1,
        duplicate: 0.05,
        reorder: 0.1,
        delay,
        jitter: Duration::from_millis(20),
    };
    let stretch = Stretch::join("west", "east", impairment, 4).unwrap();
    let pinger = Pinger::start(&Health::default());
    let found = ping_all(&pinger, &settings(count, 2000));
    assert_eq!(found.len(), 256);

    // Everything that happened is accounted for. What a starved machine lost
    // before the stretch, or between its two ways, is as lost.
    let (there, back) = (&stretch.there, &stretch.back);
    let account = || format!("{:?} there {there:?} back {back:?}", pinger.stats());
    let all = || {
        let stats = pinger.stats();
        there.left() == there.came() - there.lost() + there.doubled()
            && back.left() == back.came() - back.lost() + back.doubled()
            && stats.answered + stats.duplicates + stats.late == back.left()
    };
    let limit = Instant::now() + Duration::from_secs(60);
    while !all() {
        assert!(Instant::now() < limit, "not accounted for: {}", account());
        thread::sleep(Duration::from_millis(10));
    }
    let stats = pinger.stats();
    assert_eq!(stats.sent, 256 * u64::from(count));
    assert!(stats.sent >= there.came() && there.left() >= back.came());
    assert_eq!(stats.unrelated, 0);
    let each = |passed: &Passed| [passed.lost(), passed.doubled(), passed.overtook()];
    println!("{}", account());
    for happened in [each(there), each(back)].concat() {
        assert!(happened > 0, "{}", account());
    }

    // The findings say the same.
    let (mut lost, mut duplicates) = (0.0, 0.0);
    for done in &found {
        let of_this = metric(done, "ping_loss_pct") / 100.0 * f64::from(count);
        lost += of_this;
        duplicates += metric(done, "ping_duplicates");
        let detail = done.finding.detail.as_deref();
        if of_this > f64::from(count) - 0.5 {
            assert_eq!(done.finding.status, Status::Offline);
            assert_eq!(detail, Some("no answer to 10 pings"));
            continue;
        }
        assert_eq!(done.finding.status, Status::Online);
        if of_this < 0.5 {
            assert_eq!(detail, None);
        } else {
            assert_eq!(
                detail,
                Some(&*format!("{:.0} of 10 pings answered", 10.0 - of_this))
            );
        }
        let [min, average, max, jitter] = [
            "ping_rtt_min_ms",
            "ping_rtt_avg_ms",
            "ping_rtt_max_ms",
            "ping_jitter_ms",
        ]
        .map(|name| done.finding.metrics[name].as_f64().unwrap_or_default());
        assert!(min <= average && average <= max, "{done:?}");
        assert!(jitter <= max - min + 0.002, "{done:?}");
    }
    let unanswered = f64::from(u32::try_from(stats.sent - stats.answered).unwrap());
    assert!((lost - unanswered).abs() < 0.01, "{lost} {unanswered}");
    let counted = f64::from(u32::try_from(stats.duplicates).unwrap());
    assert!(
        (duplicates - counted).abs() < 0.01,
        "{duplicates} {counted}"
    );
}

#[test]
fn a_round_trip_takes_as_long_as_the_way() {
    if !inside("a_round_trip_takes_as_long_as_the_way") {
        return;
    }
    let _far = Far::start();
    let impairment = Impairment {
        delay: Duration::from_millis(40),
        ..Impairment::default()
    };
    let _stretch = Stretch::join("west", "east", impairment, 4).unwrap();
    let pinger = Pinger::start(&Health::default());
    for done in ping_all(&pinger, &settings(3, 20_000)) {
        assert_eq!(done.finding.status, Status::Online, "{done:?}");
        assert!(metric(&done, "ping_rtt_min_ms") >= 80.0, "{done:?}");
        assert_eq!(metric(&done, "ping_loss_pct"), 0.0, "{done:?}");
        assert_eq!(metric(&done, "ping_duplicates"), 0.0, "{done:?}");
    }
}

#[test]
fn what_comes_too_late_is_no_answer() {
    if !inside("what_comes_too_late_is_no_answer") {
        return;
    }
    let _far = Far::start();
    let impairment = Impairment {
        delay: Duration::from_millis(700),
        ..Impairment::default()
    };
    let stretch = Stretch::join("west", "east", impairment, 4).unwrap();
    let pinger = Pinger::start(&Health::default());
    for done in ping_all(&pinger, &settings(1, 400)) {
        assert_eq!(done.finding.status, Status::Offline, "{done:?}");
        assert_eq!(done.finding.detail.as_deref(), Some("no answer to 1 ping"));
    }
    wait_until("all come late", || {
        let late = pinger.stats().late;
        late == stretch.back.left() && late > 0 && stretch.there.came() > 200
    });
    assert_eq!(pinger.stats().answered, 0);
}

#[test]
fn when_all_is_lost_all_is_offline() {
    if !inside("when_all_is_lost_all_is_offline") {
        return;
    }
    let _far = Far::start();
    let impairment = Impairment {
        loss: 1.0,
        ..Impairment::default()
    };
    let stretch = Stretch::join("west", "east", impairment, 4).unwrap();
    let pinger = Pinger::start(&Health::default());
    for done in ping_all(&pinger, &settings(2, 300)) {
        assert_eq!(done.finding.status, Status::Offline, "{done:?}");
        assert_eq!(metric(&done, "ping_loss_pct"), 100.0, "{done:?}");
        assert!(done.finding.metrics["ping_rtt_min_ms"].is_null());
    }
    wait_until("they are lost", || stretch.there.lost() > 400);
}

/// The other drivers over the same line: what is asked again over UDP and sent
/// again by TCP arrives in the end, and nothing that arrives twice or late is
/// taken for something else.
#[test]
fn projectors_and_snmp_devices_answer_over_a_bad_line() {
    if !inside("projectors_and_snmp_devices_answer_over_a_bad_line") {
        return;
    }
    let far = Far::start();
    let folder = tempfile::tempdir().unwrap();
    let (pjlink, snmp) = (folder.path().join("pjlink"), folder.path().join("snmp"));
    for folder in [&pjlink, &snmp] {
        fs::create_dir(folder).unwrap();
    }
    let sim = own_program!("pjlink-sim");
    let arguments = [
        "--listen",
        "10.9.1.1:4352",
        "--count",
        "40",
        "--password",
        "Mot de passe",
    ];
    let _sim = Server::start(&far, sim, &arguments, &pjlink);
    let config = snmp.join("snmpd.conf");
    fs::write(
        &config,
        "agentAddress udp:161\nrocommunity far-away\nsysDescr far display\n",
    )
    .unwrap();
    let snmpd = ["/usr/sbin/snmpd", "/usr/local/sbin/snmpd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("there is no snmpd: install the Debian package snmpd");
    let arguments = ["-f", "-C", "-Loe", "-I", "-smux", "-c"];
    let arguments = [&arguments[..], &[config.to_str().unwrap()]].concat();
    let _snmpd = Server::start(&far, snmpd, &arguments, &snmp);

    let devices: Vec<Value> = (1..=40_u8)
        .flat_map(|n| {
            [
                json!({
                    "ip": format!("10.9.1.{n}"), "name": "", "driver": "pjlink",
                    "driver_config": {"pjlink": {"password": "Mot de passe", "timeout_s": 30}},
                }),
                json!({
                    "ip": format!("10.9.1.{}", 100 + n), "name": "", "driver": "snmp",
                    "driver_config": {
                        "snmp": {"community": "far-away", "timeout_s": 1, "retries": 5},
                    },
                }),
            ]
        })
        .collect();
    let site = json!({"site_name": "Paris", "devices": devices});
    let site = parse_site(site.to_string().as_bytes()).unwrap();
    assert_eq!(site.devices.len(), 80, "{:?}", site.rejected);
    let drivers = Drivers::start(&Health::default());
    let sweep = |devices: &[Arc<Device>]| {
        let (to, found) = unbounded();
        for (ticket, device) in devices.iter().enumerate() {
            drivers.begin(device, Reply::new(ticket, to.clone()));
        }
        drop(to);
        found.iter().collect::<Vec<Done>>()
    };
    let shown = |folder: &Path| fs::read_to_string(folder.join("log")).unwrap_or_default();

    // On a good line first, until both servers serve.
    let good = Impairment::default();
    let stretch = Stretch::join("west", "east", good, 4).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let first = sweep(&site.devices[..2]);
        if first
            .iter()
            .all(|done| done.finding.status == Status::Online)
        {
            break;
        }
        let logs = (shown(&pjlink), shown(&snmp));
        assert!(Instant::now() < limit, "{first:?} {logs:?}");
        thread::sleep(Duration::from_millis(100));
    }
    drop(stretch);

    let bad = Impairment {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.1,
        delay: Duration::from_millis(8),
        jitter: Duration::from_millis(20),
    };
    let _stretch = Stretch::join("west", "east", bad, 4).unwrap();
    let found = sweep(&site.devices);
    assert_eq!(found.len(), 80);
    for done in found {
        let device = &site.devices[done.ticket];
        let metrics = &done.finding.metrics;
        assert_eq!(done.finding.status, Status::Online, "{device:?} {done:?}");
        if device.driver == "pjlink" {
            assert_eq!(metrics["pjlink_power"], 1, "{done:?}");
            assert_eq!(metrics["pjlink_auth"], true, "{done:?}");
        } else {
            assert_eq!(metrics["sys_descr"], "far display", "{done:?}");
        }
    }
}
