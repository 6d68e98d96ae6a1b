//! Bytes into requests.
//!
//! Invariant: a request that comes out of here has only known fields, each of its type, and has passed its own check;
//! what does not is refused with the place, and with everything its check found.

use serde::de::DeserializeOwned;

use crate::mistake::{Mistake, MistakeKind, Mistakes, nearest};

/// A body or a query that a caller sends.
pub trait Request: DeserializeOwned {
    /// Collects what the types do not rule out.
    fn check(&self, mistakes: &mut Mistakes);
}

/// The request cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is no JSON.
    #[error("the body is not JSON: {detail} at line {line}, column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1; 0 at the very beginning of a line.
        column: usize,
        /// What is wrong there.
        detail: String,
    },
    /// It is JSON, and not this request.
    #[error("{} of the request cannot be taken", places(mistakes))]
    Mistakes {
        /// At least one.
        mistakes: Vec<Mistake>,
    },
}

fn places(mistakes: &[Mistake]) -> String {
    let places: Vec<&str> = mistakes.iter().map(|one| one.pointer.as_str()).collect();
    places.join(", ")
}

/// Reads a body.
///
/// # Errors
/// The first thing that is no JSON or not of its type, or else all values that are not allowed.
pub fn decode<T: Request>(body: &[u8]) -> Result<T, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let request: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        refusal(pointer, error.inner())
    })?;
    reader.end().map_err(|error| syntax(&error))?;
    checked(request)
}

/// Reads the parameters of a query. Each comes as text: what is not text in `T` reads itself from text.
///
/// # Errors
/// As [`decode`]; a pointer is a parameter's name.
pub fn decode_parameters<T: Request>(
    pairs: impl IntoIterator<Item = (String, String)>,
) -> Result<T, DecodeError> {
    let mut map = serde_json::Map::new();
    for (name, value) in pairs {
        if map.contains_key(&name) {
            return Err(one(Mistake {
                detail: format!("'{}' is there twice: send it once", name.escape_debug()),
                pointer: name,
                kind: MistakeKind::DuplicateField,
                nearest: None,
            }));
        }
        map.insert(name, value.into());
    }
    let request: T = serde_path_to_error::deserialize(serde_json::Value::Object(map))
        .map_err(|error| refusal(parameter(error.path()), error.inner()))?;
    checked(request)
}

fn checked<T: Request>(request: T) -> Result<T, DecodeError> {
    let mut mistakes = Mistakes::default();
    request.check(&mut mistakes);
    match mistakes.into_vec() {
        none if none.is_empty() => Ok(request),
        mistakes => Err(DecodeError::Mistakes { mistakes }),
    }
}

fn one(mistake: Mistake) -> DecodeError {
    DecodeError::Mistakes {
        mistakes: vec![mistake],
    }
}

fn syntax(error: &serde_json::Error) -> DecodeError {
    DecodeError::Syntax {
        line: error.line(),
        column: error.column(),
        detail: without_place(&error.to_string()).to_owned(),
    }
}

/// serde_json puts the place behind its words; here it has fields of its own.
fn without_place(words: &str) -> &str {
    words
        .rsplit_once(" at line ")
        .map_or(words, |(words, _)| words)
}

fn refusal(pointer: String, error: &serde_json::Error) -> DecodeError {
    if !error.is_data() {
        return syntax(error);
    }
    let text = error.to_string();
    let words = without_place(&text);
    let (kind, valid) = classify(words);
    let quoted = words.split('`').nth(1).unwrap_or_default();
    let nearest = valid.and_then(|valid| nearest(quoted, valid));
    let mut detail = words.to_owned();
    if let Some(nearest) = &nearest {
        detail = format!("{detail}; did you mean `{nearest}`?");
    }
    if error.line() > 0 {
        let (line, column) = (error.line(), error.column());
        detail = format!("{detail} (line {line}, column {column})");
    }
    one(Mistake {
        pointer,
        kind,
        detail,
        nearest,
    })
}

/// Which kind of mistake serde's words are of, and the valid words it names behind the wrong one.
fn classify(words: &str) -> (MistakeKind, Option<impl Iterator<Item = &str>>) {
    let valid = words.split('`').skip(3).step_by(2);
    match words {
        _ if words.starts_with("unknown field") => (MistakeKind::UnknownField, Some(valid)),
        _ if words.starts_with("unknown variant") => (MistakeKind::UnknownWord, Some(valid)),
        _ if words.starts_with("missing field") => (MistakeKind::MissingField, None),
        _ if words.starts_with("duplicate field") => (MistakeKind::DuplicateField, None),
        _ => (MistakeKind::WrongType, None),
    }
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

fn parameter(path: &serde_path_to_error::Path) -> String {
    match path.to_string() {
        whole if whole == "." => String::new(),
        name => name,
    }
}

#[cfg(test)]
mod tests;
