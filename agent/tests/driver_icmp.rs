//! The ping driver on real sockets.
//!
//! Each test runs in a network namespace of its own, which gives it the
//! privileges and the network that it needs, whoever runs it: the test starts
//! itself again inside.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::env;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use av_agent::config::parse_site;
use av_agent::driver::{Drivers, Prober, Reply};
use av_agent::finding::Finding;
use av_agent::icmp::{Mode, Pinger};
use av_agent::supervisor::Health;
use av_proto::config::Device;
use av_proto::driver::PingSettings;
use av_proto::verdict::Status;
use crossbeam_channel::unbounded;
use pnet::packet::icmp::{IcmpPacket, checksum};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const INSIDE: &str = "AV_TEST_INSIDE";
/// Sets a value of the network's, or ends with [`NOT_HERE`]: a container may see
/// the kernel's values and not write them.
const KERNEL: &str = r#"
    kernel() {
        [ -w "/proc/sys/net/$1" ] || { echo "/proc/sys/net/$1 is read-only"; exit 77; }
        echo "$2" >"/proc/sys/net/$1"
    }
"#;
const NOT_HERE: i32 = 77;
/// A network cable with nobody at the other end; 10.9.0.2 and fd09::2 are
/// known by hardware address, so that nothing but the echo is unanswered.
const CABLE: &str = "
    ip link add here type veth peer name there
    ip link set here up
    ip link set there up
    ip address add 10.9.0.1/24 dev here
    ip address add fd09::1/64 dev here nodad
    ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev here
    ip neighbour add fd09::2 lladdr 02:00:00:00:00:02 dev here
";
const NO_RAW: &str = "setpriv --bounding-set=-net_raw --inh-caps=-net_raw";

/// The options of unshare(1) with which this user may make a network. A user
/// namespace lets everybody; where there is none, as in a chroot, root needs
/// none.
fn unshare_options() -> Result<Vec<&'static str>, String> {
    let mut said = String::new();
    for options in [vec!["--user", "--map-root-user", "--net"], vec!["--net"]] {
        let made = Command::new("unshare").args(&options).arg("true").output();
        let made = made.expect("unshare (Debian package util-linux) cannot be started");
        if made.status.success() {
            return Ok(options);
        }
        said.push_str(&String::from_utf8_lossy(&made.stderr));
    }
    Err(said)
}

/// Whether this is the process inside the namespace. Outside, it starts that
/// one and demands that it succeeds; where namespaces are forbidden, or what the
/// setup sets in the kernel cannot be written, it says so and goes without.
fn inside(test: &str, setup: &str, wrapper: &str) -> bool {
    if env::var(INSIDE).as_deref() == Ok(test) {
        return true;
    }
    let unshare = match unshare_options() {
        Ok(options) => options,
        Err(said) => {
            eprintln!("SKIPPED {test}: no network namespace can be made here: {said}");
            return false;
        }
    };
    let script = format!(
        "{KERNEL}\nip link set lo up\n{setup}\nexec {wrapper} \"$0\" --exact {test} --nocapture --test-threads=1"
    );
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-euc", &script])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, test)
        .output()
        .expect("unshare (Debian package util-linux) cannot be started");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.code() == Some(NOT_HERE) {
        eprintln!("SKIPPED {test}: {text}");
        return false;
    }
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in a network namespace (it needs user namespaces and the packages iproute2 and \
         util-linux):\n{text}"
    );
    false
}

fn start() -> Pinger {
    Pinger::start(&Health::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings(count: u8, timeout_ms: u64) -> PingSettings {
    PingSettings {
        count,
        timeout: Duration::from_millis(timeout_ms),
    }
}

/// Waits longer than any machine is slow.
fn patient(count: u8) -> PingSettings {
    settings(count, 20_000)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn assert_online(found: &Finding) {
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert_eq!(found.detail, None);
    let names: BTreeSet<&str> = found.metrics.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "ping_ok",
            "ping_rtt_avg_ms",
            "ping_timeout_s",
            "ping_count",
            "ping_loss_pct",
            "ping_rtt_min_ms",
            "ping_rtt_max_ms",
            "ping_jitter_ms",
            "ping_duplicates"
        ])
    );
    assert_eq!(found.metrics["ping_ok"], true);
    let rtt = found.metrics["ping_rtt_avg_ms"].as_f64().unwrap();
    assert!((0.0..20_000.0).contains(&rtt), "{rtt}");
    assert!(((rtt * 1e3).round() / 1e3 - rtt).abs() < 1e-9, "{rtt}");
    let other = |name: &str| found.metrics[name].as_f64();
    assert!(other("ping_rtt_min_ms").unwrap() <= rtt, "{found:?}");
    assert!(other("ping_rtt_max_ms").unwrap() >= rtt, "{found:?}");
    assert_eq!(other("ping_loss_pct"), Some(0.0));
    let several = found.metrics["ping_count"].as_u64() > Some(1);
    assert_eq!(other("ping_jitter_ms").is_some(), several, "{found:?}");
}

