//! What is wrong with a request, field by field.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MistakeKind {
    /// There is no such field.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// It is there more than once.
    DuplicateField,
    /// It has another type, or is not written as that type is.
    WrongType,
    /// It has a word that is not among the valid ones.
    UnknownWord,
    /// Its value is outside of what is allowed.
    OutOfRange,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mistake {
    /// Where: a JSON pointer into the body (RFC 6901), or the name of a parameter.
    pub pointer: String,
    /// Which kind.
    pub kind: MistakeKind,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// Everything that is wrong with a request that could be read.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// A value that is not allowed.
    pub fn out_of_range(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Mistake {
            pointer: pointer.into(),
            kind: MistakeKind::OutOfRange,
            detail: detail.into(),
            nearest: None,
        });
    }

    pub(crate) fn into_vec(self) -> Vec<Mistake> {
        self.0
    }
}

/// The word among `valid` that is probably meant.
pub(crate) fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = valid
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()?;
    let (distance, candidate) = near;
    (distance <= candidate.len().max(3) / 2).then(|| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_offered_and_a_far_one_is_not() {
        let valid = ["count", "min_count", "labels"];
        assert_eq!(nearest("cuont", valid).as_deref(), Some("count"));
        assert_eq!(nearest("zebra-crossing", valid), None);
    }
}
