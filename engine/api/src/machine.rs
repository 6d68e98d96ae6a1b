//! Machines: made of templates, mothers and daughters of each other.

use std::collections::BTreeMap;

use brood_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::mistake::Mistakes;
use crate::page::{check_limit, from_text};
use crate::{Cursor, IdText, Request, Span, Time, limit, shape};

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its vCPUs run.
    Running,
    /// They stand still.
    Paused,
    /// It is a frozen point.
    Frozen,
    /// It is on disk alone, until it is woken.
    Hibernated,
    /// It is gone.
    Ended,
}

/// What a row of a lineage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A machine.
    Machine,
    /// A frozen point of one.
    Checkpoint,
}

/// A machine to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Of which template: its name or its id.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "python")]
    pub template: String,
    /// Its name, one of its kind among the tenant's living machines.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub name: Option<String>,
    /// Labels, to find it by and for policies to look at.
    #[schema(schema_with = shape::labels)]
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it lives; until it is ended if not said.
    pub ttl: Option<Span>,
    /// How long nobody may ask anything of it before it ends; looking at it does not count. For ever if not said.
    pub idle: Option<Span>,
}

impl Request for MachineSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::named("/template", &self.template, mistakes);
        if let Some(name) = &self.name {
            limit::name("/name", name, mistakes);
        }
        limit::labels(&self.labels, mistakes);
        limit::ttl(self.ttl, mistakes);
        limit::idle(self.idle, mistakes);
    }
}

/// What a named machine is made as if there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedMachineSpec {
    /// Of which template: its name or its id.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", example = "python")]
    pub template: String,
    /// Labels.
    #[schema(schema_with = shape::labels)]
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it lives; until it is ended if not said.
    pub ttl: Option<Span>,
    /// How long nobody may ask anything of it before it ends; looking at it does not count. For ever if not said.
    pub idle: Option<Span>,
}

/// How long a machine lives from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TtlSpec {
    /// From now, and at most as long as it was admitted to live; as it was admitted if not said.
    pub ttl: Option<Span>,
}

impl Request for TtlSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::ttl(self.ttl, mistakes);
    }
}

impl NamedMachineSpec {
    /// The same as a machine with this name.
    pub fn named(self, name: String) -> MachineSpec {
        MachineSpec {
            template: self.template,
            name: Some(name),
            labels: self.labels,
            ttl: self.ttl,
            idle: self.idle,
        }
    }
}

impl Request for NamedMachineSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        limit::named("/template", &self.template, mistakes);
        limit::labels(&self.labels, mistakes);
        limit::ttl(self.ttl, mistakes);
        limit::idle(self.idle, mistakes);
    }
}

/// Which machines to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct MachineListQuery {
    /// The most machines of a page, 100 if not said.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "from_text")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<Cursor>,
    /// Only those with this label, `key=value`.
    #[param(example = "team=a", pattern = "^[^=]+=.*$")]
    pub label: Option<String>,
    /// `true` for those that have ended instead of those alive.
    #[serde(default, deserialize_with = "from_text")]
    pub ended: Option<bool>,
}

impl MachineListQuery {
    /// The label's key and value.
    pub fn label(&self) -> Option<(&str, &str)> {
        self.label
            .as_deref()
            .and_then(|label| label.split_once('='))
    }

    /// Which part of the list.
    pub fn page(&self) -> crate::ListQuery {
        crate::ListQuery {
            limit: self.limit,
            cursor: self.cursor,
        }
    }
}

impl Request for MachineListQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        check_limit(self.limit, mistakes);
        if self.label.is_some() && self.label().is_none_or(|(key, _)| key.is_empty()) {
            mistakes.out_of_range("label", "a label is asked for as key=value");
        }
    }
}

/// How much goes when a machine is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EndQuery {
    /// `true` to end all its descendants as well.
    #[serde(default, deserialize_with = "from_text")]
    pub cascade: Option<bool>,
}

impl Request for EndQuery {
    fn check(&self, _: &mut Mistakes) {}
}

/// What was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndAnswer {
    /// Each machine and checkpoint, the one asked for first.
    #[schema(value_type = Vec<IdText>)]
    pub ended: Vec<MachineId>,
}

/// A machine or a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Its id.
    #[schema(value_type = IdText)]
    pub id: MachineId,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A part of the tenant.
    pub project: String,
    /// What it does.
    pub state: State,
    /// Whom it was forked from; none for one that was made of a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<IdText>)]
    pub mother: Option<MachineId>,
    /// The first machine of its lineage.
    #[schema(value_type = IdText)]
    pub lineage: MachineId,
    /// The template at the root.
    #[schema(value_type = IdText)]
    pub template: MachineId,
    /// Forks between the first machine and this one.
    pub generation: u32,
    /// 1/1000 vCPU that it may use.
    pub vcpu_milli: u32,
    /// RAM that it may use, MiB.
    pub memory_mib: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it came to be.
    pub created_at: Time,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// How long nobody may ask anything of it before it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// What it costs at this moment, where that was asked for and can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<MachineStats>,
}

/// What a machine costs its host at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineStats {
    /// Memory that nobody shares with it, KiB. Nothing else comes back when it ends.
    pub private_kib: u64,
    /// The same with its part of what it shares (Pss), KiB: those of all machines add up to what they take together.
    pub pss_kib: u64,
}

/// What of a lineage is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    /// `true` to show what each costs as well.
    #[serde(default, deserialize_with = "from_text")]
    pub stats: Option<bool>,
}

impl Request for TreeQuery {
    fn check(&self, _: &mut Mistakes) {}
}

/// A lineage: everybody, mothers before daughters. Who is whose daughter says `mother`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tree {
    /// The first machine.
    #[schema(value_type = IdText)]
    pub lineage: MachineId,
    /// Everybody of it, alive and ended.
    pub nodes: Vec<Machine>,
}
