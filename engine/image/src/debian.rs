//! Kernels out of Debian's packages, unpacked somewhere and never installed.
//!
//! Invariant: a directory in the cache is complete; it appears by rename after everything in it is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{CommandError, run};

/// A stock kernel as its package has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestKernel {
    /// As in `uname -r`.
    pub release: String,
    /// The kernel, a bzImage.
    pub vmlinuz: PathBuf,
    /// The directory of its modules, which holds `kernel/` and, after depmod, `modules.dep`.
    pub modules: PathBuf,
}

/// Why an unpacked package holds no kernel for us.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory cannot be listed.
    #[error("{} cannot be listed: give a directory with an unpacked linux-image package", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// No vmlinuz.
    #[error(
        "{} holds no boot/vmlinuz-RELEASE: unpack a linux-image package there (a meta package holds none)", directory.display()
    )]
    NoKernel {
        /// The directory.
        directory: PathBuf,
    },
    /// More than one.
    #[error("{} holds kernels {}: give a directory with one", directory.display(), releases.join(", "))]
    SeveralKernels {
        /// The directory.
        directory: PathBuf,
        /// Their releases.
        releases: Vec<String>,
    },
    /// A kernel without modules.
    #[error("{} holds kernel {release} but no lib/modules/{release}: unpack its whole package", directory.display())]
    NoModules {
        /// The directory.
        directory: PathBuf,
        /// The kernel's release.
        release: String,
    },
}

/// Why a kernel package cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not the name of a package.
    #[error("'{package}' is no package name")]
    Name {
        /// The name.
        package: String,
    },
    /// The meta package leads to no kernel.
    #[error(
        "package {package} depends on no linux-image package: apt-cache depends says\n{depends}"
    )]
    NoImage {
        /// The package.
        package: String,
        /// What apt said.
        depends: String,
    },
    /// apt, dpkg or depmod failed.
    #[error("package {package} cannot be fetched (are apt's lists fresh? run apt-get update)")]
    Command {
        /// The package.
        package: String,
        /// What failed.
        #[source]
        source: CommandError,
    },
    /// The cache cannot be written.
    #[error("{} cannot be written", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The package holds no usable kernel.
    #[error("package {package} holds no usable kernel")]
    Package {
        /// The package.
        package: String,
        /// What is missing.
        #[source]
        source: FindError,
    },
}

/// The kernel in `directory`, where a linux-image package was unpacked.
///
/// # Errors
/// No kernel there, more than one, or one without modules.
pub fn find(directory: &Path) -> Result<GuestKernel, FindError> {
    let boot = directory.join("boot");
    let names = names(&boot).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound if directory.is_dir() => FindError::NoKernel {
            directory: directory.to_owned(),
        },
        _ => FindError::List { path: boot, source },
    })?;
    let releases = names
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-"));
    let releases: Vec<_> = releases.map(str::to_owned).collect();
    let release = match releases.as_slice() {
        [] => {
            return Err(FindError::NoKernel {
                directory: directory.to_owned(),
            });
        }
        [release] => release.clone(),
        _ => {
            return Err(FindError::SeveralKernels {
                directory: directory.to_owned(),
                releases,
            });
        }
    };
    // Debian 13 packages its modules below /usr.
    let candidates = ["lib/modules", "usr/lib/modules"].map(|it| directory.join(it).join(&release));
    match candidates
        .into_iter()
        .find(|path| path.join("kernel").is_dir())
    {
        Some(modules) => Ok(GuestKernel {
            vmlinuz: directory.join("boot").join(format!("vmlinuz-{release}")),
            release,
            modules,
        }),
        None => Err(FindError::NoModules {
            directory: directory.to_owned(),
            release,
        }),
    }
}

/// The kernel that `package` stands for, a meta package such as `linux-image-6.12-cloud-amd64` or the package itself,
/// out of `cache`; fetched with apt, unpacked and its modules indexed if it is not there. Needs neither root nor a
/// change of the host's packages.
///
/// # Errors
/// apt knows no such package or cannot download it, or the package holds no kernel.
pub fn fetch(package: &str, cache: &Path) -> Result<GuestKernel, FetchError> {
    let image = resolve(package)?;
    let place = cache.join(&image);
    let failed = |source| FetchError::Package {
        package: image.clone(),
        source,
    };
    if place.is_dir() {
        return find(&place).map_err(failed);
    }
    create(cache)?;
    // In the cache, so that the rename stays in one file system.
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(cache)
        .map_err(|source| FetchError::Cache {
            path: cache.to_owned(),
            source,
        })?;
    let root = partial.path().join("root");
    create(&root)?;
    unpack(&image, partial.path(), &root)?;
    let kernel = find(&root).map_err(failed)?;
    let mut depmod = Command::new("depmod");
    depmod.arg("-b").arg(&root).arg(&kernel.release);
    run(&mut depmod, "kmod").map_err(|source| command(&image, source))?;
    match fs::rename(&root, &place) {
        Ok(()) => {}
        // Somebody else was faster; theirs is as good.
        Err(_) if place.is_dir() => {}
        Err(source) => {
            return Err(FetchError::Cache {
                path: place,
                source,
            });
        }
    }
    find(&place).map_err(failed)
}

