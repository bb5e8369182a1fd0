//! `av-backend backup` and `restore`: PostgreSQL's own dump, and beside it a
//! manifest of what it holds, against which a restored database is held.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use av_proto::text::excerpt;
use jiff::Timestamp;
use nix::unistd::seteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::hash;
use crate::store::backup::{Session, TableRows, View};
use crate::store::migrate::MIGRATIONS;
use crate::store::{Connector, StoreError};

/// What the manifest is called that belongs to a dump.
const MANIFEST: &str = ".manifest.json";
/// How many differences are named.
const SHOWN: usize = 20;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anything else, said in full.
    #[error("{0}")]
    Refused(String),
}

/// Who connects to the database, where that is not the user whose files are
/// read and written: over the socket PostgreSQL asks the system who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The user's home.
    pub home: PathBuf,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's group.
    pub gid: u32,
}

impl Account {
    /// Does something as this user.
    fn act<T>(&self, work: impl FnOnce() -> T) -> Result<T, BackupError> {
        let failed = |error: nix::Error| {
            BackupError::Refused(format!(
                "the user {:?} cannot be become: {error}",
                self.name
            ))
        };
        let own = nix::unistd::geteuid();
        seteuid(self.uid.into()).map_err(failed)?;
        let done = work();
        seteuid(own).map_err(failed)?;
        Ok(done)
    }

    /// Starts a program as this user.
    fn lend(account: Option<&Self>, command: &mut Command) {
        if let Some(Self {
            name,
            home,
            uid,
            gid,
        }) = account
        {
            command.uid(*uid).gid(*gid);
            command.env("HOME", home).env("USER", name);
        }
    }
}

fn open(connector: &Connector, account: Option<&Account>) -> Result<Session, BackupError> {
    let opened = match account {
        None => Session::open(connector),
        Some(account) => account.act(|| Session::open(connector))?,
    };
    Ok(opened?)
}

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// When it was begun; what was committed before is in it.
    pub made_at: Timestamp,
    /// Which program made it.
    pub made_by: String,
    /// Of which PostgreSQL.
    pub postgresql: String,
    /// The newest migration that was applied.
    pub schema_version: i32,
    /// The SHA-256 of the dump, hex.
    pub sha256: String,
    /// What the database held.
    #[serde(flatten)]
    pub content: Content,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Every table.
    pub tables: Vec<TableRows>,
    /// Every site.
    pub sites: Vec<SiteContent>,
}

/// A site's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteContent {
    /// The site's name.
    pub name: String,
    /// How many devices it has.
    pub devices: usize,
    /// The hash of the contract's hash section, computed from the rows.
    pub hash: String,
}

impl Content {
    fn read(view: &mut View<'_>) -> Result<Self, BackupError> {
        let tables = view.tables()?;
        let mut sites = Vec::new();
        view.each_site(|site| {
            sites.push(SiteContent {
                name: site.name.clone(),
                devices: site.devices.len(),
                hash: match hash(site) {
                    Ok(hash) => hash.to_string(),
                    // Nor can an agent have it; it is the same afterwards.
                    Err(error) => format!("none: {error}"),
                },
            });
        })?;
        Ok(Self { tables, sites })
    }

    fn rows(&self) -> i64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// How another one differs from this one, a line each.
    #[must_use]
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for table in &self.tables {
            match found.tables.iter().find(|other| other.table == table.table) {
                None => said.push(format!("table {}: is not there", table.table)),
                Some(other) if other.rows != table.rows => said.push(format!(
                    "table {}: has {} rows instead of {}",
                    table.table, other.rows, table.rows
                )),
                Some(_) => {}
            }
        }
        let (mut wanted, mut there) = (self.sites.iter().peekable(), found.sites.iter().peekable());
        // Both are in the order of their names.
        while let (Some(site), other) = (wanted.peek(), there.peek()) {
            match other {
                Some(other) if other.name < site.name => {
                    there.next();
                    continue;
                }
                Some(other) if other.name == site.name => {
                    if *other != *site {
                        said.push(format!(
                            "site {:?}: its configuration hashes to {} ({} devices) instead of {} ({})",
                            site.name, other.hash, other.devices, site.hash, site.devices
                        ));
                    }
                    there.next();
                }
                _ => said.push(format!("site {:?}: is not there", site.name)),
            }
            wanted.next();
        }
        if found.sites.len() > self.sites.len() {
            said.push(format!(
                "{} sites are there instead of {}",
                found.sites.len(),
                self.sites.len()
            ));
        }
        said
    }
}

