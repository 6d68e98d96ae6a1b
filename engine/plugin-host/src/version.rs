//! One version of a plugin: its component and its settings, ready to be called.
//!
//! Invariant: what is ready has been compiled, asks for no import that was not granted, describes itself, and has taken
//! its settings. Nothing of that is left for the first call to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brood_hooks::{Failure, HookName};
use brood_policy::{Grants, Import, Limits, PluginSpec};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use crate::bindings::brood::policy::{clock, config, log, metrics, placement_types, state, types};
use crate::bindings::exports::brood::policy::{admission, billing, mutation, placement, plugin};
use crate::call::{self, Context, Place, Settings};
use crate::child::Diagnostic;
use crate::compile::{self, CompileError, CompileOptions};
use crate::{Digest, ParseDigestError};

/// The package and version that this host serves.
pub const SERVED: &str = "brood:policy@0.1.0";

/// Where a component's hooks are; none for a hook that it does not have.
#[derive(Default)]
pub(crate) struct HookIndices {
    pub(crate) admission: Option<admission::GuestIndices>,
    pub(crate) placement: Option<placement::GuestIndices>,
    pub(crate) mutation: Option<mutation::GuestIndices>,
    pub(crate) billing: Option<billing::GuestIndices>,
}

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
    pub(crate) indices: HookIndices,
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
            HookName::Admission => self.indices.admission.is_some(),
            HookName::Placement => self.indices.placement.is_some(),
            HookName::Mutation => self.indices.mutation.is_some(),
            HookName::Billing => self.indices.billing.is_some(),
        }
    }

    /// Whether its calls may touch its state, so that they must not overlap.
    pub(crate) fn has_state(&self) -> bool {
        self.imports.contains(&Import::State)
    }
}

/// A version of a plugin could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not compile.
    #[error("plugin {plugin}: {source}")]
    Compile {
        /// The plugin.
        plugin: String,
        /// Why.
        source: CompileError,
    },
    /// The pinned digest cannot be read.
    #[error("plugin {plugin}: {source}")]
    Pin {
        /// The plugin.
        plugin: String,
        /// Why.
        source: ParseDigestError,
    },
    /// It is another component than the one that is pinned.
    #[error("plugin {plugin} is pinned to {pinned}, and this component is {found}")]
    OtherDigest {
        /// The plugin.
        plugin: String,
        /// What was pinned.
        pinned: Digest,
        /// What was given.
        found: Digest,
    },
    /// It asks for imports that nobody granted.
    #[error(
        "plugin {plugin} asks for {asked}, which it is not granted: add it to `grants` of [plugin.{plugin}] if it should have it"
    )]
    NotGranted {
        /// The plugin.
        plugin: String,
        /// What it asks for.
        asked: String,
    },
    /// It asks for imports that do not exist here.
    #[error(
        "plugin {plugin} asks for {asked}, which no policy can have: there is no WASI, and only log, config, clock, state and metrics of {SERVED}"
    )]
    UnknownImport {
        /// The plugin.
        plugin: String,
        /// What it asks for.
        asked: String,
    },
    /// It was built for another version.
    #[error(
        "plugin {plugin} was built for {found}, and this engine serves {SERVED}: build it against the engine's wit/"
    )]
    OtherVersion {
        /// The plugin.
        plugin: String,
        /// What it was built for.
        found: String,
    },
    /// It exports no hook.
    #[error("plugin {plugin} exports no hook of {SERVED}")]
    NoHook {
        /// The plugin.
        plugin: String,
    },
    /// It does not fit the interfaces it names.
    #[error("plugin {plugin} does not fit {SERVED}: {message}")]
    Misfit {
        /// The plugin.
        plugin: String,
        /// Why.
        message: String,
    },
    /// `describe` or `prepare` failed.
    #[error("plugin {plugin}: {call} failed: {failure}")]
    Call {
        /// The plugin.
        plugin: String,
        /// Which.
        call: &'static str,
        /// Why.
        failure: Box<Failure>,
    },
    /// It refuses its settings, or they break its schema.
    #[error("settings of plugin {plugin} are refused: {}", list(diagnostics))]
    Settings {
        /// The plugin.
        plugin: String,
        /// What is wrong, and where.
        diagnostics: Vec<Diagnostic>,
    },
}

