//! OCI images into bootable root disks.
//!
//! Invariant: what an image holds is data. Nothing of it is executed, no path of it is resolved by the host, and nothing here
//! needs root or a mount; the same image gives the same disk, byte for byte.

mod build;
mod compression;
mod digest;
mod entry;
mod error;
mod layer;
mod limits;
mod stage;
mod tree;

pub use build::{BuildError, DiskOptions, PackedLayer, build};
pub use digest::{Digest, Hashing, ParseDigestError};
pub use error::UnpackError;
pub use limits::Limits;
