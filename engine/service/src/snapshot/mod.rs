//! Where snapshots are kept, and the way of a machine into them and out of them.
//!
//! ```text
//!  cell ─ RAM ─► socket ─ this thread ─┐
//!       ─ state, disk ────────────────┴─► store of the tenant ─ table, packs, state, disk ─► fresh cell
//! ```
//!
//! Invariant: each tenant has a store of its own. A cell is given descriptors of whole packs, and what a save writes tells
//! what was there before: neither may show one tenant anything of another.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brood_cell::protocol::{ChunkSource, Fetch};
use brood_cell::{Cell, RestoreParts};
use brood_snapshot::host::{Cpu, Host, KvmFacts};
use brood_snapshot::manifest::Meta;
use brood_snapshot::{Portable, RemoveError, Rest, SaveError, SnapshotStore, StreamSpec};
use brood_units::{MachineId, SnapshotId, Timestamp};

pub use error::SnapshotError;

/// How long a cell may take to write its memory out.
const SAVE_LIMIT: Duration = Duration::from_mins(30);
/// Under which label a snapshot has what the engine says of it.
const ABOUT: &str = "brood";
/// What disk files are called.
const DISK: &str = "disk";

/// All stores.
pub struct Snapshots {
    directory: PathBuf,
    stores: Mutex<BTreeMap<String, Arc<SnapshotStore>>>,
    host: Host,
}

/// Whose snapshot, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) id: MachineId,
}

/// What a machine is restored of. It stays good if the snapshot is removed.
pub(crate) struct Parts {
    table: OwnedFd,
    packs: Vec<OwnedFd>,
    state: OwnedFd,
    disk: Vec<File>,
}

/// A snapshot that is being imported: what it says of itself is here, the rest is still to come.
pub(crate) struct Incoming<R>(Portable<R>);

impl Key<'_> {
    fn snapshot(self) -> SnapshotId {
        SnapshotId::from_bytes(*self.id.as_bytes())
    }
}

