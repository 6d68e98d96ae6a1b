//! The settings, and what one field of them cannot say alone.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use brood_plugin::settings::{Diagnostics, Node, Schema, Value};
use serde::{Deserialize, Serialize};

brood_plugin::settings! {
    /// Where daughters go.
    pub struct Settings {
        /// Whether daughters are spread or packed.
        strategy: Strategy = Strategy::Spread,
        /// How much each part of a score counts.
        weights: Weights = Weights::usual(),
        /// What to make of the NUMA domains of a node.
        numa: Numa = Numa::Any,
        /// Most daughters of one request in one domain.
        max_per_domain: Option<NonZeroU32> = None,
        /// Most live machines of one tenant in one domain, new ones included.
        max_tenant_per_domain: Option<NonZeroU32> = None,
        /// No daughters where more of the CPU is in use, 1/1000.
        max_cpu_load: Option<u16> = None,
        /// No daughters where memory pressure is higher, 1/1000 (PSI `some`, 10 s).
        max_memory_pressure: Option<u16> = None,
        /// What stays free in each domain.
        reserve: Reserve = Reserve::none(),
        /// How much of a daughter's memory ceiling is counted when room is estimated, 1/1000. Daughters share what they
        /// do not write, so this may be far below 1000. Where the engine says how many fit, this is not used.
        memory_permille: Permille = Permille(1000),
        /// Labels that every candidate must have.
        require: BTreeMap<String, String> = BTreeMap::new(),
        /// Labels that speak for a candidate.
        prefer: Vec<Preference> = Vec::new(),
        /// Taints that every daughter tolerates: names without `taint/`.
        tolerate: Vec<String> = Vec::new(),
        /// What to make of further facts about candidates.
        columns: Vec<ColumnRule> = Vec::new(),
    }
}

brood_plugin::settings! {
    /// Whether daughters are spread or packed.
    pub enum Strategy {
        /// Over many domains, the emptiest first.
        Spread = "spread",
        /// Into few domains, the fullest first.
        Pack = "pack",
    }
}

brood_plugin::settings! {
    /// What to make of the NUMA domains of a node.
    pub enum Numa {
        /// Each is a place like any other.
        Any = "any",
        /// One that holds a whole request alone is preferred.
        Together = "together",
    }
}

brood_plugin::settings! {
    /// How much each part of a score counts, relative to the others; 0 is not at all.
    pub struct Weights {
        /// Room: much of it when spreading, little when packing.
        room: u16 = 40,
        /// Booted shells that wait for a fork.
        warm: u16 = 30,
        /// Pages of the mother that are here already.
        resident: u16 = 40,
        /// Machines of the same tenant: few when spreading, many when packing.
        tenant: u16 = 20,
        /// Idle CPU.
        load: u16 = 10,
        /// Absence of memory pressure.
        pressure: u16 = 10,
        /// Holding the whole request alone, where `numa` is `together`.
        numa: u16 = 20,
    }
}

brood_plugin::settings! {
    /// What stays free in a domain.
    pub struct Reserve {
        /// 1/1000 virtual CPU.
        vcpu_milli: u32 = 0,
        /// MiB of memory.
        memory_mib: u32 = 0,
        /// MiB of disk.
        disk_mib: u32 = 0,
    }
}

brood_plugin::settings! {
    /// A label that speaks for a candidate.
    pub struct Preference {
        /// The label.
        label: String,
        /// Its value.
        value: String,
        /// How much it counts, as in `weights`.
        weight: NonZeroWeight,
    }
}

brood_plugin::settings! {
    /// What to make of a further fact.
    pub struct ColumnRule {
        /// Its name.
        name: String,
        /// Candidates with less are refused.
        least: Option<i64> = None,
        /// Candidates with more are refused.
        most: Option<i64> = None,
        /// How much it counts in the score, as in `weights`.
        weight: u16 = 0,
        /// Which candidates it speaks for.
        prefer: Direction = Direction::More,
    }
}

brood_plugin::settings! {
    /// Which candidates a fact speaks for.
    pub enum Direction {
        /// Those with more.
        More = "more",
        /// Those with less.
        Less = "less",
    }
}

/// 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permille(pub u32);

impl Value for Permille {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let number = node.whole(1, 1000, wrong)?;
        number.try_into().ok().map(Self)
    }

    fn schema(schema: &mut Schema) {
        schema.whole(1, 1000);
        schema.raw("default", "1000");
    }
}

/// A weight that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonZeroWeight(pub NonZeroU16);

