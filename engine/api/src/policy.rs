//! Policies: what the plugins that are bound to a decision said.

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
