//! A restored machine runs before its RAM is read, finds every byte that was saved, and ends where one cannot be had.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_cell::protocol::{ChunkSource, Ending, Event, Fetch};
use brood_cell::{Cell, CellError, EndCause};
use brood_snapshot::CHUNK;
use brood_testkit::{Host, Image, descriptors, private_memory, sealed, settle, threads_of};
use common::{WORD, ask, checkpoint_of, daughter_of, daughters_of, host, read, stop, write};

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(300);
/// What the machines of these tests have filled.
const START: u64 = 8 * MIB;
const BYTES: u64 = 16 * MIB;
const SEED: u64 = 3;

fn fill(cell: &mut Cell) {
    let (start, bytes, seed) = (START, BYTES, SEED);
    ask(cell, Command::Fill { start, bytes, seed });
}

fn checksum(cell: &mut Cell) -> u64 {
    let (start, bytes) = (START, BYTES);
    ask(cell, Command::Checksum { start, bytes })
}

/// An image of a machine with its word and its pattern written, and the pattern's checksum.
fn saved(host: &Host) -> (Image, u64) {
    let mut mother = host.bare(64, 1);
    fill(&mut mother);
    write(&mut mother, 5);
    let sum = checksum(&mut mother);
    (Image::of(&mut checkpoint_of(&mut mother)), sum)
}

/// The end of a machine whose RAM cannot be had: chunk and reason.
#[expect(clippy::panic, reason = "a failed claim")]
fn unreadable(cause: EndCause) -> (u32, String) {
    match cause.ending {
        Some(Ending::Unreadable { chunk, reason }) => {
            println!("chunk {chunk}: {reason}");
            (chunk, reason)
        }
        other => panic!("it ended otherwise: {other:?}"),
    }
}

#[test]
fn restored_machines_have_all_of_their_memory_and_go_their_own_ways() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    for fetch in [Fetch::OnlyTouched, Fetch::Ahead, Fetch::AtOnce] {
        let mut one = image.run(&host, fetch);
        let mut other = image.run(&host, fetch);
        assert_eq!((read(&mut one), read(&mut other)), (5, 5));
        write(&mut one, 6);
        assert_eq!(checksum(&mut one), sum, "{fetch:?}");
        assert_eq!(checksum(&mut other), sum, "{fetch:?}");
        // Memory that was never touched is zero and can be written.
        let addr = 48 * MIB;
        assert_eq!(ask(&mut one, Command::Read64 { addr }), 0);
        ask(&mut one, Command::Write64 { addr, value: 9 });
        assert_eq!(ask(&mut one, Command::Read64 { addr }), 9);
        assert_eq!((read(&mut one), read(&mut other)), (6, 5));
    }
}

#[test]
fn a_restored_machine_goes_on_where_it_stood_with_its_disk_and_its_vcpus() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 2);
    let load = |seed, count| Command::BlkLoad {
        lba: 1,
        records: 64,
        seed,
        count,
    };
    ask(&mut mother, load(1, 100));
    let known = ask(&mut mother, Command::BlkVerify {});
    mother
        .begin_command(1, Command::Count { addr: WORD })
        .expect("count");
    // A command that was not fetched yet is the cell's and not the machine's.
    let before = mother.stats().expect("stats").ticks;
    settle("it counts", || {
        mother.stats().expect("stats").ticks > before
    });
    mother.pause().expect("pause");
    let image = Image::of(&mut mother);
    drop(mother);
    for fetch in [Fetch::OnlyTouched, Fetch::Ahead] {
        let mut cell = host.spawn();
        let table = sealed(&image.table(&[]));
        image
            .restore(&host, &mut cell, &table, fetch)
            .expect("restored");
        assert!(cell.stats().expect("stats").paused, "held");
        cell.resume().expect("resume");
        assert_eq!(ask(&mut cell, Command::BlkVerify {}), known);
        ask(&mut cell, load(2, 50));
        assert!(ask(&mut cell, Command::BlkVerify {}) >= known);
        ask(&mut cell, Command::Rng {});
        let counted = stop(&mut cell, 1);
        assert!(counted > 0);
        assert_eq!(read(&mut cell), counted);
    }
}

