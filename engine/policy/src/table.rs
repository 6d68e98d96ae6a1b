//! Reading one table of TOML, key by key.
//!
//! Invariant: a key that nobody reads is a mistake. [`Table::end`] finds it, so every reader ends with it.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

use crate::mistake::{Mistakes, Notes, unknown};

/// Reads a text whose root table is called `name` in messages, key by key, and finds the keys that nobody asked for.
///
/// # Errors
/// All mistakes of the text.
pub fn read<T>(
    file: &str,
    text: &str,
    name: &str,
    read: impl FnOnce(&mut Table<'_, '_, '_>) -> T,
) -> Result<T, Mistakes> {
    let mut notes = Notes::new(file, text);
    let read = match Document::parse(text) {
        Ok(document) => {
            let mut root = Table::new(name, document.as_table(), None, &mut notes);
            let read = read(&mut root);
            root.end();
            Some(read)
        }
        Err(error) => {
            let message = format!("this is not TOML: {}", error.message());
            notes.add(error.span(), message);
            None
        }
    };
    match (notes.into_mistakes(), read) {
        (None, Some(read)) => Ok(read),
        (mistakes, _) => Err(mistakes.unwrap_or_default()),
    }
}

/// A table and the keys that were asked for.
pub struct Table<'t, 'n, 'a> {
    table: &'t dyn TableLike,
    span: Option<Range<usize>>,
    name: String,
    valid: Vec<&'static str>,
    pub(crate) notes: &'n mut Notes<'a>,
}

impl<'t, 'n, 'a> Table<'t, 'n, 'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        table: &'t dyn TableLike,
        span: Option<Range<usize>>,
        notes: &'n mut Notes<'a>,
    ) -> Self {
        let name = name.into();
        Self {
            table,
            span,
            name,
            valid: Vec::new(),
            notes,
        }
    }

    /// Notes a mistake about the value at a place.
    pub fn mistake(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.notes.add(span, message);
    }

    /// The item under a key, and where it is.
    pub(crate) fn item(&mut self, key: &'static str) -> Option<(&'t Item, Option<Range<usize>>)> {
        self.valid.push(key);
        let item = self.table.get(key)?;
        Some((item, item.span().or_else(|| self.span.clone())))
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    fn wrong(&mut self, span: Option<Range<usize>>, key: &str, expected: &str) {
        let message = format!("'{key}' of {} must be {expected}", self.name);
        self.notes.add(span, message);
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<(&'t str, Option<Range<usize>>)> {
        let (item, span) = self.item(key)?;
        let text = item.as_str();
        if text.is_none() {
            self.wrong(span.clone(), key, "a string");
        }
        text.map(|text| (text, span))
    }

    /// A string that must be there.
    pub fn required(&mut self, key: &'static str) -> Option<(&'t str, Option<Range<usize>>)> {
        if self.table.get(key).is_none() {
            self.valid.push(key);
            let message = format!("{} lacks '{key}'", self.name);
            self.notes.add(self.span.clone(), message);
            return None;
        }
        self.text(key)
    }

    /// A whole number within bounds, put where it belongs.
    pub fn number<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        place: &mut T,
    ) {
        let Some((item, span)) = self.item(key) else {
            return;
        };
        let number = item.as_integer().filter(|number| bounds.contains(number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => *place = number,
            None => {
                let (least, greatest) = bounds.into_inner();
                self.wrong(
                    span,
                    key,
                    &format!("a whole number from {least} to {greatest}"),
                );
            }
        }
    }

    /// One of several words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], place: &mut T) {
        let Some((text, span)) = self.text(key) else {
            return;
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *place = *value,
            None => {
                let valid: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let message = unknown(&format!("a '{key}'"), text, &valid);
                self.notes.add(span, message);
            }
        }
    }

    /// A list of strings, each with its place.
    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<(&'t str, Option<Range<usize>>)> {
        let Some((item, span)) = self.item(key) else {
            return Vec::new();
        };
        let texts: Option<Vec<_>> = item.as_array().and_then(|array| {
            let each = array
                .iter()
                .map(|value| Some((value.as_str()?, value.span())));
            each.collect()
        });
        if texts.is_none() {
            self.wrong(span, key, "a list of strings");
        }
        texts.unwrap_or_default()
    }

    /// A table under a key.
    pub(crate) fn table(
        &mut self,
        key: &'static str,
    ) -> Option<(&'t dyn TableLike, Option<Range<usize>>)> {
        let (item, span) = self.item(key)?;
        let table = item.as_table_like();
        if table.is_none() {
            self.wrong(span.clone(), key, "a table");
        }
        table.map(|table| (table, span))
    }

    /// Finds the keys that nobody asked for.
    pub(crate) fn end(self) {
        for (key, item) in self
            .table
            .iter()
            .filter(|(key, _)| !self.valid.contains(key))
        {
            let own = self.table.key(key).and_then(toml_edit::Key::span);
            let span = own.or_else(|| item.span()).or_else(|| self.span.clone());
            self.notes.add(
                span,
                unknown(&format!("a key of {}", self.name), key, &self.valid),
            );
        }
    }
}

/// TOML as JSON, for settings. Dates have no JSON form, floats are refused because policies are integers only.
pub(crate) fn json(item: &Item, notes: &mut Notes<'_>) -> serde_json::Value {
    if let Some(table) = item.as_table_like() {
        let entries = table
            .iter()
            .map(|(key, item)| (key.to_owned(), json(item, notes)));
        return serde_json::Value::Object(entries.collect());
    }
    if let Some(tables) = item.as_array_of_tables() {
        let each = tables
            .iter()
            .map(|table| json(&Item::Table(table.clone()), notes));
        return serde_json::Value::Array(each.collect());
    }
    match item.as_value() {
        Some(Value::String(text)) => text.value().as_str().into(),
        Some(Value::Integer(number)) => (*number.value()).into(),
        Some(Value::Boolean(truth)) => (*truth.value()).into(),
        Some(Value::Array(array)) => {
            let each = array
                .iter()
                .map(|value| json(&Item::Value(value.clone()), notes));
            serde_json::Value::Array(each.collect())
        }
        _ => {
            let message = "settings are strings, whole numbers, booleans, lists and tables";
            notes.add(item.span(), message);
            serde_json::Value::Null
        }
    }
}
