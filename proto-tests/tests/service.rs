//! What systemd is told: readiness, a watchdog that is fed only while every
//! thread gets on with its work, priorities in the journal. The test is the
//! service manager: it has the socket.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Agent, Backend, LIMIT};
use serde_json::json;
use tempfile::TempDir;

/// The watchdog's period that the programs are told.
const PERIOD: Duration = Duration::from_millis(600);

/// The service manager's socket.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        [
            (
                "NOTIFY_SOCKET",
                self.dir.path().join("notify").to_str().unwrap().to_owned(),
            ),
            ("WATCHDOG_USEC", PERIOD.as_micros().to_string()),
        ]
    }

    /// The next message, where one comes within `wait`.
    fn message(&self, wait: Duration) -> Option<String> {
        let mut buffer = [0; 1024];
        self.socket.set_read_timeout(Some(wait)).unwrap();
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with this line, and answers those before it.
    #[track_caller]
    fn wait_for(&self, line: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.message(LIMIT);
            let Some(message) = message else {
                panic!("no {line} after {before:?}");
            };
            if message.lines().any(|said| said == line) {
                return before;
            }
            before.push(message);
        }
    }

    /// What has come so far is forgotten.
    fn forget(&self) {
        while self.message(Duration::from_millis(1)).is_some() {}
    }
}

fn lonely_agent(manager: &Manager) -> Agent {
    let mut agent = Agent::new(&json!({
        "site_name": "Lyon", "site_token": "lyon-token-77aa",
        // Nobody listens there: an unreachable backend is not a hang.
        "api_url": "http://127.0.0.1:9/ingest",
    }));
    for (name, value) in manager.variables() {
        agent.set(name, &value);
    }
    agent
}

#[test]
fn a_thread_that_hangs_ends_the_feeding_until_it_gets_on() {
    let manager = Manager::new();
    let mut agent = lonely_agent(&manager);
    agent.set("AV_HANG_S", "3");
    agent.start();
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("Config sync failed", 1);

    // A disk that does not answer: who opens the file for reading waits until
    // somebody writes.
    let config = agent.config_file();
    let content = fs::read(&config).unwrap();
    let pipe = config.with_file_name("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::rename(&pipe, &config).unwrap();
    // The manager goes on reading: whoever tells one that does not is held.
    let said = "thread sync has not moved for 3 s: the watchdog is not fed";
    let began = std::time::Instant::now();
    while !process.log().contains(said) {
        assert!(began.elapsed() < LIMIT, "not said: {}", process.log());
        manager.forget();
    }
    manager.forget();
    assert_eq!(manager.message(PERIOD * 3), None, "fed although sync hangs");
    assert!(
        agent.get("/health").is_some(),
        "the other threads still work"
    );

    fs::File::options()
        .write(true)
        .open(&config)
        .unwrap()
        .write_all(&content)
        .unwrap();
    fs::write(&pipe, &content).unwrap();
    fs::rename(&pipe, &config).unwrap();
    // Who opened the pipe once more, before the file was there again, is let
    // go too.
    manager.wait_for("WATCHDOG=1");
    agent
        .process
        .as_ref()
        .unwrap()
        .wait_for_log("thread sync works again", 1);

    assert!(agent.process.as_mut().unwrap().terminate().success());
    manager.wait_for("STOPPING=1");
}

#[test]
fn the_backend_is_ready_with_the_schema_and_not_before() {
    let manager = Manager::new();
    let db = Database::create();
    let tell = |command: &mut Command| {
        command.envs(manager.variables());
    };
    let mut backend = Backend::spawn("postgres://nobody@127.0.0.1:9/none", tell);
    backend
        .process
        .wait_for_log("the schema is not up to date", 1);
    assert_eq!(
        manager.message(PERIOD * 2),
        None,
        "not ready without a schema"
    );
    backend.process.terminate();
    manager.wait_for("STOPPING=1");

    let mut backend = Backend::spawn(&db.url(), tell);
    assert_eq!(manager.wait_for("READY=1"), Vec::<String>::new());
    backend.wait_until_healthy();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    assert!(backend.process.terminate().success());
    manager.wait_for("STOPPING=1");
}

#[test]
fn lines_to_the_journal_have_a_priority() {
    let manager = Manager::new();
    let mut agent = lonely_agent(&manager);
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("Config sync failed", 1);
    assert!(
        !process.log().contains("<4>"),
        "not for a file:\n{}",
        process.log()
    );

    // The journal's stream is what standard error is. The shell knows which
    // file that is.
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"",
            "sh",
        ])
        .arg(av_proto_tests::process::binary("av-agent"))
        .env("AGENT_CONFIG", "/nonexistent/config.json")
        .env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        !log.is_empty() && log.lines().all(|line| line.starts_with("<3>av_agent: ")),
        "{log}"
    );
}
