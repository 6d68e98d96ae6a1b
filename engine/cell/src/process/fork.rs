//! The fork: a frozen point by fork(2), and daughters by fork(2) of that.
//!
//! ```text
//!  mother ─ park ─ save ─ fork(2) ───────────────► runs on
//!                           └► point ─ fork(2) ─► daughter 0 ─ birth
//!                                    ─ fork(2) ─► daughter 1 ─ birth
//!                                    └ becomes the last: a daughter ─ birth, or the checkpoint, which stays frozen
//! ```
//!
//! One daughter costs one copy of the page tables, and a checkpoint that is kept is the point itself. glibc's `fork()`
//! both times: it takes back the stacks of threads that did not come along and keeps its thread id right, which a raw
//! clone3 does not. Invariant: between the mother's `fork()` returning in the point and the first new descriptor there,
//! everything inherited is forgotten, then one sweep closes what is not on the keep list; no inherited owner is dropped
//! after it. Whoever comes out returns from [`fork`] as her mother does, so that the main loop starts over on the same
//! frames and a line of any depth has the stack and heap of one machine. A process is reaped by the cell it was forked
//! by (`children.rs`), and by the engine once that one has ended. Unsafe: fork(2), close_range(2), _exit(2).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use brood_units::Instant;
use brood_vmm::{ClockPolicy, now};

use super::microvm::{Microvm, Standing};
use super::refusal::{because, refuse};
use crate::protocol::{Checkpoint, Event, ForkSpec, ForkTimes, FromCell, Refusal, Start};
use brood_control::Control;

const FORK: &str = "fork";
/// The shortest sleep there is: timer slack makes it about 50 µs.
const GIVE_WAY: std::time::Duration = std::time::Duration::from_nanos(1);
const NO_PROCESS: &str = "free memory or raise the limit of processes (ulimit -u, pids.max)";

/// Who a process is when [`fork`] returns.
pub(super) enum Forked {
    /// The one that forked.
    Mother {
        /// When its stages ended.
        times: ForkTimes,
        /// The process of the point.
        point: u32,
    },
    /// One of those that came out.
    Infant(Infant),
}

/// One that has just been forked from the point.
pub(super) struct Infant {
    /// Which one of the fork.
    pub(super) index: u32,
    /// When the process began.
    pub(super) born: Instant,
    /// The socket she speaks over.
    pub(super) control: Control,
    /// What she becomes.
    pub(super) calling: Calling,
}

/// What an infant becomes.
pub(super) enum Calling {
    /// A machine of her own.
    Daughter(Start),
    /// The point itself, kept.
    Checkpoint,
}

/// Takes the point and lets the mother run on; daughters report over `sockets`.
pub(super) fn fork(
    vm: &mut Microvm,
    spec: ForkSpec,
    sockets: Vec<OwnedFd>,
) -> Result<Forked, Refusal> {
    let asked = now();
    check(spec, sockets.len())?;
    let was_running = !vm.is_paused();
    let held = vm.standing.as_ref().map(|standing| standing.clock);
    let point = match stand(vm) {
        Ok(point) => point,
        Err(refusal) => {
            if was_running {
                // One that has ended stays as it is, and the main loop hears of it.
                vm.vcpus.resume().ok();
            }
            return Err(refusal);
        }
    };
    let parked = vm
        .vcpus
        .times()
        .map(|times| times.parked)
        .max()
        .unwrap_or(asked);
    let saved = now();
    vm.shared.hardware().freeze_disk();
    // SAFETY: vCPU threads are parked outside of the allocator and of every lock, so the child's copy is whole.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        vm.standing = Some(point);
        return Ok(Forked::Infant(become_point(vm, spec, sockets)));
    }
    let failure = std::io::Error::last_os_error();
    let cloned = now();
    // A checkpoint, or one that has not run since her state was read, still stands where she stood.
    vm.standing = held.map(|clock| Standing { clock, ..point });
    if was_running {
        vm.shared.expect_first();
        vm.vcpus
            .resume()
            .map_err(because(FORK, "the machine has ended; start another"))?;
    }
    // Where CPUs are few the point waits for this one, and nobody needs the answer before the daughters are born.
    std::thread::sleep(GIVE_WAY);
    let Ok(point) = u32::try_from(pid) else {
        let cause = format!("the frozen point could not be made: {failure}");
        return Err(refuse(FORK, &cause, NO_PROCESS));
    };
    let parked = if was_running { parked } else { asked };
    Ok(Forked::Mother {
        times: ForkTimes {
            asked,
            parked,
            saved,
            cloned,
        },
        point,
    })
}

