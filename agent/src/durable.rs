//! Files that are whole after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces `path` by `content` in one step: a reader, or the next start
/// after a power cut, finds the old content or the new, whole. The file is
/// for its owner only: it may hold secrets.
///
/// # Errors
/// The failing step's; the old content then still stands.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = sibling(path, ".tmp");
    let result = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        // Best effort: the error that counts is the first.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

/// Keeps the present content of `path` under `kept`, in one step, without a
/// moment in which `path` is missing.
///
/// # Errors
/// The failing step's; `path` is untouched.
pub fn keep_as(path: &Path, kept: &Path) -> io::Result<()> {
    let temporary = sibling(kept, ".tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A second name for the same file costs no write; where the file system
    // has no links, a copy does.
    if fs::hard_link(path, &temporary).is_err() {
        write_synced(&temporary, &fs::read(path)?)?;
    }
    fs::rename(&temporary, kept)
}

/// `path` with `suffix` added to its file name.
#[must_use]
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Makes a rename, creation or removal in `path`'s directory durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn content_is_replaced_and_kept_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        write_atomic(&path, b"one").unwrap();
        let kept = sibling(&path, ".bak");
        keep_as(&path, &kept).unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read(&kept).unwrap(), b"one");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        write_atomic(&path, b"one").unwrap();
        // The temporary name is taken by a directory.
        fs::create_dir(sibling(&path, ".tmp")).unwrap();
        assert!(write_atomic(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
