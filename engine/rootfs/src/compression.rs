//! Layers as they are packed: gzip, zstd or not at all, told by their first bytes, since media types are often wrong.
//!
//! Invariant: all members of a gzip file and all frames of a zstd one are read, as images that can be read lazily have many;
//! a stream that is cut short is an error, never an end. A zstd window is at most ruzstd's default, so memory is bounded.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// RFC 1952 §2.3.1
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878 §3.1.1
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 8878 §3.1.2: the low half of the first byte is any.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// The first bytes of what is not read here.
const OTHERS: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"PK", "zip")];

/// A layer as it was before it was packed.
pub(crate) fn unpacked<'a>(mut packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::new();
    packed.by_ref().take(6).read_to_end(&mut first)?;
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| first.starts_with(magic)) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("it is packed with {name}: pack it with gzip or zstd, or not at all"),
        ));
    }
    let gzip = first.starts_with(&GZIP);
    let zstd = first.starts_with(&ZSTD)
        || (first.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && first.get(1..4) == Some(&SKIPPABLE));
    let whole = io::Cursor::new(first).chain(packed);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(Frames {
            source: whole,
            decoder: FrameDecoder::new(),
            state: FrameState::Between,
        })
    } else {
        Box::new(whole)
    })
}

/// All frames of a zstd stream.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    state: FrameState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameState {
    /// A frame begins here, or the end.
    Between,
    Within,
    /// A call failed; there is nothing to go on with.
    Broken,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let state = std::mem::replace(&mut self.state, FrameState::Broken);
            match state {
                FrameState::Broken => return Err(io::ErrorKind::InvalidData.into()),
                FrameState::Between => {
                    if self.source.fill_buf()?.is_empty() {
                        self.state = state;
                        return Ok(0);
                    }
                    self.state = self.begin()?;
                }
                FrameState::Within => {
                    while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                        self.decoder
                            .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                            .map_err(invalid)?;
                    }
                    let read = self.decoder.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        self.state = state;
                        return Ok(read);
                    }
                    self.state = FrameState::Between;
                }
            }
        }
    }
}

impl<R: BufRead> Frames<R> {
    /// Reads a frame's header, or all of a frame that is to be skipped.
    fn begin(&mut self) -> io::Result<FrameState> {
        match self.decoder.init(&mut self.source) {
            Ok(()) => Ok(FrameState::Within),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = u64::from(length);
                let rest = &mut self.source.by_ref().take(length);
                if io::copy(rest, &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(FrameState::Between)
            }
            Err(error) => Err(invalid(error)),
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpacked(packed)?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn each_packing_is_told_by_its_first_bytes() {
        let text = b"a layer of some length ".repeat(1000);
        for packed in [text.clone(), gzip(&text), zstd(&text)] {
            assert_eq!(read(&packed).expect("whole"), text);
        }
        assert_eq!(read(b"").expect("empty"), b"");
    }

    #[test]
    fn all_members_and_frames_are_read_and_skippable_ones_skipped() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(read(&two).expect("whole"), b"one two");
        let note = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let frames = [note.clone(), zstd(b"one "), note, zstd(b"two")].concat();
        assert_eq!(read(&frames).expect("whole"), b"one two");
    }

    #[test]
    fn what_is_cut_short_is_an_error_wherever_it_is_cut() {
        let text: Vec<u8> = (0..2000_u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&text), zstd(&text)] {
            for cut in [7, packed.len() / 2, packed.len() - 1] {
                let cut = packed.get(..cut).expect("shorter");
                assert!(read(cut).is_err(), "{} of {}", cut.len(), packed.len());
            }
        }
    }

    #[test]
    fn other_packings_are_refused_by_name() {
        let error = read(b"\xfd7zXZ\0rest").expect_err("xz");
        assert!(error.to_string().contains("xz"), "{error}");
    }
}
