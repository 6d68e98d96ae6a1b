//! The stream: RAM on its way out of a frozen cell.
//!
//! ```text
//!  ┌────────────┬────────────┬──────────────┐     ┌──────────────┬───┐
//!  │ offset u64 │ length u32 │ length bytes │ ... │ bytes of RAM │ 0 │
//!  └────────────┴────────────┴──────────────┘     └──────────────┴───┘
//!   a piece, little-endian                         the end
//! ```
//!
//! Offsets count bytes from the start of RAM, not guest-physical addresses: the layout's holes are left out. They rise,
//! are multiples of a page as lengths are, and no piece is longer than 1 MiB. What no piece has is zero.
//! Invariant: whatever is in the stream, a [`Reader`] gives only whole pages within the RAM that was announced to it, each
//! at most once and in order, and takes an end only for one: the other side runs a guest and may lie.

use std::io::{self, IoSlice, Read, Write};

use crate::chunk::{PAGE, RAM_MAX, is_zero};

/// The most bytes of a piece.
pub const PIECE_MAX: usize = 1 << 20;
/// Bytes before those of a piece.
pub const HEADER: usize = 12;

/// RAM cannot be written to the stream.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The caller's range is none of this RAM.
    #[error(
        "{length} bytes at {offset} are no whole pages after byte {after} of {ram_bytes} bytes of RAM"
    )]
    Range {
        /// Where it begins, in bytes from the start of RAM.
        offset: u64,
        /// Its bytes.
        length: usize,
        /// The first byte that has not been passed.
        after: u64,
        /// Bytes of RAM.
        ram_bytes: u64,
    },
    /// The other end does not take it.
    #[error("cannot write to the stream")]
    Io(#[from] io::Error),
}

/// Writes RAM in rising order.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    ram_bytes: u64,
    next: u64,
}

impl<W: Write> Writer<W> {
    /// A stream of `ram_bytes` of RAM.
    pub fn new(inner: W, ram_bytes: u64) -> Self {
        Self {
            inner,
            ram_bytes,
            next: 0,
        }
    }

    /// Writes whole pages that lie `offset` bytes from the start of RAM, behind all that was written before. Pages of
    /// zeros are left out.
    ///
    /// # Errors
    /// The range is not in RAM, not whole pages or not behind the last one; or the other end is gone.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let range = || WriteError::Range {
            offset,
            length: bytes.len(),
            after: self.next,
            ram_bytes: self.ram_bytes,
        };
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(range)?;
        let whole = (offset | end).is_multiple_of(PAGE as u64);
        if !whole || offset < self.next || end > self.ram_bytes {
            return Err(range());
        }
        self.next = end;
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(next_run(rest));
            if !begins_with_zeros(piece) {
                self.piece(at, piece)?;
            }
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// Writes the end.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.piece(self.ram_bytes, &[])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let header = header(offset, bytes.len() as u32);
        // Header and bytes in one call where the stream can: a piece may be a single page.
        let mut slices = [IoSlice::new(&header), IoSlice::new(bytes)];
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            match self.inner.write_vectored(slices) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn header(offset: u64, length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&offset.to_le_bytes());
    header[8..].copy_from_slice(&length.to_le_bytes());
    header
}

fn begins_with_zeros(bytes: &[u8]) -> bool {
    is_zero(bytes.get(..PAGE).unwrap_or(bytes))
}

/// Bytes of the pages at the front that are all zero, or all not, within one piece.
fn next_run(bytes: &[u8]) -> usize {
    let bytes = bytes.get(..PIECE_MAX).unwrap_or(bytes);
    let zero = begins_with_zeros(bytes);
    let pages = bytes.chunks(PAGE).take_while(|page| is_zero(page) == zero);
    pages.map(<[u8]>::len).sum()
}

