//! What only the kernel holds of one vCPU, read while it is parked and written into a daughter's vCPU.
//!
//! The order of writing is fixed (KVM API 4.x and FORK order of x86): CPUID, TSC offset, run state, special registers,
//! XCR, XSAVE, registers, debug registers, LAPIC, MSRs with the TSC deadline last, events. Invariant: a state is
//! written whole or the daughter does not run; `KVM_SET_MSRS` returns a count and a short one is an error.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_device_attr, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

/// KVM_VCPU_TSC_CTRL / KVM_VCPU_TSC_OFFSET (Documentation/virt/kvm/devices/vcpu.rst).
const TSC_CTRL: u32 = 0;
const TSC_OFFSET: u64 = 0;
/// IA32_TSC_DEADLINE: arming it needs the TSC and the LAPIC in place.
const TSC_DEADLINE: u32 = 0x6e0;

/// A vCPU's state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// One of the calls failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// KVM stopped at an MSR it refuses.
    #[error("KVM refuses MSR {index:#x}")]
    Msr {
        /// The MSR.
        index: u32,
    },
    /// More MSRs or CPUID leaves than KVM takes in one call.
    #[error("too many MSRs or CPUID leaves")]
    TooMany,
    /// The XSAVE area does not have 4096 bytes.
    #[error("the XSAVE area of this state is malformed")]
    Xsave,
}

/// The state of one vCPU.
#[derive(Clone, Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_offset: u64,
    mp_state: kvm_mp_state,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    /// The 4096-byte XSAVE area, as KVM gives it.
    xsave: Vec<u32>,
    regs: kvm_regs,
    debugregs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl std::fmt::Debug for VcpuState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VcpuState")
            .field("msrs", &self.msrs.len())
            .finish_non_exhaustive()
    }
}

impl VcpuState {
    /// A vCPU that was never run: reads everything once, and learns which MSRs this KVM both gives and takes.
    pub(crate) fn of_fresh(vcpu: &VcpuFd, cpuid: &CpuId, msrs: &[u32]) -> Result<Self, StateError> {
        let mut state = Self {
            cpuid: cpuid.as_slice().to_vec(),
            tsc_offset: 0,
            mp_state: kvm_mp_state::default(),
            sregs: kvm_sregs::default(),
            xcrs: kvm_xcrs::default(),
            xsave: Vec::new(),
            regs: kvm_regs::default(),
            debugregs: kvm_debugregs::default(),
            lapic: kvm_lapic_state::default(),
            msrs: settable(vcpu, msrs)?,
            events: kvm_vcpu_events::default(),
        };
        state.read(vcpu)?;
        Ok(state)
    }

    /// Changes where a vCPU that was never run starts.
    pub(crate) fn set_entry(&mut self, entry: impl FnOnce(&mut kvm_sregs, &mut kvm_regs)) {
        entry(&mut self.sregs, &mut self.regs);
    }

    /// The vCPU will run at once instead of waiting for the guest to start it.
    pub(crate) fn make_runnable(&mut self) {
        self.mp_state.mp_state = kvm_bindings::KVM_MP_STATE_RUNNABLE;
    }

    /// Reads the state of a vCPU that was never run.
    fn read(&mut self, vcpu: &VcpuFd) -> Result<(), StateError> {
        self.sregs = vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        self.regs = vcpu.get_regs().map_err(call("KVM_GET_REGS"))?;
        self.events = vcpu
            .get_vcpu_events()
            .map_err(call("KVM_GET_VCPU_EVENTS"))?;
        self.read_rest(vcpu)
    }

    /// Reads the state of a parked vCPU, whose last `KVM_RUN` was asked to leave its registers in the shared page (KVM API
    /// 6.x, KVM_CAP_SYNC_REGS): three calls fewer in a fork's pause.
    pub(crate) fn save(&mut self, vcpu: &VcpuFd) -> Result<(), StateError> {
        let left = vcpu.sync_regs();
        (self.regs, self.sregs, self.events) = (left.regs, left.sregs, left.events);
        self.read_rest(vcpu)
    }

    fn read_rest(&mut self, vcpu: &VcpuFd) -> Result<(), StateError> {
        self.tsc_offset = tsc_offset(vcpu)?;
        self.mp_state = vcpu.get_mp_state().map_err(call("KVM_GET_MP_STATE"))?;
        self.xcrs = vcpu.get_xcrs().map_err(call("KVM_GET_XCRS"))?;
        let xsave = vcpu.get_xsave().map_err(call("KVM_GET_XSAVE"))?;
        self.xsave.clear();
        self.xsave.extend_from_slice(&xsave.region);
        self.debugregs = vcpu.get_debug_regs().map_err(call("KVM_GET_DEBUGREGS"))?;
        self.lapic = vcpu.get_lapic().map_err(call("KVM_GET_LAPIC"))?;
        let mut msrs = Msrs::from_entries(&self.msrs).map_err(|_| StateError::TooMany)?;
        let read = vcpu.get_msrs(&mut msrs).map_err(call("KVM_GET_MSRS"))?;
        if let Some(refused) = self.msrs.get(read) {
            return Err(StateError::Msr {
                index: refused.index,
            });
        }
        self.msrs.copy_from_slice(msrs.as_slice());
        Ok(())
    }

