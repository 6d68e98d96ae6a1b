//! A whole image, in each of the shapes that images come in.

use std::fs;
use std::path::Path;

use brood_rootfs::Digest;
use serde_json::{Value, json};

use super::{Layer, gzip};

/// Layers, packed or not, and what the configuration says besides them.
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) config: Value,
}

impl TestImage {
    /// Of plain layers, which are packed with gzip.
    pub(crate) fn new(plain: &[Vec<u8>], config: Value) -> Self {
        Self {
            layers: plain.iter().map(|layer| gzip(layer)).collect(),
            diff_ids: plain.iter().map(|layer| Digest::of(layer)).collect(),
            config,
        }
    }

    /// A small one.
    pub(crate) fn small() -> Self {
        let base = Layer::new()
            .file(
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
            )
            .file("etc/group", "root:x:0:\nstaff:x:50:ann\n")
            .file("usr/bin/tool", "base tool");
        let upper = Layer::new()
            .file("usr/bin/tool", "newer tool")
            .file("etc/.wh.group", "");
        let config =
            json!({"Env": ["LANG=C.UTF-8"], "Cmd": ["tool"], "User": "ann", "WorkingDir": "/srv"});
        Self::new(&[base.bytes(), upper.bytes()], config)
    }

    pub(crate) fn config_json(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.diff_ids.iter().map(Digest::to_string).collect();
        let json = json!({
            "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        json.to_string().into_bytes()
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let kind = "application/vnd.oci.image";
        let layers = self
            .layers
            .iter()
            .map(|layer| descriptor(layer, &format!("{kind}.layer.v1.tar+gzip")));
        let json = json!({
            "schemaVersion": 2,
            "mediaType": format!("{kind}.manifest.v1+json"),
            "config": descriptor(&self.config_json(), &format!("{kind}.config.v1+json")),
            "layers": layers.collect::<Vec<_>>(),
        });
        json.to_string().into_bytes()
    }

    /// All content, the manifest last.
    pub(crate) fn blobs(&self) -> Vec<Vec<u8>> {
        let mut blobs = self.layers.clone();
        blobs.extend([self.config_json(), self.manifest()]);
        blobs
    }

    /// The files of an OCI layout that calls it `tag`, with an image for another machine before it.
    pub(crate) fn layout(&self, tag: &str) -> Vec<(String, Vec<u8>)> {
        let mut entry = descriptor(
            &self.manifest(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut other = entry.clone();
        other["platform"] = json!({"os": "linux", "architecture": "arm64"});
        other["digest"] = json!(Digest::of(b"no such manifest").to_string());
        let index = json!({"schemaVersion": 2, "manifests": [other, entry]});
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        for blob in self.blobs() {
            files.push((format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob));
        }
        files
    }

    /// What `docker save` writes; the second layer is a link, as it is for one that two images have.
    pub(crate) fn docker(&self, name: &str) -> Layer {
        let names: Vec<_> = (0..self.layers.len())
            .map(|n| format!("{n}/layer.tar"))
            .collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
        let mut archive = Layer::new().file_as("config.json", &self.config_json(), super::PLAIN);
        for (n, layer) in self.layers.iter().enumerate() {
            let kept = format!("kept/{n}.tar");
            archive = archive.file_as(&kept, layer, super::PLAIN);
            archive = archive.symbolic(&format!("{n}/layer.tar"), &format!("../{kept}"));
        }
        archive.file("manifest.json", &manifest.to_string())
    }
}

pub(crate) fn descriptor(blob: &[u8], kind: &str) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(blob).to_string(), "size": blob.len()})
}

/// Files below a directory.
pub(crate) fn write_all(directory: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Files as a tar file.
pub(crate) fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Layer::new();
    for (name, bytes) in files {
        archive = archive.file_as(name, bytes, super::PLAIN);
    }
    archive.bytes()
}
