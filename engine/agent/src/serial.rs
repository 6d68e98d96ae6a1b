//! A lock that outlives a panic of its holder. Invariant: values behind it are valid after every single statement that
//! changes them, so a poisoned lock is entered like any other.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Enters `mutex`.
pub(crate) fn enter<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
