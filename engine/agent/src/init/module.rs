//! Kernel modules listed in `/etc/brood/modules`. Invariant: they are loaded in the order of the list (which is that of
//! their dependencies), and one that fails does not keep the next from being tried.
//!
//! One path a line, parameters behind it if any; empty lines and those that begin with `#` are skipped. Compressed
//! modules are unpacked by the kernel (`MODULE_INIT_COMPRESSED_FILE`, finit_module(2)), if it was built to.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

pub(super) const LIST: &str = "/etc/brood/modules";

/// include/uapi/linux/module.h
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// Loads what the list names; what failed, as lines. No list is an empty list.
pub(super) fn load_listed(list: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(list) else {
        return Vec::new();
    };
    entries(&text)
        .filter_map(|(path, parameters)| {
            load(path, parameters)
                .err()
                .map(|error| format!("loading {path}: {error}"))
        })
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
}

fn load(path: &str, parameters: &str) -> std::io::Result<()> {
    let file = File::open(path)?;
    let parameters = CString::new(parameters.trim())?;
    match finit_module(&file, &parameters, flags(path)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn flags(path: &str) -> i32 {
    let compressed = [".xz", ".gz", ".zst"]
        .iter()
        .any(|suffix| path.ends_with(suffix));
    if compressed {
        MODULE_INIT_COMPRESSED_FILE
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_skipped_and_parameters_split_off() {
        let text = "# vsock\n/lib/vsock.ko\n\n  /lib/x.ko.xz  debug=1 y=2\n";
        let entries: Vec<_> = entries(text).collect();
        assert_eq!(entries[0], ("/lib/vsock.ko", ""));
        assert_eq!(
            (entries[1].0, entries[1].1.trim()),
            ("/lib/x.ko.xz", "debug=1 y=2")
        );
    }

    #[test]
    fn only_compressed_files_ask_the_kernel_to_unpack() {
        assert_eq!(flags("/a.ko"), 0);
        assert_eq!(flags("/a.ko.xz"), MODULE_INIT_COMPRESSED_FILE);
    }

    #[test]
    fn a_missing_module_is_reported_and_a_missing_list_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("modules");
        assert!(load_listed(&list).is_empty());
        fs::write(&list, "/no/such.ko\n/nor/this.ko\n").unwrap();
        assert_eq!(load_listed(&list).len(), 2);
    }
}
