//! [`settings!`](crate::settings!): a type, its reader and its schema from one declaration.

/// Declares settings: a `struct` of fields, or an `enum` of words.
///
/// A field is documented and has a type that is a [`Value`](crate::settings::Value); `= default` makes it optional.
/// `max_live` is written `max-live` in the document.
///
/// ```
/// brood_plugin::settings! {
///     /// What the plugin does.
///     pub struct Settings {
///         /// Most daughters of one request.
///         most: u32 = 8,
///         /// What happens to larger requests.
///         larger: Larger,
///     }
/// }
/// brood_plugin::settings! {
///     /// What happens to a request that is too large.
///     pub enum Larger {
///         /// It is refused.
///         Deny = "deny",
///         /// It is made smaller.
///         Narrow = "narrow",
///     }
/// }
/// let settings = brood_plugin::settings::read::<Settings>(r#"{"larger": "narrow"}"#).unwrap();
/// assert_eq!((settings.most, settings.larger), (8, Larger::Narrow));
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $visibility:vis struct $name:ident {
            $($(#[doc = $help:literal])* $field:ident: $kind:ty $(= $default:expr)?),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $visibility struct $name {
            $($(#[doc = $help])* pub $field: $kind,)*
        }

        impl $crate::settings::Value for $name {
            fn read(
                node: &$crate::settings::Node<'_>,
                wrong: &mut $crate::settings::Diagnostics,
            ) -> Option<Self> {
                let fields: &[&str] = &[$(stringify!($field)),*];
                let _object = $crate::settings::Object::open(node, fields, wrong)?;
                $(
                    let default = $crate::__default!($kind $(, $default)?);
                    let $field = _object.field::<$kind>(stringify!($field), default, wrong);
                )*
                Some(Self { $($field: $field?),* })
            }

            fn schema(schema: &mut $crate::settings::Schema) {
                schema.text("type", "object");
                schema.nested("properties", |_schema| {
                    $($crate::settings::describe_field::<$kind>(
                        _schema,
                        stringify!($field),
                        concat!($($help, "\n"),*),
                        $crate::__text!($($default)?),
                    );)*
                });
                let required: &[(&str, Option<&str>)] =
                    &[$((stringify!($field), $crate::__text!($($default)?))),*];
                $crate::settings::describe_object(schema, required);
            }
        }

        impl $crate::settings::Settings for $name {
            const ABOUT: &'static str = concat!($($about, "\n"),*);
        }
    };
    (
        $(#[doc = $about:literal])*
        $visibility:vis enum $name:ident {
            $($(#[doc = $help:literal])* $case:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        $visibility enum $name {
            $($(#[doc = $help])* $case,)+
        }

        impl $crate::settings::Value for $name {
            fn read(
                node: &$crate::settings::Node<'_>,
                wrong: &mut $crate::settings::Diagnostics,
            ) -> Option<Self> {
                match node.text(wrong)? {
                    $($word => Some(Self::$case),)+
                    other => node.refuse(
                        wrong,
                        format!("`{other}` is none of {}", [$($word),+].join(", ")),
                    ),
                }
            }

            fn schema(schema: &mut $crate::settings::Schema) {
                schema.words(&[$(($word, concat!($($help, "\n"),*))),+]);
            }
        }
    };
}

/// The default of a field of [`settings!`](crate::settings!).
#[doc(hidden)]
#[macro_export]
macro_rules! __default {
    ($kind:ty) => {
        None
    };
    ($kind:ty, $default:expr) => {
        Some((|| $default) as fn() -> $kind)
    };
}

/// The text of the default of a field of [`settings!`](crate::settings!).
#[doc(hidden)]
#[macro_export]
macro_rules! __text {
    () => {
        None
    };
    ($default:expr) => {
        Some(stringify!($default))
    };
}
