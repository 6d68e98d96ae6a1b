//! `brood plugin check` and `brood plugin inspect`.
//!
//! Invariant: `check` passes what the engine would load, given its grants and settings: the file is read and compared
//! with the WIT, then compiled and asked to describe itself, under the limits that the engine has.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use brood_hooks::HookName;
use brood_plugin_build::{Hook, Report};
use brood_plugin_host::Description;
use brood_policy::Limits;
use serde_json::{Value, json};

use super::author::described;
use super::open;

fn look(file: &Path) -> anyhow::Result<(Report, Description)> {
    let bytes = open::bytes(file)?;
    let report = brood_plugin_build::check(&bytes).with_context(|| refused(file))?;
    let spec = open::spec("plugin", Value::Null);
    let described = open::host()?.describe(&spec, &bytes);
    Ok((report, described.with_context(|| refused(file))?))
}

fn refused(file: &Path) -> String {
    format!("{} is refused", file.display())
}

/// The hooks that can be bound, and their default limits.
fn limits(report: &Report) -> Vec<(HookName, Limits)> {
    let bound = |hook: &Hook| hook.interface().parse::<HookName>().ok();
    let hooks = report.hooks.iter().filter_map(bound);
    hooks.map(|hook| (hook, Limits::of(hook))).collect()
}

/// The grants that a policy file needs.
fn grants(report: &Report) -> String {
    let names: Vec<String> = report
        .imports
        .iter()
        .map(|import| format!("\"{}\"", import.interface))
        .collect();
    format!("grants = [{}]", names.join(", "))
}

pub(super) fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (report, description) = look(file)?;
    let limits = limits(&report);
    if json {
        let mut value = described(&report);
        value["file"] = json!(file);
        value["name"] = json!(description.name);
        let by_hook = limits
            .iter()
            .map(|(hook, limits)| (hook.to_string(), json!(limits)));
        value["default-limits"] = Value::Object(by_hook.collect());
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{report}");
    for (hook, limits) in limits {
        println!(
            "limits   {hook}: {} MiB of memory, {} table elements, {} fuel, {} ms by default",
            limits.memory_mib, limits.table_elements, limits.fuel, limits.deadline_ms
        );
    }
    println!("bind it  {}", grants(&report));
    println!("loads    {} {}", description.name, description.version);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn inspect(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (report, description) = look(file)?;
    let schema: Value = serde_json::from_str(&description.settings_schema)
        .with_context(|| format!("the settings schema of {} is not JSON", file.display()))?;
    if json {
        let mut value = described(&report);
        value["file"] = json!(file);
        value["name"] = json!(description.name);
        value["version"] = json!(description.version);
        value["metrics"] = json!(description.metrics);
        value["settings-schema"] = schema;
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let metrics = match description.metrics.is_empty() {
        true => "none".to_owned(),
        false => description.metrics.join(", "),
    };
    println!("name     {} {}", description.name, description.version);
    println!("{report}");
    println!("metrics  {metrics}");
    println!("settings {schema:#}");
    Ok(ExitCode::SUCCESS)
}
