//! A whole policy file, made ready: its plugins loaded, its bindings bound.
//!
//! Invariant: all of it or none, with everything that is wrong reported at once; but a component whose file cannot be read
//! leaves its bindings to their fail modes, so that an engine starts as it would have gone on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brood_hooks::{
    Admission, Billing, Bound, Decide, Hearing, HookName, Mutation, Now, Panel, Placement, Said,
};
use brood_policy::{BindingSpec, Mode, OnFailure, PluginSpec, PolicySet};

use crate::absent::Absent;
use crate::binding::{Asked, Binding, Fallback, hear_all};
use crate::host::{AddError, BindError, BindableHook, Host};
use crate::plugin::Plugin;

/// The bindings of one hook, in their order.
pub struct Bindings<H: BindableHook> {
    bound: Vec<Arc<Binding<H>>>,
    absent: Vec<Absent<H>>,
}

impl<H: BindableHook> Bindings<H> {
    /// Each of them that has its component.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Binding<H>>> {
        self.bound.iter()
    }

    /// Each of them that has none.
    pub fn absent(&self) -> impl Iterator<Item = &Absent<H>> {
        self.absent.iter()
    }

    fn specs(&self) -> impl Iterator<Item = &BindingSpec> {
        let bound = self.iter().map(|binding| binding.spec());
        bound.chain(self.absent().map(Absent::spec))
    }
}

impl<H: BindableHook> Panel<H> for Bindings<H> {
    fn hear(&self, now: Now, ask: H::Ask) -> Hearing<'_, H> {
        let asked = Asked::new(ask);
        let heard = hear_all(&self.bound, now, Arc::clone(&asked));
        Box::pin(async move {
            let mut said = heard.await;
            let absent = self.absent.iter();
            for absent in absent.filter(|absent| asked.concerns(absent.spec())) {
                said.extend(absent.said(now, &asked).await);
            }
            if !self.absent.is_empty() {
                let order = |said: &Said<H>| {
                    let mut specs = self.specs();
                    specs
                        .find(|spec| spec.name() == said.binding)
                        .map(|spec| spec.order)
                };
                said.sort_by_key(order);
            }
            said
        })
    }

    fn bound(&self) -> Vec<Bound> {
        let there = self.iter().map(|binding| binding.shown());
        let absent = self.absent().map(Absent::shown);
        let mut all: Vec<_> = there.chain(absent).collect();
        all.sort_by_key(|bound| bound.order);
        all
    }

    fn shadows(&self, tenant: &str) -> Vec<(String, String)> {
        let shadows = self
            .specs()
            .filter(|spec| spec.mode == Mode::Shadow && spec.tenants.includes(tenant));
        shadows
            .map(|spec| (spec.name(), spec.plugin.clone()))
            .collect()
    }
}

/// Deciders of the engine that bindings can name as `fallback:builtin-…`.
#[derive(Default)]
pub struct Builtins {
    /// For admission, by the name after `builtin-`.
    pub admission: BTreeMap<String, Arc<dyn Decide<Admission>>>,
}

/// Everything that a policy file binds.
pub struct Policies {
    /// Plugins by id.
    pub plugins: BTreeMap<String, Arc<Plugin>>,
    /// At admission.
    pub admission: Bindings<Admission>,
    /// At placement.
    pub placement: Bindings<Placement>,
    /// At mutation.
    pub mutation: Bindings<Mutation>,
    /// At billing.
    pub billing: Bindings<Billing>,
    /// Components whose files cannot be read, for the operator.
    pub missing: Vec<MissingComponent>,
}

