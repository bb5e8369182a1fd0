//! The PJLink driver against hand-written projectors on loopback TCP.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use av_agent::driver::{Drivers, probe_once};
use av_agent::finding::Finding;
use av_agent::supervisor::Health;
use av_proto::config::Device;
use av_proto::driver::{DriverSettings, PjlinkSettings};
use av_proto::secret::Secret;
use av_proto::verdict::{Expectations, Status};
use serde_json::{Value, json};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PASSWORD: &str = "s3cret-Word";
const RANDOM: &str = "498E4a67";
/// Longer than any machine is slow, where no test waits for its end.
const PATIENT: Duration = Duration::from_secs(15);
/// For tests that wait for its end.
const HASTY: Duration = Duration::from_millis(300);

fn device(settings: PjlinkSettings) -> Device {
    Device {
        ip: HOST,
        ip_text: HOST.to_string(),
        name: "P".to_owned(),
        building: String::new(),
        floor: String::new(),
        room: String::new(),
        device_type: "projector".to_owned(),
        driver: "pjlink".to_owned(),
        settings: DriverSettings::Pjlink(settings),
        interval: None,
        expectations: Expectations::default(),
        unknown: [].into(),
        echoed: None,
    }
}

/// One connection as a projector sees it.
struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    /// From 0.
    number: usize,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Sends; a probe that has gone is no error.
    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next command, without its end; `None` once the probe has gone.
    fn hear(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\r', &mut line).ok()?;
        let command = String::from_utf8(line).unwrap();
        let command = command.strip_suffix('\r')?.to_owned();
        self.heard.lock().unwrap().push(command.clone());
        Some(command)
    }

    /// Waits until the probe has gone, and says nothing.
    fn wait(&mut self) {
        while self.hear().is_some() {}
    }
}

/// A listening projector; `play` has each connection in turn. And an agent's
/// drivers, which remember it.
struct Projector {
    drivers: Drivers,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Projector {
    fn start(mut play: impl FnMut(&mut Peer) + Send + 'static) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let thread = thread::spawn({
            let (stop, heard) = (Arc::clone(&stop), Arc::clone(&heard));
            move || {
                for (number, stream) in listener.incoming().enumerate() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let stream = stream.unwrap();
                    stream.set_read_timeout(Some(PATIENT * 4)).unwrap();
                    play(&mut Peer {
                        reader: BufReader::new(stream.try_clone().unwrap()),
                        stream,
                        number,
                        heard: Arc::clone(&heard),
                    });
                }
            }
        });
        Self {
            drivers: Drivers::start(&Health::default()),
            address,
            stop,
            heard,
            thread: Some(thread),
        }
    }

    fn probe(&self, password: Option<&str>, timeout: Duration) -> Finding {
        let settings = PjlinkSettings {
            password: password.map(Secret::new),
            port: self.address.port(),
            timeout,
        };
        let found = probe_once(&self.drivers, &device(settings));
        assert!(
            !format!("{found:?}").contains(PASSWORD),
            "the password is shown"
        );
        found
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let played = thread.join();
            if !thread::panicking() {
                played.expect("the projector panicked");
            }
        }
    }
}

/// What a healthy projector answers; `None`: it says nothing.
fn healthy(command: &str) -> &'static str {
    match command {
        "%1POWR ?" => "%1POWR=1\r",
        "%1ERST ?" => "%1ERST=000000\r",
        "%1LAMP ?" => "%1LAMP=1234 1\r",
        "%1CLSS ?" => "%1CLSS=1\r",
        "%1INPT ?" => "%1INPT=31\r",
        "%1AVMT ?" => "%1AVMT=30\r",
        "%1INST ?" => "%1INST=11 31\r",
        "%1NAME ?" => "%1NAME=Salle des Fêtes\r",
        "%1INF1 ?" => "%1INF1=Acme\r",
        "%1INF2 ?" => "%1INF2=P-100\r",
        "%1INFO ?" => "%1INFO=\r",
        other => panic!("asked for {other}"),
    }
}

fn standby(command: &str) -> &'static str {
    match command {
        "%1POWR ?" => "%1POWR=0\r",
        "%1ERST ?" => "%1ERST=ERR3\r",
        "%1LAMP ?" => "%1LAMP=ERR3\r",
        "%1INPT ?" => "%1INPT=ERR3\r",
        other => healthy(other),
    }
}

