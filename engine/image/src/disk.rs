//! Root disks: an ext4 image out of a directory, made without a mount.
//!
//! Invariant: equal trees give equal images: the UUID, the hash seed and all times of the file system are fixed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{CommandError, run, run_loudly};

/// Bytes of a file system block, and the unit of a disk's size.
pub const BLOCK: u64 = 4096;
/// The smallest disk, bytes.
pub const MIN_DISK: u64 = 1 << 20;
/// The largest disk, bytes: ext4 with 32-bit block numbers.
pub const MAX_DISK: u64 = 16 << 40;

/// Base images are told apart by their content, not by this.
const UUID: &str = "b200d000-0000-4000-8000-000000000001";
/// Time of the file system's making, seconds since 1970: not zero, which mke2fs takes for "now".
const TIME: &str = "1";
/// Lines of debugfs that an error shows.
const SHOWN: usize = 5;

/// Why no disk was made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No directory.
    #[error("{} is no directory: give the root of the file system", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A size that no disk has.
    #[error(
        "{bytes} bytes are no size of a disk: give a multiple of {BLOCK} from {MIN_DISK} to {MAX_DISK}"
    )]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// The image cannot be written.
    #[error("disk image {} cannot be written", path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// mke2fs failed, for instance because the tree does not fit.
    #[error("no ext4 image of {bytes} bytes can be made of {}: make it larger if the tree does not fit", directory.display())]
    Make {
        /// The tree.
        directory: PathBuf,
        /// Bytes of the disk.
        bytes: u64,
        /// What mke2fs said.
        #[source]
        source: CommandError,
    },
    /// debugfs could not be run.
    #[error("the requests in {} were not made", requests.display())]
    Correct {
        /// The file of requests.
        requests: PathBuf,
        /// What debugfs said.
        #[source]
        source: CommandError,
    },
    /// debugfs refused a request, for instance because there is no room for an attribute.
    #[error("debugfs refused what it was asked: {said}")]
    Refused {
        /// The first lines that it said.
        said: String,
    },
}

/// What an ext4 image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ext4Spec<'a> {
    /// The root of the tree.
    pub directory: &'a Path,
    /// Bytes of the disk, a multiple of [`BLOCK`].
    pub bytes: u64,
    /// Inodes at least; without it mke2fs's own number, one for each 16 KiB.
    pub inodes: Option<u64>,
    /// Requests for debugfs(8), one a line, made on the finished file system: owners, modes and times that the tree on
    /// the host cannot have without root.
    pub requests: Option<&'a Path>,
}

/// Makes an ext4 image of `bytes` at `image` that holds what is in `directory`, without more inodes than usual or
/// requests.
///
/// # Errors
/// As [`make`].
pub fn make_ext4(directory: &Path, image: &Path, bytes: u64) -> Result<(), DiskError> {
    let spec = Ext4Spec {
        directory,
        bytes,
        inodes: None,
        requests: None,
    };
    make(&spec, image)
}

/// Makes an ext4 image at `image`, which appears only when it is complete; unwritten blocks are holes in it.
///
/// There is no journal and nothing left to be initialised later: a base image is never written, so the first would
/// only be dirt in each overlay, and the second would have every guest write to its disk in its first minute.
///
/// # Errors
/// No directory, an impossible size, a tree that does not fit, a request that debugfs refuses, or no mke2fs.
pub fn make(spec: &Ext4Spec<'_>, image: &Path) -> Result<(), DiskError> {
    let Ext4Spec {
        directory, bytes, ..
    } = *spec;
    if !directory.is_dir() {
        return Err(DiskError::NotADirectory {
            path: directory.to_owned(),
        });
    }
    if !(MIN_DISK..=MAX_DISK).contains(&bytes) || !bytes.is_multiple_of(BLOCK) {
        return Err(DiskError::Size { bytes });
    }
    let failed = |source: io::Error| DiskError::Write {
        path: image.to_owned(),
        source,
    };
    let parent = match image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempfile_in(parent)
        .map_err(failed)?;
    let mut mke2fs = mke2fs(spec, partial.path());
    run(&mut mke2fs, "e2fsprogs").map_err(|source| DiskError::Make {
        directory: directory.to_owned(),
        bytes,
        source,
    })?;
    if let Some(requests) = spec.requests {
        correct(partial.path(), requests)?;
    }
    let file = partial
        .persist(image)
        .map_err(|error| failed(error.error))?;
    file.sync_all().map_err(failed)?;
    // A temporary file is private; an image is shared, and never written.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    fs::set_permissions(image, mode).map_err(failed)
}

/// What is in the file at `path` of the ext4 image, which is not mounted; nothing if there is no such file. Links are not
/// followed.
///
/// # Errors
/// No debugfs, or no ext4.
pub fn read_file(image: &Path, path: &str) -> Result<Vec<u8>, CommandError> {
    let mut debugfs = Command::new("debugfs");
    // A quote in quotes is doubled.
    let request = format!("cat \"{}\"", path.replace('"', "\"\""));
    run(debugfs.arg("-R").arg(request).arg(image), "e2fsprogs")
}

