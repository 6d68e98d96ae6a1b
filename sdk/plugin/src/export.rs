//! [`export!`](crate::export!): from a type that implements the traits to the exports of a component.
//!
//! Invariant: nothing is emitted away from WebAssembly, so a plugin is an ordinary crate to `cargo test`. In a
//! component, a panic of the plugin reaches the host's log with its text before the call traps.

/// Exports a type's hooks: `export!(Quota: admission)`, or several: `export!(Both: admission, billing)`.
///
/// The type implements [`Plugin`](crate::Plugin) and the trait of each hook that is named. Hooks: `admission`, `placement`,
/// `mutation`, `billing`. A crate exports once.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Component;
            impl $crate::bindings::plugin::exports::brood::policy::plugin::Guest for Component {
                fn describe() -> $crate::plugin::Description {
                    $crate::glue::describe::<$plugin>()
                }
                fn prepare(
                    document: String,
                ) -> Result<Vec<(String, Vec<u8>)>, Vec<$crate::plugin::Diagnostic>> {
                    $crate::glue::prepare::<$plugin>(&document)
                }
            }
            $crate::bindings::plugin::export!(Component with_types_in $crate::bindings::plugin);
            $($crate::__export_hook!($plugin, $hook);)+
        };
    };
}

/// One hook of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    ($plugin:ty, admission) => {
        impl $crate::bindings::admission::exports::brood::policy::admission::Guest for Component {
            fn review(
                items: Vec<$crate::admission::Item>,
            ) -> Result<Vec<$crate::admission::Verdict>, $crate::types::HookError> {
                $crate::glue::enter();
                <$plugin as $crate::Admission>::review(items)
            }
        }
        $crate::bindings::admission::export!(Component with_types_in $crate::bindings::admission);
    };
    ($plugin:ty, placement) => {
        impl $crate::bindings::placement::exports::brood::policy::placement::Guest for Component {
            fn rank(
                question: $crate::placement::Question,
            ) -> Result<$crate::placement::Answer, $crate::types::HookError> {
                $crate::glue::enter();
                <$plugin as $crate::Placement>::rank(question)
            }
        }
        $crate::bindings::placement::export!(Component with_types_in $crate::bindings::placement);
    };
    ($plugin:ty, mutation) => {
        impl $crate::bindings::mutation::exports::brood::policy::mutation::Guest for Component {
            fn plan_daughters(
                brief: $crate::mutation::Brief,
            ) -> Result<$crate::mutation::Outcome, $crate::types::HookError> {
                $crate::glue::enter();
                <$plugin as $crate::Mutation>::plan_daughters(brief)
            }
        }
        $crate::bindings::mutation::export!(Component with_types_in $crate::bindings::mutation);
    };
    ($plugin:ty, billing) => {
        impl $crate::bindings::billing::exports::brood::policy::billing::Guest for Component {
            fn rate(
                batch: $crate::billing::Batch,
            ) -> Result<$crate::billing::Rated, $crate::types::HookError> {
                $crate::glue::enter();
                <$plugin as $crate::Billing>::rate(batch)
            }
        }
        $crate::bindings::billing::export!(Component with_types_in $crate::bindings::billing);
    };
}
