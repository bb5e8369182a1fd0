//! What the package installed: the service's variables, its user and its
//! rights, for commands that are typed beside it.
//!
//! A command takes the service's variables where `AGENT_CONFIG` is not set and
//! the service's folder is there: what is documented works as it is written,
//! also under `sudo`, which passes no variables on. The contract's default is
//! for machines without that folder.

mod unit;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use av_proto::FieldError;
use av_service::environment_file;
use rustix::fs::StatVfsMountFlags;

use crate::http_client::HttpClient;
use crate::settings::Settings;
use crate::tls::TlsFiles;
use unit::Unit;

/// The folder that the package makes.
const FOLDER: &str = "etc/av-monitoring/agent";
/// What the package's unit sets, for where no unit is.
const DEFAULTS: [(&str, &str); 2] = [
    (CONFIG, "/etc/av-monitoring/agent/config.json"),
    ("AV_STATE_DIR", "/var/lib/av-monitoring/agent"),
];
const ENVIRONMENT_FILE: &str = "/etc/av-monitoring/agent.env";
const CONFIG: &str = "AGENT_CONFIG";
/// The right to a raw socket.
pub(super) const NET_RAW: &str = "CAP_NET_RAW";
/// The right to a port below 1024.
pub(super) const NET_BIND: &str = "CAP_NET_BIND_SERVICE";

/// What is wanted of a file or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Of a folder: to make files in it.
    Write,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    /// Of all its groups.
    pub gids: Vec<u32>,
}

/// The service `av-agent`, running or not.
#[derive(Debug)]
pub(super) struct Service {
    /// The unit's file; `None` where there is none, and the package's is
    /// assumed.
    pub unit: Option<PathBuf>,
    /// The user's name as the unit has it, and what the system knows of it.
    pub user: Result<User, String>,
    /// The file of variables that cannot be read, and why.
    pub unread: Option<(PathBuf, io::Error)>,
    variables: BTreeMap<String, String>,
    settings: Unit,
}

impl Service {
    /// The service of this machine, where its folder is there.
    pub(super) fn find() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Option<Self> {
        if !root.join(FOLDER).is_dir() {
            return None;
        }
        let found = Unit::find(root);
        let path = found.as_ref().map(|unit| unit.path.clone());
        let mut variables: BTreeMap<String, String> = DEFAULTS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let (unit, files) = match found {
            Some(unit) => {
                let files = unit.environment_files();
                (unit, files)
            }
            None => (Unit::packaged(), vec![ENVIRONMENT_FILE.into()]),
        };
        variables.extend(unit.environment());
        let mut unread = None;
        for file in files {
            let inside = file.strip_prefix("/").unwrap_or(&file);
            match fs::read_to_string(root.join(inside)) {
                Ok(text) => variables.extend(environment_file::parse(&text).variables),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unread = Some((file, error)),
            }
        }
        variables.retain(|_, value| !value.is_empty());
        let name = unit.value("User").unwrap_or("root").to_owned();
        Some(Self {
            unit: path,
            user: user(root, &name)
                .map(|user| user.with_groups(root, &unit))
                .ok_or(name),
            unread,
            variables,
            settings: unit,
        })
    }

    /// A variable as the service has it.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    /// The service's settings.
    ///
    /// # Errors
    /// The variable that is not valid, and why.
    pub(super) fn settings(&self) -> Result<Settings, FieldError> {
        Settings::from_lookup(|name| self.get(name))
    }

    /// The service's configuration file.
    pub(super) fn config_path(&self) -> PathBuf {
        // An empty variable counts as absent for the service too.
        let named = self.get(CONFIG).map(PathBuf::from);
        named.unwrap_or_else(|| Settings::DEFAULT_CONFIG_PATH.into())
    }

    /// Whether the service runs with a capability.
    pub(super) fn has_capability(&self, capability: &str) -> bool {
        let given = |list, otherwise| self.settings.has_capability(list, capability, otherwise);
        let is_root = self.user.as_ref().is_ok_and(|user| user.uid == 0);
        given("CapabilityBoundingSet", true) && (is_root || given("AmbientCapabilities", false))
    }

