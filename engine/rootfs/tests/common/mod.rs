//! Layers as hostile as a test wants them, and reading a disk back.

pub(crate) mod image;
pub(crate) mod puller;
pub(crate) mod server;

use std::io::{BufRead, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use brood_rootfs::{BuildError, Digest, DiskOptions, Limits, PackedLayer, build};
use tar::{Builder, EntryType, Header};

/// A tar file, entry by entry; names are taken as they are, whatever they say.
pub(crate) struct Layer(Builder<Vec<u8>>);

/// What an entry is besides its name.
#[derive(Clone, Copy)]
pub(crate) struct Is {
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
}

pub(crate) const PLAIN: Is = Is {
    mode: 0o644,
    owner: (0, 0),
    mtime: 1_000_000_000,
};

pub(crate) fn header(kind: EntryType, name: &str, is: Is) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    let field = &mut header.as_mut_bytes()[..100];
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(is.mode);
    header.set_uid(is.owner.0);
    header.set_gid(is.owner.1);
    header.set_mtime(is.mtime);
    header.set_size(0);
    header
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    pub(crate) fn file_as(self, name: &str, content: &[u8], is: Is) -> Self {
        self.raw(header(EntryType::Regular, name, is), content)
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.file_as(name, content.as_bytes(), PLAIN)
    }

    pub(crate) fn directory_as(self, name: &str, is: Is) -> Self {
        self.raw(header(EntryType::Directory, name, is), b"")
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.directory_as(
            name,
            Is {
                mode: 0o755,
                ..PLAIN
            },
        )
    }

    pub(crate) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = header(
            kind,
            name,
            Is {
                mode: 0o777,
                ..PLAIN
            },
        );
        header.as_mut_bytes()[157..257][..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    pub(crate) fn symbolic(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    pub(crate) fn device(self, kind: EntryType, name: &str, numbers: (u32, u32)) -> Self {
        let mut header = header(
            kind,
            name,
            Is {
                mode: 0o620,
                ..PLAIN
            },
        );
        header.set_device_major(numbers.0).unwrap();
        header.set_device_minor(numbers.1).unwrap();
        self.raw(header, b"")
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A place of its own for one disk.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) image: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        Self { directory, image }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        std::fs::read_dir(self.directory.path())
            .unwrap()
            .next()
            .is_none()
    }
}

pub(crate) const SMALL: DiskOptions = DiskOptions { free: 1 << 20 };

/// Builds layers whose digests nobody said.
pub(crate) fn make(place: &Place, layers: &[Vec<u8>], limits: Limits) -> Result<(), BuildError> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| (layer.as_slice(), None))
        .collect();
    make_of(place, &layers, limits)
}

pub(crate) fn make_of(
    place: &Place,
    layers: &[(&[u8], Option<Digest>)],
    limits: Limits,
) -> Result<(), BuildError> {
    let layers = layers.iter().map(|(bytes, diff_id)| {
        Ok(PackedLayer {
            packed: Box::new(Cursor::new(*bytes)) as Box<dyn BufRead + '_>,
            diff_id: *diff_id,
        })
    });
    build(layers, limits, SMALL, place.directory.path(), &place.image)
}

/// A clean disk of the layers.
pub(crate) fn disk(layers: &[Vec<u8>]) -> Place {
    let place = Place::new();
    if let Err(error) = make(&place, layers, Limits::default()) {
        panic!("{}", chain(&error));
    }
    check(&place.image);
    place
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What the file system checker has nothing to say about.
pub(crate) fn check(image: &Path) {
    let output = program("e2fsck").arg("-fn").arg(image).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
}

pub(crate) fn debugfs(image: &Path, request: &str) -> Vec<u8> {
    let output = program("debugfs").args(["-R", request]).arg(image).output();
    output.unwrap().stdout
}

pub(crate) fn stat(image: &Path, path: &str) -> String {
    String::from_utf8(debugfs(image, &format!("stat \"{path}\""))).unwrap()
}

pub(crate) fn read(image: &Path, path: &str) -> String {
    String::from_utf8(debugfs(image, &format!("cat \"{path}\""))).unwrap()
}

/// The names in a directory, in order.
pub(crate) fn names(image: &Path, path: &str) -> Vec<String> {
    let listed = String::from_utf8(debugfs(image, &format!("ls -p \"{path}\""))).unwrap();
    // /INODE/MODE/UID/GID/NAME/SIZE/
    let names = listed.lines().filter_map(|line| line.split('/').nth(5));
    let mut names: Vec<_> = names
        .filter(|name| !matches!(*name, "." | ".." | "lost+found" | ""))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
