//! The versions of `brood:policy` that this host speaks, side by side.
//!
//! ```text
//!  component built for 0.1 ─┐                 ┌─ v0_1: convert ─┐
//!                           ├─ by its names ──┤                 ├─► records of brood-hooks
//!  component built for 0.2 ─┘                 └─ v0_2: convert ─┘
//! ```
//!
//! Invariant: a version that was served once is served for ever. A new one is a module beside the others: what
//! wasmtime generates from its WIT, and conversions to the records of `brood-hooks`, which follow the newest. Nothing
//! else in this crate knows which version a component was built for.

mod v0_1;

#[cfg(test)]
mod growth;

use brood_hooks::{Admission, Billing, Hook, HookError, Mutation, Placement};
use brood_policy::Import;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre, Linker};

use crate::call::Context;
use crate::child::Diagnostic;
use crate::version::Description;

/// All that this host speaks, the oldest first. A component that has a hook in several is called in the newest.
pub(crate) const DIALECTS: &[Dialect] = &[v0_1::DIALECT];

/// What of a hook is called, in whatever version it is.
pub(crate) trait Answers<H: Hook>: Send + Sync {
    /// Calls it. The outer error is wasmtime's, the inner one the component's.
    fn answer(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        ask: &H::Ask,
    ) -> wasmtime::Result<Result<H::Answer, HookError>>;
}

/// What `plugin.prepare` makes of settings.
pub(crate) type Prepared = Result<Vec<(String, Vec<u8>)>, Vec<Diagnostic>>;

/// The interface `plugin`, in whatever version it is.
pub(crate) trait Introduces {
    fn describe(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
    ) -> wasmtime::Result<Description>;

    fn prepare(
        &self,
        store: &mut Store<Context>,
        instance: &Instance,
        document: &str,
    ) -> wasmtime::Result<Prepared>;
}

/// The hooks of a component; none for one that it does not have.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) admission: Option<Box<dyn Answers<Admission>>>,
    pub(crate) placement: Option<Box<dyn Answers<Placement>>>,
    pub(crate) mutation: Option<Box<dyn Answers<Mutation>>>,
    pub(crate) billing: Option<Box<dyn Answers<Billing>>>,
}

/// One version of the package.
pub(crate) struct Dialect {
    /// Its full name.
    pub(crate) name: &'static str,
    /// How the versions begin that are compatible with it, as `0.1.`.
    pub(crate) prefix: &'static str,
    /// Gives a linker the interfaces of types alone.
    pub(crate) types: fn(&mut Linker<Context>) -> wasmtime::Result<()>,
    /// Gives a linker one import.
    pub(crate) import: fn(&mut Linker<Context>, Import) -> wasmtime::Result<()>,
    /// Finds the hook that an interface is, if it is one.
    pub(crate) hook: fn(&str, &InstancePre<Context>, &mut Hooks) -> wasmtime::Result<Found>,
    /// Finds the interface `plugin`.
    pub(crate) introduces: fn(&InstancePre<Context>) -> wasmtime::Result<Box<dyn Introduces>>,
}

/// Whether an exported interface is a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Hook,
    Other,
}

/// The versions, for messages.
pub(crate) fn served(dialects: &[Dialect]) -> String {
    let names: Vec<&str> = dialects.iter().map(|dialect| dialect.name).collect();
    names.join(" and ")
}
