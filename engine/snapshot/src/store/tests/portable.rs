//! Snapshots that are carried elsewhere, and files that only look like it.

use proptest::prelude::*;

use super::*;
use crate::manifest::{CHECKSUM, Manifest};

fn ram() -> Ram {
    Ram::of(&[3, 0, 1, 3, 2, 0, 1])
}

fn exported() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    // Something else in the way, so that chunks lie elsewhere.
    save(&store, 9, &Ram::of(&[9, 2])).expect("saved");
    let disk = tempfile::tempfile().expect("a file");
    disk.write_all_at(&[7; 5000], 0).expect("written");
    let disks = [DiskSource {
        label: "../../../etc/passwd",
        file: &disk,
    }];
    save_with(&store, 1, &ram(), &disks).expect("saved");
    store.record_working_set(id(1), &[4, 0]).expect("written");
    let mut file = Vec::new();
    let bytes = store.export(id(1), &mut file).expect("exported");
    assert_eq!(bytes, file.len() as u64);
    file
}

fn import(store: &SnapshotStore, file: &[u8], number: u8) -> Result<Saved, ImportError> {
    store.import(Portable::begin(file)?, id(number))
}

#[test]
fn what_was_exported_is_the_same_machine_elsewhere_under_any_id() {
    let file = exported();
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 5, &Ram::of(&[1])).expect("saved");
    let portable = Portable::begin(&file[..]).expect("an export");
    assert_eq!(portable.id(), id(1));
    assert_eq!(portable.ram_bytes(), 7 * CHUNK as u64);
    assert_eq!(portable.record().meta, meta());
    let saved = store.import(portable, id(2)).expect("imported");
    assert_eq!(saved.new_bytes, 2 * CHUNK as u64, "chunk 1 was there");
    assert_whole(&store, 2, &ram());
    let snapshot = store.snapshot(id(2)).expect("a snapshot");
    assert_eq!(snapshot.table().working_set().collect::<Vec<_>>(), [4, 0]);
    let mut disk = Vec::new();
    snapshot
        .disk(0)
        .expect("a disk")
        .read_to_end(&mut disk)
        .expect("read");
    assert_eq!(disk, [7; 5000]);
    let mut again = Vec::new();
    store.export(id(2), &mut again).expect("exported");
    import(&store, &again, 3).expect("imported");
    assert_whole(&store, 3, &ram());
    assert!(matches!(
        import(&store, &file, 2),
        Err(ImportError::Save(SaveError::Exists(_)))
    ));
    assert_no_leftovers(&store);
}

#[test]
fn a_path_in_a_label_is_a_word_and_nothing_is_written_there() {
    let file = exported();
    let place = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(&place.path().join("a/b/c")).expect("a store");
    import(&store, &file, 1).expect("imported");
    let snapshot = store.snapshot(id(1)).expect("it");
    assert_eq!(snapshot.record().disks[0].label, "../../../etc/passwd");
    let outside: Vec<_> = files(place.path())
        .into_iter()
        .filter(|path| !path.starts_with("a/b/c"))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert_no_leftovers(&store);
}

#[test]
fn each_chunk_is_in_an_export_once_and_zeros_are_not() {
    let file = exported();
    let memory = file.len() - 3 * CHUNK;
    assert!(memory.is_multiple_of(PAGE) && memory < 16384, "{memory}");
    assert!(
        file[memory..memory + CHUNK] == Ram::of(&[3]).0,
        "in order of memory"
    );
}

#[test]
fn every_kind_of_damage_is_refused_and_leaves_nothing() {
    let good = exported();
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let places = [0, 8, 16, 30, 64, 80, 200, 500];
    let ends = [5, CHUNK + 5, 3 * CHUNK - 5, 3 * CHUNK + 5000];
    let all = places.into_iter().chain(ends.map(|end| good.len() - end));
    for at in all {
        let mut file = good.clone();
        file[at] ^= 1;
        import(&store, &file, 1).expect_err("damaged");
        let cut = import(&store, &good[..at], 1).expect_err("cut off");
        assert!(
            matches!(cut, ImportError::Read { .. } | ImportError::Manifest(_)),
            "{at}: {cut:?}"
        );
        assert!(store.list().is_empty());
        assert_no_leftovers(&store);
    }
    let mut longer = good.clone();
    longer.push(0);
    let refused = import(&store, &longer, 1).expect_err("longer");
    assert!(matches!(refused, ImportError::Trailing), "{refused:?}");
    assert_no_leftovers(&store);
    import(&store, &good, 1).expect("the good one");
}

