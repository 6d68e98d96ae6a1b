//! Kernels in every shape a distribution ships, and in every shape it does not.

use std::io::Write;

use super::*;
use crate::boot::testkernel::{self, PVH_ENTRY, TestSegment, bzimage, compress, vmlinux};

const SUPPORTED: [Compression; 4] = [
    Compression::Gzip,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4,
];

fn pvh(kernel: &Kernel) -> &Vmlinux {
    match kernel.image() {
        Image::Pvh(vmlinux) => vmlinux,
        Image::Linux64(_) => panic!("expected a PVH kernel"),
    }
}

fn refused(bytes: Vec<u8>) -> ImageError {
    Kernel::parse(bytes).expect_err("must be refused")
}

fn load_segment(address: u64, memory: u64, content: &[u8]) -> TestSegment {
    TestSegment {
        kind: 1,
        address,
        memory,
        content: content.to_vec(),
    }
}

#[test]
fn payload_of_every_supported_compression_becomes_the_vmlinux() {
    let elf = vmlinux(Some(PVH_ENTRY));
    for compression in SUPPORTED {
        let kernel = Kernel::parse(bzimage(&compress(&elf, compression)));
        let kernel = kernel.unwrap_or_else(|error| panic!("{compression}: {error:?}"));
        assert_eq!(kernel.vmlinux(), Some(&elf[..]), "{compression}");
        assert_eq!(pvh(&kernel).entry(), PVH_ENTRY, "{compression}");
    }
}

#[test]
fn uncompressed_payload_and_plain_vmlinux_are_accepted() {
    let elf = vmlinux(Some(PVH_ENTRY));
    for bytes in [bzimage(&elf), elf.clone()] {
        let kernel = Kernel::parse(bytes).expect("a kernel");
        assert_eq!(kernel.protocol(), BootProtocol::Pvh);
        assert_eq!(kernel.vmlinux().map(<[u8]>::len), Some(elf.len()));
    }
}

#[test]
fn lz4_payload_of_several_blocks_is_joined() {
    let mut content = vec![7; (8 << 20) + 5];
    content.extend(b"end");
    let packed = compress(&content, Compression::Lz4);
    assert_eq!(payload::decompress(&packed).expect("unpacks"), content);
}

#[test]
fn signature_behind_the_kernel_is_no_part_of_it() {
    let payload = compress(&vmlinux(Some(PVH_ENTRY)), Compression::Zstd);
    let plain = bzimage(&payload);
    let signed = [&plain[..], &[0xee; 1472]].concat();
    let kernel = Kernel::parse_linux64(signed).expect("a kernel");
    let Image::Linux64(image) = kernel.image() else {
        panic!("expected the 64-bit protocol");
    };
    assert_eq!(image.code(), &plain[3 * 512..]);
}

#[test]
fn bzimage_without_pvh_entry_falls_back_to_the_64_bit_protocol() {
    let payload = compress(&vmlinux(None), Compression::Gzip);
    let kernel = Kernel::parse(bzimage(&payload)).expect("a kernel");
    assert_eq!(kernel.protocol(), BootProtocol::Linux64);
    assert_eq!(kernel.vmlinux(), None);
}

#[test]
fn kernel_with_neither_entry_is_refused() {
    let mut image = bzimage(&compress(&vmlinux(None), Compression::Gzip));
    image[0x236] = 0;
    assert!(matches!(refused(image), ImageError::NoEntry));
    assert!(matches!(refused(vmlinux(None)), ImageError::NoEntry));
}

#[test]
fn unsupported_compressions_are_named_but_boot_by_the_64_bit_protocol() {
    for (compression, name) in [
        (Compression::Bzip2, "bzip2"),
        (Compression::Lzma, "lzma"),
        (Compression::Lzo, "lzo"),
    ] {
        let image = bzimage(&compress(b"", compression));
        let error = refused(image.clone());
        assert!(error.to_string().contains(name), "{error}");
        let kernel = Kernel::parse_linux64(image).expect("the guest unpacks it");
        assert_eq!(kernel.protocol(), BootProtocol::Linux64);
    }
}

#[test]
fn unknown_payload_is_shown() {
    let error = refused(bzimage(b"\x01\x02\x03\x04\x05\x06\x07"));
    assert!(error.to_string().contains("[01, 02, 03, 04, 05, 06]"));
}

