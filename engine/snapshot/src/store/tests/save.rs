//! Saving, sharing, opening again, removing.

use std::io::Write;

use super::*;

const C: u64 = CHUNK as u64;

#[test]
fn memory_comes_back_as_it_was_and_after_the_store_is_opened_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let ram = Ram::of(&[0, 1, 2, 0, 1, 3]);
    let opened = store(&directory);
    let saved = save(&opened, 1, &ram).expect("saved");
    assert_eq!((saved.nonzero_bytes, saved.new_bytes), (4 * C, 3 * C));
    assert_whole(&opened, 1, &ram);
    drop(opened);
    let opened = store(&directory);
    assert_eq!(opened.list(), [id(1)]);
    assert_whole(&opened, 1, &ram);
    assert_no_leftovers(&opened);
}

#[test]
fn zero_chunks_are_not_kept_and_memory_of_zeros_has_no_pack() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let ram = Ram::of(&[0; 64]);
    let saved = save(&store, 1, &ram).expect("saved");
    assert_eq!((saved.new_bytes, saved.packs), (0, 0));
    assert!(packs(&directory).is_empty());
    assert_whole(&store, 1, &ram);
}

#[test]
fn zeros_that_are_sent_all_the_same_are_not_kept_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let mut stream = 0_u64.to_le_bytes().to_vec();
    stream.extend((CHUNK as u32).to_le_bytes());
    stream.extend([0; CHUNK]);
    stream.extend(C.to_le_bytes());
    stream.extend(0_u32.to_le_bytes());
    let spec = SaveSpec {
        id: id(1),
        meta: meta(),
        ram_bytes: C,
        ram: &stream[..],
        state: b"registers",
        disks: &[],
    };
    assert_eq!(store.save(spec).expect("saved").nonzero_bytes, 0);
    assert_whole(&store, 1, &Ram::of(&[0]));
}

#[test]
fn equal_chunks_are_kept_once_across_snapshots_and_across_opens() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = store(&directory);
    let first = Ram::of(&[1, 2, 3, 4]);
    let second = Ram::of(&[4, 3, 5, 1]);
    save(&opened, 1, &first).expect("saved");
    drop(opened);
    let opened = store(&directory);
    let saved = save(&opened, 2, &second).expect("saved");
    assert_eq!(
        (saved.new_bytes, saved.packs),
        (C, 2),
        "only chunk 5 is new"
    );
    let saved = save(&opened, 3, &first).expect("saved");
    assert_eq!((saved.new_bytes, saved.packs), (0, 1));
    for (number, ram) in [(1, &first), (2, &second), (3, &first)] {
        assert_whole(&opened, number, ram);
    }
    let stored: u64 = packs(&directory)
        .iter()
        .map(|path| path.metadata().expect("a pack").len() / C)
        .sum();
    assert_eq!(stored, 5, "five different chunks");
}

#[test]
fn pieces_that_are_no_chunks_become_chunks() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let mut ram = Ram(vec![0; 5 * CHUNK]);
    // The end of one chunk and the beginning of the next; a page alone.
    ram.0[CHUNK - PAGE..CHUNK + PAGE].fill(7);
    ram.0[3 * CHUNK + 5 * PAGE..3 * CHUNK + 6 * PAGE].fill(8);
    let saved = save(&store, 1, &ram).expect("saved");
    assert_eq!(saved.nonzero_bytes, 3 * C);
    assert_whole(&store, 1, &ram);
}

#[test]
fn disk_files_are_copied_whole_and_their_holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;

    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let mut layer = tempfile::tempfile().expect("a file");
    layer.write_all(b"blocks").expect("written");
    layer.set_len(4 << 20).expect("longer");
    layer.write_all_at(b"end", (4 << 20) - 3).expect("written");
    let empty = tempfile::tempfile().expect("a file");
    let disks = [("base", &layer), ("layer", &empty)];
    let disks = disks.map(|(label, file)| DiskSource { label, file });
    save_with(&store, 1, &Ram::of(&[1]), &disks).expect("saved");
    let snapshot = store.snapshot(id(1)).expect("a snapshot");
    let labels: Vec<_> = snapshot.record().disks.iter().collect();
    assert_eq!(labels[0].label, "base");
    assert_eq!((labels[0].bytes, labels[1].bytes), (4 << 20, 0));
    let copy = snapshot.disk(0).expect("a disk");
    let read = |file: &File| {
        let mut bytes = vec![0; 4 << 20];
        file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    };
    assert!(read(&copy) == read(&layer));
    assert!(copy.metadata().expect("its space").blocks() * 512 < 1 << 20);
    assert!(matches!(snapshot.disk(2), Err(ReadError::NoDisk { .. })));
    assert!(store.verify(id(1)).expect("it opens").is_empty());
}