fn mke2fs(spec: &Ext4Spec<'_>, image: &Path) -> Command {
    let mut command = Command::new("mke2fs");
    command
        .env("E2FSPROGS_FAKE_TIME", TIME)
        // Options come from here alone.
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
        .args(["-L", "brood", "-U", UUID])
        .args([
            "-O",
            "^has_journal,^resize_inode,extent,64bit,metadata_csum",
        ]);
    if let Some(inodes) = spec.inodes {
        command.arg("-N").arg(inodes.to_string());
    }
    command
        .args(["-E", &extended(), "-d"])
        .arg(spec.directory)
        .arg(image)
        .arg(format!("{}k", spec.bytes / 1024));
    command
}

/// debugfs ends with 0 whatever became of its requests: what fails is on its error output, below its own name.
fn correct(image: &Path, requests: &Path) -> Result<(), DiskError> {
    let failed = |source| DiskError::Correct {
        requests: requests.to_owned(),
        source,
    };
    let mut debugfs = Command::new("debugfs");
    debugfs
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .args(["-w", "-f"])
        .arg(requests)
        .arg(image);
    let said = run_loudly(&mut debugfs, "e2fsprogs").map_err(failed)?;
    let refused: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("debugfs ") && !line.trim().is_empty())
        .take(SHOWN)
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(DiskError::Refused {
        said: refused.join("; "),
    })
}

fn extended() -> String {
    let whole = "lazy_itable_init=0,assume_storage_prezeroed=1,discard";
    // Attributes of the host's own tree are labels of the host, such as SELinux's.
    format!("{whole},no_copy_xattrs,root_owner=0:0,hash_seed={UUID}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const DISK: u64 = 8 << 20;

    /// Without mke2fs there is nothing to test; CI has it.
    fn has_mke2fs() -> bool {
        let found = run(Command::new("mke2fs").arg("-V"), "e2fsprogs").is_ok();
        if !found && std::env::var_os("CI").is_none() {
            eprintln!("skipped: e2fsprogs is not installed");
            return false;
        }
        assert!(found, "CI needs e2fsprogs");
        true
    }

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("etc")).expect("made");
        fs::write(directory.path().join("etc/motd"), b"hello").expect("written");
        directory
    }

    #[test]
    fn image_holds_the_tree_and_is_clean() {
        if !has_mke2fs() {
            return;
        }
        let tree = tree();
        let out = tempfile::tempdir().expect("a directory");
        let image = out.path().join("disk");
        make_ext4(tree.path(), &image, DISK).expect("made");
        assert_eq!(fs::metadata(&image).expect("there").len(), DISK);
        let read = |request: &str| {
            let mut debugfs = Command::new("debugfs");
            debugfs.args(["-R", request]).arg(&image);
            run(&mut debugfs, "e2fsprogs").expect("readable")
        };
        assert_eq!(read("cat /etc/motd"), b"hello");
        let mut check = Command::new("e2fsck");
        check.arg("-fn").arg(&image);
        run(&mut check, "e2fsprogs").expect("clean");
    }

    #[test]
    fn empty_blocks_are_holes_and_the_image_is_read_only() {
        if !has_mke2fs() {
            return;
        }
        let out = tempfile::tempdir().expect("a directory");
        let image = out.path().join("disk");
        make_ext4(tree().path(), &image, 64 << 20).expect("made");
        let metadata = fs::metadata(&image).expect("there");
        assert!(metadata.blocks() * 512 < 8 << 20, "{}", metadata.blocks());
        assert_eq!(metadata.mode() & 0o222, 0);
    }

    #[test]
    fn tree_that_does_not_fit_leaves_no_image() {
        if !has_mke2fs() {
            return;
        }
        let tree = tree();
        fs::write(tree.path().join("big"), vec![1; 2 << 20]).expect("written");
        let out = tempfile::tempdir().expect("a directory");
        let image = out.path().join("disk");
        let refused = make_ext4(tree.path(), &image, MIN_DISK);
        assert!(matches!(refused, Err(DiskError::Make { .. })));
        assert_eq!(fs::read_dir(out.path()).expect("listed").count(), 0);
    }

    #[test]
    fn impossible_sizes_and_places_are_refused_before_anything_runs() {
        let tree = tree();
        let image = tree.path().join("disk");
        for bytes in [0, BLOCK, MIN_DISK + 1, u64::MAX] {
            let refused = make_ext4(tree.path(), &image, bytes);
            assert!(matches!(refused, Err(DiskError::Size { .. })), "{bytes}");
        }
        let refused = make_ext4(&tree.path().join("etc/motd"), &image, DISK);
        assert!(matches!(refused, Err(DiskError::NotADirectory { .. })));
    }
}
