//! The plugin host with real components: what it promises, and what no component can do to it.

mod component;
mod place;

mod admission;
