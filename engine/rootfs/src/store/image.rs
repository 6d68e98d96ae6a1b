//! Images in the store. Invariant: an [`Image`] has as many layers as its configuration names, and was for guests.

use super::{Session, Store, StoreError};
use crate::config::{ConfigError, ImageConfig};
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, Manifest, ManifestError};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// How it is to be run.
    pub config: ImageConfig,
    /// The lowest first.
    pub layers: Vec<LayerRef>,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Of the layer as it was packed.
    pub blob: Digest,
    /// Its bytes, packed.
    pub size: u64,
    /// Of the layer before it was packed.
    pub diff_id: Digest,
}

impl Store {
    /// The image of a manifest.
    ///
    /// # Errors
    /// Its manifest or configuration is not there, or says something else than one of an image for guests.
    pub fn image(&self, manifest: &Digest) -> Result<Image, StoreError> {
        let json = self.document(manifest)?;
        let Document::Manifest(parsed) = Document::parse(&json)? else {
            return Err(ManifestError::Neither.into());
        };
        let config = self.document(&parsed.config.digest)?;
        of(*manifest, &parsed, &config)
    }
}

/// An image of its documents.
fn of(digest: Digest, manifest: &Manifest, config: &[u8]) -> Result<Image, StoreError> {
    let (config, diff_ids) = ImageConfig::parse(config)?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(StoreError::Config(ConfigError::Layers {
            named: diff_ids.len(),
            layers: manifest.layers.len(),
        }));
    }
    let layers = manifest.layers.iter().zip(diff_ids);
    let layers = layers.map(|(layer, diff_id)| LayerRef {
        blob: layer.digest,
        size: layer.size,
        diff_id,
    });
    Ok(Image {
        manifest: digest,
        config,
        layers: layers.collect(),
    })
}

impl Session {
    /// Adds a manifest of content that is there and had none.
    pub(crate) fn manifest_of(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
    ) -> Result<Image, StoreError> {
        let json = manifest::written(&Manifest { config, layers }).map_err(ManifestError::from)?;
        let added = self.add(json.as_slice())?;
        self.store.image(&added.digest)
    }
}
