//! The last bytes of an output stream. Invariant: a byte's offset is its number in the whole stream, and
//! `end - start` bytes, never more than the capacity, are kept.
//!
//! ```text
//! 0 ………… overwritten ………… start ▓▓▓▓ kept ▓▓▓▓ end
//! ```

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Ring {
    kept: VecDeque<u8>,
    capacity: usize,
    end: u64,
}

/// What was read at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes from the offset asked for to the first one kept.
    pub(super) lost: u64,
    /// Offset of the first byte.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Ring {
    /// An empty ring; memory comes with the bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            capacity,
            end: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn start(&self) -> u64 {
        self.end
            .saturating_sub(u64::try_from(self.kept.len()).unwrap_or(u64::MAX))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let tail = bytes.len().saturating_sub(self.capacity);
        let new = bytes.get(tail..).unwrap_or_default();
        let over = (self.kept.len() + new.len()).saturating_sub(self.capacity);
        self.kept.drain(..over.min(self.kept.len()));
        if self.kept.len() + new.len() > self.kept.capacity() {
            // Doubling, but never beyond what the ring may hold.
            let wanted =
                (self.kept.capacity() * 2).clamp(self.kept.len() + new.len(), self.capacity);
            self.kept.reserve_exact(wanted - self.kept.len());
        }
        self.kept.extend(new);
        self.end = self
            .end
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// At most `most` bytes from `offset` on; none if there are none. An offset behind the end reads as the end.
    pub(super) fn read(&self, offset: u64, most: usize) -> Option<Piece> {
        let from = offset.max(self.start());
        let skip = usize::try_from(from - self.start()).ok()?;
        let len = self.kept.len().checked_sub(skip)?.min(most);
        if len == 0 {
            return None;
        }
        Some(Piece {
            lost: from - offset,
            offset: from,
            bytes: self.kept.range(skip..skip + len).copied().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(capacity: usize, pushes: &[&[u8]]) -> Ring {
        let mut ring = Ring::new(capacity);
        pushes.iter().for_each(|bytes| ring.push(bytes));
        ring
    }

    #[test]
    fn overwritten_bytes_are_counted_as_lost_and_reading_goes_on() {
        let ring = ring(4, &[b"abc", b"defg"]);
        assert_eq!((ring.start(), ring.end()), (3, 7));
        assert_eq!(
            ring.read(1, 3),
            Some(Piece {
                lost: 2,
                offset: 3,
                bytes: b"def".to_vec()
            })
        );
        assert_eq!(ring.read(6, 9).unwrap().bytes, b"g");
        assert_eq!(ring.read(7, 9), None);
        assert_eq!(ring.read(99, 9), None);
    }

    #[test]
    fn a_push_longer_than_the_ring_keeps_its_tail() {
        let ring = ring(4, &[b"0123456789"]);
        assert_eq!(
            ring.read(0, 99).unwrap(),
            Piece {
                lost: 6,
                offset: 6,
                bytes: b"6789".to_vec()
            }
        );
    }

    #[test]
    fn memory_never_exceeds_the_capacity() {
        let mut ring = Ring::new(10_000);
        for _ in 0..1000 {
            ring.push(&[7; 333]);
            assert!(ring.kept.len() <= 10_000 && ring.kept.capacity() <= 10_000);
        }
        assert_eq!(ring.end(), 333_000);
    }

    #[test]
    fn every_split_of_a_stream_reads_back_the_same() {
        let whole: Vec<u8> = (0..=255).collect();
        for split in 1..64 {
            let pieces: Vec<&[u8]> = whole.chunks(split).collect();
            let ring = ring(100, &pieces);
            let piece = ring.read(0, 1000).unwrap();
            assert_eq!((piece.lost, piece.bytes.as_slice()), (156, &whole[156..]));
        }
    }
}
