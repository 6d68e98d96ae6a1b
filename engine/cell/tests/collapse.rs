//! Collapsing: densely written RAM becomes private huge pages, under a guest that runs, and no byte changes.

mod common;

use std::fs;

use brood_bare_guest::mailbox::Command;
use brood_bare_guest::pattern::Spread;
use brood_cell::protocol::Request;
use brood_cell::{Cell, CellError};
use common::{ask, checkpoint_of, daughters_of, host, stop};

const MIB: u64 = 1 << 20;

/// KiB of private huge pages of a process (man 5 proc_pid_smaps).
fn huge_kib(cell: &Cell) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", cell.pid())).expect("smaps");
    let line = smaps
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("the kernel counts them")
}

#[test]
fn densely_written_memory_becomes_huge_pages_once_and_keeps_every_byte() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let (start, bytes, seed) = (8 * MIB, 8 * MIB, 5);
    // What is zero when a machine is sealed gets huge pages at once.
    ask(&mut mother, Command::Touch { start, bytes });
    mother.seal().expect("seal");
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 0);
    ask(&mut mother, Command::Fill { start, bytes, seed });
    let sum = ask(&mut mother, Command::Checksum { start, bytes });
    let before = huge_kib(&mother);
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 4);
    assert_eq!(huge_kib(&mother) - before, bytes / 1024);
    assert_eq!(ask(&mut mother, Command::Checksum { start, bytes }), sum);
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 0);
    for mut daughter in daughters_of(&mut mother, 2) {
        assert_eq!(ask(&mut daughter, Command::Checksum { start, bytes }), sum);
    }
}

#[test]
fn pages_that_are_only_read_are_left_to_everybody() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let (start, bytes, seed) = (8 * MIB, 8 * MIB, 5);
    ask(&mut mother, Command::Fill { start, bytes, seed });
    mother.seal().expect("seal");
    // One page of each unit is private, so that the others are mapped as small pages.
    for addr in (start..start + bytes).step_by(2 << 20) {
        ask(&mut mother, Command::Write64 { addr, value: 1 });
    }
    ask(&mut mother, Command::Checksum { start, bytes });
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 0);
}

#[test]
fn memory_written_in_thousands_of_places_is_seen_to_its_end() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let (start, bytes, seed) = (8 * MIB, 16 * MIB, 5);
    ask(&mut mother, Command::Fill { start, bytes, seed });
    mother.seal().expect("seal");
    // Half of the pages, spread evenly: more separate spans than one look at the page tables returns.
    let half = Command::DirtyLoop {
        start,
        bytes,
        pages: bytes / 4096 / 2,
        spread: Spread::Scattered,
    };
    mother.begin_command(0, half).expect("dirties");
    mother.first_instruction().ok();
    stop(&mut mother, 0);
    let sum = ask(&mut mother, Command::Checksum { start, bytes });
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 8);
    assert_eq!(ask(&mut mother, Command::Checksum { start, bytes }), sum);
}

#[test]
fn sparsely_written_memory_is_left_as_it_is() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let (start, bytes) = (8 * MIB, 256 << 10);
    ask(&mut mother, Command::Touch { start, bytes });
    mother.seal().expect("seal");
    ask(&mut mother, Command::Touch { start, bytes });
    assert_eq!(mother.collapse().expect("collapse").paused_nanos.len(), 0);
}

#[test]
fn a_write_storm_is_whole_across_collapses_and_forks() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(256, 1);
    let (start, bytes, seed) = (2 * MIB, 32 * MIB, 11);
    mother.seal().expect("seal");
    mother
        .begin_command(0, Command::Storm { start, bytes, seed })
        .expect("storm");
    let mut collapsed = 0;
    for _ in 0..8 {
        let daughters = daughters_of(&mut mother, 2);
        collapsed += mother.collapse().expect("collapse").paused_nanos.len();
        for mut daughter in daughters {
            collapsed += daughter.collapse().expect("collapse").paused_nanos.len();
            stop(&mut daughter, 0);
            ask(&mut daughter, Command::StormVerify { start, bytes, seed });
        }
    }
    stop(&mut mother, 0);
    ask(&mut mother, Command::StormVerify { start, bytes, seed });
    assert!(collapsed > 0, "the storm was never dense");
}

#[test]
fn what_cannot_be_collapsed_is_refused_and_the_guest_runs_on() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    let units = |units: Vec<u32>| Request::Collapse { units };
    for (request, words) in [
        (
            units(vec![32]),
            "there is no unit 32 of RAM, which has 32 of 2 MiB",
        ),
        (units((0..9).collect()), "at most 8 units"),
    ] {
        match mother.done(request, &[]).expect_err("refused") {
            CellError::Refused(refusal) => {
                assert!(refusal.to_string().contains(words), "{refusal}")
            }
            other => panic!("{other}"),
        }
    }
    let mut checkpoint = checkpoint_of(&mut mother);
    let refused = checkpoint.done(units(vec![1]), &[]).expect_err("refused");
    assert!(
        refused.to_string().contains("frozen checkpoint"),
        "{refused}"
    );
    assert_eq!(ask(&mut mother, Command::Idle {}), 0);
}
