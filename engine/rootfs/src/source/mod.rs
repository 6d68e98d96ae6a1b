//! Images that lie on the host: OCI layouts, archives of them, what `docker save` writes, a tar file, a directory.
//!
//! Invariant: whatever the source is, it becomes blobs and a manifest of the store, so that everything behind this is the same.
//! Names in an archive are looked up in the archive, never on the host.

mod archive;
mod directory;
mod docker;
mod layout;
mod plain;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use crate::manifest::ManifestError;
use crate::store::{Image, Session, StoreError};

/// Where an image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `oci:DIRECTORY` or `oci:DIRECTORY:TAG`: an OCI layout.
    OciLayout(PathBuf, Option<String>),
    /// `oci-archive:FILE` or `oci-archive:FILE:TAG`: a tar file of an OCI layout.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE` or `docker-archive:FILE:NAME:TAG`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `tar:FILE`: a tar file of a root, packed with gzip or zstd or not at all.
    Tar(PathBuf),
    /// `dir:DIRECTORY`: a root, with the owners that its files have on the host.
    Directory(PathBuf),
}

/// The text names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no image on this host: say oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], \
     tar:FILE or dir:DIRECTORY"
)]
pub struct ParseSourceError(String);

/// Why an image was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is not what it was said to be.
    #[error("{}: {what}", path.display())]
    Shape {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A document in it means nothing.
    #[error("{} in {} is not what it should be", document, path.display())]
    Json {
        /// The file or directory.
        path: PathBuf,
        /// Which document.
        document: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Its manifest was refused.
    #[error("the image cannot be used")]
    Manifest(#[from] ManifestError),
    /// The store refused.
    #[error("the image cannot be kept")]
    Store(#[from] StoreError),
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSourceError(text.chars().take(200).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        if rest.is_empty() {
            return Err(wrong());
        }
        let tagged = || match rest.split_once(':') {
            Some((path, tag)) if !path.is_empty() && !tag.is_empty() => {
                Ok((path.into(), Some(tag.to_owned())))
            }
            Some(_) => Err(wrong()),
            None => Ok((rest.into(), None)),
        };
        match kind {
            "oci" => tagged().map(|(path, tag)| Self::OciLayout(path, tag)),
            "oci-archive" => tagged().map(|(path, tag)| Self::OciArchive(path, tag)),
            "docker-archive" => tagged().map(|(path, tag)| Self::DockerArchive(path, tag)),
            "tar" => Ok(Self::Tar(rest.into())),
            "dir" => Ok(Self::Directory(rest.into())),
            _ => Err(wrong()),
        }
    }
}

impl Session {
    /// Takes an image in. It is garbage until it has a name.
    ///
    /// # Errors
    /// It is not what it was said to be, is for other machines, or there is no room.
    pub fn import(&self, source: &Source) -> Result<Image, SourceError> {
        match source {
            Source::OciLayout(path, tag) => layout::import_directory(self, path, tag.as_deref()),
            Source::OciArchive(path, tag) => layout::import_archive(self, path, tag.as_deref()),
            Source::DockerArchive(path, name) => docker::import(self, path, name.as_deref()),
            Source::Tar(path) => plain::import(self, path),
            Source::Directory(path) => directory::import(self, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_source_has_its_word() {
        let parse = |text: &str| text.parse::<Source>();
        let tag = Some("v1".to_owned());
        assert_eq!(parse("oci:/l:v1"), Ok(Source::OciLayout("/l".into(), tag)));
        assert_eq!(
            parse("oci-archive:a.tar"),
            Ok(Source::OciArchive("a.tar".into(), None))
        );
        let named = Some("app:v1".to_owned());
        assert_eq!(
            parse("docker-archive:a:app:v1"),
            Ok(Source::DockerArchive("a".into(), named))
        );
        assert_eq!(parse("tar:a:b.tar"), Ok(Source::Tar("a:b.tar".into())));
        for bad in ["", "oci", "oci:", "oci::v1", "oci:/l:", "docker:x", "/path"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
