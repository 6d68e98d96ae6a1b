//! The host: one engine, the policy threads, the plugins.
//!
//! Invariant: components run on policy threads only; billing has its own, so that rating a month of usage never stands
//! before a fork.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brood_hooks::HookName;
use brood_policy::{BindingSpec, Limits, PluginSpec};
use wasmtime::Engine;

use crate::binding::{About, Binding, Fallback};
use crate::call::{ComponentHook, LogLine, MetricPoint};
use crate::compile::CompileOptions;
use crate::counter::HostCounters;
use crate::engine::{Allocation, EngineError, PoolOptions, running};
use crate::record::{RecordLog, RecordOptions, RecordSink};
use crate::state::{PluginState, StateStore, StateStoreError};
use crate::thread::{Queue, Threads};
use crate::ticker::Ticker;
use crate::version::{LoadError, Loader};
use crate::wit::{self, DIALECTS, Dialect};
use crate::{Plugin, PluginVersion};

/// How the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// How components are compiled.
    pub compile: CompileOptions,
    /// Sizes of the pool.
    pub pool: PoolOptions,
    /// Threads for hooks on the path of a fork.
    pub threads: usize,
    /// Threads for billing.
    pub billing_threads: usize,
    /// Bounds of the decision records.
    pub records: RecordOptions,
    /// What a component may use to describe itself and to take its settings, which can be a large document.
    pub loading: Limits,
}

impl HostOptions {
    /// Defaults, with this way to compile.
    pub fn new(compile: CompileOptions) -> Self {
        Self {
            compile,
            pool: PoolOptions::default(),
            threads: 2,
            billing_threads: 1,
            records: RecordOptions::default(),
            loading: Limits {
                fuel: 1_000_000_000,
                deadline_ms: 5_000,
                memory_mib: 64,
                answer_kib: 4096,
                ..Limits::of(HookName::Billing)
            },
        }
    }
}

/// Is told what plugins log and measure. Called on policy threads: it must not wait.
pub trait Observer: Send + Sync {
    /// Log lines of one call.
    fn log(&self, about: &About, lines: &[LogLine]);
    /// Measurements of one call.
    fn measure(&self, about: &About, points: &[MetricPoint]);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    fn log(&self, _: &About, _: &[LogLine]) {}
    fn measure(&self, _: &About, _: &[MetricPoint]) {}
}

/// What calls share.
pub(crate) struct Shared {
    pub(crate) ticker: Ticker,
    pub(crate) records: RecordLog,
    pub(crate) observer: Arc<dyn Observer>,
}

/// The host.
pub struct Host {
    engine: Engine,
    allocation: Allocation,
    compile: CompileOptions,
    loading: Limits,
    dialects: &'static [Dialect],
    store: Arc<dyn StateStore>,
    pub(crate) shared: Arc<Shared>,
    // A leaf lock.
    counters: Mutex<HostCounters>,
    path: Threads,
    billing: Threads,
}

/// The host could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No thread.
    #[error("a policy thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// A plugin could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// Its component or settings.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its state.
    #[error("the state of plugin {plugin} could not be read")]
    State {
        /// The plugin.
        plugin: String,
        /// Why.
        #[source]
        source: StateStoreError,
    },
}

/// A binding does not fit its plugin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The component has no such hook.
    #[error("plugin {plugin} has no {hook} hook; it exports {exports}")]
    NoSuchHook {
        /// The plugin.
        plugin: String,
        /// What is bound.
        hook: HookName,
        /// What it has.
        exports: String,
    },
    /// The spec is of another plugin or hook.
    #[error("the binding {binding} is not one of plugin {plugin} at {hook}")]
    OtherSpec {
        /// The binding.
        binding: String,
        /// The plugin.
        plugin: String,
        /// The hook.
        hook: HookName,
    },
}

impl Host {
    /// Starts engine and threads. Decision records are kept in memory.
    pub fn start(
        options: &HostOptions,
        store: Arc<dyn StateStore>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        Self::begin(options, store, observer, (None, DIALECTS))
    }

    /// The same, and every decision record goes on to `sink`.
    pub fn start_recording(
        options: &HostOptions,
        store: Arc<dyn StateStore>,
        observer: Arc<dyn Observer>,
        sink: Arc<dyn RecordSink>,
    ) -> Result<Self, StartError> {
        Self::begin(options, store, observer, (Some(sink), DIALECTS))
    }

