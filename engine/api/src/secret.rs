//! Secrets: values that are put and never shown.
//!
//! Invariant: a value travels in one direction. No type that is sent to a caller has a field for it, and `Debug` hides it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::mistake::Mistakes;
use crate::{Request, Time};

/// The most bytes of a value.
const MOST_BYTES: usize = 64 * 1024;

/// A value to keep.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// Text without NUL, at most 65536 bytes of UTF-8. It can be replaced and never read.
    #[schema(max_length = 65536, pattern = r"^[^\x00]*$", format = Password)]
    pub value: String,
}

impl fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretSpec({} bytes)", self.value.len())
    }
}

impl Request for SecretSpec {
    fn check(&self, mistakes: &mut Mistakes) {
        let bytes = self.value.len();
        if bytes > MOST_BYTES {
            mistakes.out_of_range(
                "/value",
                format!("{bytes} bytes: a secret has at most {MOST_BYTES}"),
            );
        }
        if self.value.contains('\0') {
            mistakes.out_of_range("/value", "a secret goes into variables and has no NUL");
        }
    }
}

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its name, by which policies give it to daughters.
    pub name: String,
    /// The newest version. A version that was given out once is not given out again.
    pub version: u32,
    /// How many versions are kept.
    pub versions: u32,
    /// When the oldest of these was made.
    pub created_at: Time,
    /// When the newest was made.
    pub updated_at: Time,
}

/// All secrets of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretList {
    /// By name.
    pub items: Vec<Secret>,
}
