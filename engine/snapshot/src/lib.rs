//! Snapshots of machines: state and memory on disk.
//!
//! RAM goes to the engine as a [`stream`] of pieces and comes back to a cell as chunks that a [`table`] names. Nothing
//! here knows KVM, a cell or a file system. Invariant: what a cell wrote is checked before it is believed, because a
//! cell runs a guest.

pub mod stream;
pub mod table;

/// Bytes of a chunk, the unit in which RAM is stored, named and restored.
pub const CHUNK: usize = 64 << 10;
/// Bytes of a page, the unit in which RAM is written to a stream.
pub const PAGE: usize = 4 << 10;

/// The name of a chunk: BLAKE3 of its [`CHUNK`] bytes.
pub fn chunk_name(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
