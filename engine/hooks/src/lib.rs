//! The decision points around a fork, as values.
//!
//! A *hook* is one decision: admission, placement, mutation, billing. For each there is a record of what is asked, a
//! record of what may be answered, a check that an answer keeps to its ask, and a rule by which the answers of several
//! policies become one. The records mirror `wit/`, so that a decider inside the engine and a component outside of it
//! are the same thing behind [`Decide`].
//!
//! Invariant: everything here is a function of its arguments. No clock (`now` is passed in), no I/O, no lock. Only a
//! [`Checked`] answer can be combined, and only [`check`] makes one.

pub mod admission;
pub mod billing;
mod bound;
mod builtin;
mod check;
mod decide;
mod failure;
pub mod mutation;
mod panel;
pub mod placement;
mod template;
mod text;
mod value;

pub use bound::{Bound, Calls};
pub use builtin::Ceiling;
pub use check::{Checked, Flaw, Malformed, check};
pub use decide::{
    Admission, Billing, Decide, Hook, HookName, Mutation, Now, ParseHookNameError, Placement,
};
pub use failure::{Failure, FailureKind, Heard, Said, Spent};
pub use panel::{Alone, Hearing, Panel};
pub use template::{Daughter, Placeholder, Template};
pub use value::{
    Denial, ForkRequest, HookError, Id128, Labels, Origin, Permits, Principal, Resources, Span,
};
