//! What a projector of class 2 says over UDP: it answers searches, and sends
//! notices of what changed ("Search procedure" and "Status notification" of
//! the class 2 standard).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::state::{Class2, State};

const SEARCH: &[u8] = b"%2SRCH\r";

/// How searches are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// The asker's port to which the answer goes: 4352 in the standard,
    /// wherever the search came from. `None`: back where it came from, as some
    /// projectors have it.
    pub port: Option<u16>,
    /// How long the answer takes: up to 10 s in the standard, at random.
    pub delay: Duration,
}

impl Answering {
    fn to(self, asker: SocketAddr) -> SocketAddr {
        SocketAddr::new(asker.ip(), self.port.unwrap_or(asker.port()))
    }
}

/// Answers searches until it is dropped.
#[derive(Debug)]
pub struct Responder {
    socket: UdpSocket,
    addr: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Listens on `addr`, the projector's own, with its MAC address.
    ///
    /// # Errors
    /// When the address cannot be listened on or no thread can be had.
    pub fn start(
        addr: SocketAddr,
        class2: &Class2,
        answering: Answering,
        stack: usize,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let answer = format!("%2ACKN={}\r", class2.mac_text());
        let thread = thread::Builder::new()
            .name(format!("pj-udp {addr}"))
            .stack_size(stack)
            .spawn({
                let (socket, stopping) = (socket.try_clone()?, Arc::clone(&stopping));
                move || {
                    let mut datagram = [0; 64];
                    let mut owed: VecDeque<(Instant, SocketAddr)> = VecDeque::new();
                    while !stopping.load(Ordering::Acquire) {
                        let wait = owed
                            .front()
                            .map(|(due, _)| due.saturating_duration_since(Instant::now()));
                        if wait == Some(Duration::ZERO) {
                            if let Some((_, to)) = owed.pop_front() {
                                let _ = socket.send_to(answer.as_bytes(), to);
                            }
                            continue;
                        }
                        let _ = socket.set_read_timeout(wait);
                        match socket.recv_from(&mut datagram) {
                            Ok((length, from)) if datagram.starts_with(SEARCH) && length > 0 => {
                                let due = Instant::now() + answering.delay;
                                owed.push_back((due, answering.to(from)));
                                datagram.fill(0);
                            }
                            // Something else, an answer that nobody took, or
                            // one that is due.
                            Ok(_) | Err(_) => {}
                        }
                    }
                }
            })?;
        Ok(Self {
            socket,
            addr,
            stopping,
            thread: Some(thread),
        })
    }

    /// Sends a notice from the projector's address; one that is lost is lost.
    pub fn notify(&self, to: SocketAddr, notice: &str) {
        let _ = self.socket.send_to(format!("{notice}\r").as_bytes(), to);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the thread.
        let _ = self.socket.send_to(b"\r", self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The notices of what differs between two states.
#[must_use]
pub fn notices(before: &State, after: &State) -> Vec<String> {
    let mut notices = Vec::new();
    let power = after.power.notice_digit();
    if before.power.notice_digit() != power {
        notices.push(format!("%2POWR={power}"));
    }
    if before.errors != after.errors {
        notices.push(format!("%2ERST={}", after.errors.digits()));
    }
    if before.input != after.input {
        notices.push(format!("%2INPT={}", after.input));
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::super::state::{Level, Power};
    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Some(Duration::from_secs(30));
        socket.set_read_timeout(patience).unwrap();
        socket
    }

    fn responder(port: Option<u16>, delay: Duration) -> (Responder, SocketAddr) {
        // A port that was free a moment ago.
        let addr = socket().local_addr().unwrap();
        let answering = Answering { port, delay };
        let responder = Responder::start(addr, &Class2::default(), answering, 128 * 1024).unwrap();
        (responder, addr)
    }

    #[test]
    fn a_search_is_answered_and_nothing_else_is() {
        let (responder, addr) = responder(None, Duration::ZERO);
        let client = socket();
        for datagram in [&b"%2SRC\r"[..], b"", b"%1SRCH\r", SEARCH] {
            client.send_to(datagram, addr).unwrap();
        }
        let mut answer = [0; 64];
        let (length, from) = client.recv_from(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"%2ACKN=02:00:00:00:00:01\r");
        assert_eq!(from, addr);
        responder.notify(client.local_addr().unwrap(), "%2POWR=1");
        let (length, _) = client.recv_from(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"%2POWR=1\r");
    }

    #[test]
    fn the_answer_takes_its_time_and_goes_to_the_port_of_the_standard() {
        let standard = socket();
        let port = standard.local_addr().unwrap().port();
        let delay = Duration::from_millis(300);
        let (_responder, addr) = responder(Some(port), delay);
        let asker = socket();
        let asked = Instant::now();
        asker.send_to(SEARCH, addr).unwrap();
        let mut answer = [0; 64];
        let (length, from) = standard.recv_from(&mut answer).unwrap();
        assert!(asked.elapsed() >= delay);
        assert_eq!(&answer[..length], b"%2ACKN=02:00:00:00:00:01\r");
        assert_eq!(from, addr);
        asker.set_nonblocking(true).unwrap();
        assert!(asker.recv_from(&mut answer).is_err(), "only there");
    }

    #[test]
    fn what_changes_is_notified() {
        let before = State::default();
        let mut after = before.clone();
        assert!(notices(&before, &after).is_empty());
        after.power = Power::Cooling;
        after.errors.lamp = Level::Error;
        after.input = "11".to_owned();
        assert_eq!(
            notices(&before, &after),
            ["%2POWR=0", "%2ERST=020000", "%2INPT=11"]
        );
        // Two digits for four states: a lamp that has cooled is no news.
        for (power, told) in [
            (Power::Standby, &[][..]),
            (Power::Cooling, &[]),
            (Power::WarmUp, &["%2POWR=1"]),
            (Power::On, &["%2POWR=1"]),
        ] {
            let mut state = after.clone();
            state.power = power;
            assert_eq!(notices(&after, &state), told, "{power:?}");
        }
    }
}
