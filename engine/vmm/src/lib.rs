//! The KVM machine: chunked guest memory, vCPUs, boot, ACPI, and the state a fork carries over.
//!
//! It knows nothing of devices, of the cell that owns it, or of why a machine is forked. A fork copies the process
//! with fork(2); this crate supplies what must happen on both sides of it: [`Vcpus::park`] and [`Machine::save`]
//! before, [`Machine::create`] over the same [`GuestRam`] and [`Vcpus::start`] after.

pub mod boot;
mod clock;
mod collapse;
mod fault_around;
mod futex;
mod host;
mod lazy;
mod machine;
mod probe;
mod ram;
mod seal;
mod thread;
mod vcpu;
mod vcpu_state;
mod walk;

pub use clock::{ClockPolicy, now};
pub use collapse::EmptyUnit;
pub use host::{HostError, KvmHost};
pub use kvm_ioctls::VcpuFd;
pub use lazy::{LazyError, MissingPages, Userfault};
pub use machine::{Machine, MachineError, MachineState};
pub use probe::{
    GuestMode, GuestSpeed, ProbeError, SlotTimes, fault_around_control, guest_speed,
    memfd_collapse, slot_times,
};
pub use ram::{GuestRam, HUGE_PAGE, RamError, RamRegion};
pub use seal::{SealError, SealReport, SealedRam, SealedRun};
pub use thread::Helper;
pub use vcpu::{ExitHandler, IoWait, VcpuEnd, VcpuError, VcpuSlot, VcpuTimes, Vcpus};
pub use vcpu_state::{StateError, VcpuState};
pub use walk::WalkError;
