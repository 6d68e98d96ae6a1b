//! From pieces of a stream to chunks.
//!
//! Invariant: each chunk that has a page that is not zero is given once, whole, in order; the others are not given.

use std::io::Read;

use crate::chunk::{CHUNK, is_zero};
use crate::stream::{ReadError, Reader};

/// Gives `take` the number and bytes of each chunk that is not zero.
pub(super) fn chunks<R: Read, E: From<ReadError>>(
    mut reader: Reader<R>,
    mut take: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut give = |number: Option<u32>, chunk: &[u8]| match number {
        Some(number) if !is_zero(chunk) => take(number, chunk),
        _ => Ok(()),
    };
    let mut chunk = vec![0; CHUNK];
    let mut current = None;
    while let Some(piece) = reader.next_piece()? {
        let mut offset = piece.offset;
        let mut rest = piece.bytes;
        while !rest.is_empty() {
            let number = u32::try_from(offset / CHUNK as u64).ok();
            let within = (offset % CHUNK as u64) as usize;
            let (part, behind) = rest.split_at(rest.len().min(CHUNK - within));
            if number != current {
                give(current, &chunk)?;
                current = number;
                chunk.fill(0);
            }
            if let Some(to) = chunk.get_mut(within..within + part.len()) {
                to.copy_from_slice(part);
            }
            offset += part.len() as u64;
            rest = behind;
        }
    }
    give(current, &chunk)
}