/// As the standard wants it: 32 lower-case hexadecimal digits in front.
fn with_digest(command: &str) -> String {
    let digest = md5::compute(format!("{RANDOM}{PASSWORD}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}{command}")
}

/// Demands the digest on the first command of each connection.
fn locked(peer: &mut Peer) {
    peer.say(format!("PJLINK 1 {RANDOM}\r"));
    let Some(first) = peer.hear() else { return };
    if first != with_digest("%1POWR ?") {
        peer.say("PJLINK ERRA\r");
        return;
    }
    peer.say(healthy("%1POWR ?"));
    while let Some(command) = peer.hear() {
        peer.say(healthy(&command));
    }
}

fn healthy_metrics(projector: &Projector, auth: bool) -> Value {
    json!({
        "pjlink_ok": true,
        "pjlink_port": projector.address.port(),
        "pjlink_auth": auth,
        "pjlink_power": 1,
        "pjlink_power_label": "on",
        "pjlink_error": null,
        "pjlink_lamps": [{"hours": 1234, "on": true}],
        "pjlink_errors": {"fan": "ok", "lamp": "ok", "temperature": "ok", "cover": "ok",
            "filter": "ok", "other": "ok"},
        "pjlink_input": "31",
        "pjlink_name": "Salle des Fêtes",
        "pjlink_manufacturer": "Acme",
        "pjlink_model": "P-100",
        "pjlink_class": 1,
        "pjlink_lamp_hours": 1234,
        "pjlink_inputs": ["11", "31"],
        "pjlink_mute": {"picture": false, "sound": false},
    })
}

fn assert_healthy(projector: &Projector, found: Finding, auth: bool) {
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert_eq!(found.detail.as_deref(), Some("on, lamp 1234 h"));
    assert_eq!(
        Value::Object(found.metrics),
        healthy_metrics(projector, auth)
    );
}

fn assert_trouble(found: &Finding, status: Status, error: &str) {
    assert_eq!(found.status, status, "{found:?}");
    assert_eq!(found.metrics["pjlink_error"], error);
    assert_eq!(found.metrics["pjlink_ok"], false);
    let detail = found.detail.as_deref().unwrap();
    assert!(detail.ends_with(error), "{detail}");
}

#[test]
fn all_is_asked_over_one_connection() {
    let projector = Projector::start(|peer| {
        assert_eq!(peer.number, 0);
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            peer.say(healthy(&command));
        }
    });
    assert_healthy(&projector, projector.probe(None, PATIENT), false);
    assert_eq!(
        projector.heard(),
        [
            "%1POWR ?", "%1ERST ?", "%1LAMP ?", "%1CLSS ?", "%1INPT ?", "%1AVMT ?", "%1INST ?",
            "%1NAME ?", "%1INF1 ?", "%1INF2 ?", "%1INFO ?"
        ]
    );
}

#[test]
fn a_password_that_nobody_wants_is_not_sent() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            peer.say(healthy(&command));
        }
    });
    let found = projector.probe(Some(PASSWORD), PATIENT);
    assert_healthy(&projector, found, false);
}

#[test]
fn the_digest_precedes_the_first_command_only() {
    let projector = Projector::start(locked);
    let found = projector.probe(Some(PASSWORD), PATIENT);
    assert_healthy(&projector, found, true);
    let heard = projector.heard();
    assert_eq!(heard[0], with_digest("%1POWR ?"));
    assert_eq!(heard[1], "%1ERST ?");
}

#[test]
fn a_wrong_password_is_told() {
    let projector = Projector::start(locked);
    for wrong in ["other", "S3CRET-wORD"] {
        let found = projector.probe(Some(wrong), PATIENT);
        assert_trouble(
            &found,
            Status::Online,
            "authentication failed (ERRA): check the password",
        );
        assert_eq!(found.metrics["pjlink_auth"], true);
        assert!(found.metrics["pjlink_power"].is_null());
    }
    // Each once as the standard spells the digest, once in capitals.
    assert_eq!(projector.heard().len(), 4);
}

#[test]
fn a_missing_password_is_told() {
    let projector = Projector::start(locked);
    let found = projector.probe(None, PATIENT);
    assert_trouble(
        &found,
        Status::Online,
        "projector wants a password, and none is configured",
    );
    assert_eq!(found.metrics["pjlink_auth"], true);
    // There is nothing to say without it.
    assert!(projector.heard().is_empty());
}

#[test]
fn closing_on_the_digest_hints_at_the_password() {
    let projector = Projector::start(|peer| {
        peer.say(format!("PJLINK 1 {RANDOM}\r"));
        peer.hear();
    });
    assert_trouble(
        &projector.probe(Some(PASSWORD), PATIENT),
        Status::Online,
        "projector closed the connection: check the password",
    );
}

#[test]
fn a_refusal_may_come_for_a_greeting() {
    let projector = Projector::start(|peer| peer.say("PJLINK ERRA\r"));
    let found = projector.probe(Some(PASSWORD), PATIENT);
    assert_trouble(
        &found,
        Status::Online,
        "authentication failed (ERRA): check the password",
    );
    assert_eq!(found.metrics["pjlink_auth"], true);
}

