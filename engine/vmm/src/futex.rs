//! Waiting on a word, for parked vCPU threads: no lock is held and no memory allocated (man 2 futex).
//! Unsafe: the two futex calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::clock::now;

/// How long a thread looks at a word before it sleeps: about the clone of a live fork. The wake of a sleeper costs 50 µs
/// of the pause and puts it behind the daughter who has just been made.
const SPIN: Duration = Duration::from_micros(400);
/// Looks between two looks at the clock.
const LOOKS: u32 = 64;

/// Looks at `word` while `waiting` says so, but not for long. It never yields the CPU, which would cost the thread its
/// place in the queue; whoever wakes meanwhile runs first anyway ([`crate::thread::yield_to_wakers`]).
pub(crate) fn spin_while(word: &AtomicU32, waiting: impl Fn(u32) -> bool) {
    let began = now();
    while now().micros_since(began) < SPIN.as_micros() as f64 {
        for _ in 0..LOOKS {
            if !waiting(word.load(Ordering::Acquire)) {
                return;
            }
            std::hint::spin_loop();
        }
    }
}

/// Sleeps while `word` holds `value`; returns on a wake, a signal, or when the word differs already.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    wait_for(word, value, None);
}

/// As [`wait`], but not longer than `limit`.
pub(crate) fn wait_for(word: &AtomicU32, value: u32, limit: Option<Duration>) {
    let time = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: i64::from(limit.subsec_nanos()),
    });
    let timeout = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the timeout outlive the call; every result means "look again".
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout) };
}

/// Wakes every thread that waits on `word`.
pub(crate) fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
}
