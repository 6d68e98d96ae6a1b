//! What wit-bindgen makes of `wit/`: one module for the host's interfaces and one for each interface a plugin exports.
//!
//! Invariant: each export has a world of its own, so that a component's type is the union of what it exports, and every
//! module shares the value types of [`host`]. Nothing here is edited by hand; the rest of the crate re-exports it under
//! shorter names.

#![expect(
    missing_docs,
    reason = "generated; the documentation is that of the WIT package"
)]
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::too_many_arguments,
    reason = "generated code, whose unsafety is the canonical ABI"
)]

/// The interfaces a plugin may import, and the value types that all others share.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package brood:sdk-host;
            world host {
                import brood:policy/types@0.1.0;
                import brood:policy/placement-types@0.1.0;
                import brood:policy/log@0.1.0;
                import brood:policy/config@0.1.0;
                import brood:policy/clock@0.1.0;
                import brood:policy/state@0.1.0;
                import brood:policy/metrics@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        pub_export_macro: true,
        additional_derives: [PartialEq, Eq],
    });
}

macro_rules! exported {
    ($(#[$doc:meta])* $module:ident, $world:literal $(, $interface:literal: $shared:path)*) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $world,
                with: { $($interface: $shared,)* },
                generate_unused_types: true,
                pub_export_macro: true,
                additional_derives: [PartialEq, Eq],
            });
        }
    };
}

exported!(
    /// `plugin`, which every component exports.
    plugin,
    "package brood:sdk-plugin; world plugin-export { export brood:policy/plugin@0.1.0; }"
);
exported!(
    /// `admission`.
    admission,
    "package brood:sdk-admission; world admission-export { export brood:policy/admission@0.1.0; }",
    "brood:policy/types@0.1.0": crate::bindings::host::brood::policy::types
);
exported!(
    /// `placement`.
    placement,
    "package brood:sdk-placement; world placement-export { export brood:policy/placement@0.1.0; }",
    "brood:policy/types@0.1.0": crate::bindings::host::brood::policy::types,
    "brood:policy/placement-types@0.1.0": crate::bindings::host::brood::policy::placement_types
);
exported!(
    /// `mutation`.
    mutation,
    "package brood:sdk-mutation; world mutation-export { export brood:policy/mutation@0.1.0; }",
    "brood:policy/types@0.1.0": crate::bindings::host::brood::policy::types
);
exported!(
    /// `billing`.
    billing,
    "package brood:sdk-billing; world billing-export { export brood:policy/billing@0.1.0; }",
    "brood:policy/types@0.1.0": crate::bindings::host::brood::policy::types
);
