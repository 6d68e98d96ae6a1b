//! RAM on its way out of a frozen cell: pieces with their offsets, in rising order, zero pages left out.
//!
//! ```text
//!  [offset: u64 LE][length: u32 LE][length bytes] … [RAM's size: u64 LE][0: u32 LE]
//! ```
//!
//! Offsets are bytes from the start of RAM, not guest physical addresses: the layout's holes are left out. A piece is
//! whole pages, at most [`MAX_PIECE`] bytes; whatever no piece has is zero. Invariant: a [`Reader`] hands out only pieces
//! that lie in RAM, in order and apart from each other, whatever it is sent; a stream that breaks off has no end.

use std::io::{self, IoSlice, Read, Write};

use crate::PAGE;

/// The most bytes of one piece.
pub const MAX_PIECE: usize = 1 << 20;
/// Bytes of a piece's header.
const HEADER: usize = 12;

/// Why RAM could not be written to or read from a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other end has gone, or the read or write failed.
    #[error("the stream of RAM broke off at byte {at} of RAM")]
    Broken {
        /// How far RAM had come.
        at: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A piece is not made of pages, or is too long.
    #[error("a piece of {length} bytes at byte {offset} of RAM is not 1 to 256 whole pages")]
    Shape {
        /// Where it begins.
        offset: u64,
        /// Its length.
        length: u64,
    },
    /// A piece begins before the last one ended.
    #[error("a piece at byte {offset} of RAM comes after one that ends at {end}")]
    Order {
        /// Where it begins.
        offset: u64,
        /// Where the last one ended.
        end: u64,
    },
    /// A piece does not lie in RAM.
    #[error("a piece of {length} bytes at byte {offset} leaves RAM, which has {ram_bytes}")]
    Outside {
        /// Where it begins.
        offset: u64,
        /// Its length.
        length: u64,
        /// Bytes of RAM.
        ram_bytes: u64,
    },
    /// The end names another size of RAM.
    #[error("the stream is of {named} bytes of RAM and not of {ram_bytes}")]
    Size {
        /// The size it names.
        named: u64,
        /// Bytes of RAM.
        ram_bytes: u64,
    },
}

/// Where the next piece may begin, and where RAM ends.
#[derive(Debug)]
struct Course {
    next: u64,
    ram_bytes: u64,
}

impl Course {
    /// Goes on behind a piece, if it may stand there.
    fn pass(&mut self, offset: u64, length: u64) -> Result<(), StreamError> {
        let page = PAGE as u64;
        let is_whole = offset.is_multiple_of(page) && length.is_multiple_of(page);
        if !is_whole || length == 0 || length > MAX_PIECE as u64 {
            return Err(StreamError::Shape { offset, length });
        }
        if offset < self.next {
            let end = self.next;
            return Err(StreamError::Order { offset, end });
        }
        match offset.checked_add(length) {
            Some(end) if end <= self.ram_bytes => self.next = end,
            _ => {
                let ram_bytes = self.ram_bytes;
                return Err(StreamError::Outside {
                    offset,
                    length,
                    ram_bytes,
                });
            }
        }
        Ok(())
    }

    fn broken(&self) -> impl Fn(io::Error) -> StreamError + use<> {
        let at = self.next;
        move |source| StreamError::Broken { at, source }
    }
}

/// The end that has RAM.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    course: Course,
}

impl<W: Write> Writer<W> {
    /// Writes `ram_bytes` of RAM to `out`.
    pub fn new(out: W, ram_bytes: u64) -> Self {
        let course = Course { next: 0, ram_bytes };
        Self { out, course }
    }

    /// Writes a span of whole pages at `offset`, in pieces; pages that are all zero are left out.
    ///
    /// # Errors
    /// The reader has gone, or the span is not where or what it may be.
    pub fn span(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StreamError> {
        if !bytes.len().is_multiple_of(PAGE) {
            let length = bytes.len() as u64;
            return Err(StreamError::Shape { offset, length });
        }
        let mut at = offset;
        for run in (Runs { rest: bytes }) {
            match run {
                Run::Zero(length) => at += length as u64,
                Run::Data(piece) => {
                    self.piece(at, piece)?;
                    at += piece.len() as u64;
                }
            }
        }
        Ok(())
    }

    /// Says that this was all.
    ///
    /// # Errors
    /// The reader has gone.
    pub fn finish(mut self) -> Result<W, StreamError> {
        let end = header(self.course.ram_bytes, 0);
        self.out
            .write_all(&end)
            .and_then(|()| self.out.flush())
            .map_err(self.course.broken())?;
        Ok(self.out)
    }

    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StreamError> {
        let broken = self.course.broken();
        self.course.pass(offset, bytes.len() as u64)?;
        // `pass` has seen at most a MiB.
        let header = header(offset, bytes.len() as u32);
        write_both(&mut self.out, &header, bytes).map_err(broken)
    }
}

fn header(offset: u64, length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (first, second) = header.split_at_mut(8);
    first.copy_from_slice(&offset.to_le_bytes());
    second.copy_from_slice(&length.to_le_bytes());
    header
}

/// Header and bytes with one call, if the other end takes them at once.
fn write_both(out: &mut impl Write, header: &[u8], bytes: &[u8]) -> io::Result<()> {
    let written = loop {
        match out.write_vectored(&[IoSlice::new(header), IoSlice::new(bytes)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    out.write_all(header.get(written..).unwrap_or_default())?;
    let rest = written.saturating_sub(header.len());
    out.write_all(bytes.get(rest..).unwrap_or_default())
}

enum Run<'a> {
    /// This many bytes of zero pages.
    Zero(usize),
    /// Pages with something in them, at most [`MAX_PIECE`] bytes.
    Data(&'a [u8]),
}

/// Cuts a span of whole pages into runs.
struct Runs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let mut pages = self.rest.chunks_exact(PAGE);
        let first = is_zero(pages.next()?);
        let same = pages.take_while(|page| is_zero(page) == first).count() + 1;
        let most = if first { usize::MAX } else { MAX_PIECE / PAGE };
        let (run, rest) = self.rest.split_at(same.min(most) * PAGE);
        self.rest = rest;
        Some(match first {
            true => Run::Zero(run.len()),
            false => Run::Data(run),
        })
    }
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().fold(0, |bits, byte| bits | byte) == 0
}

/// The end that RAM goes to.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    course: Course,
}

impl<R: Read> Reader<R> {
    /// Reads the RAM of a machine that has `ram_bytes` of it.
    pub fn new(input: R, ram_bytes: u64) -> Self {
        let course = Course { next: 0, ram_bytes };
        Self { input, course }
    }

