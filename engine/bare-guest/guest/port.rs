//! Port I/O and the other instructions that reach the host. Unsafe throughout: each is one instruction of inline assembly.
//!
//! I/O privilege level 3 lets ring 3 use every port.

use core::arch::asm;

use crate::mailbox::{self, Width};

/// Reads a 32-bit port.
pub fn read(port: u16) -> u32 {
    let value;
    // SAFETY: IN changes eax only; the mailbox writes no guest memory.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}

/// Writes a 32-bit port. The compiler treats it as touching memory, so all stores before it are made when the host sees it.
pub fn write(port: u16, value: u32) {
    // SAFETY: OUT changes no register, and ports change no memory of this program.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

/// Writes a port with an access of the given width.
pub fn write_width(port: u16, value: u32, width: Width) {
    match width {
        // SAFETY: as in `write`.
        Width::Byte => unsafe {
            asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags))
        },
        // SAFETY: as in `write`.
        Width::Word => unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags))
        },
        Width::Long => write(port, value),
    }
}

/// Tells the host of one unit of progress.
pub fn tick(vcpu: u32) {
    write(mailbox::TICK, vcpu);
}

/// Whether the host has a command for this vCPU.
pub fn pending() -> bool {
    read(mailbox::PENDING) != 0
}

/// The time-stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ends the VM: there is no interrupt table, so an undefined instruction becomes a triple fault.
pub fn triple_fault() -> ! {
    // SAFETY: never returns.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}
