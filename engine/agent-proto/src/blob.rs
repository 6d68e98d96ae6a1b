//! Bytes and environments that travel in messages. Invariant: `Debug` shows lengths and names, never the contents,
//! so that neither guest data nor a secret reaches a log.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Opaque bytes, encoded as one length-prefixed run.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                // Bounded by the frame the bytes were read from.
                let mut owned = Vec::new();
                owned
                    .try_reserve_exact(bytes.len())
                    .map_err(|_| E::custom("no memory for bytes"))?;
                owned.extend_from_slice(bytes);
                Ok(Blob(owned))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Environment variables. `Debug` prints their names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct EnvMap(BTreeMap<String, String>);

/// A name or value cannot be an environment variable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{name}' is no environment variable: names are not empty and hold no '=' or NUL, values no NUL"
)]
pub struct EnvError {
    /// The name that was given.
    pub name: String,
}

impl EnvMap {
    /// No variable.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`.
    ///
    /// # Errors
    /// [`EnvError`] if `name` is empty or holds `=` or NUL, or `value` holds NUL (environ(7)).
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), EnvError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(EnvError { name });
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Puts every variable of `over` into this map, replacing those of the same name.
    pub fn extend(&mut self, over: &Self) {
        self.0.extend(
            over.0
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
}

impl fmt::Debug for EnvMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for EnvMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(deserializer)?;
        let mut env = Self::new();
        for (name, value) in pairs {
            env.insert(name, value).map_err(D::Error::custom)?;
        }
        Ok(env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte_and_no_value() {
        let mut env = EnvMap::new();
        env.insert("API_KEY", "hunter2").unwrap();
        assert_eq!(format!("{env:?}"), r#"{"API_KEY"}"#);
        assert_eq!(format!("{:?}", Blob(vec![1, 2, 3])), "Blob(3 bytes)");
    }

    #[test]
    fn a_variable_name_with_an_equals_sign_is_refused_also_from_the_wire() {
        assert!(EnvMap::new().insert("A=B", "c").is_err());
        let wire = postcard::to_stdvec(&BTreeMap::from([("A=B", "c")])).unwrap();
        assert!(postcard::from_bytes::<EnvMap>(&wire).is_err());
    }

    #[test]
    fn a_claimed_length_beyond_the_frame_allocates_nothing() {
        // varint length of 2^35, no bytes behind it
        let wire = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert!(postcard::from_bytes::<Blob>(&wire).is_err());
    }
}
