//! What systemd is told: readiness, a watchdog that is fed only while every
//! thread gets on with its work, priorities in the journal. The test is the
//! service manager: it has the socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use av_proto_tests::pg::{Cluster, Database};
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
            // A signal: what was waited for may come all the same.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.message(wait),
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

    /// Waits for a line that begins so, and answers it.
    #[track_caller]
    fn wait_for_start(&self, start: &str) -> String {
        loop {
            let message = self.message(LIMIT);
            let Some(message) = message else {
                panic!("no {start}");
            };
            if let Some(line) = message.lines().find(|line| line.starts_with(start)) {
                return line.to_owned();
            }
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
    let began = Instant::now();
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

/// The backend, told of this manager.
fn backend(manager: &Manager, url: &str) -> Backend {
    Backend::spawn(url, |command| {
        command.envs(manager.variables());
    })
}

/// Waits until the backend is ready, and answers its status then.
#[track_caller]
fn status_when_ready(manager: &Manager) -> String {
    loop {
        let message = manager.message(LIMIT).expect("READY=1");
        if message.lines().any(|line| line == "READY=1") {
            let status = message
                .lines()
                .find_map(|line| line.strip_prefix("STATUS="));
            return status.expect("a status").to_owned();
        }
    }
}

#[track_caller]
fn assert_degraded(backend: &Backend, missing: &str) {
    let health = backend.get("/health");
    assert_eq!(health.status, 503, "{}", health.body);
    assert_eq!(health.json()["missing"], missing, "{}", health.body);
    let config = backend.get("/config/x");
    assert_eq!(config.status, 503, "{}", config.body);
    let said = config.json()["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        said.starts_with("the database is not available: "),
        "{said}"
    );
    for path in ["/", "/login", "/setup/x", "/sites/1"] {
        let cookie = ("Cookie", "av_session=0123456789abcdef");
        let page = backend.request("GET", path, &[("Accept", "text/html"), cookie], None);
        assert_eq!(page.status, 503, "{path}: {}", page.body);
        assert!(page.headers["content-type"].starts_with("text/html"));
        assert!(page.headers.contains_key("retry-after"));
    }
    let style = backend.request("GET", "/static/style.css", &[("Accept", "text/html")], None);
    assert_eq!(style.status, 200);
}

#[test]
fn a_backend_without_its_database_is_ready_and_says_what_is_missing() {
    let manager = Manager::new();
    let cluster = Cluster::start();
    let db = cluster.create_database();
    cluster.stop();
    let url = db.url().replace("av@", "av:hunter2@");
    let mut backend = backend(&manager, &url);
    let began = Instant::now();
    let status = status_when_ready(&manager);
    // Readiness is listening: systemd's start must not wait for PostgreSQL.
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    let address = format!("127.0.0.1:{}", cluster.port());
    let said = format!("waiting for PostgreSQL at {address}: Connection refused");
    assert!(status.starts_with(&said), "{status}");
    backend.process.wait_for_log(&said, 1);
    assert_degraded(&backend, "database unreachable");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }

    cluster.start_again();
    manager.wait_for("STATUS=serves");
    backend.wait_until_healthy();
    assert_eq!(backend.get("/health").json().get("missing"), None);
    let page = backend.request("GET", "/login", &[("Accept", "text/html")], None);
    assert_eq!(page.status, 200);

    // It goes away again while the program runs.
    cluster.stop();
    let status = manager.wait_for_start("STATUS=waiting for PostgreSQL at ");
    assert!(status.contains(&address), "{status}");
    assert_degraded(&backend, "database unreachable");
    cluster.start_again();
    manager.wait_for("STATUS=serves");
    let log = backend.process.log();
    assert!(!log.contains("hunter2"), "{log}");
    assert!(backend.process.terminate().success());
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_backend_with_its_database_is_ready_when_it_serves() {
    let manager = Manager::new();
    let db = Database::create();
    let mut backend = backend(&manager, &db.url());
    assert_eq!(manager.wait_for("READY=1"), Vec::<String>::new());
    backend.wait_until_healthy();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    assert!(backend.process.terminate().success());
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_migration_that_takes_long_is_waited_for_by_requests_and_not_by_systemd() {
    let manager = Manager::new();
    let db = Database::create();
    let mut other = db.connect();
    // Another program is at work on the schema.
    let lock = "SELECT pg_advisory_lock(7209411230417735)";
    other.execute(lock, &[]).unwrap();
    let mut backend = backend(&manager, &db.url());
    let status = status_when_ready(&manager);
    assert_eq!(status, "waiting for the schema to be brought up to date");
    assert_degraded(&backend, "migration under way");
    manager.wait_for("WATCHDOG=1");
    drop(other);
    manager.wait_for("STATUS=serves");
    backend.wait_until_healthy();
    assert!(backend.process.terminate().success());
}

#[test]
fn a_migration_that_is_refused_is_said_and_tried_again() {
    let manager = Manager::new();
    let cluster = Cluster::start();
    let db = cluster.create_database();
    db.execute("CREATE ROLE poor LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = db.url().replace("av@", "poor@");
    let mut backend = backend(&manager, &url);
    let status = status_when_ready(&manager);
    let said = "the schema cannot be brought up to date: permission denied for schema public";
    assert!(status.starts_with(said), "{status}");
    assert_degraded(&backend, "migration failed");
    let health = backend.get("/health").json();
    let error = health["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("permission denied for schema public"),
        "{error}"
    );
    backend.process.wait_for_log(said, 1);
    assert!(backend.process.is_running());

    // Mended without a restart, which systemd would have to make.
    db.execute("GRANT ALL ON SCHEMA public TO poor");
    manager.wait_for("STATUS=serves");
    backend.wait_until_healthy();
    assert!(backend.process.terminate().success());
}

#[test]
fn what_was_dropped_of_the_schema_is_named_until_it_is_back() {
    let manager = Manager::new();
    let db = Database::create();
    let mut backend = backend(&manager, &db.url());
    assert_eq!(status_when_ready(&manager), "serves");
    db.execute("INSERT INTO sites (name, token) VALUES ('Paris', 'paris-by-hand')");
    db.execute(
        "ALTER TABLE audit RENAME TO audit_aside; ALTER TABLE sites RENAME column timezone TO zone;
         DROP FUNCTION av_make_partitions(integer)",
    );
    // A request finds out first.
    let answer = backend.get("/config/paris-by-hand");
    assert_eq!(answer.status, 503, "{answer:?}");
    let gone = "column sites.timezone, table audit, function av_make_partitions";
    let status = manager.wait_for_start("STATUS=the schema is incomplete: ");
    assert!(status.contains(gone), "{status}");
    backend.process.wait_for_log(gone, 1);

    let health = backend.get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(health.json()["missing"], "part of the schema");
    let error = health.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(gone), "{error}");
    let page = backend.request("GET", "/login", &[("Accept", "text/html")], None);
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.body.contains(gone), "{page:?}");

    // Put back by hand, it is found at the next look.
    db.execute(
        "ALTER TABLE audit_aside RENAME TO audit; ALTER TABLE sites RENAME COLUMN zone TO timezone;
         CREATE FUNCTION av_make_partitions(months_ahead INTEGER DEFAULT 2) RETURNS INTEGER
         LANGUAGE sql AS 'SELECT 0'",
    );
    let before = manager.wait_for("STATUS=serves");
    assert!(
        before.iter().all(|said| said == "WATCHDOG=1\n"),
        "{before:?}"
    );
    backend.wait_until_healthy();
    let log = backend.process.log();
    assert_eq!(log.matches("is incomplete").count(), 1, "{log}");
    assert!(backend.process.terminate().success());
}

#[test]
fn a_schema_that_is_newer_than_the_program_is_said_while_it_serves() {
    let manager = Manager::new();
    let db = Database::create();
    Backend::start(&db.url()).process.terminate();
    db.execute("INSERT INTO schema_migrations (version, name) VALUES (999, '999_later')");
    let mut backend = backend(&manager, &db.url());
    let status = status_when_ready(&manager);
    assert_eq!(
        status,
        "serves; the schema (999) is newer than this program"
    );
    let health = backend.get("/health");
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["schema"], "newer than this program");
    assert!(backend.process.terminate().success());
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
