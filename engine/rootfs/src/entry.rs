//! The entries of a tar file: ustar, PAX (pax(1)) and GNU tar's long names, one after the other, from a stream.
//!
//! Invariant: no header makes this read more than [`limits::HEADER`] into memory, and each entry's content is read or skipped
//! before the next header. Sparse files are refused: nothing that makes images writes them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::error::{At, UnpackError};
use crate::limits;
use crate::pax::{number, records, seconds};

const BLOCK: u64 = 512;
/// Where pax puts an extended attribute, as star(1) and Go's archive/tar have it.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// The last second that debugfs(8) sets, in the year 2038. Later times become this.
const LATEST: u32 = 0x7fff_ffff;

/// What an inode has besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permissions, set-id bits, sticky bit.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u32,
    /// Extended attributes by their full names.
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File,
    /// Another name of what has this one already.
    Hard(Vec<u8>),
    Symbolic(Vec<u8>),
    Node(NodeKind),
}

/// What is neither content nor structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// One entry without its content.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) meta: Meta,
    /// Bytes of content that follow.
    pub(crate) size: u64,
}

/// How a tar file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the block of zeros that it has to end with.
    Marked,
    /// Where a header could have been.
    Unmarked,
}

/// What came before a header to change what it says.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The entries of a stream.
pub(crate) struct Entries<R> {
    source: R,
    at: At,
    /// Bytes that were read.
    position: u64,
    /// Bytes of the present entry's content, and of what fills its last block, that were not read yet.
    content: u64,
    filling: u64,
    end: Option<End>,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R, at: At) -> Self {
        Self {
            source,
            at,
            position: 0,
            content: 0,
            filling: 0,
            end: None,
        }
    }

    /// Bytes of the stream that were read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How it ended, once it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The stream, behind all that was read.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// The next entry; what is left of the present one's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extended = Extended::default();
        loop {
            let begin = self.position;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header
                .entry_size()
                .map_err(|_| self.at.header(begin, "a size that is no number"))?;
            self.expect(size);
            match header.entry_type() {
                EntryType::XGlobalHeader => {
                    self.small(begin)?;
                }
                EntryType::XHeader => {
                    let bytes = self.small(begin)?;
                    let records = records(&bytes)
                        .ok_or_else(|| self.at.header(begin, "a malformed PAX record"))?;
                    extended.records.extend(records);
                }
                EntryType::GNULongName => extended.name = Some(text(self.small(begin)?)),
                EntryType::GNULongLink => extended.link = Some(text(self.small(begin)?)),
                _ => return self.entry(begin, &header, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        begin: u64,
        header: &Header,
        mut extended: Extended,
    ) -> Result<Entry, UnpackError> {
        let bad = |what| self.at.header(begin, what);
        let mut record = |key: &[u8]| extended.records.remove(key);
        let name = record(b"path")
            .or(extended.name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = record(b"linkpath")
            .or(extended.link)
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let size = match record(b"size") {
            Some(size) => Some(number(&size).ok_or_else(|| bad("a PAX size that is no number"))?),
            None => None,
        };
        let id = |value: Option<Vec<u8>>, field: io::Result<u64>| {
            value
                .map_or(field.ok(), |value| number(&value))
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| bad("an owner that is no number of 32 bits"))
        };
        let uid = id(record(b"uid"), header.uid())?;
        let gid = id(record(b"gid"), header.gid())?;
        let mtime = match record(b"mtime") {
            Some(value) => seconds(&value),
            None => header.mtime().ok(),
        };
        let mode = header.mode().map_err(|_| bad("a mode that is no number"))? & 0o7777;
        let kind = self.kind(begin, header, link, &name)?;
        let mut attributes = BTreeMap::new();
        for (key, value) in extended.records {
            if let Some(attribute) = key.strip_prefix(ATTRIBUTE) {
                attributes.insert(attribute.to_owned(), value);
            } else if key.starts_with(b"GNU.sparse.") {
                return Err(self.at.entry(&name, SPARSE));
            }
        }
        if let Some(size) = size {
            self.expect(size);
        }
        // Only a file has content that means anything; what else claims to is skipped over.
        let size = if kind == EntryKind::File {
            self.content
        } else {
            0
        };
        let meta = Meta {
            mode,
            uid,
            gid,
            mtime: u32::try_from(mtime.unwrap_or(0)).map_or(LATEST, |time| time.min(LATEST)),
            attributes,
        };
        Ok(Entry {
            name,
            kind,
            meta,
            size,
        })
    }

    fn kind(
        &self,
        begin: u64,
        header: &Header,
        link: Option<Vec<u8>>,
        name: &[u8],
    ) -> Result<EntryKind, UnpackError> {
        let link = || link.ok_or_else(|| self.at.entry(name, "a link to nothing"));
        let device = || -> Option<(u32, u32)> {
            Some((
                header.device_major().ok().flatten()?,
                header.device_minor().ok().flatten()?,
            ))
        };
        let numbers = || device().ok_or_else(|| self.at.header(begin, "a device without numbers"));
        Ok(match header.entry_type() {
            // Before ustar a directory was a file whose name ends with a slash.
            EntryType::Regular if name.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Link => EntryKind::Hard(link()?),
            EntryType::Symlink => EntryKind::Symbolic(link()?),
            EntryType::Fifo => EntryKind::Node(NodeKind::Fifo),
            EntryType::Char => {
                let (major, minor) = numbers()?;
                EntryKind::Node(NodeKind::Character { major, minor })
            }
            EntryType::Block => {
                let (major, minor) = numbers()?;
                EntryKind::Node(NodeKind::Block { major, minor })
            }
            EntryType::GNUSparse => return Err(self.at.entry(name, SPARSE)),
            other => {
                let what = format!(
                    "an entry of the unknown type '{}'",
                    char::from(other.as_byte()).escape_default()
                );
                return Err(self.at.entry(name, what));
            }
        })
    }

    /// The next header; none at the end.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.end.is_some() {
            return Ok(None);
        }
        self.skip()?;
        let begin = self.position;
        let mut block = [0; 512];
        match self.fill(&mut block)? {
            512 => {}
            0 => {
                self.end = Some(End::Unmarked);
                return Ok(None);
            }
            _ => return Err(self.at.read(io::ErrorKind::UnexpectedEof.into())),
        }
        if block.iter().all(|byte| *byte == 0) {
            self.end = Some(End::Marked);
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        if header.cksum().ok() != Some(sum(&block)) {
            let what = "this is no tar header (its checksum does not fit)";
            return Err(self.at.header(begin, what));
        }
        Ok(Some(header))
    }

    /// Sets what follows a header.
    fn expect(&mut self, size: u64) {
        self.content = size;
        self.filling = size.wrapping_neg() % BLOCK;
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        let left = self.content.checked_add(self.filling);
        let left = left.ok_or_else(|| self.at.header(self.position, "an impossible size"))?;
        let skipped = io::copy(&mut self.source.by_ref().take(left), &mut io::sink())
            .map_err(|error| self.at.read(error))?;
        self.position = self.position.saturating_add(skipped);
        if skipped < left {
            return Err(self.at.read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.expect(0);
        Ok(())
    }

    /// A header's own data.
    fn small(&mut self, begin: u64) -> Result<Vec<u8>, UnpackError> {
        if self.content > limits::HEADER {
            return Err(self
                .at
                .header(begin, "more than 1 MiB of names and attributes"));
        }
        let mut bytes = vec![0; usize::try_from(self.content).unwrap_or(0)];
        self.read_exact(&mut bytes)
            .map_err(|error| self.at.read(error))?;
        Ok(bytes)
    }

    fn fill(&mut self, block: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.at.read(error)),
            }
        }
        self.position = self
            .position
            .saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        Ok(filled)
    }
}

/// Reads the content of the present entry. A file that is cut short is an error, not an end.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.content)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let read = self.source.read(room)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        self.content = self.content.saturating_sub(bytes);
        self.position = self.position.saturating_add(bytes);
        Ok(read)
    }
}

const SPARSE: &str = "a sparse file: make the archive without --sparse";

/// ustar: the sum of the header's bytes, those of the sum itself taken as spaces.
fn sum(block: &[u8; 512]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum()
}

/// GNU tar ends a long name with a zero.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
