//! Manifests that were written, cut, flipped and of another time.

use proptest::prelude::*;

use super::*;
use crate::chunk::{CHUNK, ChunkName};
use crate::table::{Builder, Entry};

fn file(label: &str, bytes: u64) -> FileRecord {
    FileRecord {
        label: label.into(),
        bytes,
        digest: [bytes as u8; 32],
    }
}

fn manifest() -> Manifest {
    let mut table = Builder::new(8 * CHUNK as u64, 2).expect("RAM");
    let entry = Entry::Stored {
        file: 1,
        offset: 4096,
        name: ChunkName::from_bytes([7; 32]),
        working_set: false,
    };
    table.set(5, entry).expect("set");
    table.working_set(5).expect("set");
    Manifest {
        id: SnapshotId::from_bytes(*b"snapshot number1"),
        record: Record {
            meta: Meta {
                engine: "0.1.0".into(),
                taken: Timestamp::from_millis(1_790_000_000_000),
                vcpus: 2,
                state_version: 1,
                labels: [("lineage".into(), "a".into())].into(),
                ..Meta::default()
            },
            state: file("state", 9),
            disks: vec![file("base", 3), file("layer", 4)],
        },
        packs: vec![PackId::from_bytes([1; 32]), PackId::from_bytes([2; 32])],
        table: Table::parse(table.finish()).expect("a table"),
    }
}

/// The same bytes with a checksum that fits them, as someone would make them by hand.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - CHECKSUM);
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

#[test]
fn what_was_written_is_read_back() {
    let written = manifest();
    let read = Manifest::parse(&written.to_bytes().expect("bytes")).expect("a manifest");
    assert_eq!(read.id, written.id);
    assert_eq!(read.record, written.record);
    assert_eq!(read.packs, written.packs);
    assert_eq!(read.table.as_bytes(), written.table.as_bytes());
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let good = manifest().to_bytes().expect("bytes");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(Manifest::parse(&bytes).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Manifest::parse(&good[..at]).is_err(), "{at} bytes");
    }
    let mut longer = good;
    longer.push(0);
    assert!(Manifest::parse(&longer).is_err());
}

#[test]
fn other_formats_are_refused_by_name_even_where_all_else_is_elsewhere() {
    let mut bytes = manifest().to_bytes().expect("bytes");
    bytes[8] = 2;
    let said = Manifest::parse(&bytes).expect_err("newer").to_string();
    assert!(
        said.starts_with(
            "the snapshot has format 2, and this engine reads format 1: restore it with"
        ),
        "{said}"
    );
    bytes[8] = 0;
    let said = Manifest::parse(&bytes).expect_err("older").to_string();
    assert!(
        said.contains("format 0, which this engine, of format 1, no longer reads"),
        "{said}"
    );
    let said = Manifest::parse(b"a letter").expect_err("text").to_string();
    assert!(said.contains("this is no snapshot"), "{said}");
}

#[test]
fn absurd_lengths_are_refused_by_name() {
    let good = manifest().to_bytes().expect("bytes");
    let said = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        Manifest::parse(&bytes).expect_err("absurd").to_string()
    };
    assert!(said(12, &[0xff; 4]).contains("bytes of record 4294967295, more than 1048576"));
    assert!(said(16, &[0xff; 4]).contains("packs 4294967295, more than 4096"));
    assert!(said(24, &[0xff; 8]).contains("cut off or damaged"));
    for (change, words) in [
        (
            (|m| m.record.state.bytes = STATE_MAX + 1) as fn(&mut Manifest),
            "bytes of state 67108865, more than",
        ),
        (
            |m| m.record.disks = vec![file("layer", 0); DISKS_MAX + 1],
            "disk files 4098, more than 4097",
        ),
        (
            |m| m.record.disks = vec![file("layer", u64::MAX); 2],
            "bytes of disks",
        ),
        (
            |m| m.record.meta.engine = "x".repeat(RECORD_MAX),
            "bytes of record",
        ),
    ] {
        let mut manifest = manifest();
        change(&mut manifest);
        let said = manifest.to_bytes().expect_err(words).to_string();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_table_of_other_packs_is_refused() {
    let mut wrong = manifest();
    wrong.packs.pop();
    let bytes = wrong.to_bytes().expect("bytes");
    let refused = Manifest::parse(&bytes).expect_err("one pack is missing");
    assert_eq!(
        refused.to_string(),
        "the manifest names 1 packs, and its table 2 files"
    );
}

proptest! {
    /// Whoever makes a checksum for it can say anything, and nothing but an error comes of it.
    #[test]
    fn nonsense_with_a_good_checksum_does_no_harm(
        flips in prop::collection::vec((0_usize..2000, any::<u8>()), 1..6),
    ) {
        let mut bytes = manifest().to_bytes().expect("bytes");
        for (at, byte) in flips {
            let at = at % (bytes.len() - CHECKSUM);
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::parse(&signed(bytes)) {
            prop_assert_eq!(manifest.packs.len(), manifest.table.files() as usize);
        }
    }
}
