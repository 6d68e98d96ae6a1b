//! Saving: a machine that stands still gives out everything that another process needs to go on from this point.
//!
//! RAM goes to a stream first, then state and disk files to the engine. Invariant: a save changes nothing that the guest
//! or a fork sees, whether it succeeds or its reader goes away; what was never touched stays untouched. It refuses a
//! machine that runs.

use std::fs::File;
use std::os::fd::OwnedFd;

use brood_snapshot::stream;
use serde::{Deserialize, Serialize};

use super::microvm::Microvm;
use super::parts::{self, Parts};
use super::refusal::{because, refuse};
use crate::protocol::Refusal;

const SAVE: &str = "save";
const AGAIN: &str = "read RAM to its end, or save again";
/// The version of [`SavedState`], which is kept on disk and outlives the engine that wrote it.
const VERSION: u32 = 1;

/// Everything of a snapshot but memory and disk. The version comes first, so that any engine can tell.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedState {
    version: u32,
    parts: Parts,
}

impl SavedState {
    /// The state in a file, if it is of this version.
    pub(super) fn read(fd: OwnedFd, operation: &'static str) -> Result<Parts, Refusal> {
        let bytes = parts::bytes_of(fd, operation)?;
        let other = match postcard::take_from_bytes::<u32>(&bytes) {
            Ok((VERSION, _)) => return Ok(parts::decode::<Self>(&bytes, operation)?.parts),
            Ok((version, _)) => {
                format!("its state has version {version}, this engine reads {VERSION}")
            }
            Err(error) => error.to_string(),
        };
        let remedy = "restore it with the engine that saved it";
        Err(refuse(operation, &other, remedy))
    }
}

/// Writes RAM to the first of `files` and gives out state and disk files.
pub(super) fn save(vm: &mut Microvm, files: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Refusal> {
    let mut files = files.into_iter().map(File::from);
    let out = files.next().ok_or_else(|| {
        let cause = "no descriptor for RAM came along";
        refuse(SAVE, cause, "send what RAM is to be written to")
    })?;
    let pagemap = files.next();
    parts::stand(vm, SAVE)?;
    // Whoever reads may have made a pair that does not wait; this end waits for it.
    rustix::io::ioctl_fionbio(&out, false).map_err(because(SAVE, AGAIN))?;
    let (parts, disk) = parts::read(vm, SAVE)?;
    let version = VERSION;
    let state = parts::to_file(&SavedState { version, parts }, SAVE)?;
    let mut writer = stream::Writer::new(out, vm.ram.bytes());
    vm.ram
        .walk(pagemap.as_ref(), |offset, bytes| {
            writer.write(offset, bytes)
        })
        .map_err(because(SAVE, AGAIN))?;
    writer.finish().map_err(because(SAVE, AGAIN))?;
    let mut fds = vec![state];
    fds.extend(disk);
    Ok(fds)
}
