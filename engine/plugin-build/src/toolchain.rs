//! Which compiler makes WebAssembly here: rustup's if it has the target, else Debian's packages.
//!
//! Invariant: nothing is installed that is there already, and what cannot be installed is said as the exact command.

use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// The target.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler for WebAssembly, its cargo, the source of std (there is no compiled one), and a linker.
const DEBIAN: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// The programs of the toolchain in use.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `cargo`, by name or path.
    pub cargo: PathBuf,
    /// `rustc`, by name or path.
    pub rustc: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
        }
    }
}

/// A compiler that makes WebAssembly.
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// One with the target installed, as `rustup target add wasm32-unknown-unknown` does.
    Target(Programs),
    /// Debian's, which builds std along.
    Debian,
}

/// There is no compiler that makes WebAssembly.
#[derive(Debug, Error)]
pub enum ToolchainError {
    /// Only an administrator can install one.
    #[error(
        "no toolchain for {TARGET}; run `rustup target add {TARGET}`, or on Debian: sudo {command}"
    )]
    Missing {
        /// The command that installs Debian's.
        command: String,
    },
    /// Installing failed.
    #[error("installing with `{command}` failed: {said}")]
    Install {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

impl Toolchain {
    /// The one that is here, seen from a directory (rustup's choice depends on it); none if there is none.
    #[must_use]
    pub fn find(programs: &Programs, directory: &Path) -> Option<Self> {
        if has_target(programs, directory) {
            return Some(Self::Target(programs.clone()));
        }
        Self::debian()
    }

    /// Debian's, if its packages are here.
    #[must_use]
    pub fn debian() -> Option<Self> {
        let files = [DEBIAN_RUSTC, DEBIAN_CARGO, DEBIAN_SOURCE, DEBIAN_LINKER];
        let here = files.iter().all(|file| Path::new(file).exists());
        here.then_some(Self::Debian)
    }

    /// The one that is here, or Debian's, installed now.
    ///
    /// # Errors
    ///
    /// There is none, and it cannot be installed; the message says which command would.
    pub fn ensure(programs: &Programs, directory: &Path) -> Result<Self, ToolchainError> {
        if let Some(toolchain) = Self::find(programs, directory) {
            return Ok(toolchain);
        }
        Self::install()
    }

    fn install() -> Result<Self, ToolchainError> {
        let arguments = ["install", "--yes", "-qq", "--no-install-recommends"];
        let command = format!(
            "apt-get install --no-install-recommends {}",
            DEBIAN.join(" ")
        );
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
            return Err(ToolchainError::Missing { command });
        }
        let start = |error| ToolchainError::Start {
            program: "apt-get".to_owned(),
            error,
        };
        let install = || {
            let mut apt = Command::new("apt-get");
            apt.args(arguments).args(DEBIAN);
            apt.env("DEBIAN_FRONTEND", "noninteractive").output()
        };
        let mut output = install().map_err(start)?;
        if !output.status.success() {
            // Package lists that are out of date name files that are gone.
            Command::new("apt-get")
                .args(["update", "-qq"])
                .output()
                .map_err(start)?;
            output = install().map_err(start)?;
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Self::debian().ok_or(ToolchainError::Install { command, said })
    }

    /// The cargo to run.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Target(programs) => Command::new(&programs.cargo),
            Self::Debian => Command::new(DEBIAN_CARGO),
        }
    }

    /// Lets a build with [`Toolchain::cargo`] make WebAssembly, whatever the caller's environment says.
    pub(crate) fn prepare(&self, build: &mut Command) {
        build.args(["--target", TARGET]);
        match self {
            Self::Target(programs) => {
                build.env("RUSTC", &programs.rustc);
            }
            Self::Debian => {
                build
                    .args(["-Z", "build-std=std,panic_abort"])
                    .env("RUSTC", DEBIAN_RUSTC)
                    // Building std is an unstable option, and Debian's cargo is a stable one.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER)
                    .env_remove("RUSTUP_TOOLCHAIN");
            }
        }
    }

    /// Its directory below the target directory: two compilers do not share what they make.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Target(_) => "target",
            Self::Debian => "debian",
        }
    }
}

/// Whether the compiler has a compiled std for the target.
fn has_target(programs: &Programs, directory: &Path) -> bool {
    let mut rustc = Command::new(&programs.rustc);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let Ok(output) = rustc.current_dir(directory).output() else {
        return false;
    };
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    files
        .into_iter()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_without_the_target_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs {
            cargo: "cargo".into(),
            rustc: "/bin/true".into(),
        };
        assert!(!has_target(&programs, directory.path()));
        let missing = Programs {
            rustc: "/no/such/rustc".into(),
            ..programs
        };
        assert!(!has_target(&missing, directory.path()));
    }

    #[test]
    fn missing_toolchain_is_said_as_the_commands_that_install_one() {
        let command = "apt-get install rustc-web".to_owned();
        let said = ToolchainError::Missing { command }.to_string();
        assert!(
            said.contains("rustup target add wasm32-unknown-unknown"),
            "{said}"
        );
        assert!(said.contains("sudo apt-get install rustc-web"), "{said}");
    }
}
