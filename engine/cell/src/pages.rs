//! What a restoring cell and a server of its chunks say to each other, over a Unix stream socket.
//!
//! ```text
//!  cell ──► [chunk u32 LE]                                                 as many as it likes before the first reply
//!  cell ◄── [chunk u32 LE][status u32 LE][65536 bytes if the status is 0]  in any order
//! ```
//!
//! The cell believes nothing but what the table's BLAKE3 confirms; a status other than zero ends its machine, and so do a
//! reply that it did not ask for and one that takes too long. Invariant: a chunk is served once for each ask.

use std::io::{self, ErrorKind, Read, Write};

use brood_snapshot::CHUNK;

/// Status: the chunk follows.
pub const OK: u32 = 0;
/// Status: the chunk cannot be had.
pub const UNREADABLE: u32 = 1;
/// Bytes of a reply before the chunk.
pub const HEADER: usize = 8;

/// Serves the chunks that `read` puts into the buffer until the cell wants no more. What `read` fails at is told to the
/// cell as [`UNREADABLE`].
///
/// # Errors
/// The socket fails; not that the cell has gone between two asks.
pub fn serve(
    mut socket: impl Read + Write,
    mut read: impl FnMut(u32, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut reply = vec![0; HEADER + CHUNK];
    loop {
        let mut ask = [0; 4];
        match socket.read_exact(&mut ask) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let (header, chunk) = reply.split_at_mut(HEADER);
        let status = match read(u32::from_le_bytes(ask), chunk) {
            Ok(()) => OK,
            Err(_) => UNREADABLE,
        };
        let (first, second) = header.split_at_mut(4);
        first.copy_from_slice(&ask);
        second.copy_from_slice(&status.to_le_bytes());
        let length = if status == OK { reply.len() } else { HEADER };
        socket.write_all(reply.get(..length).unwrap_or_default())?;
    }
}
