//! What a disk does to files, and what is said about it.

use super::*;

const C: u64 = CHUNK as u64;

/// A store with snapshot 1 of chunks 1 to 4, and its pack.
fn saved() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 3, 4])).expect("saved");
    let pack = packs(&directory).remove(0);
    (directory, pack)
}

fn said(store: &SnapshotStore) -> Vec<String> {
    let damage = store.verify(id(1)).expect("it opens");
    damage.iter().map(ToString::to_string).collect()
}

fn name(pack: &Path) -> String {
    let name = pack.file_name().expect("a name");
    format!("packs/{}", name.to_string_lossy())
}

#[test]
fn a_flipped_bit_is_found_by_chunk_pack_and_place() {
    let (directory, pack) = saved();
    let store = store(&directory);
    flip(&pack, 4096 + 2 * C + 77);
    let place = format!(
        "chunk 2 of memory, at byte {} of {}",
        4096 + 2 * C,
        name(&pack)
    );
    let expected = format!("{place}: its bytes are not those that were written");
    assert_eq!(said(&store), [expected]);
}

#[test]
fn a_chunk_that_was_found_damaged_is_written_again_by_the_next_save() {
    let (directory, pack) = saved();
    let store = store(&directory);
    flip(&pack, 4096 + C);
    assert_eq!(said(&store).len(), 1);
    let ram = Ram::of(&[2, 3]);
    let saved = save(&store, 2, &ram).expect("saved");
    assert_eq!(saved.new_bytes, C);
    assert_whole(&store, 2, &ram);
}

#[test]
fn a_truncated_pack_is_found_by_verify_and_refused_by_plan() {
    for whole in [0, 1, 3] {
        let (directory, pack) = saved();
        let length = 4096 + whole * C + 5;
        let file = File::options().write(true).open(&pack).expect("the pack");
        file.set_len(length).expect("cut");
        let store = store(&directory);
        let said = said(&store);
        assert_eq!(said.len() as u64, 4 - whole, "{said:?}");
        assert!(
            said[0].ends_with("only 5 of 65536 bytes are there"),
            "{said:?}"
        );
        let snapshot = store.snapshot(id(1)).expect("it opens");
        let refused = store.plan(&snapshot).expect_err("short").to_string();
        let words = format!(
            "has {length} bytes, and its chunks reach to {}",
            4096 + 4 * C
        );
        assert!(refused.ends_with(&words), "{refused}");
    }
}

#[test]
fn a_missing_pack_is_named() {
    let (directory, pack) = saved();
    fs::remove_file(&pack).expect("lost");
    let store = store(&directory);
    let expected = format!(
        "{} cannot be opened, and 4 chunks of memory are in it",
        name(&pack)
    );
    assert_eq!(said(&store), [expected]);
    let snapshot = store.snapshot(id(1)).expect("it opens");
    let refused = store.plan(&snapshot).expect_err("missing");
    assert!(matches!(refused, PlanError::Missing { .. }), "{refused:?}");
    save(&store, 2, &Ram::of(&[1, 2])).expect("it does not count on what is not there");
    assert_whole(&store, 2, &Ram::of(&[1, 2]));
}

#[test]
fn a_pack_that_is_lost_while_the_store_is_open_is_not_counted_on_once_that_is_known() {
    let (directory, pack) = saved();
    let store = store(&directory);
    fs::remove_file(&pack).expect("lost");
    assert_eq!(said(&store).len(), 1);
    let ram = Ram::of(&[4, 1]);
    let saved = save(&store, 2, &ram).expect("saved");
    assert_eq!(saved.new_bytes, 2 * C);
    assert_whole(&store, 2, &ram);
    store.compact().expect("the rest is compacted");
}

#[test]
fn names_that_are_lost_are_made_of_the_chunks_again() {
    let (directory, pack) = saved();
    let length = pack.metadata().expect("its length").len();
    let file = File::options().write(true).open(&pack).expect("the pack");
    let end = 4096 + 4 * C;
    for (what, at) in [("a name", end + 40), ("the trailer", length - 1)] {
        flip(&pack, at);
        let store = store(&directory);
        assert_whole(&store, 1, &Ram::of(&[1, 2, 3, 4]));
        let saved = save(&store, 2, &Ram::of(&[4, 2])).expect("saved");
        assert_eq!(saved.new_bytes, 0, "{what}");
        store.remove(id(2)).expect("removed");
        flip(&pack, at);
    }
    file.set_len(end).expect("cut");
    let store = store(&directory);
    assert_whole(&store, 1, &Ram::of(&[1, 2, 3, 4]));
    assert_eq!(
        save(&store, 2, &Ram::of(&[1, 3])).expect("saved").new_bytes,
        0
    );
}

