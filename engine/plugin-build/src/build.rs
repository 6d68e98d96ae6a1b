//! Building a plugin crate: cargo for WebAssembly, then the component, then a look at it.
//!
//! Invariant: the same sources, lock file and toolchain make the same bytes, in whatever directory they lie: profile
//! and flags are set here and not taken from the environment or the workspace, paths of registries are mapped away
//! (cargo compiles members of a workspace under relative ones), symbols are dropped. The workspace's own target and flags
//! do not reach the build. The flags do not name the crate, so that crates with one target directory share std and all
//! they both depend on.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use thiserror::Error;

use crate::check::{CheckError, Report, check};
use crate::component::{ComponentError, component};
use crate::toolchain::{TARGET, Toolchain};

/// The release profile, whatever the crate's workspace says. One codegen unit and fat LTO, so that only code that is
/// called remains; overflow traps, so that no sum is silently wrong.
const PROFILE: [(&str, &str); 7] = [
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
    /// `s`, or `2` where the manifest says `optimize = "speed"` under `[package.metadata.brood]`.
    level: &'static str,
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
        let manifest = package_in(&metadata, &spec.directory)
            .ok_or_else(|| no_crate("a workspace without a package of its own".to_owned()))?;
        let level = level(manifest).map_err(no_crate)?;
        let package = manifest
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let package = package.to_owned();
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(PathBuf::from);
        let own = || text("target_directory").map(|target| target.join("wasm"));
        let target = spec.target.clone().or_else(own);
        let target =
            target.ok_or_else(|| no_crate("its metadata lack a target directory".to_owned()))?;
        Ok(Self {
            package,
            level,
            target: target.join(toolchain.name()),
            flags: flags(&registries(&metadata)),
        })
    }
}

/// Flags that map the paths of these registries.
fn flags(registries: &[PathBuf]) -> OsString {
    let mut flags = OsString::new();
    for registry in registries {
        if !flags.is_empty() {
            // Cargo separates encoded flags by this character.
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(registry);
        flags.push("=/registry");
    }
    flags
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
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", plan.level)
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
fn package_in<'a>(metadata: &'a Value, directory: &Path) -> Option<&'a Value> {
    let manifest = directory.join("Cargo.toml").canonicalize().ok()?;
    let is_here = |package: &&Value| {
        let path = package.get("manifest_path").and_then(Value::as_str);
        path.is_some_and(|path| Path::new(path) == manifest)
    };
    metadata.get("packages")?.as_array()?.iter().find(is_here)
}

/// Which way the crate wants to be optimised. Size is the default: most of a component is read once, in `prepare`.
fn level(package: &Value) -> Result<&'static str, String> {
    let wish = package
        .get("metadata")
        .and_then(|metadata| metadata.get("brood")?.get("optimize"));
    match wish.map(Value::as_str) {
        None | Some(Some("size")) => Ok("s"),
        Some(Some("speed")) => Ok("2"),
        Some(_) => {
            Err("package.metadata.brood.optimize is neither \"size\" nor \"speed\"".to_owned())
        }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn size_is_the_default_and_a_word_that_is_neither_is_refused() {
        let with = |metadata: Value| level(&json!({ "metadata": metadata }));
        assert_eq!(with(Value::Null), Ok("s"));
        assert_eq!(with(json!({"brood": {"optimize": "size"}})), Ok("s"));
        assert_eq!(with(json!({"brood": {"optimize": "speed"}})), Ok("2"));
        assert!(with(json!({"brood": {"optimize": "fast"}})).is_err());
        assert!(with(json!({"brood": {"optimize": 3}})).is_err());
    }

    #[test]
    fn module_of_another_crate_or_of_no_artifact_is_not_taken() {
        let line = |reason: &str, name: &str, file: &str| {
            json!({"reason": reason, "target": {"name": name}, "filenames": [file]}).to_string()
        };
        let is = |line: String| module_of(&line, "my-quota").is_some();
        assert!(is(line(
            "compiler-artifact",
            "my_quota",
            "/t/my_quota.wasm"
        )));
        assert!(!is(line("compiler-artifact", "serde", "/t/serde.wasm")));
        assert!(!is(line(
            "compiler-artifact",
            "my_quota",
            "/t/libmy_quota.rlib"
        )));
        assert!(!is(line(
            "build-script-executed",
            "my_quota",
            "/t/my_quota.wasm"
        )));
        assert!(!is("not json".to_owned()));
    }

    #[test]
    fn directory_without_a_crate_is_said_in_the_words_of_cargo() {
        let directory = tempfile::tempdir().unwrap();
        let spec = BuildSpec {
            directory: directory.path().to_path_buf(),
            target: None,
            lock: Lock::Update,
        };
        let toolchain = Toolchain::Target(crate::Programs::default());
        let error = build(&toolchain, &spec).unwrap_err();
        assert!(
            matches!(&error, BuildError::NoCrate { said, .. } if said.contains("Cargo.toml")),
            "{error}"
        );
    }

    #[test]
    fn registries_are_the_directories_above_crates_that_come_from_one() {
        let metadata = json!({"packages": [
            {"source": "registry+x", "manifest_path": "/c/registry/src/index/serde-1/Cargo.toml"},
            {"source": "registry+x", "manifest_path": "/c/registry/src/index/serde_json-1/Cargo.toml"},
            {"source": null, "manifest_path": "/home/me/plugin/Cargo.toml"},
        ]});
        let found = registries(&metadata);
        assert_eq!(found, [PathBuf::from("/c/registry/src/index")]);
        // Nothing of the crate: with other flags cargo would compile for each crate what they share.
        let mapped = "--remap-path-prefix=/c/registry/src/index=/registry";
        assert_eq!(flags(&found), mapped);
    }
}
