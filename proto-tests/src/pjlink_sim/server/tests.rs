//! Raw TCP against a running projector.

use super::super::fault::Pieces;
use super::super::state::Power;
use super::*;

/// Long enough for any machine; a test waits for bytes, not for this.
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn start(change: impl FnOnce(&mut Config)) -> Projector {
    let mut config = config();
    change(&mut config);
    Projector::start(config).unwrap()
}

struct Client(TcpStream);

impl Client {
    fn connect(projector: &Projector) -> Self {
        let stream = TcpStream::connect(projector.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
            if byte[0] == b'\r' {
                return String::from_utf8(bytes).unwrap();
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Everything until the projector closes.
    fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is a close as well.
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn without_a_password_commands_are_answered_on_one_connection() {
    let projector = start(|config| config.state.lamp_hours = vec![1234]);
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    client.send("%1POWR ?\r%1LAMP ?\r");
    client.expect("%1POWR=1\r");
    client.expect("%1LAMP=1234 1\r");
    client.send("%1ER");
    client.send("ST ?\r");
    client.expect("%1ERST=000000\r");

    let counters = projector.counters();
    assert_eq!(
        (counters.connections, counters.open, counters.commands),
        (1, 1, 3)
    );
    assert_eq!(counters.by_command["LAMP"], 1);
}

#[test]
fn the_password_is_wanted_once_for_a_connection() {
    let projector = start(|config| config.password = Some("admin".to_owned()));
    let mut client = Client::connect(&projector);
    let greeting = client.line();
    let random = greeting.strip_prefix("PJLINK 1 ").unwrap().trim_end();
    assert!(
        random.len() == 8 && random.bytes().all(|b| b.is_ascii_hexdigit()),
        "{greeting:?}"
    );
    let digest = format!("{:x}", md5::compute(format!("{random}admin")));
    client.send(&format!("{digest}%1POWR ?\r"));
    client.expect("%1POWR=1\r");
    client.send("%1NAME ?\r");
    client.expect("%1NAME=Projecteur\r");

    assert_ne!(
        Client::connect(&projector).line(),
        greeting,
        "a new number each time"
    );
}

#[test]
fn a_wrong_password_is_erra_and_ends_the_connection() {
    let projector = start(|config| {
        config.password = Some("admin".to_owned());
        config.faults.lock_after = Some(2);
    });
    for command in [
        "%1POWR ?\r".to_owned(),
        format!("{}%1POWR ?\r", "0".repeat(32)),
    ] {
        let mut client = Client::connect(&projector);
        client.line();
        client.send(&command);
        client.expect("PJLINK ERRA\r");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(projector.counters().wrong_passwords, 2);

    // Locked now: not even a greeting with a number.
    Client::connect(&projector).expect("PJLINK ERRA\r");
    projector.unlock();
    assert!(Client::connect(&projector).line().starts_with("PJLINK 1 "));
}

#[test]
fn the_state_changes_at_run_time() {
    let projector = start(|config| config.timing.cool_down = Duration::from_millis(20));
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    projector.update(|state| {
        state.errors.lamp = super::super::state::Level::Error;
        state.lamp_hours = vec![7, 8];
    });
    client.send("%1ERST ?\r%1LAMP ?\r%1POWR 0\r");
    client.expect("%1ERST=020000\r");
    client.expect("%1LAMP=7 1 8 1\r");
    client.expect("%1POWR=OK\r");
    until("it has cooled", || {
        projector.state().power == Power::Standby
    });
}

#[test]
fn idle_connections_are_closed() {
    let projector = start(|config| config.idle_close = Duration::from_millis(100));
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    client.send("%1POW");
    assert_eq!(client.rest(), b"");
    until("it is off the list", || projector.counters().open == 0);
}

#[test]
fn a_line_without_an_end_closes_the_connection() {
    let projector = start(|_| {});
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    client.send(&"x".repeat(LINE_MAX + 1));
    assert_eq!(client.rest(), b"");
}

#[test]
fn one_connection_too_many_is_turned_away() {
    let projector = start(|config| config.max_connections = 1);
    let mut first = Client::connect(&projector);
    first.expect("PJLINK 0\r");
    assert_eq!(Client::connect(&projector).rest(), b"");
    assert_eq!(projector.counters().turned_away, 1);
    drop(first);
    until("there is room again", || projector.counters().open == 0);
    Client::connect(&projector).expect("PJLINK 0\r");
}

#[test]
fn refusing_closes_the_port_and_opens_it_again() {
    let projector = start(|config| config.faults.refuse = true);
    let addr = projector.addr();
    let refused =
        || TcpStream::connect(addr).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    until("the port is closed", refused);
    projector.set_faults(|faults| faults.refuse = false);
    until("the port is open", || TcpStream::connect(addr).is_ok());
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    projector.set_faults(|faults| faults.refuse = true);
    assert_eq!(client.rest(), b"");
    until("the port is closed again", refused);
}

#[test]
fn faults_do_what_they_say() {
    for (fault, expected) in [
        ("silent", ""),
        ("erra-greeting", "PJLINK ERRA\r"),
        (
            "garbage-greeting",
            "SSH-2.0-\u{fffd}\u{fffd}\0 not a projector\r",
        ),
        (
            "garbage-answers",
            "PJLINK 0\rSSH-2.0-\u{fffd}\u{fffd}\0 not a projector\r",
        ),
        ("close-after-answer", "PJLINK 0\r%1POWR=1\r"),
        ("close-before-answer", "PJLINK 0\r"),
        ("lower-case", "pjlink 0\r%1powr=1\r"),
        ("slow-greeting=20", "PJLINK 0\r%1POWR=1\r"),
        ("slow-answers=20", "PJLINK 0\r%1POWR=1\r"),
        ("POWR=ERR4", "PJLINK 0\r%1POWR=ERR4\r"),
    ] {
        let projector = start(|config| config.faults.add(fault).unwrap());
        let mut client = Client::connect(&projector);
        // A projector that closed already does not take them any more.
        let _ = client.0.write_all(b"%1POWR ?\r");
        let _ = client.0.shutdown(Shutdown::Write);
        assert_eq!(String::from_utf8_lossy(&client.rest()), expected, "{fault}");
    }
}

#[test]
fn pieces_come_one_by_one() {
    let projector = start(|config| {
        config.faults.pieces = Some(Pieces {
            size: 1,
            pause: Duration::from_millis(5),
        });
    });
    let mut client = Client::connect(&projector);
    let began = Instant::now();
    client.expect("PJLINK 0\r");
    // Eight pauses lie between the nine bytes.
    assert!(began.elapsed() >= Duration::from_millis(30), "all at once");
    client.send("%1POWR ?\r");
    client.expect("%1POWR=1\r");
}

#[test]
fn an_endless_answer_never_ends_by_itself() {
    let projector = start(|config| config.faults.garbage = Garbage::Endless);
    let mut client = Client::connect(&projector);
    client.expect("PJLINK 0\r");
    client.send("%1POWR ?\r");
    let mut much = vec![0; 100_000];
    client.0.read_exact(&mut much).unwrap();
    assert!(!much.contains(&b'\r'));
}

#[test]
fn dropping_ends_everything_at_once() {
    let projector = start(|config| config.faults.greeting_delay = Duration::from_secs(3600));
    let addr = projector.addr();
    let mut waiting = Client::connect(&projector);
    until("it is served", || projector.counters().open == 1);
    drop(projector);
    assert_eq!(waiting.rest(), b"");
    assert!(TcpStream::connect(addr).is_err());
}
