//! Tenants: whose machines, templates, keys and secrets are kept apart.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::key::NewKey;
use crate::mistake::Mistakes;
use crate::{Request, Time, limit};

/// A tenant to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// Its name.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "team-a")]
    pub name: String,
}

impl Request for TenantSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::name("/name", &self.name, mistakes);
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Time,
}

/// A tenant that was just made, with its first key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewTenant {
    /// Its name.
    pub name: String,
    /// Its first key, which may do everything but what concerns all tenants.
    pub first_key: NewKey,
}
