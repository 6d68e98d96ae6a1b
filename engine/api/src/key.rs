//! Keys that callers authenticate with.
//!
//! Invariant: the key itself is in one answer, the one that made it, and its `Debug` hides it.

use std::fmt;

use brood_units::KeyId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mistake::Mistakes;
use crate::{IdText, Request, Span, Time, limit};

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To look.
    Read,
    /// To make, fork, change and end machines, and to run programs in them.
    Write,
    /// To give out and revoke keys of the tenant.
    Keys,
    /// To do what concerns all tenants.
    Operator,
    /// To read what the engine measures of itself, and nothing else; an operator may as well.
    Metrics,
}

impl Scope {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Read,
        Self::Write,
        Self::Keys,
        Self::Operator,
        Self::Metrics,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Keys => "keys",
            Self::Operator => "operator",
            Self::Metrics => "metrics",
        }
    }
}

/// A key to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// What people call it.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "ci")]
    pub name: String,
    /// What it allows; at most what the caller's own key does.
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// A part of the tenant; `default` if not said.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub project: Option<String>,
    /// How long it is good; until it is revoked if not said.
    pub ttl: Option<Span>,
}

impl Request for KeySpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::name("/name", &self.name, mistakes);
        if let Some(project) = &self.project {
            limit::name("/project", project, mistakes);
        }
        if self.scopes.is_empty() {
            mistakes.out_of_range(
                "/scopes",
                "a key without scopes allows nothing: name at least one",
            );
        }
        limit::ttl(self.ttl, mistakes);
    }
}

/// How a key is rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSpec {
    /// How long the old key stays good, at most as long as it would have been anyway. It ends at once if not said.
    pub grace: Option<Span>,
}

impl Request for RotateSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        if self.grace.is_some_and(|grace| grace.as_millis() == 0) {
            mistakes.out_of_range("/grace", "leave it out to end the old key at once");
        }
    }
}

/// A key, without itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its id, which is no secret.
    #[schema(value_type = IdText)]
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// A part of the tenant.
    pub project: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Time,
    /// Until when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
}

/// A key that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewKey {
    /// What is known of it.
    pub key: Key,
    /// The key itself. It is shown this once and kept nowhere.
    #[schema(example = "brood_…")]
    pub secret: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// All keys of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// Oldest first.
    pub items: Vec<Key>,
}
