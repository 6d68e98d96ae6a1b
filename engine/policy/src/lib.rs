//! Policy bindings: which plugin decides at which hook, with which settings, limits, grants and fail mode.
//!
//! Invariant: a [`PolicySet`] is consistent. Every mistake of a file is found in one reading and reported with its line
//! and the nearest valid key; what contradicts itself is refused, never resolved by order of lines.
//!
//! It reads text and gives values. It opens no file and runs nothing.

mod conflict;
mod limit;
mod mistake;
mod parse;
mod spec;
mod table;

pub use limit::{Breaker, Concurrency, Limits};
pub use mistake::{Mistake, Mistakes};
pub use parse::parse;
pub use spec::{
    BindingSpec, Grants, Import, LogLevel, Mode, OnFailure, PluginSpec, PolicySet, Reuse,
    StateOptions, Tenants,
};
pub use table::{Table, read};
