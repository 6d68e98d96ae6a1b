//! The compressed payload of a bzImage. Invariant: the memory and time spent are bounded by the length the payload
//! states, and that by [`MAX_VMLINUX`].
//!
//! The kernel's build appends the unpacked length to the compressed stream, four bytes, little-endian; with gzip they
//! are the stream's own last field (Linux: scripts/Makefile.lib, `size_append`).

use std::fmt;
use std::io::{self, Read};

use super::MAX_VMLINUX;
use super::error::ImageError;

/// How a kernel's payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz container, with its x86 branch filter.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The legacy frame format of LZ4.
    Lz4,
    /// Not supported.
    Bzip2,
    /// The .lzma container; not supported.
    Lzma,
    /// Not supported.
    Lzo,
}

impl Compression {
    const MAGICS: [(&[u8], Self); 7] = [
        (&[0x1f, 0x8b], Self::Gzip),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
        (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
        (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
        (b"BZh", Self::Bzip2),
        (&[0x5d, 0, 0], Self::Lzma),
        (&[0x89, b'L', b'Z', b'O'], Self::Lzo),
    ];

    fn detect(payload: &[u8]) -> Option<Self> {
        let matching = |(magic, _): &&(&[u8], Self)| payload.starts_with(magic);
        let found = Self::MAGICS.iter().find(matching);
        found.map(|(_, compression)| *compression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
        })
    }
}

/// The payload, unpacked. An uncompressed ELF payload (CONFIG_KERNEL_UNCOMPRESSED) is given back as it stands.
pub(super) fn decompress(payload: &[u8]) -> Result<Vec<u8>, ImageError> {
    if super::is_elf(payload) {
        return Ok(payload.to_vec());
    }
    let compression =
        Compression::detect(payload).ok_or_else(|| ImageError::UnknownCompression {
            magic: payload.iter().take(6).copied().collect(),
        })?;
    let Some((stream, length)) = payload.split_last_chunk::<4>() else {
        return Err(ImageError::UnknownCompression {
            magic: payload.to_vec(),
        });
    };
    let length = u32::from_le_bytes(*length);
    if u64::from(length) > MAX_VMLINUX {
        return Err(ImageError::PayloadTooBig {
            bytes: length.into(),
        });
    }
    // Below MAX_VMLINUX, and zeroed memory costs nothing before it is written.
    let mut vmlinux = vec![0; length as usize];
    match compression {
        Compression::Gzip => fill(&mut vmlinux, flate2::bufread::GzDecoder::new(payload)),
        Compression::Xz => fill(&mut vmlinux, xz(stream)),
        Compression::Zstd => zstd(stream, &mut vmlinux),
        Compression::Lz4 => lz4_legacy(stream, &mut vmlinux),
        Compression::Bzip2 | Compression::Lzma | Compression::Lzo => {
            return Err(ImageError::UnsupportedCompression { compression });
        }
    }
    .map_err(|source| ImageError::Corrupt {
        compression,
        source,
    })?;
    Ok(vmlinux)
}

/// Fills `out` from `stream`, which must hold exactly that much. Reading to the end has gzip and xz check their sums.
fn fill(out: &mut [u8], mut stream: impl Read) -> io::Result<()> {
    stream.read_exact(out)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(invalid("it is longer than it says")),
    }
}

/// The largest xz dictionary taken, KiB: kernels are built with 32 or 128 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;

fn xz(stream: &[u8]) -> impl Read {
    lzma_rust2::XzReader::new_mem_limit(stream, false, XZ_MEMORY_KIB)
}

fn zstd(stream: &[u8], out: &mut [u8]) -> io::Result<()> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(stream);
    let mut decoder = decoder.map_err(io::Error::other)?;
    fill(out, &mut decoder)?;
    // The decoder computes the checksum and leaves it to us to compare.
    let frame = decoder.into_frame_decoder();
    match frame.get_checksum_from_data() {
        Some(stated) if frame.get_calculated_checksum() != Some(stated) => {
            Err(invalid("its checksum is wrong"))
        }
        _ => Ok(()),
    }
}

/// Bytes that a block of the legacy format unpacks to; only the last is shorter (lz4_Frame_format.md, "Legacy
/// frame").
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

fn lz4_legacy(stream: &[u8], out: &mut [u8]) -> io::Result<()> {
    let mut blocks = stream.get(4..).unwrap_or_default();
    let mut unpacked = 0;
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let block = rest
            .get(..length)
            .ok_or_else(|| invalid("a block is cut off"))?;
        blocks = rest.get(length..).unwrap_or_default();
        let left = out.get_mut(unpacked..).unwrap_or_default();
        let room = left.len().min(LZ4_LEGACY_BLOCK);
        let target = left.get_mut(..room).unwrap_or_default();
        unpacked += lz4_flex::block::decompress_into(block, target).map_err(io::Error::other)?;
    }
    if unpacked == out.len() && blocks.is_empty() {
        Ok(())
    } else {
        Err(invalid("its length is not what it says"))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
