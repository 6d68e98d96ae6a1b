//! Opaque identities. Invariant: an id is sixteen bytes chosen by its maker and never carries meaning.
//!
//! In text each is 32 lower-case hexadecimal digits, for people and for formats that are read by people; in binary
//! formats it is its bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{}' is not {what}: expected 32 hexadecimal digits", text.escape_debug())]
pub struct ParseIdError {
    /// What it should have been.
    pub what: &'static str,
    /// What was given.
    pub text: String,
}

fn parse(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2)?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let what = $what;
                parse(text).map(Self).ok_or_else(|| ParseIdError {
                    what,
                    text: text.to_owned(),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id!(
    /// One microVM: a mother, a daughter, a template or a checkpoint. Its text is also the form of `/etc/machine-id`
    /// (man 5 machine-id).
    MachineId,
    "a machine id"
);
id!(
    /// One snapshot: state and memory of a machine on disk.
    SnapshotId,
    "a snapshot id"
);
id!(
    /// One thing that the engine has set out to do, written down before it is done.
    IntentId,
    "an intent id"
);
id!(
    /// One key that callers authenticate with. It is no secret.
    KeyId,
    "a key id"
);

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
        let refusal = "x".parse::<KeyId>().expect_err("too short").to_string();
        assert_eq!(
            refusal,
            "'x' is not a key id: expected 32 hexadecimal digits"
        );
    }
}
