//! The real binaries as processes: built once, started on free ports, their
//! logs kept in a file, ended with the test.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails loudly, with what it was doing"
)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a condition may take on a slow, busy machine. A test waits this
/// long only when it fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a condition is waited for that takes many steps, each of which may
/// be slow: a machine that builds something else meanwhile is no fault.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The ports handed out: below those that the system gives to outgoing
/// connections, so that none of these takes one before its server does.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A TCP port of 127.0.0.1 that nobody listens on, and that no other test of
/// this process is given: a test must not find another one's server there.
///
/// # Panics
/// When the machine has none left.
#[must_use]
pub fn free_port() -> u16 {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    // Processes that run at the same time begin far apart.
    let first = std::process::id() as usize * 211;
    for _ in PORTS {
        let place = (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len();
        let port = PORTS.start + u16::try_from(place).expect("a range of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 is free");
}

/// The last lines of a file; what went wrong where it cannot be read.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", file.display()),
    }
}

/// Sends a signal by name (`TERM`, `INT`, `STOP`, `CONT`) to a process; whether
/// it was there. By the shell: a minimal Debian has no program `kill`.
#[must_use]
pub fn signal(name: &str, process: impl Display) -> bool {
    Command::new("/bin/sh")
        .args(["-c", &format!("kill -{name} {process} 2>/dev/null")])
        .status()
        .is_ok_and(|status| status.success())
}

/// Waits until `condition` gives a value.
///
/// # Panics
/// After [`PATIENCE`], with `what` was waited for and what `context` says then.
#[track_caller]
pub fn wait_for<T>(
    what: &str,
    context: impl Fn() -> String,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "waited {} s in vain until {what}\n{}",
            PATIENCE.as_secs(),
            context()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Path of a program of the test's own crate, as in
/// `own_program!("pjlink-sim")`. A macro, because cargo tells it to the test
/// alone; and not `env!`, because `cargo check` does not tell it at all.
#[macro_export]
macro_rules! own_program {
    ($name:literal) => {
        $crate::process::told_by_cargo(option_env!(concat!("CARGO_BIN_EXE_", $name)))
    };
}

#[doc(hidden)]
pub fn told_by_cargo(path: Option<&'static str>) -> &'static str {
    path.expect("cargo test builds it")
}

/// The path of a workspace binary, built by the first who asks. `package`
/// and binary have the same name.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn binary(package: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(package) {
        return path.clone();
    }
    // This test stands in <target>/<profile>/deps: the binaries belong two
    // levels up, whatever the target directory is.
    let exe = std::env::current_exe().expect("the test's own path");
    let profile_dir = exe
        .parent()
        .and_then(|deps| {
            if deps.ends_with("deps") {
                deps.parent()
            } else {
                Some(deps)
            }
        })
        .expect("the test stands in a target directory");
    let target = profile_dir.parent().expect("a target directory");
    let mut command =
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsStr::new("cargo").into()));
    command
        .args(["build", "--quiet", "--locked", "--bins", "-p", package])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace());
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{package} does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = profile_dir.join(package);
    assert!(path.is_file(), "{} is not there", path.display());
    built.insert(package.to_owned(), path.clone());
    path
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// A running program, killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Holds the log.
    _dir: TempDir,
}

impl Process {
    /// Starts a program whose output goes to a log file.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("av-test-")
            .tempdir()
            .expect("a temporary directory");
        let log = dir.path().join("log");
        let stdout = File::create(&log).expect("a log file");
        let stderr = stdout.try_clone().expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log,
            _dir: dir,
        }
    }

    /// Everything that it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the process's state")
            .is_none()
    }

    /// [`wait_for`], with the end of the log where it fails.
    ///
    /// # Panics
    /// As [`wait_for`].
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        wait_for(
            what,
            || format!("The log ends:\n{}", tail(&self.log, 40)),
            condition,
        )
    }

    /// Waits until the log has `text` at least `times` times.
    ///
    /// # Panics
    /// As [`wait_for`].
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, times: usize) {
        self.wait_for(&format!("the log has {text:?} {times} time(s)"), || {
            (self.log().matches(text).count() >= times).then_some(())
        });
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        assert!(signal(name, self.child.id()), "kill -{name} failed");
    }

    /// Ends it at once, as `kill -9` and a cut of the power do.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Panics
    /// When it does not end within [`LIMIT`].
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let log = self.log.clone();
        let child = &mut self.child;
        wait_for(
            "it ends after SIGTERM",
            || tail(&log, 40),
            || child.try_wait().ok().flatten(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {self:?}"))
    }
}

