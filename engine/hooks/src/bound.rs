//! Who is bound to a hook, for those who look.
//!
//! Invariant: words are those that an operator writes in a policy file; counts only grow.

use std::collections::BTreeMap;

/// A binding as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub binding: String,
    /// The plugin's id.
    pub plugin: String,
    /// What the component says of its version; none where there is no component.
    pub version: Option<String>,
    /// The component's digest; none where there is none.
    pub digest: Option<String>,
    /// The digest of its settings; none where there is no component.
    pub settings: Option<String>,
    /// `off`, `shadow`, `warn` or `enforce`.
    pub mode: String,
    /// Lower is asked first.
    pub order: u32,
    /// `closed`, `open` or `fallback:NAME`.
    pub on_failure: String,
    /// The tenants about whose requests it is asked; none for all.
    pub tenants: Vec<String>,
    /// The tenants about whose requests it is not asked.
    pub except_tenants: Vec<String>,
    /// Why it is not asked: its component is not there, or its breaker is open.
    pub trouble: Option<String>,
    /// Whether its breaker is open: its last calls failed, and the component is left alone for a while.
    pub is_broken: bool,
    /// Calls that run at the moment; of a plugin with state, those of all its bindings.
    pub running: u64,
    /// Calls that wait until others have ended.
    pub waiting: u64,
    /// What became of its calls.
    pub calls: Calls,
}

/// Calls of a binding since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Those that were answered and refused nothing.
    pub answered: u64,
    /// Those that were answered with a refusal.
    pub refused: u64,
    /// Those that failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Failed ones that were passed over.
    pub failed_open: u64,
    /// Failed ones in whose place another was asked.
    pub fell_back: u64,
    /// Of a shadow: answers that would have changed nothing.
    pub agreed: u64,
    /// Of a shadow: answers that would have changed the decision.
    pub disagreed: u64,
    /// Fuel of all of them.
    pub fuel: u64,
    /// Time of all of them, ns.
    pub nanos: u64,
    /// Calls by time taken: those below `2^i` µs, and not below half of that, at `i`; the last counts all that took longer.
    pub latency: Vec<u64>,
}
