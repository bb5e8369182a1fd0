//! Connections that arrive together while others are kept open, as browsers
//! do it: each is answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use av_proto_tests::process::Backend;

/// So long nobody waits for an answer; without one the others stay open.
const LIMIT: Duration = Duration::from_secs(60);

fn start() -> (Backend, String) {
    // No database is needed for a file.
    let backend = Backend::spawn("postgres://nobody@127.0.0.1:1/none", |_| {});
    let address = backend.url.trim_start_matches("http://").to_owned();
    backend
        .process
        .wait_for("the backend listens", || TcpStream::connect(&address).ok());
    (backend, address)
}

fn ask(connection: &mut TcpStream) {
    connection
        .write_all(b"GET /static/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
}

fn answer(connection: &mut TcpStream) -> String {
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let mut start = [0; 12];
    connection
        .read_exact(&mut start)
        .expect("a connection of the burst is answered while the others stay open");
    String::from_utf8_lossy(&start).into_owned()
}

#[test]
fn a_burst_of_connections_is_answered_while_others_are_idle() {
    let (_backend, address) = start();
    for _ in 0..5 {
        let mut idle: Vec<TcpStream> = (0..12)
            .map(|_| {
                let mut connection = TcpStream::connect(&address).unwrap();
                ask(&mut connection);
                assert_eq!(answer(&mut connection), "HTTP/1.1 200");
                connection
            })
            .collect();
        // Its thread becomes free: one for the four that come.
        idle.pop();
        std::thread::sleep(Duration::from_millis(50));
        let mut burst: Vec<TcpStream> = (0..4)
            .map(|_| TcpStream::connect(&address).unwrap())
            .collect();
        for connection in &mut burst {
            ask(connection);
        }
        for connection in &mut burst {
            assert_eq!(answer(connection), "HTTP/1.1 200");
        }
    }
}

#[test]
fn a_burst_upon_a_program_that_just_started_is_answered() {
    let (_backend, address) = start();
    // Freed from the queue one at a time, the last are closed as too slow.
    let mut burst: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut connection = TcpStream::connect(&address).unwrap();
            ask(&mut connection);
            connection
        })
        .collect();
    for connection in &mut burst {
        assert_eq!(answer(connection), "HTTP/1.1 200");
    }
}
