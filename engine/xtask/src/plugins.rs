//! `cargo xtask plugins`: the plugins that ship, as components below `target/plugins`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use brood_plugin_build::{BuildSpec, Built, Lock, Programs, Toolchain, build};
use clap::Args;

use crate::place::Place;
use crate::process::say;

/// The plugins that ship, by directory below `plugins/`.
const SHIPPED: [&str; 4] = ["quota", "spread", "identity", "price-table"];

/// `cargo xtask plugins`
#[derive(Args)]
pub(crate) struct Options {
    /// Only these; all of them if none is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(SHIPPED))]
    names: Vec<String>,
    /// Use Debian's compiler even if the active toolchain has the target.
    #[arg(long)]
    debian: bool,
}

/// Builds them, checks them, and prints the digest, size and imports of each.
pub(crate) fn run(place: &Place, options: &Options) -> Result<u8> {
    let toolchain = toolchain(place, options)?;
    let directory = place.target.join("plugins");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let wanted =
        |name: &&str| options.names.is_empty() || options.names.iter().any(|one| one == name);
    for name in SHIPPED.into_iter().filter(wanted) {
        say(&format!("plugin {name}"));
        let spec = BuildSpec {
            directory: place.workspace.join("plugins").join(name),
            target: Some(directory.join("build")),
            lock: Lock::Keep,
        };
        let Built {
            component, report, ..
        } = build(&toolchain, &spec)?;
        let file = directory.join(name).with_extension("wasm");
        fs::write(&file, component).with_context(|| format!("writing {}", file.display()))?;
        println!("{}\n{report}", file.display());
    }
    Ok(0)
}

fn toolchain(place: &Place, options: &Options) -> Result<Toolchain> {
    if options.debian {
        let debian = Toolchain::debian();
        return debian.context("Debian's compiler for WebAssembly is not installed");
    }
    let programs = Programs {
        cargo: place.cargo.clone(),
        rustc: PathBuf::from("rustc"),
    };
    Ok(Toolchain::ensure(&programs, &place.workspace)?)
}
