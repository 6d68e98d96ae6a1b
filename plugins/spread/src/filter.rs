//! Which candidates may be used, why others may not, and how many daughters each has room for.
//!
//! Invariant: labels are looked at once for each label set and not for each candidate; reasons are few, and each is
//! listed once.

use brood_plugin::placement::{Candidate, Column, Question};
use brood_plugin::types::HookError;

use crate::score::WHOLE;
use crate::settings::{Fact, Policy};

/// Most reasons in one answer; the last is for whatever has no room in the list.
const MOST_REASONS: usize = 64;

/// Reasons for refusals, each once.
#[derive(Default)]
pub(crate) struct Reasons {
    pub(crate) list: Vec<String>,
}

impl Reasons {
    fn index(&mut self, reason: String) -> u16 {
        let reason = match self.list.len() {
            full if full >= MOST_REASONS - 1 && !self.list.contains(&reason) => {
                "refused for a reason like the others".to_owned()
            }
            _ => reason,
        };
        let known = self.list.iter().position(|known| *known == reason);
        let index = known.unwrap_or(self.list.len());
        if known.is_none() {
            self.list.push(reason);
        }
        u16::try_from(index).unwrap_or(u16::MAX)
    }
}

/// What the labels of a set mean: a refusal, or what preferences add to the score.
type Standing = Result<u64, u16>;

/// The filters for one question.
pub(crate) struct Filter<'a> {
    policy: &'a Policy,
    labelsets: Vec<Standing>,
    facts: Vec<(&'a Fact, &'a Column)>,
    /// How many daughters the engine says fit, by candidate.
    room: Option<&'a Column>,
    /// What a daughter takes: vCPU, memory, disk.
    shares: [u32; 3],
    pub(crate) reasons: Reasons,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(policy: &'a Policy, question: &'a Question) -> Result<Self, HookError> {
        for column in &question.columns {
            if column.values.len() != question.candidates.len() {
                let words = format!(
                    "column {} has not one value for each candidate",
                    column.name
                );
                return Err(HookError::Other(words));
            }
        }
        let column = |name: &str| question.columns.iter().find(|column| column.name == name);
        let mut facts = Vec::with_capacity(policy.columns.len());
        for fact in &policy.columns {
            let missing = || HookError::Unavailable(format!("there is no column {}", fact.name));
            facts.push((fact, column(&fact.name).ok_or_else(missing)?));
        }
        let shape = &question.request.shape;
        let memory = u64::from(shape.memory_mib) * u64::from(policy.memory_permille);
        let memory_share = u32::try_from(memory.div_ceil(1000)).unwrap_or(u32::MAX);
        let mut reasons = Reasons::default();
        let labelsets = question.labelsets.iter();
        let labelsets =
            labelsets.map(|labels| labels_stand(policy, question, labels, &mut reasons));
        Ok(Self {
            policy,
            labelsets: labelsets.collect(),
            facts,
            room: column("brood.room"),
            shares: [shape.vcpu_milli, memory_share, shape.disk_mib],
            reasons,
        })
    }

    pub(crate) fn facts(&self) -> &[(&'a Fact, &'a Column)] {
        &self.facts
    }

    /// What preferences say of a candidate, and how many daughters it may get; or why it gets none.
    pub(crate) fn candidate(
        &mut self,
        index: usize,
        candidate: &Candidate,
    ) -> Result<Place, HookError> {
        let labelset = usize::try_from(candidate.labelset).unwrap_or(usize::MAX);
        let labels = self.labelsets.get(labelset).copied();
        let labels = labels
            .ok_or_else(|| HookError::Other(format!("candidate {index}: no such label set")))?;
        let preferred = match labels {
            Ok(preferred) => preferred,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(reason) = self.busy(index, candidate) {
            return Ok(Err(self.reasons.index(reason)));
        }
        let room = self.room(index, candidate);
        Ok(match room {
            Ok(most) => Ok((preferred, most)),
            Err(reason) => Err(self.reasons.index(reason)),
        })
    }

    fn busy(&self, index: usize, candidate: &Candidate) -> Option<String> {
        if let Some(most) = self
            .policy
            .max_cpu_load
            .filter(|most| candidate.cpu_load > *most)
        {
            return Some(format!("more than {most}/1000 of the CPU are in use"));
        }
        let pressure = candidate.memory_pressure;
        if let Some(most) = self
            .policy
            .max_memory_pressure
            .filter(|most| pressure > *most)
        {
            return Some(format!("memory pressure is above {most}/1000"));
        }
        for (fact, column) in &self.facts {
            let value = column.values.get(index).copied().unwrap_or(0);
            if let Some(least) = fact.least.filter(|least| value < *least) {
                return Some(format!("{} is below {least}", fact.name));
            }
            if let Some(most) = fact.most.filter(|most| value > *most) {
                return Some(format!("{} is above {most}", fact.name));
            }
        }
        None
    }

    /// How many daughters a candidate may get, by limits and by room.
    fn room(&self, index: usize, candidate: &Candidate) -> Result<u32, String> {
        let mut most = self.policy.max_per_domain.unwrap_or(u32::MAX);
        if let Some(tenant) = self.policy.max_tenant_per_domain {
            most = most.min(tenant.saturating_sub(candidate.tenant_live));
            if most == 0 {
                return Err(format!("the tenant has its {tenant} machines here already"));
            }
        }
        let [vcpu, memory, disk] = self.policy.reserve;
        let (free, [vcpu_share, memory_share, disk_share]) = (&candidate.free, self.shares);
        let fits = fits(free.vcpu_milli, vcpu, vcpu_share)
            .min(fits(free.memory_mib, memory, memory_share))
            .min(fits(free.disk_mib, disk, disk_share));
        let reserves = vcpu > 0 || memory > 0 || disk > 0;
        if fits == 0 && reserves {
            return Err("less than the reserve would stay free".to_owned());
        }
        let said = self.room.and_then(|column| column.values.get(index));
        let room = match said {
            Some(room) => u32::try_from((*room).max(0)).unwrap_or(u32::MAX),
            // The engine has dropped what cannot fit, so one fits in any case.
            None => fits.max(1),
        };
        if room == 0 {
            return Err("no room".to_owned());
        }
        Ok(most.min(if reserves { room.min(fits) } else { room }))
    }
}