#[test]
fn standby_is_online() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            peer.say(standby(&command));
        }
    });
    let found = projector.probe(None, PATIENT);
    assert_eq!(found.status, Status::Online);
    assert_eq!(found.detail.as_deref(), Some("standby"));
    assert_eq!(found.metrics["pjlink_ok"], true);
    assert_eq!(found.metrics["pjlink_power"], 0);
    assert_eq!(found.metrics["pjlink_power_label"], "off");
    assert!(found.metrics["pjlink_error"].is_null());
    assert!(found.metrics["pjlink_lamps"].is_null());
}

#[test]
fn a_failure_is_told() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            match command.as_str() {
                "%1POWR ?" => peer.say("%1POWR=ERR4\r"),
                "%1ERST ?" => peer.say("%1ERST=020001\r"),
                other => peer.say(healthy(other)),
            }
        }
    });
    let found = projector.probe(None, PATIENT);
    assert_eq!(found.status, Status::Online);
    assert_eq!(
        found.detail.as_deref(),
        Some("lamp error, other warning; projector reports a failure (ERR4 to POWR)")
    );
    assert_eq!(found.metrics["pjlink_errors"]["lamp"], "error");
    assert_eq!(found.metrics["pjlink_ok"], false);
}

#[test]
fn pieces_odd_ends_and_small_letters_are_understood() {
    let projector = Projector::start(|peer| {
        for piece in ["pj", "link ", "0\r", "\n"] {
            peer.say(piece);
            thread::sleep(Duration::from_millis(30));
        }
        while let Some(command) = peer.hear() {
            let (start, end) = healthy(&command).split_at(7);
            peer.say(start.to_ascii_lowercase());
            thread::sleep(Duration::from_millis(10));
            peer.say(end.trim_end());
            thread::sleep(Duration::from_millis(10));
            peer.say("\r\n");
        }
    });
    let found = projector.probe(None, PATIENT);
    assert_healthy(&projector, found, false);
}

#[test]
fn a_slow_greeting_within_the_time_out_is_waited_for() {
    let projector = Projector::start(|peer| {
        thread::sleep(Duration::from_millis(1200));
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            peer.say(healthy(&command));
        }
    });
    let found = projector.probe(None, PATIENT);
    assert_healthy(&projector, found, false);
}

#[test]
fn closing_after_each_answer_is_endured() {
    let projector = Projector::start(|peer| {
        peer.say(format!("PJLINK 1 {RANDOM}\r"));
        let Some(command) = peer.hear() else { return };
        let bare = &command[32..];
        assert_eq!(command, with_digest(bare));
        peer.say(healthy(bare));
    });
    let found = projector.probe(Some(PASSWORD), PATIENT);
    assert_healthy(&projector, found, true);
}

#[test]
fn closing_for_good_keeps_what_was_learnt() {
    let projector = Projector::start(|peer| {
        if peer.number > 0 {
            // Closes without a word.
            return;
        }
        peer.say("PJLINK 0\r");
        let command = peer.hear().unwrap();
        peer.say(healthy(&command));
    });
    let found = projector.probe(None, PATIENT);
    let port = projector.address.port();
    let error = format!(
        "projector closed the connection, then port {port} open, but closed before a PJLink \
         greeting: another controller connected?"
    );
    assert_trouble(&found, Status::Online, &error);
    assert_eq!(found.metrics["pjlink_power"], 1);
    assert_eq!(found.detail, Some(format!("on; {error}")));
}

#[test]
fn closing_before_the_first_answer_is_told() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        peer.hear();
    });
    let found = projector.probe(None, PATIENT);
    assert_trouble(
        &found,
        Status::Online,
        "projector closed the connection without an answer to POWR",
    );
    assert_eq!(projector.heard(), ["%1POWR ?"]);
}

#[test]
fn what_is_not_pjlink_is_offline() {
    for (said, shown) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], ": SSH-2.0-OpenSSH_9.2"),
        (b"\x1b[2J\xff\x00x\r", ": \u{fffd}[2J\u{fffd}\u{fffd}x"),
        (&[b'A'; 5000], ""),
    ] {
        let projector = Projector::start(move |peer| {
            peer.say(said);
            peer.wait();
        });
        let found = projector.probe(None, PATIENT);
        let port = projector.address.port();
        assert_trouble(
            &found,
            Status::Offline,
            &format!("port {port} does not speak PJLink{shown}"),
        );
        assert!(found.metrics["pjlink_auth"].is_null());
        assert!(projector.heard().is_empty());
    }
}