fn unpack(image: &str, work: &Path, root: &Path) -> Result<(), FetchError> {
    let failed = |source| command(image, source);
    let mut download = Command::new("apt-get");
    // apt's own sandbox user could not write into a private cache.
    download
        .args(["download", "-qq", "-o", "APT::Sandbox::User=root", image])
        .current_dir(work);
    run(&mut download, "apt").map_err(failed)?;
    let listing = names(work).map_err(|source| FetchError::Cache {
        path: work.to_owned(),
        source,
    })?;
    for archive in listing.iter().filter(|name| name.ends_with(".deb")) {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(work.join(archive)).arg(root);
        run(&mut unpack, "dpkg").map_err(failed)?;
    }
    Ok(())
}

/// The package with the kernel itself.
fn resolve(package: &str) -> Result<String, FetchError> {
    // Debian policy §5.6.1; also keeps options out of command lines.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !package.starts_with("linux-image-") || !package.bytes().all(allowed) {
        return Err(FetchError::Name {
            package: package.to_owned(),
        });
    }
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", package]);
    let output = run(&mut depends, "apt").map_err(|source| command(package, source))?;
    let depends = String::from_utf8_lossy(&output);
    match image_package(&depends) {
        Some(image) => Ok(image.to_owned()),
        // A kernel itself depends on tools only.
        None if depends.contains("kmod") => Ok(package.to_owned()),
        None => Err(FetchError::NoImage {
            package: package.to_owned(),
            depends: depends.into_owned(),
        }),
    }
}

/// The kernel package in what `apt-cache depends` prints.
fn image_package(depends: &str) -> Option<&str> {
    let lines = depends.lines().map(str::trim);
    let mut names = lines.filter_map(|line| line.strip_prefix("Depends: "));
    names.find(|name| name.starts_with("linux-image-"))
}

fn command(package: &str, source: CommandError) -> FetchError {
    FetchError::Command {
        package: package.to_owned(),
        source,
    }
}

fn create(path: &Path) -> Result<(), FetchError> {
    fs::create_dir_all(path).map_err(|source| FetchError::Cache {
        path: path.to_owned(),
        source,
    })
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(modules: Option<&str>, releases: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("boot")).expect("made");
        for release in releases {
            let files = [format!("vmlinuz-{release}"), format!("config-{release}")];
            for name in files {
                fs::write(root.join("boot").join(name), b"").expect("written");
            }
            if let Some(modules) = modules {
                let kernel = root.join(modules).join(release).join("kernel");
                fs::create_dir_all(kernel).expect("made");
            }
        }
        directory
    }

    #[test]
    fn kernel_and_modules_are_found_in_both_places_that_debian_uses() {
        for modules in ["lib/modules", "usr/lib/modules"] {
            let directory = package(Some(modules), &["6.12.1-cloud-amd64"]);
            let kernel = find(directory.path()).expect("a kernel");
            assert_eq!(kernel.release, "6.12.1-cloud-amd64");
            assert!(kernel.vmlinuz.is_file() && kernel.modules.is_dir());
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let find = |directory: tempfile::TempDir| find(directory.path()).expect_err("unusable");
        let empty = tempfile::tempdir().expect("a directory");
        assert!(matches!(find(empty), FindError::NoKernel { .. }));
        let none = package(Some("lib/modules"), &[]);
        assert!(matches!(find(none), FindError::NoKernel { .. }));
        let bare = package(None, &["6.1"]);
        assert!(matches!(find(bare), FindError::NoModules { .. }));
        let two = find(package(Some("lib/modules"), &["6.1", "6.12"]));
        assert!(two.to_string().contains("6.1, 6.12"), "{two}");
    }

    #[test]
    fn directory_that_does_not_exist_is_named() {
        let error = find(Path::new("/nonexistent/kernel")).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/kernel"), "{error}");
    }

    #[test]
    fn meta_package_leads_to_its_kernel() {
        let depends = "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n    linux-image-other\n";
        let expected = Some("linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(image_package(depends), expected);
        assert_eq!(image_package("x\n  Depends: kmod\n"), None);
    }

    #[test]
    fn names_that_apt_would_read_as_options_or_sources_are_refused() {
        for name in [
            "",
            "-o",
            "bash",
            "linux-image-a/b",
            "linux-image-a b",
            "linux-image-a=1",
        ] {
            let refused = fetch(name, Path::new("/nonexistent"));
            assert!(matches!(refused, Err(FetchError::Name { .. })), "{name}");
        }
    }
}
