//! `cargo xtask plugins`: the plugins that ship, and the example in Python, as components below `target/plugins`.
//!
//! Invariant: a file is written only after it was checked, under its name and whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use brood_plugin_build::{BuildSpec, Built, Lock, Programs, Report, Toolchain, build, check};
use clap::Args;

use crate::packages::Environment;
use crate::place::Place;
use crate::process::{output, say};

/// The plugins that ship, by directory below `plugins/`.
const SHIPPED: [&str; 4] = ["quota", "spread", "identity", "price-table"];

/// `cargo xtask plugins`
#[derive(Args)]
pub(crate) struct Options {
    /// Only these; all of them if none is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(SHIPPED))]
    names: Vec<String>,
    /// Build the example in Python, and nothing else unless it is named.
    #[arg(long)]
    python: bool,
    /// Use Debian's compiler even if the active toolchain has the target.
    #[arg(long)]
    debian: bool,
}

/// The program that makes components of Python, from PyPI.
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// Where components are put.
pub(crate) fn directory(place: &Place) -> PathBuf {
    place.target.join("plugins")
}

/// Builds all plugins that ship; the directory they are in. Cargo finds what is built already.
pub(crate) fn shipped(place: &Place) -> Result<PathBuf> {
    let directory = made(place)?;
    let toolchain = toolchain(place, Compiler::Any)?;
    for name in SHIPPED {
        ship(place, &toolchain, &directory, name)?;
    }
    Ok(directory)
}

/// What tests need: the plugins that ship, and the example in Python, which is built again only when one of its sources is
/// newer. The directory they are in.
pub(crate) fn for_tests(place: &Place) -> Result<PathBuf> {
    let directory = shipped(place)?;
    match python(place, &directory) {
        Ok(()) => {}
        Err(error) if place.is_ci() => return Err(error.context("the example in Python")),
        Err(error) => say(&format!("skipped: the example in Python: {error:#}")),
    }
    Ok(directory)
}

fn made(place: &Place) -> Result<PathBuf> {
    let directory = directory(place);
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

/// Builds them, checks them, and prints the digest, size and imports of each.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let directory = made(place)?;
    let all = options.names.is_empty() && !options.python;
    let wanted = |name: &&str| all || options.names.iter().any(|one| one == name);
    let wanted: Vec<&str> = SHIPPED.into_iter().filter(wanted).collect();
    if !wanted.is_empty() {
        let compiler = match options.debian {
            true => Compiler::Debian,
            false => Compiler::Any,
        };
        let toolchain = toolchain(place, compiler)?;
        for name in wanted {
            println!("{}", ship(place, &toolchain, &directory, name)?);
        }
    }
    if options.python {
        python(place, &directory)?;
    }
    Ok(0)
}

fn ship(place: &Place, toolchain: &Toolchain, directory: &Path, name: &str) -> Result<String> {
    say(&format!("plugin {name}"));
    let spec = BuildSpec {
        directory: place.workspace.join("plugins").join(name),
        // Tests let `brood plugin build` put its own there: it finds std and the SDK's dependencies.
        target: Some(directory.join("build/wasm")),
        lock: Lock::Keep,
    };
    let Built {
        component, report, ..
    } = build(toolchain, &spec)?;
    write(
        &directory.join(name).with_extension("wasm"),
        &component,
        &report,
    )
}

/// The example in Python: its tests, then its component.
fn python(place: &Place, directory: &Path) -> Result<()> {
    let example = place.workspace.join("examples/plugin-python");
    let python = place.on_path("python3").context("no python3 on PATH")?;
    say("tests of the example in Python");
    let mut tests = Command::new(&python);
    tests.args(["-B", "-m", "unittest"]).current_dir(&example);
    output(&mut tests)?;
    let component = directory.join("freeze.wasm");
    if is_newer(&component, &[&example, &place.workspace.join("wit")])? {
        return Ok(());
    }
    let environment = Environment {
        directory: directory.join("python"),
        wanted: COMPONENTIZE_PY,
    };
    environment.ensure(place)?;
    say("plugin freeze");
    let raw = directory.join("freeze.unchecked");
    let mut componentize = Command::new(environment.programs().join("componentize-py"));
    componentize
        .arg("-d")
        .arg(place.workspace.join("wit"))
        .args([
            "-w",
            "admission-policy",
            "componentize",
            "--stub-wasi",
            "-p",
        ])
        .arg(&example)
        .args(["app", "-o"])
        .arg(&raw)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    output(&mut componentize)?;
    let bytes = fs::read(&raw).with_context(|| format!("reading {}", raw.display()))?;
    let report = check(&bytes)?;
    fs::remove_file(&raw).with_context(|| format!("removing {}", raw.display()))?;
    println!("{}", write(&component, &bytes, &report)?);
    Ok(())
}

/// Whether a file is there and newer than every file of these directories.
fn is_newer(file: &Path, directories: &[&Path]) -> Result<bool> {
    let Ok(made) = fs::metadata(file).and_then(|about| about.modified()) else {
        return Ok(false);
    };
    for directory in directories {
        let entries =
            fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let about = entry?.metadata()?;
            if about.is_file() && about.modified()? >= made {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What there is to say of it.
fn write(file: &Path, component: &[u8], report: &Report) -> Result<String> {
    let partial = file.with_extension("partial");
    fs::write(&partial, component).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, file).with_context(|| format!("renaming {}", partial.display()))?;
    Ok(format!("{}\n{report}", file.display()))
}

/// Which compiler is wanted.
#[derive(Clone, Copy)]
enum Compiler {
    Any,
    Debian,
}

fn toolchain(place: &Place, compiler: Compiler) -> Result<Toolchain> {
    if let Compiler::Debian = compiler {
        let debian = Toolchain::debian();
        return debian.context("Debian's compiler for WebAssembly is not installed");
    }
    let programs = Programs {
        cargo: place.cargo.clone(),
        rustc: PathBuf::from("rustc"),
    };
    Ok(Toolchain::ensure(&programs, &place.workspace)?)
}
