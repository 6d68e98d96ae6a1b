//! The bare-metal guest: runs whatever command the host gives each vCPU, in ring 3 with interrupts off, polled devices
//! and no operating system.
//!
//! The host puts page tables, stacks and this image into memory and starts every vCPU at [`_start`]. All memory is
//! identity-mapped and writable; this program, the stacks and the tables live below 2 MiB, and `memory::Span` is the
//! one door to the rest. A command that fails replies why; nothing here waits for a device without an end.
//!
//! `unsafe` in this program: the machine itself (ports, volatile memory, mmio). Modules that use it say so on top.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

mod intrinsics;
mod memory;
mod port;
mod run;
mod storm;
mod virtio;

#[path = "../src/layout.rs"]
#[expect(
    dead_code,
    reason = "tables and stacks are the host's part of the layout"
)]
mod layout;
#[path = "../src/mailbox/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "encoding commands and reading replies is the host's part"
)]
mod mailbox;
#[path = "../src/pattern.rs"]
mod pattern;

use mailbox::{Command, Fault};

/// What a vCPU knows of its machine: the arguments it is started with.
#[derive(Clone, Copy)]
struct Machine {
    /// Index of this vCPU.
    vcpu: u32,
    /// Bytes of RAM.
    ram_bytes: u64,
}

/// Entry point of every vCPU: `rdi` holds its index, `rsi` the bytes of RAM, `rsp` its own stack.
// SAFETY: the one definition of this name; the link script puts its section first in the image, where the host starts the vCPUs.
#[unsafe(no_mangle)]
// SAFETY: the section is ordinary text.
#[unsafe(link_section = ".text.start")]
extern "C" fn _start(vcpu: u64, ram_bytes: u64) -> ! {
    let machine = Machine {
        vcpu: vcpu as u32,
        ram_bytes,
    };
    loop {
        // The host may hold the vCPU in this IN; 0 means that it wants it to ask again.
        let opcode = port::read(mailbox::NEXT);
        if opcode == 0 {
            continue;
        }
        let outcome = match Command::decode(opcode, arguments()) {
            Some(command) => run::run(machine, command),
            None => Err((Fault::BadCommand, opcode)),
        };
        send(outcome);
    }
}

/// The arguments of the command last fetched.
fn arguments() -> [u64; mailbox::ARGUMENT_COUNT] {
    core::array::from_fn(|index| {
        let low = mailbox::ARGUMENTS + 8 * index as u16;
        u64::from(port::read(low)) | u64::from(port::read(low + 4)) << 32
    })
}

fn send(outcome: mailbox::Outcome) {
    let word = mailbox::reply(outcome);
    port::write(mailbox::REPLY_LOW, word as u32);
    port::write(mailbox::REPLY_HIGH, (word >> 32) as u32);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    send(Err((Fault::Panic, 0)));
    port::triple_fault()
}