    /// Writes the state into a vCPU that was never run.
    pub(crate) fn load(&self, vcpu: &VcpuFd) -> Result<(), StateError> {
        let cpuid = CpuId::from_entries(&self.cpuid).map_err(|_| StateError::TooMany)?;
        vcpu.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
        set_tsc_offset(vcpu, self.tsc_offset)?;
        vcpu.set_mp_state(self.mp_state)
            .map_err(call("KVM_SET_MP_STATE"))?;
        vcpu.set_sregs(&self.sregs).map_err(call("KVM_SET_SREGS"))?;
        vcpu.set_xcrs(&self.xcrs).map_err(call("KVM_SET_XCRS"))?;
        let mut xsave = kvm_xsave::default();
        if self.xsave.len() != xsave.region.len() {
            return Err(StateError::Xsave);
        }
        xsave.region.copy_from_slice(&self.xsave);
        // SAFETY: no dynamic XSAVE feature is enabled (no arch_prctl is ever made), so 4096 bytes hold it all.
        unsafe { vcpu.set_xsave(&xsave) }.map_err(call("KVM_SET_XSAVE"))?;
        vcpu.set_regs(&self.regs).map_err(call("KVM_SET_REGS"))?;
        vcpu.set_debug_regs(&self.debugregs)
            .map_err(call("KVM_SET_DEBUGREGS"))?;
        vcpu.set_lapic(&self.lapic).map_err(call("KVM_SET_LAPIC"))?;
        let msrs = Msrs::from_entries(&self.msrs).map_err(|_| StateError::TooMany)?;
        let written = vcpu.set_msrs(&msrs).map_err(call("KVM_SET_MSRS"))?;
        if let Some(refused) = self.msrs.get(written) {
            return Err(StateError::Msr {
                index: refused.index,
            });
        }
        vcpu.set_vcpu_events(&self.events)
            .map_err(call("KVM_SET_VCPU_EVENTS"))
    }

    /// Turns the guest's TSC back by `shift` cycles, the same for every vCPU, and arms the deadline timer anew.
    pub(crate) fn shift_tsc(&self, vcpu: &VcpuFd, shift: u64) -> Result<(), StateError> {
        set_tsc_offset(vcpu, self.tsc_offset.wrapping_sub(shift))?;
        let deadline = self
            .msrs
            .iter()
            .filter(|entry| entry.index == TSC_DEADLINE && entry.data != 0);
        for entry in deadline {
            let one = Msrs::from_entries(&[*entry]).map_err(|_| StateError::TooMany)?;
            let written = vcpu.set_msrs(&one).map_err(call("KVM_SET_MSRS"))?;
            if written != 1 {
                return Err(StateError::Msr {
                    index: TSC_DEADLINE,
                });
            }
        }
        Ok(())
    }
}

/// The MSRs KVM both gives and takes back on a fresh vCPU, the TSC deadline last.
fn settable(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, StateError> {
    let mut kept = Vec::with_capacity(indices.len());
    for index in indices.iter().copied() {
        let entry = kvm_msr_entry {
            index,
            ..Default::default()
        };
        let mut one = Msrs::from_entries(&[entry]).map_err(|_| StateError::TooMany)?;
        let both = vcpu.get_msrs(&mut one).is_ok_and(|count| count == 1)
            && vcpu.set_msrs(&one).is_ok_and(|count| count == 1);
        if both {
            kept.push(entry);
        }
    }
    kept.sort_by_key(|entry| entry.index == TSC_DEADLINE);
    Ok(kept)
}

/// `_IOW(KVMIO, 0xe1 / 0xe2, struct kvm_device_attr)`: kvm-ioctls offers neither for an x86 vCPU.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const KVM_GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;

fn tsc_offset(vcpu: &VcpuFd) -> Result<u64, StateError> {
    let mut offset = 0_u64;
    let attribute = tsc_attribute(std::ptr::from_mut(&mut offset) as u64);
    // SAFETY: the attribute's address names a live u64, which is what this attribute writes.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_DEVICE_ATTR, &attribute) };
    checked("KVM_GET_DEVICE_ATTR(TSC_OFFSET)", result)?;
    Ok(offset)
}

fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> Result<(), StateError> {
    let attribute = tsc_attribute(std::ptr::from_ref(&offset) as u64);
    // SAFETY: the attribute's address names a live u64, which is what this attribute reads.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &attribute) };
    checked("KVM_SET_DEVICE_ATTR(TSC_OFFSET)", result)
}

fn tsc_attribute(addr: u64) -> kvm_device_attr {
    kvm_device_attr {
        group: TSC_CTRL,
        attr: TSC_OFFSET,
        addr,
        flags: 0,
    }
}

fn checked(operation: &'static str, result: libc::c_int) -> Result<(), StateError> {
    if result == 0 {
        return Ok(());
    }
    Err(StateError::Call {
        operation,
        source: io::Error::last_os_error(),
    })
}

fn call(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> StateError {
    move |error| StateError::Call {
        operation,
        source: error.into(),
    }
}
