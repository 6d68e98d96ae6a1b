//! From a core module to a component.
//!
//! The types of the component are in the module itself, in sections that `brood_plugin::export!` leaves there: one for
//! each hook it exports. Imports that the code does not call are dropped, so what remains is what it uses.

use thiserror::Error;
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// No component can be made of a module.
#[derive(Debug, Error)]
pub enum ComponentError {
    /// The module says nothing of its types.
    #[error("the module exports no hook: brood_plugin::export! is missing")]
    NoExports,
    /// It is no WebAssembly module.
    #[error("not a WebAssembly module")]
    NotAModule(#[source] anyhow::Error),
    /// Types and code disagree, or the module imports what no WIT interface holds.
    #[error("the module cannot become a component")]
    Encode(#[source] anyhow::Error),
}

/// Makes a component of a core module.
///
/// # Errors
///
/// The module is not one, or was not built with `brood_plugin::export!`, or imports something that is not WIT.
pub fn component(module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let mut typed = false;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(|error| ComponentError::NotAModule(error.into()))?;
        if let Payload::CustomSection(section) = payload {
            typed |= section.name().starts_with("component-type");
        }
    }
    if !typed {
        return Err(ComponentError::NoExports);
    }
    let mut encoder = ComponentEncoder::default();
    let encoder = encoder
        .validate(true)
        .module(module)
        .map_err(ComponentError::Encode)?;
    encoder.encode().map_err(ComponentError::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_without_types_names_the_macro_that_is_missing() {
        let empty = b"\0asm\x01\0\0\0";
        assert!(matches!(component(empty), Err(ComponentError::NoExports)));
    }

    #[test]
    fn garbage_and_a_truncated_module_are_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"\0asm\x01\0\0\0\x01"] {
            let refused = component(bytes);
            assert!(
                matches!(refused, Err(ComponentError::NotAModule(_))),
                "{bytes:?}"
            );
        }
    }
}