    /// Why the service may not do this with a file or folder; `None` where it
    /// may.
    ///
    /// # Errors
    /// When this cannot be found out: the caller may not look there.
    pub(super) fn refused(&self, path: &Path, access: Access) -> io::Result<Option<String>> {
        let user = match &self.user {
            Ok(user) => user,
            Err(name) => return Ok(Some(format!("there is no user {name}"))),
        };
        if access == Access::Write {
            if !self.settings.lets_write(path) {
                return Ok(Some(
                    "the unit's ProtectSystem and ReadWritePaths do not let it".to_owned(),
                ));
            }
            let volume = rustix::fs::statvfs(path)?;
            if volume.f_flag.contains(StatVfsMountFlags::RDONLY) {
                return Ok(Some("the file system is read-only".to_owned()));
            }
        }
        let wanted = match access {
            Access::Read => 0o4,
            // To make a file in a folder, one must get into it.
            Access::Write => 0o3,
        };
        for (step, wanted) in path
            .ancestors()
            .zip([wanted].into_iter().chain([0o1].repeat(64)))
        {
            if step.as_os_str().is_empty() {
                break;
            }
            let metadata = fs::metadata(step)?;
            let (mode, owner) = (metadata.mode(), metadata.uid());
            if !user.may(mode, owner, metadata.gid(), wanted) {
                return Ok(Some(format!(
                    "{} belongs to user {owner} (mode {:03o}), and the service is {} ({})",
                    step.display(),
                    mode & 0o777,
                    user.name,
                    user.uid
                )));
            }
        }
        Ok(None)
    }
}

impl User {
    /// The same with the groups that the unit gives it besides.
    fn with_groups(mut self, root: &Path, unit: &Unit) -> Self {
        let groups = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
        let by_name = |name: &str| -> Option<u32> {
            let mut entries = groups.lines().map(|line| line.split(':'));
            let mut entry = entries.find(|entry| entry.clone().next() == Some(name))?;
            entry.nth(2)?.parse().ok()
        };
        for name in ["Group", "SupplementaryGroups"]
            .into_iter()
            .flat_map(|setting| unit.words(setting))
        {
            let gid: Option<u32> = name.parse().ok().or_else(|| by_name(&name));
            if let Some(gid) = gid.filter(|gid| !self.gids.contains(gid)) {
                self.gids.push(gid);
            }
        }
        self
    }

    /// Whether a file's mode gives this user all of `wanted`.
    fn may(&self, mode: u32, owner: u32, group: u32, wanted: u32) -> bool {
        let class = if self.uid == 0 {
            return true;
        } else if self.uid == owner {
            6
        } else if self.gids.contains(&group) {
            3
        } else {
            0
        };
        (mode >> class) & wanted == wanted
    }
}

/// A user by name, from the system's own files.
fn user(root: &Path, name: &str) -> Option<User> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd
        .lines()
        .map(fields)
        .find(|it| it.first().is_some_and(|it| it == name))?;
    let own: u32 = entry.get(3)?.parse().ok()?;
    let others = group.lines().map(fields).filter_map(|entry| {
        let is_in = entry.get(3)?.split(',').any(|member| member == name);
        is_in.then(|| entry.get(2)?.parse().ok()).flatten()
    });
    Some(User {
        name: name.to_owned(),
        uid: entry.get(2)?.parse().ok()?,
        gids: [own].into_iter().chain(others).collect(),
    })
}

/// The variables that a command works with: its own, and the service's where
/// it is meant.
#[derive(Debug)]
pub(super) struct Environment {
    service: Option<Service>,
}

impl Environment {
    /// Of this process, on this machine.
    pub(super) fn here() -> Self {
        Self {
            service: match own(CONFIG) {
                Some(_) => None,
                None => Service::find(),
            },
        }
    }

    /// A variable; an empty one counts as absent.
    fn get(&self, name: &str) -> Option<String> {
        own(name).or_else(|| self.service.as_ref()?.get(name))
    }

    /// The service that is meant.
    pub(super) fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// The settings.
    ///
    /// # Errors
    /// The variable that is not valid, and why.
    pub(super) fn settings(&self) -> Result<Settings, FieldError> {
        Settings::from_lookup(|name| self.get(name))
    }

    /// The configuration file. Another variable that is not valid does not
    /// change where it is.
    pub(super) fn config_path(&self) -> PathBuf {
        let named = self.get(CONFIG).map(PathBuf::from);
        named.unwrap_or_else(|| Settings::DEFAULT_CONFIG_PATH.into())
    }

    /// A client with the files of TLS that the variables name.
    ///
    /// # Errors
    /// The variable that is not valid, and why.
    pub(super) fn client(&self) -> Result<HttpClient, FieldError> {
        let files = TlsFiles::from_lookup(|name| self.get(name))?;
        Ok(HttpClient::with_tls(files))
    }
}

