//! One KVM virtual machine over guest RAM that outlives it.
//!
//! The order of creation decides a factor of forty: memory slots come before the interrupt controllers and before
//! any ioeventfd, because a slot change after the first bus device waits for a grace period (7.6 ms measured).
//! Invariant: the fork path never touches a memory slot. A forked child must [`Machine::forget`] what it inherited:
//! the descriptors are bound to the mother's memory and refuse the child.

use std::io;

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    kvm_clock_data, kvm_irqchip, kvm_regs, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::clock::{ClockPolicy, host_tsc};
use crate::host::{HostError, KvmHost};
use crate::ram::GuestRam;
use crate::vcpu_state::{StateError, VcpuState};

/// Where Intel's real-mode helper pages live: the last pages below the BIOS area of the 32-bit space, never RAM.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// A step of making a machine failed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// One of the calls failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A vCPU refused its state.
    #[error("vCPU {index}: {source}")]
    Vcpu {
        /// Which vCPU.
        index: u32,
        /// What it refused.
        source: StateError,
    },
    /// Zero vCPUs, or more than this host or this engine allows.
    #[error("{asked} vCPUs asked for; this host takes 1 to {limit}")]
    VcpuCount {
        /// How many were asked for.
        asked: u32,
        /// The most possible here.
        limit: u32,
    },
    /// CPUID could not be made.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What the kernel holds of a machine beside its vCPUs.
#[derive(Clone, Serialize, Deserialize)]
pub struct MachineState {
    irqchips: [kvm_irqchip; 3],
    clock: kvm_clock_data,
    /// The host's TSC when the state was read; one reading for all vCPUs, so that they stay in step.
    saved_at_tsc: u64,
}

impl std::fmt::Debug for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineState")
            .field("clock", &self.clock.clock)
            .finish_non_exhaustive()
    }
}

impl MachineState {
    /// By how many cycles the guest's TSC is turned back when it starts now.
    pub fn tsc_shift(&self, policy: ClockPolicy) -> u64 {
        match policy {
            ClockPolicy::RunsOn => 0,
            ClockPolicy::Resumes => host_tsc().wrapping_sub(self.saved_at_tsc),
        }
    }
}

/// A KVM virtual machine.
#[derive(Debug)]
pub struct Machine {
    vm: VmFd,
}

impl Machine {
    /// The most vCPUs a machine of this engine has.
    pub const MAX_VCPUS: u32 = 8;