fn assert_not(found: &Finding, status: Status, detail: &str) {
    assert_eq!(
        (found.status, found.detail.as_deref()),
        (status, Some(detail))
    );
    assert_eq!(found.metrics["ping_ok"], false);
    assert!(found.metrics["ping_rtt_avg_ms"].is_null());
}

#[test]
fn many_probes_share_one_raw_socket() {
    if !inside("many_probes_share_one_raw_socket", "", "") {
        return;
    }
    let pinger = start();
    let other = start();
    assert_eq!(pinger.mode(ip("127.0.0.1")), Some(Mode::Raw));
    assert_eq!(pinger.mode(ip("::1")), Some(Mode::Raw));
    thread::scope(|scope| {
        for n in 1..=64_u8 {
            let pinger = if n % 2 == 0 { &pinger } else { &other };
            let target = match n {
                1..=4 => ip("::1"),
                5..=8 => ip("::ffff:127.0.0.5"),
                _ => IpAddr::from([127, 0, 7, n]),
            };
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, move || {
                    for _ in 0..3 {
                        assert_online(&pinger.probe(target, &patient(3)));
                    }
                })
                .unwrap();
        }
    });
    // Each raw socket hears the other's answers, and takes none for its own.
    for stats in [pinger.stats(), other.stats()] {
        assert_eq!((stats.duplicates, stats.late), (0, 0));
        assert!(stats.unrelated > 0);
    }
}

/// No thread for each, no echo lost to a full buffer, and each counted.
#[test]
fn thousands_are_in_flight_on_one_thread() {
    let setup = "kernel ipv4/ping_group_range '0 0'";
    if !inside("thousands_are_in_flight_on_one_thread", setup, "") {
        return;
    }
    let drivers = Drivers::start(&Health::default());
    let ping_all = |devices: &[Arc<Device>]| {
        let (to, found) = unbounded();
        for (ticket, device) in devices.iter().enumerate() {
            drivers.begin(device, Reply::new(ticket, to.clone()));
        }
        drop(to);
        let found: Vec<_> = found.iter().collect();
        assert_eq!(found.len(), devices.len());
        for done in found {
            assert_online(&done.finding);
        }
    };
    let devices: Vec<Value> = (1..=4000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            json!({
                "ip": format!("127.1.{high}.{low}"), "name": "", "driver": "ping",
                "driver_config": {"ping": {"timeout_s": 20}},
            })
        })
        .collect();
    let site = json!({"site_name": "Paris", "devices": devices});
    let devices = parse_site(site.to_string().as_bytes()).unwrap().devices;
    assert_eq!(devices.len(), 4000);
    ping_all(&devices[..1]);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    ping_all(&devices[1..]);
    assert_eq!(threads(), before);
    let counted: Vec<_> = drivers
        .counters()
        .map(|counter| (counter.name, counter.value))
        .filter(|(name, _)| name.starts_with("av_agent_ping_"))
        .collect();
    assert_eq!(
        counted,
        [
            ("av_agent_ping_sent_total", 12_000),
            ("av_agent_ping_answered_total", 12_000),
            ("av_agent_ping_duplicates_total", 0),
            ("av_agent_ping_late_total", 0),
            ("av_agent_ping_unrelated_total", 0),
            ("av_agent_ping_no_room_total", 0),
        ]
    );
}

#[test]
fn silence_is_offline() {
    if !inside("silence_is_offline", CABLE, "") {
        return;
    }
    let pinger = start();
    for target in ["10.9.0.2", "fd09::2"] {
        let start = Instant::now();
        let found = pinger.probe(ip(target), &settings(3, 300));
        assert_not(&found, Status::Offline, "no answer to 3 pings");
        assert!(start.elapsed() >= Duration::from_millis(800));
    }
    let found = pinger.probe(ip("10.9.0.2"), &settings(1, 50));
    assert_not(&found, Status::Offline, "no answer to 1 ping");
    assert_eq!(found.metrics["ping_count"], 1);
    assert_eq!(found.metrics["ping_timeout_s"], 0.05);
}

