//! OCI images into bootable root disks.
//!
//! Invariant: what an image holds is data. Nothing of it is executed, no path of it is resolved by the host, and nothing here
//! needs root or a mount; the same image gives the same disk, byte for byte.

mod build;
mod compression;
mod config;
mod digest;
mod entry;
mod error;
mod layer;
mod limits;
mod manifest;
mod pax;
mod registry;
mod source;
mod stage;
mod store;
mod tree;
mod users;

pub use build::{BuildError, DiskOptions, PackedLayer, build};
pub use config::{ConfigError, ImageConfig, Port, Protocol};
pub use digest::{Digest, Hashing, ParseDigestError};
pub use error::UnpackError;
pub use limits::Limits;
pub use manifest::ManifestError;
pub use registry::{
    Credentials, CredentialsError, Login, ParseReferenceError, PlainHttp, Progress, PullError,
    Reference, Registry, RegistryOptions,
};
pub use source::{ParseSourceError, Source, SourceError};
pub use store::{
    Collected, Disk, Image, LayerRef, Named, RefKind, Session, Steps, Store, StoreError,
};
pub use users::{User, UserError, Users};