#[test]
fn garbage_after_the_greeting_is_told() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        peer.hear();
        peer.say("\u{1}\u{2}\r".repeat(100));
        peer.wait();
    });
    assert_trouble(
        &projector.probe(None, PATIENT),
        Status::Online,
        "answer to POWR is not PJLink",
    );
}

#[test]
fn a_late_answer_is_not_taken_for_the_next() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            match command.as_str() {
                // Not in time; its answer comes before the next one's.
                "%1ERST ?" => {}
                "%1LAMP ?" => {
                    // One command at a time is allowed on a connection.
                    assert_eq!(peer.number, 1);
                    peer.say("%1ERST=222222\r%1LAMP=1234 1\r");
                }
                other => peer.say(healthy(other)),
            }
        }
    });
    // Generous to a slow machine, as the time-out has to be waited for.
    let found = projector.probe(None, Duration::from_secs(3));
    assert_trouble(&found, Status::Online, "no answer to ERST within 4 s");
    assert_eq!(
        found.detail.as_deref(),
        Some("on, lamp 1234 h; no answer to ERST within 4 s")
    );
    assert_eq!(found.metrics["pjlink_model"], "P-100");
}

#[test]
fn silence_before_the_greeting_is_offline() {
    let projector = Projector::start(Peer::wait);
    let found = projector.probe(None, HASTY);
    let port = projector.address.port();
    assert_trouble(
        &found,
        Status::Offline,
        &format!(
            "port {port} open, but no PJLink greeting within 0.3 s: another controller connected?"
        ),
    );
}

#[test]
fn silence_after_the_greeting_is_online_and_an_error() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        peer.wait();
    });
    let found = projector.probe(None, Duration::from_secs(2));
    assert_trouble(&found, Status::Online, "no answer to POWR within 3 s");
    assert_eq!(projector.heard(), ["%1POWR ?"]);
}

#[test]
fn a_projector_that_ignores_queries_is_not_asked_for_ever() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            if command == "%1POWR ?" {
                peer.say(healthy(&command));
            }
        }
    });
    let found = projector.probe(None, Duration::from_secs(2));
    assert_trouble(&found, Status::Online, "no answer to ERST within 3 s");
    assert_eq!(projector.heard(), ["%1POWR ?", "%1ERST ?", "%1LAMP ?"]);
}

#[test]
fn a_slow_projector_holds_a_probe_for_a_bounded_time() {
    let projector = Projector::start(|peer| {
        peer.say("PJLINK 0\r");
        while let Some(command) = peer.hear() {
            thread::sleep(Duration::from_millis(1700));
            peer.say(healthy(&command));
        }
    });
    // 3 × 2 s + 5 s, while eleven answers take 18.7 s.
    let found = projector.probe(None, Duration::from_secs(2));
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert!(found.metrics["pjlink_model"].is_null());
    assert!(projector.heard().len() < 8);
}

#[test]
fn a_closed_port_is_offline() {
    // A port that was free a moment ago.
    let port = TcpListener::bind((HOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let settings = PjlinkSettings {
        password: None,
        port,
        timeout: PATIENT,
    };
    let found = probe_once(&Drivers::start(&Health::default()), &device(settings));
    assert_trouble(&found, Status::Offline, &format!("port {port} closed"));
    assert!(found.metrics["pjlink_auth"].is_null());
}

#[test]
fn capital_digests_are_tried_and_remembered() {
    let projector = Projector::start(|peer| {
        peer.say(format!("PJLINK 1 {RANDOM}\r"));
        let Some(first) = peer.hear() else { return };
        let right = with_digest("");
        if first != format!("{}%1POWR ?", right.to_uppercase()) {
            peer.say("PJLINK ERRA\r");
            return;
        }
        peer.say(healthy("%1POWR ?"));
        while let Some(command) = peer.hear() {
            peer.say(healthy(&command));
        }
    });
    // Eleven questions, the first of them twice where it is not known yet.
    for heard in [12, 11] {
        let before = projector.heard().len();
        let found = projector.probe(Some(PASSWORD), PATIENT);
        assert_healthy(&projector, found, true);
        assert_eq!(projector.heard().len() - before, heard);
    }
}

#[test]
fn a_refused_password_does_not_lock_the_projector() {
    // It locks itself at the third wrong password.
    let projector = Projector::start(locked);
    for _ in 0..10 {
        let found = projector.probe(Some("wrong"), PATIENT);
        // It is there, and what is wrong is said, each time in the same words.
        assert_trouble(
            &found,
            Status::Online,
            "authentication failed (ERRA): check the password",
        );
        assert_eq!(found.metrics["pjlink_auth"], true);
    }
    assert_eq!(projector.heard().len(), 2, "once in each kind of letters");
    // Put right, it is tried at once.
    let found = projector.probe(Some(PASSWORD), PATIENT);
    assert_healthy(&projector, found, true);
}
