//! The probe's guest: its program, its tables, and the machine it runs in.
//!
//! ```text
//!  start: in eax, dx      exit to the host, which answers with a number of rounds
//!         mov ecx, eax
//!  loop:  dec ecx
//!         jnz loop
//!         jmp start
//! ```
//!
//! Invariant: the program is the same in both rings, and any fault of it is a triple fault, which ends it at once.
//! Unsafe: one memory slot.

use std::io;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{GuestMode, ProbeError, call};
use crate::host::KvmHost;

const CODE: [u8; 9] = [0xed, 0x89, 0xc1, 0xff, 0xc9, 0x75, 0xfc, 0xeb, 0xf7];
/// The port the guest asks for rounds at.
pub(super) const PORT: u16 = 0x80;

const RAM_BYTES: usize = 2 << 20;
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PAGE_DIRECTORY: u64 = 0x4000;
const TSS: u64 = 0x5000;
const PROGRAM: u64 = 0x8000;
/// I/O privilege level 3 and the bit that is always set. QEMU's emulation ignores the I/O bitmap of a busy TSS and
/// PVM-based KVM forgets the privilege level in ring 3, so both allow the port.
const RFLAGS: u64 = 0x3002;
/// Fixed part of a 64-bit TSS (SDM 3A §8.7), and an I/O bitmap for 256 ports.
const TSS_FIXED: u64 = 104;
const IO_BITMAP: u64 = 32;
const TSS_LIMIT: u64 = TSS_FIXED + IO_BITMAP;

/// A machine with one vCPU. The order of the fields is the order in which they go: memory last.
pub(super) struct Guest {
    pub(super) vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

impl Guest {
    /// One that stands at its first port read.
    pub(super) fn new(host: &KvmHost, mode: GuestMode) -> Result<Self, ProbeError> {
        let memory = memory()?;
        fill(&memory).map_err(|error| ProbeError::Memory(error.into()))?;
        let vm = host.kvm().create_vm().map_err(call("KVM_CREATE_VM"))?;
        set_slot(&vm, &memory, 0)?;
        let vcpu = vm.create_vcpu(0).map_err(call("KVM_CREATE_VCPU"))?;
        let khz = vcpu.get_tsc_khz().unwrap_or(0);
        let cpuid = host.cpuid(0, 1, khz).map_err(|error| ProbeError::Call {
            operation: "making CPUID",
            source: io::Error::other(error),
        })?;
        vcpu.set_cpuid2(&cpuid).map_err(call("KVM_SET_CPUID2"))?;
        let mut sregs = vcpu.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        enter_long_mode(&mut sregs, mode);
        vcpu.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        let regs = kvm_regs {
            rip: PROGRAM,
            rdx: u64::from(PORT),
            rflags: RFLAGS,
            ..kvm_regs::default()
        };
        vcpu.set_regs(&regs).map_err(call("KVM_SET_REGS"))?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _memory: memory,
        })
    }
}

/// 2 MiB of zeroes.
pub(super) fn memory() -> Result<GuestMemoryMmap, ProbeError> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)])
        .map_err(|error| ProbeError::Memory(error.into()))
}

/// Sets slot `index` to all of `memory`, as many 2 MiB units up; how long that took.
pub(super) fn set_slot(
    vm: &VmFd,
    memory: &GuestMemoryMmap,
    index: u32,
) -> Result<Duration, ProbeError> {
    let address = memory
        .get_host_address(GuestAddress(0))
        .map_err(|error| ProbeError::Memory(error.into()))?;
    let region = kvm_userspace_memory_region {
        slot: index,
        flags: 0,
        guest_phys_addr: u64::from(index) * RAM_BYTES as u64,
        memory_size: RAM_BYTES as u64,
        userspace_addr: address as u64,
    };
    let start = Instant::now();
    // SAFETY: the span is `memory`, which every caller drops after the machine and its vCPU.
    unsafe { vm.set_user_memory_region(region) }.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
    Ok(start.elapsed())
}

/// Writes the program and its tables: one 2 MiB page, mapped one to one for both rings.
fn fill(memory: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
    memory.write_slice(&CODE, GuestAddress(PROGRAM))?;
    for (index, descriptor) in (0..).zip(descriptors()) {
        memory.write_obj(descriptor, GuestAddress(GDT + index * 8))?;
    }
    // Present, writable, user; the page also accessed, dirty and of 2 MiB (SDM 3A §4.5).
    memory.write_obj(PDPT | 0x7, GuestAddress(PML4))?;
    memory.write_obj(PAGE_DIRECTORY | 0x7, GuestAddress(PDPT))?;
    memory.write_obj(0xe7_u64, GuestAddress(PAGE_DIRECTORY))?;
    // The bitmap's place in bytes 102 and 103, zeroes that allow, and the byte of ones that ends it.
    memory.write_obj(TSS_FIXED as u16, GuestAddress(TSS + 102))?;
    memory.write_obj(0xff_u8, GuestAddress(TSS + TSS_LIMIT))
}

/// Null, code and data of ring 0, data and code of ring 3, and a busy TSS (SDM 3A §3.4.5, §8.2.3).
const fn descriptors() -> [u64; 7] {
    [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x0000_8b00_0000_0000 | TSS << 16 | TSS_LIMIT,
        0,
    ]
}

fn enter_long_mode(sregs: &mut kvm_sregs, mode: GuestMode) {
    let (code, data) = match mode {
        GuestMode::Kernel => (0x8, 0x10),
        GuestMode::User => (0x20, 0x18),
    };
    let ring = mode.ring();
    let flat = |selector: u16, type_| kvm_segment {
        limit: u32::MAX,
        selector: selector | u16::from(ring),
        type_,
        present: 1,
        dpl: ring,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment {
        l: 1,
        db: 0,
        ..flat(code, 11)
    };
    let data = flat(data, 3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: TSS_LIMIT as u32,
        selector: 0x28,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.ldt = kvm_segment {
        unusable: 1,
        type_: 2,
        ..kvm_segment::default()
    };
    sregs.gdt = kvm_dtable {
        base: GDT,
        limit: 7 * 8 - 1,
        padding: [0; 3],
    };
    // Any fault is a triple fault, which is seen at once.
    sregs.idt = kvm_dtable::default();
    // PE, MP, ET, NE, WP, PG; PAE; long mode enabled and active.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8001_0033, PML4, 0x20, 0x500);
}