/// Makes a dump of the database and its manifest; answers what to tell.
/// Neither is there under its name before it is whole.
///
/// # Errors
/// [`BackupError`]; then nothing is left behind.
pub fn backup(
    connector: &Connector,
    account: Option<&Account>,
    file: &Path,
    now: Timestamp,
) -> Result<String, BackupError> {
    let manifest_file = beside(file, MANIFEST);
    for existing in [file, &manifest_file] {
        if existing.exists() {
            return Err(BackupError::Refused(format!(
                "{} is there already: give each backup a name of its own",
                existing.display()
            )));
        }
    }
    let mut session = open(connector, account)?;
    let mut view = session.view()?;
    let schema_version = view.schema_version()?.ok_or_else(|| {
        BackupError::Refused(format!(
            "there is nothing of av-backend in {}",
            connector.place()
        ))
    })?;
    let snapshot = view.export()?;
    let part = Part::new(beside(file, ".part"));
    let dump = part.create()?;
    let mut pg_dump = tool("pg_dump", connector)?;
    Account::lend(account, &mut pg_dump);
    pg_dump
        .args([
            "--format=custom",
            "--no-password",
            "--schema=public",
            "--snapshot",
        ])
        .arg(&snapshot);
    let (copied, output) =
        piped(pg_dump, &dump).map_err(|error| BackupError::Refused(format!("pg_dump: {error}")))?;
    // A full disk, before the pipe that broke of it.
    copied.map_err(|error| part.said(error))?;
    succeeded("pg_dump", &output)?;
    dump.sync_all().map_err(|error| part.said(error))?;
    let content = Content::read(&mut view)?;
    let manifest = Manifest {
        made_at: now,
        made_by: format!("av-backend {}", env!("CARGO_PKG_VERSION")),
        postgresql: view.server_version()?,
        schema_version,
        sha256: sha256(&part.path)?,
        content,
    };
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| BackupError::Refused(format!("the manifest: {error}")))?;
    let manifest_part = Part::new(beside(&manifest_file, ".part"));
    let mut written = manifest_part.create()?;
    written
        .write_all(text.as_bytes())
        .and_then(|()| written.write_all(b"\n"))
        .and_then(|()| written.sync_all())
        .map_err(|error| manifest_part.said(error))?;
    // A dump is there only with its manifest.
    manifest_part.become_file(&manifest_file)?;
    part.become_file(file)?;
    sync_folder(file)?;
    Ok(format!(
        "{}: {} sites, {} devices, {} rows in {} tables, schema {schema_version}\n",
        file.display(),
        manifest.content.sites.len(),
        manifest
            .content
            .sites
            .iter()
            .map(|site| site.devices)
            .sum::<usize>(),
        manifest.content.rows(),
        manifest.content.tables.len(),
    ))
}

/// Runs a program and copies what it prints into a file; says how many bytes
/// that were, and how the program ended.
///
/// The pipe is for `pg_dump`: its user may not open the file, and since version
/// 16 it appends to a file that is its standard output where it means to write
/// the table of contents anew.
fn piped(mut program: Command, mut into: &File) -> io::Result<(io::Result<u64>, Output)> {
    let mut running = program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let printed = running.stdout.take();
    std::thread::scope(|scope| {
        let copy = scope.spawn(move || match printed {
            Some(mut printed) => io::copy(&mut printed, &mut into),
            None => Ok(0),
        });
        // Its messages are read beside, so that neither pipe fills up.
        let output = running.wait_with_output()?;
        let copied = copy
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the copy ended")));
        Ok((copied, output))
    })
}

