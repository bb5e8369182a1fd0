//! Asks addresses what they are: ping, SNMP, ARP, TCP ports, PJLink.
//!
//! A [`Watcher`] sees how far it is, and may end it: what was found until then
//! is kept.
//!
//! In large networks (more than [`ASK_ALL_MAX`] addresses) SNMP and PJLink
//! are asked only where ping or ARP found something.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use av_proto::config::Device;
use av_proto::secret::Secret;
use av_proto::verdict::Status;
use crossbeam_channel::{RecvTimeoutError, unbounded};
use jiff::tz::TimeZone;
use pnet::util::MacAddr;
use serde_json::{Value, json};

use super::arp;
use super::maker::Mac;
use super::proposal::{Evidence, PJLINK_PORT, PjlinkEvidence, SnmpEvidence};
use crate::driver::{Done, Prober, Reply};
use crate::finding::Finding;
use crate::pjlink::refusal::Refusal;
use crate::pjlink::search::Search;

/// Up to so many addresses, each is asked everything.
pub const ASK_ALL_MAX: usize = 1024;
/// The ports that are looked at where something is.
const PORTS: [u16; 4] = [PJLINK_PORT, 80, 443, 23];
/// No probe takes this long: one that has not answered by then is lost.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// The SNMP community that equipment has out of the box.
const PUBLIC: &str = "public";
/// `sysObjectID.0` (RFC 3418).
const SYS_OBJECT_ID: &str = "1.3.6.1.2.1.1.2.0";
/// How long a probe's answer is waited for before the next look at whether to
/// go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What waits for a look.
pub trait Watcher {
    /// What is done now.
    fn begins(&mut self, what: &str);

    /// What should be known of it afterwards too.
    fn notes(&mut self, what: &str);

    /// How many of the addresses are asked, and how many things were found.
    fn counts(&mut self, asked: usize, of: usize, found: usize);

    /// Whether to end with what was found until now.
    fn is_over(&self) -> bool;
}

/// What a look saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The addresses where something is.
    pub found: Evidences,
    /// How many addresses were asked at all.
    pub asked: usize,
    /// Whether it was ended before its end.
    pub cut_short: bool,
}

/// How fast is asked.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Instant,
}

impl Pace {
    /// So many questions a second.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self {
            gap: Duration::from_secs(1) / rate.max(1),
            next: Instant::now(),
        }
    }

    /// Whether a question may leave now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// A question left.
    pub fn spend(&mut self) {
        // Time that was not used is not made up for: no burst.
        self.next = Instant::now().max(self.next) + self.gap;
    }

    /// Waits until a question may leave.
    fn turn(&mut self) {
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.spend();
    }
}

/// What was seen, by address.
type Evidences = BTreeMap<IpAddr, Evidence>;

/// What is asked, and how.
#[derive(Debug)]
pub struct Look<'a> {
    /// Each address once, in order.
    pub addresses: &'a [IpAddr],
    /// Where whole networks hear, for the search of PJLink class 2.
    pub broadcasts: &'a [Ipv4Addr],
    /// SNMP communities, each tried until one is answered.
    pub communities: &'a [Secret],
    /// A PJLink password, tried once at each projector that wants one.
    pub password: Option<&'a Secret>,
    /// Questions a second.
    pub pace: Pace,
    /// The search of PJLink class 2, which tells the interface's address also
    /// from behind a router; `None`: there is none.
    pub search: Option<Search>,
    /// How long its answers are waited for after the last question:
    /// [`crate::pjlink::search::WAIT`].
    pub search_wait: Duration,
}

