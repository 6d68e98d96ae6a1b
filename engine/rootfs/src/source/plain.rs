//! A tar file of a root. Invariant: it is one layer of an image that says nothing of how to run it.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::SourceError;
use crate::compression;
use crate::digest::Hashing;
use crate::manifest::ManifestError;
use crate::store::{Image, Session, StoreError};

pub(super) fn import(session: &Session, path: &Path) -> Result<Image, SourceError> {
    let read = |source| SourceError::Read {
        path: path.to_owned(),
        source,
    };
    let open = || File::open(path).map(|file| BufReader::with_capacity(1 << 16, file));
    let layer = session.add(open().map_err(read)?)?;
    let blob = session.blob(&layer.digest)?;
    let unpacked = compression::unpacked(BufReader::with_capacity(1 << 16, blob)).map_err(read)?;
    let most = session.store().limits().bytes;
    let mut unpacked = Hashing::new(io::Read::take(unpacked, most.saturating_add(1)));
    io::copy(&mut unpacked, &mut io::sink()).map_err(read)?;
    if unpacked.count() > most {
        return Err(SourceError::Store(StoreError::Limit {
            bytes: unpacked.count(),
            limit: most,
        }));
    }
    let diff_id = unpacked.digest();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
    });
    let config = serde_json::to_vec(&config).map_err(ManifestError::from)?;
    let config = session.add(config.as_slice())?;
    Ok(session.manifest_of(config, vec![layer])?)
}
