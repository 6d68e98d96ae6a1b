//! Hands on the lab's standard output as it comes, minus the marker lines of [`super::script`].
//!
//! Invariant: every byte that is not part of a marker line reaches the sink, in order and without waiting for a line end.

use std::io::{self, Read, Write};

use super::script::{END, MARK, UP};

/// Longest marker line; a longer one is the command's own output.
const LONGEST: usize = 64;

/// What a marker line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// The lab is up.
    Up,
    /// The command ended with this status.
    End(u8),
}

/// A filter from the lab to a sink.
pub(super) struct Relay<W, F> {
    sink: W,
    on_marker: F,
    /// What may become a marker line: empty, or bytes that begin with [`MARK`].
    held: Vec<u8>,
}

impl<W: Write, F: FnMut(Marker)> Relay<W, F> {
    /// `on_marker` is called for each marker, when all before it has reached the sink.
    pub(super) fn new(sink: W, on_marker: F) -> Self {
        Self {
            sink,
            on_marker,
            held: Vec::new(),
        }
    }

    /// Copies to the end of the source.
    pub(super) fn copy(mut self, mut source: impl Read) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for piece in buffer
                .get(..count)
                .unwrap_or_default()
                .split_inclusive(|byte| *byte == b'\n')
            {
                self.piece(piece)?;
            }
            self.sink.flush()?;
        }
        self.sink.write_all(&self.held)?;
        self.sink.flush()
    }

    /// Takes a whole line or a part of one; a line end only comes last in it.
    fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut piece = piece;
        if self.held.is_empty() {
            let start = piece
                .iter()
                .position(|byte| *byte == MARK)
                .unwrap_or(piece.len());
            let (plain, rest) = piece.split_at(start);
            self.sink.write_all(plain)?;
            piece = rest;
        }
        self.held.extend_from_slice(piece);
        let complete = self.held.last() == Some(&b'\n');
        if let Some(marker) = marker(&self.held) {
            self.held.clear();
            self.sink.flush()?;
            (self.on_marker)(marker);
        } else if complete || self.held.len() > LONGEST {
            self.sink.write_all(&self.held)?;
            self.held.clear();
        }
        Ok(())
    }
}

/// What a complete line says, if it is a marker.
fn marker(line: &[u8]) -> Option<Marker> {
    let line = std::str::from_utf8(line.strip_prefix(&[MARK])?)
        .ok()?
        .strip_suffix('\n')?;
    if line == UP {
        return Some(Marker::Up);
    }
    line.strip_prefix(END)?
        .strip_prefix(' ')?
        .parse()
        .ok()
        .map(Marker::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields one chunk a read, as a pipe may.
    struct Chunks<'a>(std::vec::IntoIter<&'a [u8]>);

    impl Read for Chunks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let chunk = self.0.next().unwrap_or_default();
            buffer[..chunk.len()].copy_from_slice(chunk);
            Ok(chunk.len())
        }
    }

    fn relayed(chunks: Vec<&[u8]>) -> (String, Vec<Marker>) {
        let (mut sink, mut markers) = (Vec::new(), Vec::new());
        Relay::new(&mut sink, |marker| markers.push(marker))
            .copy(Chunks(chunks.into_iter()))
            .unwrap();
        (String::from_utf8(sink).unwrap(), markers)
    }

    #[test]
    fn markers_are_taken_out_wherever_reads_split_them() {
        let text = b"\x1ebrood-lab-up\none\n{\"ok\":true}\n\x1ebrood-lab-end 3\n";
        for size in 1..text.len() {
            let (output, markers) = relayed(text.chunks(size).collect());
            assert_eq!(output, "one\n{\"ok\":true}\n", "chunks of {size}");
            assert_eq!(markers, [Marker::Up, Marker::End(3)], "chunks of {size}");
        }
    }

    #[test]
    fn marker_behind_an_unfinished_line_is_found_and_the_line_kept() {
        let (output, markers) = relayed(vec![b"no line end\x1ebrood-lab-end 255\n"]);
        assert_eq!(
            (output.as_str(), markers),
            ("no line end", vec![Marker::End(255)])
        );
    }

    #[test]
    fn unfinished_line_is_handed_on_at_once() {
        let mut sink = Vec::new();
        let mut relay = Relay::new(&mut sink, |_| ());
        relay.piece(b"Password: ").unwrap();
        assert_eq!(relay.sink.as_slice(), b"Password: ");
    }

    #[test]
    fn record_separator_of_the_command_itself_is_handed_on() {
        let long = [&[MARK][..], &[b'x'; 200], b"\n"].concat();
        let (output, markers) =
            relayed(vec![b"a\x1eb\n\x1ebrood-lab-end nine\n", &long, b"\x1ecut"]);
        let long = "x".repeat(200);
        assert_eq!(
            output,
            format!("a\u{1e}b\n\u{1e}brood-lab-end nine\n\u{1e}{long}\n\u{1e}cut")
        );
        assert_eq!(markers, []);
    }
}