impl Look<'_> {
    /// Asks every address; those where something is, with what was seen.
    pub fn run(mut self, prober: &dyn Prober, watcher: &mut dyn Watcher) -> Seen {
        let mut seen = Seen::default();
        self.stages(prober, &mut seen, watcher);
        seen.cut_short = watcher.is_over();
        seen.found.retain(|_, evidence| evidence.is_alive());
        seen
    }

    fn stages(&mut self, prober: &dyn Prober, seen: &mut Seen, watcher: &mut dyn Watcher) {
        watcher.begins("ping");
        self.ping(prober, seen, watcher);
        watcher.begins("ARP");
        self.arp(seen, watcher);
        // Datagrams get lost, so each is searched for twice. The answers take
        // their time, in which everything else goes on.
        let first: Vec<IpAddr> = seen.found.keys().copied().collect();
        self.search(&first, true, watcher);
        let wide: &[IpAddr] = if self.addresses.len() <= ASK_ALL_MAX {
            self.addresses
        } else {
            &first
        };
        watcher.begins("SNMP");
        self.snmp(wide, prober, seen, watcher);
        watcher.begins("PJLink port");
        self.ports(wide, &[PJLINK_PORT], prober, seen, watcher);
        let alive: Vec<IpAddr> = seen.found.keys().copied().collect();
        self.search(&alive, true, watcher);
        watcher.begins("other ports");
        self.ports(&alive, &PORTS[1..], prober, seen, watcher);
        let mut late = alive.clone();
        late.retain(|ip| first.binary_search(ip).is_err());
        self.search(&late, false, watcher);
        let mut open = alive;
        open.retain(|ip| {
            let evidence = seen.found.get(ip);
            evidence.is_some_and(|it| it.ports.contains(&PJLINK_PORT))
        });
        watcher.begins("PJLink");
        self.pjlink(&open, prober, seen, watcher);
        let mut searched = self.searched(seen, watcher);
        searched.retain(|ip| open.binary_search(ip).is_err());
        watcher.begins("PJLink");
        self.pjlink(&searched, prober, seen, watcher);
    }

    /// Begins one probe for each, at the pace, and waits for all of them, or
    /// until the watcher has enough.
    fn ask(
        &mut self,
        targets: &[IpAddr],
        seen: &mut Seen,
        watcher: &mut dyn Watcher,
        begin: &mut dyn FnMut(IpAddr, Reply),
        take: &mut dyn FnMut(&mut Evidences, IpAddr, Finding),
    ) {
        let (to, findings) = unbounded();
        let mut keep = |seen: &mut Seen, done: Done| {
            if let Some(ip) = targets.get(done.ticket) {
                take(&mut seen.found, *ip, done.finding);
            }
        };
        let mut asked = 0;
        for (ticket, ip) in targets.iter().enumerate() {
            self.pace.turn();
            if watcher.is_over() {
                break;
            }
            begin(*ip, Reply::new(ticket, to.clone()));
            self.search.iter_mut().for_each(Search::hear);
            findings.try_iter().for_each(|done| keep(seen, done));
            asked = ticket + 1;
            watcher.counts(asked, targets.len(), seen.found.len());
        }
        drop(to);
        seen.asked = seen.asked.max(asked);
        let mut last = Instant::now();
        loop {
            match findings.recv_timeout(LOOK_EVERY) {
                Ok(done) => {
                    keep(seen, done);
                    last = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if watcher.is_over() || last.elapsed() >= STUCK_AFTER {
                        break;
                    }
                }
            }
            self.search.iter_mut().for_each(Search::hear);
            watcher.counts(asked, targets.len(), seen.found.len());
        }
    }

    fn ping(&mut self, prober: &dyn Prober, seen: &mut Seen, watcher: &mut dyn Watcher) {
        let addresses = self.addresses;
        let settings = json!({"count": 1, "timeout_s": 1});
        self.ask(
            addresses,
            seen,
            watcher,
            &mut |ip, reply| begin(prober, ip, "ping", &settings, reply),
            &mut |found, ip, finding| {
                if finding.status == Status::Online {
                    let rtt = finding.metrics.get("ping_rtt_avg_ms");
                    let rtt = rtt.and_then(Value::as_f64).unwrap_or_default();
                    found.entry(ip).or_default().echo_ms = Some(rtt);
                }
            },
        );
    }

    fn arp(&mut self, seen: &mut Seen, watcher: &mut dyn Watcher) {
        if watcher.is_over() {
            return;
        }
        let asked = arp::ask(self.addresses, &mut self.pace, &|| watcher.is_over());
        let asked = asked.unwrap_or_else(|error| {
            watcher.notes(&format!(
                "ARP not asked ({error}); the system's table serves"
            ));
            Default::default()
        });
        for (ip, mac) in arp::known().into_iter().chain(asked) {
            let ip = IpAddr::from(ip);
            if self.addresses.binary_search(&ip).is_ok() {
                seen.found.entry(ip).or_default().mac = Some(mac);
            }
        }
    }

    fn snmp(
        &mut self,
        targets: &[IpAddr],
        prober: &dyn Prober,
        seen: &mut Seen,
        watcher: &mut dyn Watcher,
    ) {
        let communities = self.communities;
        for community in communities {
            let open: Vec<IpAddr> = targets
                .iter()
                .filter(|ip| {
                    let evidence = seen.found.get(ip);
                    evidence.is_none_or(|evidence| evidence.snmp.is_none())
                })
                .copied()
                .collect();
            let settings = json!({
                "community": community.expose(), "timeout_s": 1, "retries": 0,
                "oids": [{"name": "sys_object_id", "oid": SYS_OBJECT_ID, "type": "string"}],
            });
            self.ask(
                &open,
                seen,
                watcher,
                &mut |ip, reply| begin(prober, ip, "snmp", &settings, reply),
                &mut |found, ip, finding| {
                    if finding.status == Status::Online {
                        found.entry(ip).or_default().snmp = Some(SnmpEvidence {
                            description: text(&finding, "sys_descr").unwrap_or_default(),
                            object_id: text(&finding, "sys_object_id"),
                            own_community: community.expose() != PUBLIC,
                        });
                    }
                },
            );
        }
    }

    fn ports(
        &mut self,
        targets: &[IpAddr],
        ports: &[u16],
        prober: &dyn Prober,
        seen: &mut Seen,
        watcher: &mut dyn Watcher,
    ) {
        for &port in ports {
            let settings = json!({"port": port, "timeout_s": 1});
            self.ask(
                targets,
                seen,
                watcher,
                &mut |ip, reply| begin(prober, ip, "tcp", &settings, reply),
                &mut |found, ip, finding| {
                    if finding.status == Status::Online {
                        found.entry(ip).or_default().ports.insert(port);
                    }
                },
            );
        }
    }

    /// Asks whether projectors of class 2 are at `targets`, and all that hear
    /// a broadcast.
    fn search(&mut self, targets: &[IpAddr], broadcast: bool, watcher: &dyn Watcher) {
        let Some(search) = &mut self.search else {
            return;
        };
        let broadcasts: &[Ipv4Addr] = if broadcast { self.broadcasts } else { &[] };
        let broadcasts = broadcasts.iter().copied().map(IpAddr::from);
        for ip in broadcasts.chain(targets.iter().copied()) {
            if watcher.is_over() {
                return;
            }
            if ip.is_ipv4() {
                self.pace.turn();
                search.ask(SocketAddr::new(ip, PJLINK_PORT));
                search.hear();
            }
        }
    }

    /// Waits for the last answers to the search: who answered.
    fn searched(&mut self, seen: &mut Seen, watcher: &mut dyn Watcher) -> Vec<IpAddr> {
        let mut searched = Vec::new();
        let Some(mut search) = self.search.take() else {
            return searched;
        };
        let mut said = None;
        loop {
            search.hear();
            let left = search.left(self.search_wait);
            if left.is_zero() || watcher.is_over() {
                break;
            }
            let seconds = left.as_secs() + 1;
            if said.replace(seconds) != Some(seconds) {
                watcher.begins(&format!(
                    "PJLink search: a projector may take 10 s to answer, {seconds} s more"
                ));
            }
            watcher.counts(0, 0, seen.found.len());
            std::thread::sleep(LOOK_EVERY.min(left));
        }
        let found = search.finish(Duration::ZERO).unwrap_or_else(|error| {
            watcher.notes(&format!("PJLink search: {error}"));
            Vec::new()
        });
        for answer in found {
            // One that heard a broadcast may be of another network.
            if self.addresses.binary_search(&answer.ip).is_ok() {
                let evidence = seen.found.entry(answer.ip).or_default();
                evidence.searched = true;
                let MacAddr(a, b, c, d, e, f) = answer.mac;
                evidence.mac.get_or_insert(Mac([a, b, c, d, e, f]));
                searched.push(answer.ip);
            }
        }
        searched
    }

    fn pjlink(
        &mut self,
        targets: &[IpAddr],
        prober: &dyn Prober,
        seen: &mut Seen,
        watcher: &mut dyn Watcher,
    ) {
        let password = self.password;
        let settings = match password {
            Some(password) => json!({"password": password.expose()}),
            None => json!({}),
        };
        self.ask(
            targets,
            seen,
            watcher,
            &mut |ip, reply| begin(prober, ip, "pjlink", &settings, reply),
            &mut |found, ip, finding| {
                // What takes connections there and speaks something else is
                // no projector.
                if finding.status == Status::Online {
                    let refusal = Refusal::of(&finding).map(|refusal| match password {
                        Some(_) => refusal,
                        // What it says to one that brings none.
                        None => Refusal::PasswordWanted,
                    });
                    found.entry(ip).or_default().pjlink = Some(PjlinkEvidence {
                        manufacturer: text(&finding, "pjlink_manufacturer"),
                        product: text(&finding, "pjlink_model"),
                        name: text(&finding, "pjlink_name"),
                        refusal,
                    });
                }
            },
        );
    }
}

