//! What the guest printed last: a bounded ring whose bytes keep their number for ever.
//!
//! Invariant: at most [`OUTPUT_MAX`] bytes are held, and memory is taken only as they come. A reader that attaches
//! late, or again, names the number of the byte it wants next and learns how many it has missed.

use std::collections::VecDeque;
use std::fmt;
use std::io;

/// Bytes of output that are kept.
pub const OUTPUT_MAX: usize = 256 << 10;
/// How Linux begins its last message.
const PANIC: &[u8] = b"Kernel panic - not syncing: ";
/// Bytes of a panic message that are reported.
const PANIC_MAX: usize = 512;
/// Bytes that are looked at for the last lines.
const TAIL_MAX: usize = 32 << 10;

/// Output of the guest. `Debug` prints a length, never the bytes.
#[derive(Default)]
pub(super) struct Output {
    bytes: VecDeque<u8>,
    /// Number of the byte after the last one.
    end: u64,
}

/// A piece of the guest's output. `Debug` prints lengths, never the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Number of the first byte, counted from the start of the VM.
    pub start: u64,
    /// Bytes between the one asked for and `start` that are kept no more.
    pub lost: u64,
    /// The bytes. The next one asked for is `start` plus their number.
    pub bytes: Vec<u8>,
}

impl Output {
    /// An empty ring whose first byte will have number `end`.
    pub(super) fn starting_at(end: u64) -> Self {
        Self {
            bytes: VecDeque::new(),
            end,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Up to `max` bytes from number `from` on; a number that is still to come gives nothing.
    pub(super) fn read(&self, from: u64, max: usize) -> OutputChunk {
        let oldest = self.end.saturating_sub(self.bytes.len() as u64);
        let start = from.clamp(oldest, self.end);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        OutputChunk {
            start,
            lost: start.saturating_sub(from),
            bytes: self.bytes.iter().skip(skip).take(max).copied().collect(),
        }
    }

    /// The last `count` lines, the one that is not finished included.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let from = self.end.saturating_sub(TAIL_MAX as u64);
        let tail = self.read(from, TAIL_MAX).bytes;
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().collect();
        let skip = lines.len().saturating_sub(count);
        let kept = lines.iter().skip(skip);
        kept.map(|line| (*line).to_owned()).collect()
    }

    /// The last kernel panic that was printed, without what precedes it on its line.
    pub(super) fn kernel_panic(&self) -> Option<String> {
        let all = self.read(0, OUTPUT_MAX).bytes;
        let start = all.windows(PANIC.len()).rposition(|bytes| bytes == PANIC)?;
        let message = all.get(start..)?;
        let line = message.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        let line = line.get(..PANIC_MAX).unwrap_or(line);
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if self.bytes.len() >= OUTPUT_MAX {
                self.bytes.pop_front();
            }
            self.bytes.push_back(*byte);
        }
        self.end = self.end.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({} bytes up to {})", self.bytes.len(), self.end)
    }
}

impl fmt::Debug for OutputChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, start, lost) = (self.bytes.len(), self.start, self.lost);
        write!(f, "OutputChunk({len} bytes from {start}, {lost} lost)")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        output.write_all(text.as_bytes()).unwrap();
        output
    }

    #[test]
    fn reader_that_comes_late_learns_what_it_lost() {
        let mut ring = output("0123456789");
        for _ in 0..OUTPUT_MAX {
            ring.write_all(b"x").unwrap();
        }
        assert_eq!(ring.bytes.len(), OUTPUT_MAX);
        let chunk = ring.read(4, 3);
        assert_eq!(
            (chunk.start, chunk.lost, &chunk.bytes[..]),
            (10, 6, &b"xxx"[..])
        );
        let chunk = ring.read(ring.end() - 1, 10);
        assert_eq!((chunk.lost, chunk.bytes.len()), (0, 1));
        let chunk = ring.read(u64::MAX, 10);
        assert_eq!(
            (chunk.start, chunk.lost, chunk.bytes.len()),
            (ring.end(), 0, 0)
        );
    }

    #[test]
    fn memory_is_taken_only_as_output_comes() {
        assert!(output("hello").bytes.capacity() < 1024);
    }

    #[test]
    fn last_lines_include_the_unfinished_one() {
        let ring = output("a\r\nb\r\nc");
        assert_eq!(ring.last_lines(2), ["b", "c"]);
        assert_eq!(ring.last_lines(99), ["a", "b", "c"]);
        assert!(output("").last_lines(3).is_empty());
    }

    #[test]
    fn last_panic_is_found_and_bounded() {
        let text = "[1.0] Kernel panic - not syncing: first\r\n[2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0\r\nrest";
        let found = output(text).kernel_panic().unwrap();
        assert_eq!(
            found,
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0"
        );
        assert_eq!(output("all is well\n").kernel_panic(), None);
        let long = output(&format!("Kernel panic - not syncing: {}", "é".repeat(4000)));
        assert!(long.kernel_panic().unwrap().len() < 600);
    }

    #[test]
    fn debug_shows_no_guest_bytes() {
        let ring = output("secret");
        assert!(!format!("{ring:?} {:?}", ring.read(0, 10)).contains("secret"));
    }
}
