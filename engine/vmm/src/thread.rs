//! vCPU threads, and helpers beside them: plain pthreads with small stacks.
//!
//! `std::thread` leaves an alternate signal stack and heap blocks behind in every forked child; glibc's `fork()`
//! takes back the stacks of plain pthreads and hands them out again. Its allocator does not take back a lost thread's
//! cache and arena, so these threads have neither. Invariant: nothing accumulates over generations.
//! Unsafe: the pthread and allocator calls.

use std::io;

/// Stack of a vCPU thread; it only calls KVM, the device registers and a few system calls.
const STACK_BYTES: usize = 256 << 10;

/// Runs `entry(argument)` on a new detached thread.
///
/// # Safety
/// `argument` must be valid for `entry` for as long as the thread runs.
pub(crate) unsafe fn spawn(entry: Entry, argument: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: as this function demands.
    unsafe { create(libc::PTHREAD_CREATE_DETACHED, entry, argument) }.map(|_| ())
}

type Entry = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;

/// # Safety
/// `argument` must be valid for `entry` for as long as the thread runs.
unsafe fn create(
    detach_state: libc::c_int,
    entry: Entry,
    argument: *mut libc::c_void,
) -> io::Result<libc::pthread_t> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the out-pointer is a live local.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: initialised above.
    let mut attributes = unsafe { attributes.assume_init() };
    // SAFETY: initialised above; the size is a multiple of the page size and above the minimum.
    check(unsafe { libc::pthread_attr_setstacksize(&mut attributes, STACK_BYTES) })?;
    // SAFETY: initialised above.
    check(unsafe { libc::pthread_attr_setdetachstate(&mut attributes, detach_state) })?;
    let mut thread = 0;
    // SAFETY: the caller vouches for the argument; the out-pointer is a live local.
    let created = unsafe { libc::pthread_create(&mut thread, &attributes, entry, argument) };
    // SAFETY: initialised above and not used after.
    check(unsafe { libc::pthread_attr_destroy(&mut attributes) })?;
    check(created)?;
    Ok(thread)
}

/// A thread that is waited for. Its stack is that of a vCPU.
#[derive(Debug)]
pub struct Helper(libc::pthread_t);

type Work = Box<dyn FnOnce() + Send>;

impl Helper {
    /// Starts it.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        share_one_heap();
        let work: Box<Work> = Box::new(Box::new(work));
        let argument = Box::into_raw(work);
        // SAFETY: the argument is a box of its own, which the thread takes back.
        match unsafe { create(libc::PTHREAD_CREATE_JOINABLE, help, argument.cast()) } {
            Ok(thread) => Ok(Self(thread)),
            Err(error) => {
                // SAFETY: no thread was made that would take it back.
                drop(unsafe { Box::from_raw(argument) });
                Err(error)
            }
        }
    }

    /// Waits until it has ended.
    pub fn join(self) {
        // SAFETY: made by `start`, joined once: the value is gone after this.
        let result = unsafe { libc::pthread_join(self.0, std::ptr::null_mut()) };
        debug_assert_eq!(result, 0, "pthread_join of a thread of one's own");
    }
}

extern "C" fn help(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `Helper::start` passes a box that is nobody else's.
    let work: Box<Work> = unsafe { Box::from_raw(argument.cast()) };
    allocate_uncached();
    work();
    std::ptr::null_mut()
}

unsafe extern "C" {
    /// glibc: gives back what its libraries keep for the calling thread, the allocator's cache first, which that thread
    /// then never has again.
    fn __libc_thread_freeres();
}

/// One heap for all threads, before the first of them starts: an arena of their own costs two mappings and a leak.
pub(crate) fn share_one_heap() {
    // SAFETY: takes no pointer; a refusal leaves more arenas, which costs memory and nothing else.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// The calling thread allocates without a cache of its own, which a forked child could never free.
pub(crate) fn allocate_uncached() {
    // SAFETY: the thread has allocated nothing through the cache, and allocating goes on to work without it.
    unsafe { __libc_thread_freeres() };
}

/// `struct sched_attr`, include/uapi/linux/sched/types.h, as far as this kernel interface had it first.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Nanoseconds a vCPU asks for at a time. Whoever asks for less (everybody, by default) and wakes on its CPU runs at once:
/// a guest that computes would else keep device work, forks and KVM's own grace periods waiting for a tick.
const SLICE: u64 = 20_000_000;

/// The calling thread computes; others need the CPU sooner (Linux 6.12, sched_setattr(2) with SCHED_OTHER).
pub(crate) fn yield_to_wakers() {
    let attr = SchedAttr {
        size: std::mem::size_of::<SchedAttr>() as u32,
        runtime: SLICE,
        ..SchedAttr::default()
    };
    // SAFETY: the struct is live and of the size it says; a kernel that knows no slices changes nothing.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

/// The kernel's id of the calling thread.
pub(crate) fn current_tid() -> i32 {
    // SAFETY: takes no pointer.
    unsafe { libc::gettid() }
}

/// Interrupts a thread of this process out of KVM_RUN or a futex wait.
pub(crate) fn kick(tid: i32) {
    let pid = std::process::id();
    // SAFETY: takes no pointer; a thread that has ended answers ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, kick_signal()) };
}

/// Installs the empty handler that makes the kick interrupt system calls; inherited by forked children.
pub(crate) fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all-zero is a valid sigaction: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler does nothing, which is async-signal-safe.
    let result = unsafe { libc::sigaction(kick_signal(), &action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}
