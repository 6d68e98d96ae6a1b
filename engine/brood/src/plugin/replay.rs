//! `brood plugin replay`.
//!
//! Invariant: a record is identical only if the component and the settings it names make the same answer, failure and
//! fuel of it. One that cannot be read, or whose component is not at hand, is not passed over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use brood_plugin_host::{Host, PluginVersion, Record};
use serde::Serialize;
use serde_json::json;

use super::{ReplayOptions, open, status};

/// What became of one record.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Again {
    file: PathBuf,
    line: usize,
    /// `admission/quota 12`, where the record can be read.
    record: Option<String>,
    identical: bool,
    /// What differs, or why it could not be replayed.
    why: Option<String>,
}

pub(super) fn run(options: &ReplayOptions) -> anyhow::Result<ExitCode> {
    let host = open::host()?;
    let versions = versions(&host, options)?;
    let mut all = Vec::new();
    for path in &options.records {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let (record, outcome) = again(&host, &versions, line);
            all.push(Again {
                file: path.clone(),
                line: index + 1,
                record,
                identical: outcome.is_ok(),
                why: outcome.err(),
            });
        }
    }
    let identical = all.iter().filter(|one| one.identical).count();
    // Nothing replayed is nothing proved.
    let well = identical == all.len() && !all.is_empty();
    if options.json {
        println!("{}", json!({ "records": all, "identical": identical }));
        return Ok(status(well));
    }
    for one in &all {
        let place = format!("{}:{}", one.file.display(), one.line);
        let record = one.record.as_deref().unwrap_or("unreadable");
        match &one.why {
            None => println!("identical  {place} {record}"),
            Some(why) => println!("DIFFERS    {place} {record}\n           {why}"),
        }
    }
    println!("{identical} of {} identical", all.len());
    Ok(status(well))
}

fn again(
    host: &Host,
    versions: &[PluginVersion],
    line: &str,
) -> (Option<String>, Result<(), String>) {
    let record = match Record::from_line(line) {
        Ok(record) => record,
        Err(error) => return (None, Err(error.to_string())),
    };
    let name = format!("{}/{} {}", record.hook, record.plugin, record.number);
    let fits = |version: &&PluginVersion| version.digest() == record.component;
    let of_component = versions.iter().filter(fits);
    let exact = of_component
        .clone()
        .find(|version| version.settings_digest() == record.settings);
    // Without an exact one, the host says which of the two is another.
    let version = exact.or(of_component.clone().next()).or(versions.first());
    let outcome = match version {
        Some(version) => host
            .replay(&record, version)
            .map_err(|error| error.to_string()),
        None => Err("the policy file names no plugin".to_owned()),
    };
    (Some(name), outcome)
}

fn versions(host: &Host, options: &ReplayOptions) -> anyhow::Result<Vec<PluginVersion>> {
    if let Some(component) = &options.component {
        let settings = open::settings(options.settings.as_deref())?;
        let bytes = open::bytes(component)?;
        return Ok(vec![host.load(&open::spec("plugin", settings), &bytes)?]);
    }
    let Some(policy) = &options.policy else {
        return Ok(Vec::new());
    };
    let text =
        fs::read_to_string(policy).with_context(|| format!("reading {}", policy.display()))?;
    let set = brood_policy::parse(&policy.to_string_lossy(), &text)?;
    let directory = policy.parent().unwrap_or(Path::new("."));
    let load = |spec: &brood_policy::PluginSpec| {
        let bytes = open::bytes(&directory.join(&spec.component))?;
        Ok(host.load(spec, &bytes)?)
    };
    set.plugins.iter().map(load).collect()
}
