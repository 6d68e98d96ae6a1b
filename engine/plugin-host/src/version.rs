//! One version of a plugin: its component and its settings, ready to be called.
//!
//! Invariant: what is ready has been compiled, asks for no import that was not granted, describes itself, and has taken
//! its settings. Nothing of that is left for the first call to find out.

mod error;

use std::collections::BTreeSet;
use std::sync::Arc;

use brood_hooks::HookName;
use brood_policy::{Import, Limits, PluginSpec};
use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};

use crate::Digest;
use crate::call::{self, Context, Place, Settings};
use crate::compile::{self, CompileOptions};
use crate::ticker::Ticker;
use crate::wit::{self, Dialect, Found, Hooks, Introduces};

pub use error::LoadError;

/// The newest version of the package that this host serves.
pub const SERVED: &str = "brood:policy@0.1.0";

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// JSON Schema 2020-12 of its settings.
    pub settings_schema: String,
    /// Metrics it may emit.
    pub metrics: Vec<String>,
}

/// One version of a plugin.
pub struct PluginVersion {
    pub(crate) digest: Digest,
    pub(crate) settings: Settings,
    pub(crate) pre: InstancePre<Context>,
    pub(crate) hooks: Hooks,
    pub(crate) declared: Arc<BTreeSet<String>>,
    description: Description,
    imports: Vec<Import>,
}

impl PluginVersion {
    /// The component's digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of its settings.
    pub const fn settings_digest(&self) -> Digest {
        self.settings.digest
    }

    /// What it says of itself.
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// The imports it asks for.
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// Whether it has the hook.
    pub const fn has(&self, hook: HookName) -> bool {
        match hook {
            HookName::Admission => self.hooks.admission.is_some(),
            HookName::Placement => self.hooks.placement.is_some(),
            HookName::Mutation => self.hooks.mutation.is_some(),
            HookName::Billing => self.hooks.billing.is_some(),
        }
    }

    /// Whether its calls may touch its state, so that they must not overlap.
    pub(crate) fn has_state(&self) -> bool {
        self.imports.contains(&Import::State)
    }
}

/// What versions are made ready with.
pub(crate) struct Loader<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) dialects: &'static [Dialect],
    pub(crate) compile: &'a CompileOptions,
    /// Budgets of `describe` and `prepare`.
    pub(crate) limits: &'a Limits,
    pub(crate) ticker: &'a Ticker,
    pub(crate) spec: &'a PluginSpec,
}

