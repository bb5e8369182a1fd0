//! A stretch of network that loses, delays, doubles and reorders what passes,
//! as Linux's `netem` does. It needs no kernel module, which many kernels are
//! built without, and it counts what it did, which a test can hold against
//! what was observed at the ends.
//!
//! It joins two network interfaces: what comes in at one goes out at the
//! other, each way impaired alike and independently.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender, NetworkInterface};
use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::icmp::{IcmpPacket, IcmpTypes};
use pnet::packet::icmpv6::{Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{self, MutableTcpPacket, TcpPacket};
use pnet::packet::udp::{self, MutableUdpPacket, UdpPacket};

use crate::random::Random;

/// How often a thread looks whether it must end.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What happens to frames: by default nothing. Shares are of one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Impairment {
    /// The share that is lost.
    pub loss: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share that is not delayed, and so overtakes those before it.
    pub reorder: f64,
    /// How long every other frame takes.
    pub delay: Duration,
    /// And at most so much longer, each frame its own time.
    pub jitter: Duration,
}

/// What became of the ICMP echo requests and replies that went one way; other
/// frames are impaired, and not counted.
#[derive(Debug, Default)]
pub struct Passed {
    came: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    overtook: AtomicU64,
    left: AtomicU64,
}

impl Passed {
    /// That came in.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// That were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// That went on twice.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.doubled.load(Ordering::Relaxed)
    }

    /// That went on before one that had come earlier.
    #[must_use]
    pub fn overtook(&self) -> u64 {
        self.overtook.load(Ordering::Relaxed)
    }

    /// That went on.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}