/// A variable of this process; an empty one counts as absent.
pub(super) fn own(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The same error for a person: with what to do where root may do it.
pub(super) fn explained(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() {
        format!("{shown}: {error}: it is for the agent's user and for root: use sudo")
    } else {
        format!("{shown}: {error}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder as the root of a machine.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(FOLDER)).unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const UNIT: &str = include_str!("../../../../systemd/av-agent.service");
    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nav-agent:x:990:991::/:/usr/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nav-agent:x:991:\nmonitor:x:77:other,av-agent\n";

    #[test]
    fn a_machine_without_the_folder_has_no_service() {
        let root = tempfile::tempdir().unwrap();
        assert!(Service::below(root.path()).is_none());
    }

    #[test]
    fn variables_come_from_the_unit_and_then_from_its_file() {
        let root = machine(&[
            ("usr/lib/systemd/system/av-agent.service", UNIT),
            (
                "etc/av-monitoring/agent.env",
                "AV_PAGE_LISTEN='127.0.0.1:9090'\nAV_HANG_S=\n",
            ),
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
        ]);
        let service = Service::below(root.path()).unwrap();
        let settings = service.settings().unwrap();
        assert_eq!(
            settings.config_path,
            Path::new("/etc/av-monitoring/agent/config.json")
        );
        assert_eq!(
            settings.state_dir,
            Path::new("/var/lib/av-monitoring/agent")
        );
        assert_eq!(settings.page_listen.to_string(), "127.0.0.1:9090");
        assert_eq!(service.config_path(), settings.config_path);
        assert!(service.has_capability(NET_RAW) && !service.has_capability(NET_BIND));
        assert!(service.unread.is_none());
        let user = User {
            name: "av-agent".to_owned(),
            uid: 990,
            gids: vec![991, 77],
        };
        assert_eq!(service.user, Ok(user));
    }

    #[test]
    fn without_a_unit_the_packages_own_is_assumed() {
        let root = machine(&[(
            "etc/av-monitoring/agent.env",
            "AV_PAGE_LISTEN=127.0.0.1:9090",
        )]);
        let service = Service::below(root.path()).unwrap();
        assert_eq!(service.unit, None);
        assert_eq!(service.user, Err("av-agent".to_owned()));
        let settings = service.settings().unwrap();
        assert_eq!(
            settings.config_path,
            Path::new("/etc/av-monitoring/agent/config.json")
        );
        assert_eq!(settings.page_listen.to_string(), "127.0.0.1:9090");
        assert!(service.has_capability(NET_RAW));
    }

    #[test]
    fn the_groups_that_the_unit_gives_count_too() {
        let root = machine(&[
            (
                "usr/lib/systemd/system/av-agent.service",
                "[Service]\nUser=av-agent\nGroup=shared\nSupplementaryGroups=certs 12 none\n",
            ),
            ("etc/passwd", PASSWD),
            (
                "etc/group",
                "av-agent:x:991:\nshared:x:50:\ncerts:x:60:other\n",
            ),
        ]);
        let user = Service::below(root.path()).unwrap().user.unwrap();
        assert_eq!(user.gids, [991, 50, 60, 12]);
    }

    #[test]
    fn what_the_services_user_may_is_read_from_modes_and_the_unit() {
        let root = machine(&[
            (
                "usr/lib/systemd/system/av-agent.service",
                "[Service]\nUser=av-agent\n",
            ),
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("file", ""),
        ]);
        // Where temporary folders are, not everybody may get.
        let above = Service::below(root.path()).unwrap();
        let above = above.refused(root.path().parent().unwrap(), Access::Read);
        let reachable = above.unwrap().is_none();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let service = Service::below(root.path()).unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_ne!(me, 990, "this test is run by another user");
        let file = root.path().join("file");
        for (mode, read) in [(0o600, false), (0o644, true), (0o640, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let refused = service.refused(&file, Access::Read).unwrap();
            assert_eq!(
                refused.is_none(),
                read && reachable,
                "{mode:o}: {refused:?}"
            );
        }
        for (mode, write) in [(0o755, false), (0o777, true), (0o776, false)] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refused = service.refused(root.path(), Access::Write).unwrap();
            assert_eq!(
                refused.is_none(),
                write && reachable,
                "{mode:o}: {refused:?}"
            );
        }
        // One cannot get to it.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = service.refused(&file, Access::Read).unwrap().unwrap();
        assert!(
            refused.contains("mode 700") && refused.contains("av-agent (990)"),
            "{refused}"
        );

        let strict = "[Service]\nUser=root\nProtectSystem=strict\n";
        fs::write(
            root.path().join("usr/lib/systemd/system/av-agent.service"),
            strict,
        )
        .unwrap();
        let service = Service::below(root.path()).unwrap();
        let elsewhere = Path::new("/");
        let refused = service.refused(elsewhere, Access::Write).unwrap().unwrap();
        assert!(refused.contains("ProtectSystem"), "{refused}");
        assert_eq!(service.refused(elsewhere, Access::Read).unwrap(), None);
    }
}
