//! Snapshots in files of a test's own, without a store: one file of chunks, each at its place in RAM.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use brood_cell::protocol::{ChunkSource, Fetch};
use brood_cell::{Cell, CellError, RestoreParts, Saved};
use brood_snapshot::table::{Builder, Entry};
use brood_snapshot::{CHUNK, ChunkName, stream};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::Host;

/// How long a save or a fill may take; emulated hosts are slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// A saved machine.
pub struct Image {
    /// Everything but RAM.
    pub saved: Saved,
    /// RAM, each chunk at its offset; what is zero is a hole.
    pub chunks: File,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// The chunks that are not zero, with their names.
    names: Vec<(u32, ChunkName)>,
}

impl Image {
    /// Saves a checkpoint or a paused machine.
    ///
    /// # Panics
    /// It cannot be saved.
    pub fn of(cell: &mut Cell) -> Self {
        let ram_bytes = cell.stats().expect("stats").ram_bytes;
        let chunks = tempfile::tempfile().expect("a file for chunks");
        chunks.set_len(ram_bytes).expect("as long as RAM");
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let (saved, held) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| receive(ours, ram_bytes, &chunks));
            let saved = cell.save(theirs.into(), PATIENCE).expect("saved");
            (saved, reader.join().expect("the reader ends"))
        });
        let mut bytes = vec![0; CHUNK];
        let name = |chunk: u32| {
            let at = u64::from(chunk) * CHUNK as u64;
            chunks.read_exact_at(&mut bytes, at).expect("read");
            (chunk, ChunkName::of(&bytes))
        };
        let names = held.into_iter().map(name).collect();
        Self {
            saved,
            chunks,
            ram_bytes,
            names,
        }
    }

    /// The chunks that are not zero.
    pub fn held(&self) -> Vec<u32> {
        self.names.iter().map(|(chunk, _)| *chunk).collect()
    }

    /// The table as bytes, with chunks to be fetched first.
    ///
    /// # Panics
    /// A working set of chunks that do not exist.
    pub fn table(&self, working_set: &[u32]) -> Vec<u8> {
        let mut table = Builder::new(self.ram_bytes, 1).expect("whole chunks");
        for (chunk, name) in &self.names {
            let entry = Entry::Stored {
                file: 0,
                offset: u64::from(*chunk) * CHUNK as u64,
                name: *name,
                working_set: false,
            };
            table.set(*chunk, entry).expect("a chunk of RAM");
        }
        for chunk in working_set {
            table.working_set(*chunk).expect("a chunk of RAM");
        }
        table.finish()
    }

    /// Makes `cell` a machine of this image, held, with chunks from its file.
    ///
    /// # Errors
    /// As [`Cell::restore`].
    pub fn restore(
        &self,
        host: &Host,
        cell: &mut Cell,
        table: &File,
        fetch: Fetch,
    ) -> Result<(), CellError> {
        let parts = self.parts(host.kvm(), table, &self.chunks);
        cell.restore(&parts, ChunkSource::Files, fetch)
    }

    /// What a machine of this image is made of, with chunks from elsewhere.
    pub fn parts<'a>(
        &'a self,
        kvm: &'a File,
        table: &'a File,
        chunks: &'a impl AsFd,
    ) -> RestoreParts<'a> {
        RestoreParts {
            kvm: kvm.as_fd(),
            table: table.as_fd(),
            state: self.saved.state.as_fd(),
            disk: self.saved.disk.iter().map(AsFd::as_fd).collect(),
            chunks: vec![chunks.as_fd()],
        }
    }

    /// A machine of this image that has been told to run.
    ///
    /// # Panics
    /// It cannot be restored.
    pub fn run(&self, host: &Host, fetch: Fetch) -> Cell {
        let mut cell = host.spawn();
        let table = sealed(&self.table(&[]));
        self.restore(host, &mut cell, &table, fetch)
            .expect("restored");
        cell.resume().expect("runs");
        cell
    }
}

/// Bytes as a memfd that cannot change.
///
/// # Panics
/// The host has no memory.
pub fn sealed(bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"brood-table", flags).expect("memfd"));
    file.write_all(bytes).expect("written");
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK).expect("sealed");
    file
}

/// Writes RAM to its file; the chunks that any of it lies in.
fn receive(stream: UnixStream, ram_bytes: u64, chunks: &File) -> BTreeSet<u32> {
    let reader = stream::Reader::new(BufReader::new(stream), ram_bytes);
    let mut reader = reader.expect("whole chunks");
    let mut held = BTreeSet::new();
    while let Some(piece) = reader.next_piece().expect("a piece") {
        chunks
            .write_all_at(piece.bytes, piece.offset)
            .expect("written");
        let (first, end) = (piece.offset, piece.offset + piece.bytes.len() as u64);
        let number = |at: u64| (at / CHUNK as u64) as u32;
        held.extend(number(first)..=number(end - 1));
    }
    held
}
