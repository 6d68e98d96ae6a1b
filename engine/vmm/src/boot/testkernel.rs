//! Kernels for tests, built byte by byte: an ELF vmlinux with a PVH note, and a bzImage around a payload.

use std::io::Write;

use lzma_rust2::{FilterType, XzOptions, XzWriter};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::kernel::Compression;

/// Where the test kernel's segments lie.
pub(super) const TEXT: u64 = 0x100_0000;
pub(super) const DATA: u64 = 0x120_0000;
/// The test kernel's PVH entry.
pub(super) const PVH_ENTRY: u32 = 0x100_0150;
/// Bytes of the data segment in memory; in the file it has fewer.
pub(super) const DATA_MEMORY: u64 = 0x5000;
/// `init_size` of the test bzImage.
pub(super) const INIT_SIZE: u32 = 0x40_0000;

/// The notes of a vmlinux: one of Linux, one of Xen that is not ours, and the entry.
pub(super) fn notes(entry: Option<u32>) -> Vec<u8> {
    let mut notes = note(b"Linux\0", 0x101, &[1, 2, 3, 4]);
    notes.extend(note(b"Xen\0", 6, b"linux\0"));
    if let Some(entry) = entry {
        // Linux writes the address as 64 bits.
        notes.extend(note(b"Xen\0", 18, &u64::from(entry).to_le_bytes()));
    }
    notes
}

pub(super) fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, content.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, content] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// One program header with its content.
pub(super) struct TestSegment {
    pub(super) kind: u32,
    pub(super) address: u64,
    pub(super) memory: u64,
    pub(super) content: Vec<u8>,
}

/// An ELF file of `segments`, contents first-come after the headers.
pub(super) fn elf(segments: &[TestSegment]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [TEXT, 64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [64, 56, segments.len() as u16, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let mut offset = 64 + 56 * segments.len() as u64;
    for segment in segments {
        bytes.extend(segment.kind.to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        let virtual_address = segment.address.wrapping_add(0xffff_ffff_8000_0000);
        let length = segment.content.len() as u64;
        let words = [offset, virtual_address, segment.address, length];
        for word in words.into_iter().chain([segment.memory, 4]) {
            bytes.extend(word.to_le_bytes());
        }
        offset += length;
    }
    for segment in segments {
        bytes.extend(&segment.content);
    }
    bytes
}

/// A vmlinux with text, data with a zeroed tail, and notes.
pub(super) fn vmlinux(entry: Option<u32>) -> Vec<u8> {
    // Text that a branch filter has something to do with: calls, at odd places.
    let text = (0..600_u32).flat_map(|n| [vec![0xe8], n.to_le_bytes().to_vec()].concat());
    let segment = |kind, address, memory, content: Vec<u8>| TestSegment {
        kind,
        address,
        memory,
        content,
    };
    elf(&[
        segment(1, TEXT, 3000, text.collect()),
        segment(1, DATA, DATA_MEMORY, b"data of the kernel".to_vec()),
        segment(4, 0, 0, notes(entry)),
    ])
}

/// `content` as the kernel's build compresses it, with its length appended where that does it.
pub(super) fn compress(content: &[u8], compression: Compression) -> Vec<u8> {
    let mut bytes = match compression {
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(content).expect("in memory");
            return encoder.finish().expect("in memory");
        }
        Compression::Xz => {
            let mut options = XzOptions::with_preset(1);
            options.prepend_pre_filter(FilterType::BcjX86, 0);
            let mut encoder = XzWriter::new(Vec::new(), options).expect("valid options");
            encoder.write_all(content).expect("in memory");
            encoder.finish().expect("in memory")
        }
        Compression::Zstd => compress_to_vec(content, CompressionLevel::Fastest),
        Compression::Lz4 => lz4_legacy(content),
        Compression::Bzip2 => b"BZh91AY&SY rest".to_vec(),
        Compression::Lzma => b"\x5d\0\0\0\x01 rest".to_vec(),
        Compression::Lzo => b"\x89LZO\0\r\n rest".to_vec(),
    };
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes
}

fn lz4_legacy(content: &[u8]) -> Vec<u8> {
    let mut bytes = 0x184c_2102_u32.to_le_bytes().to_vec();
    for block in content.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        bytes.extend((block.len() as u32).to_le_bytes());
        bytes.extend(block);
    }
    bytes
}

/// A bzImage around a payload as it stands: two setup sectors, a little decompressor, the payload.
pub(super) fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 3 * 512;
    const DECOMPRESSOR: usize = 0x400;
    let mut bytes = vec![0; SETUP + DECOMPRESSOR];
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let paragraphs = (bytes.len() - SETUP) as u32 / 16;
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };
    put(SETUP + 0x200, b"entry");
    put(0x1f1, &[2]);
    put(0x1f4, &paragraphs.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x248, &(DECOMPRESSOR as u32).to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &TEXT.to_le_bytes());
    put(0x260, &INIT_SIZE.to_le_bytes());
    bytes
}
