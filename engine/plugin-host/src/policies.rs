//! A whole policy file, made ready: its plugins loaded, its bindings bound.
//!
//! Invariant: all of it or none. What is wrong with any plugin or binding is reported with everything else that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brood_hooks::{Admission, Billing, Decide, Hearing, HookName, Mutation, Now, Panel, Placement};
use brood_policy::{BindingSpec, Mode, OnFailure, PluginSpec, PolicySet};

use crate::binding::{Asked, Binding, Fallback, hear_all};
use crate::host::{AddError, BindError, BindableHook, Host};
use crate::plugin::Plugin;

/// The bindings of one hook, in their order.
pub struct Bindings<H: BindableHook>(Vec<Arc<Binding<H>>>);

impl<H: BindableHook> Bindings<H> {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Binding<H>>> {
        self.0.iter()
    }
}

impl<H: BindableHook> Panel<H> for Bindings<H> {
    fn hear(&self, now: Now, ask: H::Ask) -> Hearing<'_, H> {
        Box::pin(hear_all(&self.0, now, Asked::new(ask)))
    }

    fn shadows(&self) -> Vec<(String, String)> {
        let shadows = self.iter().map(|binding| binding.spec());
        let shadows = shadows.filter(|spec| spec.mode == Mode::Shadow);
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
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A component's file cannot be read.
    #[error("plugin {plugin}: {} cannot be read: {source}", path.display())]
    Read {
        /// The plugin.
        plugin: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
        let mut plugins = BTreeMap::new();
        for spec in &set.plugins {
            match add(host, spec, directory) {
                Ok(plugin) => {
                    plugins.insert(spec.id.clone(), plugin);
                }
                Err(error) => errors.0.push(error),
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
            errors: &mut errors,
        };
        let admission = binder.bind::<Admission>(&admission);
        let placement = binder.bind::<Placement>(&no_builtin);
        let mutation = binder.bind::<Mutation>(&no_builtin);
        let billing = binder.bind::<Billing>(&no_builtin);
        if !errors.0.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            plugins,
            admission,
            placement,
            mutation,
            billing,
        })
    }
}

/// Only admission has deciders of the engine.
fn no_builtin<H: BindableHook>(_: &str) -> Option<Fallback<H>> {
    None
}

fn add(host: &Host, spec: &PluginSpec, directory: &Path) -> Result<Arc<Plugin>, OpenError> {
    let path = directory.join(&spec.component);
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file that is too large, however large it is.
    let limit = (host.component_mib() << 20) + 1;
    let read = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|source| OpenError::Read {
        plugin: spec.id.clone(),
        path,
        source,
    })?;
    Ok(host.add(spec, &bytes)?)
}

struct Binder<'a> {
    host: &'a Host,
    set: &'a PolicySet,
    plugins: &'a BTreeMap<String, Arc<Plugin>>,
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
        let mut bound: Vec<Arc<Binding<H>>> = Vec::new();
        for spec in firm {
            bound.extend(self.one(spec, None));
        }
        for spec in falling {
            let OnFailure::Fallback(name) = &spec.on_failure else {
                continue;
            };
            let fallback = match name.strip_prefix("builtin-") {
                Some(name) => builtin(name),
                None => {
                    let there = bound.iter().find(|binding| binding.spec().plugin == *name);
                    there.map(|binding| Fallback::Binding(Arc::clone(binding)))
                }
            };
            if fallback.is_none() {
                let (binding, fallback) = (spec.name(), name.clone());
                self.errors
                    .0
                    .push(OpenError::NoFallback { binding, fallback });
                continue;
            }
            bound.extend(self.one(spec, fallback));
        }
        bound.sort_by_key(|binding| binding.spec().order);
        Bindings(bound)
    }

    /// Nothing for a plugin that was not loaded: that is reported already.
    fn one<H: BindableHook>(
        &mut self,
        spec: BindingSpec,
        fallback: Option<Fallback<H>>,
    ) -> Option<Arc<Binding<H>>> {
        let plugin = self.plugins.get(&spec.plugin)?;
        match self.host.bind(spec, plugin, fallback) {
            Ok(binding) => Some(binding),
            Err(error) => {
                self.errors.0.push(error.into());
                None
            }
        }
    }
}
