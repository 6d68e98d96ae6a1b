//! Where benches start their cells: the release cell program beside this one, on the host's own KVM.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::Context;
use brood_cell::protocol::{DiskSpec, GuestSpec, MachineSpec};
use brood_cell::{Cell, CellProgram, LayerSource, become_reaper};

/// A host to measure.
pub(crate) struct Host {
    pub(crate) kvm: File,
    program: CellProgram,
    layers: tempfile::TempDir,
}

impl Host {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("cannot open /dev/kvm: run `brood doctor`")?;
        become_reaper()?;
        let path = std::env::current_exe()?.with_file_name("brood-cell");
        anyhow::ensure!(
            path.exists(),
            "{} is missing: start this with `cargo xtask bench fork`",
            path.display()
        );
        Ok(Self {
            kvm,
            program: CellProgram {
                path,
                arguments: Vec::new(),
            },
            layers: tempfile::tempdir()?,
        })
    }

    pub(crate) fn spawn(&self) -> anyhow::Result<Cell> {
        Ok(Cell::spawn(
            &self.program,
            LayerSource::new(self.layers.path()),
        )?)
    }

    /// A running bare guest with all devices present.
    pub(crate) fn bare(&self, mib: u64, vcpus: u32) -> anyhow::Result<Cell> {
        let mut cell = self.spawn()?;
        let spec = MachineSpec {
            ram_bytes: mib << 20,
            vcpus,
            disk: Some(DiskSpec::Blank { bytes: 64 << 20 }),
        };
        cell.boot(&spec, &GuestSpec::Bare, &[self.kvm.as_fd()])?;
        cell.resume()?;
        Ok(cell)
    }
}
