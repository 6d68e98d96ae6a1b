//! Digests of content: `sha256:` and 64 hexadecimal digits. Invariant: a [`Digest`] is a file name as well, since it holds
//! nothing else.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no digest: it has to be sha256: and 64 digits of 0-9 and a-f (images with other digests are not supported)",
    .0.escape_debug()
)]
pub struct ParseDigestError(String);

impl Digest {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseDigestError(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return Err(wrong());
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = match pair {
                [high, low] => nibble(*high).zip(nibble(*low)),
                _ => None,
            }
            .map(|(high, low)| high << 4 | low)
            .ok_or_else(wrong)?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A reader that keeps the digest and the number of what was read through it.
pub struct Hashing<R> {
    inner: R,
    state: Sha256,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    /// Around `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            state: Sha256::new(),
            bytes: 0,
        }
    }

    /// Bytes that were read.
    pub fn count(&self) -> u64 {
        self.bytes
    }

    /// The digest of all that was read.
    pub fn digest(self) -> Digest {
        self.finish().1
    }

    /// The reader, and the digest of all that was read.
    pub(crate) fn finish(self) -> (R, Digest) {
        (self.inner, Digest(self.state.finalize().into()))
    }

    pub(crate) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Begins anew.
    pub(crate) fn forget(&mut self) {
        self.state = Sha256::new();
        self.bytes = 0;
    }

    /// Adds what was read earlier.
    pub(crate) fn seen(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.seen(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one_and_reads_back() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn what_could_be_another_file_name_is_refused() {
        let long = format!("{EMPTY}0");
        let upper = EMPTY.to_uppercase();
        for bad in ["", "sha256:", "sha512:00", "sha256:../../x", &long, &upper] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let dots = format!("sha256:{}", "./".repeat(32));
        assert!(dots.parse::<Digest>().is_err());
    }

    #[test]
    fn reading_in_pieces_gives_the_digest_of_the_whole() {
        let mut reader = Hashing::new(&b"some bytes"[..]);
        let mut two = [0; 2];
        while reader.read(&mut two).expect("memory") > 0 {}
        assert_eq!(reader.count(), 10);
        assert_eq!(reader.digest(), Digest::of(b"some bytes"));
    }
}