#[test]
fn a_restored_machine_forked_at_once_has_daughters_with_all_of_its_memory() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    for fetch in [Fetch::OnlyTouched, Fetch::Ahead] {
        let mut mother = image.run(&host, fetch);
        let mut daughters = daughters_of(&mut mother, 2);
        write(&mut mother, 6);
        let mut grand = daughter_of(&mut daughters[0]);
        for cell in daughters.iter_mut().chain([&mut grand]) {
            assert_eq!(read(cell), 5);
            assert_eq!(checksum(cell), sum);
            assert!(cell.working_set().is_err(), "she was not restored");
        }
        assert_eq!(checksum(&mut mother), sum);
        assert_eq!(read(&mut mother), 6);
    }
}

#[test]
fn a_held_machine_can_be_forked_before_its_first_instruction() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    let mut mother = host.spawn();
    let table = sealed(&image.table(&[]));
    image
        .restore(&host, &mut mother, &table, Fetch::OnlyTouched)
        .expect("restored");
    let mut daughter = daughter_of(&mut mother);
    assert_eq!((read(&mut daughter), checksum(&mut daughter)), (5, sum));
    mother.resume().expect("resume");
    assert_eq!((read(&mut mother), checksum(&mut mother)), (5, sum));
}

#[test]
fn what_reads_or_replaces_all_of_ram_waits_until_it_is_whole() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    let fetch = Fetch::OnlyTouched;

    let mut sealing = image.run(&host, fetch);
    let report = sealing.seal().expect("seal");
    assert!(report.image_bytes >= BYTES);
    assert_eq!((read(&mut sealing), checksum(&mut sealing)), (5, sum));

    let mut template = image.run(&host, fetch);
    template.pause().expect("pause");
    let parts = template.template().expect("template");
    let mut warm = host.spawn();
    warm.load(host.kvm().as_fd(), &parts).expect("load");
    warm.resume().expect("claim");
    assert_eq!((read(&mut warm), checksum(&mut warm)), (5, sum));

    let mut collapsing = image.run(&host, fetch);
    collapsing.collapse().expect("collapse");
    assert_eq!(checksum(&mut collapsing), sum);

    let mut again = image.run(&host, fetch);
    again.pause().expect("pause");
    let second = Image::of(&mut again);
    // What differs is the generation id, which is in a chunk of its own.
    let (first, second_held) = (image.held(), second.held());
    assert!(first.iter().all(|chunk| second_held.contains(chunk)));
    assert!(second_held.len() <= first.len() + 1, "{second_held:?}");
    let mut restored = second.run(&host, fetch);
    assert_eq!((read(&mut restored), checksum(&mut restored)), (5, sum));
}

#[test]
fn only_what_was_touched_is_fetched_and_recorded_until_the_record_is_asked_for() {
    let Some(host) = host() else { return };
    let (image, sum) = saved(&host);
    let mut cell = image.run(&host, Fetch::OnlyTouched);
    assert_eq!(read(&mut cell), 5);
    let recorded = cell.working_set().expect("recorded");
    println!("{} of {} chunks", recorded.len(), image.held().len());
    assert!(recorded.contains(&((WORD / CHUNK as u64) as u32)));
    assert!(recorded.len() < 16, "{recorded:?}");
    let whole = |cell: &mut Cell| {
        cell.event(|event| matches!(event, Event::Whole), LONG)
            .expect("whole");
    };
    // The others came in the background, and a record is kept after that.
    whole(&mut cell);
    assert!(cell.working_set().expect("recorded").starts_with(&recorded));
    assert_eq!(checksum(&mut cell), sum);

    let mut second = host.spawn();
    let table = sealed(&image.table(&recorded));
    image
        .restore(&host, &mut second, &table, Fetch::Ahead)
        .expect("restored");
    whole(&mut second);
    second.resume().expect("resume");
    assert_eq!((read(&mut second), checksum(&mut second)), (5, sum));
    second.fill(LONG).expect("it is whole already");

    let mut never = host.bare(64, 1);
    assert!(never.working_set().is_err());
    never
        .fill(LONG)
        .expect("a machine that was not restored is whole");
}

