//! One decision out of the verdicts of several policies.
//!
//! Invariant: the decision does not depend on the order of the bindings, except for which of several refusals is quoted
//! first, and is never wider than the narrowest of them.

use std::collections::BTreeMap;

use super::{Deferral, Grant, Hold, Item, Verdict, WhenFull};
use crate::{Admission, Denial, ForkRequest, Heard, Labels, Resources, Said};

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may happen, within this.
    Admitted(Admitted),
    /// It may not. `by` is the binding whose words these are.
    Denied {
        /// The binding.
        by: String,
        /// Its words.
        denial: Denial,
        /// Of bindings that only warn, or failed open.
        warnings: Vec<String>,
    },
    /// It waits.
    Queued {
        /// The binding.
        by: String,
        /// Where.
        deferral: Deferral,
        /// Of bindings that only warn, or failed open.
        warnings: Vec<String>,
    },
}

/// What may happen: the narrowest of all grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Most daughters.
    pub count: u32,
    /// Their shape.
    pub shape: Resources,
    /// Their time to live, milliseconds.
    pub ttl_ms: Option<u64>,
    /// Claims that must fit, each with its owner.
    pub holds: Vec<HeldBy>,
    /// Labels added, sorted.
    pub add_labels: Labels,
    /// For the caller.
    pub warnings: Vec<String>,
}

/// A hold and whose it is. Counters of different plugins are different counters, even under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBy {
    /// The plugin that owns the counter.
    pub plugin: String,
    /// The binding that asked for it.
    pub binding: String,
    /// The claim.
    pub hold: Hold,
    /// What happens when it does not fit.
    pub when_full: WhenFull,
}

/// Decides every item of a call. Each binding's answer covers all items, as [`crate::check`] made sure.
pub fn decide(items: &[Item], said: &[Said<Admission>]) -> Vec<Decision> {
    let decided = items.iter().enumerate();
    decided
        .map(|(index, item)| decide_one(item, index, said))
        .collect()
}

fn decide_one(item: &Item, index: usize, said: &[Said<Admission>]) -> Decision {
    let (mut denied, mut queued) = (None, None::<(String, Deferral)>);
    let mut grants = Vec::new();
    let mut warnings = Vec::new();
    for one in said {
        let by = &one.binding;
        warnings.extend(one.warning());
        match &one.heard {
            Heard::Failed(failure) => {
                denied.get_or_insert_with(|| (by.clone(), unavailable(&failure.to_string())));
            }
            Heard::Ignored(_) => {}
            Heard::Warned(answer) => {
                warnings.extend(
                    answer
                        .answer()
                        .get(index)
                        .and_then(|verdict| warning(by, &item.request, verdict)),
                );
            }
            Heard::Enforced(answer) => match answer.answer().get(index) {
                Some(Verdict::Deny(denial)) => {
                    denied.get_or_insert_with(|| (by.clone(), denial.clone()));
                }
                Some(Verdict::Queue(deferral))
                    if queued
                        .as_ref()
                        .is_none_or(|(_, first)| sooner(deferral, first)) =>
                {
                    queued = Some((by.clone(), deferral.clone()));
                }
                Some(Verdict::Admit(grant)) => grants.push((one, grant)),
                Some(Verdict::Abstain | Verdict::Queue(_)) | None => {}
            },
        }
    }
    if let Some((by, denial)) = denied {
        return Decision::Denied {
            by,
            denial,
            warnings,
        };
    }
    match join(item, &grants, warnings) {
        Err((by, denial, warnings)) => Decision::Denied {
            by,
            denial,
            warnings,
        },
        Ok(admitted) => match queued {
            Some((by, deferral)) => Decision::Queued {
                by,
                deferral,
                warnings: admitted.warnings,
            },
            None => Decision::Admitted(admitted),
        },
    }
}

/// The shortest wait wins; then the lowest priority, then the name, so that order does not matter.
fn sooner(one: &Deferral, other: &Deferral) -> bool {
    let rank = |deferral: &Deferral| {
        (
            deferral.max_wait_ms,
            deferral.priority,
            deferral.queue.clone(),
        )
    };
    rank(one) < rank(other)
}

fn unavailable(message: &str) -> Denial {
    Denial {
        code: "policy-unavailable".to_owned(),
        message: message.to_owned(),
        retry_after_ms: Some(1000),
    }
}

