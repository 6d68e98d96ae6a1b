//! From places of chunks to packs and a table.
//!
//! Invariant: a table's files are exactly the packs that it refers to, in the order in which it first does.

use std::collections::HashMap;

use crate::chunk::ChunkName;
use crate::pack::{PackId, offset_of, slot_at};
use crate::table::{BuildError, Builder, Entry, ParseError, Table};

use super::state::Place;
use crate::manifest::Manifest;

/// A chunk of RAM that is not zero, and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Laid {
    pub(super) chunk: u32,
    pub(super) name: ChunkName,
    pub(super) pack: PackId,
    pub(super) offset: u64,
}

impl Laid {
    pub(super) fn at(chunk: u32, name: ChunkName, place: Place) -> Self {
        Self {
            chunk,
            name,
            pack: place.pack,
            offset: offset_of(place.slot),
        }
    }

    /// The slot of a pack, if it is in one.
    pub(super) fn place(&self) -> Option<Place> {
        let slot = slot_at(self.offset)?;
        Some(Place {
            pack: self.pack,
            slot,
        })
    }
}

/// There is no such table.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What was made is none.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// The table of that much RAM and the packs that are its files.
pub(super) fn lay_out(
    ram_bytes: u64,
    chunks: &[Laid],
    working_set: &[u32],
) -> Result<(Vec<PackId>, Table<Vec<u8>>), LayoutError> {
    let mut packs = Vec::new();
    let mut numbers = HashMap::new();
    for laid in chunks {
        numbers.entry(laid.pack).or_insert_with(|| {
            packs.push(laid.pack);
            packs.len() as u32 - 1
        });
    }
    let mut builder = Builder::new(ram_bytes, packs.len() as u32)?;
    for laid in chunks {
        let entry = Entry::Stored {
            file: numbers.get(&laid.pack).copied().unwrap_or(u32::MAX),
            offset: laid.offset,
            name: laid.name,
            working_set: false,
        };
        builder.set(laid.chunk, entry)?;
    }
    for chunk in working_set {
        builder.working_set(*chunk)?;
    }
    let table = Table::parse(builder.finish())?;
    Ok((packs, table))
}

/// The chunks of a manifest that are not zero.
pub(super) fn laid(manifest: &Manifest) -> impl Iterator<Item = Laid> {
    let entries = (0..).zip(manifest.table.entries());
    entries.filter_map(|(chunk, entry)| match entry {
        Entry::Zero { .. } => None,
        Entry::Stored {
            file, offset, name, ..
        } => Some(Laid {
            chunk,
            name,
            pack: *manifest.packs.get(file as usize)?,
            offset,
        }),
    })
}
