//! Packs that are mostly unused, and what is done about them.

use std::sync::mpsc;

use super::*;

const C: u64 = CHUNK as u64;

#[test]
fn a_pack_of_which_less_than_half_is_in_use_is_emptied_into_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 3, 4, 5])).expect("saved");
    let kept = Ram::of(&[0, 4, 9, 5]);
    save(&store, 2, &kept).expect("saved");
    store.record_working_set(id(2), &[3, 0]).expect("written");
    let before = store.compact().expect("nothing to do");
    assert_eq!(before, Compacted::default(), "all is in use");
    let opened = store.snapshot(id(2)).expect("a snapshot");
    store.remove(id(1)).expect("removed");
    let compacted = store.compact().expect("compacted");
    assert_eq!((compacted.packs, compacted.moved_bytes), (1, 2 * C));
    assert_whole(&store, 2, &kept);
    assert_no_leftovers(&store);
    let usage = store.usage().expect("counted");
    assert_eq!((usage.packed, usage.unused), (3 * C, 0));
    let plan = store.plan(&opened).expect("opened before, planned after");
    assert!(restore(plan) == kept.0);
    let snapshot = store.snapshot(id(2)).expect("a snapshot");
    assert_eq!(snapshot.table().working_set().collect::<Vec<_>>(), [3, 0]);
    drop(store);
    let store = super::store(&directory);
    assert_whole(&store, 2, &kept);
    let saved = save(&store, 3, &Ram::of(&[5, 4])).expect("saved");
    assert_eq!(saved.new_bytes, 0, "moved chunks are found");
}

#[test]
fn a_pack_of_which_half_is_in_use_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 3, 4])).expect("saved");
    save(&store, 2, &Ram::of(&[1, 2])).expect("saved");
    store.remove(id(1)).expect("removed");
    let before = packs(&directory);
    assert_eq!(store.compact().expect("nothing"), Compacted::default());
    assert_eq!(packs(&directory), before);
}

#[test]
fn a_damaged_chunk_is_not_moved_and_its_neighbours_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 3, 4, 5])).expect("saved");
    save(&store, 2, &Ram::of(&[1, 2])).expect("saved");
    store.remove(id(1)).expect("removed");
    flip(&packs(&directory)[0], 4096);
    let compacted = store.compact().expect("compacted");
    assert_eq!(compacted.moved_bytes, C);
    let damage = store.verify(id(2)).expect("it opens");
    assert!(
        matches!(damage[..], [Damage::Chunk { chunk: 0, .. }]),
        "{damage:?}"
    );
    assert_eq!(store.snapshot(id(2)).expect("it").packs().len(), 2);
    store.compact().expect("once more");
    assert_eq!(store.verify(id(2)).expect("it opens").len(), 1);
    assert_no_leftovers(&store);
}

/// A stream that stands still after so many bytes until it is told to go on.
struct Halting {
    bytes: Vec<u8>,
    at: usize,
    halt: usize,
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Read for Halting {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.halt {
            self.reached.send(()).expect("somebody waits");
            self.go_on.recv().expect("somebody says so");
            self.halt = usize::MAX;
        }
        let end = self.bytes.len().min(self.at + to.len());
        let end = if self.at < self.halt {
            end.min(self.halt)
        } else {
            end
        };
        let part = &self.bytes[self.at..end];
        to[..part.len()].copy_from_slice(part);
        self.at = end;
        Ok(part.len())
    }
}

#[test]
fn a_chunk_that_a_save_counts_on_outlives_its_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &Ram::of(&[1, 2, 3, 4, 5])).expect("saved");
    save(&store, 2, &Ram::of(&[5])).expect("saved");
    let ram = Ram::of(&[1, 7, 8]);
    let bytes = ram.stream();
    let (reached, is_reached) = mpsc::channel();
    let (say, go_on) = mpsc::channel();
    let halting = Halting {
        // Behind the first chunk of the only piece and into the second, so that the first is done.
        halt: bytes.len() - 12,
        bytes,
        at: 0,
        reached,
        go_on,
    };
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| {
            store.save(SaveSpec {
                id: id(3),
                meta: meta(),
                ram_bytes: 3 * C,
                ram: halting,
                state: b"registers",
                disks: &[],
            })
        });
        is_reached.recv().expect("it stands still");
        assert_eq!(
            store
                .state()
                .packs
                .values()
                .map(|pack| pack.pins)
                .sum::<u32>(),
            1
        );
        store.remove(id(1)).expect("removed");
        store.remove(id(2)).expect("removed");
        assert_eq!(store.compact().expect("compacted"), Compacted::default());
        say.send(()).expect("it waits");
        let saved = saving.join().expect("no panic").expect("saved");
        assert_eq!(saved.new_bytes, 2 * C);
    });
    assert_whole(&store, 3, &ram);
    assert_no_leftovers(&store);
    store.remove(id(3)).expect("removed");
    assert!(packs(&directory).is_empty());
}
