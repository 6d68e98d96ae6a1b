//! Tables against their builder, and against whoever makes one by hand.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const CHUNKS: u32 = 40;

fn name(byte: u8) -> ChunkName {
    ChunkName::from_bytes([byte; 32])
}

fn stored(file: u32, offset: u64) -> Entry {
    Entry::Stored {
        file,
        offset,
        name: name(9),
        working_set: false,
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new(u64::from(CHUNKS) * CHUNK as u64, 2).expect("RAM");
    builder.set(3, stored(1, 4096)).expect("set");
    builder.working_set(3).expect("set");
    builder.working_set(1).expect("set");
    builder
}

#[test]
fn what_was_built_is_read_back() {
    let table = Table::parse(builder().finish()).expect("a table");
    assert_eq!(table.chunks(), CHUNKS);
    assert_eq!(table.files(), 2);
    assert_eq!(table.ram_bytes(), 40 << 16);
    let expected = Entry::Stored {
        file: 1,
        offset: 4096,
        name: name(9),
        working_set: true,
    };
    assert_eq!(table.entry(3), Some(expected));
    assert_eq!(table.entry(1), Some(Entry::Zero { working_set: true }));
    assert_eq!(table.entry(0), Some(Entry::Zero { working_set: false }));
    assert_eq!(table.entry(CHUNKS), None);
    assert_eq!(table.entry(u32::MAX), None);
    assert_eq!(table.working_set().collect::<Vec<_>>(), [3, 1]);
    let each: Vec<_> = (0..CHUNKS).filter_map(|chunk| table.entry(chunk)).collect();
    assert_eq!(table.entries().collect::<Vec<_>>(), each);
}

#[test]
fn bytes_are_where_the_format_says() {
    let bytes = builder().finish();
    assert_eq!(bytes.len(), 64 + 40 * 48 + 2 * 4);
    assert_eq!(&bytes[..8], b"BROODTBL");
    assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[16..24], (40_u64 << 16).to_le_bytes());
    assert_eq!(bytes[24..32], 40_u64.to_le_bytes());
    assert_eq!(bytes[32..36], 2_u32.to_le_bytes());
    assert!(bytes[36..64].iter().all(|byte| *byte == 0));
    let entry = &bytes[64 + 3 * 48..64 + 4 * 48];
    assert_eq!(entry[..8], [2, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(entry[8..16], 4096_u64.to_le_bytes());
    assert_eq!(entry[16..], [9; 32]);
    assert_eq!(bytes[64 + 40 * 48..], [3, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_builder_refuses_what_a_parser_would() {
    for (ram, files) in [
        (0, 0),
        (4096, 0),
        (RAM_MAX + CHUNK as u64, 0),
        (CHUNK as u64, FILES_MAX + 1),
    ] {
        assert!(Builder::new(ram, files).is_err(), "{ram} {files}");
    }
    let mut builder = builder();
    assert_eq!(
        builder.set(CHUNKS, stored(0, 0)),
        Err(BuildError::Chunk(CHUNKS))
    );
    for entry in [
        stored(2, 0),
        stored(u32::MAX, 0),
        stored(0, u64::MAX),
        stored(0, i64::MAX as u64),
    ] {
        let refused = builder.set(0, entry);
        assert!(
            matches!(refused, Err(BuildError::Entry { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(builder.working_set(3), Err(BuildError::Twice(3)));
    assert_eq!(builder.working_set(CHUNKS), Err(BuildError::Chunk(CHUNKS)));
}

/// Each field broken by itself, with what is said about it.
#[test]
fn each_field_that_is_wrong_is_named() {
    let good = builder().finish();
    let order = 64 + 40 * 48;
    let cases: [(usize, &[u8], &str); 19] = [
        (0, b"X", "does not begin with BROODTBL"),
        (8, &[2], "version 2, and this program reads 1"),
        (8, &[0], "version 0"),
        (14, &[2], "chunks of 131072 bytes"),
        (16, &[1], "it is whole chunks"),
        (18, &[41], "in 40 chunks"),
        (24, &[41], "in 41 chunks"),
        (31, &[1], "chunks: it is whole"),
        (33, &[0xff], "65282 files"),
        (32, &[1], "chunk 3 is in a file that does not come along"),
        (63, &[1], "this version leaves zero"),
        (64, &[3], "chunk 0 is in a file"),
        (68, &[2], "chunk 0 has flags"),
        (72, &[1], "chunk 0 is zero and yet somewhere"),
        (80, &[1], "chunk 0 is zero and yet somewhere"),
        (64 + 3 * 48 + 15, &[0x80], "beyond the end of any file"),
        (
            68,
            &[1],
            "3 chunks are flagged as of the working set, and it has 2",
        ),
        (order, &[40], "names chunk 40, which is not in RAM"),
        (order, &[1], "names chunk 1, which was named before"),
    ];
    for (at, with, words) in cases {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        let said = Table::parse(bytes).expect_err(words).to_string();
        assert!(said.contains(words), "{at}: {said}");
    }
    let mut unflagged = good.clone();
    unflagged[order] = 2;
    let said = Table::parse(unflagged).expect_err("chunk 2").to_string();
    assert_eq!(said, "the working set names chunk 2, which is not flagged");
}

#[test]
fn a_table_that_ends_early_or_between_numbers_is_refused() {
    let good = builder().finish();
    // Whole numbers of the working set may be cut off; then the flags tell.
    for length in 0..good.len() {
        assert!(Table::parse(&good[..length]).is_err(), "{length}");
    }
    let mut longer = good;
    longer.push(0);
    assert!(Table::parse(longer).is_err());
}

#[test]
fn absurd_sizes_are_refused_without_memory_for_them() {
    let mut bytes = builder().finish();
    bytes[16..24].copy_from_slice(&RAM_MAX.to_le_bytes());
    bytes[24..32].copy_from_slice(&(RAM_MAX / CHUNK as u64).to_le_bytes());
    let refused = Table::parse(&bytes).expect_err("a tebibyte");
    assert!(matches!(refused, ParseError::Length { .. }), "{refused:?}");
    bytes[16..32].copy_from_slice(&[0xff; 16]);
    let refused = Table::parse(&bytes).expect_err("everything");
    assert!(matches!(refused, ParseError::Ram { .. }), "{refused:?}");
}

#[test]
fn a_sealed_table_can_be_read_and_not_be_changed() {
    let bytes = builder().finish();
    let mut file = File::from(sealed_memfd(&bytes).expect("sealed"));
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, 0).expect("read");
    assert_eq!(found, bytes);
    file.write_all(b"x").expect_err("sealed against writing");
    file.set_len(0).expect_err("sealed against shrinking");
    file.set_len(1 << 20).expect_err("sealed against growing");
}

fn entries() -> impl Strategy<Value = Vec<(u32, u32, u64, u8)>> {
    prop::collection::vec((0..CHUNKS, 0_u32..3, 0_u64..1 << 40, any::<u8>()), 0..60)
}

proptest! {
    #[test]
    fn any_table_that_can_be_built_is_read_back(
        entries in entries(),
        order in prop::collection::btree_set(0..CHUNKS, 0..30),
    ) {
        let mut builder = Builder::new(u64::from(CHUNKS) * CHUNK as u64, 3).expect("RAM");
        let mut expected = vec![Entry::Zero { working_set: false }; CHUNKS as usize];
        for (chunk, file, offset, byte) in entries {
            let entry = Entry::Stored { file, offset, name: name(byte), working_set: false };
            builder.set(chunk, entry).expect("set");
            expected[chunk as usize] = entry;
        }
        for chunk in &order {
            builder.working_set(*chunk).expect("named once");
            match &mut expected[*chunk as usize] {
                Entry::Zero { working_set } | Entry::Stored { working_set, .. } => *working_set = true,
            }
        }
        let table = Table::parse(builder.finish()).expect("a table");
        prop_assert_eq!(table.entries().collect::<Vec<_>>(), expected);
        prop_assert_eq!(table.working_set().collect::<Vec<_>>(), order.into_iter().collect::<Vec<_>>());
    }

    /// A flipped bit anywhere is refused, or is in what a table may say: then every answer is still within bounds.
    #[test]
    fn damage_is_refused_or_stays_in_bounds(flips in prop::collection::vec((0_usize..1992, 0_u8..8), 1..4)) {
        let mut bytes = builder().finish();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        if let Ok(table) = Table::parse(&bytes) {
            prop_assert_eq!(table.entries().count(), table.chunks() as usize);
            for entry in table.entries() {
                if let Entry::Stored { file, offset, .. } = entry {
                    prop_assert!(file < table.files() && offset < i64::MAX as u64 - CHUNK as u64);
                }
            }
            prop_assert!(table.working_set().all(|chunk| table.entry(chunk).is_some_and(|entry| entry.in_working_set())));
        }
    }

    #[test]
    fn nonsense_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut bytes = bytes;
        prop_assert!(Table::parse(&bytes).is_err());
        for (to, from) in bytes.iter_mut().zip(MAGIC.iter().chain(&[1, 0, 0, 0, 0, 0, 1, 0])) {
            *to = *from;
        }
        prop_assert!(Table::parse(&bytes).is_err());
    }
}
