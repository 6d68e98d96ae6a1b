//! The state in which a vCPU starts: ring 3 of 64-bit mode at the image's entry point, on its own stack.
//!
//! Every vCPU, the boot processor or not, starts this way; there is no INIT/SIPI. Invariant: nothing here calls the kernel.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_mp_state, kvm_regs, kvm_segment, kvm_sregs,
};

use crate::layout;

/// CR0: PE, MP, ET, NE, WP, PG.
const CR0: u64 = 0x8001_0033;
/// CR4: PAE, OSFXSR, OSXMMEXCPT. Rust code uses SSE.
const CR4: u64 = 0x620;
/// EFER: LME, LMA.
const EFER: u64 = 0x500;
/// RFLAGS: IOPL 3 and the bit that is always set; IF is clear.
const RFLAGS: u64 = 0x3002;

/// Number of entries in the descriptor table.
pub(crate) const GDT_ENTRIES: usize = 7;
const DATA_SELECTOR: u16 = 0x18 | 3;
const CODE_SELECTOR: u16 = 0x20 | 3;
const TASK_SELECTOR: u16 = 0x28;
/// Last byte of the TSS: the one of ones that ends the I/O bitmap (SDM 1 §19.5.2).
const TASK_LIMIT: u32 = (layout::TSS_FIXED_BYTES + layout::IO_BITMAP_BYTES) as u32;

/// The descriptor table that the selectors index: null, two unused, user data, user code, and the two halves of the TSS's.
pub(crate) const fn gdt() -> [u64; GDT_ENTRIES] {
    // Busy 64-bit TSS, present; base in bits 16–39 (SDM 3A §8.2.3). It is below 16 MiB.
    let task = 0x0000_8b00_0000_0000 | layout::TSS << 16 | TASK_LIMIT as u64;
    [
        0,
        0,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        task,
        0,
    ]
}

/// One vCPU's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuEntry {
    pub(crate) index: u32,
    pub(crate) ram_bytes: u64,
}

impl VcpuEntry {
    /// The vCPU's index, from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Sets everything in `sregs` that the guest depends on and keeps the rest (the local APIC's base), so pass what
    /// `KVM_GET_SREGS` gave. `KVM_SET_CPUID2` comes before the `KVM_SET_SREGS`, which checks against it.
    pub const fn fill_sregs(&self, sregs: &mut kvm_sregs) {
        let data = flat(DATA_SELECTOR, 3);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.cs = kvm_segment {
            l: 1,
            db: 0,
            ..flat(CODE_SELECTOR, 11)
        };
        sregs.tr = kvm_segment {
            base: layout::TSS,
            limit: TASK_LIMIT,
            selector: TASK_SELECTOR,
            dpl: 0,
            s: 0,
            db: 0,
            g: 0,
            ..flat(0, 11)
        };
        sregs.ldt = kvm_segment {
            unusable: 1,
            present: 0,
            s: 0,
            ..flat(0, 2)
        };
        sregs.gdt = kvm_dtable {
            base: layout::GDT,
            limit: (GDT_ENTRIES * 8 - 1) as u16,
            padding: [0; 3],
        };
        // No interrupt table: any exception is a triple fault, which the host sees as a shutdown.
        sregs.idt = kvm_dtable {
            base: 0,
            limit: 0,
            padding: [0; 3],
        };
        (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.cr8) = (CR0, 0, layout::PML4, CR4, 0);
        sregs.efer = EFER;
    }

    /// Sets all general registers.
    pub const fn fill_regs(&self, regs: &mut kvm_regs) {
        *regs = kvm_regs {
            rdi: self.index as u64,
            rsi: self.ram_bytes,
            rsp: layout::stack_pointer(self.index),
            rip: layout::IMAGE,
            rflags: RFLAGS,
            rax: 0,
            rbx: 0,
            rcx: 0,
            rdx: 0,
            rbp: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
        };
    }

    /// The state for `KVM_SET_MP_STATE`: with an in-kernel interrupt controller every vCPU but the first waits for an INIT otherwise.
    #[must_use]
    pub const fn mp_state(&self) -> kvm_mp_state {
        kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        }
    }
}

/// A present flat segment of ring 3 that spans 4 GiB.
const fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}
