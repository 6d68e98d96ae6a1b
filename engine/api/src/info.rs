//! What this server is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::key::Scope;

/// What this server is, and who the caller is to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// Its version.
    pub version: String,
    /// The caller's tenant.
    pub tenant: String,
    /// The caller's project.
    pub project: String,
    /// What the caller's key allows.
    pub scopes: Vec<Scope>,
    /// What it takes at most.
    pub limits: Limits,
    /// The number of the last event, of whichever tenant: who follows from it on sees what happens from now on.
    #[serde(default)]
    pub last_event: i64,
}

/// What a server takes at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Daughters of one fork.
    pub daughters: u32,
    /// Bytes of a JSON body.
    pub body_bytes: u64,
}

/// Whether the server lives, or is ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
