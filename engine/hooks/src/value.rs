//! Values that every hook shares, mirroring `wit/types.wit`.
//!
//! Invariant: integers and strings only, so that a recorded call replays bit for bit.

use brood_units::MachineId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 128-bit identifier, as in `types.id128`. In text it is 32 hexadecimal digits, since many readers of JSON round numbers
/// of this size; in bytes it is the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id128(u128);

impl Serialize for Id128 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u128(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Id128 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u128::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let digits = text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        let wrong =
            || D::Error::custom(format!("'{text}' is not 32 lower-case hexadecimal digits"));
        if text.len() != 32 || !digits {
            return Err(wrong());
        }
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| wrong())
    }
}

impl Id128 {
    /// From its big-endian halves.
    pub const fn from_halves(hi: u64, lo: u64) -> Self {
        Self(((hi as u128) << 64) | lo as u128)
    }

    /// The high and the low half.
    pub const fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }

    /// The id `index` places after this one; ids wrap around as the integers they are.
    pub const fn plus(self, index: u32) -> Self {
        Self(self.0.wrapping_add(index as u128))
    }
}

impl From<MachineId> for Id128 {
    fn from(id: MachineId) -> Self {
        Self(u128::from_be_bytes(*id.as_bytes()))
    }
}

impl From<Id128> for MachineId {
    fn from(id: Id128) -> Self {
        Self::from_bytes(id.0.to_be_bytes())
    }
}

impl std::fmt::Display for Id128 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Ordered key/value pairs; keys are `[a-z0-9._/-]{1,63}` and the prefix `brood.` is the engine's.
pub type Labels = Vec<(String, String)>;

/// A half-open run of daughters of one request: `first .. first + count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Index of the first daughter.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Span {
    /// One past the last daughter; wider than `u32`, so that it cannot overflow.
    pub const fn end(self) -> u64 {
        self.first as u64 + self.count as u64
    }

    /// Whether every daughter of `self` is one of `outer`.
    pub const fn is_within(self, outer: Self) -> bool {
        self.first >= outer.first && self.end() <= outer.end()
    }

    /// Whether the daughter is one of the run.
    pub const fn contains(self, daughter: u32) -> bool {
        daughter >= self.first && (daughter as u64) < self.end()
    }
}

/// A resource vector, per daughter unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 1/1000 vCPU.
    pub vcpu_milli: u32,
    /// Guest memory ceiling, MiB.
    pub memory_mib: u32,
    /// Writable disk, MiB.
    pub disk_mib: u32,
    /// Further kinds, by name.
    pub more: Vec<(String, i64)>,
}

impl Resources {
    /// How much of a further kind is named here.
    pub fn further(&self, name: &str) -> Option<i64> {
        let found = self.more.iter().find(|(key, _)| key == name);
        found.map(|(_, amount)| *amount)
    }

    /// The smaller of the two, kind by kind; a kind that only one of them names is taken from that one.
    pub fn narrowest(&self, other: &Self) -> Self {
        let mut more = self.more.clone();
        for (name, amount) in &mut more {
            *amount = other.further(name).unwrap_or(*amount).min(*amount);
        }
        let only_there = |(name, _): &&(String, i64)| self.further(name).is_none();
        more.extend(other.more.iter().filter(only_there).cloned());
        Self {
            vcpu_milli: self.vcpu_milli.min(other.vcpu_milli),
            memory_mib: self.memory_mib.min(other.memory_mib),
            disk_mib: self.disk_mib.min(other.disk_mib),
            more,
        }
    }
}

/// What the daughters come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `image`, `template`, `running`, `checkpoint`, `snapshot`.
    pub kind: String,
    /// Its id.
    pub id: Id128,
    /// The template at the root of the lineage.
    pub template: Id128,
    /// Content digest; none for `running` and `checkpoint`.
    pub digest: Option<String>,
    /// Forks between the template and this.
    pub generation: u32,
    /// Guest RAM, MiB.
    pub memory_mib: u32,
    /// RAM that nobody shares, MiB.
    pub private_mib: u32,
    /// Its labels.
    pub labels: Labels,
}

impl Origin {
    /// Whether daughters inherit memory and devices as they are, so that only share, disk and ttl can narrow.
    pub fn is_live(&self) -> bool {
        matches!(self.kind.as_str(), "running" | "checkpoint")
    }
}

/// Who asks, already authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The customer.
    pub tenant: String,
    /// A part of the customer.
    pub project: String,
    /// The user or key.
    pub subject: String,
    /// Labels of the three.
    pub labels: Labels,
}

/// One fork request: `count` daughters of one mother.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRequest {
    /// Id of the request.
    pub id: Id128,
    /// `fork`, `create`, `claim`, `wake`, `resume`, `checkpoint`, `snapshot`, `build`, `extend`.
    pub operation: String,
    /// Who asks.
    pub who: Principal,
    /// What is forked.
    pub mother: Origin,
    /// Daughters asked for.
    pub count: u32,
    /// Fewest daughters the caller takes.
    pub min_count: u32,
    /// What each of them is to have.
    pub shape: Resources,
    /// Time to live, milliseconds.
    pub ttl_ms: Option<u64>,
    /// Higher goes first.
    pub priority: i32,
    /// Labels for the daughters.
    pub labels: Labels,
    /// What else was asked, by well-known name.
    pub asks: Labels,
}

/// Why a hook could not answer. A refusal is an answer, not one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HookError {
    /// Settings are missing or wrong; trying again does not heal it.
    #[error("misconfigured: {0}")]
    Misconfigured(String),
    /// A fact or a host service is missing; trying again may help.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A refusal, in the policy's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// `policy`, `quota`, `budget`, `capacity`, `malformed`, or the policy's own.
    pub code: String,
    /// For the caller.
    pub message: String,
    /// When asking again may help, milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// What the operator lets the answers of one binding reach for, beyond narrowing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// Secrets it may name.
    pub secrets: Vec<String>,
    /// Network profiles it may choose.
    pub network_profiles: Vec<String>,
    /// Directories below which it may write or remove files; each absolute.
    pub file_roots: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_counts_across_its_halves_and_is_a_machine_id() {
        let id = Id128::from_halves(1, u64::MAX);
        assert_eq!(id.plus(1).halves(), (2, 0));
        assert_eq!(Id128::from(MachineId::from(id)), id);
    }

    #[test]
    fn span_at_the_end_of_the_range_does_not_wrap() {
        let all = Span { first: 0, count: 8 };
        let far = Span {
            first: u32::MAX,
            count: u32::MAX,
        };
        assert!(!far.is_within(all));
        assert!(!far.contains(3));
        assert!(Span { first: 7, count: 1 }.is_within(all));
        assert!(!Span { first: 7, count: 2 }.is_within(all));
    }
}