/// Sends one request, on a connection of its own, and reads the answer.
///
/// # Errors
/// When there is no answer.
pub fn http(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(LIMIT))
        .max_redirects(0)
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = match body {
        Some(body) => agent.run(request.body(body)?)?,
        None => agent.run(request.body(())?)?,
    };
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: response
            .body_mut()
            .with_config()
            .limit(256 << 20)
            .read_to_string()?,
    })
}

/// `av-backend` with a subcommand and a database, not yet started.
#[must_use]
pub fn backend_command(database_url: &str) -> Command {
    let mut command = Command::new(binary("av-backend"));
    command.env("DATABASE_URL", database_url);
    // Not what a unit of this machine has.
    command.env("AV_ENV_FILE", "").env_remove("AV_INSTANCE");
    command.env_remove("RUST_LOG");
    command
}

/// A running `av-backend serve`.
pub struct Backend {
    /// The process.
    pub process: Process,
    /// Its base URL, without a slash at the end.
    pub url: String,
}

impl Backend {
    /// Starts a backend on a free port and waits until it is healthy.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(database_url: &str) -> Self {
        let backend = Self::spawn(database_url, |_| {});
        backend.wait_until_healthy();
        backend
    }

    /// Starts a backend on a free port, its command changed by `configure`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(database_url: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut command = backend_command(database_url);
        command.arg("serve").env("AV_LISTEN", &listen);
        configure(&mut command);
        Self {
            process: Process::spawn(command),
            url: format!("http://{listen}"),
        }
    }

    /// Waits until `GET /health` answers 200.
    ///
    /// # Panics
    /// As [`wait_for`].
    #[track_caller]
    pub fn wait_until_healthy(&self) {
        self.process.wait_for("the backend is healthy", || {
            let answer = http("GET", &format!("{}/health", self.url), &[], None).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// Sends a request and reads the answer.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        match http(method, &format!("{}{path}", self.url), headers, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}\n{}", tail(&self.process.log, 40)),
        }
    }

    /// `GET path`.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], None)
    }

    /// `GET /devices`, of the site of this token.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn devices(&self, token: &str) -> Answer {
        self.request("GET", "/devices", &[("X-Site-Token", token)], None)
    }

    /// `POST /ingest`.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn ingest(&self, token: &str, report: &serde_json::Value) -> Answer {
        self.request(
            "POST",
            "/ingest",
            &[
                ("X-Site-Token", token),
                ("Content-Type", "application/json"),
            ],
            Some(report.to_string().as_bytes()),
        )
    }
}

/// The agent: the one of this workspace, or, where `AV_TEST_AGENT` has a command
/// such as `qemu-aarch64-static -L /usr/aarch64-linux-gnu PATH`, that one. Its
/// words are separated by spaces.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn agent_command() -> Command {
    let given = std::env::var("AV_TEST_AGENT").unwrap_or_default();
    let mut words = given.split_whitespace();
    match words.next() {
        None => Command::new(binary("av-agent")),
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
    }
}

/// A running `av-agent`, with a directory of its own for its configuration
/// and state, which it keeps when it is killed and started again.
pub struct Agent {
    /// The process; `None` before the first start and after a stop.
    pub process: Option<Process>,
    /// The URL of its page, without a slash at the end.
    pub url: String,
    dir: TempDir,
    listen: String,
    variables: Vec<(String, String)>,
}

impl Agent {
    /// An agent that is not started yet, with this `config.json`. Its first
    /// sync comes at once, the next ones every second.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[must_use]
    pub fn new(config: &serde_json::Value) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("av-agent-")
            .tempdir()
            .expect("a temporary directory");
        std::fs::write(dir.path().join("config.json"), config.to_string())
            .expect("config.json is written");
        let listen = format!("127.0.0.1:{}", free_port());
        let mut agent = Self {
            process: None,
            url: format!("http://{listen}"),
            dir,
            listen,
            variables: Vec::new(),
        };
        agent.set("AV_FIRST_SYNC_S", "0");
        // One second.
        agent.set("CONFIG_SYNC_INTERVAL_MIN", "0.0166667");
        agent
    }

    /// Sets an environment variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Takes an environment variable away for the next start.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    /// Its `config.json`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    /// The directory of its spool and memory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Starts it, or ends it and starts it again.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self) -> &mut Process {
        self.process = None;
        let mut command = agent_command();
        command
            .env_remove("RUST_LOG")
            .env("AGENT_CONFIG", self.config_file())
            .env("AV_STATE_DIR", self.state_dir())
            .env("AV_PAGE_LISTEN", &self.listen)
            // Tests ask for one after the other.
            .env("AV_PAGE_PAUSE_S", "0")
            .envs(self.variables.iter().map(|(k, v)| (k, v)));
        self.process.insert(Process::spawn(command))
    }

    /// `GET path` of its page; `None` while it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Answer> {
        http("GET", &format!("{}{path}", self.url), &[], None).ok()
    }
}
