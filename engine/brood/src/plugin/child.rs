//! This program as the plugin host's child: what it is started with, and what it then does.
//!
//! Invariant: components are compiled by the very program that runs them, so that both have the same wasmtime.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use brood_plugin_host::CompileOptions;

/// The hidden subcommand. Task and limits follow it.
pub const ARGUMENT: &str = "plugin-child";

/// How `program`, a `brood`, compiles components; artifacts are kept in `cache`, if there is one.
pub fn compile_options(program: &Path, cache: Option<PathBuf>) -> CompileOptions {
    CompileOptions {
        arguments: vec![ARGUMENT.to_owned()],
        cache,
        ..CompileOptions::new(program)
    }
}

/// The same with the program that runs now.
///
/// # Errors
/// The kernel does not say which program this is.
pub fn own_compile_options(cache: Option<PathBuf>) -> anyhow::Result<CompileOptions> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    Ok(compile_options(&program, cache))
}

/// The child itself.
pub fn run(arguments: Vec<String>) -> ExitCode {
    brood_plugin_host::child::run(arguments.into_iter())
}
