//! Clone and exec. Invariant: between clone and exec the child makes only plain system calls on memory prepared before
//! the clone: it is a copy of one thread of a process with many, so any lock may be held for ever.
//!
//! `unsafe` here: clone3(2), execve(2), and the calls of the child that have no safe wrapper. Raw system calls are used
//! for ids because the C library's would first signal threads that the child does not have.

use std::ffi::{CStr, CString, c_char};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use brood_agent_proto::errno::Errno;
use brood_agent_proto::{AgentError, SpawnStep};
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::command::Command;
use super::user::User;
use crate::init::reap;

/// include/uapi/linux/sched.h; the constant of the libc crate is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Whether the program's stdin becomes its controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    None,
    Controlling,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    /// Readable once the program has ended (pidfd_open(2)).
    pub(crate) pidfd: OwnedFd,
    /// Keeps the reaper of orphans away from it.
    pub(crate) claim: reap::Claim,
}

/// Everything the child needs, in arrays that execve(2) takes as they are.
struct Plan<'a> {
    candidates: &'a [CString],
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    cwd: &'a CStr,
    user: Option<&'a User>,
    groups: Vec<Gid>,
    stdio: [BorrowedFd<'a>; 3],
    terminal: Terminal,
    report: BorrowedFd<'a>,
}

/// Starts `command` in `cgroup`, as leader of a new session and process group.
pub(crate) fn spawn(
    command: &Command,
    stdio: &[OwnedFd; 3],
    terminal: Terminal,
    cgroup: BorrowedFd<'_>,
) -> Result<Child, AgentError> {
    let (report, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| AgentError::Spawn {
        step: SpawnStep::Pipe,
        errno: Errno(errno.raw_os_error()),
    })?;
    let [stdin, stdout, stderr] = stdio;
    let groups = command
        .user
        .iter()
        .flat_map(|user| &user.groups)
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    let plan = Plan {
        candidates: &command.candidates,
        argv: pointers(&command.argv),
        envp: pointers(&command.envp),
        cwd: &command.cwd,
        user: command.user.as_ref(),
        groups,
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        terminal,
        report: theirs.as_fd(),
    };
    let child = reap::claim_while(|| clone_into(&plan, cgroup))?;
    drop(plan);
    drop(theirs);
    match read_report(report) {
        None => Ok(child),
        Some((step, errno)) => {
            // It has nothing left to do but exit.
            if let Err(error) = reap::wait(&child) {
                eprintln!("brood-agent: a child that did not start was not reaped: {error}");
            }
            Err(AgentError::Spawn { step, errno })
        }
    }
}

/// A null-terminated array of pointers into `strings`.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Clones; the child never returns from here.
fn clone_into(plan: &Plan<'_>, cgroup: BorrowedFd<'_>) -> Result<(Pid, OwnedFd), AgentError> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain integers, for which zero is a valid value (clone(2): unused fields are zero).
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD as u64) | CLONE_INTO_CGROUP;
    args.pidfd = (&raw mut pidfd).addr() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(u64::MAX);
    // SAFETY: `args` and `pidfd` live across the call. Without CLONE_VM the child has its own copy of this memory and
    // goes on, on a copy of this stack, in `run_child`, which does not return and keeps this file's invariant.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    if pid == 0 {
        run_child(plan);
    }
    let failed = || AgentError::Spawn {
        step: SpawnStep::Clone,
        errno: Errno::from(&std::io::Error::last_os_error()),
    };
    let pid = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .and_then(Pid::from_raw)
        .ok_or_else(failed)?;
    // SAFETY: CLONE_PIDFD stored a new descriptor in `pidfd`, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid, pidfd))
}

/// The child. Reports the step that failed, or executes the program, which closes the report pipe.
fn run_child(plan: &Plan<'_>) -> ! {
    let (step, errno) = prepare_and_exec(plan);
    let [a, b, c, d] = errno.to_le_bytes();
    let report = [step as u8, a, b, c, d];
    // A pipe takes five bytes at once or not at all; if not, the parent sees an end without a report, and then an
    // exit code of 127.
    let told = rustix::io::write(plan.report, &report);
    // SAFETY: _exit(2) takes no pointers and runs no handlers.
    unsafe { libc::_exit(if told.is_ok() { 127 } else { 126 }) }
}