impl Loader<'_> {
    fn plugin(&self) -> String {
        self.spec.id.clone()
    }

    fn served(&self) -> String {
        wit::served(self.dialects)
    }

    fn misfit(&self, error: &wasmtime::Error) -> LoadError {
        let (plugin, served) = (self.plugin(), self.served());
        let message = format!("{error:#}");
        LoadError::Misfit {
            plugin,
            served,
            message,
        }
    }

    /// Compiles, checks and prepares one version.
    pub(crate) fn ready(&self, bytes: &[u8]) -> Result<PluginVersion, LoadError> {
        let compile_failed = |source| LoadError::Compile {
            plugin: self.plugin(),
            source,
        };
        let (digest, component) =
            compile::load(self.engine, self.compile, bytes).map_err(compile_failed)?;
        self.is_pinned(digest)?;
        let imports = self.imports(&component)?;
        let pre = self
            .linker()
            .and_then(|linker| linker.instantiate_pre(&component))
            .map_err(|error| self.misfit(&error))?;
        let (hooks, own) = self.exports(&component, &pre)?;
        let description = self.run("describe", &pre, |store, instance| {
            own.describe(store, instance)
        })?;
        let document = self.spec.settings.to_string();
        let schema = &description.settings_schema;
        let wrong =
            compile::check_schema(self.compile, schema, &document).map_err(compile_failed)?;
        let refused = |diagnostics| LoadError::Settings {
            plugin: self.plugin(),
            diagnostics,
        };
        if !wrong.is_empty() {
            return Err(refused(wrong));
        }
        let prepared = self.run("prepare", &pre, |store, instance| {
            own.prepare(store, instance, &document)
        })?;
        let settings = Settings {
            digest: Digest::of(document.as_bytes()),
            document: document.into(),
            prepared: Arc::new(prepared.map_err(refused)?.into_iter().collect()),
        };
        let declared = Arc::new(description.metrics.iter().cloned().collect());
        Ok(PluginVersion {
            digest,
            settings,
            pre,
            hooks,
            declared,
            description,
            imports,
        })
    }

    fn is_pinned(&self, found: Digest) -> Result<(), LoadError> {
        let Some(pin) = &self.spec.digest else {
            return Ok(());
        };
        let plugin = self.plugin();
        let pinned = match pin.parse() {
            Ok(pinned) => pinned,
            Err(source) => return Err(LoadError::Pin { plugin, source }),
        };
        if pinned == found {
            return Ok(());
        }
        Err(LoadError::OtherDigest {
            plugin,
            pinned,
            found,
        })
    }

    /// The interface that `name`, within the package, stands for, and the version it is of.
    fn interface<'n>(&self, name: &'n str) -> Result<(&'n str, &'static Dialect), LoadError> {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let dialect = self
            .dialects
            .iter()
            .find(|dialect| version.starts_with(dialect.prefix));
        match dialect {
            Some(dialect) => Ok((interface, dialect)),
            None => Err(LoadError::OtherVersion {
                plugin: self.plugin(),
                found: format!("brood:policy@{version}"),
                served: self.served(),
            }),
        }
    }

    /// The imports that a component asks for, all of them granted.
    fn imports(&self, component: &Component) -> Result<Vec<Import>, LoadError> {
        let (mut asked, mut unknown, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for (name, _) in component.component_type().imports(self.engine) {
            let Some(rest) = name.strip_prefix("brood:policy/") else {
                unknown.push(name.to_owned());
                continue;
            };
            let (interface, _) = self.interface(rest)?;
            // Interfaces of types alone give nothing to hold.
            if matches!(interface, "types" | "placement-types") {
                continue;
            }
            match Import::ALL
                .into_iter()
                .find(|import| import.as_str() == interface)
            {
                None => unknown.push(name.to_owned()),
                Some(import) if self.spec.grants.has(import) => asked.push(import),
                Some(import) => missing.push(import.as_str()),
            }
        }
        let plugin = self.plugin();
        if !unknown.is_empty() {
            let (asked, served) = (unknown.join(", "), self.served());
            return Err(LoadError::UnknownImport {
                plugin,
                asked,
                served,
            });
        }
        if !missing.is_empty() {
            let asked = missing.join(", ");
            return Err(LoadError::NotGranted { plugin, asked });
        }
        Ok(asked)
    }

    /// A linker that knows what is granted, in every version, and nothing else.
    fn linker(&self) -> wasmtime::Result<Linker<Context>> {
        let mut linker = Linker::new(self.engine);
        for dialect in self.dialects {
            (dialect.types)(&mut linker)?;
            for import in &self.spec.grants.0 {
                (dialect.import)(&mut linker, *import)?;
            }
        }
        Ok(linker)
    }

    /// Looks for each hook by name, so that any subset of them is a plugin; the newest version of each.
    fn exports(
        &self,
        component: &Component,
        pre: &InstancePre<Context>,
    ) -> Result<(Hooks, Box<dyn Introduces>), LoadError> {
        let mut interfaces = Vec::new();
        let kind = component.component_type();
        for (name, _) in kind.exports(self.engine) {
            if let Some(rest) = name.strip_prefix("brood:policy/") {
                interfaces.push(self.interface(rest)?);
            }
        }
        let (mut hooks, mut own, mut found) = (Hooks::default(), None, false);
        for dialect in self.dialects {
            let of = |(_, other): &&(&str, &Dialect)| other.prefix == dialect.prefix;
            for (interface, _) in interfaces.iter().filter(of) {
                let hook = (dialect.hook)(interface, pre, &mut hooks);
                found |= hook.map_err(|error| self.misfit(&error))? == Found::Hook;
                if *interface == "plugin" {
                    own = Some(dialect);
                }
            }
        }
        if !found {
            let (plugin, served) = (self.plugin(), self.served());
            return Err(LoadError::NoHook { plugin, served });
        }
        // One that exports no `plugin` is told so by the search for it.
        let dialect = own.or(self.dialects.last());
        let introduces = dialect.map(|dialect| (dialect.introduces)(pre));
        match introduces {
            Some(Ok(own)) => Ok((hooks, own)),
            Some(Err(error)) => Err(self.misfit(&error)),
            None => Err(self.misfit(&wasmtime::Error::msg("no version is served"))),
        }
    }

    fn run<T>(
        &self,
        call: &'static str,
        pre: &InstancePre<Context>,
        body: impl FnOnce(&mut Store<Context>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, LoadError> {
        let _ticks = self.ticker.watch();
        let place = Place {
            pre,
            hooks: &Hooks::default(),
            limits: self.limits,
            live: None,
        };
        let ran = call::run(place, Context::bare(self.limits), body);
        ran.result.map_err(|failure| LoadError::Call {
            plugin: self.plugin(),
            call,
            failure: Box::new(failure),
        })
    }
}
