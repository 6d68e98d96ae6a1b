//! Mutation: what differs between daughters, planned before the fork.
//!
//! Invariant: a plan is patches for spans, not a thousand plans. It can add identity and narrow limits; it can neither
//! widen what was granted nor reach secrets, networks and files that the operator did not permit.

mod combine;
mod keep;

use serde::{Deserialize, Serialize};

use crate::{Denial, ForkRequest, Id128, Resources, Span};

pub use combine::{DaughterPlan, MutationError, Planned, combine};
pub(crate) use keep::keeps_to;

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This template, expanded for each daughter.
    Template(String),
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Absolute path in the daughter.
    pub path: String,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// What it holds.
    pub content: Content,
}

/// Where a secret's value goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretTarget {
    /// A variable of the environment.
    Env(String),
    /// A file.
    File(String),
}

/// A secret by name; the policy never sees its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Its version; none is the newest.
    pub version: Option<String>,
    /// Where the value goes.
    pub target: SecretTarget,
}

/// A daughter's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// A profile that the operator defined; none keeps the template's.
    pub profile: Option<String>,
    /// Her host name, a template.
    pub hostname: Option<String>,
    /// Where she may connect to, within the profile.
    pub egress_allow: Option<Vec<String>>,
    /// Rate limit, kbit/s.
    pub rate_kbps: Option<u32>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patch {
    /// A variable and its template.
    SetEnv(String, String),
    /// A variable to remove.
    UnsetEnv(String),
    /// A file to write.
    WriteFile(File),
    /// A file to remove.
    RemoveFile(String),
    /// Her network.
    Network(Network),
    /// A secret she gets.
    Secret(Secret),
    /// Narrower limits.
    Limits(Resources),
    /// A label and its template.
    Label(String, String),
    /// Mixed into the reseed that she gets anyway.
    EntropyContext(Vec<u8>),
    /// A shorter time to live, milliseconds.
    TtlMs(u64),
    /// A kind that this version of the package has no case for: name and JSON.
    Other(String, String),
}

/// Patches for some of the daughters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which.
    pub daughters: Span,
    /// What, in order.
    pub patches: Vec<Patch>,
}

/// Patches for all, then for some; later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// For all.
    pub shared: Vec<Patch>,
    /// For some.
    pub rules: Vec<Rule>,
}

/// Where a run of daughters was placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRun {
    /// Which.
    pub daughters: Span,
    /// Their node.
    pub node: u32,
    /// Their NUMA domain.
    pub numa: u16,
}

/// A policy's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// This is what differs.
    Plan(Plan),
    /// The fork must not happen.
    Refuse(Denial),
}

/// What is asked: the request as granted, and where its daughters go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// The request. Shape and ttl are what was granted.
    pub request: ForkRequest,
    /// The daughters to plan for.
    pub daughters: Span,
    /// Daughter `i` has id `first_id + i`.
    pub first_id: Id128,
    /// Where they go.
    pub placed: Vec<PlacedRun>,
}