    /// The next piece: its bytes go to `bytes`, its offset is returned; none at the end.
    ///
    /// # Errors
    /// The stream breaks off, or holds what the other end never writes.
    pub fn piece(&mut self, bytes: &mut Vec<u8>) -> Result<Option<u64>, StreamError> {
        let broken = self.course.broken();
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header).map_err(&broken)?;
        let (first, second) = header.split_at(8);
        let offset = u64::from_le_bytes(first.try_into().unwrap_or_default());
        let length = u32::from_le_bytes(second.try_into().unwrap_or_default());
        if length == 0 {
            let ram_bytes = self.course.ram_bytes;
            return match offset == ram_bytes {
                true => Ok(None),
                false => Err(StreamError::Size {
                    named: offset,
                    ram_bytes,
                }),
            };
        }
        self.course.pass(offset, u64::from(length))?;
        // `pass` has seen at most a MiB.
        bytes.resize(length as usize, 0);
        self.input.read_exact(bytes).map_err(broken)?;
        Ok(Some(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 8 << 20;

    fn pieces(stream: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, StreamError> {
        let mut reader = Reader::new(stream, RAM);
        let (mut all, mut bytes) = (Vec::new(), Vec::new());
        while let Some(offset) = reader.piece(&mut bytes)? {
            all.push((offset, bytes.clone()));
        }
        Ok(all)
    }

    fn raw(offset: u64, length: u32) -> Vec<u8> {
        let mut stream = header(offset, length).to_vec();
        stream.resize(HEADER + length as usize, 1);
        stream
    }

    #[test]
    fn pages_of_zeros_are_left_out_and_long_runs_are_cut() {
        let mut ram = vec![0_u8; 4 << 20];
        ram[PAGE + 7] = 1;
        ram[(1 << 20)..(3 << 20)].fill(2);
        ram[(4 << 20) - 1] = 3;
        let mut writer = Writer::new(Vec::new(), RAM);
        writer.span(1 << 20, &ram).expect("in RAM");
        let stream = writer.finish().expect("a vector takes it");
        let pieces = pieces(&stream).expect("as written");
        let shape: Vec<_> = pieces
            .iter()
            .map(|(at, bytes)| (*at, bytes.len()))
            .collect();
        let base = 1 << 20;
        assert_eq!(
            shape,
            [
                (base + 4096, PAGE),
                (base + (1 << 20), MAX_PIECE),
                (base + (2 << 20), MAX_PIECE),
                (base + (4 << 20) - 4096, PAGE),
            ]
        );
        let mut read = vec![0_u8; 4 << 20];
        for (at, bytes) in pieces {
            let at = (at - base) as usize;
            read[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert!(read == ram, "every byte is as it was");
    }

    #[test]
    fn a_writer_refuses_what_its_reader_would() {
        let page = [1_u8; PAGE];
        let mut writer = Writer::new(Vec::new(), RAM);
        writer.span(PAGE as u64, &page).expect("in RAM");
        let back = writer.span(0, &page);
        assert!(matches!(back, Err(StreamError::Order { .. })), "{back:?}");
        let beyond = writer.span(RAM, &page);
        assert!(
            matches!(beyond, Err(StreamError::Outside { .. })),
            "{beyond:?}"
        );
        let half = writer.span(2 * PAGE as u64, &page[..100]);
        assert!(matches!(half, Err(StreamError::Shape { .. })), "{half:?}");
    }

    #[test]
    fn what_no_writer_writes_is_an_error_with_a_name() {
        let last = u64::MAX - 4095;
        for (stream, wanted) in [
            (raw(0, 4097), "Shape"),
            (raw(1, 4096), "Shape"),
            (raw(0, (1 << 20) + 4096), "Shape"),
            (raw(RAM, 4096), "Outside"),
            (raw(last, 8192), "Outside"),
            (raw(RAM - 4096, 0), "Size"),
            ([raw(4096, 4096), raw(4096, 4096)].concat(), "Order"),
            ([raw(4096, 4096), raw(0, 8192)].concat(), "Order"),
            (raw(0, 4096)[..4000].to_vec(), "Broken"),
            (raw(0, 4096), "Broken"),
            (Vec::new(), "Broken"),
        ] {
            let error = pieces(&stream).expect_err(wanted);
            assert!(format!("{error:?}").starts_with(wanted), "{error:?}");
        }
    }

    /// Takes a few bytes at a time, as a pipe does.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(5);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_little_at_a_time_gets_all_of_it() {
        let mut writer = Writer::new(Slow(Vec::new()), RAM);
        let page: Vec<u8> = (0..PAGE).map(|at| at as u8).collect();
        writer.span(4096, &page).expect("in RAM");
        let stream = writer.finish().expect("it takes all").0;
        assert_eq!(pieces(&stream).expect("as written"), [(4096, page)]);
    }
}
