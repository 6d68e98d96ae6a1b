//! Reading an object whose keys are known.

use super::{Diagnostics, Json, Node, Schema, Value};

/// An object of a document, of which every key is known and stands once.
pub struct Object<'a> {
    node: &'a Node<'a>,
    entries: &'a [(String, Json)],
}

impl<'a> Object<'a> {
    /// The object at a node. Unknown and repeated keys are reported; what is known is still read, so that every mistake
    /// is found.
    pub fn open(node: &'a Node<'a>, fields: &[&str], wrong: &mut Diagnostics) -> Option<Self> {
        let Json::Object(entries) = node.json() else {
            return node.expected(wrong, "an object");
        };
        for (index, (key, value)) in entries.iter().enumerate() {
            let node = node.key(key, value);
            if !fields.iter().any(|field| is_key_of(key, field)) {
                wrong.add_at(node.pointer(), unknown(key, fields));
            } else if entries.iter().take(index).any(|(other, _)| other == key) {
                wrong.add_at(node.pointer(), "stands here twice".to_owned());
            }
        }
        Some(Self { node, entries })
    }

    /// The value of a field, given by its name in Rust; absent, its default.
    #[inline(never)]
    pub fn field<T: Value>(
        &self,
        field: &str,
        default: Option<fn() -> T>,
        wrong: &mut Diagnostics,
    ) -> Option<T> {
        let entry = self.entries.iter().find(|(key, _)| is_key_of(key, field));
        match (entry, default) {
            (Some((key, value)), _) => T::read(&self.node.key(key, value), wrong),
            (None, Some(default)) => Some(default()),
            (None, None) => self
                .node
                .refuse(wrong, format!("`{}` is missing", key_of(field))),
        }
    }
}

/// Writes the schema of one field, for [`settings!`](crate::settings!).
#[inline(never)]
pub fn describe_field<T: Value>(
    schema: &mut Schema,
    field: &str,
    about: &str,
    default: Option<&str>,
) {
    schema.nested(&key_of(field), |schema| {
        schema.about(about);
        T::schema(schema);
        if let Some(default) = default.filter(|default| is_literal(default)) {
            schema.raw("default", default);
        }
    });
}

/// Writes what the schema of an object says besides its properties: fields without a default must be there, others
/// than these must not.
pub fn describe_object(schema: &mut Schema, fields: &[(&str, Option<&str>)]) {
    let required: Vec<String> = fields
        .iter()
        .filter(|(_, default)| default.is_none())
        .map(|(field, _)| key_of(field))
        .collect();
    let required: Vec<&str> = required.iter().map(String::as_str).collect();
    schema.texts("required", &required);
    schema.raw("additionalProperties", "false");
}

/// `max_live` is written `max-live`.
fn key_of(field: &str) -> String {
    field.trim_start_matches("r#").replace('_', "-")
}

fn is_key_of(key: &str, field: &str) -> bool {
    let field = field.trim_start_matches("r#");
    key.len() == field.len()
        && key
            .bytes()
            .zip(field.bytes())
            .all(|(written, named)| written == if named == b'_' { b'-' } else { named })
}

/// Whether the text of a Rust expression is the same value in JSON.
fn is_literal(text: &str) -> bool {
    text == "true" || text == "false" || text.bytes().all(|byte| byte.is_ascii_digit())
}

fn unknown(key: &str, fields: &[&str]) -> String {
    let nearest = fields
        .iter()
        .map(|field| (distance(key, &key_of(field)), key_of(field)))
        .min();
    match nearest {
        Some((distance, field)) if distance <= 1 + key.len() / 4 => {
            format!("no such setting; did you mean `{field}`?")
        }
        _ => {
            let fields: Vec<String> = fields.iter().map(|field| key_of(field)).collect();
            format!("no such setting; known are {}", fields.join(", "))
        }
    }
}

/// Levenshtein's, over bytes, with keys cut at 64.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<u8> = other.bytes().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.bytes().take(64).enumerate() {
        let mut corner = line;
        let mut before = line + 1;
        for (right, cell) in other.iter().zip(row.iter_mut().skip(1)) {
            let replaced = corner + usize::from(left != *right);
            corner = *cell;
            *cell = replaced.min(corner + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
