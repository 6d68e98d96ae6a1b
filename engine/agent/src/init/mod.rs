//! The first process of a guest. Invariant: nothing that is missing or refused here stops the guest: it is said on the
//! console, and the agent goes on with what there is, so that the engine can ask it what is wrong.

mod loopback;
mod module;
mod mount;
pub(crate) mod reap;
mod root;

use std::io;
use std::path::Path;
use std::thread;

use crate::mem;

/// Prepares the guest: file systems, `lo`, kernel modules, the root disk; and starts reaping orphans.
///
/// Each line of the result is something that did not work.
pub fn prepare() -> Vec<String> {
    let mut problems = mount::all();
    problems.extend(module::load_listed(Path::new(module::LIST)));
    // Devices that a module brought may be what the root is on.
    problems.extend(root::enter_listed(
        Path::new(root::COMMAND_LINE),
        Path::new(root::SPEC),
    ));
    if let Err(error) = loopback::up() {
        problems.push(format!("bringing up lo: {error}"));
    }
    if let Err(error) = start_reaper() {
        problems.push(format!("no thread to reap orphans: {error}"));
    }
    problems
}

/// Starts the thread that reaps orphans.
///
/// # Errors
/// If there is no memory for a thread.
pub fn start_reaper() -> io::Result<()> {
    thread::Builder::new()
        .name("reaper".to_owned())
        .stack_size(mem::PUMP_STACK)
        .spawn(|| reap::orphans())
        .map(drop)
}
