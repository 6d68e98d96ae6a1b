//! Policies: who is bound to which decision, and what they said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What one binding said at one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The hook: `admission`, `placement`, `mutation` or `billing`.
    pub hook: String,
    /// The binding.
    pub binding: String,
    /// Its plugin.
    pub plugin: String,
    /// What it said, in words.
    pub verdict: String,
    /// Whether it counted.
    pub standing: Standing,
    /// Why its fallback answered, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Microseconds that the call took, rounded up; none where no component was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Fuel that it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// Whether what a binding said counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// What all bindings said about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decisions {
    /// In the order they were asked.
    pub items: Vec<Decision>,
}

/// A plugin at a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Binding {
    /// The hook: `admission`, `placement`, `mutation` or `billing`.
    pub hook: String,
    /// Its name, as decisions and denials quote it.
    pub binding: String,
    /// The plugin.
    pub plugin: String,
    /// What its component says of its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The component's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `off`, `shadow`, `warn` or `enforce`.
    pub mode: String,
    /// Lower is asked first.
    pub order: u32,
    /// What a failed call means: `closed`, `open` or `fallback:NAME`.
    pub on_failure: String,
    /// The tenants about whose requests it is asked, where it is not all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// The tenants about whose requests it is not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_tenants: Vec<String>,
    /// Why it is not asked, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What became of its calls since it was bound.
    pub calls: CallCounts,
}

/// Calls of a binding, of all tenants together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallCounts {
    /// Answered, and nothing refused.
    pub answered: u64,
    /// Answered with a refusal.
    pub refused: u64,
    /// Failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Failed, and passed over.
    pub failed_open: u64,
    /// Failed, and another was asked in its place.
    pub fell_back: u64,
    /// Of a shadow: would have changed nothing.
    pub agreed: u64,
    /// Of a shadow: would have changed the decision.
    pub disagreed: u64,
    /// Fuel of all of them.
    pub fuel: u64,
}

/// All bindings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bindings {
    /// By hook, in the order in which they are asked.
    pub items: Vec<Binding>,
}
