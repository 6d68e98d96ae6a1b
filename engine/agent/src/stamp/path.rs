//! Files that the stamp writes. Invariant: paths stay below the root they are joined to, and a reader sees a file's old
//! contents or its new ones.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// `path`, absolute in the guest, below `root`.
pub(crate) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Whether `path` is absolute, names a file, and has no `..` in it.
pub(crate) fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('\0')
        && !path.ends_with('/')
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Replaces the file at `path`, making missing directories.
pub(crate) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = std::ffi::OsString::from(".brood-stamp-");
    name.push(std::process::id().to_string());
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, mode, bytes).and_then(|()| fs::rename(&temporary, path));
    let Err(error) = written else {
        return Ok(());
    };
    match fs::remove_file(&temporary) {
        Err(left) if left.kind() != io::ErrorKind::NotFound => return Err(left),
        _ => {}
    }
    // A file that is a mount of its own cannot be renamed over; nobody reads it meanwhile.
    if error.raw_os_error() == Some(libc::EBUSY) {
        return in_place(path, bytes);
    }
    Err(error)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    // Past the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Rewrites the file at `path` without changing its inode, for those that have it mounted or mapped.
pub(crate) fn in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)?;
    file.write_all(bytes)?;
    // Never shorter than a mapping while it is written.
    file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for bad in ["etc/x", "/a/../b", "/a/", "/", "", "/a\0b", ".."] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(is_plain("/a/b.c"));
        assert_eq!(below(Path::new("/r"), "//etc/x"), PathBuf::from("/r/etc/x"));
    }

    #[test]
    fn replace_sets_the_mode_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        replace(&path, 0o640, b"one").unwrap();
        replace(&path, 0o666, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(directory.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b");
        // rename(2) puts no file in the place of a directory.
        fs::create_dir(&path).unwrap();
        let error = replace(&path, 0o640, b"one").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_no_file_can_be_made_the_cause_is_told() {
        // sysfs makes no files for anybody; that the temporary one is missing afterwards is no cause.
        let error = replace(Path::new("/sys/kernel/brood"), 0o640, b"one").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn in_place_keeps_the_inode_and_shortens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        in_place(&path, b"longer").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        in_place(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }
}
