//! What both sides of the wire take for granted: encodings, patterns and the memory layout. Needs no KVM.

use brood_bare_guest::layout::{self, PAGE};
use brood_bare_guest::mailbox::{self, Command, Fault, Width, outcome, reply};
use brood_bare_guest::pattern::{Spread, dirty_page, storm_stride};
use brood_bare_guest::{Said, VcpuMailbox};

#[test]
fn every_command_survives_the_wire() {
    let (start, bytes, seed, addr, lba, port) = (0x20_0000, 0x1000, u64::MAX, 0x30_0000, 7, 1024);
    let commands = [
        Command::Idle {},
        Command::Touch { start, bytes },
        Command::DirtyLoop {
            start,
            bytes,
            pages: 3,
            spread: Spread::Clustered,
        },
        Command::DirtyLoop {
            start,
            bytes,
            pages: 3,
            spread: Spread::Scattered,
        },
        Command::Fill { start, bytes, seed },
        Command::Checksum { start, bytes },
        Command::Count { addr },
        Command::Read64 { addr },
        Command::Write64 { addr, value: 9 },
        Command::Rng {},
        Command::BlkLoad {
            lba,
            records: 4,
            seed,
            count: 5,
        },
        Command::BlkVerify {},
        Command::BlkRead { lba },
        Command::BlkWrite { lba, seed },
        Command::BlkFlush {},
        Command::VsockEcho { port },
        Command::VsockCount { port },
        Command::Nonsense {
            device: 2,
            seed,
            rounds: 3,
        },
        Command::TripleFault {},
        Command::PortOut {
            port: 0x604,
            value: u32::MAX,
            width: Width::Byte,
        },
        Command::PortOut {
            port: 0x604,
            value: u32::MAX,
            width: Width::Word,
        },
        Command::PortOut {
            port: 0x604,
            value: u32::MAX,
            width: Width::Long,
        },
        Command::Rdtsc {},
        Command::Storm { start, bytes, seed },
        Command::StormVerify { start, bytes, seed },
        Command::Spin { iterations: 1 },
    ];
    for command in commands {
        let (opcode, arguments) = command.encode();
        assert_ne!(opcode, 0);
        assert_eq!(Command::decode(opcode, arguments), Some(command));
    }
}

#[test]
fn words_that_say_no_command_are_refused() {
    for (opcode, arguments) in [
        (0, [0; 4]),
        (24, [0; 4]),
        (3, [0, 0, 0, 2]),
        (15, [1 << 32, 0, 0, 0]),
        (19, [1 << 16, 0, 1, 0]),
        (19, [1, 0, 3, 0]),
    ] {
        assert_eq!(Command::decode(opcode, arguments), None);
    }
}

#[test]
fn replies_survive_the_wire_and_details_saturate() {
    for value in [0, 1, 1 << 40, u64::MAX] {
        assert_eq!(outcome(reply(Ok(value))), Ok(value));
    }
    assert_eq!(
        outcome(reply(Err((Fault::StormMismatch, 77)))),
        Err((Fault::StormMismatch, 77))
    );
    assert_eq!(
        outcome(reply(Err((Fault::Timeout, u32::MAX)))),
        Err((Fault::Timeout, (1 << 24) - 1))
    );
}

#[test]
fn mailbox_latches_arguments_of_the_fetched_command_and_halves_of_the_reply() {
    let mut mailbox = VcpuMailbox::default();
    assert_eq!(
        (mailbox.read(mailbox::PENDING), mailbox.read(mailbox::NEXT)),
        (0, 0)
    );
    mailbox.give(Command::Write64 {
        addr: 0x1_0000_0002,
        value: 0x3_0000_0004,
    });
    mailbox.give(Command::Idle {});
    assert_eq!(mailbox.read(mailbox::PENDING), 1);
    assert_eq!(mailbox.read(mailbox::NEXT), 8);
    let halves: Vec<u32> = (0..8)
        .map(|half| mailbox.read(mailbox::ARGUMENTS + 4 * half))
        .collect();
    assert_eq!(halves, [2, 1, 4, 3, 0, 0, 0, 0]);
    assert_eq!(mailbox.write(mailbox::REPLY_LOW, 5), Said::Nothing);
    assert_eq!(
        mailbox.write(mailbox::REPLY_HIGH, 6),
        Said::Reply(0x6_0000_0005)
    );
    assert_eq!(
        (mailbox.write(mailbox::TICK, 3), mailbox.ticks()),
        (Said::Tick, 1)
    );
}

#[test]
fn no_port_access_panics() {
    let mut mailbox = VcpuMailbox::default();
    for port in 0..=u16::MAX {
        mailbox.write(port, u32::MAX);
        mailbox.read(port);
        assert_eq!(
            VcpuMailbox::has_port(port),
            (0xb000..0xb034).contains(&port)
        );
    }
}

#[test]
fn dirty_pages_are_distinct_and_spread_over_the_span() {
    for (span, count) in [(4096, 100), (4096, 4096), (1 << 20, 1000), (10, 1), (7, 5)] {
        let pages: Vec<u64> = (0..count)
            .map(|index| dirty_page(Spread::Scattered, span, count, index))
            .collect();
        assert!(pages.is_sorted_by(|a, b| a < b), "{span} {count}");
        assert!(pages.last().is_none_or(|last| *last < span));
        assert!(
            pages
                .iter()
                .zip(0..)
                .all(|(page, index)| *page >= index * span / count)
        );
    }
}

#[test]
fn storm_order_visits_every_page_once_a_round() {
    for pages in [1, 2, 3, 64, 1000, 1024, 4097] {
        let mut seen = vec![false; pages as usize];
        for place in 0..pages {
            seen[(place * storm_stride(pages) % pages) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "{pages}");
    }
}

#[test]
fn areas_of_the_layout_do_not_overlap_and_end_where_free_ram_begins() {
    let areas = [
        (layout::GDT, PAGE),
        (layout::PML4, PAGE),
        (layout::PDPT, PAGE),
        (
            layout::TSS,
            layout::TSS_FIXED_BYTES + layout::IO_BITMAP_BYTES + 1,
        ),
        (layout::PAGE_DIRECTORIES, (layout::MAPPED_TOP >> 30) * PAGE),
        (
            layout::STACKS,
            u64::from(layout::MAX_VCPUS) * layout::STACK_BYTES,
        ),
        (layout::IMAGE, layout::IMAGE_BYTES),
        (layout::ARENAS, layout::MAX_DEVICES * layout::ARENA_BYTES),
        (layout::LEDGER, layout::LEDGER_BYTES),
        (layout::VSOCK_RING, layout::VSOCK_RING_BYTES),
        (layout::SCRATCH, layout::SCRATCH_BYTES),
    ];
    assert!(areas.is_sorted_by(|(start, bytes), (next, _)| start + bytes <= *next));
    assert_eq!(layout::SCRATCH + layout::SCRATCH_BYTES, layout::FREE_RAM);
}
