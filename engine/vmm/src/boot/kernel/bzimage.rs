//! The bzImage: real-mode setup code with a header, then the protected-mode kernel with a compressed payload.
//!
//! ```text
//!  0        0x1f1 … 0x26c        (setup_sects + 1) × 512                          + syssize × 16
//!  | boot   | setup header | … |  decompressor │ payload │ its length │ …          | signature
//!                               ▲               payload_offset, payload_length
//!                               loaded at pref_address, entered at + 0x200
//! ```
//!
//! Linux: Documentation/arch/x86/boot.rst.

use std::mem::size_of;
use std::ops::Range;

use linux_loader::bootparam::setup_header;
use vm_memory::ByteValued;

use super::error::ImageError;
use super::payload;
use crate::boot::layout;

/// Where the setup header lies in the file and in the zero page.
const HEADER: usize = 0x1f1;
/// "HdrS".
const MAGIC: u32 = 0x5372_6448;
/// The protocol that added `payload_offset` and `payload_length`.
const PAYLOAD_VERSION: u16 = 0x0208;
/// The protocol that added `pref_address` and `init_size`.
const PREFERRED_ADDRESS_VERSION: u16 = 0x020a;
/// The protocol that added `xloadflags`.
const XLOADFLAGS_VERSION: u16 = 0x020c;
/// `loadflags` bit: the kernel loads at or above 1 MiB.
const LOADED_HIGH: u8 = 1;
/// `xloadflags` bit: there is a 64-bit entry at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry.
const ENTRY_64: u64 = 0x200;
const SECTOR: usize = 512;
/// `syssize` counts paragraphs of 16 bytes.
const PARAGRAPH: u64 = 16;

/// A checked bzImage.
#[derive(Debug)]
pub(crate) struct BzImage {
    bytes: Vec<u8>,
    header: setup_header,
    code: Range<usize>,
}

impl BzImage {
    /// Checks header and sizes; touches no payload.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        let header = header(&bytes)?;
        if header.version < PAYLOAD_VERSION {
            return Err(ImageError::OldProtocol {
                version: header.version,
            });
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(ImageError::NotAKernel);
        }
        // Zero means four, for history's sake.
        let sectors = match header.setup_sects {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * SECTOR;
        let code_bytes = u64::from(header.syssize) * PARAGRAPH;
        let end = start as u64 + code_bytes;
        // The last paragraph need not be whole.
        if code_bytes == 0 || bytes.len() as u64 + PARAGRAPH <= end {
            return Err(ImageError::Truncated {
                part: "the protected-mode kernel",
                needed: end,
                bytes: bytes.len() as u64,
            });
        }
        let code = start..bytes.len().min(end as usize);
        Ok(Self {
            bytes,
            header,
            code,
        })
    }

    /// The decompressed payload: an ELF file, if the kernel is sane.
    pub(super) fn vmlinux(&self) -> Result<Vec<u8>, ImageError> {
        let start = u64::from(self.header.payload_offset);
        let end = start + u64::from(self.header.payload_length);
        let code = self.code();
        let payload = code.get(start as usize..end as usize);
        let payload = payload.ok_or(ImageError::Truncated {
            part: "the payload",
            needed: self.code.start as u64 + end,
            bytes: self.bytes.len() as u64,
        })?;
        payload::decompress(payload)
    }

    /// Whether the 64-bit boot protocol can enter it.
    pub(super) fn has_64bit_entry(&self) -> bool {
        self.header.version >= XLOADFLAGS_VERSION && self.header.xloadflags & XLF_KERNEL_64 != 0
    }

    /// The part that is loaded, at [`Self::load_address`].
    pub(crate) fn code(&self) -> &[u8] {
        self.bytes.get(self.code.clone()).unwrap_or_default()
    }

    /// The header as it goes into the zero page.
    pub(crate) const fn header(&self) -> setup_header {
        self.header
    }

    /// Where the kernel wants to lie; 1 MiB if it does not say or wants to lie below.
    pub(crate) fn load_address(&self) -> u64 {
        let preferred = self.header.pref_address;
        if self.header.version >= PREFERRED_ADDRESS_VERSION && preferred >= layout::HIGH_MEMORY.0 {
            preferred
        } else {
            layout::HIGH_MEMORY.0
        }
    }

    /// The 64-bit entry.
    pub(crate) fn entry(&self) -> u64 {
        self.load_address().saturating_add(ENTRY_64)
    }

    /// The first address past what the kernel uses before it looks at the memory map: code, and `init_size`.
    pub(crate) fn end(&self) -> u64 {
        let bytes = (self.code.len() as u64).max(self.header.init_size.into());
        self.load_address().saturating_add(bytes)
    }
}

fn header(bytes: &[u8]) -> Result<setup_header, ImageError> {
    // The boot sector's own mark tells a short kernel from a stranger.
    if bytes.len() >= SECTOR && bytes.get(0x1fe..SECTOR) != Some(&[0x55, 0xaa]) {
        return Err(ImageError::NotAKernel);
    }
    let end = HEADER + size_of::<setup_header>();
    let header = bytes.get(HEADER..end).and_then(setup_header::from_slice);
    let header = *header.ok_or(ImageError::Truncated {
        part: "the setup header",
        needed: end as u64,
        bytes: bytes.len() as u64,
    })?;
    if header.header != MAGIC {
        return Err(ImageError::NotAKernel);
    }
    Ok(header)
}