/// What came is no stream of this RAM.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The size announced is no RAM.
    #[error("{0} bytes are no RAM: it is whole pages, at most {RAM_MAX} bytes")]
    Ram(u64),
    /// Not whole pages.
    #[error("the piece of {length} bytes at {offset} is not whole pages")]
    Unaligned {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        length: u32,
    },
    /// Longer than a piece may be.
    #[error("the piece at {offset} has {length} bytes, more than {PIECE_MAX}")]
    TooLong {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        length: u32,
    },
    /// It begins before the end of the one before.
    #[error("the piece at {offset} begins before {after}, where the one before it ends")]
    Order {
        /// Where it begins.
        offset: u64,
        /// Where it may begin.
        after: u64,
    },
    /// It reaches beyond RAM.
    #[error("the piece of {length} bytes at {offset} reaches beyond {ram_bytes} bytes of RAM")]
    Beyond {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        length: u32,
        /// Bytes of RAM.
        ram_bytes: u64,
    },
    /// The end names another size.
    #[error("the stream ends at {found} bytes of RAM, and there are {ram_bytes}")]
    End {
        /// What it says.
        found: u64,
        /// Bytes of RAM.
        ram_bytes: u64,
    },
    /// It broke off, or cannot be read.
    #[error("the stream broke off behind byte {after} of RAM")]
    Io {
        /// Where the last whole piece ended.
        after: u64,
        /// What the kernel said; `UnexpectedEof` where the other end closed.
        #[source]
        source: io::Error,
    },
}

/// Pages of RAM, not all of them zero.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where they begin, in bytes from the start of RAM.
    pub offset: u64,
    /// The pages.
    pub bytes: &'a [u8],
}

/// Reads RAM in rising order. Headers are small reads: give it something buffered.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    ram_bytes: u64,
    next: u64,
    ended: bool,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// A stream of `ram_bytes` of RAM, which the other side is known to have.
    ///
    /// # Errors
    /// That is no size of RAM.
    pub fn new(inner: R, ram_bytes: u64) -> Result<Self, ReadError> {
        if !ram_bytes.is_multiple_of(PAGE as u64) || ram_bytes > RAM_MAX {
            return Err(ReadError::Ram(ram_bytes));
        }
        Ok(Self {
            inner,
            ram_bytes,
            next: 0,
            ended: false,
            buffer: Vec::new(),
        })
    }

    /// The next piece, or `None` at the end. After an error nothing more is to be read.
    ///
    /// # Errors
    /// The stream breaks a rule or breaks off.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let (offset, length) = self.header()?;
        if length == 0 {
            if offset != self.ram_bytes {
                return Err(ReadError::End {
                    found: offset,
                    ram_bytes: self.ram_bytes,
                });
            }
            self.ended = true;
            return Ok(None);
        }
        let end = self.checked_end(offset, length)?;
        self.buffer.resize(length as usize, 0);
        let read = self.inner.read_exact(&mut self.buffer);
        read.map_err(|source| self.broken(source))?;
        self.next = end;
        Ok(Some(Piece {
            offset,
            bytes: &self.buffer,
        }))
    }

    fn header(&mut self) -> Result<(u64, u32), ReadError> {
        let (mut offset, mut length) = ([0; 8], [0; 4]);
        let mut header = [0; HEADER];
        let read = self.inner.read_exact(&mut header);
        read.map_err(|source| self.broken(source))?;
        offset.copy_from_slice(&header[..8]);
        length.copy_from_slice(&header[8..]);
        Ok((u64::from_le_bytes(offset), u32::from_le_bytes(length)))
    }

    fn checked_end(&self, offset: u64, length: u32) -> Result<u64, ReadError> {
        let page = PAGE as u64;
        if !offset.is_multiple_of(page) || !u64::from(length).is_multiple_of(page) {
            return Err(ReadError::Unaligned { offset, length });
        }
        if length as usize > PIECE_MAX {
            return Err(ReadError::TooLong { offset, length });
        }
        if offset < self.next {
            let after = self.next;
            return Err(ReadError::Order { offset, after });
        }
        let end = offset.checked_add(u64::from(length));
        end.filter(|end| *end <= self.ram_bytes)
            .ok_or(ReadError::Beyond {
                offset,
                length,
                ram_bytes: self.ram_bytes,
            })
    }

    fn broken(&self, source: io::Error) -> ReadError {
        ReadError::Io {
            after: self.next,
            source,
        }
    }
}

#[cfg(test)]
mod tests;