/// Joins two interfaces while it lives.
#[derive(Debug)]
pub struct Stretch {
    /// From the first to the second.
    pub there: Arc<Passed>,
    /// From the second to the first.
    pub back: Arc<Passed>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stretch {
    /// Joins the interfaces named `first` and `second`; the same `seed` gives
    /// the same fates to the same frames.
    ///
    /// # Errors
    /// There is no such interface, or it cannot be opened: that takes
    /// `CAP_NET_RAW`.
    pub fn join(first: &str, second: &str, impairment: Impairment, seed: u64) -> io::Result<Self> {
        let (first_out, first_in) = open(first)?;
        let (second_out, second_in) = open(second)?;
        let mut stretch = Self {
            there: Arc::default(),
            back: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let there = Arc::clone(&stretch.there);
        stretch.way(first_in, second_out, there, impairment, seed)?;
        let back = Arc::clone(&stretch.back);
        stretch.way(second_in, first_out, back, impairment, !seed)?;
        Ok(stretch)
    }

    fn way(
        &mut self,
        mut from: Box<dyn DataLinkReceiver>,
        to: Box<dyn DataLinkSender>,
        passed: Arc<Passed>,
        impairment: Impairment,
        seed: u64,
    ) -> io::Result<()> {
        let (queue, arriving) = unbounded();
        let mut fates = Fates {
            impairment,
            random: Random::new(seed),
        };
        let counts = Arc::clone(&passed);
        let stop = Arc::clone(&self.stop);
        let take_in = move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                // A time-out, or an interface that is down for a moment.
                let Ok(frame) = from.next() else { continue };
                let at = Instant::now();
                let echo = is_echo(frame);
                let fate = fates.next();
                if echo {
                    count(&counts.came);
                    match fate.len() {
                        0 => count(&counts.lost),
                        1 => {}
                        _ => count(&counts.doubled),
                    }
                }
                for delay in fate {
                    number += 1;
                    let mut frame = frame.to_vec();
                    complete(&mut frame);
                    let passing = Passing {
                        due: at + delay,
                        number,
                        echo,
                        frame,
                    };
                    if queue.send(passing).is_err() {
                        return;
                    }
                }
            }
        };
        let name = thread::Builder::new().name("impair-in".to_owned());
        self.threads.push(name.spawn(take_in)?);
        let name = thread::Builder::new().name("impair-out".to_owned());
        self.threads
            .push(name.spawn(move || let_out(&arriving, to, &passed))?);
        Ok(())
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Passing {
    due: Instant,
    number: u64,
    echo: bool,
    frame: Vec<u8>,
}

/// Sends each frame on at its time, until nothing comes any more.
fn let_out(arriving: &Receiver<Passing>, mut to: Box<dyn DataLinkSender>, passed: &Passed) {
    let mut waiting: BinaryHeap<Reverse<Passing>> = BinaryHeap::new();
    let mut newest_gone = 0;
    loop {
        let wait = waiting.peek().map_or(STOP_CHECK, |Reverse(next)| {
            next.due.saturating_duration_since(Instant::now())
        });
        match arriving.recv_timeout(wait) {
            Ok(passing) => waiting.push(Reverse(passing)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(passing)) = waiting.pop() else {
                break;
            };
            if !matches!(to.send_to(&passing.frame, None), Some(Ok(()))) {
                continue;
            }
            if passing.echo {
                count(&passed.left);
                if passing.number < newest_gone {
                    count(&passed.overtook);
                }
                newest_gone = newest_gone.max(passing.number);
            }
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn open(name: &str) -> io::Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    let interface: NetworkInterface = datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == name)
        .ok_or_else(|| io::Error::other(format!("there is no interface {name}")))?;
    let config = datalink::Config {
        read_timeout: Some(STOP_CHECK),
        ..datalink::Config::default()
    };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(to, from) => Ok((to, from)),
        _ => Err(io::Error::other(format!("{name} is no Ethernet"))),
    }
}

/// Fills in the checksum of TCP and UDP, which the kernel leaves to the network
/// card; a virtual one leaves it out.
fn complete(frame: &mut [u8]) {
    let Some(start) = EthernetPacket::new(frame).and_then(|frame| {
        let header = match frame.get_ethertype() {
            EtherTypes::Ipv4 => {
                usize::from(Ipv4Packet::new(frame.payload())?.get_header_length()) * 4
            }
            EtherTypes::Ipv6 => Ipv6Packet::minimum_packet_size(),
            _ => return None,
        };
        Some(EthernetPacket::minimum_packet_size() + header)
    }) else {
        return;
    };
    let Some((head, segment)) = frame.split_at_mut_checked(start) else {
        return;
    };
    let head = &head[EthernetPacket::minimum_packet_size()..];
    if let Some(packet) = Ipv4Packet::new(head).filter(|packet| packet.get_version() == 4) {
        let (from, to) = (packet.get_source(), packet.get_destination());
        sum(
            packet.get_next_level_protocol(),
            segment,
            |tcp| tcp::ipv4_checksum(tcp, &from, &to),
            |udp| udp::ipv4_checksum(udp, &from, &to),
        );
    } else if let Some(packet) = Ipv6Packet::new(head) {
        let (from, to) = (packet.get_source(), packet.get_destination());
        sum(
            packet.get_next_header(),
            segment,
            |tcp| tcp::ipv6_checksum(tcp, &from, &to),
            |udp| udp::ipv6_checksum(udp, &from, &to),
        );
    }
}

fn sum(
    protocol: IpNextHeaderProtocol,
    segment: &mut [u8],
    of_tcp: impl Fn(&TcpPacket<'_>) -> u16,
    of_udp: impl Fn(&UdpPacket<'_>) -> u16,
) {
    match protocol {
        IpNextHeaderProtocols::Tcp => {
            if let Some(mut tcp) = MutableTcpPacket::new(segment) {
                let sum = of_tcp(&tcp.to_immutable());
                tcp.set_checksum(sum);
            }
        }
        IpNextHeaderProtocols::Udp => {
            if let Some(mut udp) = MutableUdpPacket::new(segment) {
                let sum = of_udp(&udp.to_immutable());
                udp.set_checksum(sum);
            }
        }
        _ => {}
    }
}

/// Whether a frame carries an ICMP echo request or reply.
fn is_echo(frame: &[u8]) -> bool {
    let Some(frame) = EthernetPacket::new(frame) else {
        return false;
    };
    match frame.get_ethertype() {
        EtherTypes::Ipv4 => Ipv4Packet::new(frame.payload()).is_some_and(|packet| {
            packet.get_next_level_protocol() == IpNextHeaderProtocols::Icmp
                && IcmpPacket::new(packet.payload()).is_some_and(|icmp| {
                    matches!(
                        icmp.get_icmp_type(),
                        IcmpTypes::EchoRequest | IcmpTypes::EchoReply
                    )
                })
        }),
        EtherTypes::Ipv6 => Ipv6Packet::new(frame.payload()).is_some_and(|packet| {
            packet.get_next_header() == IpNextHeaderProtocols::Icmpv6
                && Icmpv6Packet::new(packet.payload()).is_some_and(|icmp| {
                    matches!(
                        icmp.get_icmpv6_type(),
                        Icmpv6Types::EchoRequest | Icmpv6Types::EchoReply
                    )
                })
        }),
        _ => false,
    }
}

/// What happens to one frame after another.
struct Fates {
    impairment: Impairment,
    random: Random,
}

impl Fates {
    /// After which delays it arrives: none when it is lost, two when it
    /// arrives twice.
    fn next(&mut self) -> Vec<Duration> {
        let Impairment {
            loss,
            duplicate,
            reorder,
            delay,
            jitter,
        } = self.impairment;
        if self.random.share() < loss {
            return Vec::new();
        }
        let times = if self.random.share() < duplicate {
            2
        } else {
            1
        };
        (0..times)
            .map(|_| {
                if self.random.share() < reorder {
                    Duration::ZERO
                } else {
                    delay + jitter.mul_f64(self.random.share())
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_as_likely_as_they_should_be() {
        let ms = Duration::from_millis;
        let mut fates = Fates {
            impairment: Impairment {
                loss: 0.1,
                duplicate: 0.05,
                reorder: 0.2,
                delay: ms(20),
                jitter: ms(10),
            },
            random: Random::new(7),
        };
        let all: Vec<_> = (0..100_000).map(|_| fates.next()).collect();
        let share = |of: &dyn Fn(&Vec<Duration>) -> bool| {
            u32::try_from(all.iter().filter(|fate| of(fate)).count()).unwrap()
        };
        assert!((9_500..10_500).contains(&share(&|fate| fate.is_empty())));
        assert!((4_200..4_800).contains(&share(&|fate| fate.len() == 2)));
        let delays: Vec<Duration> = all.iter().flatten().copied().collect();
        let hurried = delays.iter().filter(|delay| delay.is_zero()).count();
        assert!((17_500..20_500).contains(&hurried), "{hurried}");
        let slow = delays.iter().filter(|delay| !delay.is_zero());
        let (low, high) = slow.fold((ms(99), ms(0)), |(low, high), delay| {
            (low.min(*delay), high.max(*delay))
        });
        assert!(low >= ms(20) && low < ms(21), "{low:?}");
        assert!(high <= ms(30) && high > ms(29), "{high:?}");
    }
}
