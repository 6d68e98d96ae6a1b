//! Why a layer or an image was not made a tree. Each says what, where (layer, entry) and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// A layer was refused, or the host failed while it was unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer's bytes end early or are not what they say.
    #[error("layer {layer} cannot be read: fetch it again, or make it anew")]
    Read {
        /// Its number, from 1, the lowest first.
        layer: usize,
        /// What was wrong.
        #[source]
        source: io::Error,
    },
    /// A tar header that means nothing.
    #[error("layer {layer}, byte {at}: {what}: make the layer anew")]
    Header {
        /// Its number, from 1, the lowest first.
        layer: usize,
        /// Where the header begins, in the layer before it was packed.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry that cannot be on a disk, or that would reach out of the image.
    #[error("layer {layer}, '{entry}': {what}")]
    Entry {
        /// Its number, from 1, the lowest first.
        layer: usize,
        /// The entry, with what is no text escaped.
        entry: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// More than the operator allows.
    #[error(
        "layer {layer}, '{entry}': more than {limit} {what}: raise the limit if this image is to be trusted"
    )]
    Limit {
        /// Its number, from 1, the lowest first.
        layer: usize,
        /// The entry at which it was noticed.
        entry: String,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The content is not what the image's configuration names.
    #[error(
        "layer {layer} is {found}, and the image says {wanted}: fetch it again; if that does not help the image is broken"
    )]
    Digest {
        /// Its number, from 1, the lowest first.
        layer: usize,
        /// By the configuration's `diff_ids`.
        wanted: Digest,
        /// Of what was read.
        found: Digest,
    },
    /// The host refused to keep what was unpacked.
    #[error("unpacking to {} failed", path.display())]
    Stage {
        /// The file or directory.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A layer while it is unpacked: what its errors begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) usize);

impl At {
    pub(crate) fn read(self, source: io::Error) -> UnpackError {
        UnpackError::Read {
            layer: self.0,
            source,
        }
    }

    pub(crate) fn header(self, at: u64, what: &'static str) -> UnpackError {
        UnpackError::Header {
            layer: self.0,
            at,
            what,
        }
    }

    pub(crate) fn entry(self, entry: &[u8], what: impl Into<String>) -> UnpackError {
        UnpackError::Entry {
            layer: self.0,
            entry: shown(entry),
            what: what.into(),
        }
    }

    pub(crate) fn limit(self, entry: &[u8], what: &'static str, limit: u64) -> UnpackError {
        UnpackError::Limit {
            layer: self.0,
            entry: shown(entry),
            what,
            limit,
        }
    }
}

/// A name for people: nothing in it moves their cursor, and not all of a long one.
pub(crate) fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    let text = name.get(..MOST).unwrap_or(name).escape_ascii().to_string();
    // Most names outside of ASCII are text.
    let text = match std::str::from_utf8(name) {
        Ok(whole) if name.len() <= MOST => whole.escape_debug().to_string(),
        _ => text,
    };
    if name.len() > MOST {
        format!("{text}…")
    } else {
        text
    }
}