fn warning(by: &str, request: &ForkRequest, verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Abstain => None,
        Verdict::Admit(grant) if grant.count < request.count => Some(format!(
            "{by} would admit {} of {}",
            grant.count, request.count
        )),
        Verdict::Admit(grant) if grant.warnings.is_empty() => None,
        Verdict::Admit(grant) => Some(format!("{by}: {}", grant.warnings.join("; "))),
        Verdict::Deny(denial) => Some(format!("{by} would deny: {}", denial.message)),
        Verdict::Queue(deferral) => Some(format!("{by} would queue in {}", deferral.queue)),
    }
}

/// Whether two decisions let the same happen. Words, warnings, and whose a hold is make no difference.
pub(crate) fn same(one: &Decision, other: &Decision) -> bool {
    match (one, other) {
        (Decision::Denied { .. }, Decision::Denied { .. }) => true,
        (
            Decision::Queued { deferral: one, .. },
            Decision::Queued {
                deferral: other, ..
            },
        ) => one == other,
        (Decision::Admitted(one), Decision::Admitted(other)) => {
            let has = |all: &Admitted, held: &HeldBy| all.holds.iter().any(|a| a.hold == held.hold);
            (one.count, &one.shape, one.ttl_ms, &one.add_labels)
                == (other.count, &other.shape, other.ttl_ms, &other.add_labels)
                && one.holds.iter().all(|held| has(other, held))
                && other.holds.iter().all(|held| has(one, held))
        }
        _ => false,
    }
}

type Refusal = (String, Denial, Vec<String>);

fn join(
    item: &Item,
    grants: &[(&Said<Admission>, &Grant)],
    mut warnings: Vec<String>,
) -> Result<Admitted, Refusal> {
    let request = &item.request;
    let mut labels = BTreeMap::new();
    let mut admitted = Admitted {
        count: request.count,
        shape: request.shape.clone(),
        ttl_ms: request.ttl_ms,
        holds: Vec::new(),
        add_labels: Vec::new(),
        warnings: Vec::new(),
    };
    for (said, grant) in grants {
        admitted.count = admitted.count.min(grant.count);
        if let Some(shape) = &grant.shape {
            admitted.shape = admitted.shape.narrowest(shape);
        }
        let shorter = |ttl: u64| admitted.ttl_ms.map_or(ttl, |already| already.min(ttl));
        admitted.ttl_ms = grant.ttl_ms.map(shorter).or(admitted.ttl_ms);
        for hold in &grant.holds {
            hold_too(&mut admitted.holds, said, hold, &grant.when_full);
        }
        for (label, value) in &grant.add_labels {
            let (owner, already) = labels
                .entry(label.clone())
                .or_insert_with(|| (said.binding.clone(), value.clone()));
            if already != value {
                let message = format!(
                    "{owner} and {} disagree about label {label}: '{already}' and '{value}'",
                    said.binding
                );
                let code = "policy-conflict".to_owned();
                let denial = Denial {
                    code,
                    message,
                    retry_after_ms: None,
                };
                return Err((said.binding.clone(), denial, warnings));
            }
        }
        warnings.extend(
            grant
                .warnings
                .iter()
                .map(|text| format!("{}: {text}", said.binding)),
        );
    }
    admitted.add_labels = labels
        .into_iter()
        .map(|(label, (_, value))| (label, value))
        .collect();
    admitted
        .holds
        .sort_by(|one, other| (&one.plugin, &one.hold.key).cmp(&(&other.plugin, &other.hold.key)));
    admitted.warnings = warnings;
    Ok(admitted)
}

/// Two bindings of one plugin that claim one counter claim it once, by the stricter of the two.
fn hold_too(holds: &mut Vec<HeldBy>, said: &Said<Admission>, hold: &Hold, when_full: &WhenFull) {
    let same = |held: &&mut HeldBy| held.plugin == said.plugin && held.hold.key == hold.key;
    let Some(held) = holds.iter_mut().find(same) else {
        holds.push(HeldBy {
            plugin: said.plugin.clone(),
            binding: said.binding.clone(),
            hold: hold.clone(),
            when_full: when_full.clone(),
        });
        return;
    };
    if hold.limit < held.hold.limit {
        held.binding.clone_from(&said.binding);
        held.when_full = when_full.clone();
    }
    let stricter = &mut held.hold;
    stricter.limit = stricter.limit.min(hold.limit);
    stricter.per_request = stricter.per_request.max(hold.per_request);
    stricter.per_daughter = stricter.per_daughter.max(hold.per_daughter);
    stricter.lasts_ms = match (stricter.lasts_ms, hold.lasts_ms) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (None, _) | (_, None) => None,
    };
}