fn text(finding: &Finding, metric: &str) -> Option<String> {
    let text = finding.metrics.get(metric)?.as_str()?;
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn begin(prober: &dyn Prober, ip: IpAddr, driver: &str, settings: &Value, reply: Reply) {
    let device = json!({
        "ip": ip.to_string(), "name": ip.to_string(), "driver": driver,
        "driver_config": {driver: settings},
    });
    match Device::parse(&device.to_string(), &TimeZone::UTC, &mut Vec::new()) {
        Ok(device) => prober.begin(&device, reply),
        // A community that is none, such as an empty one.
        Err(errors) => reply.send(
            Finding::new(Status::Unknown)
                .with_detail(errors.first().map(ToString::to_string).unwrap_or_default()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers ping at .1 and .2, SNMP at .2 and at .9, which does not answer
    /// ping; notes what it was asked.
    #[derive(Default)]
    struct Simulated(Mutex<Vec<(IpAddr, String)>>);

    impl Prober for Simulated {
        fn begin(&self, device: &Device, reply: Reply) {
            let name = device.settings.name().to_owned();
            let last = match device.ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            };
            let online = matches!((name.as_str(), last), ("ping", 1 | 2) | ("snmp", 2 | 9));
            self.0.lock().unwrap().push((device.ip, name));
            reply.send(if online {
                Finding::new(Status::Online)
                    .with("ping_rtt_avg_ms", 1.5)
                    .with("sys_descr", "EPSON EB-1")
            } else {
                Finding::new(Status::Offline)
            });
        }
    }

    fn addresses(count: u16) -> Vec<IpAddr> {
        (0..count)
            .map(|n| Ipv4Addr::new(127, 66, (n / 256) as u8, (n % 256) as u8).into())
            .collect()
    }

    /// Has enough once this much was found; notes what it is told.
    struct Enough {
        found: usize,
        over: bool,
        told: Vec<(usize, usize, usize)>,
    }

    impl Enough {
        fn at(found: usize) -> Self {
            Self {
                found,
                over: false,
                told: Vec::new(),
            }
        }
    }

    impl Watcher for Enough {
        fn begins(&mut self, _: &str) {}

        fn notes(&mut self, _: &str) {}

        fn counts(&mut self, asked: usize, of: usize, found: usize) {
            self.told.push((asked, of, found));
            self.over |= found >= self.found;
        }

        fn is_over(&self) -> bool {
            self.over
        }
    }

    fn look(count: u16, rate: u32) -> (Evidences, Vec<(IpAddr, String)>) {
        let (seen, asked) = watched(count, rate, &mut Enough::at(usize::MAX));
        assert!(!seen.cut_short);
        assert_eq!(seen.asked, usize::from(count));
        (seen.found, asked)
    }

    fn watched(count: u16, rate: u32, watcher: &mut dyn Watcher) -> (Seen, Vec<(IpAddr, String)>) {
        let prober = Simulated::default();
        let addresses = addresses(count);
        let seen = Look {
            addresses: &addresses,
            broadcasts: &[],
            communities: &[Secret::new("public"), Secret::new("own")],
            password: None,
            pace: Pace::new(rate),
            search: None,
            search_wait: Duration::ZERO,
        }
        .run(&prober, watcher);
        (seen, prober.0.into_inner().unwrap())
    }

    #[test]
    fn what_answers_is_found_and_a_community_that_works_ends_the_trying() {
        let (seen, asked) = look(12, 10_000);
        let at = |n: usize| addresses(12)[n];
        assert_eq!(seen[&at(1)].echo_ms, Some(1.5));
        assert_eq!(seen[&at(1)].snmp, None);
        assert_eq!(seen[&at(9)].echo_ms, None);
        for n in [2, 9] {
            let snmp = seen[&at(n)].snmp.as_ref().unwrap();
            assert_eq!(snmp.description, "EPSON EB-1");
            assert!(!snmp.own_community);
        }
        let snmp = |ip: IpAddr| {
            asked
                .iter()
                .filter(|it| **it == (ip, "snmp".to_owned()))
                .count()
        };
        assert_eq!((snmp(at(2)), snmp(at(1))), (1, 2));
    }

    #[test]
    fn who_has_enough_gets_what_was_found_until_then() {
        let mut enough = Enough::at(1);
        let (seen, asked) = watched(12, 10_000, &mut enough);
        assert!(seen.cut_short);
        assert!(seen.found.contains_key(&addresses(12)[1]));
        // The first answer comes with the second address asked.
        assert_eq!((seen.asked, asked.len()), (2, 2));
        assert_eq!(enough.told, [(1, 12, 0), (2, 12, 1)]);
    }

    #[test]
    fn a_large_network_is_asked_more_only_where_something_is() {
        let (seen, asked) = look(1100, 1_000_000);
        let count = |driver: &str| asked.iter().filter(|(_, name)| name == driver).count();
        assert_eq!(count("ping"), 1100);
        assert!(count("snmp") < 100, "{}", count("snmp"));
        assert!(seen.len() >= 8, "{}", seen.len());
    }

    #[test]
    fn the_pace_is_never_faster_than_said() {
        let mut pace = Pace::new(1000);
        let began = Instant::now();
        for _ in 0..50 {
            pace.turn();
        }
        // The first leaves at once.
        assert!(began.elapsed() >= Duration::from_millis(49));
    }
}
