//! One plan out of several, and the plan of each daughter.
//!
//! Invariant: within one policy later patches win; two policies that want different things of one target fail the fork.
//! Neither N daughters nor N templates are expanded here: spans are cut where rules begin and end.

use std::collections::BTreeMap;

use super::{Brief, Content, Network, Outcome, Patch, Secret, SecretTarget};
use crate::check::Malformed;
use crate::{Daughter, Denial, Failure, Heard, Mutation, Resources, Said, Span, Template};

/// What all policies plan, for every daughter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    segments: Vec<(Span, BTreeMap<Target, Wish>)>,
    /// Of bindings that only warn, or failed open.
    pub warnings: Vec<String>,
}

/// What one patch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Env(String),
    File(String),
    Profile,
    Hostname,
    Egress,
    Rate,
    Limits,
    Label(String),
    Entropy(String),
    Ttl,
}

/// What is wanted of a target, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    by: String,
    patch: Patch,
}

/// No plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MutationError {
    /// A policy refuses the fork.
    #[error("{by}: {}", denial.message)]
    Refused {
        /// The binding.
        by: String,
        /// Its words.
        denial: Denial,
    },
    /// A binding that fails closed failed.
    #[error("{binding} failed: {failure}")]
    Failed {
        /// The binding.
        binding: String,
        /// Why.
        failure: Failure,
    },
    /// Two policies disagree.
    #[error("{one} and {other} disagree about {target} of daughters {} to {}", span.first, span.end())]
    Disagreement {
        /// The first.
        one: String,
        /// The second.
        other: String,
        /// What about.
        target: String,
        /// Whose.
        span: Span,
    },
}

/// What one daughter gets from policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaughterPlan {
    /// Variables to set.
    pub env: BTreeMap<String, String>,
    /// Variables to remove.
    pub unset_env: Vec<String>,
    /// Files to write: path to mode and content.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Files to remove.
    pub remove_files: Vec<String>,
    /// Her network.
    pub network: Network,
    /// Secrets she gets.
    pub secrets: Vec<Secret>,
    /// Narrower limits.
    pub limits: Option<Resources>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Mixed into her reseed, from each policy in order of bindings' names.
    pub entropy_context: Vec<Vec<u8>>,
    /// A shorter time to live, milliseconds.
    pub ttl_ms: Option<u64>,
}

/// Combines what every binding plans.
pub fn combine(brief: &Brief, said: &[Said<Mutation>]) -> Result<Planned, MutationError> {
    let mut planned = Planned::default();
    let mut plans = Vec::new();
    for one in said {
        let binding = &one.binding;
        planned.warnings.extend(one.warning());
        match &one.heard {
            Heard::Failed(failure) => {
                let (binding, failure) = (binding.clone(), failure.clone());
                return Err(MutationError::Failed { binding, failure });
            }
            Heard::Ignored(_) => {}
            Heard::Warned(answer) => planned.warnings.push(match answer.answer() {
                Outcome::Plan(_) => format!("{binding} only warns: its plan is not applied"),
                Outcome::Refuse(denial) => format!("{binding} would refuse: {}", denial.message),
            }),
            Heard::Enforced(answer) => match answer.answer() {
                Outcome::Refuse(denial) => {
                    let (by, denial) = (binding.clone(), denial.clone());
                    return Err(MutationError::Refused { by, denial });
                }
                Outcome::Plan(plan) => plans.push((binding, plan)),
            },
        }
    }
    let all = brief.daughters;
    let mut cuts = vec![u64::from(all.first), all.end()];
    let rules = plans.iter().flat_map(|(_, plan)| &plan.rules);
    cuts.extend(rules.flat_map(|rule| [u64::from(rule.daughters.first), rule.daughters.end()]));
    cuts.sort_unstable();
    cuts.dedup();
    for pair in cuts.windows(2) {
        let [first, end] = *pair else { continue };
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let count = u32::try_from(end.saturating_sub(first.into())).unwrap_or(u32::MAX);
        let span = Span { first, count };
        let mut wishes = BTreeMap::new();
        for (binding, plan) in &plans {
            let rules = plan
                .rules
                .iter()
                .filter(|rule| span.is_within(rule.daughters));
            let patches = plan
                .shared
                .iter()
                .chain(rules.flat_map(|rule| &rule.patches));
            let mut own = BTreeMap::new();
            for patch in patches {
                wish(&mut own, binding, patch);
            }
            join(&mut wishes, own, span)?;
        }
        planned.segments.push((span, wishes));
    }
    Ok(planned)
}

fn patches(wishes: &BTreeMap<Target, Wish>) -> impl Iterator<Item = (&Target, &Patch)> {
    let each = wishes.iter().map(|(target, wish)| (target, &wish.patch));
    each.filter(|(target, _)| !matches!(target, Target::Entropy(_)))
}

