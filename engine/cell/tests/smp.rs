//! Machines of several vCPUs and of more than 4 GiB, paused, resumed and forked in the middle of their work.

mod common;

use brood_bare_guest::mailbox::Command;
use brood_cell::Cell;
use common::{ask, daughter_of, daughters_of, host, read, stop, write};

const VCPUS: u32 = 4;
const MIB: u64 = 1 << 20;

/// The part of RAM that a vCPU's storm rages in.
fn region(vcpu: u32) -> (u64, u64) {
    ((4 + 4 * u64::from(vcpu)) * MIB, 2 * MIB)
}

fn begin_work(cell: &mut Cell, vcpu: u32) {
    let (start, bytes) = region(vcpu);
    let seed = u64::from(vcpu);
    let work = match vcpu {
        3 => {
            ask(
                cell,
                Command::Write64 {
                    addr: start,
                    value: 0,
                },
            );
            Command::Count { addr: start }
        }
        _ => Command::Storm { start, bytes, seed },
    };
    cell.begin_command(vcpu, work).expect("work begins");
}

/// Stops each vCPU's work and has it verify what it wrote.
fn verify_work(cell: &mut Cell) {
    for vcpu in 0..VCPUS {
        let done = stop(cell, vcpu);
        let (start, bytes) = region(vcpu);
        let seed = u64::from(vcpu);
        let (check, wanted) = match vcpu {
            3 => (Command::Read64 { addr: start }, done),
            _ => (Command::StormVerify { start, bytes, seed }, done),
        };
        assert_eq!(
            cell.command(vcpu, check).expect("answer"),
            Ok(wanted),
            "vCPU {vcpu}"
        );
    }
}

#[test]
fn four_vcpus_at_work_are_whole_on_both_sides_of_twenty_forks() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, VCPUS);
    for round in 0..20 {
        if round % 5 == 0 {
            (0..VCPUS)
                .rev()
                .for_each(|vcpu| begin_work(&mut mother, vcpu));
        }
        let mut daughter = daughter_of(&mut mother);
        verify_work(&mut daughter);
        if round % 5 == 4 {
            verify_work(&mut mother);
        }
    }
}

#[test]
fn two_hundred_pauses_resumes_and_forks_lose_no_count() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, VCPUS);
    let addr = 0x40_0000;
    for vcpu in 0..VCPUS {
        let addr = addr + 4096 * u64::from(vcpu);
        mother
            .begin_command(vcpu, Command::Count { addr })
            .expect("count");
    }
    for round in 0..200 {
        mother.pause().expect("pause");
        let still = mother.stats().expect("stats");
        assert!(still.paused);
        match round % 4 {
            // Forked while paused: she stays paused, the daughter runs.
            0 => drop(daughter_of(&mut mother)),
            1 => mother.pause().expect("a second pause changes nothing"),
            _ => {}
        }
        assert_eq!(
            mother.stats().expect("stats").ticks,
            still.ticks,
            "paused means that nothing moves"
        );
        mother.resume().expect("resume");
        match round % 4 {
            // Forked while running, and before the guest may have entered at all.
            2 => drop(daughter_of(&mut mother)),
            3 => mother.resume().expect("a second resume changes nothing"),
            _ => {}
        }
    }
    let mut daughter = daughter_of(&mut mother);
    for cell in [&mut mother, &mut daughter] {
        for vcpu in 0..VCPUS {
            let counted = stop(cell, vcpu);
            let addr = addr + 4096 * u64::from(vcpu);
            let read = cell
                .command(vcpu, Command::Read64 { addr })
                .expect("answer");
            assert_eq!(read, Ok(counted), "vCPU {vcpu}");
        }
    }
}

#[test]
fn a_machine_forked_while_paused_stays_paused_and_its_daughters_go_on() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    write(&mut mother, 4);
    mother.pause().expect("pause");
    let mut daughters = daughters_of(&mut mother, 2);
    assert!(daughters.iter_mut().all(|daughter| read(daughter) == 4));
    assert!(mother.stats().expect("stats").paused);
    mother.resume().expect("resume");
    assert_eq!(read(&mut mother), 4);
}

#[test]
fn five_gib_are_sealed_and_forked_with_what_lies_above_the_hole() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(5 << 10, 2);
    // RAM goes on at 4 GiB behind the hole, so the fifth GiB ends at 6.
    let spans = [
        (4_u64 << 30, MIB),
        ((6 << 30) - MIB, MIB),
        (2 * MIB, MIB),
        ((3 << 30) - MIB, MIB),
    ];
    let sums =
        |cell: &mut Cell| spans.map(|(start, bytes)| ask(cell, Command::Checksum { start, bytes }));
    for (seed, (start, bytes)) in (1..).zip(spans) {
        ask(&mut mother, Command::Fill { start, bytes, seed });
    }
    let known = sums(&mut mother);
    let sealed = mother.seal().expect("seal");
    assert!(sealed.image_bytes <= 16 * MIB, "{sealed:?}");
    let mut daughters = daughters_of(&mut mother, 2);
    for (seed, daughter) in (10..).zip(&mut daughters) {
        assert_eq!(sums(daughter), known);
        let (start, bytes) = spans[0];
        ask(daughter, Command::Fill { start, bytes, seed });
    }
    let mut granddaughter = daughter_of(&mut daughters[0]);
    assert_eq!(sums(&mut granddaughter), sums(&mut daughters[0]));
    assert_ne!(sums(&mut daughters[0]), sums(&mut daughters[1]));
    assert_eq!(sums(&mut mother), known);
}
