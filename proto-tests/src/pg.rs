//! A private PostgreSQL for tests: real server, own data directory, loopback
//! only, gone with the test process however that ends.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails loudly, with what it was doing"
)]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::process::{free_port, signal, tail};

/// The superuser of every test cluster.
const USER: &str = "av";
const START_LIMIT: Duration = Duration::from_secs(120);

/// Runs the server as its child and ends it when standard input ends, so that
/// a test process that is killed leaves no server behind. A line on standard
/// input stops the server and keeps its data.
const WATCHER: &str = r#"
"$1" -D "$2" -p "$3" -k "$2" &
server=$!
if read -r _; then kill -INT $server; wait $server
else kill -QUIT $server; wait $server; rm -rf "$4"; fi
"#;

/// A PostgreSQL server of the test's own.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    /// Who runs the server, where the test is run by root.
    run_as: Option<(u32, u32)>,
    port: u16,
    watcher: Mutex<Option<Child>>,
}

impl Cluster {
    /// Makes a new cluster and starts it.
    ///
    /// # Panics
    /// When there is no PostgreSQL on this machine or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// The same with lines for its `postgresql.conf`, which are given its
    /// data folder, in which they may put files.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_with(settings: impl FnOnce(&Path) -> String) -> Self {
        let cluster = Self::unmade();
        let output = cluster
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--username", USER, "-D"])
            .arg(cluster.data())
            .output()
            .expect("initdb runs");
        succeeded("initdb", &output);
        cluster.append(
            "listen_addresses = '127.0.0.1'\nfsync = off\nfull_page_writes = off\n\
             synchronous_commit = off\nmax_connections = 200\nshared_buffers = 32MB\n\
             max_wal_size = 256MB\nautovacuum = off\n",
        );
        let more = settings(&cluster.data());
        cluster.own_files();
        cluster.append(&more);
        cluster.first_start()
    }

    /// Makes a standby of this cluster, which streams from it under this
    /// name (`primary_conninfo`), and starts it.
    ///
    /// # Panics
    /// When it cannot be made or does not start.
    #[must_use]
    pub fn standby(&self, name: &str) -> Self {
        let standby = Self::unmade();
        let from = format!(
            "host=127.0.0.1 port={} user={USER} application_name={name}",
            self.port
        );
        let output = standby
            .command("pg_basebackup")
            .args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf"])
            .args(["--dbname", &from, "-D"])
            .arg(standby.data())
            .output()
            .expect("pg_basebackup runs");
        succeeded("pg_basebackup", &output);
        standby.first_start()
    }

    /// Makes a standby the primary, as `pg_ctl promote` does.
    ///
    /// # Panics
    /// When it is none, or is not promoted.
    pub fn promote(&self) {
        let output = self
            .command("pg_ctl")
            .args(["promote", "--wait", "-D"])
            .arg(self.data())
            .output()
            .expect("pg_ctl runs");
        succeeded("pg_ctl promote", &output);
    }

    /// Ends every process of the server at once (SIGKILL); its data stays as
    /// it is, for [`Cluster::start_again`].
    ///
    /// # Panics
    /// When the server does not run.
    pub fn kill(&self) {
        assert!(self.signal("KILL"), "the server does not run");
        self.stop();
    }

    /// Changes a setting and has the server read it.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn set(&self, setting: &str, value: &str) {
        let mut client = self.connect("postgres");
        client
            .batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'"))
            .expect("ALTER SYSTEM");
        client
            .batch_execute("SELECT pg_reload_conf()")
            .expect("pg_reload_conf");
    }

    /// A cluster in a folder of its own, with nothing in it.
    fn unmade() -> Self {
        let bin = bin_dir();
        let dir = tempfile::Builder::new()
            .prefix("av-pg-")
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let run_as = unprivileged(&dir);
        if let Some((uid, gid)) = run_as {
            chown(&dir, Some(uid), Some(gid)).expect("chown of the temporary directory");
        }
        Self {
            bin,
            dir,
            run_as,
            port: 0,
            watcher: Mutex::new(None),
        }
    }

    /// Starts it on a port that is free.
    fn first_start(mut self) -> Self {
        // Another process may take the free port first.
        for attempt in 0.. {
            self.port = free_port();
            match self.try_start() {
                Ok(()) => break,
                Err(log) if attempt < 4 && log.contains("could not bind") => {}
                Err(log) => panic!("PostgreSQL did not start:\n{log}"),
            }
        }
        self
    }

    fn append(&self, settings: &str) {
        File::options()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .expect("postgresql.conf is written");
    }

    /// Gives what stands in its data folder to who runs the server.
    fn own_files(&self) {
        let Some((uid, gid)) = self.run_as else {
            return;
        };
        for entry in std::fs::read_dir(self.data()).expect("the data folder") {
            let path = entry.expect("an entry of the data folder").path();
            chown(&path, Some(uid), Some(gid)).expect("chown of a file of the cluster");
        }
    }

    /// Stops the server as `systemctl stop` does; its data stays.
    pub fn stop(&self) {
        let Some(mut watcher) = self.watcher().take() else {
            return;
        };
        if let Some(stdin) = &mut watcher.stdin {
            let _ = stdin.write_all(b"stop\n");
        }
        watcher.wait().expect("the server's watcher ends");
    }

    /// Starts the server again on the same port, after [`Cluster::stop`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        if let Err(log) = self.try_start() {
            panic!("PostgreSQL did not start again:\n{log}");
        }
    }

    /// [`Cluster::stop`] and [`Cluster::start_again`].
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// Stops every process of the server where it stands (SIGSTOP): its
    /// sockets stay open and nothing answers, as on a machine that hangs.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn freeze(&self) {
        assert!(self.signal("STOP"), "the server does not run");
    }

    /// Ends [`Cluster::freeze`].
    ///
    /// # Panics
    /// When the server does not run.
    pub fn thaw(&self) {
        assert!(self.signal("CONT"), "the server does not run");
    }

    /// The connection string of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The folder of PostgreSQL's own programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// The folder of its socket, which is its owner's alone.
    #[must_use]
    pub fn socket_folder(&self) -> PathBuf {
        self.data()
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database in this cluster.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn create_database(&self) -> Database<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("a new database");
        Database {
            cluster: self,
            name,
        }
    }

    fn connect(&self, database: &str) -> Client {
        Client::connect(&self.url(database), NoTls).expect("a connection to the test's PostgreSQL")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn watcher(&self) -> MutexGuard<'_, Option<Child>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_start(&self) -> Result<(), String> {
        let log = self.dir.join("log");
        let mut file = File::create(&log).map_err(|error| error.to_string())?;
        if let Some((uid, gid)) = self.run_as {
            chown(&log, Some(uid), Some(gid)).map_err(|error| error.to_string())?;
        }
        file.flush().map_err(|error| error.to_string())?;
        let stderr = file.try_clone().map_err(|error| error.to_string())?;
        let mut watcher = self
            .as_user(Command::new("/bin/sh"))
            .args(["-c", WATCHER, "watcher"])
            .arg(self.bin.join("postgres"))
            .arg(self.data())
            .arg(self.port.to_string())
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(stderr)
            .spawn()
            .map_err(|error| error.to_string())?;
        let started = Instant::now();
        loop {
            if Client::connect(&self.url("postgres"), NoTls).is_ok() {
                *self.watcher() = Some(watcher);
                return Ok(());
            }
            let text = tail(&log, 40);
            if started.elapsed() > START_LIMIT || text.contains("FATAL:  could not") {
                if let Some(stdin) = &mut watcher.stdin {
                    let _ = stdin.write_all(b"stop\n");
                }
                let _ = watcher.wait();
                return Err(text);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Signals the server and each of its processes, which are not in its
    /// process group: every one leads a session of its own.
    fn signal(&self, name: &str) -> bool {
        let file = self.data().join("postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let Some(postmaster) = text.lines().next() else {
            return false;
        };
        // The postmaster first: it must not start a new one in between.
        let runs = signal(name, postmaster);
        for child in children(postmaster) {
            // One may end by itself in between.
            let _ = signal(name, &child);
        }
        runs
    }

    /// One of PostgreSQL's programs: beside the server, or the one on PATH.
    fn program(&self, name: &str) -> PathBuf {
        let beside = self.bin.join(name);
        if beside.is_file() {
            beside
        } else {
            PathBuf::from(name)
        }
    }

    fn command(&self, program: &str) -> Command {
        self.as_user(Command::new(self.program(program)))
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.dir).env("LC_ALL", "C");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut watcher) = self.watcher().take() {
            // A server that is frozen does not end.
            self.signal("CONT");
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The cluster that all tests of one process share. Tests that stop their
/// server take a [`Cluster::start`] of their own.
///
/// # Panics
/// As [`Cluster::start`].
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

/// An empty database of a cluster.
pub struct Database<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Database<'static> {
    /// A new database in the [`shared`] cluster.
    ///
    /// # Panics
    /// As [`Cluster::create_database`].
    #[must_use]
    pub fn create() -> Self {
        shared().create_database()
    }
}

impl Database<'_> {
    /// Its connection string, for `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// A connection of the test's own.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn connect(&self) -> Client {
        self.cluster.connect(&self.name)
    }

    /// Runs SQL as a technician would.
    ///
    /// # Panics
    /// When PostgreSQL refuses it.
    pub fn execute(&self, sql: &str) {
        if let Err(error) = self.connect().batch_execute(sql) {
            panic!("{sql}\nfailed: {error:?}");
        }
    }

    /// Runs a file with `psql -f`, stopping at the first error.
    ///
    /// # Panics
    /// When `psql` cannot be run.
    #[must_use]
    pub fn psql_file(&self, file: &Path) -> Output {
        Command::new(self.cluster.program("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url())
            .arg("-f")
            .arg(file)
            .output()
            .expect("psql runs")
    }

    /// Cuts the connections to this database whose `application_name` is LIKE
    /// this, the test's own excepted; answers how many.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn cut_connections(&self, application_name: &str) -> usize {
        self.connect()
            .query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND application_name LIKE $1",
                &[&application_name],
            )
            .expect("pg_terminate_backend")
            .len()
    }
}

#[track_caller]
fn succeeded(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The processes whose parent is this one (`/proc/PID/stat`, proc(5)).
fn children(parent: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything.
            let (_, after_name) = stat.rsplit_once(')')?;
            let ppid = after_name.split_whitespace().nth(1)?;
            (ppid == parent).then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

/// Where `initdb` and `postgres` are: beside each other on `PATH`, or in the
/// newest of Debian's `/usr/lib/postgresql/*/bin`.
fn bin_dir() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    debian.sort();
    on_path
        .into_iter()
        .chain(debian.into_iter().rev().map(|(_, dir)| dir))
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        .expect("PostgreSQL's initdb and postgres, on PATH or in /usr/lib/postgresql (Debian: apt install postgresql)")
}

/// PostgreSQL refuses to be run by root: the ids of `postgres` or `nobody`,
/// where the test is run by root.
fn unprivileged(own_dir: &Path) -> Option<(u32, u32)> {
    let own = std::fs::metadata(own_dir).expect("the temporary directory");
    if own.uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = |name: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.first() == Some(&name) {
                Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
            } else {
                None
            }
        })
    };
    Some(
        ids("postgres")
            .or_else(|| ids("nobody"))
            .expect("a user postgres or nobody in /etc/passwd"),
    )
}
