//! Mistakes of a document, each with its place.

use crate::plugin::Diagnostic;

/// More than these are counted and not listed.
const MOST: usize = 100;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    unlisted: usize,
}

impl Diagnostics {
    /// Adds a mistake at a place given by its keys and indices from the root: `&["tenants", "acme", "live"]`.
    pub fn add(&mut self, place: &[&str], message: &str) {
        let mut pointer = String::new();
        for segment in place {
            push_segment(&mut pointer, segment);
        }
        self.add_at(pointer, message.to_owned());
    }

    /// Adds a mistake at a JSON Pointer.
    pub fn add_at(&mut self, at: String, message: String) {
        if self.list.len() < MOST {
            self.list.push(Diagnostic { at, message });
        } else {
            self.unlisted += 1;
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn into_list(mut self) -> Vec<Diagnostic> {
        if self.unlisted > 0 {
            let message = format!("and {} more", self.unlisted);
            self.list.push(Diagnostic {
                at: String::new(),
                message,
            });
        }
        self.list
    }
}

/// Appends `/segment`, escaped as RFC 6901 §3 says.
pub(super) fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}