#[test]
fn damaged_payload_is_refused_with_its_compression() {
    let elf = vmlinux(Some(PVH_ENTRY));
    for compression in SUPPORTED {
        let mut payload = compress(&elf, compression);
        let middle = payload.len() / 2;
        payload.truncate(middle);
        payload.extend((elf.len() as u32).to_le_bytes());
        let error = refused(bzimage(&payload));
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn flipped_bit_in_a_payload_with_a_checksum_is_refused() {
    // Incompressible, so that the flip lands in literals, which only the checksum protects.
    let mut random = Random(7);
    let content: Vec<u8> = (0..4096).map(|_| random.below(256) as u8).collect();
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let mut payload = compress(&content, compression);
        let middle = payload.len() / 2;
        payload[middle] ^= 4;
        let refused = payload::decompress(&payload);
        let corrupt = matches!(refused, Err(ImageError::Corrupt { .. }));
        assert!(corrupt, "{compression}");
    }
}

#[test]
fn payload_longer_or_shorter_than_it_says_is_refused() {
    let elf = vmlinux(Some(PVH_ENTRY));
    for compression in SUPPORTED {
        for length in [elf.len() as u32 - 1, elf.len() as u32 + 1, 0] {
            let mut payload = compress(&elf, compression);
            let at = payload.len() - 4;
            payload[at..].copy_from_slice(&length.to_le_bytes());
            let error = refused(bzimage(&payload));
            assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
        }
    }
}

#[test]
fn payload_that_claims_gigabytes_is_refused_before_memory_is_taken() {
    let mut payload = compress(b"x", Compression::Zstd);
    let at = payload.len() - 4;
    payload[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = refused(bzimage(&payload));
    assert!(matches!(error, ImageError::PayloadTooBig { bytes } if bytes == u64::from(u32::MAX)));
}

#[test]
fn missing_empty_and_foreign_files_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vmlinuz");
    let error = Kernel::open(&path).expect_err("no file");
    assert!(matches!(error, KernelError::NotFound { .. }));
    assert!(error.to_string().contains("vmlinuz"), "{error}");
    let mut file = File::create(&path).expect("a file");
    let source = |path: &Path| match Kernel::open(path) {
        Err(KernelError::Image { source, .. }) => source,
        other => panic!("unexpected {other:?}"),
    };
    assert!(matches!(source(&path), ImageError::Empty));
    file.write_all(&[b'#'; 4096]).expect("written");
    assert!(matches!(source(&path), ImageError::NotAKernel));
    let directory_error = Kernel::open(directory.path()).expect_err("a directory");
    assert!(matches!(directory_error, KernelError::Read { .. }));
}

#[test]
fn old_boot_protocol_is_refused_with_its_version() {
    let mut image = bzimage(b"");
    image[0x206..0x208].copy_from_slice(&0x0204_u16.to_le_bytes());
    assert!(refused(image).to_string().contains("2.04"));
}

#[test]
fn elf_of_another_machine_is_refused() {
    let mut elf = vmlinux(Some(PVH_ENTRY));
    elf[18] = 183;
    assert!(matches!(refused(elf), ImageError::Machine { machine: 183 }));
}

#[test]
fn segments_outside_one_mib_to_four_gib_are_refused() {
    for (address, memory) in [
        (0xf_f000, 0x1000),
        (0xffff_f000, 0x1001),
        (u64::MAX, 2),
        (0x10_0000, 0),
    ] {
        let note = TestSegment {
            kind: 4,
            address: 0,
            memory: 0,
            content: testkernel::notes(Some(PVH_ENTRY)),
        };
        let error = refused(testkernel::elf(&[
            load_segment(address, memory, b"x"),
            note,
        ]));
        let expected = matches!(error, ImageError::Segment { .. } | ImageError::NoSegments);
        assert!(expected, "{address:#x}: {error:?}");
    }
}

#[test]
fn foreign_and_short_notes_name_no_entry() {
    let short = testkernel::note(b"Xen\0", 18, &[1, 2]);
    let foreign = testkernel::note(b"Zen\0", 18, &[1, 2, 3, 4]);
    for content in [short, foreign, Vec::new()] {
        let note = TestSegment {
            kind: 4,
            address: 0,
            memory: 0,
            content,
        };
        let elf = testkernel::elf(&[load_segment(0x10_0000, 1, b"x"), note]);
        assert!(matches!(refused(elf), ImageError::NoEntry));
    }
}

#[test]
fn kernel_cut_at_any_byte_is_refused_without_panic() {
    let elf = vmlinux(Some(PVH_ENTRY));
    let mut images: Vec<_> = SUPPORTED
        .iter()
        .map(|compression| bzimage(&compress(&elf, *compression)))
        .collect();
    images.push(elf);
    for image in images {
        // The last paragraph is padding.
        for length in 0..image.len() - 16 {
            let cut = image.get(..length).expect("inside").to_vec();
            assert!(Kernel::parse(cut).is_err(), "cut at {length}");
        }
    }
}

/// xorshift64*: the same sequence on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

#[test]
fn kernel_with_flipped_bits_never_panics() {
    let elf = vmlinux(Some(PVH_ENTRY));
    let mut images: Vec<_> = SUPPORTED
        .iter()
        .map(|compression| bzimage(&compress(&elf, *compression)))
        .collect();
    images.push(elf);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for image in &images {
        // Headers are where the arithmetic is: half of all flips go there.
        for round in 0..4000 {
            let mut image = image.clone();
            let header = [0..64 + 3 * 56, 0x1f1..0x26c][round % 2].clone();
            for _ in 0..=random.below(4) {
                let at = match random.below(2) {
                    0 => header.start + random.below(header.len()),
                    _ => random.below(image.len()),
                };
                if let Some(byte) = image.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            accepted += usize::from(Kernel::parse(image.clone()).is_ok());
            accepted += usize::from(Kernel::parse_linux64(image).is_ok());
        }
    }
    assert!(accepted > 0, "harmless flips exist");
}
