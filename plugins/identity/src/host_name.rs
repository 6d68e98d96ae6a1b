//! Patterns of host names.

use brood_plugin::settings::{Diagnostics, Node, Schema, Value};

use crate::text::{is_host_name, placeholders, replaced, worst};

/// A pattern that makes a host name for every daughter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl HostName {
    /// Whether a pattern without placeholders of the request makes a host name for every daughter.
    pub(crate) fn is_right(pattern: &str) -> bool {
        let addresses = |names: Vec<&str>| names.contains(&"ip") || names.contains(&"mac");
        !placeholders(pattern).is_none_or(addresses) && is_host_name(&worst(pattern))
    }
}

impl Value for HostName {
    fn read(node: &Node<'_>, wrong: &mut Diagnostics) -> Option<Self> {
        let text = node.text(wrong)?;
        // Names of the request are not known yet; the shortest stands for them.
        let shortest = replaced(text, |name| {
            matches!(name, "tenant" | "project" | "subject").then_some("x")
        });
        if Self::is_right(&shortest) {
            return Some(Self(text.to_owned()));
        }
        let text: String = text.chars().take(64).collect();
        node.refuse(
            wrong,
            format!("`{text}` does not make a host name for every daughter, of index, id, node, tenant, project, subject"),
        )
    }

    fn schema(schema: &mut Schema) {
        schema.text("type", "string");
    }
}
