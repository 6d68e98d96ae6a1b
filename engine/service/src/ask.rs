//! What a caller asks of a fork, and what the engine knows about whom is forked.
//!
//! Invariant: a [`ForkRequest`] comes out of [`ForkSpec::request`] with a count, a least count and labels that mean
//! something, so that no hook has to doubt them.

use std::collections::{BTreeMap, BTreeSet};

pub use brood_agent_proto::fork::StampFile;
use brood_cell::protocol::MAX_DAUGHTERS;
pub use brood_hooks::mutation::{Secret, SecretTarget};
use brood_hooks::{ForkRequest, Id128, Labels, Origin, Principal, Resources};
use brood_units::MachineId;

/// What a caller asks.
#[derive(Clone, Debug)]
pub struct ForkSpec {
    /// Daughters.
    pub count: u32,
    /// The fewest that the caller takes.
    pub min_count: u32,
    /// Labels for the daughters.
    pub labels: BTreeMap<String, String>,
    /// How long they live, milliseconds; none is for ever.
    pub ttl_ms: Option<u64>,
    /// Variables of their later exec sessions.
    pub env: BTreeMap<String, String>,
    /// Files to write before their workload runs.
    pub files: Vec<StampFile>,
    /// What becomes of the mother's secrets.
    pub secrets: Secrets,
    /// Higher goes first, where policies have requests wait.
    pub priority: i32,
    /// Secrets of the tenant that they get.
    pub give: Vec<Secret>,
    /// What each of them is to have; none is what the mother has.
    pub shape: Option<Resources>,
}

/// What becomes of the secrets that the mother was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Daughters do not get them.
    Drop,
    /// Daughters get them.
    Inherit,
}

impl ForkSpec {
    /// So many daughters, all or none, and nothing else.
    pub fn of(count: u32) -> Self {
        Self {
            count,
            min_count: count,
            labels: BTreeMap::new(),
            ttl_ms: None,
            env: BTreeMap::new(),
            files: Vec::new(),
            secrets: Secrets::Drop,
            priority: 0,
            give: Vec::new(),
            shape: None,
        }
    }
}

/// What daughters are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MotherKind {
    /// A sealed template.
    Template,
    /// A running machine.
    Running,
    /// A frozen point.
    Checkpoint,
    /// A snapshot on disk.
    Snapshot,
    /// The same, of a machine that goes on as herself.
    Hibernated,
}

impl MotherKind {
    /// Its name in `wit/types.wit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Running => "running",
            Self::Checkpoint => "checkpoint",
            Self::Snapshot | Self::Hibernated => "snapshot",
        }
    }

    const fn operation(self) -> &'static str {
        match self {
            Self::Template => "claim",
            Self::Running | Self::Checkpoint | Self::Snapshot => "fork",
            Self::Hibernated => "wake",
        }
    }
}

/// Whom daughters are made of.
#[derive(Clone, Debug)]
pub struct Mother {
    /// What she is.
    pub kind: MotherKind,
    /// Her id.
    pub id: MachineId,
    /// The template at the root of her lineage.
    pub template: MachineId,
    /// Forks between the template and her.
    pub generation: u32,
    /// What she has.
    pub shape: Resources,
    /// RAM that nobody shares with her, MiB.
    pub private_mib: u32,
    /// Her labels.
    pub labels: Labels,
}

/// A request that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a count.
    #[error("count {count} is not in 1 ..= {MAX_DAUGHTERS}: fork several times for more")]
    Count {
        /// What was asked.
        count: u32,
    },
    /// Not a least count.
    #[error("min_count {min_count} is not in 1 ..= {count}, the count")]
    MinCount {
        /// What was asked.
        min_count: u32,
        /// Its bound.
        count: u32,
    },
    /// Not a time to live.
    #[error("ttl 0: leave it out for machines that live until they are ended")]
    Ttl,
    /// Not a label.
    #[error("label '{}': a key is [a-z0-9._/-]{{1,63}} and does not begin with 'brood.'", key.escape_debug())]
    Label {
        /// Its key.
        key: String,
    },
    /// More than the mother has.
    #[error("a daughter has at most what her mother has: {what}")]
    Shape {
        /// Of what.
        what: &'static str,
    },
}

