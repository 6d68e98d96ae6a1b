//! The fork: a frozen point by fork(2), and daughters by fork(2) of that.
//!
//! ```text
//!  mother ─ park ─ save ─ fork(2) ───────────────► runs on
//!                           └► point ─ fork(2) ─► daughter 0 ─ birth
//!                                    ─ fork(2) ─► daughter 1 ─ birth
//!                                    ─ fork(2) ─► checkpoint (a frozen Microvm that serves)
//!                                    └ exits: all of them become children of the engine
//! ```
//!
//! glibc's `fork()` both times: it takes back the stacks of threads that did not come along and keeps its thread id
//! right, which a raw clone3 does not. Invariant: between the mother's `fork()` returning in the point and the first
//! new descriptor there, everything inherited is forgotten, then one sweep closes what is not on the keep list; no
//! inherited owner is dropped after it. Unsafe: fork(2), close_range(2), _exit(2).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use brood_units::Instant;
use brood_vmm::{now, ClockPolicy};

use super::birth;
use super::microvm::{Microvm, Standing};
use super::refusal::{because, refuse};
use crate::protocol::{Checkpoint, Event, ForkSpec, ForkTimes, FromCell, Refusal};
use crate::seqpacket::Control;

const FORK: &str = "fork";

/// Takes the point and lets the mother run on; daughters report over `sockets`.
pub(super) fn fork(
    vm: &mut Microvm,
    spec: ForkSpec,
    sockets: Vec<OwnedFd>,
) -> Result<ForkTimes, Refusal> {
    let asked = now();
    let wanted = spec.daughters as usize + usize::from(spec.checkpoint == Checkpoint::Keep);
    if sockets.len() != wanted || wanted == 0 {
        let cause = format!("{} sockets came for {wanted} daughters and checkpoints", sockets.len());
        return Err(refuse(FORK, &cause, "send one socket for each"));
    }
    let was_running = !vm.is_paused();
    if was_running {
        vm.vcpus.park().map_err(because(FORK, "the machine has ended; start another"))?;
    }
    let parked = vm.vcpus.times().map(|times| times.parked).max().unwrap_or(asked);
    let point = stand(vm)?;
    let saved = now();
    vm.shared.hardware().freeze_disk();
    // SAFETY: vCPU threads are parked outside of the allocator and of every lock, so the child's copy is whole.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        vm.standing = Some(point);
        become_point(vm, spec, sockets);
    }
    let failure = std::io::Error::last_os_error();
    let cloned = now();
    if vm.machine.is_none() {
        vm.standing = Some(point);
    }
    if was_running {
        vm.shared.expect_first();
        vm.vcpus.resume().map_err(because(FORK, "the machine has ended; start another"))?;
    }
    if pid < 0 {
        let cause = format!("the frozen point could not be made: {failure}");
        return Err(refuse(FORK, &cause, "free memory or raise the limit of processes (ulimit -u)"));
    }
    let parked = if was_running { parked } else { asked };
    Ok(ForkTimes { asked, parked, saved, cloned })
}

/// The state daughters start from, and what their clocks do.
fn stand(vm: &mut Microvm) -> Result<Standing, Refusal> {
    match (&vm.machine, vm.standing.take()) {
        // A warm daughter that never ran, or a checkpoint: the state it holds is the state.
        (_, Some(standing)) => Ok(Standing { clock: ClockPolicy::Resumes, ..standing }),
        (Some(machine), None) => {
            let state = machine.save().map_err(because(FORK, "run `brood doctor`"))?;
            Ok(Standing { state, clock: ClockPolicy::RunsOn })
        }
        (None, None) => Err(refuse(FORK, "this checkpoint holds no state", "make another")),
    }
}

/// In the child of the mother: nothing of hers is used any more; make the children and go.
fn become_point(vm: &mut Microvm, spec: ForkSpec, sockets: Vec<OwnedFd>) -> ! {
    vm.vcpus.forget_fds();
    if let Some(machine) = vm.machine.take() {
        machine.forget();
    }
    vm.shared.forget();
    vm.ram.forget_inherited();
    let mut kept: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    {
        let mut hardware = vm.shared.hardware();
        hardware.forget_events();
        hardware.kept_fds(&mut kept);
    }
    kept.push(vm.host.raw_fd());
    kept.push(libc::STDERR_FILENO);
    kept.extend(vm.ram.sealed().map(|sealed| sealed.fd().as_raw_fd()));
    close_all_but(kept);
    vm.depth += 1;
    let mut sockets = sockets.into_iter();
    for index in 0.. {
        let Some(socket) = sockets.next() else { break };
        let born = now();
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                drop(sockets);
                begin(vm, spec, (index, born), Control::new(socket));
            }
            -1 => {
                let reason = format!("fork(2) failed: {}", std::io::Error::last_os_error());
                let cry = FromCell::Event(Event::Stillborn { index, reason });
                // If the engine has gone there is nobody to tell.
                Control::new(socket).send(&cry, &[]).ok();
            }
            _ => drop(socket),
        }
    }
    exit(0)
}

fn begin(vm: &mut Microvm, spec: ForkSpec, (index, born): (u32, Instant), control: Control) -> ! {
    let code = if index < spec.daughters {
        birth::daughter(vm, spec.start, (index, born), control)
    } else {
        birth::checkpoint(vm, (index, born), control)
    };
    exit(code)
}

/// Ends the process at once: destructors and exit handlers are the mother's.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor that is not kept (man 2 close_range).
fn close_all_but(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: every owner of a descriptor in the range has been forgotten by the caller.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    debug_assert_eq!(result, 0, "close_range of a valid range");
}
