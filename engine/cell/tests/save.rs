//! A save gives out what a machine holds at its point, and changes nothing of it.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use brood_bare_guest::mailbox::Command;
use brood_bare_guest::pattern::fill_word;
use brood_cell::{Cell, CellError};
use brood_snapshot::CHUNK;
use brood_testkit::Image;
use common::{WORD, ask, checkpoint_of, daughter_of, host, read, write};

const SPAN: u64 = 8 << 20;
const BYTES: u64 = 1 << 20;

fn fill(cell: &mut Cell, start: u64, seed: u64) {
    let bytes = BYTES;
    ask(cell, Command::Fill { start, bytes, seed });
}

fn words(image: &Image, start: u64) -> Vec<u64> {
    let mut bytes = vec![0; BYTES as usize];
    image.chunks.read_exact_at(&mut bytes, start).expect("read");
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| u64::from_le_bytes(*word)).collect()
}

fn filled(start: u64, seed: u64) -> Vec<u64> {
    let addresses = (start..start + BYTES).step_by(8);
    addresses.map(|address| fill_word(seed, address)).collect()
}

fn word(image: &Image) -> u64 {
    words(image, WORD)[0]
}

/// Pages of RAM that the kernel has mapped or swapped in this process.
fn existing(cell: &mut Cell) -> usize {
    let stats = cell.stats().expect("stats");
    let pagemap = File::open(format!("/proc/{}/pagemap", cell.pid())).expect("root");
    let mut entries = vec![0; (stats.ram_bytes / 4096 * 8) as usize];
    let at = stats.ram_address / 4096 * 8;
    pagemap.read_exact_at(&mut entries, at).expect("read");
    let entries = entries.as_chunks::<8>().0.iter();
    entries
        .filter(|entry| u64::from_ne_bytes(**entry) >> 62 != 0)
        .count()
}

#[test]
fn a_checkpoint_saves_the_point_and_not_what_its_mother_did_since() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    fill(&mut mother, SPAN, 1);
    write(&mut mother, 5);
    let mut checkpoint = checkpoint_of(&mut mother);
    fill(&mut mother, SPAN, 2);
    write(&mut mother, 6);
    let before = existing(&mut checkpoint);
    let image = Image::of(&mut checkpoint);
    assert_eq!(existing(&mut checkpoint), before, "a save touches nothing");
    assert_eq!(word(&image), 5);
    assert!(words(&image, SPAN) == filled(SPAN, 1));
    let beyond = (SPAN + 2 * BYTES) / CHUNK as u64;
    assert!(!image.held().contains(&(beyond as u32)));
    assert_eq!(read(&mut daughter_of(&mut checkpoint)), 5);
    assert_eq!(read(&mut mother), 6);
}

#[test]
fn a_sealed_machine_saves_its_image_its_private_pages_and_its_huge_ones() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    fill(&mut cell, SPAN, 1);
    fill(&mut cell, 3 * SPAN, 1);
    cell.seal().expect("seal");
    fill(&mut cell, 3 * SPAN, 2);
    cell.collapse().expect("collapse");
    fill(&mut cell, 5 * SPAN, 3);
    write(&mut cell, 7);
    cell.pause().expect("pause");
    let image = Image::of(&mut cell);
    assert!(words(&image, SPAN) == filled(SPAN, 1), "of the image");
    assert!(words(&image, 3 * SPAN) == filled(3 * SPAN, 2), "collapsed");
    assert!(words(&image, 5 * SPAN) == filled(5 * SPAN, 3), "private");
    assert_eq!(word(&image), 7);
    cell.resume().expect("resume");
    assert_eq!(read(&mut cell), 7);
}

#[test]
fn a_machine_that_runs_is_not_saved() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    let (_ours, theirs) = UnixStream::pair().expect("socketpair");
    let refused = cell.save(theirs.into(), Duration::from_secs(60));
    let words = refused.expect_err("it runs").to_string();
    assert!(words.contains("the machine runs"), "{words}");
}

#[test]
fn a_reader_that_goes_away_is_a_refusal_and_the_checkpoint_lives_on() {
    let Some(host) = host() else { return };
    let mut mother = host.bare(64, 1);
    fill(&mut mother, SPAN, 1);
    let mut checkpoint = checkpoint_of(&mut mother);
    for takes in [0, 5, 100_000] {
        let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
        let reader = std::thread::spawn(move || {
            let mut some = vec![0; takes];
            ours.read_exact(&mut some).expect("as much as it takes");
        });
        let refused = checkpoint.save(theirs.into(), Duration::from_secs(60));
        reader.join().expect("the reader has gone");
        let refused = refused.expect_err("nobody reads");
        let words = refused.to_string();
        assert!(matches!(refused, CellError::Refused(_)), "{words}");
        assert!(words.contains("broke off"), "{words}");
    }
    let image = Image::of(&mut checkpoint);
    assert!(words(&image, SPAN) == filled(SPAN, 1));
    assert_eq!(read(&mut daughter_of(&mut checkpoint)), 0);
}

#[test]
fn a_stream_that_was_made_not_to_wait_is_waited_for() {
    let Some(host) = host() else { return };
    let mut cell = host.bare(64, 1);
    fill(&mut cell, SPAN, 1);
    cell.pause().expect("pause");
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    theirs.set_nonblocking(true).expect("set");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        ours.read_to_end(&mut all).map(|_| all.len())
    });
    cell.save(theirs.into(), Duration::from_secs(300))
        .expect("saved");
    let read = reader.join().expect("the reader ends").expect("read");
    assert!(read as u64 > BYTES);
}
