//! How texts, maps and numbers look in the document, where the types do not say it.
//!
//! Invariant: what is described here is what `limit` lets through; a caller who believes the document is not refused.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use utoipa::openapi::schema::{ArrayItems, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, Object, ObjectBuilder, RefOr, Schema};

use crate::limit::MAX_ENTRIES;

/// Text without NUL.
const NO_NUL: &str = r"^[^\x00]*$";

fn text(pattern: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.pattern(Some(pattern))
}

fn map(names: Object, values: Object) -> ObjectBuilder {
    ObjectBuilder::new()
        .property_names(Some(Schema::Object(names)))
        .additional_properties(Some(RefOr::T(Schema::Object(values))))
        .max_properties(Some(MAX_ENTRIES))
}

/// Labels.
pub(crate) fn labels() -> Object {
    let names = text(r"^(?!brood\.)[a-z0-9._/-]{1,63}$").build();
    let values = ObjectBuilder::new().schema_type(Type::String);
    map(names, values.max_length(Some(255)).build())
        .description(Some(
            "To find it by and for policies to look at. What begins with `brood.` is the engine's.",
        ))
        .build()
}

/// Variables.
pub(crate) fn env() -> Object {
    map(text(r"^[^=\x00]+$").build(), text(NO_NUL).build())
        .description(Some("Variables, put over the guest's own."))
        .build()
}

/// A program and its arguments, the first of which is the program.
pub(crate) fn words() -> utoipa::openapi::schema::Array {
    let first = Schema::Object(text(r"^[^\x00]+$").build());
    let word = RefOr::T(Schema::Object(text(NO_NUL).build()));
    ArrayBuilder::new()
        .prefix_items([first])
        .items(ArrayItems::RefOrSchema(Box::new(word)))
        .min_items(Some(1))
        .max_items(Some(4096))
        .examples([serde_json::json!(["uname", "-a"])])
        .description(Some(
            "The program and its arguments, 128 KiB at most. A program without `/` is looked for in `PATH`.",
        ))
        .build()
}

/// A working directory, or none.
pub(crate) fn cwd() -> Object {
    text(r"^/[^\x00]*$")
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .max_length(Some(4095))
        .description(Some("The working directory; `/` if not said."))
        .build()
}

/// A number without a fraction. JSON has one kind of number, and some clients write 3 as `3.0`.
pub(crate) fn whole<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    deserializer.deserialize_any(Whole(PhantomData))
}

/// The same, or none.
pub(crate) fn whole_or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    struct Number<T>(T);
    impl<'de, T: TryFrom<i64>> Deserialize<'de> for Number<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            whole(deserializer).map(Self)
        }
    }
    let number = Option::<Number<T>>::deserialize(deserializer)?;
    Ok(number.map(|number| number.0))
}

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i64>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<T>())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::try_from(number).map_err(|_| none::<T, E>(&number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(none::<T, E>(&number)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // Without a fraction it is written as a whole number is.
        match format!("{number}").parse() {
            Ok(whole) => self.visit_i64(whole),
            Err(_) => Err(none::<T, E>(&number)),
        }
    }
}

fn none<T, E: Error>(number: &impl fmt::Display) -> E {
    E::custom(format!("{number} is no {}", type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "whole")]
        one: u16,
        #[serde(default, deserialize_with = "whole_or_none")]
        other: Option<u32>,
    }

    #[test]
    fn a_whole_number_is_taken_however_it_is_written_and_no_other_is() {
        let read = |text: &str| serde_json::from_str::<Numbers>(text);
        let three = Numbers {
            one: 3,
            other: None,
        };
        for text in [
            r#"{"one": 3}"#,
            r#"{"one": 3.0}"#,
            r#"{"one": 3e0, "other": null}"#,
        ] {
            assert_eq!(read(text).expect(text), three);
        }
        let both = read(r#"{"one": 0, "other": 4294967295.0}"#).expect("two");
        assert_eq!(both.other, Some(u32::MAX));
        for text in [
            r#"{"one": 3.5}"#,
            r#"{"one": -1}"#,
            r#"{"one": 65536.0}"#,
            r#"{"one": 18446744073709551615}"#,
            r#"{"one": 1e300}"#,
            r#"{"one": "3"}"#,
            r#"{"one": null}"#,
            r#"{"one": 1, "other": 4294967296}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
