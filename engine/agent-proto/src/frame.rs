//! Frames: a `u32` little-endian length, then that many bytes of postcard (<https://postcard.jamesmunns.com/wire-format>).
//! Invariant: a length above [`MAX_FRAME`] is refused before anything is allocated for it, and a frame is decoded to
//! its last byte or not at all.
//!
//! ```text
//! +-----------+----------------------+
//! | len: u32  | postcard value: len  |     0 < len <= MAX_FRAME
//! +-----------+----------------------+
//! ```

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame body, in bytes.
pub const MAX_FRAME: usize = 256 * 1024;

/// The most bytes of content put in one chunk of a stream: well inside a frame, and the size of a pipe's buffer.
pub const CHUNK: usize = 64 * 1024;

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// Reading or writing failed, in the middle of a frame perhaps.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// A frame longer than [`MAX_FRAME`], or empty.
    #[error("a frame of {len} bytes; 1 to {MAX_FRAME} are allowed")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// The body is no message of this version.
    #[error("a frame of {len} bytes is no known message: {detail}")]
    Garbage {
        /// Length of the body in bytes.
        len: usize,
        /// What the decoder said.
        detail: String,
    },
}

/// Encodes `message` and writes it as one frame.
///
/// # Errors
/// [`FrameError::Length`] if it does not fit (nothing is written then), [`FrameError::Io`] if writing fails.
pub fn write_frame<T: Serialize>(writer: &mut impl Write, message: &T) -> Result<(), FrameError> {
    let frame = postcard::to_extend(message, vec![0; 4]).map_err(|error| FrameError::Garbage {
        len: 0,
        detail: error.to_string(),
    })?;
    let len = frame.len().saturating_sub(4);
    let prefix = u32::try_from(len)
        .ok()
        .filter(|_| (1..=MAX_FRAME).contains(&len))
        .ok_or(FrameError::Length { len })?;
    let mut frame = frame;
    if let Some(head) = frame.get_mut(..4) {
        head.copy_from_slice(&prefix.to_le_bytes());
    }
    writer.write_all(&frame).map_err(FrameError::Io)?;
    writer.flush().map_err(FrameError::Io)
}

/// Reads one frame and decodes it.
///
/// # Errors
/// [`FrameError::Closed`] at the end of the stream, [`FrameError::Length`] and [`FrameError::Garbage`] for what is no
/// message, [`FrameError::Io`] if reading fails.
pub fn read_frame<T: DeserializeOwned>(reader: &mut impl Read) -> Result<T, FrameError> {
    let mut head = [0; 4];
    let first = loop {
        match reader.read(&mut head) {
            Ok(read) => break read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Io(error)),
        }
    };
    if first == 0 {
        return Err(FrameError::Closed);
    }
    reader
        .read_exact(head.get_mut(first..).unwrap_or_default())
        .map_err(FrameError::Io)?;
    let len = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if !(1..=MAX_FRAME).contains(&len) {
        return Err(FrameError::Length { len });
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).map_err(FrameError::Io)?;
    decode(&body)
}

/// Decodes the body of a frame.
///
/// # Errors
/// [`FrameError::Garbage`] if it is no `T`, or has bytes behind it.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let garbage = |detail: String| FrameError::Garbage {
        len: body.len(),
        detail,
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(garbage(format!("{} bytes behind the message", rest.len()))),
        Err(error) => Err(garbage(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &(7_u32, "seven")).unwrap();
        write_frame(&mut wire, &(8_u32, "eight")).unwrap();
        let mut reader = wire.as_slice();
        let first: (u32, String) = read_frame(&mut reader).unwrap();
        let second: (u32, String) = read_frame(&mut reader).unwrap();
        assert_eq!((first.0, second.1.as_str()), (7, "eight"));
        assert!(matches!(
            read_frame::<u32>(&mut reader),
            Err(FrameError::Closed)
        ));
    }

    #[test]
    fn a_four_gigabyte_length_is_refused_unread() {
        let wire = [0xff; 4];
        assert!(matches!(
            read_frame::<u32>(&mut wire.as_slice()),
            Err(FrameError::Length { len: 0xffff_ffff })
        ));
    }

    #[test]
    fn an_empty_frame_and_bytes_behind_a_message_are_refused() {
        assert!(matches!(
            read_frame::<u32>(&mut [0; 4].as_slice()),
            Err(FrameError::Length { len: 0 })
        ));
        let wire = [2, 0, 0, 0, 1, 1];
        assert!(matches!(
            read_frame::<u8>(&mut wire.as_slice()),
            Err(FrameError::Garbage { .. })
        ));
    }

    #[test]
    fn a_message_too_long_for_a_frame_is_refused_before_a_byte_is_written() {
        let mut wire = Vec::new();
        let error = write_frame(&mut wire, &vec![0_u8; MAX_FRAME]).unwrap_err();
        assert!(matches!(error, FrameError::Length { .. }));
        assert!(wire.is_empty());
    }

    #[test]
    fn a_frame_cut_short_is_an_io_error_not_a_close() {
        let wire = [9, 0, 0, 0, 1];
        assert!(matches!(
            read_frame::<u32>(&mut wire.as_slice()),
            Err(FrameError::Io(_))
        ));
    }
}
