//! A bare-metal guest of a few pages for tests and benches of the fork path.
//!
//! Linux does not boot where KVM emulates guest kernel mode; this guest runs natively there, because it never enters
//! kernel mode: each vCPU starts in ring 3 of long mode, all memory identity-mapped, I/O privilege level 3, interrupts off, and
//! runs what the host tells it through the port device of [`mailbox`]. The same image runs on SVM and VMX.
//!
//! Use: map RAM where [`layout::ram_ranges`] says, [`load`] into it, create the vCPUs, give each its
//! [`VcpuEntry`]'s registers, and answer its port accesses with a [`VcpuMailbox`].
//!
//! The program is in `guest/`; `layout`, [`mailbox`] and [`pattern`] are compiled into both sides.

mod entry;
pub mod layout;
mod load;
pub mod mailbox;
mod page_table;
pub mod pattern;
mod vcpu_mailbox;

pub use entry::VcpuEntry;
pub use load::{LoadError, load};
pub use vcpu_mailbox::{Said, VcpuMailbox};