/// Puts a dump back, in one transaction, and holds what is there then against
/// its manifest; answers what to tell.
///
/// # Errors
/// [`BackupError`]. The database is as it was before, unless the message says
/// that what is there differs.
pub fn restore(
    connector: &Connector,
    account: Option<&Account>,
    file: &Path,
    force: bool,
) -> Result<String, BackupError> {
    let manifest_file = beside(file, MANIFEST);
    let text = std::fs::read_to_string(&manifest_file)
        .map_err(|error| BackupError::File(manifest_file.clone(), error))?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|error| BackupError::Refused(format!("{}: {error}", manifest_file.display())))?;
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    if Some(manifest.schema_version) > newest {
        return Err(BackupError::Refused(format!(
            "{} has schema {}, and this program knows {}: take the av-backend that made it ({}), or a newer one",
            file.display(),
            manifest.schema_version,
            newest.unwrap_or_default(),
            excerpt(&manifest.made_by, 100),
        )));
    }
    if sha256(file)? != manifest.sha256 {
        return Err(BackupError::Refused(format!(
            "{} is damaged, or is not the dump of {}: their SHA-256 differ",
            file.display(),
            manifest_file.display()
        )));
    }
    let mut session = open(connector, account)?;
    let occupied = session.occupied()?;
    if occupied.backends > 0 {
        return Err(BackupError::Refused(format!(
            "{} connections of av-backend are open in {}: stop every backend first",
            occupied.backends,
            connector.place()
        )));
    }
    if occupied.objects > 0 && !force {
        return Err(BackupError::Refused(format!(
            "{} is not empty: make a new database, or say --force, which removes what is there",
            connector.place()
        )));
    }
    let emptying = session.emptying()?;
    put_back(connector, account, file, &emptying)?;
    let found = Content::read(&mut session.view()?)?;
    let differences = manifest.content.differences(&found);
    if !differences.is_empty() {
        let mut said = format!(
            "restored, but what is there differs from {}:",
            manifest_file.display()
        );
        for difference in differences.iter().take(SHOWN) {
            let _ = write!(said, "\n  {difference}");
        }
        if differences.len() > SHOWN {
            let _ = write!(said, "\n  and {} more", differences.len() - SHOWN);
        }
        return Err(BackupError::Refused(said));
    }
    Ok(format!(
        "restored what was there at {:.0}: {} sites, {} devices, {} rows in {} tables, as the manifest has them\n",
        manifest.made_at,
        found.sites.len(),
        found.sites.iter().map(|site| site.devices).sum::<usize>(),
        found.rows(),
        found.tables.len(),
    ))
}

/// `pg_restore` as SQL into `psql`, in a transaction that begins with what
/// empties the database: the old content goes with the commit alone, which is
/// sent when `pg_restore` ended well.
fn put_back(
    connector: &Connector,
    account: Option<&Account>,
    file: &Path,
    emptying: &str,
) -> Result<(), BackupError> {
    let failed =
        |program: &str, error: io::Error| BackupError::Refused(format!("{program}: {error}"));
    let mut psql = tool("psql", connector)?;
    Account::lend(account, &mut psql);
    let mut psql = psql
        .args(["--no-psqlrc", "--quiet", "--no-password", "--file=-"])
        .args(["--set=ON_ERROR_STOP=1", "--output=/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("psql", error))?;
    let fed = feed(&mut psql, connector, file, emptying);
    if fed.is_err() {
        // Without its COMMIT the transaction has not been.
        drop(psql.stdin.take());
    }
    let output = psql
        .wait_with_output()
        .map_err(|error| failed("psql", error))?;
    // What PostgreSQL refused is the reason of a pipe that broke.
    succeeded("psql", &output)?;
    fed
}

fn feed(
    psql: &mut std::process::Child,
    connector: &Connector,
    file: &Path,
    emptying: &str,
) -> Result<(), BackupError> {
    let broken = |error: io::Error| BackupError::Refused(format!("psql: {error}"));
    let Some(mut input) = psql.stdin.take() else {
        return Err(BackupError::Refused("psql takes nothing".to_owned()));
    };
    input
        .write_all(format!("SET client_min_messages = warning;\nBEGIN;\n{emptying}").as_bytes())
        .map_err(broken)?;
    // The schema itself is there in every database.
    let list = listed(connector, file)?;
    let mut restore = tool("pg_restore", connector)?
        .args(["--no-owner", "--no-privileges", "--file=-", "--use-list"])
        .arg(&list.path)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| BackupError::Refused(format!("pg_restore: {error}")))?;
    let copied = match &mut restore.stdout {
        Some(sql) => io::copy(sql, &mut input).map(|_| ()),
        None => Ok(()),
    };
    drop(restore.stdout.take());
    let output = restore
        .wait_with_output()
        .map_err(|error| BackupError::Refused(format!("pg_restore: {error}")))?;
    copied.map_err(broken)?;
    succeeded("pg_restore", &output)?;
    input.write_all(b"\nCOMMIT;\n").map_err(broken)
}

/// What `pg_restore` is to restore: everything but the schema `public`.
fn listed(connector: &Connector, file: &Path) -> Result<Part, BackupError> {
    let output = tool("pg_restore", connector)?
        .arg("--list")
        .arg(file)
        .output()
        .map_err(|error| BackupError::Refused(format!("pg_restore: {error}")))?;
    succeeded("pg_restore", &output)?;
    let all = String::from_utf8_lossy(&output.stdout);
    let kept: String = all
        .lines()
        .filter(|line| !line.contains(" SCHEMA - public ") && !line.contains(" SCHEMA public "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let name = format!("av-backend-restore.{}", std::process::id());
    let part = Part::new(std::env::temp_dir().join(name));
    part.create()?
        .write_all(kept.as_bytes())
        .map_err(|error| part.said(error))?;
    Ok(part)
}

/// One of PostgreSQL's programs, told by its environment where the database
/// is: a command line is there for every user of the machine to read.
fn tool(name: &str, connector: &Connector) -> Result<Command, BackupError> {
    let mut command = Command::new(find(name)?);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    command.env_remove("DATABASE_URL");
    command.env("PGAPPNAME", name);
    command.envs(connector.libpq_environment());
    Ok(command)
}

/// A program on `PATH`, else that of the newest of Debian's PostgreSQLs.
fn find(name: &str) -> Result<PathBuf, BackupError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(name)))
        })
        .collect();
    debian.sort();
    on_path
        .chain(debian.into_iter().rev().map(|(_, file)| file))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            BackupError::Refused(format!(
                "there is no {name} here: install PostgreSQL's client programs (Debian: postgresql-client)"
            ))
        })
}

