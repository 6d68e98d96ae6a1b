//! Runs one command: the plain ones here, the others by their modules.

use crate::layout::FREE_RAM;
use crate::mailbox::{Command, Fault, Outcome};
use crate::memory::{self, Span};
use crate::pattern::{self, Checksum, Spread};
use crate::virtio::{blk, nonsense, rng, vsock};
use crate::{Machine, port, storm};

/// Runs a command to its reply.
pub fn run(machine: Machine, command: Command) -> Outcome {
    match command {
        Command::Idle {} => Ok(0),
        Command::Touch { start, bytes } => Ok(touch(Span::pages(machine, start, bytes)?)),
        Command::DirtyLoop {
            start,
            bytes,
            pages,
            spread,
        } => dirty_loop(machine, Span::pages(machine, start, bytes)?, pages, spread),
        Command::Fill { start, bytes, seed } => Ok(fill(Span::words(machine, start, bytes)?, seed)),
        Command::Checksum { start, bytes } => Ok(checksum(Span::words(machine, start, bytes)?)),
        Command::Count { addr } => Ok(count(machine, Span::words(machine, addr, 8)?)),
        Command::Read64 { addr } => Ok(memory::load(aligned(addr, 0)?)),
        Command::Write64 { addr, value } => {
            memory::store(aligned(addr, FREE_RAM)?, value);
            Ok(0)
        }
        Command::Rng {} => rng::random(),
        Command::BlkLoad {
            lba,
            records,
            seed,
            count,
        } => blk::load(
            machine,
            &blk::Load {
                lba,
                records,
                seed,
                count,
            },
        ),
        Command::BlkVerify {} => blk::verify(),
        Command::BlkRead { lba } => blk::read_sector(lba),
        Command::BlkWrite { lba, seed } => blk::write_sector(lba, seed),
        Command::BlkFlush {} => blk::flush(),
        Command::VsockEcho { port } => vsock::echo(port),
        Command::VsockCount { port } => vsock::count(machine, port),
        Command::Nonsense {
            device,
            seed,
            rounds,
        } => nonsense::run(machine, device, seed, rounds),
        Command::TripleFault {} => port::triple_fault(),
        Command::PortOut { port, value, width } => {
            port::write_width(port, value, width);
            Ok(0)
        }
        Command::Rdtsc {} => Ok(port::time_stamp()),
        Command::Storm { start, bytes, seed } => {
            storm::run(machine, Span::pages(machine, start, bytes)?, seed)
        }
        Command::StormVerify { start, bytes, seed } => {
            storm::verify(Span::pages(machine, start, bytes)?, seed)
        }
        Command::Spin { iterations } => Ok(spin(iterations)),
    }
}

fn aligned(address: u64, lowest: u64) -> Result<u64, (Fault, u32)> {
    let good = address.is_multiple_of(8) && address >= lowest;
    if good {
        Ok(address)
    } else {
        Err((Fault::BadRange, 0))
    }
}

fn touch(span: Span) -> u64 {
    for page in 0..span.page_count() {
        memory::store(span.page(page), pattern::touch_word(span.page(page)));
    }
    span.page_count()
}

fn dirty_loop(machine: Machine, span: Span, pages: u64, spread: Spread) -> Outcome {
    if pages == 0 || pages > span.page_count() {
        return Err((Fault::BadRange, 1));
    }
    let mut increments = 0;
    while !port::pending() {
        for index in 0..pages {
            memory::increment(span.page(pattern::dirty_page(
                spread,
                span.page_count(),
                pages,
                index,
            )));
            port::tick(machine.vcpu);
        }
        increments += pages;
    }
    Ok(increments)
}

fn fill(span: Span, seed: u64) -> u64 {
    for address in span.addresses() {
        memory::store(address, pattern::fill_word(seed, address));
    }
    span.word_count()
}

fn checksum(span: Span) -> u64 {
    span.addresses()
        .fold(Checksum::EMPTY, |sum, address| {
            sum.add(memory::load(address))
        })
        .finish()
}

fn count(machine: Machine, counter: Span) -> u64 {
    let mut increments = 0;
    while !port::pending() {
        memory::increment(counter.page(0));
        port::tick(machine.vcpu);
        increments += 1;
    }
    increments
}

fn spin(iterations: u64) -> u64 {
    for iteration in 0..iterations {
        core::hint::black_box(iteration);
    }
    iterations
}