/// A component's file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin}: {} cannot be read: {source}; build it or put it back, and load the policy again", path.display())]
pub struct MissingComponent {
    /// The plugin.
    pub plugin: String,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is not there; no error by itself.
    #[error(transparent)]
    Missing(MissingComponent),
    /// A plugin is not ready.
    #[error(transparent)]
    Add(#[from] AddError),
    /// A binding does not fit.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A binding names a fallback that is not there.
    #[error("binding {binding} falls back to {fallback}, which is not there")]
    NoFallback {
        /// The binding.
        binding: String,
        /// What it names.
        fallback: String,
    },
}

/// Everything that is wrong.
#[derive(Debug, Default)]
pub struct OpenErrors(pub Vec<OpenError>);

impl fmt::Display for OpenErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "\n" };
            write!(f, "{between}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for OpenErrors {}

impl Policies {
    /// Loads and binds. Components' paths are relative to `directory`.
    pub fn open(
        host: &Host,
        set: &PolicySet,
        directory: &Path,
        builtins: &Builtins,
    ) -> Result<Self, OpenErrors> {
        let mut errors = OpenErrors::default();
        let (mut plugins, mut missing) = (BTreeMap::new(), Vec::new());
        for spec in &set.plugins {
            let bytes = match read(host, spec, directory) {
                Ok(bytes) => bytes,
                Err(error) => {
                    missing.push(error);
                    continue;
                }
            };
            match host.add(spec, &bytes) {
                Ok(plugin) => {
                    plugins.insert(spec.id.clone(), plugin);
                }
                Err(error) => errors.0.push(error.into()),
            }
        }
        let admission = |name: &str| {
            let decider = builtins.admission.get(name)?;
            Some(Fallback::Builtin(Arc::clone(decider)))
        };
        let mut binder = Binder {
            host,
            set,
            plugins: &plugins,
            missing: &missing,
            errors: &mut errors,
        };
        let admission = binder.bind::<Admission>(&admission);
        let placement = binder.bind::<Placement>(&no_builtin);
        let mutation = binder.bind::<Mutation>(&no_builtin);
        let billing = binder.bind::<Billing>(&no_builtin);
        if !errors.0.is_empty() {
            errors.0.extend(missing.into_iter().map(OpenError::Missing));
            return Err(errors);
        }
        Ok(Self {
            plugins,
            admission,
            placement,
            mutation,
            billing,
            missing,
        })
    }
}

/// Only admission has deciders of the engine.
fn no_builtin<H: BindableHook>(_: &str) -> Option<Fallback<H>> {
    None
}

fn read(host: &Host, spec: &PluginSpec, directory: &Path) -> Result<Vec<u8>, MissingComponent> {
    let path = directory.join(&spec.component);
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file that is too large, however large it is.
    let limit = (host.component_mib() << 20) + 1;
    let read = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    let plugin = spec.id.clone();
    read.map(|_| bytes).map_err(|source| MissingComponent {
        plugin,
        path,
        source,
    })
}

struct Binder<'a> {
    host: &'a Host,
    set: &'a PolicySet,
    plugins: &'a BTreeMap<String, Arc<Plugin>>,
    missing: &'a [MissingComponent],
    errors: &'a mut OpenErrors,
}

impl Binder<'_> {
    fn specs(&self, hook: HookName) -> impl Iterator<Item = &BindingSpec> {
        self.set
            .bindings
            .iter()
            .filter(move |spec| spec.hook == hook)
    }

    /// Binds a hook: first those that others fall back to.
    fn bind<H: BindableHook>(
        &mut self,
        builtin: &dyn Fn(&str) -> Option<Fallback<H>>,
    ) -> Bindings<H> {
        let (falling, firm): (Vec<_>, Vec<_>) = self
            .specs(H::NAME)
            .cloned()
            .partition(|spec| matches!(spec.on_failure, OnFailure::Fallback(_)));
        let mut bindings = Bindings {
            bound: Vec::new(),
            absent: Vec::new(),
        };
        for spec in firm {
            self.one(spec, None, &mut bindings);
        }
        for spec in falling {
            let OnFailure::Fallback(name) = &spec.on_failure else {
                continue;
            };
            let fallback = match name.strip_prefix("builtin-") {
                Some(name) => builtin(name),
                None => {
                    let mut bound = bindings.iter();
                    let there = bound.find(|binding| binding.spec().plugin == *name);
                    there.map(|binding| Fallback::Binding(Arc::clone(binding)))
                }
            };
            // One that is absent answers nobody: whoever falls back to it fails closed.
            let absent = bindings.absent().any(|other| other.spec().plugin == *name);
            if fallback.is_none() && !absent {
                let (binding, fallback) = (spec.name(), name.clone());
                self.errors
                    .0
                    .push(OpenError::NoFallback { binding, fallback });
                continue;
            }
            self.one(spec, fallback, &mut bindings);
        }
        bindings.bound.sort_by_key(|binding| binding.spec().order);
        bindings
    }

    /// Nothing for a plugin that was refused: that is reported already.
    fn one<H: BindableHook>(
        &mut self,
        spec: BindingSpec,
        fallback: Option<Fallback<H>>,
        bindings: &mut Bindings<H>,
    ) {
        let missing = self.missing.iter().find(|one| one.plugin == spec.plugin);
        if let Some(missing) = missing {
            let absent = Absent::new(spec, fallback, missing.to_string());
            bindings.absent.push(absent);
            return;
        }
        let Some(plugin) = self.plugins.get(&spec.plugin) else {
            return;
        };
        match self.host.bind(spec, plugin, fallback) {
            Ok(binding) => bindings.bound.push(binding),
            Err(error) => self.errors.0.push(error.into()),
        }
    }
}
