//! What a projector of class 2 says over UDP: it answers searches, and sends
//! notices of what changed ("Search procedure" and "Status notification" of
//! the class 2 standard).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::state::{Class2, State};

const SEARCH: &[u8] = b"%2SRCH\r";

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
    pub fn start(addr: SocketAddr, class2: &Class2, stack: usize) -> io::Result<Self> {
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
                    while !stopping.load(Ordering::Acquire) {
                        match socket.recv_from(&mut datagram) {
                            Ok((length, from)) if datagram.starts_with(SEARCH) && length > 0 => {
                                let _ = socket.send_to(answer.as_bytes(), from);
                                datagram.fill(0);
                            }
                            // Something else, or an answer that nobody took.
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
    if before.power != after.power {
        notices.push(format!("%2POWR={}", after.power.digit()));
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
    use std::time::Duration;

    use super::super::state::{Level, Power};
    use super::*;

    #[test]
    fn a_search_is_answered_and_nothing_else_is() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let class2 = Class2::default();
        let responder = Responder::start(addr, &class2, 128 * 1024).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
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
    fn what_changes_is_notified() {
        let before = State::default();
        let mut after = before.clone();
        assert!(notices(&before, &after).is_empty());
        after.power = Power::Cooling;
        after.errors.lamp = Level::Error;
        after.input = "11".to_owned();
        assert_eq!(
            notices(&before, &after),
            ["%2POWR=2", "%2ERST=020000", "%2INPT=11"]
        );
    }
}
