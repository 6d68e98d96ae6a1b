//! Where things are: the workspace, the target directory, the cache. The only module that reads the environment.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// The triple that `.cargo/config.toml` builds for; outputs are below a directory of that name.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Variables handed on to programs in the lab, besides every `BROOD_*`, `RUST_*` and `NEXTEST_*`.
const HANDED_ON: &[&str] = &[
    "CI",
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
];
const HANDED_ON_PREFIXES: &[&str] = &["BROOD_", "RUST_", "NEXTEST_"];

/// A cargo profile, as far as output paths go.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// The directories and the few variables that every command needs, read once.
pub(crate) struct Place {
    /// Root of the workspace.
    pub(crate) workspace: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// What survives `cargo clean`: kernels, tools. `$BROOD_CACHE_DIR`, else `$XDG_CACHE_HOME/brood`, else `~/.cache/brood`.
    pub(crate) cache: PathBuf,
    /// The directory the command was started in.
    pub(crate) cwd: PathBuf,
    /// The cargo that started this program, else the one on `PATH`.
    pub(crate) cargo: PathBuf,
    /// `PATH`, split, with the system directories that an ordinary user's `PATH` lacks.
    pub(crate) path: Vec<PathBuf>,
    /// Variables that programs in the lab see too.
    pub(crate) handed_on: Vec<(OsString, OsString)>,
}

impl Place {
    pub(crate) fn find() -> Result<Self> {
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let cwd = env::current_dir().context("the current directory")?;
        let metadata = crate::process::output(
            Command::new(&cargo)
                .args(["metadata", "--no-deps", "--format-version", "1"])
                .arg("--manifest-path")
                .arg(manifest(&cwd)),
        )?;
        let metadata: Value = serde_json::from_str(&metadata).context("parsing cargo metadata")?;
        let directory = |key: &str| {
            let value = metadata.get(key).and_then(Value::as_str);
            value
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata has no {key}"))
        };
        let mut path: Vec<PathBuf> =
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        Ok(Self {
            workspace: directory("workspace_root")?,
            target: directory("target_directory")?,
            cache: cache()?,
            cwd,
            cargo,
            path,
            handed_on: handed_on(),
        })
    }

    /// Whether what is missing is a failure.
    pub(crate) fn is_ci(&self) -> bool {
        self.handed_on.iter().any(|(name, _)| name == "CI")
    }

    /// Where cargo puts a program of the workspace.
    pub(crate) fn program(&self, profile: Profile, name: &str) -> PathBuf {
        let profile = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.target.join(TARGET).join(profile).join(name)
    }

    /// The first executable of that name on `PATH`.
    pub(crate) fn on_path(&self, name: &str) -> Option<PathBuf> {
        self.path
            .iter()
            .map(|directory| directory.join(name))
            .find(|file| is_executable(file))
    }

    /// A `cargo` command in the workspace.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(arguments).current_dir(&self.workspace);
        command
    }
}

/// The manifest of this workspace. Cargo's alias starts the tool anywhere below the root, and a binary that is run by
/// hand has the place it was built from.
fn manifest(cwd: &Path) -> PathBuf {
    let here = cwd
        .ancestors()
        .find(|directory| directory.join("engine/xtask/Cargo.toml").is_file());
    let built_from = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.map_or_else(built_from, Path::to_path_buf)
        .join("Cargo.toml")
}

fn cache() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("BROOD_CACHE_DIR") {
        return Ok(std::path::absolute(directory)?);
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base
        .context("no cache directory: set BROOD_CACHE_DIR, XDG_CACHE_HOME or HOME")?
        .join("brood"))
}

fn handed_on() -> Vec<(OsString, OsString)> {
    env::vars_os()
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            HANDED_ON.contains(&&*name)
                || HANDED_ON_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

fn is_executable(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}
