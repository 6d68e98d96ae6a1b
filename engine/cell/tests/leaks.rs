//! Nothing accumulates over generations, and what daughters write never lands in what they share.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use brood_bare_guest::mailbox::Command;
use brood_cell::CellError;
use brood_cell::protocol::{Checkpoint, ForkSpec, OrphanPolicy, Request, Start};
use brood_testkit::{descriptors, private_memory, settle, threads_of};
use common::{WORD, ask, daughter_of, daughters_of, host, read, stop, write};

const MIB: u64 = 64;
const GENERATIONS: u64 = 100;
/// Which pages of a thread's stack it has touched when it is looked at is a matter of moments, not of generations.
const MOMENTS_KIB: u64 = 16;

#[test]
fn a_daughter_at_depth_100_has_the_mappings_descriptors_and_memory_of_one_at_depth_1() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(MIB, 2);
    write(&mut cell, 1);
    let mut seen = Vec::new();
    for generation in 1..=GENERATIONS {
        // The assignment ends the mother: dead ancestors are the common case of a deep line.
        cell = daughter_of(&mut cell);
        assert_eq!(read(&mut cell), generation);
        write(&mut cell, generation + 1);
        let pid = cell.pid();
        let memory = private_memory(pid, MIB << 20);
        seen.push((memory, descriptors(pid).len(), threads_of(pid).len()));
    }
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    println!("depth 1: {first:?}\ndepth {GENERATIONS}: {last:?}");
    assert_eq!(u64::from(cell.stats().expect("stats").depth), GENERATIONS);
    assert_eq!(
        (first.0.mappings, first.1, first.2),
        (last.0.mappings, last.1, last.2)
    );
    assert_eq!(first.0.mapped_kib, last.0.mapped_kib);
    assert!(last.0.anonymous_kib <= first.0.anonymous_kib + MOMENTS_KIB);
}

#[test]
fn a_mother_of_100_forks_keeps_no_child_no_descriptor_and_no_memory_of_them() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(MIB, 1);
    let look = |mother: &brood_cell::Cell| {
        (
            private_memory(mother.pid(), MIB << 20),
            descriptors(mother.pid()).len(),
        )
    };
    daughters_of(&mut mother, 2);
    let first = look(&mother);
    for _ in 0..GENERATIONS {
        daughters_of(&mut mother, 2);
    }
    let last = look(&mother);
    assert_eq!(
        (first.0.mappings, first.0.mapped_kib, first.1),
        (last.0.mappings, last.0.mapped_kib, last.1)
    );
    assert!(
        last.0.anonymous_kib <= first.0.anonymous_kib + MOMENTS_KIB,
        "{first:?} {last:?}"
    );
    settle("no frozen point is left, not even as a zombie", || {
        brood_testkit::children_of(mother.pid()).is_empty()
    });
}

#[test]
fn a_point_is_given_out_before_its_daughters_and_those_nobody_takes_are_gone() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(MIB, 1);
    write(&mut mother, 1);
    let births = mother
        .fork_point(3, Checkpoint::Keep, Start::Run)
        .expect("point");
    write(&mut mother, 2);
    drop(births);
    settle("nobody of the point is left, not even as a zombie", || {
        brood_testkit::children_of(mother.pid()).is_empty()
    });
    let births = mother
        .fork_point(1, Checkpoint::Drop, Start::Run)
        .expect("point");
    write(&mut mother, 3);
    let mut fork = births.deliver();
    let daughter = fork.daughters[0].as_mut().expect("daughter");
    assert_eq!((read(daughter), read(&mut mother)), (2, 3));
}

#[test]
fn daughters_whom_nobody_takes_leave_no_zombie_when_their_mother_has_ended() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(MIB, 1);
    let births = mother
        .fork_point(3, Checkpoint::Keep, Start::Run)
        .expect("point");
    mother.end().expect("ends");
    drop(births);
    let own = std::process::id();
    assert!(brood_testkit::children_of(own).is_empty());
}

#[test]
fn daughters_whom_nobody_hears_end_even_if_their_mother_was_told_to_stay() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(MIB, 1);
    write(&mut mother, 1);
    mother
        .done(Request::Orphan(OrphanPolicy::Stay), &[])
        .expect("stays");
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    drop(ours);
    let spec = ForkSpec {
        daughters: 1,
        checkpoint: Checkpoint::Drop,
        start: Start::Run,
    };
    let answer = mother.done(Request::Fork(spec), &[theirs.as_fd()]);
    assert!(matches!(answer, Err(CellError::Confused(_))), "{answer:?}");
    drop(theirs);
    settle("the daughter has ended", || {
        brood_testkit::children_of(mother.pid()).is_empty()
    });
    assert_eq!(read(&mut mother), 1);
}

#[test]
fn four_vcpus_start_threads_lock_and_allocate_three_generations_deep() {
    let Some(host) = host() else { return };
    let mut line = vec![host.bare(MIB, 4)];
    for depth in 1..=3 {
        for vcpu in 0..4 {
            let addr = WORD + 4096 * u64::from(vcpu);
            let cell = line.last_mut().expect("a cell");
            cell.begin_command(vcpu, Command::Count { addr })
                .expect("count");
        }
        let daughter = daughter_of(line.last_mut().expect("a cell"));
        line.push(daughter);
        for (age, cell) in line.iter_mut().enumerate().rev().take(2) {
            assert_eq!(
                threads_of(cell.pid()).len(),
                5,
                "four vCPUs and the main thread at depth {age}"
            );
            for vcpu in 0..4 {
                let counted = stop(cell, vcpu);
                let addr = WORD + 4096 * u64::from(vcpu);
                let read = cell
                    .command(vcpu, Command::Read64 { addr })
                    .expect("answer")
                    .expect("word");
                assert!(
                    read >= counted,
                    "depth {depth}, vCPU {vcpu}: {read} of {counted}"
                );
            }
            ask(
                cell,
                Command::BlkLoad {
                    lba: 1,
                    records: 32,
                    seed: 3,
                    count: 20,
                },
            );
        }
    }
}

#[test]
fn daughters_that_read_and_write_everything_never_grow_the_sealed_memory() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(MIB, 1);
    let touch = Command::Touch {
        start: 2 << 20,
        bytes: 8 << 20,
    };
    ask(&mut mother, touch);
    mother.seal().expect("seal");
    let image = sealed_image(mother.pid());
    let before = blocks(&image);
    assert!(before > 0, "the image holds what was touched");
    for mut daughter in daughters_of(&mut mother, 2) {
        let (start, bytes) = (2 << 20, (MIB - 2) << 20);
        ask(&mut daughter, Command::Checksum { start, bytes });
        ask(
            &mut daughter,
            Command::Fill {
                start,
                bytes,
                seed: 1,
            },
        );
        assert_eq!(blocks(&sealed_image(daughter.pid())), before);
    }
    ask(
        &mut mother,
        Command::Checksum {
            start: 2 << 20,
            bytes: (MIB - 2) << 20,
        },
    );
    assert_eq!(blocks(&image), before);
}

/// The open image of a cell's sealed memory, by way of its descriptors.
fn sealed_image(pid: u32) -> String {
    let all = descriptors(pid);
    let (fd, _) = all
        .iter()
        .find(|(_, path)| {
            path.starts_with("/memfd:brood-ram (deleted)")
                || path.to_string_lossy().contains("brood-ram")
        })
        .expect("a sealed image");
    format!("/proc/{pid}/fd/{fd}")
}

fn blocks(image: &str) -> u64 {
    fs::metadata(image).expect("stat of the image").blocks()
}
