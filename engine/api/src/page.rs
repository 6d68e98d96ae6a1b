//! Lists, a page at a time.
//!
//! Invariant: a cursor is only ever one that a page brought; it stays good however many objects come and go.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use crate::Request;
use crate::mistake::Mistakes;

/// Most objects of a page.
const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

/// Where the next page begins. Its text means nothing to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, pattern = "^c([0-9a-f]{1,15}|[0-7][0-9a-f]{15})$", example = "c2a")]
pub struct Cursor(pub i64);

/// The text is no cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a cursor: take `next` of the page before, or leave it out for the first page", text.escape_debug())]
pub struct ParseCursorError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:x}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        let right = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let digits = text
            .strip_prefix('c')
            .filter(|rest| rest.bytes().all(right));
        let place = digits.and_then(|digits| i64::from_str_radix(digits, 16).ok());
        place.map(Self).ok_or_else(|| ParseCursorError {
            text: text.to_owned(),
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A value of a query, which is always text.
pub(crate) fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse();
    parsed.map(Some).map_err(|error: T::Err| {
        let text = text.escape_debug();
        D::Error::custom(format!("'{text}': {error}"))
    })
}

/// Which part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// The most objects of a page, 100 if not said.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "from_text")]
    pub limit: Option<u32>,
    /// `next` of the page before; the first page if not said.
    pub cursor: Option<Cursor>,
}

impl ListQuery {
    /// The most objects.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// The place behind which the page begins.
    pub fn after(&self) -> i64 {
        self.cursor.map_or(0, |cursor| cursor.0)
    }
}

pub(crate) fn check_limit(limit: Option<u32>, mistakes: &mut Mistakes) {
    if limit.is_some_and(|limit| limit == 0 || limit > MAX_LIMIT) {
        mistakes.out_of_range("limit", format!("a page has 1 to {MAX_LIMIT} objects"));
    }
}

impl Request for ListQuery {
    fn check(&self, mistakes: &mut Mistakes) {
        check_limit(self.limit, mistakes);
    }
}

/// A page of a list, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The cursor of the next page; none if this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// A page out of at most `limit` objects, each with its place in the list.
    pub fn of(limit: u32, found: impl IntoIterator<Item = (i64, T)>) -> Self {
        let (mut items, mut last) = (Vec::new(), None);
        for (place, item) in found {
            items.push(item);
            last = Some(Cursor(place));
        }
        let full = u32::try_from(items.len()).is_ok_and(|count| count >= limit);
        Self {
            items,
            next: last.filter(|_| full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_nothing_else_is_one() {
        for place in [0, 1, 42, i64::MAX] {
            assert_eq!(Cursor(place).to_string().parse(), Ok(Cursor(place)));
        }
        for text in [
            "",
            "c",
            "2a",
            "c-1",
            "c+1",
            "cxyz",
            "c2A",
            "c8000000000000000",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_that_is_not_full_is_the_last() {
        let page = Page::of(2, [(7, "a"), (9, "b")]);
        assert_eq!(page.next, Some(Cursor(9)));
        assert_eq!(Page::of(3, [(7, "a"), (9, "b")]).next, None);
        assert_eq!(Page::<u8>::of(3, []).next, None);
    }
}
