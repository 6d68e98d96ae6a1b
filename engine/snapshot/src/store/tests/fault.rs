//! Every step that changes the disk fails once, and everything is as it was.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::files::Step;

/// Fails the step of number `at`, and all after it if `lasting`, once it is armed.
#[derive(Default)]
struct Failing {
    armed: AtomicBool,
    passed: AtomicU64,
    at: u64,
    lasting: bool,
}

impl Failing {
    fn at(at: u64, lasting: bool) -> Arc<Self> {
        Arc::new(Self {
            at,
            lasting,
            ..Self::default()
        })
    }

    fn gate(self: &Arc<Self>) -> Gate {
        let this = Arc::clone(self);
        Box::new(move |_, _| {
            if !this.armed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let number = this.passed.fetch_add(1, Ordering::Relaxed) + 1;
            let fails = number == this.at || this.lasting && number > this.at;
            if fails {
                Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::NOSPC.raw_os_error(),
                ))
            } else {
                Ok(())
            }
        })
    }
}

fn base() -> Ram {
    Ram::of(&[1, 2, 3, 4, 5])
}

fn next() -> Ram {
    Ram::of(&[1, 0, 7, 8, 5])
}

/// A store with snapshot 1, and one with chunks of it that was removed: something to save, remove and compact.
fn prepared() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    save(&store, 1, &base()).expect("saved");
    save(&store, 9, &Ram::of(&[1, 21, 22, 23, 24])).expect("saved");
    save(&store, 8, &Ram::of(&[21])).expect("saved");
    store.remove(id(9)).expect("removed");
    directory
}

/// Does `action` with each of its steps failing, once by itself and once with all that follow, until none is left to fail.
/// `check` is asked of the store that goes on, and of one that is opened anew.
fn each_step(
    action: impl Fn(&SnapshotStore) -> Result<(), String>,
    check: impl Fn(&SnapshotStore, Result<(), &str>),
) {
    for lasting in [false, true] {
        let mut failed = 0;
        for at in 1.. {
            let directory = prepared();
            let failing = Failing::at(at, lasting);
            let opened = gated(directory.path(), failing.gate()).expect("a store");
            failing.armed.store(true, Ordering::Relaxed);
            let result = action(&opened);
            failing.armed.store(false, Ordering::Relaxed);
            let hit = failing.passed.load(Ordering::Relaxed) >= at;
            if !hit {
                result.expect("nothing failed");
                break;
            }
            failed += 1;
            assert_whole(&opened, 1, &base());
            assert_whole(&opened, 8, &Ram::of(&[21]));
            if !lasting {
                check(&opened, result.as_ref().copied().map_err(String::as_str));
            }
            drop(opened);
            let opened = store(&directory);
            assert_whole(&opened, 1, &base());
            assert_whole(&opened, 8, &Ram::of(&[21]));
            for snapshot in opened.list() {
                let damage = opened.verify(snapshot).expect("it opens");
                assert!(damage.is_empty(), "step {at}: {damage:?}");
            }
            assert_no_leftovers(&opened);
        }
        println!("{failed} steps failed, lasting: {lasting}");
        assert!(failed > 3, "{failed}");
    }
}

#[test]
fn a_disk_that_is_full_at_any_step_of_a_save_leaves_no_trace_of_it() {
    let disk = tempfile::tempfile().expect("a file");
    disk.write_all_at(&[5; 70_000], 0).expect("written");
    each_step(
        |store| {
            let disks = [DiskSource {
                label: "layer",
                file: &disk,
            }];
            let saved = save_with(store, 2, &next(), &disks);
            saved
                .map(|_| ())
                .map_err(|error| super::super::chain(&error))
        },
        |store, result| match result {
            Err(said) => {
                assert!(
                    said.contains("free space on the disk of the snapshots"),
                    "{said}"
                );
                assert_eq!(store.list(), [id(1), id(8)]);
                assert_no_leftovers(store);
                save(store, 2, &next()).expect("with space it goes on");
                assert_whole(store, 2, &next());
            }
            // Something that was only to be tidied up.
            Ok(()) => assert_whole(store, 2, &next()),
        },
    );
}

