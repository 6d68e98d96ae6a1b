//! Building a plugin crate: cargo for WebAssembly, then the component, then a look at it.
//!
//! Invariant: the same sources, lock file and toolchain make the same bytes, in whatever directory they lie: profile
//! and flags are set here and not taken from the environment or the workspace, paths are mapped away, symbols are
//! dropped. The workspace's own target and flags do not reach the build.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use thiserror::Error;

use crate::check::{CheckError, Report, check};
use crate::component::{ComponentError, component};
use crate::toolchain::{TARGET, Toolchain};

/// The release profile, whatever the crate's workspace says: small first, then fast. One codegen unit and fat LTO, so
/// that only code that is called remains.
const PROFILE: [(&str, &str); 8] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildSpec {
    /// The directory of the crate.
    pub directory: PathBuf,
    /// Where cargo puts what it makes; none: `wasm` in the crate's own target directory.
    pub target: Option<PathBuf>,
    /// Whether the lock file must be there and fit.
    pub lock: Lock,
}

/// What happens to the lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It is brought up to date.
    Update,
    /// It must fit as it is.
    Keep,
}

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The name of the crate.
    pub package: String,
    /// The component.
    pub component: Vec<u8>,
    /// What it is.
    pub report: Report,
}

/// A crate did not become a component.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A program could not be started.
    #[error("starting cargo")]
    Start(#[source] io::Error),
    /// There is no crate, or cargo does not understand it.
    #[error("{directory} is not a crate that cargo understands: {said}")]
    NoCrate {
        /// Where it was looked for.
        directory: PathBuf,
        /// What cargo said.
        said: String,
    },
    /// It does not compile; cargo has said why.
    #[error("{package} does not compile for WebAssembly; what cargo said is above")]
    Compile {
        /// The name of the crate.
        package: String,
    },
    /// Cargo made no module.
    #[error("cargo made no WebAssembly module of {package}")]
    NoModule {
        /// The name of the crate.
        package: String,
    },
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The module is no component.
    #[error("making a component of {package}")]
    Component {
        /// The name of the crate.
        package: String,
        /// Why.
        #[source]
        error: ComponentError,
    },
    /// The component is no plugin of this engine.
    #[error("{package} is a component that this engine would not load")]
    Check {
        /// The name of the crate.
        package: String,
        /// Why.
        #[source]
        error: CheckError,
    },
}

/// Builds a plugin crate. Cargo's words go to standard error.
///
/// # Errors
///
/// The crate does not compile, or is no plugin.
pub fn build(toolchain: &Toolchain, spec: &BuildSpec) -> Result<Built, BuildError> {
    let plan = Plan::make(toolchain, spec)?;
    let module = compile(toolchain, spec, &plan)?;
    let Plan { package, .. } = plan;
    let module = std::fs::read(&module).map_err(|error| BuildError::Read {
        path: module,
        error,
    })?;
    let component = match component(&module) {
        Ok(component) => component,
        Err(error) => return Err(BuildError::Component { package, error }),
    };
    match check(&component) {
        Ok(report) => Ok(Built {
            package,
            component,
            report,
        }),
        Err(error) => Err(BuildError::Check { package, error }),
    }
}

/// What cargo says of the crate.
struct Plan {
    package: String,
    target: PathBuf,
    /// Flags for rustc: paths that would differ from machine to machine.
    flags: OsString,
}

impl Plan {
    fn make(toolchain: &Toolchain, spec: &BuildSpec) -> Result<Self, BuildError> {
        let mut cargo = toolchain.cargo();
        cargo
            .args(["metadata", "--format-version", "1"])
            .args(["--filter-platform", TARGET])
            .args(locked(spec.lock))
            .current_dir(&spec.directory);
        let output = cargo.output().map_err(BuildError::Start)?;
        let no_crate = |said: String| BuildError::NoCrate {
            directory: spec.directory.clone(),
            said,
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(no_crate(said));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| no_crate(format!("its metadata: {error}")))?;
        let package = package_in(&metadata, &spec.directory)
            .ok_or_else(|| no_crate("a workspace without a package of its own".to_owned()))?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(PathBuf::from);
        let own = || text("target_directory").map(|target| target.join("wasm"));
        let target = spec.target.clone().or_else(own);
        let root = text("workspace_root");
        let (Some(target), Some(root)) = (target, root) else {
            return Err(no_crate("its metadata lack a directory".to_owned()));
        };
        let mut flags = OsString::from("--remap-path-prefix=");
        flags.push(&root);
        flags.push("=/plugin");
        for registry in registries(&metadata) {
            // Cargo separates encoded flags by this character.
            flags.push("\u{1f}--remap-path-prefix=");
            flags.push(registry);
            flags.push("=/registry");
        }
        Ok(Self {
            package,
            target: target.join(toolchain.name()),
            flags,
        })
    }
}

/// Runs cargo, and says where the module is.
fn compile(toolchain: &Toolchain, spec: &BuildSpec, plan: &Plan) -> Result<PathBuf, BuildError> {
    let mut cargo: Command = toolchain.cargo();
    cargo
        .args(["rustc", "--lib", "--crate-type", "cdylib", "--release"])
        .args(["--package", &plan.package])
        .args([
            "--message-format",
            "json-render-diagnostics",
            "--target-dir",
        ])
        .arg(&plan.target)
        .args(locked(spec.lock))
        .current_dir(&spec.directory)
        .env("CARGO_ENCODED_RUSTFLAGS", &plan.flags)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .envs(PROFILE)
        .stderr(Stdio::inherit());
    toolchain.prepare(&mut cargo);
    let output = cargo.output().map_err(BuildError::Start)?;
    let package = || plan.package.clone();
    if !output.status.success() {
        return Err(BuildError::Compile { package: package() });
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut modules = said
        .lines()
        .filter_map(|line| module_of(line, &plan.package));
    modules
        .next_back()
        .ok_or_else(|| BuildError::NoModule { package: package() })
}

fn locked(lock: Lock) -> &'static [&'static str] {
    match lock {
        Lock::Update => &[],
        Lock::Keep => &["--locked"],
    }
}

/// The package whose manifest lies in the directory.
fn package_in(metadata: &Value, directory: &Path) -> Option<String> {
    let manifest = directory.join("Cargo.toml").canonicalize().ok()?;
    let packages = metadata.get("packages")?.as_array()?;
    let text = |package: &Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let here = packages.iter().find(|package| {
        text(package, "manifest_path").is_some_and(|path| Path::new(&path) == manifest)
    })?;
    text(here, "name")
}

/// Directories that hold crates of registries: `…/registry/src/INDEX`.
fn registries(metadata: &Value) -> Vec<PathBuf> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let manifests = packages
        .into_iter()
        .flatten()
        .filter(|package| package.get("source").is_some_and(Value::is_string))
        .filter_map(|package| package.get("manifest_path")?.as_str());
    let mut found: Vec<PathBuf> = manifests
        .filter_map(|manifest| Some(Path::new(manifest).parent()?.parent()?.to_path_buf()))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The module that a line of cargo's says it made of the package.
fn module_of(line: &str, package: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is = |key: &str, value: &str| message.get(key).and_then(Value::as_str) == Some(value);
    let crate_name = message.get("target")?.get("name")?.as_str()?;
    if !is("reason", "compiler-artifact")
        || crate_name.replace('_', "-") != package.replace('_', "-")
    {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    let mut files = files.iter().filter_map(Value::as_str);
    files
        .find(|file| file.ends_with(".wasm"))
        .map(PathBuf::from)
}
