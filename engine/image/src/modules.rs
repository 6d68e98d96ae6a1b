//! Kernel modules: which files a set of names needs, in what order, and what is in them.
//!
//! Invariant: paths come from `modules.dep`, are relative and stay below the directory of one kernel release.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a guest needs to see its devices and mount its disks. Those built into a kernel are passed over.
pub const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "vsock",
    "vmw_vsock_virtio_transport",
    "overlay",
    "ext4",
];

/// The largest module taken, bytes, unpacked.
const MAX_MODULE: u64 = 64 << 20;

/// Why modules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// The directory has no index.
    #[error(
        "{} has no {file}: give the directory of one kernel release, after `depmod -b ROOT RELEASE` if it comes out of a package", directory.display()
    )]
    NoIndex {
        /// The directory.
        directory: PathBuf,
        /// The file that is missing.
        file: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A path in the index that leads elsewhere.
    #[error("modules.dep of {} names '{path}', which is not below it", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// The path.
        path: String,
    },
    /// A name that the kernel does not have.
    #[error("kernel {release} has no module '{name}', neither loadable nor built in")]
    Unknown {
        /// The kernel release.
        release: String,
        /// The module.
        name: String,
    },
    /// The module is compressed in a way that has no decoder here.
    #[error("module {} is compressed in an unsupported way: .ko and .ko.xz are supported", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
    },
    /// A module cannot be read or unpacked.
    #[error("module {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host or the decoder said.
        #[source]
        source: io::Error,
    },
}

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path below the directory of its release, without the suffix of a compression: `kernel/…/x.ko`.
    pub path: String,
    /// The ELF object with its signature, as `finit_module` takes it.
    pub content: Vec<u8>,
}

/// The modules of one kernel release.
#[derive(Clone, Debug)]
pub struct ModuleDirectory {
    directory: PathBuf,
    release: String,
    /// Module name → its file.
    files: BTreeMap<String, String>,
    /// File → the files it needs, the first needed last.
    needs: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl ModuleDirectory {
    /// Reads the index of `directory`, which is `…/lib/modules/RELEASE`.
    ///
    /// # Errors
    /// No `modules.dep` or `modules.builtin`, or one that leads out of the directory.
    pub fn open(directory: &Path) -> Result<Self, ModulesError> {
        let read = |file: &'static str| {
            fs::read_to_string(directory.join(file)).map_err(|source| ModulesError::NoIndex {
                directory: directory.to_owned(),
                file,
                source,
            })
        };
        let mut modules = Self {
            directory: directory.to_owned(),
            release: directory
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            files: BTreeMap::new(),
            needs: BTreeMap::new(),
            builtin: read("modules.builtin")?.lines().map(name_of).collect(),
        };
        for line in read("modules.dep")?.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            let needs: Vec<_> = needs.split_whitespace().map(str::to_owned).collect();
            for path in needs.iter().map(String::as_str).chain([file]) {
                modules.check(path)?;
            }
            modules.files.insert(name_of(file), file.to_owned());
            modules.needs.insert(file.to_owned(), needs);
        }
        Ok(modules)
    }

    /// The kernel release, as in `uname -r`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The files of the modules `names` and of all they need, in the order in which they load. Names count `-` and
    /// `_` as the same. Modules built into the kernel are passed over.
    ///
    /// # Errors
    /// A name that is neither a module nor built in.
    pub fn load_order(&self, names: &[&str]) -> Result<Vec<&str>, ModulesError> {
        let mut order: Vec<&str> = Vec::new();
        for name in names {
            let normal = normal(name);
            let Some(file) = self.files.get(&normal) else {
                if self.builtin.contains(&normal) {
                    continue;
                }
                return Err(ModulesError::Unknown {
                    release: self.release.clone(),
                    name: (*name).to_owned(),
                });
            };
            // depmod lists everything a module needs, also indirectly (man 5 modules.dep).
            let needs = self.needs.get(file).map(Vec::as_slice).unwrap_or_default();
            for file in needs.iter().rev().chain([file]) {
                if !order.contains(&file.as_str()) {
                    order.push(file);
                }
            }
        }
        Ok(order)
    }

    /// The modules `names` and all they need, unpacked, in the order in which they load.
    ///
    /// # Errors
    /// An unknown name, an unsupported compression, or a file that cannot be read.
    pub fn load(&self, names: &[&str]) -> Result<Vec<Module>, ModulesError> {
        let order = self.load_order(names)?;
        order.into_iter().map(|file| self.module(file)).collect()
    }

    fn module(&self, file: &str) -> Result<Module, ModulesError> {
        let path = self.directory.join(file);
        let (name, content) = match file.strip_suffix(".xz") {
            Some(name) => (name, read_xz(&path)),
            None if file.ends_with(".ko") => (file, read_bounded(&path)),
            None => return Err(ModulesError::Compression { path }),
        };
        Ok(Module {
            path: name.to_owned(),
            content: content.map_err(|source| ModulesError::Read { path, source })?,
        })
    }

    fn check(&self, path: &str) -> Result<(), ModulesError> {
        let normal = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if normal {
            return Ok(());
        }
        Err(ModulesError::Foreign {
            directory: self.directory.clone(),
            path: path.to_owned(),
        })
    }
}

