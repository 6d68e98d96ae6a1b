//! Where machines are started: the host's KVM, the cell program, a directory for disk layers.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use brood_cell::{Cell, CellProgram, LayerSource, become_reaper};

use crate::files::GuestFiles;

/// A host ready to start cells.
pub struct Host {
    /// The open `/dev/kvm`.
    pub kvm: File,
    /// What Linux guests start from.
    pub files: GuestFiles,
    program: CellProgram,
    directory: tempfile::TempDir,
}

impl Host {
    /// Opens `/dev/kvm` and the guest files; cells run `program` with the argument `cell`.
    ///
    /// # Errors
    /// No KVM, no guest files, or no directory for layers.
    pub fn open(program: &Path, files: &Path) -> anyhow::Result<Self> {
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("cannot open /dev/kvm: run `brood doctor`")?;
        become_reaper()?;
        Ok(Self {
            kvm,
            files: GuestFiles::open(files)?,
            program: CellProgram {
                path: program.to_owned(),
                arguments: vec!["cell".to_owned()],
            },
            directory: tempfile::Builder::new().prefix("brood-").tempdir()?,
        })
    }

    /// The directory that layers and sockets live in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A cell without a machine.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Cell> {
        Ok(Cell::spawn(
            &self.program,
            LayerSource::new(self.directory.path()),
        )?)
    }
}
