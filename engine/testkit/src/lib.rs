//! What tests and benches share: start cells, wait for them, count what is left behind.
//!
//! Everything here starts real cells with the bare guest on the host's own `/dev/kvm`. A host without one is a
//! printed skip on a laptop and a failure where the environment says `CI`.

#![expect(clippy::panic, clippy::expect_used, reason = "a test kit fails tests")]

mod limit;
mod observe;
mod random;
mod snapshot;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use brood_cell::protocol::{DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{Cell, CellProgram, LayerSource, become_reaper};

pub use limit::TaskLimit;
pub use observe::{
    PrivateMemory, children_of, descriptors, is_alive, private_memory, settle, state_of, tasks_of,
    threads_of,
};
pub use random::Random;
pub use snapshot::{Image, sealed};

/// A host that tests may start cells on.
pub struct Host {
    kvm: File,
    program: CellProgram,
    layers: tempfile::TempDir,
}

impl Host {
    /// This host, or none (with a printed reason) where it has no KVM and nobody insists.
    ///
    /// # Panics
    /// In CI without KVM.
    pub fn open(program: impl AsRef<Path>) -> Option<Self> {
        Self::of(CellProgram {
            path: program.as_ref().to_owned(),
            arguments: Vec::new(),
        })
    }

    /// Like [`Host::open`], for a program that is a cell only with arguments.
    ///
    /// # Panics
    /// In CI without KVM.
    pub fn of(program: CellProgram) -> Option<Self> {
        let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
            Ok(kvm) => kvm,
            Err(error) if std::env::var_os("CI").is_some() => panic!("/dev/kvm: {error}"),
            Err(error) => {
                println!("skipped: /dev/kvm: {error}");
                return None;
            }
        };
        become_reaper().expect("subreaper");
        Some(Self {
            kvm,
            program,
            layers: scratch(),
        })
    }

    /// The open `/dev/kvm`.
    pub fn kvm(&self) -> &File {
        &self.kvm
    }

    /// The directory disk layers are made in; they have no names, so it stays empty.
    pub fn layers(&self) -> &Path {
        self.layers.path()
    }

    /// A cell without a machine.
    pub fn spawn(&self) -> Cell {
        Cell::spawn(&self.program, LayerSource::new(self.layers.path())).expect("cell starts")
    }

    /// A running bare guest with every device.
    pub fn bare(&self, mib: u64, vcpus: u32) -> Cell {
        let mut cell = self.spawn();
        let spec = MachineSpec {
            ram_bytes: mib << 20,
            vcpus,
            disk: Some(DiskSpec::Blank { bytes: 64 << 20 }),
        };
        cell.boot(&spec, &GuestSpec::Bare, &[self.kvm.as_fd()])
            .expect("bare guest boots");
        cell.resume().expect("bare guest runs");
        cell
    }
}

/// A directory of this test's own, on a file system that has files without names.
///
/// # Panics
/// No usual place for temporary files can hold one.
pub fn scratch() -> tempfile::TempDir {
    let places = [
        std::env::temp_dir(),
        PathBuf::from("/var/tmp"),
        PathBuf::from("/dev/shm"),
    ];
    let fits = |place: &PathBuf| {
        tempfile::tempdir_in(place)
            .ok()
            .filter(|made| has_unnamed(made.path()))
    };
    places
        .iter()
        .find_map(fits)
        .expect("a temporary directory with O_TMPFILE (man 2 open)")
}

/// Whether files without names can be made in `directory`; overlay and 9p file systems often refuse them.
fn has_unnamed(directory: &Path) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    open(
        directory,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR,
    )
    .is_ok()
}
