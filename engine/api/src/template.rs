//! Templates: what machines are made of.

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mistake::Mistakes;
use crate::shape::whole;
use crate::{IdText, Request, Time, limit};

/// What runs in a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuestKind {
    /// The Linux that the operator set up, with an agent.
    #[default]
    Linux,
    /// The engine's own test guest of a few pages, which counts. It has no agent: no exec, no files.
    Bare,
}

/// Who may make machines of a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Its owner.
    #[default]
    Private,
    /// Every tenant. Only an operator publishes.
    Public,
}

/// A template to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// Its name, one of its kind in the tenant: `[a-z0-9][a-z0-9._-]{0,62}`.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "python")]
    pub name: String,
    /// What runs in it.
    #[serde(default)]
    pub guest: GuestKind,
    /// vCPUs of each machine.
    #[serde(default = "one", deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 8, default = 1)]
    pub vcpus: u32,
    /// RAM of each machine, MiB.
    #[serde(default = "memory", deserialize_with = "whole")]
    #[schema(minimum = 64, maximum = 1_048_576, default = 256)]
    pub memory_mib: u32,
    /// Who may use it.
    #[serde(default)]
    pub visibility: Visibility,
}

const fn one() -> u32 {
    1
}

const fn memory() -> u32 {
    256
}

impl Request for TemplateSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::name("/name", &self.name, mistakes);
        if !(1..=8).contains(&self.vcpus) {
            mistakes.out_of_range("/vcpus", "a machine has 1 to 8 vCPUs");
        }
        if !(64..=1_048_576).contains(&self.memory_mib) {
            mistakes.out_of_range("/memory_mib", "a machine has 64 to 1048576 MiB of RAM");
        }
    }
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    /// Its id.
    #[schema(value_type = IdText)]
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// What runs in it.
    pub guest: GuestKind,
    /// vCPUs of each machine.
    pub vcpus: u32,
    /// RAM of each machine, MiB.
    pub memory_mib: u32,
    /// Who may use it.
    pub visibility: Visibility,
    /// Whether it is the caller's tenant's own.
    pub own: bool,
    /// When it was made.
    pub created_at: Time,
}
