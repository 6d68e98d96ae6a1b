//! The ELF vmlinux: its segments, and the note that names its PVH entry. Invariant: every range lies in the file, and
//! every address between 1 MiB and 4 GiB.

use std::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::Note;
use elf::segment::ProgramHeader;

use super::error::ImageError;
use crate::boot::layout;

/// Name of Xen's notes.
const XEN: &[u8] = b"Xen\0";
/// Type of the note that holds the 32-bit physical entry address (Xen: public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// A checked ELF kernel with a PVH entry.
#[derive(Debug)]
pub(crate) struct Vmlinux {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    entry: u32,
}

/// One piece of the kernel: bytes from the file, then zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) memory_bytes: u64,
    file: Range<usize>,
}

impl Vmlinux {
    /// Checks the ELF file; nothing if it is sound but has no PVH entry.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Option<Self>, ImageError> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(&bytes)
            .map_err(|source| ImageError::Elf { source })?;
        let header = &file.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
            return Err(ImageError::Machine {
                machine: header.e_machine,
            });
        }
        let mut segments = Vec::new();
        let mut entry = None;
        for header in file.segments().into_iter().flatten() {
            match header.p_type {
                PT_LOAD if header.p_memsz > 0 => segments.push(segment(&header, bytes.len())?),
                PT_NOTE if entry.is_none() => entry = pvh_entry(&file, header)?,
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(ImageError::NoSegments);
        }
        Ok(entry.map(|entry| Self {
            segments,
            entry,
            bytes,
        }))
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The segments with the bytes they start with.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (&Segment, &[u8])> {
        let content = |segment: &Segment| self.bytes.get(segment.file.clone()).unwrap_or_default();
        self.segments
            .iter()
            .map(move |segment| (segment, content(segment)))
    }

    /// The 32-bit entry.
    pub(crate) const fn entry(&self) -> u32 {
        self.entry
    }

    /// The first address past the last segment.
    pub(crate) fn end(&self) -> u64 {
        let ends = self.segments.iter().map(|it| it.address + it.memory_bytes);
        ends.max().unwrap_or_default()
    }
}

fn segment(header: &ProgramHeader, file_bytes: usize) -> Result<Segment, ImageError> {
    let truncated = |needed| ImageError::Truncated {
        part: "a segment",
        needed,
        bytes: file_bytes as u64,
    };
    let refused = ImageError::Segment {
        address: header.p_paddr,
        bytes: header.p_memsz,
    };
    let Some(end) = header.p_paddr.checked_add(header.p_memsz) else {
        return Err(refused);
    };
    if header.p_paddr < layout::HIGH_MEMORY.0
        || end > layout::HOLE_END.0
        || header.p_filesz > header.p_memsz
    {
        return Err(refused);
    }
    let file_end = header.p_offset.checked_add(header.p_filesz);
    let file_end = file_end.ok_or_else(|| truncated(u64::MAX))?;
    if file_end > file_bytes as u64 {
        return Err(truncated(file_end));
    }
    Ok(Segment {
        address: header.p_paddr,
        memory_bytes: header.p_memsz,
        file: header.p_offset as usize..file_end as usize,
    })
}

fn pvh_entry(
    file: &ElfBytes<'_, LittleEndian>,
    header: ProgramHeader,
) -> Result<Option<u32>, ImageError> {
    // Linux aligns its notes to four bytes whatever the segment says (include/linux/elfnote.h).
    let header = ProgramHeader {
        p_align: 4,
        ..header
    };
    let notes = file
        .segment_data_as_notes(&header)
        .map_err(|source| ImageError::Elf { source })?;
    for note in notes {
        let Note::Unknown(note) = note else { continue };
        if note.n_type != XEN_ELFNOTE_PHYS32_ENTRY || note.name != XEN {
            continue;
        }
        // The address is 32 bits wide; the field may be wider.
        let address = note.desc.first_chunk::<4>();
        return Ok(address.map(|bytes| u32::from_le_bytes(*bytes)));
    }
    Ok(None)
}
