//! A backend whose database answers and is of no use: its disk is full, or the
//! alerts cannot be looked at. `GET /health` says so until it is over.
//!
//! The disk is a small file system in a mount namespace that ends with the test:
//! a tablespace of a real server lies on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use av_proto_tests::namespace::may_mount;
use av_proto_tests::pg::{Cluster, Database};
use av_proto_tests::process::Backend;
use backend_support::{TOKEN, add_site, report, reported};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use postgres::{Client, NoTls};

/// A small disk, mounted until it is dropped.
struct Disk {
    folder: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    /// One that belongs to who runs this server.
    fn of(cluster: &Cluster) -> Self {
        let owner = fs::metadata(cluster.socket_folder()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // The server has to pass through.
        let mut open = fs::metadata(dir.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        let folder = dir.path().join("room");
        fs::create_dir(&folder).unwrap();
        let options = format!("size=48m,mode=700,uid={},gid={}", owner.uid(), owner.gid());
        mount(
            Some("tmpfs"),
            &folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self { folder, _dir: dir }
    }

    /// Leaves no page free.
    fn fill(&self) {
        let mut filler = fs::File::create(self.folder.join("filler")).unwrap();
        for size in [1 << 20, 4096] {
            let block = vec![b'x'; size];
            while filler.write(&block).is_ok_and(|written| written > 0) {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}

fn spawn(db: &Database<'_>) -> Backend {
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_ALERTS_EVERY_MS", "50");
    });
    backend.wait_until_healthy();
    backend
}

#[track_caller]
fn wait_until_missing(backend: &Backend, missing: &str) {
    backend
        .process
        .wait_for(&format!("health misses {missing}"), || {
            let health = backend.get("/health");
            (health.status == 503 && health.json()["missing"] == missing).then_some(())
        });
    let health = backend.get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    assert!(health.headers.contains_key("retry-after"), "{health:?}");
    let live = backend.get("/health/live");
    assert_eq!(live.status, 200, "{live:?}");
    assert_eq!(live.json()["status"], "alive");
}

#[test]
fn a_full_disk_of_the_database_is_no_health() {
    if !may_mount("a_full_disk_of_the_database_is_no_health") {
        return;
    }
    let cluster = Cluster::start();
    let disk = Disk::of(&cluster);
    let db = cluster.create_database();
    let url = db.url();
    let name = url.rsplit('/').next().unwrap();
    let mut server = Client::connect(&cluster.url("postgres"), NoTls).unwrap();
    for statement in [
        format!(
            "CREATE TABLESPACE room LOCATION '{}'",
            disk.folder.display()
        ),
        format!("ALTER DATABASE \"{name}\" SET TABLESPACE room"),
    ] {
        server.batch_execute(&statement).unwrap();
    }
    let backend = spawn(&db);
    let mut sql = db.connect();
    let site = add_site(&mut sql, "Paris", TOKEN);
    sql.execute(
        "INSERT INTO devices (site_id, name, ip)
         SELECT $1, 'd' || n, '10.0.' || n / 200 || '.' || n % 200 FROM generate_series(1, 1000) n",
        &[&site],
    )
    .unwrap();
    drop(sql);
    let devices: Vec<_> = (1..=1000)
        .map(|n| reported(&format!("10.0.{}.{}", n / 200, n % 200), "online", "ok"))
        .collect();
    let report = report(&devices);
    assert_eq!(backend.ingest(TOKEN, &report).status, 200);

    // Without any report: it is tried whether a write is taken.
    disk.fill();
    wait_until_missing(&backend, "room to write");
    let error = backend.get("/health").json()["error"].to_string();
    assert!(error.contains("No space left on device"), "{error}");
    // It stays so, and a report is refused so that its agent keeps it.
    let refused = backend.ingest(TOKEN, &report);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(backend.get("/health").status, 503);
    let config = backend.get(&format!("/config/{TOKEN}"));
    assert_eq!(config.status, 200, "what is read goes on: {config:?}");

    disk.free();
    backend.wait_until_healthy();
    assert_eq!(backend.ingest(TOKEN, &report).status, 200);
    let log = backend.process.log();
    assert_eq!(
        log.matches("the database has no room to write").count(),
        1,
        "{log}"
    );
    backend
        .process
        .wait_for_log("the database has room to write again", 1);

    // The other way round: a report is what finds out.
    disk.fill();
    assert_eq!(backend.ingest(TOKEN, &report).status, 503);
    let health = backend.get("/health");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(health.json()["missing"], "room to write");
    disk.free();
    backend.wait_until_healthy();

    drop(backend);
    drop(server);
    drop(db);
    drop(cluster);
}

#[test]
fn alerts_that_are_not_looked_at_are_no_health() {
    let db = Database::create();
    let backend = spawn(&db);
    let mut other = db.connect();
    // Somebody works on the table and forgets to end it.
    other
        .batch_execute("BEGIN; LOCK TABLE backend_watch IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    wait_until_missing(&backend, "a look at the alerts");
    other.batch_execute("ROLLBACK").unwrap();
    backend.wait_until_healthy();
}
