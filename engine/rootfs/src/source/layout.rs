//! OCI layouts (image-spec, image-layout.md), as directories or archives. Invariant: content is what its digest says.

use std::path::Path;

use serde::Deserialize;

use super::SourceError;
use super::archive::Members;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document};
use crate::store::{Image, Session, StoreError};

/// What names an image in an index (image-spec, annotations.md), and what containerd adds.
const TAG: &str = "org.opencontainers.image.ref.name";
const NAME: &str = "io.containerd.image.name";
/// Lists that lead to lists.
const DEPTH: usize = 4;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn import_directory(
    session: &Session,
    path: &Path,
    tag: Option<&str>,
) -> Result<Image, SourceError> {
    import(session, &Members::Directory(path.to_owned()), tag)
}

pub(super) fn import_archive(
    session: &Session,
    path: &Path,
    tag: Option<&str>,
) -> Result<Image, SourceError> {
    import(session, &Members::of(path)?, tag)
}

fn import(session: &Session, members: &Members, tag: Option<&str>) -> Result<Image, SourceError> {
    let mut descriptor = chosen(members, tag)?;
    for _ in 0..DEPTH {
        let name = blob(&descriptor.digest);
        let json = members.document(&name)?;
        check(&descriptor.digest, &json)?;
        match Document::parse(&json)? {
            Document::Elsewhere(next) => descriptor = next,
            Document::Manifest(manifest) => {
                for part in [&manifest.config].into_iter().chain(&manifest.layers) {
                    take(session, members, part)?;
                }
                let added = session.add(json.as_slice())?;
                return Ok(session.store().image(&added.digest)?);
            }
        }
    }
    Err(SourceError::Shape {
        path: members.path().to_owned(),
        what: "its lists lead to lists".to_owned(),
    })
}

/// The entry of the index that is meant.
fn chosen(members: &Members, tag: Option<&str>) -> Result<Descriptor, SourceError> {
    let json = members.document("index.json")?;
    let index: Index = serde_json::from_slice(&json).map_err(|source| SourceError::Json {
        path: members.path().to_owned(),
        document: "index.json".to_owned(),
        source,
    })?;
    let tags = |entry: &Entry| -> Vec<String> {
        let named = [TAG, NAME].map(|key| entry.annotations.get(key).cloned());
        named.into_iter().flatten().collect()
    };
    let all: Vec<String> = index.manifests.iter().flat_map(tags).collect();
    let meant = |entry: &Entry| match tag {
        Some(tag) => tags(entry).iter().any(|named| named == tag),
        None => true,
    };
    let entries: Vec<Entry> = index.manifests.into_iter().filter(meant).collect();
    let shape = |what: String| SourceError::Shape {
        path: members.path().to_owned(),
        what,
    };
    let several = entries
        .iter()
        .map(tags)
        .collect::<std::collections::BTreeSet<_>>();
    if entries.is_empty() || (tag.is_none() && several.len() > 1) {
        let all = all.join(", ");
        return Err(shape(match tag {
            Some(tag) => format!("it has no image '{tag}', but these: {all}"),
            None => format!("say which of its images, after a colon: {all}"),
        }));
    }
    // Several under one name are one image for several machines: a list like any other.
    let list = serde_json::json!({
        "schemaVersion": 2,
        "manifests": entries.into_iter().map(|entry| entry.rest).collect::<Vec<_>>(),
    });
    match Document::parse(list.to_string().as_bytes())? {
        Document::Elsewhere(descriptor) => Ok(descriptor),
        Document::Manifest(_) => Err(shape("its index is no list".to_owned())),
    }
}

fn take(session: &Session, members: &Members, part: &Descriptor) -> Result<(), SourceError> {
    let Some(mut incoming) = session.incoming(part)? else {
        return Ok(());
    };
    // A source that is whole anyway is read from its beginning.
    if incoming.have() > 0 {
        incoming.begin_anew()?;
    }
    let name = blob(&part.digest);
    let taken = incoming.take(members.open(&name)?, |_| ());
    taken.map_err(|error| match error {
        crate::store::TakeError::Store(error) => SourceError::Store(error),
        crate::store::TakeError::Source(source) => SourceError::Read {
            path: members.path().join(name),
            source,
        },
    })?;
    Ok(incoming.finish()?)
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn check(wanted: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let found = Digest::of(bytes);
    if found == *wanted {
        return Ok(());
    }
    Err(StoreError::Digest {
        wanted: *wanted,
        found,
    })
}
