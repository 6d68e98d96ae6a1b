//! Many threads at once.

use super::*;

#[test]
fn saves_removals_and_compactions_at_once_leave_each_snapshot_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = store(&directory);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &opened;
            scope.spawn(move || {
                for round in 0..12_u8 {
                    let number = 1 + thread * 12 + round;
                    // Much in common with the other threads, something of its own.
                    let base = u32::from(round);
                    let ram = [base + 1, base + 2, base + 3, 1000 + u32::from(number)];
                    save(store, number, &Ram::of(&ram)).expect("saved");
                    assert_whole(store, number, &Ram::of(&ram));
                    if round % 3 != 0 {
                        store.remove(id(number)).expect("removed");
                    }
                    if round % 4 == thread {
                        store.compact().expect("compacted");
                    }
                    store.usage().expect("counted");
                }
            });
        }
    });
    assert_eq!(opened.list().len(), 16);
    assert_no_leftovers(&opened);
    assert!(opened.state().packs.values().all(|pack| pack.pins == 0));
    drop(opened);
    let opened = store(&directory);
    for thread in 0..4 {
        for round in [0, 3, 6, 9] {
            let number = 1 + thread * 12 + round;
            let base = u32::from(round);
            let ram = [base + 1, base + 2, base + 3, 1000 + u32::from(number)];
            assert_whole(&opened, number, &Ram::of(&ram));
        }
    }
    assert_no_leftovers(&opened);
}

/// A reader that waits at a barrier before it ends: both have read everything before either is published.
struct Meeting<'a>(Vec<u8>, usize, &'a std::sync::Barrier);

impl Read for Meeting<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let last = self.0.len() - 12;
        if self.1 == last {
            self.2.wait();
        }
        let end = if self.1 < last { last } else { self.0.len() };
        let part = &self.0[self.1..end];
        let part = &part[..part.len().min(to.len())];
        to[..part.len()].copy_from_slice(part);
        self.1 += part.len();
        Ok(part.len())
    }
}

#[test]
fn equal_chunks_of_saves_at_the_same_time_are_kept_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let barrier = std::sync::Barrier::new(2);
    let rams = [Ram::of(&[1, 2, 3, 4, 11]), Ram::of(&[4, 3, 2, 1, 12])];
    let new: u64 = std::thread::scope(|scope| {
        let saves = [(1, &rams[0]), (2, &rams[1])].map(|(number, ram)| {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                let spec = SaveSpec {
                    id: id(number),
                    meta: meta(),
                    ram_bytes: ram.0.len() as u64,
                    ram: Meeting(ram.stream(), 0, barrier),
                    state: b"registers",
                    disks: &[],
                };
                store.save(spec).expect("saved").new_bytes
            })
        });
        saves
            .into_iter()
            .map(|save| save.join().expect("no panic"))
            .sum()
    });
    // The last chunk of each is only given at the end of the stream, so it is its own in any case.
    assert_eq!(new, 6 * CHUNK as u64);
    let usage = store.usage().expect("counted");
    let each: Vec<_> = usage.snapshots.iter().map(|usage| usage.shared).collect();
    assert_eq!(each, [4 * CHUNK as u64; 2]);
    assert_whole(&store, 1, &rams[0]);
    assert_whole(&store, 2, &rams[1]);
    // What was written twice is a hole in one of the packs.
    use std::os::unix::fs::MetadataExt;
    let packs = packs(&directory);
    let space: u64 = packs
        .iter()
        .map(|path| path.metadata().expect("it").blocks() * 512)
        .sum();
    assert!(space < 8 * CHUNK as u64, "{space} bytes for six chunks");
}
