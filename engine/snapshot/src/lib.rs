//! Snapshots: the state and memory of a machine on disk, versioned, portable, checksummed.
//!
//! RAM is cut into chunks of 64 KiB whose name is their BLAKE3. This crate is the format and the files: it knows nothing
//! of KVM and starts no thread.

mod chunk;
pub mod stream;
pub mod table;

pub use chunk::{CHUNK, ChunkName, PAGE, RAM_MAX};