fn list(diagnostics: &[Diagnostic]) -> String {
    let each: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// Budgets of `describe` and `prepare`, which run at load and may parse a large document.
fn loading_limits() -> Limits {
    Limits {
        fuel: 1_000_000_000,
        deadline_ms: 5_000,
        memory_mib: 64,
        answer_kib: 4096,
        ..Limits::of(HookName::Billing)
    }
}

/// Compiles, checks and prepares one version.
pub(crate) fn ready(
    engine: &Engine,
    options: &CompileOptions,
    spec: &PluginSpec,
    bytes: &[u8],
) -> Result<PluginVersion, LoadError> {
    let plugin = || spec.id.clone();
    let (digest, component) =
        compile::load(engine, options, bytes).map_err(|source| LoadError::Compile {
            plugin: plugin(),
            source,
        })?;
    if let Some(pin) = &spec.digest {
        let pinned = pin.parse().map_err(|source| LoadError::Pin {
            plugin: plugin(),
            source,
        })?;
        if pinned != digest {
            return Err(LoadError::OtherDigest {
                plugin: plugin(),
                pinned,
                found: digest,
            });
        }
    }
    let imports = imports(engine, &component, spec)?;
    let misfit = |error: wasmtime::Error| LoadError::Misfit {
        plugin: plugin(),
        message: format!("{error:#}"),
    };
    let pre = linker(engine, &spec.grants)
        .and_then(|linker| linker.instantiate_pre(&component))
        .map_err(misfit)?;
    let indices = hooks(engine, &component, &pre, spec)?;
    let own = plugin::GuestIndices::new(&pre).map_err(misfit)?;
    let description = describe(&pre, &own, spec)?;
    let document = spec.settings.to_string();
    let wrong = compile::check_schema(options, &description.settings_schema, &document).map_err(
        |source| LoadError::Compile {
            plugin: plugin(),
            source,
        },
    )?;
    if !wrong.is_empty() {
        return Err(LoadError::Settings {
            plugin: plugin(),
            diagnostics: wrong,
        });
    }
    let prepared = prepare(&pre, &own, spec, &document)?;
    let settings = Settings {
        digest: Digest::of(document.as_bytes()),
        document: document.into(),
        prepared: Arc::new(prepared),
    };
    let declared = Arc::new(description.metrics.iter().cloned().collect());
    Ok(PluginVersion {
        digest,
        settings,
        pre,
        indices,
        declared,
        description,
        imports,
    })
}

/// The interface that `name`, within the package, stands for in the version this host speaks.
fn of_this_version<'a>(name: &'a str, spec: &PluginSpec) -> Result<&'a str, LoadError> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    if version.starts_with("0.1.") {
        return Ok(interface);
    }
    Err(LoadError::OtherVersion {
        plugin: spec.id.clone(),
        found: format!("brood:policy@{version}"),
    })
}