#[test]
fn a_machine_that_is_whole_has_no_pager_no_userfaultfd_and_no_file_of_the_snapshot() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let mut cell = image.run(&host, Fetch::OnlyTouched);
    assert_eq!(threads_of(cell.pid()).len(), 3, "main, vCPU, pager");
    let booted = host.bare(64, 1);
    let before = descriptors(booted.pid()).len();
    cell.fill(LONG).expect("filled");
    settle("the pager has ended", || threads_of(cell.pid()).len() == 2);
    let left = descriptors(cell.pid());
    let named = |words: &str| {
        left.iter()
            .any(|(_, path)| path.to_string_lossy().contains(words))
    };
    assert!(!named("userfaultfd") && !named("brood-table"), "{left:?}");
    assert_eq!(left.len(), before, "{left:?}");
}

#[test]
fn a_line_of_a_restored_machine_has_the_mappings_of_one_generation_whatever_its_depth() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let mut cell = image.run(&host, Fetch::Ahead);
    let mut seen = Vec::new();
    for _ in 0..20 {
        cell = daughter_of(&mut cell);
        assert_eq!(read(&mut cell), 5);
        let memory = private_memory(cell.pid(), 64 * MIB);
        let pid = cell.pid();
        seen.push((
            memory.mappings,
            memory.mapped_kib,
            descriptors(pid).len(),
            threads_of(pid).len(),
        ));
    }
    assert_eq!(seen.first(), seen.last(), "{seen:?}");
}

/// The image with another byte at `at` of RAM.
fn spoil(image: &Image, at: u64) {
    let mut byte = [0];
    image.chunks.read_exact_at(&mut byte, at).expect("read");
    byte[0] ^= 1;
    image.chunks.write_all_at(&byte, at).expect("write");
}

#[test]
fn a_chunk_with_one_wrong_bit_ends_the_machine_that_touches_it_by_name_and_no_other() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let mut other = image.run(&host, Fetch::AtOnce);
    other.fill(LONG).expect("filled");
    let at = START + 5 * CHUNK as u64 + 17;
    spoil(&image, at);
    let mut cell = image.run(&host, Fetch::OnlyTouched);
    assert_eq!(read(&mut cell), 5);
    let addr = at / 8 * 8;
    cell.begin_command(0, Command::Read64 { addr })
        .expect("asked");
    let (chunk, reason) = unreadable(cell.wait().expect("reaped"));
    assert_eq!(u64::from(chunk), at / CHUNK as u64);
    let offset = at / CHUNK as u64 * CHUNK as u64;
    assert!(
        reason.contains(&format!("file 0, byte {offset}")),
        "{reason}"
    );
    assert!(reason.contains("BLAKE3"), "{reason}");
    assert_eq!(read(&mut other), 5);
}

#[test]
fn a_chunk_that_nobody_touches_ends_the_machine_as_well_when_its_turn_comes() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let at = START + BYTES - 1;
    spoil(&image, at);
    for fetch in [Fetch::Ahead, Fetch::AtOnce] {
        let cell = image.run(&host, fetch);
        let (chunk, _) = unreadable(cell.wait().expect("reaped"));
        assert_eq!(u64::from(chunk), at / CHUNK as u64);
    }
    // A fork that waits for all of RAM is answered by the end of the machine.
    let mut cell = image.run(&host, Fetch::OnlyTouched);
    let ended = cell.seal();
    assert!(matches!(ended, Err(CellError::Ended(_))), "{ended:?}");
}

