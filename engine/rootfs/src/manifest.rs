//! Manifests and lists of them (image-spec, manifest.md and image-index.md; Docker's distribution, schema 2).
//!
//! Invariant: what is taken out of one names content by its digest and size, both of which are checked when it comes. Of a
//! list, what is for linux/amd64 is taken. Docker's schema 1, foreign layers and encrypted ones are refused by name.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ParseDigestError};

/// Bytes of a manifest or a configuration: what registries allow (distribution-spec, "Pushing Manifests").
pub(crate) const LONGEST: u64 = 4 << 20;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Content by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// The lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// What a registry or a layout answers to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    /// The manifest of a list that is for guests.
    Elsewhere(Descriptor),
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No JSON of this shape.
    #[error("the manifest is not what it should be")]
    Json(#[from] serde_json::Error),
    /// A digest that is none.
    #[error("the manifest names content badly")]
    Digest(#[from] ParseDigestError),
    /// Of the first kind.
    #[error("the image is of Docker's schema 1: push it again with a Docker of this decade")]
    Schema1,
    /// Neither an image nor a list.
    #[error("it is neither an image nor a list of images (an artifact?): name an image")]
    Neither,
    /// No image for guests in a list.
    #[error("the image is for {found}, and guests are linux/amd64: name an image for that")]
    Platform {
        /// What the list has.
        found: String,
    },
    /// A layer that cannot be had or read.
    #[error("layer {digest} is of the type '{media_type}': make the image without such layers")]
    Layer {
        /// Which.
        digest: String,
        /// What it says it is.
        media_type: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: Option<u32>,
    config: Option<WrittenDescriptor>,
    layers: Option<Vec<WrittenDescriptor>>,
    manifests: Option<Vec<WrittenDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Document {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let written: Written = serde_json::from_slice(json)?;
        if written.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        match (written.config, written.layers, written.manifests) {
            (Some(config), Some(layers), None) => {
                let layers = layers.into_iter().map(layer);
                Ok(Self::Manifest(Manifest {
                    config: config.plain()?,
                    layers: layers.collect::<Result<_, _>>()?,
                }))
            }
            (None, None, Some(manifests)) => of_guests(manifests).map(Self::Elsewhere),
            _ => Err(ManifestError::Neither),
        }
    }
}

fn layer(written: WrittenDescriptor) -> Result<Descriptor, ManifestError> {
    let kind = written.media_type.as_str();
    let foreign = kind.contains("nondistributable") || kind.contains("foreign");
    if foreign || kind.ends_with("+encrypted") || (!kind.is_empty() && !kind.contains(".tar")) {
        return Err(ManifestError::Layer {
            digest: written.digest,
            media_type: written.media_type,
        });
    }
    written.plain()
}

/// One without a platform is taken if it is the only one: its configuration says what it is for.
fn of_guests(manifests: Vec<WrittenDescriptor>) -> Result<Descriptor, ManifestError> {
    let named: Vec<String> = manifests
        .iter()
        .filter_map(|manifest| manifest.platform.as_ref())
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    let only = manifests.len() == 1;
    let fits = |manifest: &WrittenDescriptor| match &manifest.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == "amd64",
        None => only,
    };
    match manifests.into_iter().find(fits) {
        Some(manifest) => manifest.plain(),
        None => Err(ManifestError::Platform {
            found: if named.is_empty() {
                "nothing".to_owned()
            } else {
                named.join(", ")
            },
        }),
    }
}

impl WrittenDescriptor {
    fn plain(self) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            digest: self.digest.parse()?,
            size: self.size,
        })
    }
}

/// A manifest of content that had none, such as a tar file.
pub(crate) fn written(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Out<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: OutDescriptor<'a>,
        layers: Vec<OutDescriptor<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct OutDescriptor<'a> {
        media_type: &'a str,
        digest: String,
        size: u64,
    }
    let out = |descriptor: &Descriptor, media_type| OutDescriptor {
        media_type,
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
    };
    let layers = manifest.layers.iter();
    serde_json::to_vec(&Out {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: out(&manifest.config, OCI_CONFIG),
        layers: layers.map(|layer| out(layer, OCI_LAYER)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: &str) -> String {
        Digest::of(of.as_bytes()).to_string()
    }

    fn list(platforms: &[&str]) -> String {
        let entries = platforms.iter().map(|platform| {
            let digest = digest(platform);
            let (os, architecture) = platform.split_once('/').expect("two words");
            format!(
                r#"{{"digest": "{digest}", "size": 5, "platform": {{"os": "{os}", "architecture": "{architecture}"}}}}"#
            )
        });
        let entries = entries.collect::<Vec<_>>().join(", ");
        format!(r#"{{"schemaVersion": 2, "manifests": [{entries}]}}"#)
    }

    #[test]
    fn of_a_list_what_is_for_guests_is_taken() {
        let json = list(&["unknown/unknown", "linux/arm64", "linux/amd64"]);
        let Document::Elsewhere(taken) = Document::parse(json.as_bytes()).expect("a list") else {
            unreachable!("a list leads elsewhere");
        };
        assert_eq!(taken.digest, Digest::of(b"linux/amd64"));
        let json = list(&["linux/arm64", "windows/amd64"]);
        let said = Document::parse(json.as_bytes())
            .expect_err("none")
            .to_string();
        assert!(said.contains("linux/arm64, windows/amd64"), "{said}");
    }

    #[test]
    fn manifest_that_is_written_here_reads_back() {
        let descriptor = |of: &str| Descriptor {
            digest: Digest::of(of.as_bytes()),
            size: 7,
        };
        let manifest = Manifest {
            config: descriptor("config"),
            layers: vec![descriptor("low"), descriptor("high")],
        };
        let json = written(&manifest).expect("JSON");
        assert_eq!(
            Document::parse(&json).expect("one"),
            Document::Manifest(manifest)
        );
    }

    #[test]
    fn what_is_no_image_is_refused_with_the_reason() {
        let layer = |kind: &str| {
            let digest = digest("x");
            format!(
                r#"{{"schemaVersion": 2, "config": {{"digest": "{digest}", "size": 1}},
                    "layers": [{{"mediaType": "{kind}", "digest": "{digest}", "size": 1}}]}}"#
            )
        };
        let foreign = layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let encrypted = layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        let artifact = layer("application/vnd.wasm.content.layer.v1+wasm");
        for (json, word) in [
            (r#"{"schemaVersion": 1, "fsLayers": []}"#, "schema 1"),
            (r#"{"schemaVersion": 2}"#, "neither"),
            ("[]", "not what it should be"),
            (&foreign, "foreign"),
            (&encrypted, "encrypted"),
            (&artifact, "wasm"),
        ] {
            let said = Document::parse(json.as_bytes())
                .expect_err(json)
                .to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