impl Snapshots {
    /// Over a directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            stores: Mutex::default(),
            host: this_host(),
        })
    }

    /// Has a frozen point, or a machine that stands still, save itself, with what the engine says of it; what it takes on
    /// disk by itself, bytes. Everything is synced then.
    ///
    /// # Errors
    /// The cell does not write itself out, or there is no room; nothing is left of it.
    pub(crate) fn save(
        &self,
        key: Key<'_>,
        cell: &mut Cell,
        vcpus: u32,
        about: String,
    ) -> Result<u64, SnapshotError> {
        let store = self.store(key.tenant)?;
        let ram_bytes = cell.stats()?.ram_bytes;
        let (ours, theirs) = UnixStream::pair()?;
        let spec = StreamSpec {
            id: key.snapshot(),
            meta: Meta {
                engine: env!("CARGO_PKG_VERSION").to_owned(),
                taken: taken(),
                vcpus,
                state_version: 1,
                host: self.host.clone(),
                parent: None,
                labels: BTreeMap::from([(ABOUT.to_owned(), about)]),
            },
            ram_bytes,
            ram: ours,
        };
        std::thread::scope(|scope| {
            let mut saving = Some(scope.spawn(move || cell.save(theirs.into(), SAVE_LIMIT)));
            let mut refused = None;
            let saved = store.save_as_it_comes(spec, || {
                let ended = saving.take().map(|thread| thread.join());
                match ended {
                    Some(Ok(Ok(saved))) => rest(saved),
                    Some(Ok(Err(error))) => {
                        let told = io::Error::other(error.to_string());
                        refused = Some(SnapshotError::from(error));
                        Err(told)
                    }
                    _ => Err(io::Error::other("the thread that asked the cell broke off")),
                }
            });
            // A cell that gave up says more than the memory that did not come whole.
            let refused = refused.or_else(|| match (&saved, saving.take()?.join()) {
                (Err(SaveError::Ram(_)), Ok(Err(error))) => Some(error.into()),
                _ => None,
            });
            match (saved, refused) {
                (Ok(saved), _) => Ok(saved.nonzero_bytes.saturating_add(saved.other_bytes)),
                (Err(_), Some(refused)) => Err(refused),
                (Err(error), None) => Err(error.into()),
            }
        })
    }

    /// What machines are restored of, if this host can run them.
    ///
    /// # Errors
    /// Files are missing or damaged, or the snapshot does not fit.
    pub(crate) fn parts(&self, key: Key<'_>) -> Result<Parts, SnapshotError> {
        let store = self.store(key.tenant)?;
        let snapshot = store.snapshot(key.snapshot())?;
        let lacks = snapshot.lacking_on(&self.host);
        if !lacks.is_empty() {
            let lacks: Vec<_> = lacks.iter().map(ToString::to_string).collect();
            return Err(SnapshotError::Unfit(lacks.join("; ")));
        }
        let disks = 0..snapshot.record().disks.len();
        let disk = disks
            .map(|index| snapshot.disk(index))
            .collect::<Result<_, _>>()?;
        let state = in_memory(&snapshot.state()?)?;
        let plan = store.plan(&snapshot)?;
        Ok(Parts {
            table: plan.table,
            packs: plan.packs,
            state,
            disk,
        })
    }

    /// Removes the files of a snapshot; one that has none is as good as removed. Space that it shared with others is given
    /// back on a thread of its own.
    ///
    /// # Errors
    /// They cannot be removed.
    pub(crate) fn remove(&self, key: Key<'_>) -> Result<(), SnapshotError> {
        let store = self.store(key.tenant)?;
        match store.remove(key.snapshot()) {
            Ok(()) => {}
            Err(RemoveError::Absent(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let compacting = std::thread::Builder::new().name("compact".to_owned());
        let compacting = compacting.spawn(move || match store.compact() {
            Ok(done) if done.packs > 0 => {
                tracing::debug!(
                    packs = done.packs,
                    moved = done.moved_bytes,
                    "packs were put together"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = %error::chain(&error),
                "space of snapshots is not given back"
            ),
        });
        compacting.map(|_| ()).map_err(SnapshotError::from)
    }

    /// Writes a snapshot out, each part checked on its way.
    ///
    /// # Errors
    /// It is damaged, or the other end does not take it.
    pub(crate) fn export(&self, key: Key<'_>, to: &mut impl Write) -> Result<(), SnapshotError> {
        let store = self.store(key.tenant)?;
        store.export(key.snapshot(), to)?;
        Ok(())
    }

    /// Takes what is still to come of an import; what it takes on disk by itself, bytes. Everything is checked and synced then.
    ///
    /// # Errors
    /// It is damaged, breaks off, or there is no room; nothing is left of it.
    pub(crate) fn import(
        &self,
        key: Key<'_>,
        incoming: Incoming<impl Read>,
    ) -> Result<u64, SnapshotError> {
        let store = self.store(key.tenant)?;
        let saved = store.import(incoming.0, key.snapshot())?;
        Ok(saved.nonzero_bytes.saturating_add(saved.other_bytes))
    }

    /// Removes all that is not known; what that was. For the engine's start, when nobody saves anything.
    ///
    /// # Errors
    /// The directory cannot be read, or a store not opened.
    pub(crate) fn sweep(
        &self,
        known: &BTreeSet<(String, MachineId)>,
    ) -> Result<Vec<MachineId>, SnapshotError> {
        let mut swept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            // Other names are nobody's business here.
            let Some(tenant) = name.to_str().and_then(tenant_of) else {
                continue;
            };
            let store = self.store(&tenant)?;
            let unreadable = store.unreadable();
            for (id, why) in &unreadable {
                tracing::error!(%tenant, snapshot = %id, %why, "a snapshot is damaged: remove it, nothing can be made of it");
            }
            let all = store.list().into_iter();
            for id in all.chain(unreadable.into_iter().map(|(id, _)| id)) {
                let id = MachineId::from_bytes(*id.as_bytes());
                let key = (tenant.clone(), id);
                if !known.contains(&key) {
                    let (tenant, id) = (key.0.as_str(), key.1);
                    self.remove(Key { tenant, id })?;
                    swept.push(id);
                }
            }
        }
        Ok(swept)
    }

    /// What all of them take on disk, bytes; none where it cannot be looked at.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        let mut open = vec![self.directory.clone()];
        let mut bytes = 0;
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).ok()? {
                // It may be gone since.
                let Some((path, about)) = entry
                    .ok()
                    .and_then(|entry| Some((entry.path(), entry.metadata().ok()?)))
                else {
                    continue;
                };
                match about.is_dir() {
                    true => open.push(path),
                    false => bytes += about.blocks() * 512,
                }
            }
        }
        Some(bytes)
    }

    /// The store of a tenant; the first look opens it.
    fn store(&self, tenant: &str) -> Result<Arc<SnapshotStore>, SnapshotError> {
        let mut stores = self.stores();
        if let Some(store) = stores.get(tenant) {
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(SnapshotStore::open(
            &self.directory.join(directory_of(tenant)),
        )?);
        stores.insert(tenant.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SnapshotStore>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    /// Makes a fresh cell a machine that is held before its next instruction, and reads its memory as it touches it.
    ///
    /// # Errors
    /// The cell refuses.
    pub(crate) fn restore(
        &self,
        kvm: BorrowedFd<'_>,
        cell: &mut Cell,
    ) -> Result<(), SnapshotError> {
        let parts = RestoreParts {
            kvm,
            table: self.table.as_fd(),
            state: self.state.as_fd(),
            disk: self.disk.iter().map(AsFd::as_fd).collect(),
            chunks: self.packs.iter().map(AsFd::as_fd).collect(),
        };
        cell.restore(&parts, ChunkSource::Files, Fetch::Ahead)?;
        Ok(())
    }
}

impl<R: Read> Incoming<R> {
    /// Reads the beginning of an export, of a machine that this host has memory for: what is read of it takes memory that
    /// grows with its own.
    ///
    /// # Errors
    /// It is none that this engine reads, or of a larger machine.
    pub(crate) fn begin(from: R) -> Result<Self, SnapshotError> {
        let host = rustix::system::sysinfo();
        // man 2 sysinfo: sizes are multiples of mem_unit.
        let most = host.totalram.saturating_mul(host.mem_unit.into());
        Ok(Self(Portable::begin_within(from, most)?))
    }

    /// What the engine that took it said of it.
    pub(crate) fn about(&self) -> &str {
        let labels = &self.0.record().meta.labels;
        labels.get(ABOUT).map_or("", String::as_str)
    }

    /// RAM of its machine, MiB.
    pub(crate) fn ram_mib(&self) -> u64 {
        self.0.ram_bytes() >> 20
    }

    /// vCPUs of its machine, as it says.
    pub(crate) fn vcpus(&self) -> u32 {
        self.0.record().meta.vcpus
    }
}

/// What a cell gave out besides its memory.
fn rest(saved: brood_cell::Saved) -> io::Result<Rest> {
    let mut state = Vec::new();
    let mut file = File::from(saved.state);
    io::Seek::rewind(&mut file)?;
    // The store refuses more than a state has; a cell may lie.
    file.take(brood_snapshot::manifest::STATE_MAX + 1)
        .read_to_end(&mut state)?;
    let disks = saved
        .disk
        .into_iter()
        .map(|fd| (DISK.to_owned(), File::from(fd)));
    Ok(Rest {
        state,
        disks: disks.collect(),
    })
}

/// Bytes as a file that cells can read.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"brood-state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

fn taken() -> Timestamp {
    crate::engine::now()
}

/// What this host offers. The TSC's frequency and KVM's own lists are the cell's to know, which refuses a state that it cannot
/// load.
fn this_host() -> Host {
    Host {
        cpu: Cpu::of_this_host(),
        kvm: KvmFacts {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            ..KvmFacts::default()
        },
    }
}

/// The name of a tenant's directory: its own where that can be one, or its bytes.
fn directory_of(tenant: &str) -> String {
    match crate::engine::check_name("tenant", tenant) {
        Ok(()) => tenant.to_owned(),
        Err(_) => {
            let digits = tenant.bytes().map(|byte| format!("{byte:02x}"));
            std::iter::once("~".to_owned()).chain(digits).collect()
        }
    }
}

/// Whose directory has this name.
fn tenant_of(name: &str) -> Option<String> {
    let Some(digits) = name.strip_prefix('~') else {
        return (directory_of(name) == name).then(|| name.to_owned());
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let tenant = String::from_utf8(bytes.filter(|_| rest.is_empty())?).ok()?;
    (directory_of(&tenant) == name).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_a_directory_of_its_own_below_that_of_all() {
        let tenants = [
            "acme", "a.b-c", "..", ".", "", "a/b", "A", "~41", "ü", "a\0",
        ];
        let mut names: Vec<_> = tenants.map(directory_of).into();
        for (tenant, name) in tenants.iter().zip(&names) {
            assert_eq!(tenant_of(name).as_deref(), Some(*tenant));
            let path = Path::new(name);
            assert_eq!(path.components().count(), 1, "{name}");
            assert!(path.file_name().is_some_and(|file| file == path), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), tenants.len());
        for other in ["~6", "~zz", "~61636d65", "A", ".."] {
            assert_eq!(tenant_of(other), None, "{other}");
        }
    }
}
