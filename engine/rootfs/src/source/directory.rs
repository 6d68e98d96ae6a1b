//! A directory as a root. Invariant: what is packed is what is there, in the order of the names, so equal trees are equal
//! layers; no link is followed, and a file that changes while it is read fails the whole.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::archive::Exactly;
use super::{SourceError, plain};
use crate::store::{Image, Session};

/// Bytes of a name in a header, without a PAX record.
const SHORT: usize = 100;

pub(super) fn import(session: &Session, path: &Path) -> Result<Image, SourceError> {
    if !path.is_dir() {
        return Err(SourceError::Shape {
            path: path.to_owned(),
            what: "it is no directory: name the root of the file system".to_owned(),
        });
    }
    let packed = session.scratch().join("layer.tar");
    let file = File::create(&packed).map_err(read(&packed))?;
    let mut packing = Packing {
        builder: Builder::new(io::BufWriter::with_capacity(1 << 16, file)),
        root: path,
        first: HashMap::new(),
    };
    packing.all()?;
    let mut written = packing.builder.into_inner().map_err(read(&packed))?;
    written.flush().map_err(read(&packed))?;
    let image = plain::import(session, &packed)?;
    fs::remove_file(&packed).map_err(read(&packed))?;
    Ok(image)
}

struct Packing<'a, W: Write> {
    builder: Builder<W>,
    root: &'a Path,
    /// The first name of each file that has more.
    first: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packing<'_, W> {
    fn all(&mut self) -> Result<(), SourceError> {
        let mut left = vec![self.root.to_owned()];
        while let Some(path) = left.pop() {
            let metadata = fs::symlink_metadata(&path).map_err(read(&path))?;
            self.entry(&path, &metadata)?;
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).map_err(read(&path))?;
                let paths = entries.map(|entry| entry.map(|entry| entry.path()));
                let mut paths: Vec<PathBuf> =
                    paths.collect::<Result<_, _>>().map_err(read(&path))?;
                paths.sort();
                left.extend(paths.into_iter().rev());
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata) -> Result<(), SourceError> {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let mut name = b"./".to_vec();
        name.extend_from_slice(below.as_os_str().as_bytes());
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        let mut records = attributes(path)?;
        let (major, minor) = (
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev()),
        );
        let identity = (metadata.dev(), metadata.ino());
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
        } else if let Some(first) = self.first.get(&identity) {
            header.set_entry_type(EntryType::Link);
            let first = first.clone();
            set_link(&mut header, &mut records, &first);
        } else {
            if metadata.nlink() > 1 {
                self.first.insert(identity, name.clone());
            }
            if kind.is_file() {
                header.set_entry_type(EntryType::Regular);
                header.set_size(metadata.size());
            } else if kind.is_symlink() {
                header.set_entry_type(EntryType::Symlink);
                let target = fs::read_link(path).map_err(read(path))?;
                set_link(&mut header, &mut records, target.as_os_str().as_bytes());
            } else if kind.is_socket() {
                return Err(SourceError::Shape {
                    path: path.to_owned(),
                    what: "a socket cannot be in an image: end its program and remove it"
                        .to_owned(),
                });
            } else {
                header.set_entry_type(if kind.is_char_device() {
                    EntryType::Char
                } else if kind.is_block_device() {
                    EntryType::Block
                } else {
                    EntryType::Fifo
                });
                let numbers = header
                    .set_device_major(major)
                    .and_then(|()| header.set_device_minor(minor));
                numbers.map_err(read(path))?;
            }
        }
        match header.as_mut_bytes().get_mut(..SHORT) {
            Some(field) if name.len() <= SHORT => {
                field
                    .get_mut(..name.len())
                    .unwrap_or_default()
                    .copy_from_slice(&name);
            }
            _ => records.push(("path".to_owned(), name)),
        }
        self.append(path, header, &records)
    }

    fn append(
        &mut self,
        path: &Path,
        mut header: Header,
        records: &[(String, Vec<u8>)],
    ) -> Result<(), SourceError> {
        if !records.is_empty() {
            let records = records
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice()));
            let added = self.builder.append_pax_extensions(records);
            added.map_err(read(path))?;
        }
        header.set_cksum();
        if header.entry_type() != EntryType::Regular {
            return self
                .builder
                .append(&header, io::empty())
                .map_err(read(path));
        }
        let bytes = header.entry_size().map_err(read(path))?;
        let file = File::open(path).map_err(read(path))?;
        let content = Exactly::new(file, bytes);
        self.builder.append(&header, content).map_err(read(path))
    }
}

fn set_link(header: &mut Header, records: &mut Vec<(String, Vec<u8>)>, target: &[u8]) {
    // ustar: the name of what is linked to is at 157.
    match header.as_mut_bytes().get_mut(157..157 + SHORT) {
        Some(field) if target.len() <= SHORT => {
            field
                .get_mut(..target.len())
                .unwrap_or_default()
                .copy_from_slice(target);
        }
        _ => records.push(("linkpath".to_owned(), target.to_owned())),
    }
}

/// Extended attributes as PAX records, but the host's own labels.
fn attributes(path: &Path) -> Result<Vec<(String, Vec<u8>)>, SourceError> {
    let failed = |errno: rustix::io::Errno| read(path)(errno.into());
    let mut list = vec![0; 1 << 16];
    let bytes = match rustix::fs::llistxattr(path, &mut list) {
        Ok(bytes) => bytes,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(failed(errno)),
    };
    let mut records = Vec::new();
    let names = list
        .get(..bytes)
        .unwrap_or_default()
        .split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty()) {
        let text = String::from_utf8_lossy(name).into_owned();
        if text == "security.selinux" || text.starts_with("trusted.overlay.") {
            continue;
        }
        let name = CString::new(name).map_err(|error| read(path)(error.into()))?;
        let mut value = vec![0; 1 << 16];
        let bytes = rustix::fs::lgetxattr(path, &name, &mut value).map_err(failed)?;
        value.truncate(bytes);
        records.push((format!("SCHILY.xattr.{text}"), value));
    }
    records.sort();
    Ok(records)
}

fn read(path: &Path) -> impl Fn(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Read {
        path: path.clone(),
        source,
    }
}
