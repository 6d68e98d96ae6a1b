//! The way of a fork: admission → placement → mutation plan → fork → stamp.
//!
//! ```text
//!  Asked ─ review ─► Reviewed ─ commit ─► Admitted ─ place ─► Placed ─ plan ─► Stamps ─ fork ─► Born ─ stamp ─► daughters
//!           hook       holds                hook               hook                                     each with her own
//!             └──────────┴───────────────────┴───────────────────┴─► Stopped: who, why, units to give back
//! ```
//!
//! Invariant: each stage consumes the one before, so that nothing is forked here without a verdict, nor stamped without a
//! plan. One call a hook, however many daughters; all of them happen before the fork, and what they decide is a function
//! of the values that are passed in. No lock is needed but that of the holds, for one call.

mod act;
mod admit;
mod bare;
mod place;
mod plan;
mod secret;

use std::collections::BTreeMap;
use std::time::Duration;

use brood_agent_proto::fork::StampFile;
use brood_hooks::{Admission, Billing, Denial, ForkRequest, Mutation, Now, Panel, Placement};

use crate::ask::{ForkSpec, Secret, Secrets};
use crate::decision::Decision;
use crate::hold::Held;
use crate::line::Deferred;
use crate::secret::OpenError;
use crate::snapshot::SnapshotError;

pub use act::{Born, Fledged, Pause};
pub use admit::{Admitted, Reviewed};
pub use bare::Hatched;
pub use place::{Allowed, Node, Placed};
pub use plan::{Stamp, Stamps};
pub use secret::{Safe, StampSecrets};

/// Everybody who is bound to a hook.
pub struct Panels {
    /// May it happen?
    pub admission: Box<dyn Panel<Admission>>,
    /// Where?
    pub placement: Box<dyn Panel<Placement>>,
    /// What differs?
    pub mutation: Box<dyn Panel<Mutation>>,
    /// What does it cost?
    pub billing: Box<dyn Panel<Billing>>,
}

/// A request that nobody has decided on.
#[derive(Debug)]
pub struct Asked {
    now: Now,
    request: ForkRequest,
    env: BTreeMap<String, String>,
    files: Vec<StampFile>,
    secrets: Secrets,
    give: Vec<Secret>,
}

impl Asked {
    /// A request at an instant, which is the same for all its hooks.
    pub fn new(now: Now, request: ForkRequest, spec: &ForkSpec) -> Self {
        Self {
            now,
            request,
            env: spec.env.clone(),
            files: spec.files.clone(),
            secrets: spec.secrets,
            give: spec.give.clone(),
        }
    }
}

/// A request that goes no further. The mother is not touched.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Stopped {
    /// Why.
    pub why: Why,
    /// What was said until then.
    pub decisions: Vec<Decision>,
    /// Of bindings that only warn, or failed open.
    pub warnings: Vec<String>,
    /// Units that were held for it.
    pub held: Option<Held>,
    /// How long it stood in line before.
    pub waited: Option<Duration>,
}

/// Why a request goes no further.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// A policy says no.
    #[error("{by} denies it ({}): {}", denial.code, denial.message)]
    Denied {
        /// The binding.
        by: String,
        /// Its own words.
        denial: Denial,
    },
    /// A policy says not now.
    #[error("{} has it wait in {} for {} ms at most", .0.group.binding, .0.group.queue, .0.max_wait_ms)]
    Queued(Box<Deferred>),
    /// There is no place.
    #[error("{0}")]
    Placement(#[from] brood_hooks::placement::PlacementError),
    /// Policies do not agree on a plan.
    #[error("{0}")]
    Mutation(#[from] brood_hooks::mutation::MutationError),
    /// A plan that does not hold for one daughter.
    #[error("the plan for daughter {daughter} does not hold: {flaw}")]
    Plan {
        /// Her index.
        daughter: u32,
        /// What is wrong.
        flaw: String,
    },
    /// A secret that daughters are to get cannot be had.
    #[error("{0}")]
    Secret(#[from] OpenError),
    /// The guest has no agent that could do what the plan asks.
    #[error(
        "a bare guest has no agent that could set variables, write files or take secrets: leave `env` and `files` out, have no policy give secrets, or use a template with a Linux guest"
    )]
    NoAgent,
    /// The snapshot cannot be used.
    #[error("{0}")]
    Snapshot(SnapshotError),
    /// The fork failed.
    #[error("{0:#}")]
    Fork(anyhow::Error),
}

/// What every stage carries along.
#[derive(Debug)]
struct Course {
    now: Now,
    request: ForkRequest,
    env: BTreeMap<String, String>,
    files: Vec<StampFile>,
    secrets: Secrets,
    give: Vec<Secret>,
    decisions: Vec<Decision>,
    warnings: Vec<String>,
    held: Option<Held>,
    /// The tenant's machines that were alive when policies were asked.
    live: u32,
}

impl Course {
    fn stopped(self, why: impl Into<Why>) -> Box<Stopped> {
        Box::new(Stopped {
            why: why.into(),
            decisions: self.decisions,
            warnings: self.warnings,
            held: self.held,
            waited: None,
        })
    }
}

#[cfg(test)]
mod tests;
