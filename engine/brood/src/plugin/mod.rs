//! Plugins from the command line's side: `brood plugin …`, and how this program compiles components for the host.

pub mod child;