    /// A machine over `ram` with `vcpus` virtual CPUs that hold no state yet.
    ///
    /// # Errors
    /// The vCPU count, or what KVM refused.
    pub fn create(
        host: &KvmHost,
        ram: &GuestRam,
        vcpus: u32,
    ) -> Result<(Self, Vec<VcpuFd>), MachineError> {
        let limit = Self::MAX_VCPUS.min(host.max_vcpus() as u32);
        if vcpus == 0 || vcpus > limit {
            return Err(MachineError::VcpuCount {
                asked: vcpus,
                limit,
            });
        }
        let vm = host.kvm().create_vm().map_err(call("KVM_CREATE_VM"))?;
        for (slot, (region, host_address)) in ram.slots().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.gpa,
                memory_size: region.bytes,
                userspace_addr: host_address,
            };
            // SAFETY: the span is guest RAM, which outlives the machine: the cell drops the machine first.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        }
        if is_intel() {
            vm.set_tss_address(TSS_ADDRESS)
                .map_err(call("KVM_SET_TSS_ADDR"))?;
            vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
                .map_err(call("KVM_SET_IDENTITY_MAP_ADDR"))?;
        }
        vm.create_irq_chip().map_err(call("KVM_CREATE_IRQCHIP"))?;
        let mut fds = Vec::with_capacity(vcpus as usize);
        for index in 0..vcpus {
            let mut fd = vm
                .create_vcpu(u64::from(index))
                .map_err(call("KVM_CREATE_VCPU"))?;
            keep_from_children(&mut fd, vm.run_size()).map_err(call("madvise of kvm_run"))?;
            fds.push(fd);
        }
        Ok((Self { vm }, fds))
    }

    /// The state of `vcpus` that were never run, each with its own CPUID.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn fresh_states(host: &KvmHost, vcpus: &[VcpuFd]) -> Result<Vec<VcpuState>, MachineError> {
        let count = vcpus.len() as u32;
        let mut states = Vec::with_capacity(vcpus.len());
        for (index, vcpu) in (0..count).zip(vcpus) {
            let tsc_khz = vcpu.get_tsc_khz().map_err(call("KVM_GET_TSC_KHZ"))?;
            let cpuid = host.cpuid(index, count, tsc_khz)?;
            vcpu.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
            let state = VcpuState::of_fresh(vcpu, &cpuid, host.msrs())
                .map_err(|source| MachineError::Vcpu { index, source })?;
            states.push(state);
        }
        Ok(states)
    }

    /// Makes `state` start where `entry` says, at once.
    pub fn enter_at(state: &mut VcpuState, entry: impl FnOnce(&mut kvm_sregs, &mut kvm_regs)) {
        state.set_entry(entry);
        state.make_runnable();
    }

    /// Reads interrupt controllers and clock; every vCPU must be parked.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn save(&self) -> Result<MachineState, MachineError> {
        let mut irqchips = [kvm_irqchip::default(); 3];
        let ids = [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ];
        for (chip, id) in irqchips.iter_mut().zip(ids) {
            chip.chip_id = id;
            self.vm.get_irqchip(chip).map_err(call("KVM_GET_IRQCHIP"))?;
        }
        let clock = self.vm.get_clock().map_err(call("KVM_GET_CLOCK"))?;
        Ok(MachineState {
            irqchips,
            clock,
            saved_at_tsc: host_tsc(),
        })
    }

    /// Writes the interrupt controllers back; before the vCPUs get their state.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn load_irqchips(&self, state: &MachineState) -> Result<(), MachineError> {
        state
            .irqchips
            .iter()
            .try_for_each(|chip| self.vm.set_irqchip(chip).map_err(call("KVM_SET_IRQCHIP")))
    }

    /// Sets the paravirtual clock; after the vCPUs got their state.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn load_clock(
        &self,
        state: &MachineState,
        policy: ClockPolicy,
    ) -> Result<(), MachineError> {
        // With KVM_CLOCK_REALTIME the kernel adds the time since the state was read (KVM API 4.30).
        let runs_on = policy == ClockPolicy::RunsOn && state.clock.flags & KVM_CLOCK_REALTIME != 0;
        let clock = kvm_clock_data {
            clock: state.clock.clock,
            flags: if runs_on { KVM_CLOCK_REALTIME } else { 0 },
            realtime: state.clock.realtime,
            ..Default::default()
        };
        self.vm.set_clock(&clock).map_err(call("KVM_SET_CLOCK"))
    }

    /// Raises interrupt `gsi` whenever `event` is written.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn route_interrupt(&self, event: &EventFd, gsi: u32) -> Result<(), MachineError> {
        self.vm
            .register_irqfd(event, gsi)
            .map_err(call("KVM_IRQFD"))
    }

    /// Signals `event` when the guest stores `value` at guest address `gpa`, without leaving the kernel.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn route_store(&self, event: &EventFd, gpa: u64, value: u32) -> Result<(), MachineError> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(gpa), value)
            .map_err(call("KVM_IOEVENTFD"))
    }

    /// In a forked child: lets go of the mother's machine without closing or unmapping anything.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

/// A child must not inherit the pages KVM shares with a vCPU's thread: they belong to the mother's vCPU, and a
/// generation's leftovers would stay mapped in the next. KVM_GET_VCPU_MMAP_SIZE bytes (KVM API 4.5), not one page.
fn keep_from_children(fd: &mut VcpuFd, bytes: usize) -> Result<(), kvm_ioctls::Error> {
    let pages = std::ptr::from_mut(fd.get_kvm_run());
    // SAFETY: `fd` maps that many bytes from there on, and the advice changes neither contents nor protection.
    match unsafe { libc::madvise(pages.cast(), bytes, libc::MADV_DONTFORK) } {
        0 => Ok(()),
        _ => Err(kvm_ioctls::Error::last()),
    }
}

fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    leaf.ebx == u32::from_le_bytes(*b"Genu")
}

fn call(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |error| MachineError::Call {
        operation,
        source: error.into(),
    }
}
