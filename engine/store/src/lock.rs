//! One process for one state directory.
//!
//! Invariant: the lock is the kernel's (man 2 flock) and goes with the process, however it ends; the file says who has it
//! and stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::OpenError;

/// Takes the directory for this process, until the file is closed.
pub(crate) fn take(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let failed = |source: io::Error| OpenError::Directory {
        path: path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut said = String::new();
            // Who has it is a help; that somebody has it is what counts.
            let read = Read::by_ref(&mut file).take(32).read_to_string(&mut said);
            let pid = read.ok().and_then(|_| said.trim().parse::<u32>().ok());
            let holder = pid.map_or_else(
                || "another process".to_owned(),
                |pid| format!("process {pid}"),
            );
            let path = directory.to_owned();
            Err(OpenError::InUse { path, holder })
        }
        Err(errno) => Err(failed(errno.into())),
    }
}
