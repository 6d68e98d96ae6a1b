//! Guest images: a kernel's modules, initramfs archives, root disks.
//!
//! Everything here turns files into files, on the host, before a machine exists. Invariant: the same input gives the
//! same bytes, and nothing needs root, a mount or a write outside the directory that was named.

mod command;
pub mod disk;
pub mod initramfs;
pub mod modules;

pub use command::CommandError;
