//! Snapshots: the state and memory of a machine on disk, versioned, portable, checksummed.
//!
//! ```text
//!  frozen cell ── stream ──► SnapshotStore ── table + packs ──► restoring cell
//! ```
//!
//! RAM is cut into chunks of 64 KiB whose name is their BLAKE3. This crate is the format and the files: it knows nothing
//! of KVM and starts no thread. The bytes are drawn in `engine/docs/snapshot-format.md`.

mod chunk;
mod files;
pub mod host;
pub mod manifest;
pub mod pack;
mod store;
pub mod stream;
pub mod table;

pub use chunk::{CHUNK, ChunkName, PAGE, RAM_MAX};
pub use files::FileError;
pub use store::{
    CompactError, Compacted, Damage, DiskSource, ExportError, Fault, ImportError, LayoutError,
    OpenError, Plan, PlanError, Portable, ReadError, RemoveError, Rest, SaveError, SaveSpec, Saved,
    Snapshot, SnapshotStore, SnapshotUsage, StreamSpec, Usage,
};
