//! The memory functions that the compiler calls by name (`core` expects them of its platform), and the symbols of unwinding that
//! nothing calls. Unsafe throughout: these are the raw functions of C.

use core::arch::asm;

// SAFETY (all names): this program links no C library, so each name is defined once, with C's meaning.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` readable bytes at `from`, writable at `to`, and DF is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: copying upwards never overwrites a byte still to be read; the rest is the caller's promise.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: as `memcpy`, downwards from the last byte (`count` is not 0 here); DF is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") to.wrapping_add(count - 1) => _,
             inout("rsi") from.wrapping_add(count - 1) => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` writable bytes at `to`, and DF is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the caller promises `count` readable bytes at `left`.
        let a = unsafe { left.wrapping_add(index).read_volatile() };
        // SAFETY: the same at `right`.
        let b = unsafe { right.wrapping_add(index).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, count) }
}

/// What the prebuilt `core` names as its unwinding routine. This program aborts on panic, so nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
