//! What this host's KVM offers, read once before the first machine and inherited by every fork.
//!
//! Invariant: `/dev/kvm` stays open as one descriptor for the life of the cell and of all daughters; it is the one
//! KVM descriptor that is not bound to a process's memory. Refuses hosts without the capabilities a fork needs.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

/// KVM's paravirtual feature leaf (Documentation/virt/kvm/x86/cpuid.rst).
const KVM_FEATURES: u32 = 0x4000_0001;
/// KVM's signature leaf; eax is the highest leaf of the range.
const KVM_SIGNATURE: u32 = 0x4000_0000;
/// Leaf that names TSC and bus frequency in kHz, as several hypervisors define it.
const TIMING: u32 = 0x4000_0010;
/// Asynchronous page faults write to guest memory at any time later, so a fork would lose or double them.
const ASYNC_PF_BITS: u32 = 1 << 4 | 1 << 10 | 1 << 14;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The descriptor is not KVM, or KVM is of another version.
    #[error("the given descriptor is not /dev/kvm of API version 12")]
    Version,
    /// A capability is missing.
    #[error("this host's KVM lacks {capability}; a newer host kernel is needed")]
    Capability {
        /// The missing one.
        capability: &'static str,
    },
    /// A query failed.
    #[error("cannot read what KVM supports: {operation} failed")]
    Query {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// KVM and what it supports.
pub struct KvmHost {
    kvm: Kvm,
    cpuid: Vec<kvm_cpuid_entry2>,
    msrs: Vec<u32>,
    max_vcpus: usize,
}

impl KvmHost {
    /// Takes an open `/dev/kvm`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn new(fd: OwnedFd) -> Result<Self, HostError> {
        // SAFETY: the descriptor is owned and handed over.
        let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(fd.into_raw_fd()) };
        if kvm.get_api_version() != 12 {
            return Err(HostError::Version);
        }
        for (capability, name) in [
            (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
            (Cap::Irqfd, "KVM_CAP_IRQFD"),
            (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
        ] {
            if !kvm.check_extension(capability) {
                return Err(HostError::Capability { capability: name });
            }
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| query("KVM_GET_SUPPORTED_CPUID", error))?
            .as_slice()
            .to_vec();
        let msrs = kvm
            .get_msr_index_list()
            .map_err(|error| query("KVM_GET_MSR_INDEX_LIST", error))?
            .as_slice()
            .iter()
            .copied()
            .filter(|index| !is_excluded(*index))
            .collect();
        let max_vcpus = kvm.get_max_vcpus();
        Ok(Self {
            kvm,
            cpuid,
            msrs,
            max_vcpus,
        })
    }

    /// The descriptor that must stay open in every fork.
    pub fn raw_fd(&self) -> RawFd {
        self.kvm.as_raw_fd()
    }

    /// The most vCPUs a machine may have on this host.
    pub fn max_vcpus(&self) -> usize {
        self.max_vcpus
    }

    pub(crate) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// MSRs this KVM says belong to a vCPU's state, less those a fork carries by other means.
    pub(crate) fn msrs(&self) -> &[u32] {
        &self.msrs
    }

    /// CPUID of vCPU `index` out of `count`.
    pub(crate) fn cpuid(&self, index: u32, count: u32, tsc_khz: u32) -> Result<CpuId, HostError> {
        let mut entries = self.cpuid.clone();
        for entry in &mut entries {
            adjust(entry, index, count);
        }
        if entries.iter().all(|entry| entry.function != TIMING) {
            entries.push(kvm_cpuid_entry2 {
                function: TIMING,
                eax: tsc_khz,
                ebx: 1_000_000, // KVM's LAPIC timer counts nanoseconds.
                ..Default::default()
            });
        }
        CpuId::from_entries(&entries).map_err(|_| HostError::Capability {
            capability: "room for its own CPUID entries",
        })
    }
}

/// Per-vCPU leaves, and what a fork cannot carry (Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E).
fn adjust(entry: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    let bits = u32::BITS - (count - 1).leading_zeros();
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0xffff | index << 24 | count << 16;
            entry.ecx |= 1 << 31 | 1 << 24; // hypervisor present, TSC deadline timer
            entry.edx = if count > 1 {
                entry.edx | 1 << 28
            } else {
                entry.edx & !(1 << 28)
            };
        }
        0x4 => entry.eax = entry.eax & 0x3ff_ffff & !(0xfff << 14) | (count - 1) << 26,
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0), // no PMU
        0xb | 0x1f => {
            entry.edx = index;
            (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                0 => (0, 1, 1 << 8),
                1 => (bits, count, 2 << 8 | 1),
                level => (0, 0, level),
            };
        }
        0x8000_0001 => entry.ecx &= !(1 << 23 | 1 << 24 | 1 << 28), // no PMU counters
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | bits << 12 | (count - 1),
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index;
        }
        0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0), // PMU v2
        KVM_SIGNATURE => entry.eax = entry.eax.max(TIMING),
        KVM_FEATURES => entry.eax &= !ASYNC_PF_BITS,
        _ => {}
    }
}

/// TSC travels as an offset, APIC_BASE with the special registers; the PMU is hidden; Hyper-V MSRs allocate.
fn is_excluded(index: u32) -> bool {
    matches!(index,
        0x10 | 0x1b
        | 0xc1..=0xc8 | 0x186..=0x18d | 0x309..=0x30c | 0x345 | 0x38d..=0x391 | 0x3f1 | 0x4c1..=0x4c8
        | 0xc001_0000..=0xc001_0007 | 0xc001_0200..=0xc001_020b | 0xc000_0300..=0xc000_0303
        | 0x4000_0000..=0x4000_01ff
        | 0x4b56_4d02 | 0x4b56_4d06 | 0x4b56_4d07)
}

fn query(operation: &'static str, error: kvm_ioctls::Error) -> HostError {
    HostError::Query {
        operation,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vcpu_finds_its_own_apic_id_and_no_pmu() {
        let mut leaf = kvm_cpuid_entry2 {
            function: 1,
            ebx: 0xff00_1234,
            ..Default::default()
        };
        adjust(&mut leaf, 3, 4);
        assert_eq!(leaf.ebx, 3 << 24 | 4 << 16 | 0x1234);
        let mut pmu = kvm_cpuid_entry2 {
            function: 0xa,
            eax: 7,
            ..Default::default()
        };
        adjust(&mut pmu, 0, 1);
        assert_eq!(pmu.eax, 0);
    }

    #[test]
    fn asynchronous_page_faults_are_not_offered() {
        let mut leaf = kvm_cpuid_entry2 {
            function: KVM_FEATURES,
            eax: !0,
            ..Default::default()
        };
        adjust(&mut leaf, 0, 1);
        assert_eq!(leaf.eax & ASYNC_PF_BITS, 0);
    }
}