#[test]
fn a_stream_that_lies_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let good = Ram::of(&[1, 2, 3, 4]).stream();
    for cut in [0, 5, 12, 70_000, good.len() - 1] {
        let spec = SaveSpec {
            id: id(1),
            meta: meta(),
            ram_bytes: 4 * C,
            ram: &good[..cut],
            state: b"",
            disks: &[],
        };
        let refused = store.save(spec).expect_err("cut off");
        assert!(matches!(refused, SaveError::Ram(_)), "{refused:?}");
        assert_no_leftovers(&store);
    }
    assert!(store.list().is_empty());
    save(&store, 1, &Ram::of(&[1])).expect("the id is free");
}

#[test]
fn a_machine_that_gives_out_its_state_behind_its_memory_is_asked_for_it_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let ram = Ram::of(&[1, 2, 3]);
    let mut stream = &ram.stream()[..];
    let spec = |ram| StreamSpec {
        id: id(1),
        meta: meta(),
        ram_bytes: 3 * C,
        ram,
    };
    let asked = std::cell::Cell::new(false);
    let cut = &stream[..stream.len() - 1];
    let refused = store.save_as_it_comes(spec(cut), || {
        asked.set(true);
        Ok(Rest::default())
    });
    assert!(matches!(refused, Err(SaveError::Ram(_))), "{refused:?}");
    assert!(!asked.get(), "its memory did not come whole");
    let refused = store.save_as_it_comes(spec(stream), || Err(std::io::ErrorKind::Other.into()));
    assert!(matches!(refused, Err(SaveError::Rest(_))), "{refused:?}");
    assert_no_leftovers(&store);
    let disk = tempfile::tempfile().expect("a file");
    disk.write_all_at(b"blocks", 0).expect("written");
    let rest = Rest {
        state: b"registers".to_vec(),
        disks: vec![("layer".into(), disk)],
    };
    let by_ref = StreamSpec {
        id: id(1),
        meta: meta(),
        ram_bytes: 3 * C,
        ram: Read::by_ref(&mut stream),
    };
    store.save_as_it_comes(by_ref, || Ok(rest)).expect("saved");
    assert!(stream.is_empty(), "read to its end");
    assert_whole(&store, 1, &ram);
    assert_eq!(
        store.snapshot(id(1)).expect("it").record().disks[0].bytes,
        6
    );
}

#[test]
fn an_id_is_given_once_and_free_after_it_was_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1])).expect("saved");
    let refused = save(&store, 1, &Ram::of(&[2])).expect_err("taken");
    assert!(matches!(refused, SaveError::Exists(_)), "{refused:?}");
    assert_whole(&store, 1, &Ram::of(&[1]));
    store.remove(id(1)).expect("removed");
    save(&store, 1, &Ram::of(&[2])).expect("saved");
    assert_whole(&store, 1, &Ram::of(&[2]));
}

#[test]
fn too_much_state_and_too_many_disks_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let state = vec![0; (64 << 20) + 1];
    let ram = Ram::of(&[1]);
    let stream = ram.stream();
    let spec = |state, disks| SaveSpec {
        id: id(1),
        meta: meta(),
        ram_bytes: C,
        ram: &stream[..],
        state,
        disks,
    };
    let refused = store.save(spec(&state, &[])).expect_err("too much");
    assert!(matches!(refused, SaveError::State(_)), "{refused:?}");
    let file = tempfile::tempfile().expect("a file");
    let disk = DiskSource {
        label: "layer",
        file: &file,
    };
    let refused = store
        .save(spec(b"", &vec![disk; 4098]))
        .expect_err("too many");
    assert!(matches!(refused, SaveError::Disks(4098)), "{refused:?}");
}

#[test]
fn a_second_owner_is_refused_by_name_and_files_are_this_user_s_alone() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1])).expect("saved");
    let refused = SnapshotStore::open(directory.path()).map(|_| ());
    let said = refused.expect_err("in use").to_string();
    let holder = format!("in use by process {}", std::process::id());
    assert!(said.contains(&holder), "{said}");
    for file in files(directory.path()) {
        let metadata = directory.path().join(&file).metadata().expect("it");
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}
