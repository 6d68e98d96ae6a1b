//! Where machines are started: the host's KVM, the cell program, a directory for disk layers.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use brood_cell::{Cell, CellError, CellProgram, LayerSource, become_reaper};

use crate::files::GuestFiles;
use crate::keeper::Keeper;
use crate::snapshot::{Parts, SnapshotError, Snapshots};

/// A host ready to start cells.
pub struct Host {
    /// The open `/dev/kvm`.
    pub kvm: File,
    /// What Linux guests start from, where there is something.
    files: Option<GuestFiles>,
    program: CellProgram,
    directory: tempfile::TempDir,
    snapshots: Snapshots,
    keeper: Option<Keeper>,
}

impl Host {
    /// Opens `/dev/kvm`; cells run `program` with the argument `cell`. Layers and sockets live in a directory made in
    /// `parent`. Without `files`, made by `brood prepare`, only bare guests can be started.
    ///
    /// # Errors
    /// No KVM, no guest files where some are named, or no directory for layers.
    pub fn open(program: &Path, files: Option<&Path>, parent: &Path) -> anyhow::Result<Self> {
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("cannot open /dev/kvm: run `brood doctor`")?;
        become_reaper()?;
        let directory = tempfile::Builder::new()
            .prefix("brood-")
            .tempdir_in(parent)?;
        let snapshots = Snapshots::open(&directory.path().join("snapshots"))?;
        Ok(Self {
            kvm,
            files: files.map(GuestFiles::open).transpose()?,
            program: CellProgram {
                path: program.to_owned(),
                arguments: vec!["cell".to_owned()],
            },
            directory,
            snapshots,
            keeper: None,
        })
    }

    /// Has snapshots kept in `directory` from now on, which outlives this engine. Otherwise they go with it.
    ///
    /// # Errors
    /// It cannot be made, read or written.
    pub fn keeping_snapshots(mut self, directory: &Path) -> anyhow::Result<Self> {
        self.snapshots = Snapshots::open(directory)?;
        Ok(self)
    }

    /// Where snapshots are kept.
    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// A cell with a machine of a snapshot, which has not run yet.
    pub(crate) fn restore(&self, parts: &Parts) -> Result<Cell, SnapshotError> {
        let mut cell = self.cell()?;
        parts.restore(self.kvm.as_fd(), &mut cell)?;
        Ok(cell)
    }

    /// Has a supervisor keep the cells from now on, so that they outlive this engine. Its socket lives in `state`.
    ///
    /// # Errors
    /// It cannot be started, or another engine is connected to it.
    pub fn supervised(mut self, state: &Path) -> anyhow::Result<Self> {
        self.keeper = Some(Keeper::connect(state, &self.program.path)?);
        Ok(self)
    }

    /// What Linux guests start from.
    ///
    /// # Errors
    /// None were named when this was opened.
    pub fn files(&self) -> anyhow::Result<&GuestFiles> {
        self.files.as_ref().context(
            "no guest files: Linux machines start from a directory that `brood prepare` makes",
        )
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
        Ok(self.cell()?)
    }

    pub(crate) fn cell(&self) -> Result<Cell, CellError> {
        match &self.keeper {
            Some(keeper) => keeper.start(&self.program, self.layers()),
            None => Cell::spawn(&self.program, self.layers()),
        }
    }

    pub(crate) fn layers(&self) -> LayerSource {
        LayerSource::new(self.directory.path())
    }

    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }
}
