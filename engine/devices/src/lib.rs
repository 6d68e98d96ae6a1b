//! Device models: virtio-mmio block, vsock and rng, the serial console, VMGenID.
//!
//! Every model is a plain value of one process. fork(2) copies the whole process, so a model has no thread, no timer
//! and no asynchronous I/O of its own; what the copy must not keep (event descriptors, sockets) is given up with
//! `forget_*` and replaced with `attach`. Register accesses come from vCPU threads and queue work from the main
//! thread, all under one lock of the owner, hence `&mut self` everywhere.
//!
//! Invariant: nothing a guest, a client of the vsock listener or a backing file does panics, blocks or loops without
//! bound in here. The guest's nonsense stops that one device until its driver resets it.

pub mod console;
pub mod virtio;
pub mod vmgenid;

/// Guest memory as every model sees it: addressed by guest physical address, no dirty bitmap.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
