//! The documented commands, typed as root with the settings of the unit: the
//! file of variables is read, and the database is asked as the unit's user,
//! over a socket at which PostgreSQL asks the system who that is.
//!
//! Where the test is run by root, the unit's user is the one that runs the
//! server; else it is the test's own, and no user is become.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use av_proto_tests::pg::{Cluster, Database};
use av_proto_tests::process::{Backend, binary};
use tempfile::TempDir;

/// A machine with a server, a database, and the file of variables.
struct Machine {
    cluster: &'static Cluster,
    db: Database<'static>,
    user: String,
    dir: TempDir,
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn owner(file: &Path) -> String {
    let output = Command::new("stat")
        .args(["-c", "%U"])
        .arg(file)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Machine {
    fn new() -> Self {
        // Over the socket each user gets in under the own name alone.
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start_with(|data| {
            fs::write(
                data.join("own_hba.conf"),
                "local all all peer\nhost all all 127.0.0.1/32 trust\n",
            )
            .unwrap();
            format!("hba_file = '{}/own_hba.conf'\n", data.display())
        })));
        let db = cluster.create_database();
        let user = owner(&cluster.socket_folder());
        db.execute(&format!(
            "CREATE ROLE \"{user}\" LOGIN; GRANT ALL ON SCHEMA public TO \"{user}\";
             GRANT pg_monitor TO \"{user}\""
        ));
        let machine = Self {
            cluster,
            db,
            user,
            dir: tempfile::tempdir().unwrap(),
        };
        machine.write("backend.env", &machine.settings(""));
        machine
    }

    fn settings(&self, more: &str) -> String {
        let name = self.db.url();
        let name = name.rsplit('/').next().unwrap();
        format!(
            "# What the guide recommends.\n\
             DATABASE_URL=\"host={} port={} user={} dbname={name}\"\n\
             AV_USER={}\n{more}",
            self.cluster.socket_folder().display(),
            self.cluster.port(),
            self.user,
            self.user,
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The command as it is typed, with this machine's file.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("av-backend"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("AV_ENV_FILE", self.path("backend.env"))
            .env_remove("AV_INSTANCE")
            .env_remove("AV_USER")
            .env_remove("DATABASE_URL")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_documented_command_works_as_it_is_typed() {
    let machine = Machine::new();
    assert!(machine.run(&["migrate"]).contains("applied 001_schema"));
    let token = machine.run(&["site", "add", "Site Paris", "--timezone", "Europe/Paris"]);
    assert_eq!(token.trim().len(), 64);
    assert!(machine.run(&["site", "list"]).contains("Site Paris"));
    let password = machine.run(&["user", "add", "anna", "--role", "admin", "--generate"]);
    assert_eq!(password.trim().len(), 32);
    machine.run(&["user", "password", "anna", "--generate"]);
    assert!(machine.run(&["user", "list"]).contains("anna"));
    // Who made the tables is who owns them: the unit's user, not root.
    let owner: String = machine
        .db
        .connect()
        .query_one(
            "SELECT tableowner::text FROM pg_tables WHERE tablename = 'sites'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(owner, machine.user);

    // The files are the caller's, in a folder that the unit's user
    // cannot enter.
    assert!(machine.run(&["backup", "av.dump"]).contains("1 sites"));
    for name in ["av.dump", "av.dump.manifest.json"] {
        let file = fs::metadata(machine.path(name)).unwrap();
        assert_eq!(file.uid(), fs::metadata("/proc/self").unwrap().uid());
        assert_eq!(file.mode() & 0o777, 0o600);
    }
    machine.db.execute("DELETE FROM sites; DELETE FROM users");
    machine.run(&["restore", "av.dump", "--force"]);
    assert!(machine.run(&["site", "list"]).contains("Site Paris"));
    assert!(machine.run(&["user", "list"]).contains("anna"));

    // The other system's database may be named in the file alone.
    let output = machine.command(&["import-python"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("put its URL into AV_PYTHON_DATABASE_URL"),
        "{said}"
    );
    let own = machine.db.url();
    let url = format!("AV_PYTHON_DATABASE_URL={own}\n");
    machine.write("backend.env", &machine.settings(&url));
    let output = machine.command(&["import-python"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("its tables are those of av-backend"),
        "{said}"
    );

    // What needs no database asks for no file.
    machine.write("backend.env", "DATABASE_URL=nonsense\n");
    fs::write(machine.path("config.json"), "{}").unwrap();
    let output = machine
        .command(&["check-config", "config.json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_is_set_already_goes_before_the_file_and_the_instance_after_it() {
    let machine = Machine::new();
    machine.run(&["migrate"]);
    machine.run(&["site", "add", "Lyon"]);
    machine.write(
        "backend.env",
        "DATABASE_URL='host=/nonexistent user=x dbname=y'\n",
    );
    let output = machine.command(&["site", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent"), "{output:?}");

    let output = machine
        .command(&["site", "list"])
        .env("DATABASE_URL", machine.db.url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = machine
        .command(&["site", "list", "--database-url", &machine.db.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    machine.write("backend-1.env", &machine.settings("no sign here\n"));
    let output = machine
        .command(&["--instance", "1", "site", "list"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        stderr(&output).contains("backend-1.env: line 4 is ignored"),
        "{output:?}"
    );
    let output = machine
        .command(&["site", "list", "--instance=2"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("backend-2.env"), "{output:?}");
}

#[test]
fn serve_typed_by_root_is_the_units_user() {
    let machine = Machine::new();
    let file = machine.path("backend.env");
    let mut backend = Backend::spawn("", |command| {
        command.env("AV_ENV_FILE", &file).env_remove("DATABASE_URL");
    });
    backend.wait_until_healthy();
    let process = PathBuf::from(format!("/proc/{}", backend.process.id()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let uid = fs::metadata(machine.cluster.socket_folder()).unwrap().uid();
    let uids = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
    assert!(status.contains(&uids), "{status}");
    assert!(backend.process.terminate().success());
}

#[test]
fn a_user_who_may_not_read_the_file_is_told_to_use_sudo() {
    let machine = Machine::new();
    // Where such a user can start it.
    let program = machine.path("av-backend");
    fs::copy(binary("av-backend"), &program).unwrap();
    fs::set_permissions(machine.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["user", "list"])
        .env("AV_ENV_FILE", machine.path("backend.env"))
        .env_remove("DATABASE_URL");
    if is_root() {
        command.uid(65534).gid(65534);
    } else {
        fs::set_permissions(
            machine.path("backend.env"),
            fs::Permissions::from_mode(0o000),
        )
        .unwrap();
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("backend.env") && said.contains("sudo"),
        "{said}"
    );

    // A file that was not named is not missed where the address is given.
    let output = command
        .env("DATABASE_URL", machine.db.url())
        .env("AV_ENV_FILE", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
