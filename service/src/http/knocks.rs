//! The edge's own connections to its listener.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::socket::Descriptors;

/// How long a connection to the own listener may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);
/// So many knocks wait for an answer at a time where nothing asks for more.
const WAITING: usize = 4;
/// So many are made at once at the most.
const AT_ONCE: usize = 16;
/// Descriptors that a knock takes: its own, and tiny_http's two.
const DESCRIPTORS: usize = 3;
/// So much sooner the next ones follow where the last ones found somebody.
const HURRY: u32 = 4;

/// Connections that tiny_http answers with 400 and closes at once.
///
/// They show that the accepting thread lives. And they free what lies in a
/// queue: tiny_http hands a new connection to an idle thread; of several that
/// arrive together more may be meant for the same one, and the rest then lie
/// there until some other connection ends, which with a browser's idle ones
/// takes minutes. The thread that took a knock looks into the queue. Where it
/// found a connection there it stays with that, and so there is a thread more
/// than before: as long as they get more, twice as many knocks follow. Several at
/// once leave three quarters of the free descriptors to others.
pub(super) struct Knocks {
    address: SocketAddr,
    waiting: Vec<TcpStream>,
    heard: Instant,
    /// How many are made at once.
    at_once: usize,
    /// How many threads there were.
    threads: usize,
}

impl Knocks {
    /// At a listener of this program.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address: reachable(address),
            waiting: Vec::new(),
            heard: Instant::now(),
            at_once: 1,
            threads: 0,
        }
    }

    /// Knocks; answers how long there was no answer.
    pub(super) fn knock(&mut self, descriptors: &mut Descriptors) -> Duration {
        let threads = descriptors.threads();
        let more = threads.saturating_sub(std::mem::replace(&mut self.threads, threads));
        self.at_once = after(self.at_once, more);
        if self.at_once > 1 {
            self.at_once = within(self.at_once, descriptors.free());
        }
        let before = self.waiting.len();
        self.waiting.retain_mut(|knock| {
            knock
                .read(&mut [0; 64])
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        // No knock on the way proves nothing: this program may have no
        // descriptor left for one.
        if self.waiting.len() < before || before == 0 {
            self.heard();
        }
        for _ in 0..self.at_once {
            if self.waiting.len() >= self.at_once.max(WAITING) {
                break;
            }
            let Ok(mut knock) = TcpStream::connect_timeout(&self.address, CONNECT_LIMIT) else {
                break;
            };
            if knock.write_all(b"\r\n").is_ok() && knock.set_nonblocking(true).is_ok() {
                self.waiting.push(knock);
            }
        }
        self.heard.elapsed()
    }

    /// So much sooner than usual the next are to be made.
    pub(super) fn hurry(&self) -> u32 {
        match self.at_once {
            1 => 1,
            _ => HURRY,
        }
    }

    /// There is no reason to complain of silence.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }
}

/// How many knocks are made at once after so many at once, and with so many
/// threads more.
fn after(at_once: usize, more: usize) -> usize {
    match more {
        0 => 1,
        _ => (2 * at_once).max(more).min(AT_ONCE),
    }
}

/// How many of those are made where so many descriptors are free.
fn within(at_once: usize, free: usize) -> usize {
    at_once.min(free / DESCRIPTORS / 4).max(1)
}

/// The address at which this machine reaches its own listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_knocks_follow_as_long_as_there_are_more_threads() {
        for (at_once, more, expected) in [
            (1, 0, (1, 1)),
            (1, 1, (2, HURRY)),
            (2, 2, (4, HURRY)),
            (8, 3, (16, HURRY)),
            (16, 16, (16, HURRY)),
            (1, 9, (9, HURRY)),
            (1, 900, (16, HURRY)),
            (16, 0, (1, 1)),
        ] {
            let knocks = Knocks {
                at_once: after(at_once, more),
                ..Knocks::new(([127, 0, 0, 1], 80).into())
            };
            let next = (knocks.at_once, knocks.hurry());
            assert_eq!(next, expected, "{at_once} and {more}");
        }
    }

    #[test]
    fn knocks_leave_descriptors_to_others() {
        for (at_once, free, made) in [
            (16, usize::MAX, 16),
            (16, 192, 16),
            (16, 191, 15),
            (16, 41, 3),
            (2, 41, 2),
            (16, 11, 1),
            (16, 0, 1),
        ] {
            assert_eq!(within(at_once, free), made, "{at_once} and {free}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_at_this_machine() {
        for (listens, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            let reached: SocketAddr = reached.parse().unwrap();
            assert_eq!(reachable(listens.parse().unwrap()), reached);
        }
    }
}