/// The imports that a component asks for, all of them granted.
fn imports(
    engine: &Engine,
    component: &Component,
    spec: &PluginSpec,
) -> Result<Vec<Import>, LoadError> {
    let (mut asked, mut unknown, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (name, _) in component.component_type().imports(engine) {
        let Some(rest) = name.strip_prefix("brood:policy/") else {
            unknown.push(name.to_owned());
            continue;
        };
        let interface = of_this_version(rest, spec)?;
        // Interfaces of types alone give nothing to hold.
        if matches!(interface, "types" | "placement-types") {
            continue;
        }
        match Import::ALL
            .into_iter()
            .find(|import| import.as_str() == interface)
        {
            None => unknown.push(name.to_owned()),
            Some(import) if spec.grants.has(import) => asked.push(import),
            Some(import) => missing.push(import.as_str()),
        }
    }
    if !unknown.is_empty() {
        let (plugin, asked) = (spec.id.clone(), unknown.join(", "));
        return Err(LoadError::UnknownImport { plugin, asked });
    }
    if !missing.is_empty() {
        let (plugin, asked) = (spec.id.clone(), missing.join(", "));
        return Err(LoadError::NotGranted { plugin, asked });
    }
    Ok(asked)
}

/// A linker that knows what is granted and nothing else.
fn linker(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<Context>> {
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?;
    placement_types::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?;
    for import in &grants.0 {
        match import {
            Import::Log => log::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?,
            Import::Config => {
                config::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?
            }
            Import::Clock => clock::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?,
            Import::State => state::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?,
            Import::Metrics => {
                metrics::add_to_linker::<_, HasSelf<_>>(&mut linker, |context| context)?
            }
        }
    }
    Ok(linker)
}

/// Looks for each hook by name, so that any subset of them is a plugin.
fn hooks(
    engine: &Engine,
    component: &Component,
    pre: &InstancePre<Context>,
    spec: &PluginSpec,
) -> Result<HookIndices, LoadError> {
    let mut indices = HookIndices::default();
    let misfit = |error: wasmtime::Error| LoadError::Misfit {
        plugin: spec.id.clone(),
        message: format!("{error:#}"),
    };
    let mut found = 0;
    for (name, _) in component.component_type().exports(engine) {
        let Some(rest) = name.strip_prefix("brood:policy/") else {
            continue;
        };
        let interface = of_this_version(rest, spec)?;
        match interface {
            "admission" => {
                indices.admission = Some(admission::GuestIndices::new(pre).map_err(misfit)?)
            }
            "placement" => {
                indices.placement = Some(placement::GuestIndices::new(pre).map_err(misfit)?)
            }
            "mutation" => {
                indices.mutation = Some(mutation::GuestIndices::new(pre).map_err(misfit)?)
            }
            "billing" => indices.billing = Some(billing::GuestIndices::new(pre).map_err(misfit)?),
            _ => continue,
        }
        found += 1;
    }
    if found == 0 {
        return Err(LoadError::NoHook {
            plugin: spec.id.clone(),
        });
    }
    Ok(indices)
}

fn describe(
    pre: &InstancePre<Context>,
    own: &plugin::GuestIndices,
    spec: &PluginSpec,
) -> Result<Description, LoadError> {
    let limits = loading_limits();
    let place = Place {
        pre,
        indices: &HookIndices::default(),
        limits: &limits,
        live: None,
    };
    let ran = call::run(place, Context::bare(&limits), |store, instance| {
        own.load(&mut *store, instance)?.call_describe(store)
    });
    let told = ran.result.map_err(|failure| LoadError::Call {
        plugin: spec.id.clone(),
        call: "describe",
        failure: Box::new(failure),
    })?;
    Ok(Description {
        name: told.name,
        version: told.version,
        settings_schema: told.settings_schema,
        metrics: told.metrics,
    })
}

fn prepare(
    pre: &InstancePre<Context>,
    own: &plugin::GuestIndices,
    spec: &PluginSpec,
    document: &str,
) -> Result<BTreeMap<String, Vec<u8>>, LoadError> {
    let limits = loading_limits();
    let place = Place {
        pre,
        indices: &HookIndices::default(),
        limits: &limits,
        live: None,
    };
    let ran = call::run(place, Context::bare(&limits), |store, instance| {
        own.load(&mut *store, instance)?
            .call_prepare(store, document)
    });
    let plugin = spec.id.clone();
    match ran.result {
        Ok(Ok(prepared)) => Ok(prepared.into_iter().collect()),
        Ok(Err(wrong)) => {
            let diagnostic = |wrong: plugin::Diagnostic| Diagnostic {
                at: wrong.at,
                message: wrong.message,
            };
            let diagnostics = wrong.into_iter().map(diagnostic).collect();
            Err(LoadError::Settings {
                plugin,
                diagnostics,
            })
        }
        Err(failure) => Err(LoadError::Call {
            plugin,
            call: "prepare",
            failure: Box::new(failure),
        }),
    }
}
