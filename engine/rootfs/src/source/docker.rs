//! What `docker save` writes: `manifest.json`, configurations, layers as tar files. Invariant: the layers are what the
//! configuration names, which is checked when a disk is made of them.

use std::path::Path;

use serde::Deserialize;

use super::SourceError;
use super::archive::Members;
use crate::store::{Image, Session};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn import(
    session: &Session,
    path: &Path,
    name: Option<&str>,
) -> Result<Image, SourceError> {
    let members = Members::of(path)?;
    let json = members.document("manifest.json")?;
    let saved: Vec<Saved> = serde_json::from_slice(&json).map_err(|source| SourceError::Json {
        path: path.to_owned(),
        document: "manifest.json".to_owned(),
        source,
    })?;
    let image = chosen(saved, name).map_err(|what| SourceError::Shape {
        path: path.to_owned(),
        what,
    })?;
    let config = session.add(members.document(&image.config)?.as_slice())?;
    let layers = image.layers.iter().map(|layer| {
        let member = members.open(layer)?;
        session.add(member).map_err(SourceError::from)
    });
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(session.manifest_of(config, layers)?)
}

fn chosen(saved: Vec<Saved>, name: Option<&str>) -> Result<Saved, String> {
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let all = saved.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
    let mut meant = saved.into_iter().filter(|image| match name {
        Some(name) => tags(image).iter().any(|tag| tag == name),
        None => true,
    });
    match (meant.next(), meant.next(), name) {
        (Some(image), None, _) => Ok(image),
        (Some(_), Some(_), _) => Err(format!("say which of its images, after a colon: {all}")),
        (None, _, Some(name)) => Err(format!("it has no image '{name}', but these: {all}")),
        (None, _, None) => Err("it has no image".to_owned()),
    }
}
