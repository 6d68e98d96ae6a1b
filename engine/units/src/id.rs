//! Opaque identities. Invariant: an id is sixteen bytes chosen by its maker and never carries meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One microVM: a mother, a daughter or a checkpoint. Written as 32 lower-case hexadecimal digits, which is also
/// the form of `/etc/machine-id` (man 5 machine-id).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineId([u8; 16]);

impl MachineId {
    /// An id from sixteen random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineId({self})")
    }
}

/// The text is not a machine id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not a machine id: expected 32 hexadecimal digits")]
pub struct ParseMachineIdError {
    /// What was given.
    pub text: String,
}

impl FromStr for MachineId {
    type Err = ParseMachineIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseMachineIdError {
            text: text.to_owned(),
        };
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = MachineId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "30313233");
    }

    #[test]
    fn wrong_length_sign_and_digits_are_refused() {
        for text in [
            "",
            "00",
            "zz112233445566778899aabbccddeeff",
            "+0112233445566778899aabbccddeeff",
        ] {
            assert!(text.parse::<MachineId>().is_err(), "{text}");
        }
    }
}
