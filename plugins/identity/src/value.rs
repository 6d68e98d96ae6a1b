//! Kinds of values in the settings: names, paths and modes that are right once they are read.

use brood_plugin::settings::{Diagnostics, Node, Schema, Value};

use crate::text::{is_env_name, is_label, is_path, placeholders};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $is:expr, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub String);

        impl Value for $name {
            fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
                let text = node.text(wrong)?;
                if $is(text) {
                    return Some(Self(text.to_owned()));
                }
                node.refuse(wrong, format!("`{}` is not {}", shown(text), $expected))
            }

            fn schema(schema: &mut Schema) {
                schema.text("type", "string");
            }
        }
    )*};
}

texts! {
    /// The name of an environment variable.
    EnvName, is_env_name, "the name of an environment variable";
    /// An absolute path to a file.
    FilePath, is_path, "an absolute path without `.`, `..` and empty parts";
    /// A text with placeholders.
    Template, is_template, "a text whose `${…}` are index, id, node, ip, mac, tenant, project or subject";
}

fn is_template(text: &str) -> bool {
    !text.contains('\0') && placeholders(text).is_some()
}

/// Whether a key of settings is a label a policy may set.
pub(crate) fn is_own_label(key: &str) -> bool {
    is_label(key) && !key.starts_with("brood.")
}

/// Permissions of a file, octal in a string as `chmod` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Value for Mode {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let text = node.text(wrong)?;
        let octal = (3..=4).contains(&text.len())
            && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if octal && mode <= 0o777 => Some(Self(mode)),
            _ => node.refuse(
                wrong,
                format!("`{}` is not a mode from 000 to 777", shown(text)),
            ),
        }
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "string");
        schema.text("pattern", "^0?[0-7]{3}$");
        schema.raw("default", "\"0644\"");
    }
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