fn check(spec: ForkSpec, sockets: usize) -> Result<(), Refusal> {
    let checkpoints = usize::from(spec.checkpoint == Checkpoint::Keep);
    match spec.daughters as usize + checkpoints {
        0 => Err(refuse(
            FORK,
            "neither a daughter nor a checkpoint was asked for",
            "ask for one",
        )),
        wanted if wanted != sockets => {
            let cause = format!("{sockets} sockets came for {wanted} daughters and checkpoints");
            Err(refuse(FORK, &cause, "send one socket for each"))
        }
        _ => Ok(()),
    }
}

/// Stops the machine and reads the state daughters start from, with what their clocks do.
fn stand(vm: &mut Microvm) -> Result<Standing, Refusal> {
    if vm.machine.is_some() {
        // Of a machine that stands still already this asks only whether a vCPU has ended.
        vm.vcpus
            .park()
            .map_err(because(FORK, "the machine has ended; start another"))?;
    }
    match (&vm.machine, vm.standing.take()) {
        // A warm daughter that never ran, or a checkpoint: the state it holds is the state.
        (_, Some(standing)) => Ok(Standing {
            clock: ClockPolicy::Resumes,
            ..standing
        }),
        (Some(machine), None) => {
            let state = machine
                .save()
                .map_err(because(FORK, "run `brood doctor`"))?;
            Ok(Standing {
                state,
                clock: ClockPolicy::RunsOn,
            })
        }
        (None, None) => Err(refuse(
            FORK,
            "this checkpoint holds no state",
            "make another",
        )),
    }
}

/// In the child of the mother: nothing of hers is used any more. Returns in each infant, in the point as the last.
fn become_point(vm: &mut Microvm, spec: ForkSpec, sockets: Vec<OwnedFd>) -> Infant {
    forget_mother(vm, &sockets);
    vm.depth += 1;
    vm.name = None;
    // The mother's: hers was whole before she forked, and no pager is left of it.
    vm.touched = None;
    let calling = |index| match index < spec.daughters {
        true => Calling::Daughter(spec.start),
        false => Calling::Checkpoint,
    };
    let mut delivered = Vec::new();
    let mut sockets = (0..).zip(sockets.into_iter().map(Control::new)).peekable();
    while let Some((index, control)) = sockets.next() {
        let born = now();
        let is_last = sockets.peek().is_none();
        if is_last && !delivered.is_empty() {
            let infants = std::mem::take(&mut delivered);
            // If the engine has gone there is nobody to tell.
            control
                .send(&FromCell::Event(Event::Delivered { infants }), &[])
                .ok();
        }
        // SAFETY: this process has one thread.
        let pid = if is_last { 0 } else { unsafe { libc::fork() } };
        if pid == 0 {
            return Infant {
                index,
                born,
                control,
                calling: calling(index),
            };
        }
        let failure = std::io::Error::last_os_error();
        delivered.push(u32::try_from(pid).unwrap_or_else(|_| {
            let cause = format!("fork(2) failed: {failure}");
            let reason = refuse(FORK, &cause, NO_PROCESS).to_string();
            control
                .send(&FromCell::Event(Event::Stillborn { index, reason }), &[])
                .ok();
            0
        }));
    }
    // `check` has seen a socket, and the last one returns above.
    exit(1)
}

/// Lets go of what is the mother's, then closes every descriptor that is not kept.
fn forget_mother(vm: &mut Microvm, sockets: &[OwnedFd]) {
    vm.vcpus.forget_fds();
    if let Some(machine) = vm.machine.take() {
        machine.forget();
    }
    vm.shared.forget();
    // The only one that may be closed here: nothing has taken its number yet.
    vm.children = None;
    vm.ram.forget_inherited();
    let mut kept: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    {
        let mut hardware = vm.shared.hardware();
        hardware.forget_events();
        hardware.kept_fds(&mut kept);
    }
    kept.push(vm.host.raw_fd());
    kept.push(libc::STDOUT_FILENO);
    kept.push(libc::STDERR_FILENO);
    kept.extend(vm.ram.sealed().map(|sealed| sealed.fd().as_raw_fd()));
    close_all_but(kept);
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

/// At the start of a cell: what whoever started it forgot to close is not for the guest's reach.
pub(super) fn close_strangers() {
    close_range(3, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: whatever the range holds has no owner here, or one that the caller has forgotten.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    debug_assert_eq!(result, 0, "close_range of a valid range");
}
