//! A CPU by what CPUID says of it.
//!
//! Invariant: only leaves whose bits a guest can rely on are kept, and of these no bit that follows the guest's own
//! control registers.

use std::arch::x86_64::__cpuid_count;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Lack;
use super::feature::{ADDRESSES, FEATURES, FeatureRegister};

/// One answer of CPUID (Intel SDM vol. 2A; AMD APM vol. 3 appendix E).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// What was in EAX.
    pub function: u32,
    /// What was in ECX.
    pub index: u32,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// A register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Register {
    /// EAX
    Eax,
    /// EBX
    Ebx,
    /// ECX
    Ecx,
    /// EDX
    Edx,
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        })
    }
}

impl Leaf {
    fn register(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }

    fn of_this_cpu(function: u32, index: u32) -> Self {
        let found = __cpuid_count(function, index);
        Self {
            function,
            index,
            eax: found.eax,
            ebx: found.ebx,
            ecx: found.ecx,
            edx: found.edx,
        }
    }
}

/// A CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`.
    pub vendor: String,
    /// Family, extended as the vendors say.
    pub family: u32,
    /// Model, the same.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Leaves with features.
    pub leaves: Vec<Leaf>,
}

impl Cpu {
    /// The CPU that these leaves describe: all of a vCPU's, or all that KVM offers. Those without features are left out.
    pub fn of_leaves(leaves: impl IntoIterator<Item = Leaf>) -> Self {
        let mut cpu = Self::default();
        for leaf in leaves {
            match leaf.function {
                0 => cpu.vendor = vendor(&leaf),
                1 => (cpu.family, cpu.model, cpu.stepping) = signature(leaf.eax),
                _ => {}
            }
            let matters = |register: &FeatureRegister| {
                register.function == leaf.function && register.index == leaf.index
            };
            if FEATURES.iter().any(matters) || leaf.function == ADDRESSES {
                cpu.leaves.push(leaf);
            }
        }
        cpu
    }

    /// The CPU that this runs on, as it is; its KVM may offer less.
    pub fn of_this_host() -> Self {
        let has = |function: u32| __cpuid_count(function & 0x8000_0000, 0).eax >= function;
        let leaves = FEATURES
            .iter()
            .map(|register| (register.function, register.index));
        let mut leaves: Vec<_> = leaves.chain([(0, 0), (ADDRESSES, 0)]).collect();
        leaves.sort_unstable();
        leaves.dedup();
        let leaves = leaves.into_iter().filter(|(function, _)| has(*function));
        Self::of_leaves(leaves.map(|(function, index)| Leaf::of_this_cpu(function, index)))
    }

    pub(super) fn lacking_on(&self, other: &Self) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if self.vendor != other.vendor {
            // Bits mean other things there: naming them would only mislead.
            return vec![Lack::Vendor {
                theirs: self.vendor.clone(),
                ours: other.vendor.clone(),
            }];
        }
        for register in FEATURES {
            let value =
                |cpu: &Self| cpu.value(register.function, register.index, register.register);
            let missing = value(self) & !value(other) & !register.dynamic;
            let bits = (0..u32::BITS).filter(|bit| missing & (1 << bit) != 0);
            lacks.extend(bits.map(|bit| Lack::Feature {
                feature: register.name(bit),
                leaf: leaf_name(register.function, register.index),
                register: register.register,
                bit,
            }));
        }
        let width = |cpu: &Self| cpu.value(ADDRESSES, 0, Register::Eax) & 0xff;
        let (theirs, ours) = (width(self), width(other));
        if theirs > ours {
            lacks.push(Lack::Address { theirs, ours });
        }
        lacks
    }

    pub(super) fn value(&self, function: u32, index: u32, register: Register) -> u32 {
        let is_it = |leaf: &&Leaf| leaf.function == function && leaf.index == index;
        let leaf = self.leaves.iter().find(is_it);
        leaf.map_or(0, |leaf| leaf.register(register))
    }
}

fn leaf_name(function: u32, index: u32) -> String {
    if function < 10 {
        format!("{function}.{index}")
    } else {
        format!("{function:#x}.{index}")
    }
}

fn vendor(leaf: &Leaf) -> String {
    let bytes = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    String::from_utf8_lossy(bytes.as_flattened()).into_owned()
}

/// Family, model, stepping of leaf 1 EAX (Intel SDM vol. 2A, CPUID figure 3-6).
fn signature(eax: u32) -> (u32, u32, u32) {
    let field = |shift: u32, bits: u32| (eax >> shift) & ((1 << bits) - 1);
    let (family, model) = (field(8, 4), field(4, 4));
    let extended = family == 0xf || family == 6;
    (
        if family == 0xf {
            family + field(20, 8)
        } else {
            family
        },
        if extended {
            model | field(16, 4) << 4
        } else {
            model
        },
        field(0, 4),
    )
}
