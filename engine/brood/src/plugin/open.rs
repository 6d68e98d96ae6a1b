//! Files into components, and the host that the commands run them in.
//!
//! Invariant: a component runs here as it does in the engine: compiled by a limited child, without WASI, under the limits
//! of its hook. Only imports are granted as they are asked for, since nobody's policy file is being obeyed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context;
use brood_plugin_host::{CompileOptions, Host, HostOptions, Policies};
use brood_policy::{Grants, Import, LogLevel, PluginSpec, StateOptions};
use brood_service::path::Panels;
use serde_json::Value;

use super::{calls, child};

static COMPILER: OnceLock<CompileOptions> = OnceLock::new();

/// Lets another program than this one compile; what is set first stays.
pub fn compile_with(options: CompileOptions) {
    COMPILER.get_or_init(|| options);
}

/// A host that keeps nothing.
///
/// # Errors
/// There is no engine or no thread.
pub fn host() -> anyhow::Result<Host> {
    let compile = match COMPILER.get() {
        Some(options) => options.clone(),
        None => child::own_compile_options(None)?,
    };
    let (store, observer) = calls::volatile();
    Host::start(&HostOptions::new(compile), store, observer).context("starting the plugin host")
}

/// What is bound, as the service hears it.
pub fn panels(policies: Policies) -> Panels {
    Panels {
        admission: Box::new(policies.admission),
        placement: Box::new(policies.placement),
        mutation: Box::new(policies.mutation),
        billing: Box::new(policies.billing),
    }
}

/// A plugin with these settings, and every import it asks for.
pub fn spec(id: &str, settings: Value) -> PluginSpec {
    PluginSpec {
        id: id.to_owned(),
        component: format!("{id}.wasm").into(),
        digest: None,
        grants: Grants(Import::ALL.to_vec()),
        settings,
        state: StateOptions::default(),
        log_level: LogLevel::default(),
    }
}

/// The bytes of a file.
///
/// # Errors
/// It cannot be read.
pub fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Settings in a file, JSON; `{}` without one.
///
/// # Errors
/// It cannot be read, or is not JSON.
pub fn settings(path: Option<&Path>) -> anyhow::Result<Value> {
    match path {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(path) => serde_json::from_slice(&bytes(path)?)
            .with_context(|| format!("{} is not JSON", path.display())),
    }
}
