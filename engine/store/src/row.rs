//! From Rust's types to SQLite's and back.
//!
//! Invariant: a column that holds something else than this program writes there is an error, never a default.

use std::collections::BTreeMap;

use brood_units::Timestamp;
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn get<T: FromSql>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    Ok(row.get(column)?)
}

pub(crate) fn bytes(row: &Row<'_>, column: &str) -> Result<[u8; 16], StoreError> {
    get(row, column)
}

pub(crate) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, StoreError> {
    get(row, column).map(Timestamp::from_millis)
}

pub(crate) fn maybe_time(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> = get(row, column)?;
    Ok(millis.map(Timestamp::from_millis))
}

pub(crate) fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

pub(crate) fn number(row: &Row<'_>, column: &'static str) -> Result<u32, StoreError> {
    let number: i64 = get(row, column)?;
    u32::try_from(number).map_err(|_| StoreError::Unknown {
        column,
        found: number.to_string(),
    })
}

/// One of several words.
pub(crate) fn word<T: Copy>(
    row: &Row<'_>,
    column: &'static str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<T, StoreError> {
    let found: String = get(row, column)?;
    let known = all.iter().copied().find(|one| word(*one) == found);
    known.ok_or(StoreError::Unknown { column, found })
}

pub(crate) fn json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<T, StoreError> {
    let found: String = get(row, column)?;
    serde_json::from_str(&found).map_err(|_| StoreError::Unknown { column, found })
}

/// Maps and lists of strings and numbers have a JSON form.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unknown {
        column: "JSON",
        found: error.to_string(),
    })
}
