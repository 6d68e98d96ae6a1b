//! Why a version of a plugin could not be made ready.
//!
//! Invariant: every error names the plugin, and says what to do where something can be done.

use brood_hooks::Failure;

use crate::child::Diagnostic;
use crate::compile::CompileError;
use crate::{Digest, ParseDigestError};

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
        "plugin {plugin} asks for {asked}, which no policy can have: there is no WASI, and only log, config, clock, state and metrics of {served}"
    )]
    UnknownImport {
        /// The plugin.
        plugin: String,
        /// What it asks for.
        asked: String,
        /// What this engine serves.
        served: String,
    },
    /// It was built for another version.
    #[error(
        "plugin {plugin} was built for {found}, and this engine serves {served}: build it against the engine's wit/"
    )]
    OtherVersion {
        /// The plugin.
        plugin: String,
        /// What it was built for.
        found: String,
        /// What this engine serves.
        served: String,
    },
    /// It exports no hook.
    #[error("plugin {plugin} exports no hook of {served}")]
    NoHook {
        /// The plugin.
        plugin: String,
        /// What this engine serves.
        served: String,
    },
    /// It does not fit the interfaces it names.
    #[error("plugin {plugin} does not fit {served}: {message}")]
    Misfit {
        /// The plugin.
        plugin: String,
        /// What this engine serves.
        served: String,
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
