//! What becomes of snapshots that are there: planned, counted, removed.

use super::*;

const C: u64 = CHUNK as u64;

#[test]
fn a_pack_goes_with_the_last_snapshot_that_names_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2])).expect("saved");
    save(&store, 2, &Ram::of(&[2, 3])).expect("saved");
    assert_eq!(packs(&directory).len(), 2);
    store.remove(id(1)).expect("removed");
    assert_eq!(packs(&directory).len(), 2, "chunk 2 is in the first");
    assert_whole(&store, 2, &Ram::of(&[2, 3]));
    store.remove(id(2)).expect("removed");
    assert!(packs(&directory).is_empty());
    assert!(matches!(store.remove(id(2)), Err(RemoveError::Absent(_))));
    let saved = save(&store, 3, &Ram::of(&[1, 2])).expect("saved");
    assert_eq!(saved.new_bytes, 2 * C, "what is gone is not counted on");
    assert_no_leftovers(&store);
}

#[test]
fn a_machine_that_is_being_restored_keeps_its_memory_when_the_snapshot_is_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let ram = Ram::of(&[1, 2, 3]);
    save(&store, 1, &ram).expect("saved");
    let snapshot = store.snapshot(id(1)).expect("a snapshot");
    let plan = store.plan(&snapshot).expect("a plan");
    store.remove(id(1)).expect("removed");
    store.compact().expect("compacted");
    assert!(restore(plan) == ram.0);
    let gone = store.plan(&snapshot).expect_err("gone");
    assert!(
        matches!(gone, PlanError::Read(ReadError::Absent(_))),
        "{gone:?}"
    );
}

#[test]
fn the_working_set_is_written_down_and_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let ram = Ram::of(&[1, 2, 0, 4]);
    save(&store, 1, &ram).expect("saved");
    store
        .record_working_set(id(1), &[3, 2, 0])
        .expect("written");
    let snapshot = store.snapshot(id(1)).expect("a snapshot");
    assert_eq!(
        snapshot.table().working_set().collect::<Vec<_>>(),
        [3, 2, 0]
    );
    assert_whole(&store, 1, &ram);
    store.record_working_set(id(1), &[1]).expect("another one");
    for wrong in [&[4][..], &[1, 1]] {
        store
            .record_working_set(id(1), wrong)
            .expect_err("no such set");
    }
    let snapshot = store.snapshot(id(1)).expect("a snapshot");
    assert_eq!(snapshot.table().working_set().collect::<Vec<_>>(), [1]);
    assert_no_leftovers(&store);
}

#[test]
fn usage_tells_what_a_snapshot_has_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 2, 3])).expect("saved");
    save(&store, 2, &Ram::of(&[3, 4, 0, 0])).expect("saved");
    let usage = store.usage().expect("counted");
    let each: Vec<_> = usage
        .snapshots
        .iter()
        .map(|usage| (usage.ram_bytes, usage.alone, usage.shared))
        .collect();
    assert_eq!(each, [(4 * C, 2 * C, C), (4 * C, C, C)]);
    assert_eq!((usage.packed, usage.unused), (4 * C, 0));
    let manifest = files(directory.path());
    assert!(
        usage.snapshots.iter().all(|usage| usage.files > 9),
        "{manifest:?}"
    );
    store.remove(id(1)).expect("removed");
    let usage = store.usage().expect("counted");
    assert_eq!((usage.packed, usage.unused), (4 * C, 2 * C));
    assert_eq!(
        (usage.snapshots[0].alone, usage.snapshots[0].shared),
        (2 * C, 0)
    );
}

#[test]
fn a_snapshot_refers_to_a_bounded_number_of_packs() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let numbers: Vec<u32> = (1..=140).collect();
    for number in &numbers {
        let ram = Ram::of(&[*number]);
        save(&store, *number as u8, &ram).expect("saved");
    }
    let all = Ram::of(&numbers);
    let saved = save(&store, 200, &all).expect("saved");
    assert_eq!(saved.packs, 129, "128 that were there and its own");
    assert_eq!(saved.new_bytes, 12 * C);
    assert_whole(&store, 200, &all);
    store.compact().expect("compacted");
    let snapshot = store.snapshot(id(200)).expect("a snapshot");
    assert_eq!(snapshot.packs().len(), 32);
    assert_whole(&store, 200, &all);
    assert_whole(&store, 1, &Ram::of(&[1]));
    assert_no_leftovers(&store);
}
