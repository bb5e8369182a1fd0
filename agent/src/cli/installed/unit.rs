//! The service's unit, as far as it says what the agent is given
//! (systemd.unit(5), systemd.exec(5)).
//!
//! The files are read themselves: they are there in a container and on a card
//! that is being prepared too, where no systemd runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where units are, the first that has one wins.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
const NAME: &str = "av-agent.service";

/// The `[Service]` section of a unit and of what is laid over it.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The file.
    pub path: PathBuf,
    settings: Vec<(String, String)>,
}

impl Unit {
    /// The agent's unit below a root folder.
    pub(super) fn find(root: &Path) -> Option<Self> {
        let folders = || FOLDERS.iter().map(|folder| root.join(folder));
        let (path, text) = folders().find_map(|folder| {
            let path = folder.join(NAME);
            let text = fs::read_to_string(&path).ok()?;
            // One that is masked is a link to nothing: the package's tells more.
            let says = !text.trim().is_empty();
            says.then_some((path, text))
        })?;
        let mut laid_over: BTreeMap<_, PathBuf> = BTreeMap::new();
        for folder in folders() {
            let entries = fs::read_dir(folder.join(format!("{NAME}.d")));
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|it| it == "conf") {
                    laid_over.entry(entry.file_name()).or_insert(path);
                }
            }
        }
        let mut settings = parse(&text);
        for path in laid_over.into_values() {
            settings.extend(parse(&fs::read_to_string(path).unwrap_or_default()));
        }
        Some(Self { path, settings })
    }

    /// What the package's unit gives, for where no unit is.
    pub(super) fn packaged() -> Self {
        Self {
            path: PathBuf::new(),
            settings: parse(
                "[Service]\n\
                 User=av-agent\n\
                 CapabilityBoundingSet=CAP_NET_RAW\n\
                 AmbientCapabilities=CAP_NET_RAW\n",
            ),
        }
    }

    /// The values of a setting since it was last emptied.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_it: Vec<&str> = self
            .settings
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        let from = of_it.iter().rposition(|value| value.is_empty());
        of_it.into_iter().skip(from.map_or(0, |at| at + 1))
    }

    /// The words of a list.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        self.values(name).flat_map(words).collect()
    }

    /// A setting that has one value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// The variables of `Environment=`, in their order.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let words = self.words("Environment").into_iter();
        words
            .filter_map(|word| {
                let (key, value) = word.split_once('=')?;
                Some((key.to_owned(), value.replace("%%", "%")))
            })
            .collect()
    }

    /// The files of `EnvironmentFile=`, in their order.
    pub(super) fn environment_files(&self) -> Vec<PathBuf> {
        let files = self.values("EnvironmentFile");
        files
            .map(|file| file.trim_start_matches('-').into())
            .collect()
    }

    /// Whether a list of capabilities has one; `otherwise` where there is no
    /// list. One that begins with `~` takes away.
    pub(super) fn has_capability(&self, list: &str, capability: &str, otherwise: bool) -> bool {
        let mut has = otherwise;
        let mut first = true;
        for (name, value) in &self.settings {
            if name != list {
                continue;
            }
            let (takes, named) = match value.strip_prefix('~') {
                Some(named) => (true, named),
                None => (false, value.as_str()),
            };
            if value.is_empty() || first {
                has = takes;
            }
            if words(named)
                .iter()
                .any(|word| word.eq_ignore_ascii_case(capability))
            {
                has = !takes;
            }
            first = false;
        }
        has
    }

    /// Whether the service may write below a folder at all.
    pub(super) fn lets_write(&self, folder: &Path) -> bool {
        if self.value("ProtectSystem") != Some("strict") {
            return true;
        }
        let paths = self.words("ReadWritePaths").into_iter();
        let paths = paths.map(|path| PathBuf::from(path.trim_start_matches(['-', '+'])));
        let made = |setting: &str, folder: &str| {
            let folder = PathBuf::from(folder);
            let made = self.words(setting).into_iter();
            made.map(|name| folder.join(name)).collect::<Vec<_>>()
        };
        paths
            .chain(made("StateDirectory", "/var/lib"))
            .chain(made("RuntimeDirectory", "/run"))
            .chain(["/tmp", "/var/tmp", "/dev", "/proc", "/sys"].map(PathBuf::from))
            .any(|writable| folder.starts_with(writable))
    }
}

