//! Nothing accumulates over generations: a daughter at depth 100 is as small as one at depth 1.

mod common;

use brood_bare_guest::mailbox::Command;
use brood_testkit::{descriptors, private_memory, settle, threads_of, PrivateMemory};
use common::{ask, daughter_of, host, read, stop, write};

const MIB: u64 = 64;
const GENERATIONS: u32 = 100;

#[test]
fn a_daughter_at_depth_100_has_the_mappings_descriptors_and_memory_of_one_at_depth_1() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(MIB, 2);
    write(&mut cell, 1);
    let mut seen: Vec<(PrivateMemory, usize, usize)> = Vec::new();
    for generation in 1..=GENERATIONS {
        // The mother is ended by the assignment: dead ancestors are the common case of a deep line.
        cell = daughter_of(&mut cell);
        assert_eq!(read(&mut cell), u64::from(generation));
        write(&mut cell, u64::from(generation) + 1);
        let pid = cell.pid();
        let memory = private_memory(pid, MIB << 20);
        seen.push((memory, descriptors(pid).len(), threads_of(pid).len()));
    }
    println!("depth 1: {:?}\ndepth 2: {:?}\ndepth {GENERATIONS}: {:?}", seen[0], seen[1], seen[99]);
    assert_eq!(cell.stats().expect("stats").depth, GENERATIONS);
    assert_eq!(seen[0], seen[99]);
}
