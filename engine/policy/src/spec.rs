//! What a policy file says, as values.

use std::path::PathBuf;

use brood_hooks::{HookName, Permits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Breaker, Concurrency, Limits};

/// All plugins and bindings of one configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySet {
    /// Plugins, in order of their ids.
    pub plugins: Vec<PluginSpec>,
    /// Bindings, by hook and then by `order`.
    pub bindings: Vec<BindingSpec>,
}

/// One plugin: a component with settings and state of its own, shared by all its bindings.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// The ID of `[plugin.ID]`.
    pub id: String,
    /// The component's file, as written.
    pub component: PathBuf,
    /// `sha256:…`, if the file pins the component.
    pub digest: Option<String>,
    /// Imports it may have.
    pub grants: Grants,
    /// Settings, handed over as JSON.
    pub settings: Value,
    /// Bounds of its state.
    pub state: StateOptions,
    /// Least severe log line that is kept.
    pub log_level: LogLevel,
}

/// An import that an operator can grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Import {
    /// Log lines.
    Log,
    /// The plugin's own settings.
    Config,
    /// The instant of the call.
    Clock,
    /// The plugin's own state.
    State,
    /// The plugin's own metrics.
    Metrics,
}

impl Import {
    /// All imports.
    pub const ALL: [Self; 5] = [
        Self::Log,
        Self::Config,
        Self::Clock,
        Self::State,
        Self::Metrics,
    ];

    /// Its name in `wit/host.wit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Config => "config",
            Self::Clock => "clock",
            Self::State => "state",
            Self::Metrics => "metrics",
        }
    }
}

/// Imports that an operator grants. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Import>);

impl Grants {
    /// Whether it is granted.
    pub fn has(&self, import: Import) -> bool {
        self.0.contains(&import)
    }
}

/// Bounds of a plugin's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Keys.
    pub keys: u32,
    /// All keys and values together, KiB.
    pub kib: u32,
    /// One value, KiB.
    pub value_kib: u32,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            keys: 4096,
            kib: 1024,
            value_kib: 64,
        }
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of wit/host.wit")]
pub enum LogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// Whether a binding counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It is not asked.
    Off,
    /// It is asked and recorded, nobody waits for it, and its state is discarded.
    Shadow,
    /// It is asked, and what it would have refused is shown as a warning.
    Warn,
    /// It counts.
    #[default]
    Enforce,
}

/// What a failed call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Admission denies, placement and mutation fail the fork, billing holds the batch.
    Closed,
    /// The binding is passed over, and every answer says so.
    Open,
    /// Another plugin or built-in decider is asked in its place; if it fails too, closed.
    Fallback(String),
}

impl OnFailure {
    /// The default of a hook: only a ranking that is missing can be done without.
    pub const fn of(hook: HookName) -> Self {
        match hook {
            HookName::Placement => Self::Open,
            HookName::Admission | HookName::Mutation | HookName::Billing => Self::Closed,
        }
    }
}

/// Where a call's instance comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// A new one for every call: isolated, replayable, microseconds for components in Rust.
    #[default]
    Fresh,
    /// Kept between calls until one fails: for interpreters, which take long to start.
    Warm,
}

/// Whose requests a binding is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tenants {
    /// Everybody's.
    #[default]
    All,
    /// Those of these alone.
    Only(Vec<String>),
    /// Those of everybody else.
    Except(Vec<String>),
}

impl Tenants {
    /// Whether it is asked about a tenant's.
    pub fn includes(&self, tenant: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == tenant);
        match self {
            Self::All => true,
            Self::Only(names) => named(names),
            Self::Except(names) => !named(names),
        }
    }

    /// Whether there can be a tenant about whose both are asked.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Only(names), other) | (other, Self::Only(names)) => {
                names.iter().any(|name| other.includes(name))
            }
            // Tenants come and go: there is always one that neither names.
            (Self::All | Self::Except(_), Self::All | Self::Except(_)) => true,
        }
    }
}

/// One plugin at one hook.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingSpec {
    /// The hook.
    pub hook: HookName,
    /// The plugin's id.
    pub plugin: String,
    /// Unique within its hook; lower is asked and quoted first.
    pub order: u32,
    /// Weight of its scores; placement only.
    pub weight: u32,
    /// Whether it counts.
    pub mode: Mode,
    /// What a failed call means.
    pub on_failure: OnFailure,
    /// What one call may use.
    pub limits: Limits,
    /// How many calls run and wait.
    pub concurrency: Concurrency,
    /// When repeated failures stop the calls.
    pub breaker: Breaker,
    /// What its answers may reach for.
    pub permits: Permits,
    /// Where instances come from.
    pub reuse: Reuse,
    /// Whose requests it is asked about.
    pub tenants: Tenants,
}

impl BindingSpec {
    /// A plugin at a hook, everything else by default.
    pub fn new(hook: HookName, plugin: &str) -> Self {
        Self {
            hook,
            plugin: plugin.to_owned(),
            order: 100,
            weight: 1,
            mode: Mode::default(),
            on_failure: OnFailure::of(hook),
            limits: Limits::of(hook),
            concurrency: Concurrency::default(),
            breaker: Breaker::default(),
            permits: Permits::default(),
            reuse: Reuse::default(),
            tenants: Tenants::default(),
        }
    }

    /// Its name in messages and counters: `admission/quota`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.hook, self.plugin)
    }
}
