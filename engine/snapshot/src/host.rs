//! What a machine needs of the host it goes on, and what a host lacks.
//!
//! Invariant: nothing is refused that both hosts have alike, and whatever is refused is named exactly: the feature, its
//! CPUID register and its bit. Vendors are told apart, as kernels choose by them; family, model and stepping are said and
//! not compared, since a CPU that has every feature runs the guest.

use serde::{Deserialize, Serialize};

mod cpu;
mod feature;

pub use cpu::{Cpu, Leaf, Register};

/// What KVM gives a machine beside its CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmFacts {
    /// How the host runs guests, such as `vmx`, `svm` or `pvm`. Said, not compared.
    pub backend: String,
    /// The host's kernel release, as `uname -r` says it. Said, not compared.
    pub kernel: String,
    /// kHz of the guest's time stamp counter; 0 where nobody knows.
    pub tsc_khz: u32,
    /// Whether the host can give a guest another TSC frequency than its own (`KVM_CAP_TSC_CONTROL`).
    pub tsc_scaling: bool,
    /// Bytes of the XSAVE area that KVM gives and takes (`KVM_CAP_XSAVE2`, or 4096).
    pub xsave_bytes: u32,
    /// MSRs of a vCPU's state: those that the snapshot has, or those that the host's KVM takes.
    pub msrs: Vec<u32>,
    /// Capabilities that the machine uses, or that the host's KVM has, by name: `KVM_CAP_ADJUST_CLOCK`.
    pub capabilities: Vec<String>,
}

/// A CPU and its KVM: what a snapshot was taken on, or what it is to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The CPU as KVM offers it to guests (`KVM_GET_SUPPORTED_CPUID`), or as it is: the same on both sides.
    pub cpu: Cpu,
    /// The rest.
    pub kvm: KvmFacts,
}

/// Something that a snapshot's machine had and this host does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The CPU is of another vendor.
    #[error("the snapshot is of a {theirs} CPU, and this host's is {ours}")]
    Vendor {
        /// The snapshot's.
        theirs: String,
        /// This host's.
        ours: String,
    },
    /// A feature bit is not set.
    #[error("this host's CPU lacks {feature} (CPUID {leaf} {register} bit {bit})")]
    Feature {
        /// As /proc/cpuinfo calls it, or `a feature without a name here`.
        feature: &'static str,
        /// Function and index: `7.0`.
        leaf: String,
        /// Which register.
        register: Register,
        /// Which bit of it.
        bit: u32,
    },
    /// Guest-physical addresses are narrower.
    #[error("this host's CPU has {ours} bits of physical address, and the snapshot's had {theirs}")]
    Address {
        /// The snapshot's.
        theirs: u32,
        /// This host's.
        ours: u32,
    },
    /// Its time stamp counter has another frequency.
    #[error(
        "the guest's TSC runs at {theirs} kHz; this host's runs at {ours} kHz, and it cannot scale it"
    )]
    Tsc {
        /// The snapshot's.
        theirs: u32,
        /// This host's.
        ours: u32,
    },
    /// The XSAVE area is too small.
    #[error("the XSAVE state has {theirs} bytes, and this host's KVM takes {ours}")]
    Xsave {
        /// The snapshot's.
        theirs: u32,
        /// This host's.
        ours: u32,
    },
    /// An MSR cannot be set.
    #[error("this host's KVM lacks MSR {0:#x}")]
    Msr(u32),
    /// A capability is missing.
    #[error("this host's KVM lacks {0}")]
    Capability(String),
}

/// By how many parts of a million KVM lets a TSC differ without scaling (`tsc_tolerance_ppm`, arch/x86/kvm/x86.c).
const TSC_TOLERANCE_PPM: u64 = 250;

impl Host {
    /// All that a machine of this host would lack on `other`; nothing if it can go there.
    pub fn lacking_on(&self, other: &Self) -> Vec<Lack> {
        let mut lacks = self.cpu.lacking_on(&other.cpu);
        let (theirs, ours) = (&self.kvm, &other.kvm);
        if !ours.tsc_scaling && is_other_frequency(theirs.tsc_khz, ours.tsc_khz) {
            lacks.push(Lack::Tsc {
                theirs: theirs.tsc_khz,
                ours: ours.tsc_khz,
            });
        }
        if theirs.xsave_bytes > ours.xsave_bytes {
            lacks.push(Lack::Xsave {
                theirs: theirs.xsave_bytes,
                ours: ours.xsave_bytes,
            });
        }
        let msrs = theirs.msrs.iter().filter(|msr| !ours.msrs.contains(msr));
        lacks.extend(msrs.map(|msr| Lack::Msr(*msr)));
        let capabilities = theirs.capabilities.iter();
        let missing = capabilities.filter(|name| !ours.capabilities.contains(name));
        lacks.extend(missing.map(|name| Lack::Capability(name.clone())));
        lacks
    }
}

fn is_other_frequency(theirs: u32, ours: u32) -> bool {
    let known = theirs != 0 && ours != 0;
    let difference = u64::from(theirs.abs_diff(ours));
    known && difference * 1_000_000 > u64::from(theirs) * TSC_TOLERANCE_PPM
}

#[cfg(test)]
mod tests;
