//! The newc cpio archive, as the kernel unpacks it.
//!
//! Linux: Documentation/driver-api/early-userspace/buffer-format.rst. Invariant: entries come in the order of their
//! paths with every directory before what it holds, all times are zero and all owners root, so equal trees are equal
//! bytes.

use std::collections::BTreeMap;

const MAGIC: &[u8; 6] = b"070701";
const TRAILER: &str = "TRAILER!!!";
/// Longest path the kernel takes, with its terminating zero (`N_ALIGN` and `PATH_MAX` in init/initramfs.c).
const PATH_MAX: usize = 4096;

const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_SYMLINK: u32 = 0o120_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// What a path in the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory with permission bits.
    Directory(u32),
    /// A file with permission bits and content.
    File(u32, Vec<u8>),
    /// A symbolic link and where it leads.
    Symlink(String),
    /// A character device with permission bits, major and minor number.
    CharacterDevice(u32, u32, u32),
}

/// Why a path cannot enter an archive.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpioError {
    /// Not relative, not normal, or too long.
    #[error(
        "'{path}' cannot be a path in an initramfs: it must be relative, without '.', '..' or empty parts, and shorter than {PATH_MAX} bytes"
    )]
    Path {
        /// The path.
        path: String,
    },
    /// Something else is there.
    #[error("'{path}' is in the initramfs twice, as different things")]
    Conflict {
        /// The path.
        path: String,
    },
    /// A file of 4 GiB or more.
    #[error("'{path}' has {bytes} bytes: a file in an initramfs is smaller than 4 GiB")]
    TooBig {
        /// The path.
        path: String,
        /// Its length.
        bytes: usize,
    },
}

/// A tree of files on its way into an archive.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Adds an entry; missing parent directories are made with mode 0755.
    ///
    /// # Errors
    /// A path that is not relative and normal, one that is there already as something else, or a file too large.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), CpioError> {
        let refuse = || CpioError::Path {
            path: path.to_owned(),
        };
        let normal = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !normal || path.len() >= PATH_MAX || path.contains('\0') || path == TRAILER {
            return Err(refuse());
        }
        if let Entry::File(_, content) = &entry
            && u32::try_from(content.len()).is_err()
        {
            return Err(CpioError::TooBig {
                path: path.to_owned(),
                bytes: content.len(),
            });
        }
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).ok_or_else(refuse)?;
            match self.entries.get(parent) {
                None => {
                    self.entries
                        .insert(parent.to_owned(), Entry::Directory(0o755));
                }
                Some(Entry::Directory(_)) => {}
                Some(_) => return Err(conflict(parent)),
            }
        }
        // A directory that was made for its content may get its own mode.
        let same_kind = |present: &Entry| {
            *present == entry
                || matches!(
                    (present, &entry),
                    (Entry::Directory(_), Entry::Directory(_))
                )
        };
        if !self.entries.get(path).is_none_or(same_kind) {
            return Err(conflict(path));
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// The archive.
    pub fn to_cpio(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            write_entry(&mut out, number, path, entry);
        }
        write_header(&mut out, TRAILER, &Fields::default());
        out
    }
}

fn conflict(path: &str) -> CpioError {
    CpioError::Conflict {
        path: path.to_owned(),
    }
}

/// The fields of a header that differ between entries.
#[derive(Default)]
struct Fields {
    inode: u32,
    mode: u32,
    bytes: u32,
    major: u32,
    minor: u32,
}

fn write_entry(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let (mode, content): (u32, &[u8]) = match entry {
        Entry::Directory(mode) => (TYPE_DIRECTORY | mode, &[]),
        Entry::File(mode, content) => (TYPE_FILE | mode, content),
        Entry::Symlink(target) => (TYPE_SYMLINK | 0o777, target.as_bytes()),
        Entry::CharacterDevice(mode, ..) => (TYPE_CHARACTER_DEVICE | mode, &[]),
    };
    let (major, minor) = match entry {
        Entry::CharacterDevice(_, major, minor) => (*major, *minor),
        _ => (0, 0),
    };
    let fields = Fields {
        inode,
        mode,
        // Checked when it was added.
        bytes: content.len() as u32,
        major,
        minor,
    };
    write_header(out, path, &fields);
    out.extend_from_slice(content);
    pad(out);
}

