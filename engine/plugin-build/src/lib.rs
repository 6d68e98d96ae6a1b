//! The author's side of a plugin: start a crate ([`scaffold()`]), turn it into a component ([`build()`]), say what a
//! component is and whether this engine could load it ([`check()`]).
//!
//! Invariant: nothing here runs a component, and nothing here needs KVM. The library reads no environment; programs
//! and directories are passed in.

mod build;
mod check;
mod component;
mod hook;
mod scaffold;
mod sdk;
mod toolchain;
mod wit;

pub use build::{BuildError, BuildSpec, Built, Lock, build};
pub use check::{CheckError, Import, Report, check};
pub use component::{ComponentError, component};
pub use hook::Hook;
pub use scaffold::{ScaffoldError, ScaffoldSpec, Sdk, scaffold};
pub use toolchain::{Programs, Toolchain, ToolchainError};
pub use wit::{PACKAGE, VERSION, texts};
