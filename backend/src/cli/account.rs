//! The unit's variables and its user, for a command that root types.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use av_service::environment_file;
use nix::unistd::{User, geteuid, initgroups, setgid, setuid};

use super::Failure;
use crate::backup::Account;

/// Where the unit has its variables.
const DEFAULT_FILE: &str = "/etc/av-monitoring/backend.env";
/// The unit's user.
const DEFAULT_USER: &str = "av-backend";
/// The variable that names another one.
const USER_VARIABLE: &str = "AV_USER";
/// Says that the file has been read already.
const READ: &str = "BACKEND_UNIT_ENV_READ";

/// Which files.
#[derive(Debug, clap::Args)]
pub(super) struct EnvFile {
    /// The file of the unit's variables, /etc/av-monitoring/backend.env; "" for none. What is set already goes before it; root becomes the unit's user, av-backend or AV_USER
    #[arg(long, env = "AV_ENV_FILE", global = true, value_name = "FILE")]
    env_file: Option<OsString>,
    /// The instance whose variables are read too: 1 for backend-1.env beside that file
    #[arg(long, env = "AV_INSTANCE", global = true, value_name = "NAME")]
    instance: Option<String>,
}

/// What a command does as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Neither needs the database nor its settings.
    Alone,
    /// Everything as the unit's user.
    AsUser,
    /// Files as the caller, and the database as the unit's user.
    WithFiles,
}

/// What is to be done before a command begins.
pub(super) enum Prepared {
    /// Nothing more; who connects to the database, where that is another user.
    Go(Option<Account>),
    /// The settings are in a file that this user may not read.
    Unreadable(PathBuf),
}

impl EnvFile {
    /// Reads the unit's variables and becomes its user, where root asks for it.
    /// What is to be in the environment is there only in a program that starts
    /// with it, so this one starts again: then this does not come back.
    ///
    /// # Errors
    /// Where a file that was named cannot be read, or the user cannot be become.
    pub(super) fn prepare(&self, work: Work) -> Result<Prepared, Failure> {
        if work == Work::Alone {
            return Ok(Prepared::Go(None));
        }
        let is_root = geteuid().is_root();
        if std::env::var_os(READ).is_some() {
            let account = match is_root && work == Work::WithFiles {
                true => user(&BTreeMap::new())?.map(|user| account(&user)),
                false => None,
            };
            return Ok(Prepared::Go(account));
        }
        let Some(variables) = (match self.read() {
            Ok(found) => found,
            Err(Unread::Forbidden(file)) if self.env_file.is_none() => {
                return Ok(Prepared::Unreadable(file));
            }
            Err(error) => return Err(error.into()),
        }) else {
            return Ok(Prepared::Go(None));
        };
        let user = match is_root {
            true => user(&variables)?,
            false => None,
        };
        let mut again = again();
        again.env(READ, "1");
        for (name, value) in variables {
            // What is set already goes before the file.
            if std::env::var_os(&name).is_none() {
                again.env(name, value);
            }
        }
        if let (Some(user), Work::AsUser) = (user, work) {
            again
                .env("HOME", &user.dir)
                .env("USER", &user.name)
                .env("LOGNAME", &user.name);
            become_user(&user)?;
        }
        let error = again.exec();
        Err(Failure::new(format!(
            "the program cannot be started again with the unit's variables: {error}"
        )))
    }

    /// The variables of the files, the later one before the earlier one; `None`
    /// where there is no file.
    fn read(&self) -> Result<Option<BTreeMap<String, String>>, Unread> {
        let named = self.env_file.as_deref();
        if named.is_some_and(std::ffi::OsStr::is_empty) {
            return Ok(None);
        }
        let first = PathBuf::from(named.unwrap_or(DEFAULT_FILE.as_ref()));
        let mut variables = BTreeMap::new();
        let mut found = read_into(&first, &mut variables, named.is_some())?;
        if let Some(instance) = self.instance.as_deref().filter(|name| !name.is_empty()) {
            let stem = first.file_stem().unwrap_or_default().to_string_lossy();
            let second = first.with_file_name(format!("{stem}-{instance}.env"));
            found |= read_into(&second, &mut variables, true)?;
        }
        Ok(found.then_some(variables))
    }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("{file} cannot be read by this user: type the command with sudo", file = .0.display())]
    Forbidden(PathBuf),
    #[error("{file}: {error}", file = .0.display(), error = .1)]
    Failed(PathBuf, std::io::Error),
}

impl From<Unread> for Failure {
    fn from(error: Unread) -> Self {
        Self::unreadable(error)
    }
}

fn read_into(
    file: &Path,
    variables: &mut BTreeMap<String, String>,
    must_be_there: bool,
) -> Result<bool, Unread> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !must_be_there => return Ok(false),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(Unread::Forbidden(file.to_owned()));
        }
        Err(error) => return Err(Unread::Failed(file.to_owned(), error)),
    };
    let text = String::from_utf8(text).map_err(|_| {
        let error = std::io::Error::new(ErrorKind::InvalidData, "is not UTF-8");
        Unread::Failed(file.to_owned(), error)
    })?;
    let found = environment_file::parse(&text);
    for line in found.ignored {
        // Not the line itself: it may be a password.
        eprintln!(
            "av-backend: {}: line {line} is ignored: it is not NAME=value",
            file.display()
        );
    }
    variables.extend(found.variables);
    Ok(true)
}

/// The unit's user; `None`, and a word of it, where there is none.
fn user(variables: &BTreeMap<String, String>) -> Result<Option<User>, Failure> {
    let name = std::env::var(USER_VARIABLE)
        .ok()
        .or_else(|| variables.get(USER_VARIABLE).cloned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_USER.to_owned());
    let found = User::from_name(&name)
        .map_err(|error| Failure::new(format!("the user {name:?}: {error}")))?;
    if found.is_none() {
        eprintln!("av-backend: there is no user {name:?} here: the database is asked as root");
    }
    Ok(found)
}

fn account(user: &User) -> Account {
    Account {
        name: user.name.clone(),
        home: user.dir.clone(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }
}

/// Becomes this user for good. Every thread does, and there is one.
fn become_user(user: &User) -> Result<(), Failure> {
    let failed = |error: nix::Error| {
        Failure::new(format!(
            "the user {:?} cannot be become: {error}",
            user.name
        ))
    };
    let name = CString::new(user.name.as_str()).map_err(|_| failed(nix::Error::EINVAL))?;
    initgroups(&name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}

/// This program with the same arguments.
fn again() -> Command {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| DEFAULT_USER.into());
    // By its file, which need not be where its name leads now, nor where the
    // unit's user may look.
    let own = Path::new("/proc/self/exe");
    let mut again = match own.exists() {
        true => Command::new(own),
        false => Command::new(&name),
    };
    again.arg0(name).args(arguments);
    again
}
