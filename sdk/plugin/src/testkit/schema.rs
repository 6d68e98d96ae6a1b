//! What a settings schema leaves unsaid.

use serde_json::Value;

use crate::{Plugin, glue};

/// Settings and words without documentation, as JSON Pointers into the schema.
///
/// # Panics
///
/// The schema is not JSON.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "a schema that is not JSON is a mistake of this crate"
)]
pub fn undocumented<P: Plugin>() -> Vec<String> {
    let schema = glue::describe::<P>().settings_schema;
    let schema = serde_json::from_str(&schema).expect("a schema is JSON");
    let mut found = Vec::new();
    look(&schema, String::new(), &mut found);
    found
}

fn look(schema: &Value, at: String, found: &mut Vec<String>) {
    let is_documented = |one: &Value| one.get("description").is_some();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        let at = format!("{at}/properties/{key}");
        if !is_documented(property) {
            found.push(at.clone());
        }
        look(property, at, found);
    }
    let words = schema.get("oneOf").and_then(Value::as_array);
    for (index, word) in words.into_iter().flatten().enumerate() {
        if !is_documented(word) {
            found.push(format!("{at}/oneOf/{index}"));
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(nested_schema) = schema.get(nested) {
            look(nested_schema, format!("{at}/{nested}"), found);
        }
    }
}
