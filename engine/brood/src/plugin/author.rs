//! `brood plugin new` and `brood plugin build`.
//!
//! Invariant: nothing of the author's is overwritten but the component itself, and that only by one that was checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use brood_hooks::HookName;
use brood_plugin_build::{
    BuildSpec, Built, Hook, Lock, Programs, Report, ScaffoldSpec, Sdk, Toolchain,
};
use serde_json::{Value, json};

use super::NewOptions;

pub(super) fn new(options: &NewOptions) -> anyhow::Result<ExitCode> {
    let directory = options
        .dir
        .clone()
        .unwrap_or_else(|| options.name.clone().into());
    let sdk = match &options.sdk {
        None => Sdk::Unpacked,
        Some(path) => {
            let manifest = path.join("Cargo.toml");
            manifest.metadata().with_context(|| {
                format!(
                    "{} is no SDK: name sdk/plugin of a checkout",
                    path.display()
                )
            })?;
            Sdk::Path(path.canonicalize()?)
        }
    };
    let hook = match options.hook {
        HookName::Admission => Hook::Admission,
        HookName::Placement => Hook::Placement,
        HookName::Mutation => Hook::Mutation,
        HookName::Billing => Hook::Billing,
    };
    let files = brood_plugin_build::scaffold(&ScaffoldSpec {
        name: options.name.clone(),
        hook,
        directory: directory.clone(),
        sdk,
    })?;
    if options.json {
        let value = json!({ "name": options.name, "hook": options.hook, "directory": directory, "files": files });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    for file in &files {
        let own = file.strip_prefix(&directory).unwrap_or(file);
        if !own.starts_with(".brood") {
            println!("{}", file.display());
        }
    }
    let unpacked = files
        .iter()
        .filter(|file| file.starts_with(directory.join(".brood")));
    match unpacked.count() {
        0 => {}
        count => println!(
            "{}/.brood  the SDK and its WIT, {count} files",
            directory.display()
        ),
    }
    println!("\nnext: brood plugin test {}", directory.display());
    Ok(ExitCode::SUCCESS)
}

/// A component that was built, and where it is.
pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) built: Built,
}

/// Builds a crate, with Debian's compiler if the active toolchain has no target for WebAssembly.
pub(super) fn make(
    programs: &Programs,
    directory: &Path,
    out: Option<&Path>,
) -> anyhow::Result<Output> {
    let toolchain = Toolchain::ensure(programs, directory)?;
    let spec = BuildSpec {
        directory: directory.to_owned(),
        target: None,
        lock: Lock::Update,
    };
    let built = brood_plugin_build::build(&toolchain, &spec)?;
    let path = match out {
        Some(path) => path.to_owned(),
        None => directory
            .join("target")
            .join(format!("{}.wasm", built.package)),
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    // Whole or not at all: an engine may be watching.
    let partial = path.with_extension("partial");
    fs::write(&partial, &built.component)
        .with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, &path).with_context(|| format!("renaming {}", partial.display()))?;
    Ok(Output { path, built })
}

pub(super) fn build(
    programs: &Programs,
    directory: &Path,
    out: Option<&Path>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Output { path, built } = make(programs, directory, out)?;
    if json {
        let mut value = described(&built.report);
        value["file"] = json!(path);
        value["package"] = json!(built.package);
        println!("{value}");
    } else {
        println!("{}\n{}", path.display(), built.report);
    }
    Ok(ExitCode::SUCCESS)
}

/// A report as JSON.
pub(super) fn described(report: &Report) -> Value {
    let hooks: Vec<&str> = report.hooks.iter().map(|hook| hook.interface()).collect();
    let imports: Vec<&str> = report
        .imports
        .iter()
        .map(|import| import.interface.as_str())
        .collect();
    json!({
        "digest": format!("sha256:{}", report.digest),
        "size": report.size,
        "wit": format!("{}@{}", brood_plugin_build::PACKAGE, report.wit),
        "hooks": hooks,
        "imports": imports,
        "memory-kib": report.memory_kib,
        "table-elements": report.table_elements,
        "core-modules": report.core_modules,
    })
}