#[test]
fn absurd_sizes_are_refused_without_memory_or_disk_for_them() {
    let good = exported();
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let mut file = good.clone();
    file[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let refused = import(&store, &file, 1).expect_err("a large manifest");
    assert!(matches!(refused, ImportError::Size { .. }), "{refused:?}");
    let refused = Portable::begin_within(&file[..], 1 << 30).expect_err("a large manifest");
    assert!(matches!(refused, ImportError::Size { .. }), "{refused:?}");
    let most = 6 * CHUNK as u64;
    let refused = Portable::begin_within(&good[..], most).expect_err("a large machine");
    let said = "the export is of a machine with 458752 bytes of RAM, and at most 393216 are taken";
    assert_eq!(refused.to_string(), said);
    Portable::begin_within(&good[..], 7 * CHUNK as u64).expect("as large as is wanted");
    // As large as one may be: what is there is read, and found to be too little.
    file[16..24].copy_from_slice(&(800_u64 << 20).to_le_bytes());
    import(&store, &file, 1).expect_err("a large manifest");
    for (change, words) in [
        (
            (|m| m.record.disks[0].bytes = 1 << 50) as fn(&mut Manifest),
            "chunk 0 of the export is not where it must be",
        ),
        (|m| m.record.disks[0].bytes = u64::MAX, "bytes of disks"),
        (|m| m.record.state.bytes = u64::MAX, "bytes of state"),
    ] {
        let refused = import(&store, &resigned(&good, change), 1).expect_err(words);
        let said = super::super::chain(&refused);
        assert!(said.contains(words), "{said}");
        assert_no_leftovers(&store);
    }
}

/// The export with another manifest whose checksum is good, as someone would make it by hand.
fn resigned(file: &[u8], change: fn(&mut Manifest)) -> Vec<u8> {
    let length = u64::from_le_bytes(file[16..24].try_into().expect("eight"));
    let end = 64 + usize::try_from(length).expect("short");
    let mut manifest = Manifest::parse(&file[64..end]).expect("a manifest");
    let before = manifest.to_bytes().expect("bytes");
    change(&mut manifest);
    let record = postcard::to_stdvec(&manifest.record).expect("a record");
    let old = u32::from_le_bytes(before[12..16].try_into().expect("four")) as usize;
    let mut bytes = before[..64].to_vec();
    bytes[12..16].copy_from_slice(&(record.len() as u32).to_le_bytes());
    bytes.extend(record);
    bytes.extend(&before[64 + old..before.len() - CHECKSUM]);
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    let mut made = file[..64].to_vec();
    made[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    made.extend(bytes);
    made.extend(&file[end..]);
    made
}

#[test]
fn a_damaged_store_gives_out_no_export() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &ram()).expect("saved");
    flip(&packs(&directory)[0], 4096);
    let refused = store.export(id(1), std::io::sink()).expect_err("damaged");
    assert!(matches!(refused, ExportError::Damaged(_)), "{refused:?}");
    let refused = store.export(id(2), std::io::sink()).expect_err("absent");
    assert!(
        matches!(refused, ExportError::Read(ReadError::Absent(_))),
        "{refused:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever makes the checksum fit can say anything: it is refused, or the store is whole afterwards.
    #[test]
    fn nonsense_with_a_good_checksum_does_no_harm(
        flips in prop::collection::vec((0_usize..900, any::<u8>()), 1..4),
    ) {
        let good = exported();
        let length = u64::from_le_bytes(good[16..24].try_into().expect("eight"));
        let end = 64 + usize::try_from(length).expect("short");
        let mut file = good;
        for (at, byte) in flips {
            file[64 + at % (end - 64 - CHECKSUM)] = byte;
        }
        let checksum = blake3::hash(&file[64..end - CHECKSUM]);
        file[end - CHECKSUM..end].copy_from_slice(checksum.as_bytes());
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(&directory);
        if import(&store, &file, 1).is_ok() {
            let damage = store.verify(id(1)).expect("it opens");
            prop_assert!(damage.is_empty(), "{damage:?}");
        }
        assert_no_leftovers(&store);
    }
}
