//! Secrets: sealed where they are kept, open only on their way into a guest.
//!
//! ```text
//!  value ─ seal(key; tenant, name, version) ─► database           database ─ open ─► [`Value`] ─► a daughter's stamp
//!  sealed: │ format 1 │ nonce, 24 bytes │ ciphertext and tag │   XChaCha20-Poly1305 (RFC 8439 §2.8, draft-irtf-cfrg-xchacha)
//! ```
//!
//! Invariant: a sealed value opens under its own tenant, name and version only, so that a row that was moved or copied
//! is refused. Neither a key nor a value has a `Debug` that shows it. Who writes where a value goes reads it with
//! [`Value::reveal`], and nobody else does.

use std::fmt;

use brood_hooks::mutation::SecretTarget;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::identity;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Of a sealed value: which way it was sealed.
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;

/// The key that all secrets of an engine are sealed with.
#[derive(Clone)]
pub struct SecretKey(XChaCha20Poly1305);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// What a secret says. It is not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(String);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Value {
    /// Its text, for the one who puts it where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Which value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: u32,
}

impl Label<'_> {
    /// Lengths first, so that no two labels have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in [self.tenant, self.name] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

/// A value cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no randomness for a nonce.
    #[error("the host's generator fails")]
    Random(#[source] anyhow::Error),
    /// The cipher refuses it.
    #[error("the value is too long to be sealed")]
    Cipher,
}

/// A sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It is in a form that this program does not know.
    #[error("it was sealed by another program, or is damaged")]
    Form,
    /// It is not what the key and the label say.
    #[error("it was sealed with another key, or is damaged: give the engine the key that it had")]
    Key,
}

impl SecretKey {
    /// Of these bytes.
    pub fn of(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }

    /// Seals a value.
    ///
    /// # Errors
    /// No nonce can be drawn.
    pub fn seal(&self, label: Label<'_>, value: &Value) -> Result<Vec<u8>, SealError> {
        // 24 random bytes do not come twice, however often a value is sealed.
        let nonce: [u8; NONCE_BYTES] = identity::random().map_err(SealError::Random)?;
        let payload = Payload {
            msg: value.0.as_bytes(),
            aad: &label.bytes(),
        };
        let body = self.0.encrypt(&XNonce::from(nonce), payload);
        let body = body.map_err(|_| SealError::Cipher)?;
        let mut sealed = vec![FORMAT];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// It was sealed with another key or under another label, or is damaged.
    pub fn open(&self, label: Label<'_>, sealed: &[u8]) -> Result<Value, UnsealError> {
        let rest = sealed.strip_prefix(&[FORMAT]).ok_or(UnsealError::Form)?;
        let (nonce, body) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(UnsealError::Form)?;
        let payload = Payload {
            msg: body,
            aad: &label.bytes(),
        };
        let opened = self.0.decrypt(&XNonce::from(*nonce), payload);
        let opened = opened.map_err(|_| UnsealError::Key)?;
        String::from_utf8(opened)
            .map(Value)
            .map_err(|_| UnsealError::Form)
    }
}

/// A secret that a machine was given: which one, and where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Where it went.
    pub target: SecretTarget,
}

/// A version of a secret, open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which version.
    pub version: u32,
    /// What it says.
    pub value: Value,
}

/// A secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no secret '{name}'{}: put it, or have the policy name another one", version(wanted.as_deref()))]
    Unknown {
        /// Its name.
        name: String,
        /// The version that was wanted; none for the newest.
        wanted: Option<String>,
    },
    /// Nobody keeps any.
    #[error(
        "secret '{name}' is wanted, and this engine keeps none: it was started without a key for them"
    )]
    NoKey {
        /// Its name.
        name: String,
    },
    /// It does not open.
    #[error("secret '{name}' version {version} does not open: {why}")]
    Sealed {
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
        /// Why.
        why: UnsealError,
    },
    /// It cannot be looked up.
    #[error("secret '{name}' cannot be looked up: {why}")]
    Store {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

fn version(wanted: Option<&str>) -> String {
    wanted.map_or_else(String::new, |version| {
        format!(" version {}", version.escape_debug())
    })
}

/// Who opens secrets of one tenant.
pub trait Vault: Sync {
    /// A version of a secret, the newest if none is named.
    ///
    /// # Errors
    /// There is none, or it does not open.
    fn open(&self, name: &str, version: Option<&str>) -> Result<Opened, OpenError>;
}

/// A vault with nothing in it.
#[derive(Clone, Copy, Debug)]
pub struct Empty;

impl Vault for Empty {
    fn open(&self, name: &str, _: Option<&str>) -> Result<Opened, OpenError> {
        let name = name.to_owned();
        Err(OpenError::NoKey { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label<'_> = Label {
        tenant: "acme",
        name: "token",
        version: 2,
    };

    #[test]
    fn a_value_opens_under_its_own_label_and_key_and_under_no_other() {
        let key = SecretKey::of(&[7; KEY_BYTES]);
        let value = Value::from("canary-of-the-mine".to_owned());
        let sealed = key.seal(LABEL, &value).expect("sealed");
        assert_eq!(key.open(LABEL, &sealed), Ok(value.clone()));
        let visible = sealed.windows(6).any(|six| six == b"canary");
        assert!(!visible);
        assert_ne!(key.seal(LABEL, &value).expect("again"), sealed);

        let others = [
            Label {
                tenant: "other",
                ..LABEL
            },
            Label {
                name: "toke",
                ..LABEL
            },
            Label {
                version: 1,
                ..LABEL
            },
            // The same bytes, cut elsewhere.
            Label {
                tenant: "acmet",
                name: "oken",
                version: 2,
            },
        ];
        for label in others {
            assert_eq!(key.open(label, &sealed), Err(UnsealError::Key), "{label:?}");
        }
        let other = SecretKey::of(&[8; KEY_BYTES]);
        assert_eq!(other.open(LABEL, &sealed), Err(UnsealError::Key));
        for at in [1, 30, sealed.len() - 1] {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(key.open(LABEL, &flipped), Err(UnsealError::Key), "{at}");
        }
        assert_eq!(key.open(LABEL, &sealed[..20]), Err(UnsealError::Form));
        assert_eq!(key.open(LABEL, &[]), Err(UnsealError::Form));
    }

    #[test]
    fn neither_a_key_nor_a_value_shows_itself() {
        let value = Value::from("canary".to_owned());
        assert_eq!(format!("{value:?}"), "Value(6 bytes)");
        assert_eq!(
            format!("{:?}", SecretKey::of(&[7; KEY_BYTES])),
            "SecretKey(…)"
        );
    }
}
