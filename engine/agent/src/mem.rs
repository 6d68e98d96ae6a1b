//! Memory of the agent itself. Invariant: every page the agent touches is one more that each daughter may copy, so
//! threads get small stacks and share one heap.
//!
//! `unsafe` here: one call of `mallopt`.

/// Stack of a thread that serves a connection: requests and replies live on the heap.
pub(crate) const CONNECTION_STACK: usize = 128 * 1024;

/// Stack of a thread that pumps a program's output.
pub(crate) const PUMP_STACK: usize = 64 * 1024;

/// Makes all threads share one heap; the C library would otherwise map one for each of the first threads.
/// Call before any thread starts.
pub fn keep_small() {
    // SAFETY: mallopt(3) with a documented parameter only sets limits inside the allocator.
    let accepted = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    if accepted == 0 {
        eprintln!("brood-agent: the allocator keeps a heap for each thread");
    }
}