#[test]
fn an_icmp_error_names_its_sender() {
    if !inside("an_icmp_error_names_its_sender", CABLE, "") {
        return;
    }
    // Nobody answers the question for the hardware address; after some
    // seconds the kernel says so by ICMP.
    let pinger = start();
    for (target, what) in [
        ("10.9.0.3", "ICMP 3/1 from 10.9.0.1"),
        ("fd09::3", "ICMPv6 1/3 from fd09::1"),
    ] {
        let found = pinger.probe(ip(target), &patient(2));
        assert_not(
            &found,
            Status::Offline,
            &format!("destination host unreachable ({what})"),
        );
    }
}

#[test]
fn routes_are_told_apart() {
    let setup = "
        ip route add unreachable 10.8.0.0/24
        ip -6 route add unreachable fd08::/64
    ";
    if !inside("routes_are_told_apart", setup, "") {
        return;
    }
    let pinger = start();
    for (target, status, detail) in [
        (
            "10.7.0.1",
            Status::Unknown,
            "ping not sent: this machine has no route to the network",
        ),
        (
            "fd07::1",
            Status::Unknown,
            "ping not sent: this machine has no route to the network",
        ),
        (
            "10.8.0.1",
            Status::Offline,
            "host unreachable by this machine's routes",
        ),
        (
            "fd08::1",
            Status::Offline,
            "host unreachable by this machine's routes",
        ),
        (
            "127.255.255.255",
            Status::Unknown,
            "ping not sent: forbidden by a local firewall, or a broadcast address",
        ),
    ] {
        assert_not(&pinger.probe(ip(target), &patient(3)), status, detail);
    }
}

#[test]
fn without_raw_the_datagram_socket_serves() {
    let setup = format!("{CABLE} kernel ipv4/ping_group_range '0 0'");
    if !inside("without_raw_the_datagram_socket_serves", &setup, NO_RAW) {
        return;
    }
    let pinger = start();
    let other = start();
    for target in ["127.0.0.1", "127.0.0.9", "::1"] {
        assert_eq!(pinger.mode(ip(target)), Some(Mode::Datagram));
        assert_online(&pinger.probe(ip(target), &patient(3)));
        assert_online(&other.probe(ip(target), &patient(3)));
    }
    for target in ["10.9.0.2", "fd09::2"] {
        let found = pinger.probe(ip(target), &settings(2, 100));
        assert_not(&found, Status::Offline, "no answer to 2 pings");
    }
    assert_eq!(pinger.stats().unrelated, 0);
}

/// The error of one echo is told to whoever uses the socket next; it must not
/// be taken for an error of that one.
#[test]
fn an_error_reaches_its_own_probe_only() {
    let name = "an_error_reaches_its_own_probe_only";
    // The kernel would else hold back errors when many are due at once.
    let setup = format!(
        "{CABLE} kernel ipv4/ping_group_range '0 0'
        kernel ipv4/icmp_ratemask 0
        kernel ipv6/icmp/ratemask 255"
    );
    if !inside(name, &setup, NO_RAW) {
        return;
    }
    let pinger = start();
    assert_eq!(pinger.mode(ip("127.0.0.1")), Some(Mode::Datagram));
    assert_eq!(pinger.mode(ip("::1")), Some(Mode::Datagram));
    let targets: Vec<_> = (1..=40)
        .flat_map(|n| {
            [
                (IpAddr::from([10, 9, 0, 10 + n]), "ICMP 3/1 from 10.9.0.1"),
                (ip(&format!("fd09::1{n}")), "ICMPv6 1/3 from fd09::1"),
            ]
        })
        .collect();
    let (to, unreachable) = unbounded();
    for (ticket, (target, _)) in targets.iter().enumerate() {
        pinger.submit(*target, &patient(2), Reply::new(ticket, to.clone()));
    }
    drop(to);
    let mut found = Vec::new();
    // While the errors come in, others are online all the time.
    while found.len() < targets.len() {
        assert_online(&pinger.probe(ip("127.0.0.1"), &patient(3)));
        assert_online(&pinger.probe(ip("::1"), &patient(3)));
        found.extend(unreachable.try_iter());
    }
    for done in found {
        let (_, what) = targets[done.ticket];
        assert_not(
            &done.finding,
            Status::Offline,
            &format!("destination host unreachable ({what})"),
        );
    }
}

