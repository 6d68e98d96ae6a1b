//! What remains of the settings for one tenant: default, class and own limits made one, and limits as holds.

use serde::{Deserialize, Serialize};

use crate::settings::{Limits, Others, Settings, Total, WhenFull};

/// The limits of one tenant, as the review reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    pub(crate) count: Option<u32>,
    pub(crate) vcpu_milli: Option<u32>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) disk_mib: Option<u32>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) depth: Option<u32>,
    pub(crate) operations: Option<Vec<String>>,
    pub(crate) budget_nanos: Option<i64>,
    pub(crate) queue: Option<Queue>,
    pub(crate) labels: Vec<(String, String)>,
    /// The limits of the rules in words, for the denial when one of them is reached.
    pub(crate) words: String,
    /// The shortest time after which a rate may have room again.
    pub(crate) retry_ms: Option<u32>,
}

/// Where requests wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    pub(crate) name: String,
    pub(crate) priority: i32,
    pub(crate) max_wait_ms: u32,
    pub(crate) max_queued: u32,
}

/// One limit that is a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub(crate) scope: Scope,
    pub(crate) gauge: Gauge,
    pub(crate) limit: i64,
}

/// Who shares a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All tenants.
    Total,
    /// The projects of a tenant.
    Tenant,
    /// One project.
    Project,
}

/// What a counter counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gauge {
    /// Machines.
    Live,
    /// 1/1000 virtual CPU.
    VcpuMilli,
    /// MiB of memory.
    MemoryMib,
    /// MiB of disk.
    DiskMib,
    /// Another kind of resource.
    Other(String),
    /// Checkpoints and snapshots.
    Points,
    /// Machines that began within so many milliseconds.
    Rate(u64),
}

impl Policy {
    /// Limits, ready to be reviewed against.
    fn new(limits: &Limits, total: &Total) -> Self {
        let rules = rules(limits, total);
        let rates = limits.rates.iter().flatten();
        let shortest = rates.map(|rate| rate.within_ms.get()).min();
        let queue = (limits.when_full == Some(WhenFull::Queue)).then(|| Queue {
            name: limits.queue.clone().unwrap_or_else(|| "default".to_owned()),
            priority: limits.priority.unwrap_or(0),
            max_wait_ms: limits.max_wait_ms.map_or(60_000, Into::into),
            max_queued: limits.max_queued.unwrap_or(16),
        });
        Self {
            words: words(&rules),
            rules,
            count: limits.max_per_request.map(Into::into),
            vcpu_milli: limits.machine_vcpu_milli.map(Into::into),
            memory_mib: limits.machine_memory_mib.map(Into::into),
            disk_mib: limits.machine_disk_mib.map(Into::into),
            ttl_ms: limits.max_ttl_ms.map(Into::into),
            depth: limits.max_depth,
            operations: limits.operations.clone(),
            budget_nanos: limits.budget_nanos,
            queue,
            labels: limits.labels.clone().into_iter().flatten().collect(),
            retry_ms: shortest.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
        }
    }
}

/// How a tenant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has these limits.
    Limited(Box<Policy>),
    /// It may not fork.
    Denied,
    /// Other bindings decide.
    Unknown,
}

impl Standing {
    /// That of a tenant which the settings list.
    pub(crate) fn of_tenant(settings: &Settings, tenant: &Limits) -> Self {
        let class = tenant.class.as_ref();
        let class = class.and_then(|class| settings.classes.get(class));
        let mut limits = settings.default.clone();
        if let Some(class) = class {
            limits = overridden(&limits, class);
        }
        limits = overridden(&limits, tenant);
        Self::limited(&limits, &settings.total)
    }

    /// That of all others.
    pub(crate) fn of_others(settings: &Settings) -> Self {
        match settings.others {
            Others::Default => Self::limited(&settings.default, &settings.total),
            Others::Deny => Self::Denied,
            Others::Abstain => Self::Unknown,
        }
    }

    fn limited(limits: &Limits, total: &Total) -> Self {
        Self::Limited(Box::new(Policy::new(limits, total)))
    }
}

/// The rules of these limits: those over all tenants last, so that a tenant's own come first in words.
fn rules(limits: &Limits, total: &Total) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add = |scope, gauge, limit: Option<u32>| {
        rules.extend(limit.map(|limit| Rule {
            scope,
            gauge,
            limit: limit.into(),
        }));
    };
    add(Scope::Tenant, Gauge::Live, limits.max_live);
    add(Scope::Project, Gauge::Live, limits.max_live_per_project);
    add(Scope::Tenant, Gauge::VcpuMilli, limits.max_vcpu_milli);
    add(Scope::Tenant, Gauge::MemoryMib, limits.max_memory_mib);
    add(Scope::Tenant, Gauge::DiskMib, limits.max_disk_mib);
    for (kind, limit) in limits.max_other.iter().flatten() {
        add(Scope::Tenant, Gauge::Other(kind.clone()), Some(*limit));
    }
    add(Scope::Tenant, Gauge::Points, limits.max_points);
    for rate in limits.rates.iter().flatten() {
        let gauge = Gauge::Rate(rate.within_ms.get());
        add(Scope::Tenant, gauge, Some(rate.machines.get()));
    }
    add(Scope::Total, Gauge::Live, total.max_live);
    add(Scope::Total, Gauge::VcpuMilli, total.max_vcpu_milli);
    add(Scope::Total, Gauge::MemoryMib, total.max_memory_mib);
    add(Scope::Total, Gauge::DiskMib, total.max_disk_mib);
    rules
}

/// Rules in words: `16 machines, 8 of them in one project, 32768 MiB of memory`.
fn words(rules: &[Rule]) -> String {
    let words: Vec<String> = rules.iter().map(Rule::words).collect();
    words.join(", ")
}

impl Rule {
    pub(crate) fn words(&self) -> String {
        let limit = self.limit;
        let amount = match &self.gauge {
            Gauge::Live => format!("{limit} live machines"),
            Gauge::VcpuMilli => format!("{limit}/1000 vCPU"),
            Gauge::MemoryMib => format!("{limit} MiB of memory"),
            Gauge::DiskMib => format!("{limit} MiB of disk"),
            Gauge::Other(kind) => format!("{limit} of {kind}"),
            Gauge::Points => format!("{limit} checkpoints and snapshots"),
            Gauge::Rate(ms) => format!("{limit} new machines in {}", duration(*ms)),
        };
        match self.scope {
            Scope::Tenant => amount,
            Scope::Project => amount + " in one project",
            Scope::Total => amount + " over all tenants",
        }
    }
}

/// In the largest unit that divides it.
fn duration(ms: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1000, "s"),
    ];
    let unit = units.iter().find(|(length, _)| ms.is_multiple_of(*length));
    match unit {
        Some((length, unit)) => format!("{} {unit}", ms / length),
        None => format!("{ms} ms"),
    }
}

/// Field by field, the second where it says something.
fn overridden(base: &Limits, own: &Limits) -> Limits {
    macro_rules! fields {
        ($($field:ident),*) => {
            Limits { $($field: own.$field.clone().or_else(|| base.$field.clone())),* }
        };
    }
    fields!(
        class,
        max_live,
        max_live_per_project,
        max_vcpu_milli,
        max_memory_mib,
        max_disk_mib,
        max_other,
        max_points,
        rates,
        max_per_request,
        machine_vcpu_milli,
        machine_memory_mib,
        machine_disk_mib,
        max_ttl_ms,
        max_depth,
        operations,
        budget_nanos,
        when_full,
        queue,
        max_wait_ms,
        max_queued,
        priority,
        labels
    )
}
