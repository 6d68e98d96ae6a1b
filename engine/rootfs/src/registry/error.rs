//! Why an image was not pulled. Each says what was asked of whom, and what to do.

use std::path::PathBuf;

use crate::manifest::ManifestError;
use crate::store::StoreError;

/// An image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Nobody answers, or the connection broke.
    #[error(
        "{url} cannot be reached: look at the name, the network, and whether the registry speaks TLS"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the connection said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It took too long.
    #[error("{url} did not answer in time ({what}): try again later")]
    Slow {
        /// What was asked for.
        url: String,
        /// What took too long.
        what: String,
    },
    /// Plain HTTP would go over a network.
    #[error(
        "{url} is without TLS, over which anybody in between could read and change it: ask for plain HTTP if that is meant"
    )]
    Plain {
        /// What was to be asked for.
        url: String,
    },
    /// The registry does not know who asks.
    #[error("{registry} wants to know who asks for {what}: {hint}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Whoever asks may not.
    #[error("{registry} does not let this login have {what}: ask whoever owns it{said}")]
    Forbidden {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said, after a colon.
        said: String,
    },
    /// There is none.
    #[error(
        "{registry} has no {what}: look at the name and the tag; some registries also say so of what one may not see"
    )]
    NotFound {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Too many requests.
    #[error(
        "{registry} has had too many requests, and wants a wait of {seconds} seconds: log in, or try again then"
    )]
    TooMany {
        /// The registry.
        registry: String,
        /// Seconds until it answers again.
        seconds: u64,
    },
    /// Another answer that is no content.
    #[error("{registry} answered {status} when asked for {what}{said}")]
    Status {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What it said, after a colon.
        said: String,
    },
    /// Content that ends early, again and again.
    #[error(
        "{registry} sent {have} of {size} bytes of {digest}, after {attempts} attempts: what came is kept, and the next pull goes on there"
    )]
    Truncated {
        /// The registry.
        registry: String,
        /// Of what.
        digest: String,
        /// Bytes that came.
        have: u64,
        /// Bytes that there are.
        size: u64,
        /// How often it was tried.
        attempts: u32,
        /// How the last attempt ended, if not by an early end.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A document of more bytes than any has.
    #[error("{registry} sent more than 4 MiB as {what}: that is no manifest")]
    Long {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// A token service that gives none.
    #[error("{realm} gave no token: {what}")]
    Token {
        /// Its address.
        realm: String,
        /// What it gave.
        what: String,
    },
    /// No certificates to know registries by.
    #[error("{} has no certificates that registries could be known by: install ca-certificates", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// A manifest was refused.
    #[error("the image cannot be used")]
    Manifest(#[from] ManifestError),
    /// The store refused.
    #[error("the image cannot be kept")]
    Store(#[from] StoreError),
}
