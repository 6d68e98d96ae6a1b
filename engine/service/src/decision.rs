//! What each binding said at one hook, kept for those who look at it afterwards.
//!
//! Invariant: a decision is made of what was heard and changes nothing. A binding that was not heard is there as well, and
//! says so; whatever failed open or fell back is marked.

use std::fmt;

use brood_hooks::admission::{Verdict, WhenFull};
use brood_hooks::{
    Admission, Billing, Heard, Hook, HookName, Mutation, Panel, Placement, Said, billing, mutation,
    placement,
};
use serde::Serialize;

/// One binding's part in what became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The hook.
    pub hook: HookName,
    /// The binding.
    pub binding: String,
    /// Its plugin.
    pub plugin: String,
    /// What it said, in words.
    pub verdict: String,
    /// Whether it counted.
    pub standing: Standing,
    /// Whether it stopped the request.
    pub denies: bool,
    /// Why its component did not answer, where its fallback did.
    pub instead_of: Option<String>,
    /// Microseconds that the call took, rounded up; none where no component was called.
    pub took_us: Option<u64>,
    /// Fuel that it used.
    pub fuel: Option<u64>,
}

/// Whether what a binding said counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counted.
    Enforced,
    /// It was shown, and did not count.
    Warned,
    /// It failed, and was passed over.
    FailedOpen,
    /// It failed, and that counted.
    FailedClosed,
    /// It was asked, and nobody waited for it.
    Shadow,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforced => "enforced",
            Self::Warned => "warns only",
            Self::FailedOpen => "failed open",
            Self::FailedClosed => "failed closed",
            Self::Shadow => "shadow",
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u64>| number.map_or("–".to_owned(), |n| n.to_string());
        let (took, fuel) = (number(self.took_us), number(self.fuel));
        write!(
            f,
            "{:<22} {took:>6} us {fuel:>9} fuel  {}",
            self.binding, self.verdict
        )?;
        if self.standing != Standing::Enforced {
            write!(f, " [{}]", self.standing)?;
        }
        match &self.instead_of {
            Some(failure) => write!(f, " [its fallback's; {failure}]"),
            None => Ok(()),
        }
    }
}

/// A hook whose answers can be put into words.
pub(crate) trait Worded: Hook {
    fn words(answer: &Self::Answer) -> String;
}

/// Everything that was said at a hook, and by whom nothing is heard.
pub(crate) fn decisions<H: Worded>(
    panel: &dyn Panel<H>,
    tenant: &str,
    said: &[Said<H>],
) -> Vec<Decision> {
    let heard = said.iter().map(decision::<H>);
    let shadows = panel
        .shadows(tenant)
        .into_iter()
        .map(|(binding, plugin)| Decision {
            hook: H::NAME,
            binding,
            plugin,
            verdict: "asked and recorded, not heard".to_owned(),
            standing: Standing::Shadow,
            denies: false,
            instead_of: None,
            took_us: None,
            fuel: None,
        });
    heard.chain(shadows).collect()
}

fn decision<H: Worded>(said: &Said<H>) -> Decision {
    let denies = match &said.heard {
        Heard::Enforced(answer) => H::refuses(answer.answer()),
        Heard::Failed(_) => true,
        Heard::Warned(_) | Heard::Ignored(_) => false,
    };
    let (standing, verdict) = match &said.heard {
        Heard::Enforced(answer) => (Standing::Enforced, H::words(answer.answer())),
        Heard::Warned(answer) => (Standing::Warned, H::words(answer.answer())),
        Heard::Ignored(failure) => (Standing::FailedOpen, failure.to_string()),
        Heard::Failed(failure) => (Standing::FailedClosed, failure.to_string()),
    };
    Decision {
        hook: H::NAME,
        binding: said.binding.clone(),
        plugin: said.plugin.clone(),
        verdict,
        standing,
        denies,
        instead_of: said.stands_in.as_ref().map(ToString::to_string),
        took_us: said.spent.map(|spent| spent.took_nanos.div_ceil(1000)),
        fuel: said.spent.map(|spent| spent.fuel),
    }
}

impl Worded for Admission {
    fn words(answer: &Self::Answer) -> String {
        let verdicts: Vec<String> = answer.iter().map(verdict).collect();
        verdicts.join("; ")
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Abstain => "abstains".to_owned(),
        Verdict::Deny(denial) => format!("deny ({}): {}", denial.code, denial.message),
        Verdict::Queue(deferral) => format!("queue in {}", deferral.queue),
        Verdict::Admit(grant) => {
            let full = match &grant.when_full {
                WhenFull::Deny(_) => "deny",
                WhenFull::Queue(_) => "queue",
            };
            let hold =
                |hold: &brood_hooks::admission::Hold| format!("{} of {}", hold.key, hold.limit);
            let holds: Vec<String> = grant.holds.iter().map(hold).collect();
            match holds.as_slice() {
                [] => format!("admit {}", grant.count),
                holds => format!(
                    "admit {}, if {} hold, else {full}",
                    grant.count,
                    holds.join(", ")
                ),
            }
        }
    }
}

impl Worded for Placement {
    fn words(answer: &Self::Answer) -> String {
        let bids = answer.rankings.iter().filter_map(|ranking| match ranking {
            placement::Ranking::Bid(bid) => Some(bid.score),
            placement::Ranking::Reject(_) => None,
        });
        let (count, all) = (bids.clone().count(), answer.rankings.len());
        match bids.max() {
            Some(best) => format!("bids on {count} of {all} places, best score {best}"),
            None => format!("rejects all {all}: {}", answer.reasons.join("; ")),
        }
    }
}

impl Worded for Mutation {
    fn words(answer: &Self::Answer) -> String {
        match answer {
            mutation::Outcome::Refuse(denial) => {
                format!("refuse ({}): {}", denial.code, denial.message)
            }
            mutation::Outcome::Plan(plan) => format!(
                "plan of {} changes for all and {} rules",
                plan.shared.len(),
                plan.rules.len()
            ),
        }
    }
}

impl Worded for Billing {
    fn words(answer: &Self::Answer) -> String {
        let billing::Rated {
            lines,
            waived,
            budgets,
            ..
        } = answer;
        format!(
            "{} lines, {} samples waived, {} budgets",
            lines.len(),
            waived.len(),
            budgets.len()
        )
    }
}
