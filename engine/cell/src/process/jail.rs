//! The jail: what a cell gives up before its guest runs, inherited by every daughter.
//!
//! Mount, IPC, UTS and network namespaces of its own, an empty read-only root, no capabilities, no new privileges,
//! no core dumps, not traceable. What stays: descriptors it was handed. Invariant: [`enter`] returns only when all of it is done, and the guest does not
//! run before. It needs root; a cell started by another user has little to give up and gives up what it can.

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::refusal::because;
use crate::protocol::Refusal;

const JAIL: &str = "jail";
const REMEDY: &str = "start the engine as root, or in a user namespace that may mount";

/// Gives up file system, capabilities and the way to new privileges.
pub(super) fn enter() -> Result<(), Refusal> {
    if rustix::process::geteuid().is_root() {
        empty_root().map_err(because(JAIL, REMEDY))?;
        drop_capabilities().map_err(because(JAIL, REMEDY))?;
    }
    set_no_new_privs(true).map_err(because(JAIL, REMEDY))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(because(JAIL, REMEDY))
}

/// An empty tmpfs takes the place of the root; the old one is gone from this process's view.
fn empty_root() -> rustix::io::Result<()> {
    let flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWNET;
    // SAFETY: the process has one thread, so no other loses its view of the file system.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        c"none",
        c"/tmp",
        c"tmpfs",
        flags,
        Some(c"size=4k,mode=0555"),
    )?;
    chdir("/tmp")?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, c"")
}

fn drop_capabilities() -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // An older kernel does not know the newest ones.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)
}