fn write_header(out: &mut Vec<u8>, path: &str, fields: &Fields) {
    let links = 1;
    let (owner, group, time, device, check) = (0, 0, 0, 0, 0);
    let name_bytes = path.len() as u32 + 1;
    out.extend_from_slice(MAGIC);
    for field in [
        fields.inode,
        fields.mode,
        owner,
        group,
        links,
        time,
        fields.bytes,
        device,
        device,
        fields.major,
        fields.minor,
        name_bytes,
        check,
    ] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
}

/// Headers and contents start on four bytes.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> Entry {
        Entry::File(0o644, content.to_vec())
    }

    fn hex(bytes: &[u8]) -> usize {
        let text = std::str::from_utf8(bytes).expect("ASCII");
        usize::from_str_radix(text, 16).expect("hexadecimal")
    }

    /// Unpacks the archive: path, mode, content.
    fn unpack(archive: &[u8]) -> Vec<(String, usize, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let header = &archive[at..at + 110];
            assert_eq!(&header[..6], MAGIC);
            let field = |index: usize| hex(&header[6 + index * 8..14 + index * 8]);
            let name_start = at + 110;
            let name_end = name_start + field(11) - 1;
            assert_eq!(archive[name_end], 0);
            let name = String::from_utf8(archive[name_start..name_end].to_vec());
            let name = name.expect("ASCII");
            let start = (name_end + 1).next_multiple_of(4);
            let end = start + field(6);
            if name == TRAILER {
                assert_eq!(archive.len(), start);
                return entries;
            }
            entries.push((name, field(1), archive[start..end].to_vec()));
            at = end.next_multiple_of(4);
        }
    }

    #[test]
    fn tree_unpacks_to_what_went_in_with_parents_first() {
        let mut tree = Tree::default();
        tree.add("init", file(b"#!")).expect("added");
        tree.add("dev/console", Entry::CharacterDevice(0o600, 5, 1))
            .expect("added");
        tree.add("bin/sh", Entry::Symlink("busybox".to_owned()))
            .expect("added");
        let expected = [
            ("bin", 0o040_755, &b""[..]),
            ("bin/sh", 0o120_777, b"busybox"),
            ("dev", 0o040_755, b""),
            ("dev/console", 0o020_600, b""),
            ("init", 0o100_644, b"#!"),
        ]
        .map(|(path, mode, content)| (path.to_owned(), mode, content.to_vec()));
        assert_eq!(unpack(&tree.to_cpio()), expected);
    }

    #[test]
    fn device_numbers_are_in_the_header() {
        let mut tree = Tree::default();
        let console = Entry::CharacterDevice(0o600, 5, 1);
        tree.add("console", console).expect("added");
        let archive = tree.to_cpio();
        assert_eq!(hex(&archive[78..86]), 5);
        assert_eq!(hex(&archive[86..94]), 1);
    }

    #[test]
    fn order_of_adding_does_not_change_the_bytes() {
        let mut one = Tree::default();
        let mut other = Tree::default();
        for path in ["a/b", "a-b", "c"] {
            one.add(path, file(path.as_bytes())).expect("added");
        }
        for path in ["c", "a-b", "a/b"] {
            other.add(path, file(path.as_bytes())).expect("added");
        }
        assert_eq!(one.to_cpio(), other.to_cpio());
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for path in [
            "",
            "/init",
            "a//b",
            "../x",
            "a/./b",
            "a/",
            "TRAILER!!!",
            "a\0b",
        ] {
            let refused = Tree::default().add(path, file(b""));
            let path = path.to_owned();
            assert_eq!(refused, Err(CpioError::Path { path }));
        }
    }

    #[test]
    fn one_path_cannot_be_two_things() {
        let mut tree = Tree::default();
        tree.add("bin/sh", file(b"one")).expect("added");
        tree.add("bin/sh", file(b"one")).expect("the same again");
        assert!(tree.add("bin/sh", file(b"two")).is_err());
        assert!(tree.add("bin", file(b"")).is_err());
        assert!(tree.add("bin/sh/x", file(b"")).is_err());
        tree.add("bin", Entry::Directory(0o700)).expect("its mode");
    }
}
