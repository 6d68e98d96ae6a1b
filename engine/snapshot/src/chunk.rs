//! Chunks: what RAM is cut into, and what they are called.
//!
//! Invariant: a chunk's name is the BLAKE3 of all its bytes, so equal chunks have one name and a damaged one has none that
//! anybody asks for. A chunk of zeros is never named and never kept.

use std::fmt;

/// Bytes of a chunk.
pub const CHUNK: usize = 64 << 10;
/// Bytes of a page, the unit of the stream (x86-64).
pub const PAGE: usize = 4096;
/// The most bytes of RAM that a stream, a table or a snapshot may say (1 TiB): lengths are bounded before they are used.
pub const RAM_MAX: u64 = 1 << 40;

/// BLAKE3 of the 65536 bytes of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkName([u8; 32]);

impl ChunkName {
    /// The name of `bytes`, which are one chunk.
    pub fn of(bytes: &[u8]) -> Self {
        debug_assert_eq!(bytes.len(), CHUNK);
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// A name that was read.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkName({self})")
    }
}

/// Chunks of that much RAM, or `None` if it is not whole chunks, none at all, or more than [`RAM_MAX`].
pub(crate) fn chunks_of(ram_bytes: u64) -> Option<u32> {
    let whole = ram_bytes.is_multiple_of(CHUNK as u64) && (1..=RAM_MAX).contains(&ram_bytes);
    whole
        .then(|| u32::try_from(ram_bytes / CHUNK as u64).ok())
        .flatten()
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Blocks that the compiler turns into vector instructions, left at the first that has something.
    bytes
        .chunks(256)
        .all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_blake3_of_the_chunk() {
        // The same by the package blake3 for Python: blake3(bytes(65536)).hexdigest()
        let zeros = ChunkName::of(&[0; CHUNK]);
        let expected = "3bdeaf8f8e98780b318106aafdc3ca257f73df123d97b69112b26044c91a7d56";
        assert_eq!(zeros.to_string(), expected);
        let mut other = vec![0; CHUNK];
        other[CHUNK - 1] = 1;
        assert_ne!(ChunkName::of(&other), zeros);
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut page = [0; PAGE];
        assert!(is_zero(&page));
        for at in [0, 255, 256, PAGE - 1] {
            page[at] = 0x80;
            assert!(!is_zero(&page), "{at}");
            page[at] = 0;
        }
    }

    #[test]
    fn ram_is_whole_chunks_and_bounded() {
        assert_eq!(chunks_of(1 << 30), Some(16384));
        assert_eq!(chunks_of(RAM_MAX), Some(1 << 24));
        for wrong in [
            0,
            1,
            CHUNK as u64 - 1,
            CHUNK as u64 + 4096,
            RAM_MAX + CHUNK as u64,
            u64::MAX,
        ] {
            assert_eq!(chunks_of(wrong), None, "{wrong}");
        }
    }
}
