//! What is wrong with a policy file, and where.
//!
//! Invariant: a mistake names its file and line, and where a word is unknown, the valid one that is nearest to it.

use std::fmt;
use std::ops::Range;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// All mistakes of a file, by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes of one text.
pub(crate) struct Notes<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Mistake>,
}

impl<'a> Notes<'a> {
    pub(crate) const fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            found: Vec::new(),
        }
    }

    /// Notes a mistake at a place of the text.
    pub(crate) fn add(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        let start = span.map_or(0, |span| span.start);
        let before = self.text.bytes().take(start);
        let line = 1 + before.filter(|byte| *byte == b'\n').count();
        let (file, message) = (self.file.to_owned(), message.into());
        self.found.push(Mistake {
            file,
            line,
            message,
        });
    }

    pub(crate) fn into_mistakes(mut self) -> Option<Mistakes> {
        self.found.sort_by_key(|mistake| mistake.line);
        (!self.found.is_empty()).then_some(Mistakes(self.found))
    }
}

/// `'fule' is not a key here; did you mean 'fuel'?`, or the list of what is valid.
pub(crate) fn unknown(what: &str, word: &str, valid: &[&str]) -> String {
    let nearest = valid
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 2);
    match nearest {
        Some((_, nearest)) => format!("'{word}' is not {what}; did you mean '{nearest}'?"),
        None => format!("'{word}' is not {what}; valid are {}", valid.join(", ")),
    }
}

/// Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_offered_and_a_far_one_is_not() {
        let valid = ["fuel", "deadline-ms", "memory-mib"];
        assert_eq!(
            unknown("a key", "fule", &valid),
            "'fule' is not a key; did you mean 'fuel'?"
        );
        assert!(unknown("a key", "deadline", &valid).contains("'deadline-ms'"));
        assert!(unknown("a key", "xyzzyxyzzy", &valid).contains("valid are fuel, deadline-ms"));
    }
}
