//! Images in registries, over the distribution specification's two calls that a pull needs: manifests and blobs.
//!
//! Invariant: nothing is believed that its digest does not prove, except what a tag stands for. A login goes to the registry it
//! is for and to the token service that one names, never along with a redirect; without TLS it goes to this host only, unless
//! plain HTTP was asked for.

mod challenge;
mod client;
mod credentials;
mod error;
mod pull;
mod reference;
mod refusal;

pub use client::{PlainHttp, Registry, RegistryOptions};
pub use credentials::{Credentials, CredentialsError, Login};
pub use error::PullError;
pub use pull::Progress;
pub use reference::{ParseReferenceError, Reference};
