//! Single cgroup2 directories (Documentation/admin-guide/cgroup-v2.rst). Invariant: a cgroup that vanished is an answer
//! ([`Gone`](State::Gone)), not an error, since processes end at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Whether every process of a cgroup and its descendants is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Frozen,
    Thawed,
    Gone,
}

/// Makes the cgroup at `path`, if need be.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Opens a cgroup for `CLONE_INTO_CGROUP`.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

/// Writes one of a cgroup's control files, in a single write.
pub(crate) fn write(cgroup: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(cgroup.join(file))?
        .write_all(value.as_bytes())
}

/// Kills every process of the cgroup, frozen or not (`cgroup.kill`, Linux 5.14).
pub(crate) fn kill(cgroup: &Path) -> io::Result<()> {
    write(cgroup, "cgroup.kill", "1")
}

/// Process ids in `cgroup.procs`. Those of other pid namespaces show as 0 and are left out.
pub(crate) fn processes(cgroup: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect())
}

/// Child cgroups.
pub(crate) fn children(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Whether the error means that the cgroup was removed meanwhile.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The `frozen` key of `cgroup.events`, from the file opened at some time.
pub(crate) fn state(events: &File) -> io::Result<State> {
    let mut text = [0; 256];
    let read = match events.read_at(&mut text, 0) {
        Ok(read) => read,
        Err(error) if is_gone(&error) => return Ok(State::Gone),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default()).into_owned();
    Ok(if text.lines().any(|line| line == "frozen 1") {
        State::Frozen
    } else {
        State::Thawed
    })
}

/// Opens `cgroup.events`; none if the cgroup is gone.
pub(crate) fn open_events(cgroup: &Path) -> io::Result<Option<File>> {
    match File::open(cgroup.join("cgroup.events")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_from_the_frozen_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        for (text, wanted) in [
            ("populated 1\nfrozen 0\n", State::Thawed),
            ("populated 0\nfrozen 1\n", State::Frozen),
            ("populated 1\n", State::Thawed),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(state(&File::open(&path).unwrap()).unwrap(), wanted);
        }
    }
}
