//! `brood plugin test`.
//!
//! Invariant: it passes only if the crate's own tests do, its policy file (if there is one) binds the component, and
//! every recorded call comes out as recorded; and there is at least one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use brood_plugin_build::Programs;
use brood_plugin_host::{Builtins, Policies, Record};
use serde_json::json;

use super::calls::{self, Played, PlayedFile};
use super::{TestOptions, author, open, status};

pub(super) fn run(programs: &Programs, options: &TestOptions) -> anyhow::Result<ExitCode> {
    let component = match &options.component {
        Some(path) => path.clone(),
        None => built(programs, &options.directory)?,
    };
    let bytes = open::bytes(&component)?;
    let files = calls::files(&options.directory.join("calls"))?;
    let mut decisions = match &options.decisions {
        Some(path) => {
            let file = fs::File::create(path);
            Some(file.with_context(|| format!("making {}", path.display()))?)
        }
        None => None,
    };
    let mut played = Vec::new();
    for file in &files {
        let PlayedFile {
            calls,
            recorded,
            records,
        } = calls::play(&bytes, file)?;
        if options.record {
            let text = serde_json::to_string_pretty(&recorded)? + "\n";
            fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        if let Some(out) = &mut decisions {
            for record in records {
                writeln!(out, "{}", Record::to_line(&record)?)?;
            }
        }
        played.extend(calls);
    }
    if played.is_empty() {
        bail!(
            "no call is recorded in {}: write one as README.md shows and run with --record",
            options.directory.join("calls").display()
        );
    }
    say(options, &component, &played)
}

fn say(options: &TestOptions, component: &Path, played: &[Played]) -> anyhow::Result<ExitCode> {
    let different = played.iter().filter(|call| call.differs.is_some()).count();
    let well = options.record || different == 0;
    if options.json {
        let value = json!({ "component": component, "calls": played, "passed": well });
        println!("{value}");
        return Ok(status(well));
    }
    for call in played {
        let file = call.file.file_stem().unwrap_or_default().to_string_lossy();
        match (&call.differs, options.record) {
            (None, _) => println!("ok       {file}: {}, {} fuel", call.name, call.fuel),
            (Some(_), true) => println!("recorded {file}: {}, {} fuel", call.name, call.fuel),
            (Some(differs), false) => {
                println!("DIFFERS  {file}: {}\n         {differs}", call.name)
            }
        }
    }
    let count = played.len();
    match (options.record, different) {
        (true, _) => println!("recorded calls: {count}, {different} of them new or changed"),
        (false, 0) => println!("recorded calls: {count}, all as recorded"),
        (false, _) => println!("recorded calls: {count}, {different} differ"),
    }
    Ok(status(well))
}

/// Builds, runs the crate's own tests, and binds the component as its policy file says.
fn built(programs: &Programs, directory: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("==> component");
    let author::Output { path, built } = author::make(programs, directory, None)?;
    eprintln!("==> tests of {}", built.package);
    let mut tests = Command::new(&programs.cargo);
    tests
        .args(["test", "--quiet", "--package", &built.package])
        .current_dir(directory)
        .stdout(Stdio::from(std::io::stderr()));
    let done = tests.status().context("starting cargo")?;
    if !done.success() {
        bail!("the tests of {} fail", built.package);
    }
    let policy = directory.join("policy.toml");
    if policy.exists() {
        eprintln!("==> {}", policy.display());
        bind(&policy)?;
    }
    eprintln!("==> recorded calls");
    Ok(path)
}

fn bind(policy: &Path) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(policy).with_context(|| format!("reading {}", policy.display()))?;
    let set = brood_policy::parse(&policy.to_string_lossy(), &text)?;
    let directory = policy.parent().unwrap_or(Path::new("."));
    let host = open::host()?;
    let bound = Policies::open(&host, &set, directory, &Builtins::default());
    bound.with_context(|| format!("{} does not bind", policy.display()))?;
    Ok(())
}
