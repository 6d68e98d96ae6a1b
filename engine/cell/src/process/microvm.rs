//! One microVM as values: RAM, machine, vCPUs, devices. fork(2) copies it; nothing in it points outside the process.
//!
//! ```text
//!  Running ◄─resume─► Paused        machine: Some
//!     │ fork(2)
//!     ▼
//!  Frozen (the point, a checkpoint): machine: None ──birth──► Paused (a daughter) ──resume──► Running
//! ```

use brood_vmm::{ClockPolicy, GuestRam, KvmHost, Machine, MachineState, Vcpus};

use super::refusal::{because, refuse};
use super::restore::Filling;
use super::shared::Shared;
use brood_units::MachineId;

use crate::protocol::{CellState, MachineSpec, Motion, OrphanPolicy, Refusal};
use brood_control::Children;

/// State read but not yet running again, and what its clocks do when it does.
pub(super) struct Standing {
    pub(super) state: MachineState,
    pub(super) clock: ClockPolicy,
}

/// One microVM.
pub(super) struct Microvm {
    pub(super) spec: MachineSpec,
    // The machine comes before RAM: fields drop in order, and KVM must let go of the memory first.
    pub(super) machine: Option<Machine>,
    pub(super) vcpus: Vcpus,
    pub(super) ram: GuestRam,
    pub(super) host: KvmHost,
    pub(super) shared: &'static Shared,
    pub(super) standing: Option<Standing>,
    /// While RAM of a restored machine is not whole: who fills it.
    pub(super) filling: Option<Filling>,
    /// The chunks of a restored machine that were waited for, once its RAM is whole.
    pub(super) touched: Option<Vec<u32>>,
    /// Those it has forked; none before it serves.
    pub(super) children: Option<Children>,
    pub(super) orphan: OrphanPolicy,
    /// Which machine an engine calls this.
    pub(super) name: Option<MachineId>,
    pub(super) depth: u32,
}

impl Microvm {
    /// In one who came out of a fork: a bell and a place to hear of her children, both her own.
    pub(super) fn renew_ears(&mut self) -> std::io::Result<()> {
        self.shared.renew_bell()?;
        self.children = Some(Children::new()?);
        Ok(())
    }

    /// Lets the guest run, or run on.
    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        let Some(machine) = &self.machine else {
            return Err(refuse(
                "resume",
                "this is a frozen checkpoint",
                "fork it and resume the daughter",
            ));
        };
        if !self.vcpus.are_parked() {
            return Ok(());
        }
        let failed = "the machine cannot go on; fork or start another";
        let mut shift = 0;
        if let Some(Standing { state, clock }) = self.standing.take() {
            machine
                .load_clock(&state, clock)
                .map_err(because("resume", failed))?;
            shift = state.tsc_shift(clock);
        }
        self.shared.expect_first();
        self.vcpus
            .resume_shifted(shift)
            .map_err(because("resume", failed))
    }

    /// Stops the guest between two instructions.
    pub(super) fn pause(&mut self) -> Result<(), Refusal> {
        if self.machine.is_none() {
            return Ok(());
        }
        // Of a machine that stands still already this asks only whether a vCPU has ended.
        self.vcpus
            .park()
            .map_err(because("pause", "the machine has ended; start another"))
    }

    /// What this is, for an engine that did not start it.
    pub(super) fn state(&self) -> CellState {
        let motion = match &self.machine {
            None => Motion::Frozen,
            Some(_) if self.vcpus.are_parked() => Motion::Paused,
            Some(_) => Motion::Running,
        };
        CellState {
            name: self.name,
            machine: self.spec.clone(),
            motion,
            depth: self.depth,
        }
    }

    /// Whether nothing of the guest moves.
    pub(super) fn is_paused(&self) -> bool {
        self.machine.is_none() || self.vcpus.are_parked()
    }
}
