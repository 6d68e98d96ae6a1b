//! The commands on memory, run on KVM and checked from the host's side of the same memory.

use anyhow::Result;
use brood_bare_guest::layout::{FREE_RAM, HOLE_END, HOLE_START, PAGE};
use brood_bare_guest::mailbox::{Command, Fault};
use brood_bare_guest::pattern::{Checksum, Spread, dirty_page, fill_word, touch_word};
use vm_memory::{Bytes, GuestAddress};

mod harness;
use harness::{MIB, Machine, Vcpu, kvm_present};

/// RAM on both sides of the MMIO hole.
const BOTH_SIDES: u64 = 5 << 30;

fn one(ram_bytes: u64) -> Result<(Machine, Vcpu)> {
    let machine = Machine::new(ram_bytes, 1)?;
    let vcpu = machine.vcpus()?.remove(0);
    Ok((machine, vcpu))
}

fn word(machine: &Machine, address: u64) -> u64 {
    machine
        .memory
        .read_obj(GuestAddress(address))
        .expect("guest memory is mapped")
}

/// Fills a range in the guest; compares the guest's checksum and the host's view with the pattern.
fn fill_and_sum(machine: &Machine, vcpu: &mut Vcpu, start: u64, bytes: u64) -> Result<()> {
    let seed = 0x5eed ^ start;
    assert_eq!(
        vcpu.command(Command::Fill { start, bytes, seed })?,
        bytes / 8
    );
    let addresses = (start..start + bytes).step_by(8);
    let expected = addresses.clone().fold(Checksum::EMPTY, |sum, address| {
        sum.add(fill_word(seed, address))
    });
    assert_eq!(
        vcpu.command(Command::Checksum { start, bytes })?,
        expected.finish()
    );
    assert!(
        addresses
            .step_by(512)
            .all(|address| word(machine, address) == fill_word(seed, address))
    );
    Ok(())
}

#[test]
fn touch_writes_the_first_word_of_every_page_and_nothing_else() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one(64 * MIB)?;
    let pages = 32 * MIB / PAGE;
    assert_eq!(
        vcpu.command(Command::Touch {
            start: FREE_RAM,
            bytes: 32 * MIB
        })?,
        pages
    );
    for page in 0..pages {
        let address = FREE_RAM + page * PAGE;
        assert_eq!(word(&machine, address), touch_word(address));
        assert_eq!(word(&machine, address + 8), 0);
    }
    assert_eq!(word(&machine, FREE_RAM + 32 * MIB), 0);
    Ok(())
}

#[test]
fn all_ram_above_two_mebibytes_is_filled_and_summed_at_any_size() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    for ram_bytes in [64 * MIB, 256 * MIB] {
        let (machine, mut vcpu) = one(ram_bytes)?;
        fill_and_sum(&machine, &mut vcpu, ram_bytes - 16 * MIB, 16 * MIB)?;
        fill_and_sum(&machine, &mut vcpu, FREE_RAM, 4 * MIB)?;
    }
    Ok(())
}

#[test]
fn ram_on_both_sides_of_the_hole_is_reached_and_the_hole_is_no_ram() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one(BOTH_SIDES)?;
    fill_and_sum(&machine, &mut vcpu, HOLE_START - 4 * MIB, 4 * MIB)?;
    fill_and_sum(&machine, &mut vcpu, HOLE_END, 4 * MIB)?;
    let top = HOLE_END + BOTH_SIDES - HOLE_START;
    fill_and_sum(&machine, &mut vcpu, top - 4 * MIB, 4 * MIB)?;
    for (start, bytes) in [
        (HOLE_START - PAGE, 2 * PAGE),
        (HOLE_START, PAGE),
        (top, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
    ] {
        assert_eq!(
            vcpu.fault(Command::Touch { start, bytes })?,
            Fault::BadRange
        );
    }
    Ok(())
}

#[test]
fn dirty_loop_increments_exactly_its_pages_and_stops_at_the_end_of_a_pass() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (span_pages, pages) = (4096, 100);
    for spread in [Spread::Clustered, Spread::Scattered] {
        let (machine, mut vcpu) = one(64 * MIB)?;
        vcpu.start(
            Command::DirtyLoop {
                start: FREE_RAM,
                bytes: span_pages * PAGE,
                pages,
                spread,
            },
            250,
        )?;
        assert_eq!(vcpu.stop()?, 300);
        assert_eq!(vcpu.mailbox.ticks(), 300);
        let mut expected = vec![0; span_pages as usize];
        for index in 0..pages {
            expected[dirty_page(spread, span_pages, pages, index) as usize] = 3;
        }
        let found: Vec<u64> = (0..span_pages)
            .map(|page| word(&machine, FREE_RAM + page * PAGE))
            .collect();
        assert_eq!(found, expected);
    }
    Ok(())
}

#[test]
fn counter_counts_its_ticks() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one(64 * MIB)?;
    let addr = 40 * MIB + 8;
    vcpu.start(Command::Count { addr }, 1000)?;
    assert_eq!(word(&machine, addr), 1000);
    let counted = vcpu.stop()?;
    assert_eq!(
        (word(&machine, addr), vcpu.mailbox.ticks()),
        (counted, counted)
    );
    Ok(())
}

#[test]
fn words_are_read_and_written_but_never_the_guests_own() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one(64 * MIB)?;
    let (addr, value) = (3 * MIB, 0x0123_4567_89ab_cdef);
    assert_eq!(vcpu.command(Command::Write64 { addr, value })?, 0);
    assert_eq!(
        (
            vcpu.command(Command::Read64 { addr })?,
            word(&machine, addr)
        ),
        (value, value)
    );
    for addr in [FREE_RAM - 8, 0x10_0000, 0, 3 * MIB + 1] {
        assert_eq!(
            vcpu.fault(Command::Write64 { addr, value })?,
            Fault::BadRange
        );
    }
    Ok(())
}

#[test]
fn guest_leaves_free_ram_alone_on_its_own_account() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (machine, mut vcpu) = one(64 * MIB)?;
    vcpu.command(Command::Spin { iterations: 1000 })?;
    assert!(
        (FREE_RAM..64 * MIB)
            .step_by(8)
            .all(|address| word(&machine, address) == 0)
    );
    Ok(())
}

#[test]
fn ranges_that_are_empty_crooked_or_own_are_refused() -> Result<()> {
    if !kvm_present() {
        return Ok(());
    }
    let (_machine, mut vcpu) = one(64 * MIB)?;
    let ranges = [
        (FREE_RAM, 0),
        (FREE_RAM - PAGE, PAGE),
        (FREE_RAM + 8, PAGE),
        (FREE_RAM, PAGE + 8),
        (64 * MIB - PAGE, 2 * PAGE),
    ];
    for (start, bytes) in ranges {
        assert_eq!(
            vcpu.fault(Command::Touch { start, bytes })?,
            Fault::BadRange
        );
        assert_eq!(
            vcpu.fault(Command::Storm {
                start,
                bytes,
                seed: 1
            })?,
            Fault::BadRange
        );
    }
    let too_many = Command::DirtyLoop {
        start: FREE_RAM,
        bytes: PAGE,
        pages: 2,
        spread: Spread::Scattered,
    };
    assert_eq!(vcpu.fault(too_many)?, Fault::BadRange);
    Ok(())
}