fn wish(own: &mut BTreeMap<Target, Wish>, by: &str, patch: &Patch) {
    let mut put = |target, patch| {
        own.insert(
            target,
            Wish {
                by: by.to_owned(),
                patch,
            },
        );
    };
    let target = match patch {
        Patch::SetEnv(name, _) | Patch::UnsetEnv(name) => Target::Env(name.clone()),
        Patch::WriteFile(file) => Target::File(file.path.clone()),
        Patch::RemoveFile(path) => Target::File(path.clone()),
        Patch::Secret(secret) => match &secret.target {
            SecretTarget::Env(name) => Target::Env(name.clone()),
            SecretTarget::File(path) => Target::File(path.clone()),
        },
        Patch::Limits(_) => Target::Limits,
        Patch::Label(label, _) => Target::Label(label.clone()),
        Patch::EntropyContext(_) => Target::Entropy(by.to_owned()),
        Patch::TtlMs(_) => Target::Ttl,
        // Each part of a network is a target of its own; a check has refused other kinds.
        Patch::Network(network) => {
            let parts = [
                (Target::Profile, network.profile.is_some()),
                (Target::Hostname, network.hostname.is_some()),
                (Target::Egress, network.egress_allow.is_some()),
                (Target::Rate, network.rate_kbps.is_some()),
            ];
            for (target, _) in parts.into_iter().filter(|(_, there)| *there) {
                put(target, patch.clone());
            }
            return;
        }
        Patch::Other(..) => return,
    };
    put(target, patch.clone());
}

/// Adds one policy's wishes. What only narrows is joined, anything else must agree.
fn join(
    wishes: &mut BTreeMap<Target, Wish>,
    own: BTreeMap<Target, Wish>,
    span: Span,
) -> Result<(), MutationError> {
    for (target, wish) in own {
        let Some(already) = wishes.get_mut(&target) else {
            wishes.insert(target, wish);
            continue;
        };
        match (&mut already.patch, &wish.patch) {
            (Patch::Limits(one), Patch::Limits(other)) => *one = one.narrowest(other),
            (Patch::TtlMs(one), Patch::TtlMs(other)) => *one = (*one).min(*other),
            (Patch::Network(one), Patch::Network(other)) if target == Target::Rate => {
                one.rate_kbps = one.rate_kbps.min(other.rate_kbps);
            }
            (Patch::Network(one), Patch::Network(other)) if agree(&target, one, other) => {}
            (one, other) if one == other => {}
            _ => {
                return Err(MutationError::Disagreement {
                    one: already.by.clone(),
                    other: wish.by,
                    target: format!("{target:?}"),
                    span,
                });
            }
        }
    }
    Ok(())
}

fn agree(target: &Target, one: &Network, other: &Network) -> bool {
    match target {
        Target::Profile => one.profile == other.profile,
        Target::Hostname => one.hostname == other.hostname,
        Target::Egress => one.egress_allow == other.egress_allow,
        _ => false,
    }
}

impl Planned {
    /// Whether every daughter gets the same from both. Who wants it, and what is mixed into her reseed, make no difference.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let within = |(span, wishes): &(Span, BTreeMap<Target, Wish>)| {
            let covers = |(outer, _): &&(Span, _)| span.is_within(*outer) || outer.is_within(*span);
            let mut covering = other.segments.iter().filter(covers);
            covering.all(|(_, others)| patches(wishes).eq(patches(others)))
        };
        self.segments.iter().all(within)
    }

    /// The plan of one daughter, templates expanded. `None` for a daughter that is not of the request.
    pub fn of(&self, daughter: &Daughter) -> Option<Result<DaughterPlan, Malformed>> {
        let holds = |(span, _): &&(Span, _)| span.contains(daughter.index);
        let (_, wishes) = self.segments.iter().find(holds)?;
        Some(expand(wishes, daughter))
    }
}

fn expand(wishes: &BTreeMap<Target, Wish>, daughter: &Daughter) -> Result<DaughterPlan, Malformed> {
    let mut plan = DaughterPlan::default();
    let filled = |text: &str| Template::parse("template", text)?.expand(daughter);
    for (target, wish) in wishes {
        match (target, wish.patch.clone()) {
            (_, Patch::SetEnv(name, template)) => {
                plan.env.insert(name, filled(&template)?);
            }
            (_, Patch::UnsetEnv(name)) => plan.unset_env.push(name),
            (_, Patch::WriteFile(file)) => {
                let content = match file.content {
                    Content::Bytes(bytes) => bytes,
                    Content::Template(template) => filled(&template)?.into_bytes(),
                };
                plan.files.insert(file.path, (file.mode, content));
            }
            (_, Patch::RemoveFile(path)) => plan.remove_files.push(path),
            (_, Patch::Secret(secret)) => plan.secrets.push(secret),
            (_, Patch::Limits(limits)) => plan.limits = Some(limits),
            (_, Patch::Label(label, template)) => {
                plan.labels.insert(label, filled(&template)?);
            }
            (_, Patch::EntropyContext(bytes)) => plan.entropy_context.push(bytes),
            (_, Patch::TtlMs(ttl)) => plan.ttl_ms = Some(ttl),
            (Target::Profile, Patch::Network(network)) => plan.network.profile = network.profile,
            (Target::Hostname, Patch::Network(network)) => {
                plan.network.hostname = network.hostname.as_deref().map(filled).transpose()?;
            }
            (Target::Egress, Patch::Network(network)) => {
                plan.network.egress_allow = network.egress_allow;
            }
            (Target::Rate, Patch::Network(network)) => plan.network.rate_kbps = network.rate_kbps,
            (_, Patch::Network(_) | Patch::Other(..)) => {}
        }
    }
    Ok(plan)
}
