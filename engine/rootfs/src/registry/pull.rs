//! Pulling an image: its manifest, then what that names and the store does not have.
//!
//! Invariant: an image in the store is whole. What was fetched of one that was not finished stays for the next attempt.

use std::io::Read;

use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use super::client::{Ask, Registry, header, unreachable, what};
use super::error::PullError;
use super::reference::Reference;
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, Manifest, ManifestError};
use crate::store::{Image, Incoming, Session, StoreError, TakeError};

/// Lists that lead to lists.
const DEPTH: usize = 4;

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A blob is here already.
    Present {
        /// Which.
        digest: Digest,
    },
    /// Some of a blob has come.
    Fetched {
        /// Which.
        digest: Digest,
        /// Bytes that are here.
        have: u64,
        /// Bytes that there are.
        size: u64,
    },
}

impl Session {
    /// Pulls an image from a registry. It is garbage until it has a name.
    ///
    /// # Errors
    /// [`PullError`].
    pub fn pull(
        &self,
        registry: &Registry,
        reference: &Reference,
        mut progress: impl FnMut(Progress),
    ) -> Result<Image, PullError> {
        let (json, manifest) = registry.manifest(reference)?;
        for part in [&manifest.config].into_iter().chain(&manifest.layers) {
            registry.blob(self, reference, part, &mut progress)?;
        }
        let added = self.add(json.as_slice())?;
        Ok(self.store().image(&added.digest)?)
    }
}

impl Registry {
    /// The manifest for guests, as it was written.
    fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Manifest), PullError> {
        let mut version = reference.version();
        let mut wanted = reference.digest();
        for _ in 0..DEPTH {
            let json = self.document(reference, &version)?;
            if let Some(wanted) = wanted {
                let found = Digest::of(&json);
                if found != wanted {
                    return Err(StoreError::Digest { wanted, found }.into());
                }
            }
            match Document::parse(&json)? {
                Document::Manifest(manifest) => return Ok((json, manifest)),
                Document::Elsewhere(next) => {
                    version = next.digest.to_string();
                    wanted = Some(next.digest);
                }
            }
        }
        Err(ManifestError::Neither.into())
    }

    fn document(&self, reference: &Reference, version: &str) -> Result<Vec<u8>, PullError> {
        let accept = [
            manifest::OCI_MANIFEST,
            manifest::OCI_INDEX,
            manifest::DOCKER_MANIFEST,
            manifest::DOCKER_LIST,
        ]
        .join(", ");
        let path = format!("manifests/{version}");
        let ask = Ask {
            reference,
            path: &path,
            accept: &accept,
            from: 0,
        };
        let answer = self.get(&ask)?;
        let mut json = Vec::new();
        let most = manifest::LONGEST + 1;
        let read = answer
            .into_body()
            .into_reader()
            .take(most)
            .read_to_end(&mut json);
        read.map_err(|error| unreachable(&what(&ask), ureq::Error::Io(error)))?;
        if u64::try_from(json.len()).unwrap_or(most) >= most {
            return Err(PullError::Long {
                registry: reference.registry().to_owned(),
                what: what(&ask),
            });
        }
        Ok(json)
    }

    fn blob(
        &self,
        session: &Session,
        reference: &Reference,
        part: &Descriptor,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), PullError> {
        let Descriptor { digest, size } = *part;
        let Some(mut incoming) = session.incoming(part)? else {
            progress(Progress::Present { digest });
            return Ok(());
        };
        let mut last = None;
        for _ in 0..self.options.attempts {
            if incoming.have() >= size {
                break;
            }
            last = self.attempt(reference, part, &mut incoming, progress)?;
        }
        if incoming.have() < size {
            return Err(PullError::Truncated {
                registry: reference.registry().to_owned(),
                digest: digest.to_string(),
                have: incoming.have(),
                size,
                attempts: self.options.attempts,
                source: last,
            });
        }
        Ok(incoming.finish()?)
    }

    /// Fetches as much as comes; how it ended, if the connection broke.
    fn attempt(
        &self,
        reference: &Reference,
        part: &Descriptor,
        incoming: &mut Incoming<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<std::io::Error>, PullError> {
        let Descriptor { digest, size } = *part;
        let path = format!("blobs/{digest}");
        let from = incoming.have();
        let answer = self.get(&Ask {
            reference,
            path: &path,
            accept: "*/*",
            from,
        })?;
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT
            && header(&answer, &CONTENT_RANGE)
                .is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
        if from > 0 && !goes_on {
            incoming.begin_anew()?;
        }
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(None);
        }
        let body = answer.into_body().into_reader();
        let taken = incoming.take(body, |have| {
            progress(Progress::Fetched { digest, have, size });
        });
        match taken {
            Ok(()) => Ok(None),
            Err(TakeError::Source(error)) => Ok(Some(error)),
            Err(TakeError::Store(error)) => Err(error.into()),
        }
    }
}