fn succeeded(name: &str, output: &Output) -> Result<(), BackupError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(BackupError::Refused(format!(
        "{name} failed ({}): {}",
        output.status,
        excerpt(said.trim(), 1000)
    )))
}

fn sha256(file: &Path) -> Result<String, BackupError> {
    let failed = |error| BackupError::File(file.to_owned(), error);
    let mut bytes = File::open(file).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = bytes.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
    }
    let mut text = String::with_capacity(64);
    for byte in digest.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The folder remembers a new name only when it is synced itself.
fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| BackupError::File(folder.to_owned(), error))
}

/// A file that is not whole yet; it is removed where it does not become one.
struct Part {
    path: PathBuf,
}

impl Part {
    fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// For its owner's eyes alone: a dump holds passwords of equipment.
    fn create(&self) -> Result<File, BackupError> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(|error| self.said(error))
    }

    fn become_file(&self, file: &Path) -> Result<(), BackupError> {
        std::fs::rename(&self.path, file).map_err(|error| self.said(error))
    }

    fn said(&self, error: io::Error) -> BackupError {
        BackupError::File(self.path.clone(), error)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(tables: &[(&str, i64)], sites: &[(&str, &str)]) -> Content {
        Content {
            tables: tables
                .iter()
                .map(|(table, rows)| TableRows {
                    table: (*table).to_owned(),
                    rows: *rows,
                })
                .collect(),
            sites: sites
                .iter()
                .map(|(name, hash)| SiteContent {
                    name: (*name).to_owned(),
                    devices: 1,
                    hash: (*hash).to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn every_difference_is_named() {
        let wanted = content(&[("a", 1), ("b", 2)], &[("Lyon", "x"), ("Paris", "y")]);
        assert_eq!(wanted.differences(&wanted), [""; 0]);
        for (found, said) in [
            (
                content(&[("a", 1)], &[("Lyon", "x"), ("Paris", "y")]),
                vec!["table b: is not there"],
            ),
            (
                content(&[("a", 1), ("b", 3)], &[("Lyon", "x"), ("Paris", "z")]),
                vec![
                    "table b: has 3 rows instead of 2",
                    "site \"Paris\": its configuration hashes to z (1 devices) instead of y (1)",
                ],
            ),
            (
                content(&[("a", 1), ("b", 2)], &[("Athens", "x"), ("Paris", "y")]),
                vec!["site \"Lyon\": is not there"],
            ),
            (
                content(&[("a", 1), ("b", 2)], &[]),
                vec![
                    "site \"Lyon\": is not there",
                    "site \"Paris\": is not there",
                ],
            ),
            (
                content(
                    &[("a", 1), ("b", 2)],
                    &[("Lyon", "x"), ("Nice", "n"), ("Paris", "y")],
                ),
                vec!["3 sites are there instead of 2"],
            ),
        ] {
            assert_eq!(wanted.differences(&found), said);
        }
    }
}
