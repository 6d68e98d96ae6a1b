//! The plugin host with real components: what it promises, and what no component can do to it.
#![expect(clippy::panic, reason = "a helper of a test ends the test")]

mod component;
mod place;

mod admission;
mod draft;
mod fault;
mod frozen;
mod hook;
mod load;
mod mode;
mod policies;
mod prepared;
mod record;
mod swap;
