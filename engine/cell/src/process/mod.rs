//! The cell: a process that is one microVM.
//!
//! ```text
//!  start ── Boot ──► Microvm ──┬── serve: control socket, device queues, vsock streams (one thread, poll(2))
//!        ├─ Load ──► (warm)    ├── vCPU threads: KVM_RUN, device registers
//!        └─ Restore ► (lazy)   └── Fork: park ─ save ─ fork(2) ──► frozen point ──► daughters, each a Microvm
//! ```
//!
//! Single-purpose and without an async runtime, so that fork(2) at a known line copies all of it. Invariant: the main
//! thread owns everything; vCPU threads reach only `shared::Shared`. It refuses any first message but Boot, Load or Restore.

mod birth;
mod boot;
mod exits;
mod fork;
mod hardware;
mod jail;
mod microvm;
mod mouth;
mod parts;
mod refusal;
mod restore;
mod save;
mod serve;
mod shared;
mod warm;

use std::os::fd::{FromRawFd, OwnedFd};

use crate::protocol::{Ask, Ending, Event, FromCell, Reply, Request, VERSION};
use brood_control::Control;

/// Runs a cell over the control socket on standard input, until its machine or its engine ends.
///
/// # Errors
/// None that anybody could handle: what goes wrong is told to the engine; the exit code says the rest.
pub fn main() -> std::process::ExitCode {
    fork::close_strangers();
    // SAFETY: the engine passes the control socket as descriptor 0 and nothing else here uses it.
    let control = Control::new(unsafe { OwnedFd::from_raw_fd(0) });
    if serve::wait_for_first(&control).is_break() {
        return std::process::ExitCode::from(1);
    }
    let (Ask { id, request }, fds) = match control.receive::<Ask>() {
        Ok(first) => first,
        Err(error) => {
            let reason = refusal::refuse(
                "first message",
                &refusal::chain(&error),
                "start with Boot, Load or Restore",
            )
            .to_string();
            // If the engine has gone there is nobody to tell.
            control
                .send(
                    &FromCell::Event(Event::Ended(Ending::Refused { reason })),
                    &[],
                )
                .ok();
            return std::process::ExitCode::from(2);
        }
    };
    // Before any other thread starts, which inherits what is blocked.
    let children = match brood_control::Children::new() {
        Ok(children) => children,
        Err(_) => return std::process::ExitCode::from(1),
    };
    let made = match request {
        Request::Boot {
            version,
            machine,
            guest,
        } => refusal::check_version(version).and_then(|()| boot::boot(machine, guest, fds)),
        Request::Load { version } => refusal::check_version(version).and_then(|()| warm::load(fds)),
        Request::Restore {
            version,
            source,
            fetch,
        } => refusal::check_version(version)
            .and_then(|()| restore::restore(source, fetch, &control, fds)),
        _ => Err(refusal::refuse(
            "first message",
            "it is neither Boot, Load nor Restore",
            "start with one of them",
        )),
    };
    let (answer, made) = match made {
        Ok(microvm) => (Ok(Reply::Ready { version: VERSION }), Some(microvm)),
        Err(refusal) => (Err(refusal), None),
    };
    let told = control.send(&FromCell::Answer { id, result: answer }, &[]);
    match (told, made) {
        (Ok(()), Some(mut microvm)) => {
            microvm.children = Some(children);
            serve::serve(microvm, control)
        }
        _ => std::process::ExitCode::from(1),
    }
}
