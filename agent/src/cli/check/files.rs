//! Files: who may read the token, whether what must be written can be.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Line;
use crate::durable::sibling;
use crate::settings::Settings;

/// Below this nothing can be kept.
const SPACE_LEAST_BYTES: u64 = 16 << 20;

pub(super) fn check(settings: &Settings, lines: &mut Vec<Line>) {
    let config = &settings.config_path;
    for path in [config.clone(), sibling(config, ".bak")] {
        if let Ok(metadata) = fs::metadata(&path) {
            lines.push(token(&path, metadata.mode()));
            if path == *config {
                lines.extend(owner(&path, metadata.uid()));
            }
        }
    }
    if config.is_file() {
        lines.push(folder(
            "config folder",
            parent(config),
            "it keeps what the backend sends there",
        ));
    }
    // The agent makes the folder itself where it can.
    let state = existing(&settings.state_dir);
    lines.push(folder(
        "state folder",
        state,
        "reports and the devices' memory are kept there",
    ));
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

/// Whether a file can be made in a folder.
fn folder(about: &'static str, folder: &Path, why: &str) -> Line {
    let shown = folder.display();
    match try_write(folder) {
        Ok(()) => Line::good(about, format!("{shown} can be written")),
        Err(error) => Line::bad(about, format!("{shown} cannot be written: {error}")).advise(
            format!("give it to the agent's user ({why}): chown -R av-agent: {shown}"),
        ),
    }
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
        assert_eq!(folder("state", dir.path(), "").level, Level::Good);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(folder("state", &file, "").level, Level::Bad);
        assert_eq!(existing(&dir.path().join("not/yet")), dir.path());
    }
}
