//! Settings: declared once as a type, then schema, strict reading and what the hooks read back are derived.
//!
//! Invariant: reading reports every mistake of a document at once, each with its JSON Pointer (RFC 6901), and accepts
//! nothing it does not know: no unknown key, no key twice, no fraction, no null. Hooks never parse JSON; they read bytes
//! that [`Plugin::prepare`] stored.
//!
//! Declare settings with [`settings!`](crate::settings!); a kind of value of your own implements [`Value`].

mod declare;
mod diagnostic;
mod json;
mod object;
mod prepared;
mod scalar;
mod schema;
mod value;

pub use diagnostic::Diagnostics;
pub use json::Json;
pub use object::Object;
#[doc(hidden)]
pub use object::{describe_field, describe_object};
pub use prepared::{Prepared, decode, lookup, prepared};
pub use schema::Schema;
pub use value::{Node, Value};

use crate::hook::Plugin;
use crate::plugin::Diagnostic;

/// A whole settings document; what [`settings!`](crate::settings!) makes of a `struct`.
pub trait Settings: Value {
    /// What the settings are for.
    const ABOUT: &'static str;
}

/// The JSON Schema (2020-12) of a settings document.
#[must_use]
pub fn schema<S: Settings>() -> String {
    let mut schema = Schema::new();
    schema.text("$schema", "https://json-schema.org/draft/2020-12/schema");
    schema.about(S::ABOUT);
    S::schema(&mut schema);
    schema.finish()
}

/// Reads a document.
///
/// # Errors
///
/// Every mistake found.
pub fn read<S: Settings>(document: &str) -> Result<S, Vec<Diagnostic>> {
    let mut wrong = Diagnostics::default();
    let json = match Json::parse(document) {
        Ok(json) => json,
        Err(error) => {
            wrong.add(&[], &format!("not JSON: {error}"));
            return Err(wrong.into_list());
        }
    };
    let settings = S::read(&Node::root(&json), &mut wrong);
    match settings {
        Some(settings) if wrong.is_empty() => Ok(settings),
        _ => Err(wrong.into_list()),
    }
}

/// Reads and digests a document.
pub(crate) fn prepare<P: Plugin>(
    document: &str,
) -> Result<Vec<(String, Vec<u8>)>, Vec<Diagnostic>> {
    let settings = read::<P::Settings>(document)?;
    let (mut prepared, mut wrong) = (Prepared::default(), Diagnostics::default());
    P::prepare(&settings, &mut prepared, &mut wrong);
    let entries = prepared.into_entries(&mut wrong);
    if wrong.is_empty() {
        Ok(entries)
    } else {
        Err(wrong.into_list())
    }
}

#[cfg(test)]
mod tests;
