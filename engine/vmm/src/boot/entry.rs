//! The registers with which the boot CPU starts. Invariant: everything the boot protocol fixes is set here, whatever
//! the values held before.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::GuestAddress;

use super::kernel::BootProtocol;
use super::layout;

/// CR0: protected mode, and the bit that is always one.
const CR0_PROTECTED: u64 = 1 << 0 | 1 << 4;
/// CR0: paging.
const CR0_PAGING: u64 = 1 << 31;
/// CR4: physical address extension, needed for long mode.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled and active.
const EFER_LONG_MODE: u64 = 1 << 8 | 1 << 10;
/// RFLAGS: the bit that is always one; interrupts off.
const RFLAGS: u64 = 1 << 1;

/// Descriptor index of the code segment: Linux's `__BOOT_CS`.
const CODE: usize = 2;
/// Descriptor index of the data segment: Linux's `__BOOT_DS`.
const DATA: usize = 3;
/// Descriptor index of the task state segment.
const TASK: usize = 4;

/// Flat segments with limit 4 GiB: access byte, then the flags G, D/B and L (Intel SDM vol. 3, §3.4.5).
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA_FLAT: u64 = 0x00cf_9300_0000_ffff;
/// A busy TSS of 0x68 bytes at zero: never used, but VMX insists on one.
const TASK_BUSY: u64 = 0x0000_8b00_0000_0067;

/// How the boot CPU starts: given by [`load`](super::load()).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) protocol: BootProtocol,
    pub(super) rip: u64,
    pub(super) argument: GuestAddress,
}

impl Entry {
    /// The protocol in use.
    pub const fn protocol(&self) -> BootProtocol {
        self.protocol
    }

    /// The first instruction.
    pub const fn rip(&self) -> u64 {
        self.rip
    }

    /// Puts the registers of the boot CPU into `sregs` (as read from the new vCPU) and `regs`.
    ///
    /// PVH: 32-bit protected mode without paging, flat segments, `ebx` = start info. 64-bit: long mode with the first
    /// 4 GiB mapped one to one, `rsi` = zero page. Interrupts are off in both.
    pub fn configure(&self, sregs: &mut kvm_sregs, regs: &mut kvm_regs) {
        let table = descriptors(self.protocol);
        let [_, _, code, data, task] = table;
        sregs.cs = segment(CODE, code);
        let data = segment(DATA, data);
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.tr = segment(TASK, task);
        sregs.gdt = kvm_dtable {
            base: layout::GDT.0,
            limit: (size_of_val(&table) - 1) as u16,
            ..kvm_dtable::default()
        };
        // Nobody has set up interrupts: with an empty table any is a triple fault, which is seen at once.
        sregs.idt = kvm_dtable::default();
        *regs = kvm_regs {
            rip: self.rip,
            rflags: RFLAGS,
            ..kvm_regs::default()
        };
        match self.protocol {
            BootProtocol::Pvh => {
                sregs.cr0 = CR0_PROTECTED;
                sregs.cr3 = 0;
                sregs.cr4 = 0;
                sregs.efer = 0;
                regs.rbx = self.argument.0;
            }
            BootProtocol::Linux64 => {
                sregs.cr0 = CR0_PROTECTED | CR0_PAGING;
                sregs.cr3 = layout::PAGE_TABLES.0;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LONG_MODE;
                regs.rsi = self.argument.0;
            }
        }
    }
}

/// The descriptor table of the boot CPU, as it lies at [`layout::GDT`].
pub(super) const fn descriptors(protocol: BootProtocol) -> [u64; 5] {
    let code = match protocol {
        BootProtocol::Pvh => CODE_32,
        BootProtocol::Linux64 => CODE_64,
    };
    [0, 0, code, DATA_FLAT, TASK_BUSY]
}

/// The hidden part of a segment register, out of its descriptor. All bases are zero.
const fn segment(index: usize, descriptor: u64) -> kvm_segment {
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let granularity = (descriptor >> 55) as u8 & 1;
    kvm_segment {
        base: 0,
        limit: if granularity == 1 {
            limit << 12 | 0xfff
        } else {
            limit
        },
        selector: (index * 8) as u16,
        type_: (descriptor >> 40) as u8 & 0xf,
        s: (descriptor >> 44) as u8 & 1,
        dpl: (descriptor >> 45) as u8 & 3,
        present: (descriptor >> 47) as u8 & 1,
        avl: (descriptor >> 52) as u8 & 1,
        l: (descriptor >> 53) as u8 & 1,
        db: (descriptor >> 54) as u8 & 1,
        g: granularity,
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(protocol: BootProtocol) -> (kvm_sregs, kvm_regs) {
        let entry = Entry {
            protocol,
            rip: 0x100_0200,
            argument: GuestAddress(0x6000),
        };
        // What stands there before must not shine through.
        let mut sregs = kvm_sregs {
            cr0: u64::MAX,
            cr3: 7,
            cr4: u64::MAX,
            efer: u64::MAX,
            apic_base: 0xfee0_0900,
            ..kvm_sregs::default()
        };
        let mut regs = kvm_regs {
            rax: 1,
            rsi: 2,
            rflags: u64::MAX,
            ..kvm_regs::default()
        };
        entry.configure(&mut sregs, &mut regs);
        (sregs, regs)
    }

    #[test]
    fn pvh_starts_in_flat_32_bit_mode_without_paging() {
        let (sregs, regs) = configured(BootProtocol::Pvh);
        assert_eq!(
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer),
            (0x11, 0, 0, 0)
        );
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.limit), (1, 0, u32::MAX));
        assert_eq!((sregs.ds.type_ & 2, sregs.ds.limit), (2, u32::MAX));
        assert_eq!((sregs.tr.limit, sregs.tr.type_), (0x67, 11));
        assert_eq!((regs.rip, regs.rbx, regs.rsi), (0x100_0200, 0x6000, 0));
        assert_eq!((regs.rflags, regs.rax), (2, 0));
    }

    #[test]
    fn linux64_starts_in_long_mode_with_boot_selectors() {
        let (sregs, regs) = configured(BootProtocol::Linux64);
        assert_eq!(sregs.cr0, 0x8000_0011);
        assert_eq!((sregs.cr3, sregs.cr4), (layout::PAGE_TABLES.0, 0x20));
        assert_eq!(sregs.efer, 0x500);
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.selector), (0, 1, 0x10));
        assert_eq!(sregs.ds.selector, 0x18);
        assert_eq!((regs.rsi, regs.rbx, regs.rflags), (0x6000, 0, 2));
    }

    #[test]
    fn local_apic_base_is_left_alone() {
        let (sregs, _) = configured(BootProtocol::Pvh);
        assert_eq!(sregs.apic_base, 0xfee0_0900);
    }

    #[test]
    fn descriptor_table_matches_the_segment_registers() {
        let (sregs, _) = configured(BootProtocol::Linux64);
        assert_eq!(sregs.gdt.base, layout::GDT.0);
        let entries = (usize::from(sregs.gdt.limit) + 1) / 8;
        assert_eq!(entries, descriptors(BootProtocol::Linux64).len());
        assert!(usize::from(sregs.tr.selector) / 8 < entries);
    }
}