    pub(crate) fn begin(
        options: &HostOptions,
        store: Arc<dyn StateStore>,
        observer: Arc<dyn Observer>,
        (sink, dialects): (Option<Arc<dyn RecordSink>>, &'static [Dialect]),
    ) -> Result<Self, StartError> {
        let (engine, allocation) = running(options.pool)?;
        let ticker = Ticker::start(engine.clone()).map_err(StartError::Thread)?;
        // Signal stacks of a thread are made once, not within its first call.
        let begin = Engine::tls_eager_initialize;
        let path = Threads::start("policy", options.threads, begin).map_err(StartError::Thread)?;
        let billing = Threads::start("policy-billing", options.billing_threads, begin)
            .map_err(StartError::Thread)?;
        let records = RecordLog::new(options.records, sink);
        let shared = Arc::new(Shared {
            ticker,
            records,
            observer,
        });
        let compile = options.compile.clone();
        Ok(Self {
            engine,
            allocation,
            compile,
            loading: options.loading,
            dialects,
            store,
            shared,
            counters: Mutex::default(),
            path,
            billing,
        })
    }

    /// Largest component, MiB.
    pub(crate) const fn component_mib(&self) -> u64 {
        self.compile.component_mib
    }

    /// How instances are made.
    pub const fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// The decision records.
    pub fn records(&self) -> &RecordLog {
        &self.shared.records
    }

    /// Its counters as they are now.
    pub fn counters(&self) -> HostCounters {
        *self.lock_counters()
    }

    fn lock_counters(&self) -> MutexGuard<'_, HostCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a version ready, without using it. Compiles in a child; not for a thread that others wait on.
    pub fn load(&self, spec: &PluginSpec, bytes: &[u8]) -> Result<PluginVersion, LoadError> {
        let loader = Loader {
            engine: &self.engine,
            dialects: self.dialects,
            compile: &self.compile,
            limits: &self.loading,
            ticker: &self.shared.ticker,
            spec,
        };
        let loaded = loader.ready(bytes);
        let mut counters = self.lock_counters();
        match &loaded {
            Ok(_) => counters.ready += 1,
            Err(_) => counters.refused += 1,
        }
        loaded
    }

    /// Adds a plugin with its component.
    pub fn add(&self, spec: &PluginSpec, bytes: &[u8]) -> Result<Arc<Plugin>, AddError> {
        let version = self.load(spec, bytes)?;
        let state =
            PluginState::load(&spec.id, spec.state, Arc::clone(&self.store)).map_err(|source| {
                AddError::State {
                    plugin: spec.id.clone(),
                    source,
                }
            })?;
        Ok(Arc::new(Plugin::new(
            &spec.id,
            spec.log_level,
            state,
            version,
        )))
    }

    /// Replaces a plugin's component, settings, or both. On an error the version that runs stays.
    pub fn replace(
        &self,
        plugin: &Plugin,
        spec: &PluginSpec,
        bytes: &[u8],
    ) -> Result<(), LoadError> {
        let version = self.load(spec, bytes)?;
        let was = plugin.current();
        let lost = HookName::ALL
            .into_iter()
            .find(|hook| was.has(*hook) && !version.has(*hook));
        if let Some(hook) = lost {
            let message = format!("it has no {hook} hook, which the version before it has");
            return Err(LoadError::Misfit {
                plugin: spec.id.clone(),
                served: wit::served(self.dialects),
                message,
            });
        }
        plugin.replace(version);
        Ok(())
    }

    /// Binds a plugin to a hook.
    pub fn bind<H: BindableHook>(
        &self,
        spec: BindingSpec,
        plugin: &Arc<Plugin>,
        fallback: Option<Fallback<H>>,
    ) -> Result<Arc<Binding<H>>, BindError> {
        let (hook, id) = (H::NAME, plugin.id().to_owned());
        if spec.hook != hook || spec.plugin != id {
            return Err(BindError::OtherSpec {
                binding: spec.name(),
                plugin: id,
                hook,
            });
        }
        let version = plugin.current();
        if !version.has(hook) {
            let exports = HookName::ALL.into_iter().filter(|hook| version.has(*hook));
            let exports: Vec<&str> = exports.map(HookName::as_str).collect();
            return Err(BindError::NoSuchHook {
                plugin: id,
                hook,
                exports: exports.join(", "),
            });
        }
        let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(self.queue(hook)));
        Ok(Arc::new(Binding::new(
            spec,
            Arc::clone(plugin),
            fallback,
            shared,
            queue,
        )))
    }

    fn queue(&self, hook: HookName) -> &Arc<Queue> {
        match hook {
            HookName::Billing => self.billing.queue(),
            HookName::Admission | HookName::Placement | HookName::Mutation => self.path.queue(),
        }
    }
}

/// The hooks that components can have.
#[expect(
    private_bounds,
    reason = "sealed: only this crate knows how to call a component"
)]
pub trait BindableHook: ComponentHook {}
impl<H: ComponentHook> BindableHook for H {}
