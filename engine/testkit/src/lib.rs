//! What tests and benches share: start cells, wait for them, count what is left behind.
//!
//! Everything here starts real cells with the bare guest on the host's own `/dev/kvm`. A host without one is a
//! printed skip on a laptop and a failure where the environment says `CI`.

#![expect(clippy::panic, clippy::expect_used, reason = "a test kit fails tests")]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use brood_cell::protocol::{DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{become_reaper, Cell, CellProgram, LayerSource};

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
        let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
            Ok(kvm) => kvm,
            Err(error) if std::env::var_os("CI").is_some() => panic!("/dev/kvm: {error}"),
            Err(error) => {
                println!("skipped: /dev/kvm: {error}");
                return None;
            }
        };
        become_reaper().expect("subreaper");
        let program = CellProgram { path: program.as_ref().to_owned(), arguments: Vec::new() };
        Some(Self { kvm, program, layers: tempfile::tempdir().expect("tempdir") })
    }

    /// The open `/dev/kvm`.
    pub fn kvm(&self) -> &File {
        &self.kvm
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
        cell.boot(&spec, &GuestSpec::Bare, &[self.kvm.as_fd()]).expect("bare guest boots");
        cell.resume().expect("bare guest runs");
        cell
    }
}

/// How many processes have `pid` as their parent, zombies included.
pub fn children_of(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| parent_of(*child) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // man 5 proc_pid_stat: the name is in parentheses and may hold anything; the parent is the second field after.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
