//! The first twelve bytes in each direction. Invariant: this layout never changes, so that any two versions can tell
//! each other apart; everything behind it may.
//!
//! ```text
//! +--------------------+--------------+-------------+
//! | magic "BROODAGT": 8| version: u16 | zero: u16   |     little-endian; the client speaks first
//! +--------------------+--------------+-------------+
//! ```

use std::io::{self, Read, Write};

/// The version this crate speaks. Any change of a message's encoding raises it.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"BROODAGT";

/// The hello was not read or written, or is not one.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// Reading or writing failed.
    #[error("the hello could not be exchanged")]
    Io(#[source] io::Error),
    /// The first bytes are not the magic.
    #[error("the other side does not speak the agent protocol")]
    Magic,
}

/// Writes our hello.
///
/// # Errors
/// [`HelloError::Io`].
pub fn write(writer: &mut impl Write, version: u16) -> Result<(), HelloError> {
    let mut hello = [0; 12];
    let (magic, rest) = hello.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    if let Some(field) = rest.get_mut(..2) {
        field.copy_from_slice(&version.to_le_bytes());
    }
    writer.write_all(&hello).map_err(HelloError::Io)?;
    writer.flush().map_err(HelloError::Io)
}

/// Reads the other side's hello and returns its version.
///
/// # Errors
/// [`HelloError::Magic`] if it is none, [`HelloError::Io`] if reading fails.
pub fn read(reader: &mut impl Read) -> Result<u16, HelloError> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic).map_err(HelloError::Io)?;
    if magic != MAGIC {
        return Err(HelloError::Magic);
    }
    let mut version = [0; 2];
    reader.read_exact(&mut version).map_err(HelloError::Io)?;
    let mut reserved = [0; 2];
    reader.read_exact(&mut reserved).map_err(HelloError::Io)?;
    Ok(u16::from_le_bytes(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_fixed() {
        let mut wire = Vec::new();
        write(&mut wire, 0x0203).unwrap();
        assert_eq!(wire, b"BROODAGT\x03\x02\0\0");
        assert_eq!(read(&mut wire.as_slice()).unwrap(), 0x0203);
    }

    #[test]
    fn another_protocol_is_told_from_a_lost_connection() {
        assert!(matches!(
            read(&mut b"GET / HTTP/1.1\r\n".as_slice()),
            Err(HelloError::Magic)
        ));
        assert!(matches!(
            read(&mut b"BROO".as_slice()),
            Err(HelloError::Io(_))
        ));
    }
}