#[test]
fn a_removal_that_fails_at_any_step_leaves_a_whole_snapshot_or_none() {
    each_step(
        |store| {
            save(store, 3, &next()).map_err(|error| super::super::chain(&error))?;
            let removed = store.remove(id(3));
            removed.map_err(|error| super::super::chain(&error))
        },
        |store, _| {
            if store.list().contains(&id(3)) {
                assert_whole(store, 3, &next());
                store.remove(id(3)).expect("with space it goes");
            }
        },
    );
}

#[test]
fn a_compaction_that_fails_at_any_step_leaves_every_snapshot_whole() {
    each_step(
        |store| {
            let compacted = store.compact();
            compacted
                .map(|_| ())
                .map_err(|error| super::super::chain(&error))
        },
        |store, _| {
            store.compact().expect("with space it goes on");
            assert_no_leftovers(store);
            let usage = store.usage().expect("counted");
            assert_eq!(usage.unused, 0);
        },
    );
}

#[test]
fn a_working_set_that_cannot_be_written_leaves_the_one_before() {
    each_step(
        |store| {
            let written = store.record_working_set(id(1), &[2, 1]);
            written.map_err(|error| super::super::chain(&error))
        },
        |store, _| {
            let snapshot = store.snapshot(id(1)).expect("a snapshot");
            let order: Vec<_> = snapshot.table().working_set().collect();
            assert!(order.is_empty() || order == [2, 1], "{order:?}");
        },
    );
}

/// What a loss of power leaves cannot be tried here; the order that makes it harmless can be looked at.
#[test]
fn every_file_is_durable_before_it_has_its_name_and_every_name_before_the_answer() {
    let directory = prepared();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&steps);
    let gate: Gate = Box::new(move |step, path| {
        log.lock().expect("the log").push((step, path.to_owned()));
        Ok(())
    });
    let store = gated(directory.path(), gate).expect("a store");
    let look = |what: &str, action: &dyn Fn()| {
        steps.lock().expect("the log").clear();
        action();
        let steps = steps.lock().expect("the log").clone();
        assert_ordered(what, &steps);
    };
    look("save", &|| {
        save(&store, 2, &next()).expect("saved");
    });
    look("working set", &|| {
        store.record_working_set(id(2), &[2]).expect("written");
    });
    look("compact", &|| {
        assert_ne!(store.compact().expect("compacted"), Compacted::default());
    });
    look("remove", &|| store.remove(id(2)).expect("removed"));
}

/// What a directory has to be synced for.
#[derive(Default)]
struct Unsynced {
    files: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
    new: BTreeSet<PathBuf>,
}

fn assert_ordered(what: &str, steps: &[(Step, PathBuf)]) {
    let mut unsynced = Unsynced::default();
    let mut renames = 0;
    for (step, path) in steps {
        let directory = path.parent().expect("a directory").to_owned();
        match step {
            Step::Create => {
                unsynced.new.insert(directory);
            }
            Step::Write => {
                unsynced.files.insert(path.clone());
            }
            Step::Sync => {
                unsynced.files.remove(path);
            }
            Step::SyncDirectory => {
                unsynced.names.remove(path);
                unsynced.new.remove(path);
            }
            Step::Rename => {
                let files = &unsynced.files;
                assert!(files.is_empty(), "{what}: {files:?} before {path:?}");
                let pack = unsynced.names.iter().find(|name| name.ends_with("packs"));
                assert_eq!(pack, None, "{what}: before {path:?}");
                if directory.ends_with("snapshots") {
                    let mut new = unsynced.new.iter();
                    let inside = new.find(|new| !new.ends_with("incoming"));
                    assert_eq!(inside, None, "{what}: before {path:?}");
                }
                // The name of something that is to be deleted need not last; that it is gone from where it was must.
                if directory.ends_with("incoming") {
                    unsynced.names.insert(directory.with_file_name("snapshots"));
                } else {
                    unsynced.names.insert(directory);
                }
                renames += 1;
            }
            Step::Remove => {
                unsynced.files.remove(path);
                let names = &unsynced.names;
                let there =
                    directory.ends_with("packs") || path.to_string_lossy().contains("removed-");
                assert!(
                    !there || names.is_empty(),
                    "{what}: {names:?} before {path:?}"
                );
            }
            Step::CreateDirectory => {}
        }
    }
    assert!(unsynced.names.is_empty(), "{what}: {:?}", unsynced.names);
    assert!(renames > 0, "{what}");
}
