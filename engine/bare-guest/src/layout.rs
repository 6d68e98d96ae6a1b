//! Where everything lies in guest-physical memory, shared by the host side, the guest program and the build script.
//!
//! Invariant: whatever the guest program needs for itself lies below [`FREE_RAM`], so all RAM from there up belongs
//! to the workload. Addresses are guest-physical and, as everything is identity-mapped, guest-virtual as well.
//!
//! ```text
//! 0x00_1000 GDT              0x00_3000 PML4, PDPT       0x00_8000 TSS with I/O bitmap
//! 0x01_0000 page directories, one per GiB
//! 0x05_0000 stacks           0x09_0000 (free)           0x10_0000 image: text, data, bss
//! 0x14_0000 device arenas    0x1d_0000 block ledger     0x1e_0000 vsock ring    0x1f_0000 nonsense scratch
//! 0x20_0000 free RAM … 3 GiB │ MMIO hole, virtio windows at 0xd000_0000 … 4 GiB │ the rest of RAM …
//! ```

/// Most vCPUs that have a stack.
pub const MAX_VCPUS: u32 = 8;
/// Smallest RAM in bytes: the guest's own 2 MiB and 2 MiB of workload.
pub const MIN_RAM: u64 = 4 << 20;
/// First byte that is not mapped whatever the size of RAM: there is one page directory for each GiB below it.
pub const MAPPED_TOP: u64 = 64 << 30;

/// Global descriptor table.
pub const GDT: u64 = 0x1000;
/// Top page table.
pub const PML4: u64 = 0x3000;
/// The one page-directory-pointer table, for the low 512 GiB.
pub const PDPT: u64 = 0x4000;
/// Task state segment, which ends with the I/O permission bitmap. VMX wants one in TR (SDM 3C §27.3.1.2), and PVM-based KVM
/// forgets the I/O privilege level when it runs ring 3 natively, so that the bitmap has to allow every port.
pub const TSS: u64 = 0x8000;
/// Bytes of the fixed part of the task state segment (SDM 3A §8.7); the bitmap follows.
pub const TSS_FIXED_BYTES: u64 = 104;
/// Bytes of the I/O bitmap, a bit for each of 2^16 ports.
pub const IO_BITMAP_BYTES: u64 = 0x2000;
/// First of the page directories.
pub const PAGE_DIRECTORIES: u64 = 0x1_0000;

/// First stack; vCPU `n` has the [`STACK_BYTES`] from `STACKS + n * STACK_BYTES`.
pub const STACKS: u64 = 0x5_0000;
/// Bytes of one stack.
pub const STACK_BYTES: u64 = 0x8000;

/// Load address and entry point of the image.
pub const IMAGE: u64 = 0x10_0000;
/// Most bytes of the image with its zeroed data.
pub const IMAGE_BYTES: u64 = 0x4_0000;

/// Driver state, queues and buffers; device `n` has the [`ARENA_BYTES`] from `ARENAS + n * ARENA_BYTES`.
pub const ARENAS: u64 = 0x14_0000;
/// Bytes of one arena.
pub const ARENA_BYTES: u64 = 0x1_0000;
/// What the guest wrote to which block of the disk.
pub const LEDGER: u64 = 0x1d_0000;
/// Bytes of the ledger.
pub const LEDGER_BYTES: u64 = 0x1_0000;
/// Bytes received over vsock and not yet echoed.
pub const VSOCK_RING: u64 = 0x1e_0000;
/// Bytes of the vsock ring, a power of two; also the receive credit that the guest advertises.
pub const VSOCK_RING_BYTES: u64 = 0x1_0000;
/// Queue memory of the nonsense driver. It comes last: a device that believes an absurd length runs into free RAM.
pub const SCRATCH: u64 = 0x1f_0000;
/// Bytes of the scratch area.
pub const SCRATCH_BYTES: u64 = 0x1_0000;

/// First byte of RAM that the guest program never uses on its own account.
pub const FREE_RAM: u64 = 0x20_0000;
/// Start of the MMIO hole: RAM below it is contiguous from 0.
pub const HOLE_START: u64 = 3 << 30;
/// End of the MMIO hole: RAM that does not fit below goes on here.
pub const HOLE_END: u64 = 4 << 30;

/// Registers of virtio-mmio device 0; device `n` has [`VIRTIO_WINDOW_BYTES`] from `VIRTIO_WINDOWS + n * VIRTIO_WINDOW_BYTES`.
pub const VIRTIO_WINDOWS: u64 = 0xd000_0000;
/// Bytes of one register window.
pub const VIRTIO_WINDOW_BYTES: u64 = 0x1000;
/// Number of windows that the guest probes: devices 0 to 8.
pub const MAX_DEVICES: u64 = 9;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The ranges of guest-physical memory that RAM of `ram_bytes` occupies, as (first, end): below the hole, and above
/// it (empty where `ram_bytes` fits below).
#[must_use]
pub const fn ram_ranges(ram_bytes: u64) -> [(u64, u64); 2] {
    if ram_bytes <= HOLE_START {
        [(0, ram_bytes), (HOLE_END, HOLE_END)]
    } else {
        [
            (0, HOLE_START),
            (HOLE_END, HOLE_END + (ram_bytes - HOLE_START)),
        ]
    }
}

/// First address of the stack's red end of a vCPU: what the System V ABI wants in `rsp` at a function's entry.
#[must_use]
pub const fn stack_pointer(vcpu: u32) -> u64 {
    STACKS + (vcpu as u64 + 1) * STACK_BYTES - 8
}
