//! Warm daughters: machines made in a fresh process from a sealed template, held before their first instruction.
//!
//! A fresh process has an address layout of its own, so daughters of a template may belong to different tenants.
//! Invariant: a warm daughter has every descriptor, mapping and register in place; a claim only lets her go.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use brood_vmm::ClockPolicy;
use brood_vmm::boot::RamLayout;
use brood_vmm::{GuestRam, KvmHost, Machine, MachineState, SealedRam, SealedRun, VcpuState, Vcpus};
use serde::{Deserialize, Serialize};

use super::birth;
use super::hardware::{Hardware, HardwareState};
use super::jail;
use super::microvm::{Microvm, Standing};
use super::refusal::{because, refuse};
use super::shared::Shared;
use crate::protocol::{MachineSpec, OrphanPolicy, Refusal};

const TEMPLATE: &str = "template";
const LOAD: &str = "load";

/// Everything of a template but its memory and disk.
#[derive(Serialize, Deserialize)]
struct TemplateState {
    spec: MachineSpec,
    runs: Vec<SealedRun>,
    vcpus: Vec<VcpuState>,
    machine: MachineState,
    hardware: HardwareState,
    depth: u32,
}

/// What warm daughters are made of: sealed RAM, state, disk files.
pub(super) fn template(vm: &mut Microvm) -> Result<Vec<OwnedFd>, Refusal> {
    let busy = || refuse(TEMPLATE, "the machine runs", "quiesce and pause it first");
    if vm.machine.is_none() {
        return Err(refuse(
            TEMPLATE,
            "this is a frozen checkpoint",
            "fork it held and make the daughter a template",
        ));
    }
    if !vm.is_paused() {
        return Err(busy());
    }
    vm.pause()?;
    vm.ram
        .seal()
        .map_err(because(TEMPLATE, "free memory on the host"))?;
    let (Some(machine), Some(sealed)) = (&vm.machine, vm.ram.sealed()) else {
        return Err(busy());
    };
    let mut fds = vec![copy(sealed.fd())?];
    let failed = because(TEMPLATE, "run `brood doctor`");
    let machine = match &vm.standing {
        Some(standing) => standing.state.clone(),
        None => machine.save().map_err(failed)?,
    };
    let mut hardware = vm.shared.hardware();
    hardware.freeze_disk();
    let (hardware, disk) = hardware.state()?;
    let state = TemplateState {
        spec: vm.spec.clone(),
        runs: sealed.runs().to_vec(),
        vcpus: vm.vcpus.states().ok_or_else(busy)?,
        machine,
        hardware,
        depth: vm.depth,
    };
    let bytes = postcard::to_stdvec(&state).map_err(because(TEMPLATE, "report this"))?;
    let mut file = File::from(
        rustix::fs::memfd_create(c"brood-state", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(because(TEMPLATE, "free memory on the host"))?,
    );
    file.write_all(&bytes)
        .map_err(because(TEMPLATE, "free memory on the host"))?;
    fds.push(file.into());
    fds.extend(disk);
    Ok(fds)
}

/// Makes a warm daughter of the parts of a template.
pub(super) fn load(fds: Vec<OwnedFd>) -> Result<Microvm, Refusal> {
    let mut fds = fds.into_iter();
    let mut next = |what: &str| {
        fds.next().ok_or_else(|| {
            refuse(
                LOAD,
                &format!("no descriptor for {what} came along"),
                "send all parts",
            )
        })
    };
    let host = KvmHost::new(next("/dev/kvm")?).map_err(because(LOAD, "run `brood doctor`"))?;
    let image = next("sealed RAM")?;
    let state = read_state(next("the state")?)?;
    let disk: Vec<OwnedFd> = fds.collect();
    jail::enter()?;
    let parts = "make the template anew with this engine";
    if state.vcpus.len() != state.spec.vcpus as usize {
        let cause = format!(
            "{} vCPU states came for {} vCPUs",
            state.vcpus.len(),
            state.spec.vcpus
        );
        return Err(refuse(LOAD, &cause, parts));
    }
    let layout = RamLayout::new(state.spec.ram_bytes).map_err(because(LOAD, parts))?;
    let sealed = SealedRam::from_parts(image, state.spec.ram_bytes, state.runs)
        .map_err(because(LOAD, parts))?;
    let ram = GuestRam::from_sealed(&layout.regions(), sealed)
        .map_err(because(LOAD, "free memory on the host"))?;
    let hardware = Hardware::from_state(ram.memory().clone(), state.hardware, disk)?;
    let shared = Shared::new(hardware).map_err(because(LOAD, "raise the limit of open files"))?;
    let (machine, vcpu_fds) = Machine::create(&host, &ram, state.spec.vcpus)
        .map_err(because(LOAD, "free memory or descriptors on the host"))?;
    let vcpus =
        Vcpus::idle(state.vcpus, shared).map_err(because(LOAD, "raise the limit of threads"))?;
    let mut vm = Microvm {
        spec: state.spec,
        machine: None,
        vcpus,
        ram,
        host,
        shared,
        standing: Some(Standing {
            state: state.machine,
            clock: ClockPolicy::Resumes,
        }),
        children: None,
        orphan: OrphanPolicy::End,
        name: None,
        depth: state.depth + 1,
    };
    birth::settle(&mut vm, machine, vcpu_fds)?;
    Ok(vm)
}

fn read_state(fd: OwnedFd) -> Result<TemplateState, Refusal> {
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    // Every warm daughter reads the same open file: its offset is shared and moved by the others.
    read_all_at(&mut file, &mut bytes)
        .map_err(because(LOAD, "make the template anew with this engine"))?;
    postcard::from_bytes(&bytes).map_err(because(LOAD, "make the template anew with this engine"))
}

fn read_all_at(file: &mut File, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    bytes.resize(length.min(64 << 20), 0);
    file.read_exact_at(bytes, 0)
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, Refusal> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(because(TEMPLATE, "raise the limit of open files"))
}