/// The name of the module in a file: `kernel/…/virtio-rng.ko.xz` is `virtio_rng`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split_once(".ko").map_or(name, |(name, _)| name);
    normal(name)
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    bounded(fs::File::open(path)?)
}

/// Unpacks on the host, so that every kernel can load it: see [`initramfs`](crate::initramfs).
fn read_xz(path: &Path) -> io::Result<Vec<u8>> {
    let packed = read_bounded(path)?;
    bounded(lzma_rust2::XzReader::new(packed.as_slice(), true))
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MODULE {
        let what = format!("larger than {} MiB", MAX_MODULE >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lzma_rust2::{XzOptions, XzWriter};

    use super::*;

    const DEP: &str = "\
kernel/virtio.ko.xz: kernel/ring.ko.xz
kernel/ring.ko.xz:
kernel/rng/virtio-rng.ko.xz: kernel/virtio.ko.xz kernel/ring.ko.xz
kernel/plain.ko: kernel/virtio.ko.xz kernel/ring.ko.xz
";

    fn xz(content: &[u8]) -> Vec<u8> {
        let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).expect("valid");
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn directory(dep: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("kernel/rng")).expect("made");
        let write = |path: &str, content: &[u8]| fs::write(root.join(path), content);
        write("modules.dep", dep.as_bytes()).expect("written");
        write("modules.builtin", b"kernel/fs/ext4/ext4.ko\n").expect("written");
        for name in ["virtio", "ring", "rng/virtio-rng"] {
            let content = xz(name.as_bytes());
            write(&format!("kernel/{name}.ko.xz"), &content).expect("written");
        }
        write("kernel/plain.ko", b"plain").expect("written");
        directory
    }

    #[test]
    fn needs_load_before_what_needs_them_and_only_once() {
        let directory = directory(DEP);
        let modules = ModuleDirectory::open(directory.path()).expect("an index");
        let order = modules.load_order(&["virtio_rng", "plain"]).expect("known");
        let expected = [
            "kernel/ring.ko.xz",
            "kernel/virtio.ko.xz",
            "kernel/rng/virtio-rng.ko.xz",
            "kernel/plain.ko",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn dash_and_underscore_name_the_same_module() {
        let directory = directory(DEP);
        let modules = ModuleDirectory::open(directory.path()).expect("an index");
        let order = |name| modules.load_order(&[name]).expect("known");
        assert_eq!(order("virtio-rng"), order("virtio_rng"));
    }

    #[test]
    fn built_in_modules_are_passed_over_and_unknown_ones_refused() {
        let directory = directory(DEP);
        let modules = ModuleDirectory::open(directory.path()).expect("an index");
        assert!(modules.load_order(&["ext4"]).expect("built in").is_empty());
        let refused = modules.load_order(&["btrfs"]).expect_err("unknown");
        assert!(refused.to_string().contains("'btrfs'"));
    }

    #[test]
    fn modules_come_unpacked_without_their_suffix() {
        let directory = directory(DEP);
        let modules = ModuleDirectory::open(directory.path()).expect("an index");
        let loaded = modules.load(&["plain"]).expect("readable");
        let plain: Vec<_> = loaded.iter().map(|it| (&*it.path, &*it.content)).collect();
        let expected = [
            ("kernel/ring.ko", &b"ring"[..]),
            ("kernel/virtio.ko", b"virtio"),
            ("kernel/plain.ko", b"plain"),
        ];
        assert_eq!(plain, expected);
    }

    #[test]
    fn damaged_missing_and_unsupported_files_are_named() {
        let directory = directory("kernel/gone.ko:\nkernel/bad.ko.xz:\nkernel/new.ko.zst:\n");
        fs::write(directory.path().join("kernel/bad.ko.xz"), b"no xz").expect("written");
        let modules = ModuleDirectory::open(directory.path()).expect("an index");
        for name in ["gone", "bad", "new"] {
            let text = modules.load(&[name]).expect_err("no module").to_string();
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn index_that_leads_elsewhere_is_refused() {
        for path in ["../../etc/shadow.ko", "/etc/shadow.ko"] {
            let directory = directory(&format!("{path}:\n"));
            let refused = ModuleDirectory::open(directory.path());
            assert!(matches!(refused, Err(ModulesError::Foreign { .. })));
        }
    }

    #[test]
    fn missing_index_says_how_to_make_it() {
        let empty = tempfile::tempdir().expect("a directory");
        let refused = ModuleDirectory::open(empty.path()).expect_err("no index");
        assert!(refused.to_string().contains("depmod -b"), "{refused}");
    }
}