/// What is said of a candidate: what preferences add, and the most daughters it may get; or the index of a reason.
pub(crate) type Place = Result<(u64, u32), u16>;

/// How many shares fit into what is free above a reserve.
fn fits(free: u32, reserve: u32, share: u32) -> u32 {
    free.saturating_sub(reserve)
        .checked_div(share)
        .unwrap_or(u32::MAX)
}

fn labels_stand(
    policy: &Policy,
    question: &Question,
    labels: &[(String, String)],
    reasons: &mut Reasons,
) -> Standing {
    let has = |key: &str, value: &str| labels.iter().any(|(k, v)| k == key && v == value);
    let asked = question.request.labels.iter();
    let asked = asked.filter_map(|(key, value)| Some((key.strip_prefix("node/")?, value.as_str())));
    let required = policy
        .require
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in required.chain(asked) {
        if !has(key, value) {
            return Err(reasons.index(format!("label {key} is not {value}")));
        }
    }
    for (key, value) in labels {
        if let Some(taint) = key.strip_prefix("taint/")
            && !is_tolerated(policy, question, taint, value)
        {
            return Err(reasons.index(format!("taint {taint} is not tolerated")));
        }
    }
    let preferred = policy
        .prefer
        .iter()
        .filter(|(key, value, _)| has(key, value));
    Ok(preferred
        .map(|(_, _, weight)| u64::from(*weight) * u64::from(WHOLE))
        .sum())
}

fn is_tolerated(policy: &Policy, question: &Question, taint: &str, value: &str) -> bool {
    let by_request = question.request.labels.iter().any(|(key, tolerated)| {
        key.strip_prefix("tolerate/") == Some(taint) && (tolerated == "*" || tolerated == value)
    });
    by_request || policy.tolerate.iter().any(|tolerated| tolerated == taint)
}
