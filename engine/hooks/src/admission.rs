//! Admission: may this fork happen, now, in this shape?
//!
//! Invariant: a grant only narrows. Answers of several policies therefore join in any order: deny wins over queue, queue
//! over admit, and admits become the narrowest of them with every hold.

mod combine;
mod keep;

use serde::{Deserialize, Serialize};

use crate::{Denial, ForkRequest, Labels, Resources};

pub(crate) use combine::same;
pub use combine::{Admitted, Decision, HeldBy, decide};
pub(crate) use keep::{denial_is_right, keep_to};

/// What the engine knows about the tenant at this instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Daughters alive.
    pub live: u32,
    /// Requests that wait.
    pub queued: u32,
    /// What the living use together.
    pub in_use: Resources,
    /// 1e-9 currency units left, when a billing binding keeps a budget.
    pub budget_left_nanos: Option<i64>,
    /// Further facts, by well-known name.
    pub more: Labels,
}

/// One request and what is known about who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The request.
    pub request: ForkRequest,
    /// What is known.
    pub facts: Facts,
}

/// A claim on a named counter, which the engine checks and adds in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The counter.
    pub key: String,
    /// Added once.
    pub per_request: i64,
    /// Added for each daughter.
    pub per_daughter: i64,
    /// What the counter must not pass.
    pub limit: i64,
    /// None: until the daughter ends. Some: until this many milliseconds after the commit.
    pub lasts_ms: Option<u64>,
}

/// Permission, at most as wide as the ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Most daughters, within `min_count ..= count` of the request.
    pub count: u32,
    /// Their shape; none keeps what was asked.
    pub shape: Option<Resources>,
    /// Their time to live, milliseconds.
    pub ttl_ms: Option<u64>,
    /// Claims that must fit.
    pub holds: Vec<Hold>,
    /// What happens when they do not.
    pub when_full: WhenFull,
    /// Labels for the daughters.
    pub add_labels: Labels,
    /// Shown to the caller.
    pub warnings: Vec<String>,
}

/// A place in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deferral {
    /// The queue's name.
    pub queue: String,
    /// Higher goes first.
    pub priority: i32,
    /// Longest wait, milliseconds.
    pub max_wait_ms: u32,
}

/// What happens when a hold does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// Refuse in these words.
    Deny(Denial),
    /// Wait, and be reviewed afresh once the holds fit.
    Queue(Deferral),
}

/// One policy's answer to one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No opinion.
    Abstain,
    /// Yes, within this.
    Admit(Grant),
    /// No.
    Deny(Denial),
    /// Not now.
    Queue(Deferral),
}
