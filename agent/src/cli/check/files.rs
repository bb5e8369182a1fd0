//! Files: who may read the token, whether what must be written can be.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::super::installed::{Access, Service};
use super::Line;
use crate::durable::sibling;
use crate::settings::Settings;

/// Below this nothing can be kept.
const SPACE_LEAST_BYTES: u64 = 16 << 20;

pub(super) fn check(settings: &Settings, service: Option<&Service>, lines: &mut Vec<Line>) {
    let config = &settings.config_path;
    for path in [config.clone(), sibling(config, ".bak")] {
        if let Ok(metadata) = fs::metadata(&path) {
            lines.push(token(&path, metadata.mode()));
            match service {
                Some(service) => lines.extend(unreadable(&path, service)),
                None if path == *config => lines.extend(owner(&path, metadata.uid())),
                None => {}
            }
        }
    }
    if let Some(service) = service {
        let client = settings
            .tls
            .client
            .iter()
            .flat_map(|(cert, key)| [cert, key]);
        for path in settings.tls.authorities.iter().chain(client) {
            lines.extend(unreadable(path, service));
        }
    }
    if config.is_file() {
        lines.extend(folder(
            "config folder",
            parent(config),
            "it keeps what the backend sends there",
            service,
        ));
    }
    // The agent makes the folder itself where it can; systemd makes its own.
    let state = existing(&settings.state_dir);
    if service.is_none() || state == settings.state_dir {
        lines.extend(folder(
            "state folder",
            state,
            "reports and the devices' memory are kept there",
            service,
        ));
    }
    match rustix::fs::statvfs(state) {
        Ok(volume) => lines.push(space(
            state,
            volume.f_bavail.saturating_mul(volume.f_frsize),
            settings.spool_max_bytes,
        )),
        Err(error) => lines.push(Line::doubtful(
            "space",
            format!("{}: {error}", state.display()),
        )),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The folder itself, or the nearest above it that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("."))
}

/// Whether somebody else may read the file with the token.
fn token(path: &Path, mode: u32) -> Line {
    const ABOUT: &str = "token";
    let shown = path.display();
    match mode & 0o077 {
        0 => Line::good(ABOUT, format!("{shown} is for its owner only")),
        others => Line::doubtful(
            ABOUT,
            format!(
                "{shown} can be {} by others (mode {:03o})",
                if others & 0o022 == 0 {
                    "read"
                } else {
                    "written"
                },
                mode & 0o777
            ),
        )
        .advise(format!("chmod 600 {shown}")),
    }
}

/// What root may do says nothing of what the agent may.
fn owner(path: &Path, owner: u32) -> Option<Line> {
    let me = rustix::process::geteuid().as_raw();
    (owner != me).then(|| {
        Line::doubtful(
            "user",
            format!(
                "{} belongs to user {owner}, and you are {me}",
                path.display()
            ),
        )
        .advise("check as the agent's own user: sudo -u av-agent av-agent check")
    })
}

/// A file that the service cannot read. What this command's user may not look
/// at is not said: it would say nothing of the service.
fn unreadable(path: &Path, service: &Service) -> Option<Line> {
    let shown = path.display();
    let why = match service.refused(path, Access::Read) {
        Ok(refused) => refused?,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(error) => error.to_string(),
    };
    Some(
        Line::bad(
            "user",
            format!("{shown} cannot be read by the service: {why}"),
        )
        .advise(format!(
            "give it to the agent's user: chown av-agent: {shown}"
        )),
    )
}

/// Whether a file can be made in a folder: by the service, or by this
/// command's user where there is none. Nothing where that cannot be found out.
fn folder(
    about: &'static str,
    folder: &Path,
    why: &str,
    service: Option<&Service>,
) -> Option<Line> {
    let shown = folder.display();
    let refused = match service {
        Some(service) => match service.refused(folder, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(error) => Some(error.to_string()),
            Ok(refused) => refused,
        },
        None => try_write(folder).err().map(|error| error.to_string()),
    };
    Some(match refused {
        None => Line::good(about, format!("{shown} can be written")),
        Some(refused) => Line::bad(about, format!("{shown} cannot be written: {refused}")).advise(
            format!("give it to the agent's user ({why}): chown -R av-agent: {shown}"),
        ),
    })
}

fn try_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".av-agent-check-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)
}

/// Whether the spool has room.
fn space(folder: &Path, free: u64, wanted: u64) -> Line {
    const ABOUT: &str = "space";
    let found = format!("{} MiB free for {}", free >> 20, folder.display());
    if free < SPACE_LEAST_BYTES {
        Line::bad(ABOUT, found).advise("make room: reports cannot be kept, nor the configuration")
    } else if free < wanted {
        Line::doubtful(ABOUT, found).advise(format!(
            "unsent reports may take {} MiB (AV_SPOOL_MAX_MB): make room, or let them take less",
            wanted >> 20
        ))
    } else {
        Line::good(ABOUT, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_token_is_for_its_owner() {
        for (mode, level, said) in [
            (0o100_600, Level::Good, "for its owner only"),
            (0o100_400, Level::Good, "for its owner only"),
            (
                0o100_640,
                Level::Doubtful,
                "can be read by others (mode 640)",
            ),
            (
                0o100_604,
                Level::Doubtful,
                "can be read by others (mode 604)",
            ),
            (
                0o100_666,
                Level::Doubtful,
                "can be written by others (mode 666)",
            ),
        ] {
            let line = token(Path::new("/c.json"), mode);
            assert_eq!(line.level, level, "{mode:o}");
            assert!(line.found.contains(said), "{line:?}");
        }
    }

    #[test]
    fn space_is_measured_against_the_spool() {
        for (free, level) in [
            (0, Level::Bad),
            (17 << 20, Level::Doubtful),
            (256 << 20, Level::Good),
        ] {
            let line = space(Path::new("/s"), free, 256 << 20);
            assert_eq!(line.level, level, "{line:?}");
        }
    }

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let level = |path| folder("state", path, "", None).unwrap().level;
        assert_eq!(level(dir.path()), Level::Good);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(level(&file), Level::Bad);
        assert_eq!(existing(&dir.path().join("not/yet")), dir.path());
    }
}
