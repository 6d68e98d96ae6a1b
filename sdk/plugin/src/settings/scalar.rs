//! The values of the language: numbers, strings, lists, maps, what may be absent.

use core::num::{NonZeroU32, NonZeroU64};
use std::collections::BTreeMap;

use super::{Diagnostics, Json, Node, Schema, Value};

macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
                let number = node.whole(<$kind>::MIN.into(), <$kind>::MAX.into(), wrong)?;
                number.try_into().ok()
            }

            fn schema(schema: &mut Schema) {
                schema.whole(<$kind>::MIN.into(), <$kind>::MAX.into());
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, i32, i64);

macro_rules! positive_numbers {
    ($($kind:ty, $of:ty);*) => {$(
        impl Value for $kind {
            fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
                let number = node.whole(1, <$of>::MAX.into(), wrong)?;
                <$kind>::new(number.try_into().ok()?)
            }

            fn schema(schema: &mut Schema) {
                schema.whole(1, <$of>::MAX.into());
            }
        }
    )*};
}

positive_numbers!(NonZeroU32, u32; NonZeroU64, u64);

impl Value for bool {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        match node.json() {
            Json::Bool(value) => Some(*value),
            _ => node.expected(wrong, "true or false"),
        }
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "boolean");
    }
}

impl Value for String {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        node.text(wrong).map(str::to_owned)
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "string");
    }
}

/// May be absent; `null` is not a way to say so.
impl<T: Value> Value for Option<T> {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        T::read(node, wrong).map(Some)
    }

    fn schema(schema: &mut Schema) {
        T::schema(schema);
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let Json::List(items) = node.json() else {
            return node.expected(wrong, "a list");
        };
        // Every item is read, so that each mistake is reported.
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| T::read(&node.index(index, item), wrong))
            .collect();
        read.into_iter().collect()
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "array");
        schema.nested("items", T::schema);
    }
}

impl<T: Value> Value for BTreeMap<String, T> {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let Json::Object(entries) = node.json() else {
            return node.expected(wrong, "an object");
        };
        let (mut map, mut complete) = (Self::new(), true);
        for (key, value) in entries {
            let node = node.key(key, value);
            let Some(value) = T::read(&node, wrong) else {
                complete = false;
                continue;
            };
            if map.insert(key.clone(), value).is_some() {
                complete = false;
                wrong.add_at(node.pointer(), "stands here twice".to_owned());
            }
        }
        complete.then_some(map)
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "object");
        schema.nested("additionalProperties", T::schema);
    }
}
