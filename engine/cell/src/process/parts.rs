//! Everything of a machine but its memory and the files of its disk, as a value that another process starts from.
//!
//! ```text
//!  Microvm (stands still) ── stand, read ──► Parts + disk files ── to_file, from_file ──► Parts ── assemble ──► Microvm (held)
//! ```
//!
//! A template and a snapshot differ in where RAM comes from, and in nothing here. Invariant: parts are read only while
//! nothing of the guest moves, and a machine that was assembled runs no instruction before it is resumed.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use brood_vmm::{ClockPolicy, GuestRam, KvmHost, Machine, MachineState, VcpuState, Vcpus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::birth;
use super::hardware::{Hardware, HardwareState};
use super::microvm::{Microvm, Standing};
use super::refusal::{because, refuse};
use super::shared::Shared;
use crate::protocol::{MachineSpec, OrphanPolicy, Refusal};

const MEMORY: &str = "free memory on the host";
const ANEW: &str = "make it anew with this engine";
/// The most bytes of a state that are read.
const MAX_STATE: usize = 64 << 20;

/// Everything of a machine but memory and files.
#[derive(Serialize, Deserialize)]
pub(super) struct Parts {
    spec: MachineSpec,
    vcpus: Vec<VcpuState>,
    machine: MachineState,
    hardware: HardwareState,
    depth: u32,
}

/// What the parts go into.
pub(super) struct Body {
    pub(super) host: KvmHost,
    pub(super) ram: GuestRam,
    /// Base image, then layers.
    pub(super) disk: Vec<OwnedFd>,
}

/// Refuses a machine that runs; one that stands still has its vCPUs' state read, and says if a vCPU has ended.
pub(super) fn stand(vm: &mut Microvm, operation: &'static str) -> Result<(), Refusal> {
    if !vm.is_paused() {
        let remedy = "quiesce and pause it first";
        return Err(refuse(operation, "the machine runs", remedy));
    }
    vm.pause()
}

/// The parts of a machine that stands still, and the files that its disk goes with.
pub(super) fn read(
    vm: &mut Microvm,
    operation: &'static str,
) -> Result<(Parts, Vec<OwnedFd>), Refusal> {
    let machine = match (&vm.standing, &vm.machine) {
        (Some(standing), _) => standing.state.clone(),
        (None, Some(machine)) => machine
            .save()
            .map_err(because(operation, "run `brood doctor`"))?,
        (None, None) => {
            let cause = "this checkpoint holds no state";
            return Err(refuse(operation, cause, "make another"));
        }
    };
    let mut hardware = vm.shared.hardware();
    hardware.freeze_disk();
    let (hardware, disk) = hardware.state()?;
    let moves = || refuse(operation, "a vCPU runs", "pause the machine first");
    let parts = Parts {
        spec: vm.spec.clone(),
        vcpus: vm.vcpus.states().ok_or_else(moves)?,
        machine,
        hardware,
        depth: vm.depth,
    };
    Ok((parts, disk))
}

/// A state in a file without a name.
pub(super) fn to_file<T: Serialize>(
    state: &T,
    operation: &'static str,
) -> Result<OwnedFd, Refusal> {
    let bytes = postcard::to_stdvec(state).map_err(because(operation, "report this"))?;
    in_memory(&bytes, operation)
}

/// Bytes in a file without a name.
pub(super) fn in_memory(bytes: &[u8], operation: &'static str) -> Result<OwnedFd, Refusal> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(
        rustix::fs::memfd_create(c"brood-state", flags).map_err(because(operation, MEMORY))?,
    );
    file.write_all(bytes).map_err(because(operation, MEMORY))?;
    Ok(file.into())
}

/// The state in a file.
pub(super) fn from_file<T: DeserializeOwned>(
    fd: OwnedFd,
    operation: &'static str,
) -> Result<T, Refusal> {
    decode(&bytes_of(fd, operation)?, operation)
}

/// The bytes of a state in a file.
pub(super) fn bytes_of(fd: OwnedFd, operation: &'static str) -> Result<Vec<u8>, Refusal> {
    // By position: other machines are made of the same open file, which has one offset.
    read_all_at(&File::from(fd)).map_err(because(operation, ANEW))
}

/// The state in bytes.
pub(super) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    operation: &'static str,
) -> Result<T, Refusal> {
    postcard::from_bytes(bytes).map_err(because(operation, ANEW))
}

fn read_all_at(file: &File) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(MAX_STATE)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Parts {
    /// Bytes of RAM that belong to them.
    pub(super) fn ram_bytes(&self) -> u64 {
        self.spec.ram_bytes
    }

    /// A machine of these parts, held before its next instruction.
    pub(super) fn assemble(self, body: Body, operation: &'static str) -> Result<Microvm, Refusal> {
        let Body { host, ram, disk } = body;
        if self.vcpus.len() != self.spec.vcpus as usize {
            let (states, vcpus) = (self.vcpus.len(), self.spec.vcpus);
            let cause = format!("{states} vCPU states came for {vcpus} vCPUs");
            return Err(refuse(operation, &cause, ANEW));
        }
        let hardware = Hardware::from_state(ram.memory().clone(), self.hardware, disk)?;
        let shared =
            Shared::new(hardware).map_err(because(operation, "raise the limit of open files"))?;
        let (machine, vcpu_fds) = Machine::create(&host, &ram, self.spec.vcpus)
            .map_err(because(operation, "free memory or descriptors on the host"))?;
        let vcpus = Vcpus::idle(self.vcpus, shared)
            .map_err(because(operation, "raise the limit of threads"))?;
        let mut vm = Microvm {
            spec: self.spec,
            machine: None,
            vcpus,
            ram,
            host,
            shared,
            standing: Some(Standing {
                state: self.machine,
                clock: ClockPolicy::Resumes,
            }),
            filling: None,
            touched: None,
            children: None,
            orphan: OrphanPolicy::End,
            name: None,
            depth: self.depth,
        };
        birth::settle(&mut vm, machine, vcpu_fds)?;
        Ok(vm)
    }
}