impl ForkSpec {
    /// The request as hooks see it, under the id `id`.
    ///
    /// # Errors
    /// The first part of it that means nothing.
    pub fn request(
        &self,
        id: Id128,
        who: Principal,
        mother: &Mother,
    ) -> Result<ForkRequest, SpecError> {
        let (count, min_count) = (self.count, self.min_count);
        if count == 0 || count > MAX_DAUGHTERS {
            return Err(SpecError::Count { count });
        }
        if min_count == 0 || min_count > count {
            return Err(SpecError::MinCount { min_count, count });
        }
        if self.ttl_ms == Some(0) {
            return Err(SpecError::Ttl);
        }
        check_labels(&self.labels)?;
        let shape = self.shape.clone().unwrap_or_else(|| mother.shape.clone());
        fits(&mother.shape, &shape)?;
        let secrets = match self.secrets {
            Secrets::Drop => "drop",
            Secrets::Inherit => "inherit",
        };
        Ok(ForkRequest {
            id,
            operation: mother.kind.operation().to_owned(),
            who,
            mother: Origin {
                kind: mother.kind.as_str().to_owned(),
                id: mother.id.into(),
                template: mother.template.into(),
                digest: None,
                generation: mother.generation,
                memory_mib: mother.shape.memory_mib,
                private_mib: mother.private_mib,
                labels: mother.labels.clone(),
            },
            count,
            min_count,
            shape,
            ttl_ms: self.ttl_ms,
            priority: self.priority,
            labels: self.labels.clone().into_iter().collect(),
            asks: asks(secrets, &self.give),
        })
    }
}

/// By the names that `wit/types.wit` gives them.
fn asks(secrets: &str, give: &[Secret]) -> Labels {
    let mut asks = vec![("secrets".to_owned(), secrets.to_owned())];
    if !give.is_empty() {
        let names: BTreeSet<_> = give.iter().map(|secret| secret.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        asks.push(("brood.secret-names".to_owned(), names.join(",")));
    }
    asks
}

/// Whether labels can be some: nothing of them is the engine's.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), SpecError> {
    match labels.keys().find(|key| !is_label(key)) {
        Some(key) => Err(SpecError::Label { key: key.clone() }),
        None => Ok(()),
    }
}

fn is_label(key: &str) -> bool {
    let right = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._/-".contains(&c);
    (1..=63).contains(&key.len()) && key.bytes().all(right) && !key.starts_with("brood.")
}

fn fits(mother: &Resources, shape: &Resources) -> Result<(), SpecError> {
    let kinds = [
        ("vcpu_milli", shape.vcpu_milli, mother.vcpu_milli),
        ("memory_mib", shape.memory_mib, mother.memory_mib),
        ("disk_mib", shape.disk_mib, mother.disk_mib),
    ];
    match kinds.into_iter().find(|(_, asked, has)| asked > has) {
        Some((what, ..)) => Err(SpecError::Shape { what }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mother() -> Mother {
        Mother {
            kind: MotherKind::Running,
            id: MachineId::from_bytes([1; 16]),
            template: MachineId::from_bytes([2; 16]),
            generation: 1,
            shape: Resources {
                vcpu_milli: 1000,
                memory_mib: 256,
                ..Resources::default()
            },
            private_mib: 8,
            labels: Vec::new(),
        }
    }

    #[test]
    fn hooks_see_the_names_of_secrets_that_a_caller_gives_and_nothing_else_of_them() {
        let secret = |name: &str| Secret {
            name: name.to_owned(),
            version: None,
            target: SecretTarget::Env("PLACE".to_owned()),
        };
        let spec = ForkSpec {
            give: vec![secret("b"), secret("a"), secret("b")],
            ..ForkSpec::of(1)
        };
        let request = spec.request(Id128::default(), Principal::default(), &mother());
        let asks = request.expect("a request").asks;
        assert!(asks.contains(&("brood.secret-names".to_owned(), "a,b".to_owned())));
        assert!(!format!("{asks:?}").contains("PLACE"));
        let none = ForkSpec::of(1).request(Id128::default(), Principal::default(), &mother());
        assert_eq!(none.expect("a request").asks.len(), 1);
    }

    #[test]
    fn what_means_nothing_is_refused_in_words_before_any_hook_sees_it() {
        let ask = |change: &dyn Fn(&mut ForkSpec)| {
            let mut spec = ForkSpec::of(4);
            change(&mut spec);
            spec.request(Id128::default(), Principal::default(), &mother())
        };
        assert!(ask(&|_| ()).is_ok());
        type Change<'a> = &'a dyn Fn(&mut ForkSpec);
        let refused: [(Change<'_>, &str); 7] = [
            (&|spec| spec.count = 0, "count 0"),
            (&|spec| spec.count = 1_000_000_000, "count 1000000000"),
            (&|spec| spec.min_count = 0, "min_count 0"),
            (&|spec| spec.min_count = 5, "min_count 5"),
            (&|spec| spec.ttl_ms = Some(0), "ttl 0"),
            (
                &|spec| {
                    spec.labels.insert("brood.node".into(), String::new());
                },
                "label 'brood.node'",
            ),
            (
                &|spec| {
                    spec.shape = Some(Resources {
                        memory_mib: 512,
                        ..Resources::default()
                    });
                },
                "memory_mib",
            ),
        ];
        for (change, words) in refused {
            let refusal = ask(change).expect_err(words).to_string();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