#[test]
fn state_and_disks_that_are_damaged_or_cut_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let disk = tempfile::tempfile().expect("a file");
    disk.write_all_at(&[7; 100_000], 0).expect("written");
    let disks = [DiskSource {
        label: "layer",
        file: &disk,
    }];
    save_with(&store, 1, &Ram::of(&[1]), &disks).expect("saved");
    let path = |name: &str| store.snapshot_path(id(1)).join(name);
    flip(&path("state"), 3);
    flip(&path("disk.0"), 99_999);
    let expected = ["state", "disk.0"];
    let expected =
        expected.map(|file| format!("{file}: its bytes are not those that were written"));
    assert_eq!(said(&store), expected);
    let snapshot = store.snapshot(id(1)).expect("it opens");
    let refused = snapshot.state().expect_err("damaged").to_string();
    assert!(
        refused.starts_with("state of snapshot") && refused.contains("is damaged"),
        "{refused}"
    );
    let file = File::options()
        .write(true)
        .open(path("disk.0"))
        .expect("it");
    file.set_len(5000).expect("cut");
    let refused = store.snapshot(id(1)).expect_err("cut").to_string();
    assert!(
        refused.ends_with("has 5000 bytes, and 100000 were written"),
        "{refused}"
    );
    fs::remove_file(path("state")).expect("lost");
    let refused = store.snapshot(id(1)).expect_err("lost");
    assert!(matches!(refused, ReadError::File(_)), "{refused:?}");
}

#[test]
fn a_damaged_manifest_costs_one_snapshot_and_no_pack() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = store(&directory);
    let ram = Ram::of(&[1, 2, 3, 4, 5]);
    save(&opened, 1, &ram).expect("saved");
    save(&opened, 2, &Ram::of(&[6])).expect("saved");
    let manifest = opened.snapshot_path(id(1)).join(MANIFEST);
    drop(opened);
    flip(&manifest, 100);
    let opened = store(&directory);
    assert_eq!(opened.list(), [id(2)]);
    let unreadable = opened.unreadable();
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].0, id(1));
    assert!(unreadable[0].1.contains("checksum"), "{unreadable:?}");
    assert_whole(&opened, 2, &Ram::of(&[6]));
    save(&opened, 1, &ram).expect_err("its id is not free");
    opened.remove(id(2)).expect("removed");
    let refused = opened.compact().expect_err("nobody knows").to_string();
    assert!(
        refused.contains("until it is removed no space"),
        "{refused}"
    );
    assert_eq!(
        packs(&directory).len(),
        2,
        "either may be the damaged one's"
    );
    drop(opened);
    flip(&manifest, 100);
    let opened = store(&directory);
    assert_whole(&opened, 1, &ram);
    drop(opened);
    flip(&manifest, 100);
    let opened = store(&directory);
    opened.remove(id(1)).expect("a damaged one can be removed");
    assert!(packs(&directory).is_empty());
    assert_no_leftovers(&opened);
}

#[test]
fn a_manifest_in_another_s_place_is_refused() {
    let (directory, _) = saved();
    let opened = store(&directory);
    let from = opened.snapshot_path(id(1));
    drop(opened);
    fs::rename(&from, from.with_file_name(id(2).to_string())).expect("moved");
    let opened = store(&directory);
    let refused = opened.snapshot(id(2)).expect_err("another's").to_string();
    assert!(refused.contains("is that of"), "{refused}");
}

#[test]
fn names_that_are_nobody_s_are_left_alone() {
    let (directory, _) = saved();
    for (folder, name) in [
        ("packs", "notes.txt"),
        ("packs", "../x.pack"),
        ("snapshots", "README"),
    ] {
        let path = directory.path().join(folder).join(name);
        fs::write(path, "mine").expect("written");
    }
    let opened = store(&directory);
    assert_eq!(opened.list(), [id(1)]);
    assert_eq!(
        fs::read(directory.path().join("packs/notes.txt")).expect("there"),
        b"mine"
    );
}
