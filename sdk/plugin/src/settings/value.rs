//! What can stand in a settings document, and reading it at its place.

use super::diagnostic::push_segment;
use super::{Diagnostics, Json, Schema};

/// A kind of value that settings can hold.
pub trait Value: Sized {
    /// Reads the value at a node. `None`: it is not one, and `wrong` says why.
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self>;

    /// Writes the members of its JSON Schema object, without a description.
    fn schema(schema: &mut Schema);
}

/// A value of a document and where it stands.
pub struct Node<'a> {
    json: &'a Json,
    path: Path<'a>,
}

enum Path<'a> {
    Root,
    Key(&'a Node<'a>, &'a str),
    Index(&'a Node<'a>, usize),
}

impl<'a> Node<'a> {
    pub(super) fn root(json: &'a Json) -> Self {
        let path = Path::Root;
        Self { json, path }
    }

    pub(super) fn key(&'a self, key: &'a str, json: &'a Json) -> Self {
        let path = Path::Key(self, key);
        Self { json, path }
    }

    pub(super) fn index(&'a self, index: usize, json: &'a Json) -> Self {
        let path = Path::Index(self, index);
        Self { json, path }
    }

    /// The value.
    #[must_use]
    pub fn json(&self) -> &'a Json {
        self.json
    }

    /// Its JSON Pointer.
    #[must_use]
    pub fn pointer(&self) -> String {
        let mut pointer = match &self.path {
            Path::Root => return String::new(),
            Path::Key(parent, _) | Path::Index(parent, _) => parent.pointer(),
        };
        match &self.path {
            Path::Root => {}
            Path::Key(_, key) => push_segment(&mut pointer, key),
            Path::Index(_, index) => push_segment(&mut pointer, &index.to_string()),
        }
        pointer
    }

    /// Reports a mistake here, and reads nothing.
    pub fn refuse<T>(&self, wrong: &mut Diagnostics, message: String) -> Option<T> {
        wrong.add_at(self.pointer(), message);
        None
    }

    /// Reports that something else was expected here.
    pub fn expected<T>(&self, wrong: &mut Diagnostics, what: &str) -> Option<T> {
        let found = self.json.kind();
        self.refuse(wrong, format!("expected {what}, found {found}"))
    }

    /// The string here.
    pub fn text(&self, wrong: &mut Diagnostics) -> Option<&'a str> {
        match self.json {
            Json::Text(text) => Some(text),
            _ => self.expected(wrong, "a string"),
        }
    }

    /// The whole number here, if it is within bounds.
    pub fn whole(&self, least: i128, most: i128, wrong: &mut Diagnostics) -> Option<i128> {
        match self.json {
            Json::Whole(number) if (least..=most).contains(number) => Some(*number),
            Json::Whole(number) => {
                self.refuse(wrong, format!("{number} is not within {least} to {most}"))
            }
            _ => self.expected(wrong, "a whole number"),
        }
    }
}
