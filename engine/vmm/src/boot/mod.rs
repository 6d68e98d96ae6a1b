//! How a guest starts: the physical map, the kernel, the ACPI tables and the registers of the boot CPU.
//!
//! ```text
//!  bytes of a vmlinuz ──► Kernel ──┐
//!  RamLayout, AcpiConfig, cmdline, ├──► load() ──► Entry ──► configure(sregs, regs)
//!  initramfs ──────────────────────┘   (guest RAM)
//! ```
//!
//! Everything here is a function of bytes and guest memory: no ioctl, no thread, no clock. Invariant: whatever the
//! kernel image holds, the answer is a [`Kernel`] or an error, never a panic, and nothing is written outside RAM that
//! [`RamLayout`] names.

mod acpi;
mod cmdline;
mod entry;
mod kernel;
pub mod layout;
mod linux64;
mod load;
mod pvh;
#[cfg(test)]
mod testkernel;
#[cfg(test)]
mod tests;

pub use acpi::{AcpiConfig, AcpiError, MAX_CPUS, power};
pub use cmdline::{CMDLINE, CMDLINE_DEBUG, Cmdline, CmdlineError, MAX_CMDLINE};
pub use entry::Entry;
pub use kernel::{BootProtocol, Compression, ImageError, Kernel, KernelError};
pub use layout::{LayoutError, RamLayout, VirtioSlot};
pub use load::{BootSpec, LoadError, load};