#[test]
fn without_either_it_says_what_to_do() {
    // A new network namespace allows ping sockets to no group.
    if !inside("without_either_it_says_what_to_do", "", NO_RAW) {
        return;
    }
    let pinger = start();
    for target in ["127.0.0.1", "::1"] {
        assert_eq!(pinger.mode(ip(target)), None);
        assert_not(
            &pinger.probe(ip(target), &patient(3)),
            Status::Unknown,
            "ping not possible: no CAP_NET_RAW and net.ipv4.ping_group_range does not include \
             this group",
        );
    }
}

#[test]
fn the_thread_ends_with_the_last_clone() {
    if !inside("the_thread_ends_with_the_last_clone", "", "") {
        return;
    }
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .filter(|name| name.trim_end() == "ping")
            .count()
    };
    let pinger = start();
    let clone = pinger.clone();
    // A thread names itself, a moment after it was started.
    wait_until("one thread", || threads() == 1);
    drop(pinger);
    assert_online(&clone.probe(ip("127.0.0.1"), &patient(1)));
    assert_eq!(threads(), 1);
    drop(clone);
    wait_until("no thread", || threads() == 0);
}

/// A socket that hears the echo requests to `address`.
fn listen(address: &str) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    socket
        .bind(&SocketAddr::new(ip(address), 0).into())
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    socket.into()
}

/// Answers echo requests as `answer` says: the packets to send back for each.
fn respond(socket: &UdpSocket, stop: &AtomicBool, mut answer: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let request = &buffer[20..length];
        if request[0] != 8 {
            continue;
        }
        for mut reply in answer(request.to_vec()) {
            reply[0] = 0;
            let sum = checksum(&IcmpPacket::new(&reply).unwrap());
            reply[2..4].copy_from_slice(&sum.to_be_bytes());
            socket.send_to(&reply, from).unwrap();
        }
    }
}

#[test]
fn only_true_and_timely_answers_count() {
    let setup = "kernel ipv4/icmp_echo_ignore_all 1";
    if !inside("only_true_and_timely_answers_count", setup, "") {
        return;
    }
    let pinger = start();
    let stop = AtomicBool::new(false);
    let release = AtomicBool::new(false);
    let [thrice, wrong, late] = ["127.0.0.11", "127.0.0.12", "127.0.0.13"].map(listen);
    thread::scope(|scope| {
        // Ends the responders also when an assertion fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = Stop(&stop);

        scope.spawn(|| {
            respond(&thrice, &stop, |request| {
                vec![request.clone(), request.clone(), request]
            });
        });
        scope.spawn(|| {
            respond(&wrong, &stop, |request| {
                let changed = |at: usize| {
                    let mut reply = request.clone();
                    reply[at] ^= 1;
                    reply
                };
                // Another identifier, sequence number, socket and probe, and
                // one too short to tell.
                let mut replies: Vec<_> = [5, 6, 8, 16].map(changed).into();
                replies.push(request[..12].to_vec());
                replies
            });
        });
        scope.spawn(|| {
            let mut held = Vec::new();
            respond(&late, &stop, |request| {
                held.push(request);
                if release.load(Ordering::Relaxed) {
                    std::mem::take(&mut held)
                } else {
                    vec![]
                }
            });
        });

        let found = pinger.probe(ip("127.0.0.11"), &patient(3));
        assert_eq!(found.status, Status::Online, "{found:?}");
        // Those to the last echo may come when the probe has ended.
        assert!(
            found.metrics["ping_duplicates"].as_u64() >= Some(4),
            "{found:?}"
        );
        wait_until("duplicates", || {
            let stats = pinger.stats();
            stats.duplicates + stats.late >= 6
        });

        let before = pinger.stats();
        let found = pinger.probe(ip("127.0.0.12"), &settings(2, 300));
        assert_not(&found, Status::Offline, "no answer to 2 pings");
        wait_until("false answers", || {
            let stats = pinger.stats();
            stats.unrelated >= before.unrelated + 4 && stats.late >= before.late + 4
        });

        let found = pinger.probe(ip("127.0.0.13"), &settings(2, 300));
        assert_not(&found, Status::Offline, "no answer to 2 pings");
        let before = pinger.stats();
        release.store(true, Ordering::Relaxed);
        assert_online(&pinger.probe(ip("127.0.0.13"), &patient(1)));
        wait_until("late answers", || pinger.stats().late >= before.late + 2);
    });
}
