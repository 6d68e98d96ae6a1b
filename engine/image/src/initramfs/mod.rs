//! The initramfs: the agent as `/init`, a shell, and the modules that the agent loads.
//!
//! ```text
//!  init                        the agent
//!  bin/busybox, bin/sh …       applets as links; sbin, usr/bin, usr/sbin lead to bin
//!  etc/brood/modules           one absolute path a line, in the order in which to load
//!  lib/modules/RELEASE/…       those modules, unpacked
//!  dev/console, etc/passwd, etc/group, etc/hostname, etc/hosts, proc, sys, run, tmp …
//! ```
//!
//! Invariant: the archive is a function of its inputs: no time, no owner, no order of the host's file system enters
//! it. Neither the archive nor its modules are compressed. For the modules this was measured: ten of them load in half
//! a second under emulation either way (`MODULE_INIT_COMPRESSED_FILE` against plain), 0.2 MB against 1.2 MB; plain
//! ones also load on kernels built without CONFIG_MODULE_DECOMPRESS, such as 6.1, and by one path for all.

mod cpio;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use cpio::{CpioError, Entry, Tree};

use crate::modules::Module;

/// Where the list of modules lies in the guest.
pub const MODULE_LIST: &str = "etc/brood/modules";

/// The applets of busybox that get a link if nothing else is asked for.
pub const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "killall",
    "less",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "mount",
    "mv",
    "nc",
    "nproc",
    "od",
    "pgrep",
    "ping",
    "pkill",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "reboot",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "udhcpc",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "wc",
    "wget",
    "which",
    "xargs",
    "yes",
];

/// Empty directories that a guest mounts or writes into, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// Links that make the usual places of programs one.
const LINKS: &[(&str, &str)] = &[
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
];

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// What goes into an initramfs.
#[derive(Clone, Copy, Debug)]
pub struct InitramfsSpec<'a> {
    /// The agent, a static program.
    pub agent: &'a Path,
    /// A static busybox, if the guest shall have a shell, with the applets to link.
    pub busybox: Option<(&'a Path, &'a [&'a str])>,
    /// The kernel release that the modules belong to.
    pub release: &'a str,
    /// The modules, in the order in which to load.
    pub modules: &'a [Module],
    /// The host name of a guest that nobody has stamped yet.
    pub hostname: &'a str,
}

/// Why an initramfs cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A program cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Read {
        /// What the program is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A program is not one that runs alone.
    #[error(
        "{what} {} is no static x86-64 program: there is no dynamic linker in an initramfs", path.display()
    )]
    NotStatic {
        /// What the program is.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A host name that is none.
    #[error("'{hostname}' is no host name: 1 to 64 letters, digits, '-' and '.' are")]
    Hostname {
        /// The name.
        hostname: String,
    },
    /// The tree cannot hold an entry.
    #[error("the initramfs cannot be laid out")]
    Tree {
        /// What the tree said.
        #[from]
        source: CpioError,
    },
}

/// The archive, ready for the kernel.
///
/// # Errors
/// A program that cannot be read or is not static, a host name that is none, or names that collide.
pub fn build(spec: &InitramfsSpec<'_>) -> Result<Vec<u8>, InitramfsError> {
    Ok(tree(spec)?.to_cpio())
}

/// The tree of [`build`], for those who add to it.
///
/// # Errors
/// As for [`build`].
pub fn tree(spec: &InitramfsSpec<'_>) -> Result<Tree, InitramfsError> {
    let mut tree = Tree::default();
    for (path, mode) in DIRECTORIES {
        tree.add(path, Entry::Directory(*mode))?;
    }
    for (path, target) in LINKS {
        tree.add(path, Entry::Symlink((*target).to_owned()))?;
    }
    // The kernel opens it for init before anything is mounted on /dev.
    tree.add("dev/console", Entry::CharacterDevice(0o600, 5, 1))?;
    let agent = static_program("the agent", spec.agent)?;
    tree.add("init", Entry::File(0o755, agent))?;
    if let Some((path, applets)) = spec.busybox {
        add_busybox(&mut tree, path, applets)?;
    }
    add_modules(&mut tree, spec)?;
    let hostname = checked_hostname(spec.hostname)?;
    for (path, content) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hosts", HOSTS),
        ("etc/hostname", &format!("{hostname}\n")),
    ] {
        let content = content.as_bytes().to_vec();
        tree.add(path, Entry::File(0o644, content))?;
    }
    Ok(tree)
}

fn add_busybox(tree: &mut Tree, path: &Path, applets: &[&str]) -> Result<(), InitramfsError> {
    let busybox = static_program("busybox", path)?;
    tree.add("bin/busybox", Entry::File(0o755, busybox))?;
    for applet in applets {
        let link = Entry::Symlink("busybox".to_owned());
        tree.add(&format!("bin/{applet}"), link)?;
    }
    Ok(())
}

fn add_modules(tree: &mut Tree, spec: &InitramfsSpec<'_>) -> Result<(), InitramfsError> {
    let mut list = String::new();
    for module in spec.modules {
        let path = format!("lib/modules/{}/{}", spec.release, module.path);
        tree.add(&path, Entry::File(0o644, module.content.clone()))?;
        list.push_str(&format!("/{path}\n"));
    }
    tree.add(MODULE_LIST, Entry::File(0o644, list.into_bytes()))?;
    Ok(())
}

fn checked_hostname(hostname: &str) -> Result<&str, InitramfsError> {
    // man 7 hostname; Linux keeps 64 bytes (HOST_NAME_MAX).
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let valid = (1..=64).contains(&hostname.len()) && hostname.bytes().all(allowed);
    if valid && !hostname.starts_with(['-', '.']) {
        return Ok(hostname);
    }
    Err(InitramfsError::Hostname {
        hostname: hostname.to_owned(),
    })
}

/// ELF program header type of a request for a dynamic linker.
const PT_INTERP: u32 = 3;

fn static_program(what: &'static str, path: &Path) -> Result<Vec<u8>, InitramfsError> {
    let bytes = fs::read(path).map_err(|source| InitramfsError::Read {
        what,
        path: path.to_owned(),
        source,
    })?;
    if is_static(&bytes) == Some(true) {
        return Ok(bytes);
    }
    Err(InitramfsError::NotStatic {
        what,
        path: path.to_owned(),
    })
}

/// Whether the bytes are a 64-bit x86 ELF program without a dynamic linker; nothing if they are no such file.
fn is_static(bytes: &[u8]) -> Option<bool> {
    use elf::ElfBytes;
    use elf::endian::LittleEndian;
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).ok()?;
    if file.ehdr.e_machine != elf::abi::EM_X86_64 {
        return None;
    }
    let mut headers = file.segments()?.iter();
    Some(headers.all(|header| header.p_type != PT_INTERP))
}

#[cfg(test)]
mod tests;