#[test]
fn a_file_that_ends_before_its_chunk_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let last = *image.held().last().expect("some");
    let length = u64::from(last) * CHUNK as u64 + 100;
    image.chunks.set_len(length).expect("cut");
    let cell = image.run(&host, Fetch::Ahead);
    let (chunk, reason) = unreadable(cell.wait().expect("reaped"));
    assert_eq!(chunk, last);
    assert!(reason.contains("ends before"), "{reason}");
}

#[test]
fn a_device_that_needs_a_chunk_that_cannot_be_had_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    ask(&mut mother, Command::Rng {});
    mother.pause().expect("pause");
    let image = Image::of(&mut mother);
    // The rings of the devices and the generation id lie in the first MiB and a half.
    for chunk in image.held().into_iter().filter(|chunk| *chunk < 24) {
        spoil(&image, u64::from(chunk) * CHUNK as u64);
    }
    let mut cell = host.spawn();
    let table = sealed(&image.table(&[]));
    let ended = image.restore(&host, &mut cell, &table, Fetch::OnlyTouched);
    assert!(matches!(ended, Err(CellError::Ended(_))), "{ended:?}");
    unreadable(cell.wait().expect("reaped"));
}

fn refused(result: Result<(), CellError>, words: &str) {
    let error = result.expect_err(words);
    assert!(matches!(error, CellError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(words), "{words}: {error}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let good = sealed(&image.table(&[]));
    let restore = |table: &File, words: &str| {
        let result = image.restore(&host, &mut host.spawn(), table, Fetch::Ahead);
        refused(result, words);
    };
    restore(&sealed(b"BROODTBL"), "no table");
    let open = tempfile::tempfile().expect("a file");
    open.write_all_at(&image.table(&[]), 0).expect("written");
    restore(&open, "not a memfd that is sealed");
    let other = brood_snapshot::table::Builder::new(32 * MIB, 1).expect("whole chunks");
    restore(&sealed(&other.finish()), "the state of");
    let many = brood_snapshot::table::Builder::new(64 * MIB, 9).expect("whole chunks");
    restore(&sealed(&many.finish()), "for 9 files of chunks");

    let mut parts = image.parts(host.kvm(), &good, &image.chunks);
    parts.state = image.chunks.as_fd();
    let result = host
        .spawn()
        .restore(&parts, ChunkSource::Files, Fetch::Ahead);
    assert!(matches!(result, Err(CellError::Refused(_))), "{result:?}");

    let newer = tempfile::tempfile().expect("a file");
    newer.write_all_at(&[2, 0, 0, 0], 0).expect("written");
    let mut parts = image.parts(host.kvm(), &good, &image.chunks);
    parts.state = newer.as_fd();
    let result = host
        .spawn()
        .restore(&parts, ChunkSource::Files, Fetch::Ahead);
    refused(result, "version 2");

    let parts = image.parts(host.kvm(), &good, &image.chunks);
    let result = host
        .bare(64, 1)
        .restore(&parts, ChunkSource::Files, Fetch::Ahead);
    refused(result, "has its machine already");
}

#[test]
fn a_table_that_names_a_file_nobody_sent_ends_the_machine_by_name() {
    let Some(host) = host() else { return };
    let (image, _) = saved(&host);
    let mut bytes = image.table(&[]);
    let chunk = (WORD / CHUNK as u64) as usize;
    bytes[64 + 48 * chunk] = 9;
    let mut cell = host.spawn();
    image
        .restore(&host, &mut cell, &sealed(&bytes), Fetch::OnlyTouched)
        .expect("restored");
    cell.resume().expect("runs");
    cell.begin_command(0, Command::Read64 { addr: WORD })
        .expect("asked");
    let (at, reason) = unreadable(cell.wait().expect("reaped"));
    assert_eq!(at as usize, chunk);
    assert!(reason.contains("file 9, of 1"), "{reason}");
}