/// The settings of the section `[Service]`, in their order.
fn parse(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut section = String::new();
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        // Also between the lines of a setting that goes on.
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            joined += start;
            joined.push(' ');
            continue;
        }
        let line = std::mem::take(&mut joined) + line;
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let (Some((name, value)), "Service") = (line.split_once('='), section.as_str()) {
            settings.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// The words of a value; quotes keep blanks in one, and a backslash comes
/// before what it takes the meaning from.
fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', _) => {
                let c = match rest.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('s') => ' ',
                    Some(c) => c,
                    None => '\\',
                };
                word.get_or_insert_default().push(c);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        Unit {
            path: PathBuf::new(),
            settings: parse(&format!("[Service]\n{text}")),
        }
    }

    #[test]
    fn values_are_words_and_quotes_keep_them_together() {
        for (value, expected) in [
            ("a b\tc", &["a", "b", "c"][..]),
            ("\"A=x y\" 'B=z'", &["A=x y", "B=z"]),
            ("A=\"x y\"", &["A=x y"]),
            ("A=x\\sy", &["A=x y"]),
            ("\"\"", &[""]),
            ("", &[]),
        ] {
            assert_eq!(words(value), expected, "{value}");
        }
    }

    #[test]
    fn sections_comments_and_lines_that_go_on_are_told_apart() {
        let unit = unit(
            "Environment=A=1 \\\n# between\n  B=2\n;Environment=C=3\nEnvironment=\"D=x y\" E=100%%\n\
             [Install]\nEnvironment=F=6\n[Service]\nEnvironmentFile=-/etc/a.env\nUser = av-agent",
        );
        let environment = unit.environment();
        let read: Vec<(&str, &str)> = environment
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(read, [("A", "1"), ("B", "2"), ("D", "x y"), ("E", "100%")]);
        assert_eq!(unit.environment_files(), [PathBuf::from("/etc/a.env")]);
        assert_eq!(unit.value("User"), Some("av-agent"));
        assert_eq!(unit.value("Group"), None);
    }

    #[test]
    fn an_empty_value_begins_a_list_anew() {
        let unit = unit("Environment=A=1\nEnvironment=\nEnvironment=B=2");
        assert_eq!(unit.environment(), [("B".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn capabilities_are_given_and_taken() {
        for (text, ambient, bounding) in [
            ("", false, true),
            (
                "AmbientCapabilities=CAP_NET_RAW\nCapabilityBoundingSet=CAP_NET_RAW",
                true,
                true,
            ),
            ("AmbientCapabilities=cap_net_raw CAP_SYS_TIME", true, true),
            (
                "AmbientCapabilities=CAP_NET_RAW\nAmbientCapabilities=",
                false,
                true,
            ),
            (
                "AmbientCapabilities=CAP_SYS_TIME\nAmbientCapabilities=CAP_NET_RAW",
                true,
                true,
            ),
            (
                "AmbientCapabilities=CAP_NET_RAW\nAmbientCapabilities=~CAP_NET_RAW",
                false,
                true,
            ),
            ("CapabilityBoundingSet=", false, false),
            ("CapabilityBoundingSet=CAP_CHOWN", false, false),
            ("CapabilityBoundingSet=~CAP_CHOWN", false, true),
            ("CapabilityBoundingSet=~CAP_NET_RAW", false, false),
        ] {
            let unit = unit(text);
            let has = |list, otherwise| unit.has_capability(list, "CAP_NET_RAW", otherwise);
            let found = (
                has("AmbientCapabilities", false),
                has("CapabilityBoundingSet", true),
            );
            assert_eq!(found, (ambient, bounding), "{text}");
        }
    }

    #[test]
    fn a_protected_system_is_written_to_where_the_unit_lets() {
        let open = unit("");
        let strict = unit(
            "ProtectSystem=strict\nReadWritePaths=/etc/av-monitoring/agent -/srv/av\n\
             StateDirectory=av-monitoring/agent",
        );
        for (folder, lets) in [
            ("/etc/av-monitoring/agent", true),
            ("/var/lib/av-monitoring/agent/spool", true),
            ("/srv/av/state", true),
            ("/etc/av-monitoring", false),
            ("/srv/other", false),
        ] {
            assert!(open.lets_write(Path::new(folder)));
            assert_eq!(strict.lets_write(Path::new(folder)), lets, "{folder}");
        }
    }

    #[test]
    fn the_unit_that_comes_with_the_agent_is_understood_and_what_is_laid_over_it() {
        let root = tempfile::tempdir().unwrap();
        assert!(Unit::find(root.path()).is_none());
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let own = include_str!("../../../../systemd/av-agent.service");
        write("lib/systemd/system/av-agent.service", own);
        let unit = Unit::find(root.path()).unwrap();
        assert!(unit.path.ends_with("lib/systemd/system/av-agent.service"));
        let environment = unit.environment();
        for variable in [
            ("AGENT_CONFIG", "/etc/av-monitoring/agent/config.json"),
            ("AV_STATE_DIR", "/var/lib/av-monitoring/agent"),
        ] {
            let variable = (variable.0.to_owned(), variable.1.to_owned());
            assert!(environment.contains(&variable), "{environment:?}");
        }
        assert_eq!(
            unit.environment_files(),
            [PathBuf::from("/etc/av-monitoring/agent.env")]
        );
        assert_eq!(unit.value("User"), Some("av-agent"));
        assert!(unit.has_capability("AmbientCapabilities", "CAP_NET_RAW", false));
        assert!(unit.has_capability("CapabilityBoundingSet", "CAP_NET_RAW", true));
        assert!(unit.lets_write(Path::new("/etc/av-monitoring/agent")));
        assert!(unit.lets_write(Path::new("/var/lib/av-monitoring/agent")));
        assert!(!unit.lets_write(Path::new("/srv")));

        write(
            "etc/systemd/system/av-agent.service.d/b.conf",
            "[Service]\nUser=other",
        );
        write(
            "lib/systemd/system/av-agent.service.d/b.conf",
            "[Service]\nUser=hidden",
        );
        write(
            "lib/systemd/system/av-agent.service.d/a.conf",
            "[Service]\nUser=first\nEnvironment=X=1",
        );
        write(
            "lib/systemd/system/av-agent.service.d/c.txt",
            "[Service]\nUser=none",
        );
        let unit = Unit::find(root.path()).unwrap();
        assert_eq!(unit.value("User"), Some("other"));
        assert!(
            unit.environment()
                .contains(&("X".to_owned(), "1".to_owned()))
        );
        write("etc/systemd/system/av-agent.service", "[Service]\nUser=own");
        fs::remove_dir_all(root.path().join("etc/systemd/system/av-agent.service.d")).unwrap();
        let unit = Unit::find(root.path()).unwrap();
        assert_eq!(unit.value("User"), Some("hidden"));
    }
}
