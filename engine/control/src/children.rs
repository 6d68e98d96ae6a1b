//! The children of a cell or of the supervisor: their status is taken when they end.
//!
//! A daughter is a child of the cell she was forked by as long as that cell lives; then the reaper of all cells inherits
//! her. `SIGCHLD` is blocked in every thread, so it interrupts no vCPU, and read from a signalfd in the main loop.
//! Invariant: no child that has ended stays a zombie for longer than one turn of that loop. Unsafe: the signal calls.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// How a process ended, as the kernel tells its parent (man 2 waitpid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Its process id in the engine's namespace.
    pub pid: u32,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// CPU time of all its threads from its first instruction to its last, nanoseconds; none where the kernel did not say.
    /// That of children whose status it took is not in it, as it is in `wait4`'s `ru_utime` (man 2 getrusage).
    pub cpu_ns: Option<u64>,
}

/// Where the ends of children are heard.
#[derive(Debug)]
pub struct Children(OwnedFd);

impl Children {
    /// Blocks `SIGCHLD` for this thread and all it will start, and listens for it.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the out-pointer is a live local.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised above.
        let mut set = unsafe { set.assume_init() };
        // SAFETY: initialised above; the signal exists.
        unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
        // SAFETY: the set is a live local and the old mask is not wanted.
        let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the set is a live local; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Becomes readable when a child has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes the status of every child that has ended.
    pub fn take_ended(&self) -> Vec<ChildEnd> {
        let mut signal = [0_u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        // Several ends may share one signal, so what it says is not looked at; EAGAIN means it was taken already.
        rustix::io::read(&self.0, &mut signal).ok();
        let mut ended = Vec::new();
        while let Some(pid) = next_ended() {
            // As long as its status is not taken its number is its own and its clock can be read.
            let cpu_ns = cpu_ns(pid);
            let mut status = 0;
            // SAFETY: the out-pointer is a live local.
            let taken = unsafe { libc::waitpid(pid.cast_signed(), &mut status, libc::WNOHANG) };
            if taken <= 0 {
                break;
            }
            ended.push(ChildEnd {
                pid,
                cpu_ns,
                code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
                signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            });
        }
        ended
    }
}

/// A child that has ended and whose status was not taken; it stays so.
fn next_ended() -> Option<u32> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the out-pointer is a live local.
    let failed = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) };
    if failed != 0 {
        return None;
    }
    // SAFETY: zeroed above, and all zeros is a `siginfo_t`.
    let info = unsafe { info.assume_init() };
    // SAFETY: filled in by waitid, or zero where nobody has ended (man 2 waitid).
    let pid = unsafe { info.si_pid() };
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

/// CPU time of a process until now, nanoseconds, of all its threads, those that have ended included: its CPU-time clock
/// (man 3 clock_getcpuclockid). It can be read until the status of the process is taken; none afterwards.
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the out-pointer is a live local.
    if unsafe { libc::clock_getcpuclockid(pid, &mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the out-pointer is a live local.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u64::try_from(time.tv_nsec).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A shell whose child works, and whose own work is next to nothing: the clock tells them apart, `wait4` would not.
    #[test]
    fn cpu_time_of_one_that_has_ended_is_its_own_without_its_childrens() {
        let children = Children::new().expect("a signalfd");
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let ended = |script: &str| {
            let child = Command::new("sh").args(["-c", script]).spawn();
            let pid = child.expect("a shell").id();
            loop {
                let taken = children.take_ended();
                if let Some(end) = taken.into_iter().find(|end| end.pid == pid) {
                    return end.cpu_ns.expect("the kernel says");
                }
                std::thread::yield_now();
            }
        };
        let (own, of_child) = (ended(work), ended(&format!("sh -c '{work}'; exit 0")));
        assert!(own > 20_000_000, "{own} ns of counting to 300000");
        assert!(
            of_child < own / 4,
            "{of_child} ns, of which its child had {own}"
        );
    }

    #[test]
    fn the_clock_of_a_living_process_moves_and_nobody_has_none() {
        let own = std::process::id();
        let before = cpu_ns(own).expect("this one lives");
        while cpu_ns(own).expect("it still does") == before {
            std::hint::spin_loop();
        }
        assert_eq!([cpu_ns(0), cpu_ns(u32::MAX)], [None, None]);
    }
}