impl Value for NonZeroWeight {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let number = node.whole(1, u16::MAX.into(), wrong)?;
        NonZeroU16::new(number.try_into().ok()?).map(Self)
    }

    fn schema(schema: &mut Schema) {
        schema.whole(1, u16::MAX.into());
    }
}

/// The settings as bytes hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub(crate) spreads: bool,
    pub(crate) room: u16,
    pub(crate) warm: u16,
    pub(crate) resident: u16,
    pub(crate) tenant: u16,
    pub(crate) load: u16,
    pub(crate) pressure: u16,
    /// 0 where domains are places like any other.
    pub(crate) together: u16,
    pub(crate) max_per_domain: Option<u32>,
    pub(crate) max_tenant_per_domain: Option<u32>,
    pub(crate) max_cpu_load: Option<u16>,
    pub(crate) max_memory_pressure: Option<u16>,
    /// vCPU, memory, disk.
    pub(crate) reserve: [u32; 3],
    pub(crate) memory_permille: u32,
    pub(crate) require: Vec<(String, String)>,
    /// Label, value, weight.
    pub(crate) prefer: Vec<(String, String, u16)>,
    pub(crate) tolerate: Vec<String>,
    pub(crate) columns: Vec<Fact>,
}

/// A rule about a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) least: Option<i64>,
    pub(crate) most: Option<i64>,
    pub(crate) weight: u16,
    pub(crate) more: bool,
}

impl Settings {
    /// Checks what one field cannot say alone.
    pub(crate) fn check(&self, wrong: &mut Diagnostics) {
        let Weights {
            room,
            warm,
            resident,
            tenant,
            load,
            pressure,
            ..
        } = self.weights;
        let sum = [room, warm, resident, tenant, load, pressure]
            .iter()
            .any(|weight| *weight > 0);
        let others = !self.prefer.is_empty() || self.columns.iter().any(|column| column.weight > 0);
        if !sum && !others && self.numa == Numa::Any {
            wrong.add(
                &["weights"],
                "nothing counts, so every score would be the same",
            );
        }
        for (index, column) in self.columns.iter().enumerate() {
            let at = index.to_string();
            if let (Some(least), Some(most)) = (column.least, column.most)
                && least > most
            {
                let message =
                    format!("{least} is above `most`, so every candidate would be refused");
                wrong.add(&["columns", &at, "least"], &message);
            }
            if column.least.is_none() && column.most.is_none() && column.weight == 0 {
                wrong.add(&["columns", &at], "neither limits nor counts");
            }
        }
        for (index, taint) in self.tolerate.iter().enumerate() {
            if taint.starts_with("taint/") {
                wrong.add(
                    &["tolerate", &index.to_string()],
                    "the name alone, without `taint/`",
                );
            }
        }
    }

    /// The settings, ready to rank with.
    pub(crate) fn policy(&self) -> Policy {
        let together = self.numa == Numa::Together;
        let facts = self.columns.iter().map(|column| Fact {
            name: column.name.clone(),
            least: column.least,
            most: column.most,
            weight: column.weight,
            more: column.prefer == Direction::More,
        });
        let prefer = self
            .prefer
            .iter()
            .map(|one| (one.label.clone(), one.value.clone(), one.weight.0.get()));
        Policy {
            spreads: self.strategy == Strategy::Spread,
            room: self.weights.room,
            warm: self.weights.warm,
            resident: self.weights.resident,
            tenant: self.weights.tenant,
            load: self.weights.load,
            pressure: self.weights.pressure,
            together: if together { self.weights.numa } else { 0 },
            max_per_domain: self.max_per_domain.map(Into::into),
            max_tenant_per_domain: self.max_tenant_per_domain.map(Into::into),
            max_cpu_load: self.max_cpu_load,
            max_memory_pressure: self.max_memory_pressure,
            reserve: [
                self.reserve.vcpu_milli,
                self.reserve.memory_mib,
                self.reserve.disk_mib,
            ],
            memory_permille: self.memory_permille.0,
            require: self.require.clone().into_iter().collect(),
            prefer: prefer.collect(),
            tolerate: self.tolerate.clone(),
            columns: facts.collect(),
        }
    }
}

impl Weights {
    /// Those of the documentation.
    fn usual() -> Self {
        Self {
            room: 40,
            warm: 30,
            resident: 40,
            tenant: 20,
            load: 10,
            pressure: 10,
            numa: 20,
        }
    }
}

impl Reserve {
    fn none() -> Self {
        Self {
            vcpu_milli: 0,
            memory_mib: 0,
            disk_mib: 0,
        }
    }
}