fn prepare_and_exec(plan: &Plan<'_>) -> (SpawnStep, i32) {
    match prepare(plan) {
        Ok(()) => (SpawnStep::Exec, execute(plan)),
        Err((step, errno)) => (step, errno.raw_os_error()),
    }
}

fn prepare(plan: &Plan<'_>) -> Result<(), (SpawnStep, rustix::io::Errno)> {
    let at = |step| move |errno| (step, errno);
    reset_signals();
    rustix::process::setsid().map_err(at(SpawnStep::Session))?;
    if plan.terminal == Terminal::Controlling {
        let [tty, _, _] = plan.stdio;
        rustix::process::ioctl_tiocsctty(tty).map_err(at(SpawnStep::Session))?;
    }
    for (target, source) in (0..).zip(plan.stdio) {
        // SAFETY: dup2(2) takes no pointers. Nothing in this child owns descriptors 0 to 2, and the sources are
        // above them since those were open when the sources were made.
        let put = unsafe { libc::dup2(source.as_raw_fd(), target) };
        if put < 0 {
            return Err((SpawnStep::Stdio, rustix::io::Errno::BADF));
        }
    }
    if let Some(user) = plan.user {
        rustix::thread::set_thread_groups(&plan.groups).map_err(at(SpawnStep::Groups))?;
        let gid = Gid::from_raw(user.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(SpawnStep::Groups))?;
        let uid = Uid::from_raw(user.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(SpawnStep::Uid))?;
    }
    rustix::process::chdir(plan.cwd).map_err(at(SpawnStep::Cwd))?;
    keep_only_stdio();
    Ok(())
}

/// Default actions and an empty mask: ignored and blocked signals would outlive exec (execve(2)). Raw calls, since the
/// C library keeps its callers away from the signals it uses itself.
fn reset_signals() {
    // A kernel sigaction: SIG_DFL, no flags, no restorer, an empty mask; and an empty mask alone.
    let (default, none) = ([0_usize; 4], 0_u64);
    for signal in 1..=64 {
        // SAFETY: the kernel reads one sigaction (32 bytes here, the mask in it 8) and is given nothing to write to.
        // It refuses SIGKILL and SIGSTOP, which cannot be changed.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u8>(),
                8,
            )
        };
    }
    // SAFETY: the kernel reads a mask of 8 bytes and is given nothing to write to.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<u8>(),
            8,
        )
    };
}

/// Marks every descriptor but the first three to be closed by exec, also those the agent itself was started with.
fn keep_only_stdio() {
    // SAFETY: close_range(2) takes no pointers, and with this flag closes nothing yet.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Tries the candidates; returns why none worked. "Permission denied" wins over "not found", as in execvp(3).
fn execute(plan: &Plan<'_>) -> i32 {
    let mut why = libc::ENOENT;
    for candidate in plan.candidates {
        // SAFETY: all three are null-terminated and, being this process's own copy, unchanged until the call replaces
        // the process or returns.
        unsafe { libc::execve(candidate.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
        // Reads errno; nothing is allocated for an error of the kernel's.
        let errno = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        match errno {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => why = errno,
            other => return other,
        }
    }
    why
}

/// What the child reported; none if it executes its program.
fn read_report(report: OwnedFd) -> Option<(SpawnStep, Errno)> {
    let mut bytes = [0; 5];
    std::fs::File::from(report).read_exact(&mut bytes).ok()?;
    let [step, a, b, c, d] = bytes;
    let step = [
        SpawnStep::Session,
        SpawnStep::Stdio,
        SpawnStep::Groups,
        SpawnStep::Uid,
        SpawnStep::Cwd,
    ]
    .into_iter()
    .find(|known| *known as u8 == step)
    .unwrap_or(SpawnStep::Exec);
    Some((step, Errno(i32::from_le_bytes([a, b, c, d]))))
}
