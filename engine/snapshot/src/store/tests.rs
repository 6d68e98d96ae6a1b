//! The store on a real disk: whole, damaged, full, killed, shared.

mod bench;
mod compact;
mod damage;
mod fault;
mod kept;
mod kill;
mod portable;
mod save;
mod together;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use brood_units::SnapshotId;
use tempfile::TempDir;

use super::*;
use crate::chunk::{CHUNK, PAGE};
use crate::files::Gate;
use crate::manifest::Meta;
use crate::stream::Writer;
use crate::table::{Entry, Table};

/// A number as an id.
fn id(number: u8) -> SnapshotId {
    SnapshotId::from_bytes([number; 16])
}

fn store(directory: &TempDir) -> SnapshotStore {
    SnapshotStore::open(directory.path()).expect("a store")
}

fn gated(directory: &Path, gate: Gate) -> Result<SnapshotStore, OpenError> {
    SnapshotStore::open_with(directory, Files { gate: Some(gate) })
}

/// RAM in chunks, each all zero or the pseudo-random bytes of its number.
#[derive(Clone)]
struct Ram(Vec<u8>);

impl Ram {
    fn of(chunks: &[u32]) -> Self {
        let mut ram = vec![0; chunks.len() * CHUNK];
        for (chunk, number) in ram.chunks_mut(CHUNK).zip(chunks) {
            if *number != 0 {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&number.to_le_bytes());
                hasher.finalize_xof().fill(chunk);
            }
        }
        Self(ram)
    }

    /// What a frozen cell would write.
    fn stream(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), self.0.len() as u64);
        writer.write(0, &self.0).expect("written");
        writer.finish().expect("ended")
    }
}

fn meta() -> Meta {
    Meta {
        engine: "0.1.0".into(),
        vcpus: 1,
        ..Meta::default()
    }
}

fn save(store: &SnapshotStore, number: u8, ram: &Ram) -> Result<Saved, SaveError> {
    save_with(store, number, ram, &[])
}

fn save_with(
    store: &SnapshotStore,
    number: u8,
    ram: &Ram,
    disks: &[DiskSource<'_>],
) -> Result<Saved, SaveError> {
    store.save(SaveSpec {
        id: id(number),
        meta: meta(),
        ram_bytes: ram.0.len() as u64,
        ram: &ram.stream()[..],
        state: b"registers",
        disks,
    })
}

/// RAM as a cell restores it, of nothing but the table and the descriptors.
fn restore(plan: Plan) -> Vec<u8> {
    let mut table = File::from(plan.table);
    let mut bytes = vec![0; usize::try_from(table.metadata().expect("length").len()).expect("few")];
    table.read_exact_at(&mut bytes, 0).expect("the table");
    table.set_len(0).expect_err("sealed");
    assert_eq!(table.read(&mut []).expect("readable"), 0);
    let table = Table::parse(bytes).expect("a table");
    assert_eq!(table.files() as usize, plan.packs.len());
    let packs: Vec<_> = plan.packs.into_iter().map(File::from).collect();
    let mut ram = vec![0; usize::try_from(table.ram_bytes()).expect("few")];
    for (entry, chunk) in table.entries().zip(ram.chunks_mut(CHUNK)) {
        if let Entry::Stored {
            file, offset, name, ..
        } = entry
        {
            packs[file as usize]
                .read_exact_at(chunk, offset)
                .expect("a chunk");
            assert_eq!(crate::ChunkName::of(chunk), name);
        }
    }
    ram
}

fn restored(store: &SnapshotStore, number: u8) -> Vec<u8> {
    let snapshot = store.snapshot(id(number)).expect("a snapshot");
    assert_eq!(snapshot.state().expect("state"), b"registers");
    restore(store.plan(&snapshot).expect("a plan"))
}

fn assert_whole(store: &SnapshotStore, number: u8, ram: &Ram) {
    let damage = store.verify(id(number)).expect("it opens");
    assert!(damage.is_empty(), "{damage:?}");
    assert!(restored(store, number) == ram.0, "memory of {number}");
}

/// All files below a directory but the lock, by path within it.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(path) = rest.pop() {
        for entry in fs::read_dir(path).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                rest.push(path);
            } else {
                found.insert(path.strip_prefix(directory).expect("below").to_owned());
            }
        }
    }
    found.remove(Path::new("lock"));
    found
}

/// Nothing is there but what the snapshots of the store name.
fn assert_no_leftovers(store: &SnapshotStore) {
    let mut expected = BTreeSet::new();
    for id in store.list() {
        let snapshot = store.snapshot(id).expect("a snapshot");
        let directory = PathBuf::from("snapshots").join(id.to_string());
        expected.insert(directory.join(MANIFEST));
        let names = snapshot.files().map(|(name, ..)| name);
        expected.extend(names.map(|name| directory.join(name)));
        let packs = snapshot.packs().iter().map(PackId::file_name);
        expected.extend(packs.map(|name| Path::new("packs").join(name)));
    }
    assert_eq!(files(&store.directory), expected);
    let incoming = fs::read_dir(store.incoming_path("")).expect("incoming");
    assert_eq!(incoming.count(), 0, "directories are left as well");
}

fn packs(directory: &TempDir) -> Vec<PathBuf> {
    let packs = entries(&directory.path().join("packs")).expect("packs");
    packs.into_iter().map(|(path, _)| path).collect()
}

/// Turns one bit of a file around.
fn flip(path: &Path, at: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("flipped");
}
